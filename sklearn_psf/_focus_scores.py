"""One blur score per image: by a network at two binnings, or by a classical measure."""

import numpy as np
from skimage.transform import downscale_local_mean

from .metrics import FOCUS_MEASURES

__all__ = ["bin_image", "score_by_measure", "score_by_regressor"]

_BINNINGS = (1, 2)
_MOST_INVALID = 0.5


def bin_image(image, factor):
    """Average blocks of pixels; what does not fill a block is left out.

    Parameters
    ----------
    image : ndarray of shape (H, W)
        The image.
    factor : int
        Pixels per block and axis.

    Returns
    -------
    ndarray of shape (H // factor, W // factor)
        float32.

    Examples
    --------
    >>> import numpy as np
    >>> bin_image(np.arange(4.0).reshape(2, 2), 2).tolist()
    [[1.5]]
    """
    height, width = (n // factor * factor for n in image.shape)
    return downscale_local_mean(image[:height, :width], factor).astype(np.float32)


def _patches(image, size, n_side):
    """Up to `n_side` x `n_side` patches, spread evenly over the image."""
    starts = []
    for length in image.shape:
        count = min(n_side, max(1, -(-length // size)))
        last = length - size
        starts.append(np.unique(np.linspace(0 if count > 1 else last / 2, last, count).astype(int)))
    return [image[i : i + size, j : j + size] for i in starts[0] for j in starts[1]]


def score_by_regressor(images, regressor, n_side=2):
    """Read blur off images by a PSF regressor, at the pixels of the image and at pairs of them.

    Binned by two, a blur looks half as wide: where the images as they are lie beyond what the
    network was trained on, those that are binned do not, and twice their value goes on.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        Images of at least the patch size.
    regressor : estimator
        Fitted, with `predict`, `patch_size_`, `psf_model_` and perhaps `predict_invalid`; its first
        parameter is the blur.
    n_side : int, default=2
        Patches per axis and binning.

    Returns
    -------
    scores : ndarray of shape (n,)
        Blur in the unit of the first parameter; NaN where every window is textureless.
    spread : ndarray of shape (n,)
        Standard deviation over the windows of an image.
    """
    size = regressor.patch_size_
    patches, owner, factor = [], [], []
    for i, image in enumerate(images):
        for binning in _BINNINGS:
            if min(image.shape) // binning >= size:
                new = _patches(bin_image(image, binning), size, n_side)
                patches += new
                owner += [i] * len(new)
                factor += [binning] * len(new)
    owner, factor = np.array(owner), np.array(factor)
    blur, valid = _read(regressor, np.stack(patches))
    top = float(np.asarray(regressor.psf_model_.bounds)[0, 1])
    scores, spread = np.full(len(images), np.nan), np.zeros(len(images))
    for i in range(len(images)):
        readings = [
            factor_ * blur[(owner == i) & (factor == factor_) & valid] for factor_ in (1, 2)
        ]
        scores[i], spread[i] = _combine(*readings, top)
    return scores, spread


def _read(regressor, patches):
    """First parameter of each patch, and whether the patch has texture."""
    read_all = getattr(regressor, "predict_all", None)
    if read_all is not None:
        parameters, _, invalid = read_all(patches)[:3]
        return parameters[:, 0], invalid <= _MOST_INVALID
    parameters = np.asarray(regressor.predict(patches)).reshape(len(patches), -1)
    predict_invalid = getattr(regressor, "predict_invalid", None)
    invalid = np.zeros(len(patches)) if predict_invalid is None else predict_invalid(patches)
    return parameters[:, 0], np.asarray(invalid) <= _MOST_INVALID


def _combine(fine, coarse, top):
    """Mean blur, from the binned image where it nears the top of what the network knows."""
    if len(fine) == 0 and len(coarse) == 0:
        return np.nan, 0.0
    if len(fine) == 0 or len(coarse) == 0:
        only = fine if len(fine) else coarse
        return only.mean(), only.std()
    weight = np.clip((coarse.mean() - 0.5 * top) / (0.3 * top), 0, 1)
    score = (1 - weight) * fine.mean() + weight * coarse.mean()
    return score, (1 - weight) * fine.std() + weight * coarse.std()


def score_by_measure(images, name):
    """Score images by a classical focus measure of the image divided by its mean.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        The images.
    name : str
        One of `sklearn_psf.metrics.FOCUS_MEASURES`.

    Returns
    -------
    scores : ndarray of shape (n,)
        Larger is sharper; NaN for an image without contrast.
    spread : ndarray of shape (n,)
        Standard deviation over the quadrants of an image.

    Examples
    --------
    >>> import numpy as np
    >>> score_by_measure(np.ones((1, 8, 8)), "tenengrad")[0].tolist()
    [nan]
    """
    measure = FOCUS_MEASURES[name]
    scores, spread = np.full(len(images), np.nan), np.zeros(len(images))
    for i, image in enumerate(images):
        image = np.asarray(image, dtype=np.float64)
        if np.ptp(image) == 0:
            continue
        image = image / max(abs(image.mean()), np.finfo(float).tiny)
        scores[i] = measure(image[np.newaxis])[0]
        middle = [max(3, n // 2) for n in image.shape]
        parts = [image[: middle[0], : middle[1]], image[-middle[0] :, -middle[1] :]]
        spread[i] = np.std([measure(part[np.newaxis])[0] for part in parts])
    return scores, spread
