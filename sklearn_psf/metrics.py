"""Figures of merit: restoration (SNR, SSIM), regression of PSF parameters, and focus measures.

Everything here is NumPy on plain arrays and knows nothing of the rest of the package.
"""

from collections.abc import Callable

import numpy as np
from skimage.metrics import structural_similarity

__all__ = [
    "FOCUS_MEASURES",
    "conditional_entropy",
    "high_pass",
    "laplacian_variance",
    "parameter_r2",
    "snr",
    "ssim",
    "sum_modified_laplacian",
    "tenengrad",
    "wavelet_energy",
    "wavelet_sum",
]

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


def parameter_r2(y_true, y_pred, *, periods=None, multioutput="uniform_average"):
    r"""Coefficient of determination of PSF parameters, with angles as points on a circle.

    .. math:: R^2 = 1 - \frac{\sum_i |e(y_i) - e(\hat y_i)|^2}{\sum_i |e(y_i) - \bar e|^2}

    where e(a) is the parameter itself, or ``(cos, sin)(2 pi a / period)`` of an angle, both
    components pooled into one R^2.

    Parameters
    ----------
    y_true : array-like of shape (..., P) or (n,)
        True parameters. A row with a NaN is left out.
    y_pred : array-like of the same shape
        Predicted parameters.
    periods : sequence of (float or None) of length P, optional
        Period of each parameter that is an angle, None for the others.
    multioutput : {"uniform_average", "raw_values"}
        Mean over parameters, or one value for each.

    Returns
    -------
    float or ndarray of shape (P,)
        R^2; a parameter that is constant scores 1 if it is met exactly, else 0.

    Raises
    ------
    ValueError
        If shapes or `periods` do not fit, fewer than two rows are without NaN, or a prediction
        that counts is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([[0.1, 0.0], [0.6, 1.0], [1.1, 2.0], [np.nan, np.nan]])
    >>> parameter_r2(y, y + [0.0, np.pi], periods=[None, np.pi])
    1.0
    """
    if multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(
            f"multioutput must be 'uniform_average' or 'raw_values', got {multioutput!r}."
        )
    y_true, y_pred = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    if y_true.shape != y_pred.shape or y_true.ndim == 0:
        raise ValueError(
            f"y_true and y_pred must have one shape, got {y_true.shape} and {y_pred.shape}."
        )
    n_parameters = 1 if y_true.ndim == 1 else y_true.shape[-1]
    y_true, y_pred = y_true.reshape(-1, n_parameters), y_pred.reshape(-1, n_parameters)
    periods = _check_periods(periods, n_parameters)
    rows = ~np.isnan(y_true).any(axis=1)
    if rows.sum() < 2:
        raise ValueError(f"y_true must have at least 2 rows without NaN, got {rows.sum()}.")
    if not (np.isfinite(y_pred[rows]).all() and np.isfinite(y_true[rows]).all()):
        raise ValueError("y_true and y_pred must be finite where y_true is not NaN.")
    scores = np.array(
        [
            _pooled_r2(_on_circle(t, period), _on_circle(p, period))
            for t, p, period in zip(y_true[rows].T, y_pred[rows].T, periods, strict=True)
        ]
    )
    return scores if multioutput == "raw_values" else float(scores.mean())


def _check_periods(periods, n_parameters):
    periods = (None,) * n_parameters if periods is None else tuple(periods)
    if len(periods) != n_parameters:
        raise ValueError(f"periods must have length {n_parameters}, got {len(periods)}.")
    for period in periods:
        if period is not None and not (np.isfinite(period) and period > 0):
            raise ValueError(f"periods must be positive or None, got {period!r}.")
    return periods


def _on_circle(values, period):
    """Coordinates (n, 1) of a number or (n, 2) of an angle."""
    if period is None:
        return values[:, None]
    phase = 2 * np.pi * values / period
    return np.stack([np.cos(phase), np.sin(phase)], axis=1)


def _pooled_r2(truth, prediction):
    residual = ((truth - prediction) ** 2).sum()
    total = ((truth - truth.mean(axis=0)) ** 2).sum()
    if total == 0:
        return float(residual == 0)
    return 1 - residual / total


