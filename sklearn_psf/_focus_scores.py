"""One blur score per image: by a network at two binnings, or by a classical measure."""

from dataclasses import dataclass

import numpy as np
from skimage.transform import downscale_local_mean

from .metrics import FOCUS_MEASURES

__all__ = ["Readings", "bin_image", "score_by_measure", "score_by_regressor"]

_BINNINGS = (1, 2)
_MOST_INVALID = 0.5
_LEAST_ERROR = 0.05  # of a window, waves RMS, whatever the network states


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


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What a scorer says of images.

    Parameters
    ----------
    level : ndarray of shape (n,)
        Score; where there is no texture what is read nevertheless, NaN if nothing is.
    std : ndarray of shape (n,)
        Its standard deviation as the scorer states it; 0 if it states none.
    spread : ndarray of shape (n,)
        Standard deviation over the windows of an image.
    textured : ndarray of bool, shape (n,)
        Whether any window has texture.
    """

    level: np.ndarray
    std: np.ndarray
    spread: np.ndarray
    textured: np.ndarray

    @property
    def scores(self):
        """Scores, NaN where there is no texture."""
        return np.where(self.textured, self.level, np.nan)


def score_by_regressor(images, regressor, n_side=2):
    """Read blur off images by a PSF regressor, at the pixels of the image and at pairs of them.

    Binned by two, a blur looks half as wide: where the images as they are lie beyond what the
    network was trained on, those that are binned do not, and twice their value goes on. Windows
    count by what the network states of its own error, so that an empty one does not spoil others.

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
    Readings
        Blur in the unit of the first parameter.
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
    low, top = np.asarray(regressor.psf_model_.bounds, dtype=float)[0]
    blur, error, invalid = _read(regressor, np.stack(patches), low, top)
    level, std, spread = (np.full(len(images), np.nan) for _ in range(3))
    textured = np.zeros(len(images), dtype=bool)
    for i in range(len(images)):
        textured[i] = (invalid[owner == i] <= _MOST_INVALID).any()
        parts = [(owner == i) & (factor == k) for k in _BINNINGS]
        means = [
            _mean(k * blur[part], k * error[part], invalid[part])
            for k, part in zip(_BINNINGS, parts, strict=True)
        ]
        level[i], std[i], spread[i] = _combine(*means, top)
    return Readings(level, std, spread, textured)


def _read(regressor, patches, low, top):
    """First parameter of each patch, its standard deviation, and how sure the patch is invalid."""
    read_all = getattr(regressor, "predict_all", None)
    if read_all is not None:
        parameters, std, invalid = read_all(patches)[:3]
        return *_without_prior(parameters[:, 0], std[:, 0], low, top), invalid
    parameters = np.asarray(regressor.predict(patches)).reshape(len(patches), -1)
    predict_invalid = getattr(regressor, "predict_invalid", None)
    invalid = np.zeros(len(patches)) if predict_invalid is None else predict_invalid(patches)
    return parameters[:, 0], np.zeros(len(patches)), np.asarray(invalid)


def _without_prior(mean, std, low, top):
    """What a patch itself says, of a network that adds the middle of its range where it is unsure.

    A network trained on values spread evenly over a range states mean and standard deviation of a
    posterior; over the prior's normal density the rest is the likelihood.
    """
    prior = (top - low) ** 2 / 12
    precision = 1 / np.maximum(std, _LEAST_ERROR) ** 2
    rest = np.maximum(precision - 1 / prior, 0.25 / prior)
    return (
        np.clip(mean + (mean - (low + top) / 2) / (prior * rest), low, top),
        np.where(std > 0, 1 / np.sqrt(rest), 0.0),
    )


def _mean(blur, error, invalid):
    """Weighted mean of windows, standard deviation of one of them, and their spread."""
    if len(blur) == 0:
        return None
    # The surest windows count: an empty one looks like one that is far from focus.
    weight = (1 - invalid).clip(1e-6) / (error**2 + _LEAST_ERROR**2) ** 2
    # Windows err together (they show one sample), so that many are no better than one.
    level = np.average(blur, weights=weight)
    return level, *(np.sqrt(np.average(v, weights=weight)) for v in (error**2, (blur - level) ** 2))


def _combine(fine, coarse, top):
    """One reading of both binnings, each trusted less beyond its own half of the range."""
    if fine is None or coarse is None:
        return fine or coarse
    beyond = 2 * max(fine[0] - top / 2, 0), max(top / 2 - coarse[0], 0)
    variance = np.array([fine[1], coarse[1]]) ** 2 + np.square(beyond)
    share = 1 / (variance + _LEAST_ERROR**2)
    share /= share.sum()
    level, spread = (share[0] * fine[k] + share[1] * coarse[k] for k in (0, 2))
    return level, np.sqrt((share * variance).sum()), spread


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
    Readings
        Larger is sharper; NaN for an image without contrast. The spread is over quadrants.

    Examples
    --------
    >>> import numpy as np
    >>> score_by_measure(np.ones((1, 8, 8)), "tenengrad").scores.tolist()
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
    return Readings(scores, np.zeros(len(images)), spread, np.isfinite(scores))
