"""What each network for patches learns from when it is given sharp images."""

from .networks.seen_batches import POOL_SIZE, SeenBatches
from .simulation import PatchStream, RegionPatchStream, VaryingBlurStream

__all__ = ["blurred_batches"]


def blurred_batches(network, images, model, size, *, n_patches, **options):
    """Endless batches of blurred images and their encoded parameters.

    Parameters
    ----------
    network : PSFNetwork or DenseNetwork
        "unet" gets images of a varying PSF, "compact-directed" and "polar" parts of patches, which
        is what the network of whole images gives them to read, others patches.
    images : list of ndarray
        Sharp images.
    model : PSFModel
        Family.
    size : int
        Pixels along a side.
    n_patches : int
        Patches that the whole training may see.
    **options
        Batch size, camera, device and random state, of the streams.

    Returns
    -------
    iterable of (Tensor, Tensor)
        Images, or what "polar" has seen of them, and encoded parameters.
    """
    options = {"psf_model": model} | options
    if network.architecture == "unet":
        stream = VaryingBlurStream(images, image_size=size, label_stride=network.stride, **options)
        return ((X, model.encode(y.movedim(1, -1))) for X, y in stream)
    if network.architecture not in ("compact-directed", "polar"):
        stream = PatchStream(images, patch_size=size, **options)
        return ((X, model.encode(y)) for X, y in stream)
    stream = RegionPatchStream(images, patch_size=size, **options)
    if network.architecture == "compact-directed":
        return ((X[:, 0], model.encode(y[:, 0])) for X, y in stream)
    return SeenBatches(
        stream,
        model,
        batch_size=options["batch_size"],
        pool_size=min(POOL_SIZE, n_patches),
        random_state=options["random_state"],
    )
