"""Classical focus measures, and how ambiguous a focus score is."""

from collections.abc import Callable

import numpy as np

__all__ = [
    "FOCUS_MEASURES",
    "conditional_entropy",
    "high_pass",
    "laplacian_variance",
    "sum_modified_laplacian",
    "tenengrad",
    "useful_range",
    "wavelet_energy",
    "wavelet_sum",
]


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


def useful_range(z, scores, *, tolerance=0.02):
    """Range of positions within which a score leads to focus.

    From its extreme at focus the mean score is followed outwards as long as it does not turn back
    by more than the tolerance; the range ends where it last moved on. Outside of it a score is
    flat or points the wrong way.

    Parameters
    ----------
    z : array-like of shape (n_z,)
        Positions, in any order.
    scores : array-like of shape (n_z,) or (m, n_z)
        Score of each position; the mean over m stacks.
    tolerance : float, default=0.02
        Part of the span of the scores.

    Returns
    -------
    float
        Width of the range, in the unit of `z`.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or `tolerance` is negative.

    Examples
    --------
    >>> useful_range([-3, -2, -1, 0, 1, 2, 3], [3, 3, 1, 0, 1, 2, 2])
    4.0
    """
    z, scores = np.asarray(z, dtype=float), np.asarray(scores, dtype=float)
    scores = scores.mean(0) if scores.ndim == 2 else scores
    if z.ndim != 1 or scores.shape != z.shape or len(z) == 0:
        raise ValueError(f"z of shape {z.shape} does not fit scores of shape {scores.shape}.")
    if not (np.isfinite(scores).all() and np.isfinite(z).all()):
        raise ValueError("scores and z must be finite.")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance!r}.")
    order = np.argsort(z)
    z, scores = z[order], scores[order]
    ends, margin = scores[[0, -1]].mean(), tolerance * max(np.ptp(scores), 1e-300)
    if abs(scores.max() - ends) > abs(scores.min() - ends):  # sharpness, not blur
        scores = -scores
    focus = int(scores.argmin())
    below, above = scores[focus::-1], scores[focus:]
    return float(z[focus + _last_rise(above, margin)] - z[focus - _last_rise(below, margin)])


def _last_rise(scores, margin):
    """Index up to which scores go up, ripples of less than the margin apart."""
    last, highest = 0, scores[0]
    for i, score in enumerate(scores):
        if score > highest + margin:
            last, highest = i, score
        elif score < highest - margin:
            break
    return last


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
    """Return the detail bands of one orthonormal Haar step; an odd last row or column is left."""
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