def conditional_entropy(scores, z, *, bins=100):
    r"""Conditional entropy of focus scores given the stage position: how ambiguous a score is.

    .. math:: H(B|Z) = - \sum_{b,z} p(b|z) \log \frac{p(b|z)}{\sum_{z_i} p(b|z_i)}

    Zero where every score bin belongs to one position; it grows with the spread of the scores and
    with the number of positions, so compare only figures of the same positions and bins.

    Parameters
    ----------
    scores : array-like of shape (n,) or (m, n_z)
        Focus scores in any unit; scaled to [0, 1] by the smallest and largest of all.
    z : array-like of the same shape, or of shape (n_z,) for `scores` of shape (m, n_z)
        Position of each score, with repetitions.
    bins : int, default=100
        Equal bins on [0, 1].

    Returns
    -------
    float
        Nats.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or `bins` is below 1.

    Examples
    --------
    >>> conditional_entropy([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]], [-1, 0, 1])
    0.0
    >>> round(conditional_entropy([0.3, 0.3], [0, 1]), 6)  # two positions, one score: 2 ln 2
    1.386294
    """
    scores, z = np.asarray(scores, dtype=float), np.asarray(z, dtype=float)
    if scores.ndim == 2 and z.shape == scores.shape[1:]:
        z = np.broadcast_to(z, scores.shape)
    if scores.shape != z.shape or scores.size == 0:
        raise ValueError(f"z of shape {z.shape} does not fit scores of shape {scores.shape}.")
    if not (np.isfinite(scores).all() and np.isfinite(z).all()):
        raise ValueError("scores and z must be finite.")
    if not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins must be a positive integer, got {bins!r}.")
    scores = scores.ravel() - scores.min()
    span = scores.max()
    level = (scores / (span if span > 0 else 1.0) * bins).astype(int).clip(max=bins - 1)
    positions, place = np.unique(z.ravel(), return_inverse=True)
    counts = np.zeros((len(positions), bins))
    np.add.at(counts, (place, level), 1)
    p = counts / counts.sum(axis=1, keepdims=True)
    posterior = np.divide(p, p.sum(axis=0), out=np.ones_like(p), where=p > 0)
    return float(abs((p * np.log(posterior)).sum()))


def _measure(images, response: Callable) -> np.ndarray:
    """Apply `response` to each image, so that memory holds one image in float64 at a time."""
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[0] == 0 or min(images.shape[1:]) < 3:
        raise ValueError(
            f"images must be (n, H, W) of at least 3 x 3 pixels, got shape {images.shape}."
        )
    if images.dtype.kind not in "uifb":
        raise ValueError(f"images must hold real numbers, got dtype {images.dtype}.")
    values = np.array([response(image.astype(np.float64)) for image in images])
    if not np.isfinite(values).all():
        raise ValueError("images contain NaN or infinity.")
    return values


def high_pass(images):
    r"""High-pass measure (HPF), :math:`\langle (I - \bar I_{3 \times 3})^2 \rangle`.

    Parameters
    ----------
    images : array-like of shape (n, H, W)
        Images of at least 3 x 3 pixels.

    Returns
    -------
    ndarray of shape (n,)
        Squared grey values; larger is sharper. Borders are left out.

    References
    ----------
    F. C. A. Groen, I. T. Young, G. Ligthart, "A comparison of different focus functions for use in
    autofocus algorithms", Cytometry 6 (1985).

    Examples
    --------
    >>> import numpy as np
    >>> high_pass(np.ones((2, 8, 8))).tolist()
    [0.0, 0.0]
    """

    def response(image):
        rows = image[:-2] + image[1:-1] + image[2:]
        mean = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
        return ((image[1:-1, 1:-1] - mean) ** 2).mean()

    return _measure(images, response)


def tenengrad(images):
    r"""Tenengrad measure, :math:`\langle G_y^2 + G_x^2 \rangle` with Sobel's gradients.

    Parameters
    ----------
    images : array-like of shape (n, H, W)
        Images of at least 3 x 3 pixels.

    Returns
    -------
    ndarray of shape (n,)
        Squared grey values; larger is sharper. Borders are left out.

    References
    ----------
    E. Krotkov, "Focusing", Int. J. Comput. Vis. 1 (1987).

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.tile(np.arange(8.0), (8, 1))  # Sobel's kernels sum to 8 for a unit slope
    >>> tenengrad(ramp[np.newaxis]).tolist()
    [64.0]
    """

    def response(image):
        smooth_y = image[:-2] + 2 * image[1:-1] + image[2:]
        smooth_x = image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:]
        g_x, g_y = smooth_y[:, 2:] - smooth_y[:, :-2], smooth_x[2:] - smooth_x[:-2]
        return (g_y**2 + g_x**2).mean()

    return _measure(images, response)


