"""The curve from signed readings of defocus to micrometres."""

import numpy as np
from sklearn.isotonic import IsotonicRegression

__all__ = ["apply_curve", "fit_curve", "least_std", "scale_by_optics"]

_N_KNOTS = 65
_HUBER = 1.5  # standard deviations from which a residual counts linearly
_SCALE_OF_IMAGE = 0.06  # error of the scale of readings of one image: their spread over textures
_SCALE_OF_OPTICS = 0.07  # the same by the paraxial theory: an aperture is known to some percent
_LEAST_SLOPE = 0.05  # of the mean slope: the least that a curve may rise anywhere


def fit_curve(y, signed, std, kind="cubic"):
    """Fit the monotone curve of readings over known depths.

    The depths are exact and the readings are not, hence readings are regressed on depths and the
    curve is inverted, not the other way round, which would draw all depths towards their mean.

    Parameters
    ----------
    y, signed, std : ndarray of shape (m,)
        Known depths, readings and their standard deviations.
    kind : {"linear", "cubic", "isotonic"}, default="cubic"
        A straight line; a polynomial of the highest degree up to 3 that rises (or falls)
        throughout; or any monotone curve.

    Returns
    -------
    depth, reading : ndarray of shape (k,)
        Knots of the curve, depths increasing, readings strictly monotone.

    Raises
    ------
    ValueError
        If the readings do not go with the depths at all.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.linspace(-10, 10, 21)
    >>> depth, reading = fit_curve(y, -0.05 * y, np.full(21, 0.1))
    >>> reading[[0, -1]].round(3)
    array([ 0.5, -0.5])
    """
    centre, half = (y.max() + y.min()) / 2, np.ptp(y) / 2
    u, knots = (y - centre) / half, np.linspace(-1, 1, _N_KNOTS)
    line = _robust_polynomial(u, signed, std, 1)
    if not np.isfinite(line).all() or abs(line[1]) < 1e-9 * max(np.abs(signed).max(), 1e-12):
        raise ValueError("The readings of maps do not change with y: nothing to calibrate.")
    sign = np.sign(line[1])
    if kind == "isotonic":
        weights = 1 / np.maximum(std, least_std(std)) ** 2
        isotonic = IsotonicRegression(out_of_bounds="clip").fit(u, sign * signed, weights)
        curve = sign * isotonic.predict(knots)
    else:
        highest = 1 if kind == "linear" else min(3, len(np.unique(y)) - 1)
        for degree in range(highest, 0, -1):
            coefficients = line if degree == 1 else _robust_polynomial(u, signed, std, degree)
            curve = np.polynomial.polynomial.polyval(knots, coefficients)
            if (sign * np.diff(curve) >= _LEAST_SLOPE * abs(line[1]) * np.diff(knots)).all():
                break
    return centre + half * knots, _strictly_monotone(curve, sign)


def scale_by_optics(reading, theory, n_images):
    """Return what to multiply a calibrated curve by, for what the optics know of its scale.

    The windows of one image err together, so that the scale of its readings is known to some
    percent only. So is that by numerical aperture and wavelength: the mean of both is better.

    Parameters
    ----------
    reading, theory : ndarray of shape (k,)
        The curve at its knots, and the paraxial defocus there, waves RMS.
    n_images : int
        Images that the curve was fitted to.

    Returns
    -------
    float
        Positive; 1 where the two contradict each other, as they do if the optics are not those of
        the images.

    Examples
    --------
    >>> import numpy as np
    >>> theory = np.linspace(-1, 1, 5)
    >>> round(float(scale_by_optics(0.95 * theory, theory, n_images=1)), 3)
    1.022
    >>> scale_by_optics(0.5 * theory, theory, n_images=1)
    1.0
    """
    slope = abs(np.polyfit(theory, reading, 1)[0])
    variance = _SCALE_OF_IMAGE**2 / n_images
    if (slope - 1) ** 2 > 9 * (variance + _SCALE_OF_OPTICS**2):
        return 1.0
    share = variance / (variance + _SCALE_OF_OPTICS**2)
    return (share + (1 - share) * slope) / slope


def least_std(std):
    """Return the least standard deviation that is believed.

    A reading that claims to be surer must not rule alone.

    Parameters
    ----------
    std : ndarray of shape (m,)
        What readings claim.

    Returns
    -------
    float
        A third of their median, nearly; positive.

    Examples
    --------
    >>> import numpy as np
    >>> round(least_std(np.array([0.0, 1.0, 2.0])), 1)
    0.3
    """
    return max(0.3 * float(np.median(std)), 1e-6)


def _robust_polynomial(u, values, std, degree):
    """Coefficients of the polynomial under Huber's loss, by reweighting."""
    scale = np.maximum(std, least_std(std))
    basis = np.polynomial.polynomial.polyvander(u, degree)
    weights = np.ones(len(u))
    for _ in range(20):
        root = np.sqrt(weights) / scale
        coefficients = np.linalg.lstsq(basis * root[:, None], values * root, rcond=None)[0]
        residual = np.abs(values - basis @ coefficients) / scale
        # In units of what they really scatter by, since a std may be too large or too small.
        unit = max(1.4826 * float(np.median(residual)), 1e-9)
        weights = np.minimum(1, _HUBER * unit / np.maximum(residual, 1e-12))
    return coefficients


def _strictly_monotone(curve, sign):
    """Lift the flat parts of a monotone curve by very little, so that it can be inverted."""
    span = max(np.ptp(curve), 1e-12)
    return sign * (
        np.maximum.accumulate(sign * curve) + 1e-6 * span * np.linspace(0, 1, len(curve))
    )


def apply_curve(depth, reading, signed, std):
    """Turn readings into depths by a curve of `fit_curve`.

    Parameters
    ----------
    depth, reading : ndarray of shape (k,)
        The curve.
    signed, std : ndarray of any shape
        Readings and their standard deviations.

    Returns
    -------
    z, z_std : ndarray of the same shape
        In the unit of `depth`; beyond the ends the curve goes on straight, with the mean slope of
        its outer eighth.

    Examples
    --------
    >>> import numpy as np
    >>> knots = np.array([0.0, 1.0]), np.array([0.0, 10.0])
    >>> [part.round(2).tolist() for part in apply_curve(*knots, np.array([5.0, 20.0]), np.ones(2))]
    [[0.5, 2.0], [0.1, 0.1]]
    """
    if reading[-1] < reading[0]:
        depth, reading = depth[::-1], reading[::-1]
    outer = max(1, len(depth) // 8)
    low, high = (
        (depth[i] - depth[j]) / (reading[i] - reading[j]) for i, j in ((0, outer), (-1, -1 - outer))
    )
    z = np.interp(signed, reading, depth)
    z = z + low * np.minimum(signed - reading[0], 0) + high * np.maximum(signed - reading[-1], 0)
    # The slope over a standard deviation, since a staircase has none at a point.
    reach = np.maximum(std, 1e-3 * (reading[-1] - reading[0]))
    ends = [np.clip(signed + k * reach, reading[0], reading[-1]) for k in (-1, 1)]
    rise = np.abs(np.subtract(*(np.interp(end, reading, depth) for end in ends)))
    length = np.abs(np.subtract(*ends))
    outside = np.where(signed < reading[0], abs(low), abs(high))
    slope = np.where(length > 0, rise / np.where(length > 0, length, 1), outside)
    return z, slope * std
