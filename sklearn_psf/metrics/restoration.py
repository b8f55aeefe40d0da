"""How close a restored image is to the truth."""

import numpy as np
from skimage.metrics import structural_similarity

__all__ = ["snr", "ssim"]

_SSIM_WINDOW = 11  # pixels: what a Gaussian of sigma 1.5 truncated at 3.5 sigma spans


def snr(truth, estimate):
    r"""Signal-to-noise ratio of an estimate, in dB.

    .. math:: \mathrm{SNR} = 10 \log_{10} \frac{\sum x^2}{\sum (x - \hat x)^2}

    Parameters
    ----------
    truth : array-like of shape (H, W) or (n, H, W)
        Sharp images x.
    estimate : array-like of the same shape
        Restored images, in the same units.

    Returns
    -------
    float
        dB; of several images the mean of their dB. ``inf`` where they are equal.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or a true image is zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.full((2, 8, 8), 10.0)
    >>> snr(truth, truth + 1)
    20.0
    """
    truth, estimate = _check_pair(truth, estimate)
    signal = (truth**2).sum((1, 2))
    if not signal.all():
        raise ValueError("truth must not be zero everywhere: it has no signal to relate noise to.")
    with np.errstate(divide="ignore"):
        return float((10 * np.log10(signal / ((truth - estimate) ** 2).sum((1, 2)))).mean())


def ssim(truth, estimate):
    """Structural similarity with the Gaussian weights of Wang et al., mean over images.

    Parameters
    ----------
    truth : array-like of shape (H, W) or (n, H, W)
        Sharp images, at least 11 pixels high and wide. The range of each, largest minus smallest
        value, sets the constants of the index.
    estimate : array-like of the same shape
        Restored images, in the same units.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    ValueError
        If shapes differ, images are too small, a value is not finite, or a true image is constant.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error
    visibility to structural similarity", IEEE Trans. Image Process. 13 (2004).

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.random.RandomState(0).rand(32, 32)
    >>> round(ssim(truth, truth), 6)
    1.0
    """
    truth, estimate = _check_pair(truth, estimate)
    if min(truth.shape[1:]) < _SSIM_WINDOW:
        raise ValueError(
            f"truth must be at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels, got "
            f"{truth.shape[1]} x {truth.shape[2]}."
        )
    ranges = np.ptp(truth, axis=(1, 2))
    if not ranges.all():
        raise ValueError("truth must not be constant: its range sets the scale of the index.")
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(
        np.mean(
            [
                structural_similarity(x, y, data_range=width, **settings)
                for x, y, width in zip(truth, estimate, ranges, strict=True)
            ]
        )
    )


def _check_pair(truth, estimate):
    """Return both as float64 (n, H, W), or raise."""
    pair = []
    for name, value in (("truth", truth), ("estimate", estimate)):
        array = np.asarray(value)
        if array.dtype.kind not in "uifb":
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}.")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity.")
        pair.append(array)
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            f"truth and estimate must have one shape, got {pair[0].shape} and {pair[1].shape}."
        )
    if pair[0].ndim not in (2, 3) or pair[0].size == 0:
        raise ValueError(f"truth must be images (H, W) or (n, H, W), got shape {pair[0].shape}.")
    return [array.reshape(-1, *array.shape[-2:]) for array in pair]