def _second_differences(image):
    """Second differences along rows and along columns, without the border."""
    centre = 2 * image[1:-1, 1:-1]
    along_y = image[:-2, 1:-1] + image[2:, 1:-1] - centre
    along_x = image[1:-1, :-2] + image[1:-1, 2:] - centre
    return along_y, along_x


def laplacian_variance(images):
    """Variance of the five-point Laplacian (LAPV).

    Parameters
    ----------
    images : array-like of shape (n, H, W)
        Images of at least 3 x 3 pixels.

    Returns
    -------
    ndarray of shape (n,)
        Squared grey values; larger is sharper. Borders are left out.

    References
    ----------
    J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative
    study", ICPR (2000).

    Examples
    --------
    >>> import numpy as np
    >>> laplacian_variance(np.ones((1, 8, 8))).tolist()
    [0.0]
    """
    return _measure(images, lambda image: sum(_second_differences(image)).var())


def sum_modified_laplacian(images):
    r"""Sum-modified Laplacian (SML), :math:`\langle |I_{yy}| + |I_{xx}| \rangle`.

    Parameters
    ----------
    images : array-like of shape (n, H, W)
        Images of at least 3 x 3 pixels.

    Returns
    -------
    ndarray of shape (n,)
        Grey values, mean over pixels; larger is sharper. Borders are left out.

    References
    ----------
    S. K. Nayar, Y. Nakagawa, "Shape from focus", IEEE Trans. Pattern Anal. 16 (1994).

    Examples
    --------
    >>> import numpy as np
    >>> saddle = np.subtract.outer(np.arange(8.0) ** 2, np.arange(8.0) ** 2)
    >>> sum_modified_laplacian(saddle[np.newaxis]).tolist()  # its Laplacian is zero
    [4.0]
    """
    return _measure(images, lambda image: sum(map(abs, _second_differences(image))).mean())


def _haar_details(image):
    """The three detail bands of one orthonormal Haar step; an odd last row or column is left out."""
    height, width = (n - n % 2 for n in image.shape)
    a, b = image[:height:2, :width:2], image[:height:2, 1:width:2]
    c, d = image[1:height:2, :width:2], image[1:height:2, 1:width:2]
    return np.stack([a - b + c - d, a + b - c - d, a - b - c + d]) / 2


def wavelet_energy(images):
    """Energy of the finest Haar wavelet coefficients (EWC): the mean of their squares.

    Parameters
    ----------
    images : array-like of shape (n, H, W)
        Images of at least 3 x 3 pixels.

    Returns
    -------
    ndarray of shape (n,)
        Squared grey values; larger is sharper.

    References
    ----------
    G. Yang, B. J. Nelson, "Wavelet-based autofocusing and unsupervised segmentation of
    microscopic images", IROS (2003).

    Examples
    --------
    >>> import numpy as np
    >>> wavelet_energy(np.indices((1, 8, 8)).sum(0) % 2).round(6).tolist()  # a chessboard
    [0.333333]
    """
    return _measure(images, lambda image: (_haar_details(image) ** 2).mean())


def wavelet_sum(images):
    """Sum of the finest Haar wavelet coefficients (WS): the mean of their magnitudes.

    Parameters
    ----------
    images : array-like of shape (n, H, W)
        Images of at least 3 x 3 pixels.

    Returns
    -------
    ndarray of shape (n,)
        Grey values; larger is sharper.

    References
    ----------
    G. Yang, B. J. Nelson, "Wavelet-based autofocusing and unsupervised segmentation of
    microscopic images", IROS (2003).

    Examples
    --------
    >>> import numpy as np
    >>> wavelet_sum(np.indices((1, 8, 8)).sum(0) % 2).round(6).tolist()  # a chessboard
    [0.333333]
    """
    return _measure(images, lambda image: abs(_haar_details(image)).mean())


FOCUS_MEASURES: dict[str, Callable] = {
    "high-pass": high_pass,
    "tenengrad": tenengrad,
    "laplacian-variance": laplacian_variance,
    "wavelet-energy": wavelet_energy,
    "wavelet-sum": wavelet_sum,
    "sum-modified-laplacian": sum_modified_laplacian,
}
