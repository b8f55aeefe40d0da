"""What one image tells of the noise of its camera."""

import numpy as np
from scipy.optimize import nnls
from scipy.stats import chi2

__all__ = ["estimate_noise"]

_BLOCK = 8  # pixels
_N_LEVELS = 16
_QUANTILE = 0.25
# Second differences of neighbours are correlated, (1, -4, 6, -4, 1) / 6 along each axis: a block
# tells as much as this many independent ones, the pixels over the sum of squared correlations.
_DEGREES_OF_FREEDOM = _BLOCK**2 / (1 + 2 * (16 + 1) / 36) ** 2


def estimate_noise(image, offset=0.0):
    r"""Estimate gain and read noise of a camera from one image.

    The variance of the grey values of evenly lit pixels rises along a line with their mean,

    .. math:: \mathrm{var}(g) = \gamma \, (\bar g - o) + (\gamma \sigma)^2

    (photon transfer), with the gain in grey values per electron and the read noise in electrons. An
    image has no evenly lit pixels, but what a microscope passes is smooth at the pixel: second
    differences along rows and columns leave the noise and little else. In blocks of 8 x 8 pixels
    their variance is set against the mean, and at each brightness the quieter blocks count, since
    texture only adds.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Grey values, at least 64 x 64 pixels, in full: not clipped, denoised or resampled.
    offset : float, default=0.0
        Grey value of no light.

    Returns
    -------
    gain : float
        Grey values per electron, non-negative; 0 if the variance does not rise with the mean.
    read_noise : float
        Standard deviation of the noise in the dark, in electrons; in grey values if the gain is 0.

    Raises
    ------
    ValueError
        If the image is not 2-D, too small or not finite.

    References
    ----------
    J. R. Janesick, "Photon Transfer", SPIE Press (2007).
    J. Immerkaer, "Fast noise variance estimation", Comput. Vis. Image Underst. 64 (1996).

    Examples
    --------
    >>> from sklearn_psf.optics import Camera
    >>> light = np.linspace(20, 1000, 256) * np.ones((256, 1))
    >>> image = Camera(gain=2.0, read_noise=3.0, offset=100.0).expose(light, generator=0)
    >>> gain, read_noise = estimate_noise(image, offset=100.0)
    >>> bool(abs(gain - 2) < 0.2)
    True
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 2 or min(image.shape) < 64:
        raise ValueError(f"image must be 2-D, at least 64 x 64 pixels; got shape {image.shape}.")
    if not np.isfinite(image).all():
        raise ValueError("image contains NaN or infinity.")
    level, variance = _blocks(image - offset)
    if not variance.any():
        return 0.0, 0.0
    edges = np.quantile(level, np.linspace(0, 1, _N_LEVELS + 1))
    member = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, _N_LEVELS - 1)
    quiet = chi2.ppf(_QUANTILE, _DEGREES_OF_FREEDOM) / _DEGREES_OF_FREEDOM
    points = [
        (level[member == k].mean(), np.quantile(variance[member == k], _QUANTILE) / quiet)
        for k in range(_N_LEVELS)
        if (member == k).any()
    ]
    x, v = np.array(points).T
    # An estimate of a variance errs in proportion to it.
    weight = 1 / np.maximum(v, 1e-6 * v.max())
    line = np.stack([np.maximum(x, 0), np.ones_like(x)], 1)
    slope, intercept = nnls(line * weight[:, np.newaxis], v * weight)[0]
    return float(slope), float(np.sqrt(intercept) / (slope if slope > 0 else 1))


def _blocks(image):
    """Mean and noise variance of blocks."""
    second = image[2:] - 2 * image[1:-1] + image[:-2]
    second = second[:, 2:] - 2 * second[:, 1:-1] + second[:, :-2]
    rows, columns = (n // _BLOCK * _BLOCK for n in second.shape)

    def block_means(values):
        shape = (rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
        return values[:rows, :columns].reshape(shape).mean((1, 3)).ravel()

    # white noise of variance 1 has second differences of variance (1 + 4 + 1)^2
    return block_means(image[1:-1, 1:-1]), block_means(second**2) / 36
