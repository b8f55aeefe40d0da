"""What a trained network says of patches, and how sure it is of the parameters."""

from math import sqrt

import numpy as np
import torch

__all__ = [
    "angular_difference",
    "fit_std_scale",
    "linear_weights",
    "sample_grid",
    "propagate_std",
    "read_image",
    "read_large_patches",
    "read_patches",
]

_FEWEST = 20  # errors that tell what a standard deviation is worth
_LEAST = 1e-3  # of the bounds: nothing is known without error


def read_patches(network, X, batch_size=64):
    """Run a network on patches, in batches.

    Parameters
    ----------
    network : PSFNetwork or DenseNetwork
        In evaluation mode. Of a dense one the four squares around the centre count.
    X : ndarray of shape (n, H, W)
        Patches of any real dtype.
    batch_size : int
        Patches at a time.

    Returns
    -------
    encoding, variance : ndarray of shape (n, E)
        Encoded parameters and their variances, float64.
    invalid : ndarray of shape (n,)
        Probability that a patch has no texture.
    """
    device = network.target_mean.device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            block = np.ascontiguousarray(X[start : start + batch_size])
            # Large offsets are taken off before the cast to 32 bits can round texture away.
            block = block - block.mean((1, 2), keepdims=True, dtype=np.float64)
            batch = torch.as_tensor(block, dtype=torch.float32, device=device)
            parts.append(
                [_centre(part.double().cpu().numpy(), network) for part in network.read(batch)]
            )
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def read_large_patches(network, X, window, batch_size=64):
    """Run a network on patches larger than its own: read their windows, and combine what they say.

    Windows overlap by half. Their encodings are averaged, each weighted by its precision and by how
    probably it is valid. Windows of one texture err together, so that the variance is that of one
    window, their harmonic mean; a calibration says how much smaller it is.

    Parameters
    ----------
    network : PSFNetwork
        In evaluation mode.
    X : ndarray of shape (n, H, H)
        Patches; H is a multiple of half a window.
    window : int
        Size of the patches that the network knows, pixels.
    batch_size : int
        Windows at a time.

    Returns
    -------
    encoding, variance : ndarray of shape (n, E)
        Encoded parameters and their variances, float64.
    invalid : ndarray of shape (n,)
        Probability that a patch has no texture: that of its most valid quarter of windows.
    """
    starts = range(0, X.shape[1] - window + 1, window // 2)
    readings = [
        read_patches(network, X[:, y : y + window, x : x + window], batch_size)
        for y in starts
        for x in starts
    ]
    encoding, variance, invalid = (np.stack(part) for part in zip(*readings, strict=True))
    precision = np.maximum(1 - invalid, 1e-6)[..., None] / variance
    total = precision.sum(0)
    weight = np.maximum(1 - invalid, 1e-6).sum(0)[:, None]
    return (precision * encoding).sum(0) / total, weight / total, np.quantile(invalid, 0.25, axis=0)


def _centre(part, network):
    """What a dense network says of the centre of patches; others say it anyway."""
    if not hasattr(network, "stride"):
        return part
    height, width = part.shape[1:3]
    rows, columns = (slice((n - 1) // 2, n // 2 + 1) for n in (height, width))
    return part[:, rows, columns].mean((1, 2))


def read_image(network, image, tile=1152, halo=None):
    """Run a fully convolutional network on an image, in overlapping tiles.

    Parameters
    ----------
    network : DenseNetwork
        In evaluation mode.
    image : ndarray of shape (H, W)
        Of any real dtype.
    tile : int
        Pixels along a side that are read at a time, a multiple of 192.
    halo : int or None
        Pixels around a tile that the network sees too; None is the network's own. Another must be a
        multiple of 64, or of 192 for "unet", so that windows lie as in the whole image.

    Returns
    -------
    encoding, variance : ndarray of shape (h, w, E)
        Encoded parameters and their variances for squares of `network.stride` pixels,
        ``h = ceil(H / stride)``; float64.
    invalid : ndarray of shape (h, w)
        Probability that there is no texture.
    """
    device, step = network.target_mean.device, network.stride
    halo = network.halo if halo is None else halo
    shape = tuple(-(-n // step) for n in image.shape)
    mean = image.mean(dtype=np.float64)
    maps = [np.empty((*shape, network.n_encoded)) for _ in range(2)] + [np.empty(shape)]
    with torch.inference_mode():
        for top in range(0, image.shape[0], tile):
            for left in range(0, image.shape[1], tile):
                first = [max(0, start - halo) for start in (top, left)]
                block = image[
                    tuple(
                        slice(a, start + tile + halo)
                        for a, start in zip(first, (top, left), strict=True)
                    )
                ]
                # Large offsets are taken off before the cast to 32 bits can round texture away.
                block = torch.as_tensor(np.asarray(block - mean, np.float32), device=device)
                place, source = (
                    tuple(
                        slice((start - offset) // step, (start - offset + tile) // step)
                        for start, offset in zip((top, left), offsets, strict=True)
                    )
                    for offsets in ((0, 0), first)
                )
                for whole, part in zip(maps, network.read(block[None]), strict=True):
                    whole[place] = part[0].double().cpu().numpy()[source]
    return tuple(maps)


def sample_grid(values, places, wanted):
    """Interpolate values on a grid bilinearly; beyond its border the outermost hold.

    Parameters
    ----------
    values : ndarray of shape (h, w) or (h, w, k)
        Values at the crossings of rows and columns.
    places, wanted : pair of array-like
        Rows and columns of the grid, ascending, and those that are asked for.

    Returns
    -------
    ndarray of shape (gy, gx) or (gy, gx, k)
        Values there.

    Examples
    --------
    >>> import numpy as np
    >>> sample_grid(np.array([[0.0, 2.0]]), ([0], [3, 7]), ([0], [3, 4, 9]))
    array([[0. , 0.5, 2. ]])
    """
    down, across = map(linear_weights, places, wanted)
    return np.einsum("ah,hw...,bw->ab...", down, values, across, optimize=True)


def linear_weights(places, wanted):
    """Return the weights (wanted, places) of a linear interpolation, constant beyond its ends."""
    return np.stack([np.interp(wanted, places, one) for one in np.eye(len(places))], 1)


def propagate_std(model, encoding, variance, scale=1.0):
    """Propagate the variance of an encoding through its decoding, by finite differences.

    Of the changes upwards and downwards the larger counts, because decoding clips at the border of
    what is possible.

    Parameters
    ----------
    model : PSFModel
        The family.
    encoding, variance : ndarray of shape (n, E)
        Encoded parameters and their variances, taken as independent.
    scale : float or ndarray of shape (P,)
        Factor that calibrates the result.

    Returns
    -------
    ndarray of shape (n, P)
        Standard deviations of the parameters, at least a thousandth of the family's bounds; that of
        an angle is at most ``period / sqrt(12)``, the standard deviation of an unknown one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import make_psf_model
    >>> propagate_std(make_psf_model("gaussian-1"), np.array([[3.0]]), np.array([[0.25]]))
    array([[0.5]])
    """
    parameters, total = model.decode(encoding), 0.0
    for i, sigma in enumerate(np.sqrt(variance).T):
        step = np.zeros_like(encoding)
        step[:, i] = sigma
        changes = [
            np.abs(angular_difference(model.decode(moved), parameters, model.periods))
            for moved in (encoding + step, encoding - step)
        ]
        total = total + np.maximum(*changes) ** 2
    low, high = model.bounds.T
    std = np.maximum(np.sqrt(total), _LEAST * (high - low)) * scale
    for i, period in enumerate(model.periods):
        if period is not None:
            std[:, i] = np.minimum(std[:, i], period / sqrt(12))
    return std


def fit_std_scale(error, std):
    """Return the factors by which standard deviations are to be multiplied.

    Errors have longer tails than a normal density, so that no factor puts both 68.3 % of them
    within one standard deviation and 95.4 % within two: this is the geometric mean of the factors
    that do the one and the other.

    Parameters
    ----------
    error, std : ndarray of shape (n, P)
        Absolute errors, and the standard deviations that were stated.

    Returns
    -------
    ndarray of shape (P,)
        Between 0.1 and 10; 1 with fewer than 20 errors.

    Examples
    --------
    >>> import numpy as np
    >>> error = np.abs(np.random.RandomState(0).normal(0, 2, (10000, 1)))
    >>> fit_std_scale(error, np.ones((10000, 1))).round(1)
    array([2.])
    """
    if len(error) < _FEWEST:
        return np.ones(error.shape[1])
    one, two = np.quantile(error / np.maximum(std, 1e-9), (0.683, 0.954), axis=0)
    return np.clip(np.sqrt(one * two / 2), 0.1, 10)


def angular_difference(a, b, periods):
    """Return a - b, angles by the shorter way round.

    Parameters
    ----------
    a, b : ndarray of shape (n, P)
        Parameters.
    periods : sequence of float or None
        Period of each parameter that is an angle, None for the others.

    Returns
    -------
    ndarray of shape (n, P)
        Differences; those of an angle are at most half a period.

    Examples
    --------
    >>> import numpy as np
    >>> angular_difference(np.array([[0.25]]), np.array([[3.0]]), [3.0])
    array([[0.25]])
    """
    difference = a - b
    for i, period in enumerate(periods):
        if period is not None:
            difference[:, i] -= period * np.round(difference[:, i] / period)
    return difference
