"""Signed distances from focus: read off PSF parameters, and turned into micrometres."""

import numpy as np
from sklearn.isotonic import IsotonicRegression

__all__ = [
    "apply_curve",
    "fit_curve",
    "fit_lens_axis",
    "lens_cylinder",
    "published_product",
    "scale_by_optics",
    "signed_focus",
    "signed_widths",
]

_N_KNOTS = 65
_HUBER = 1.5  # standard deviations from which a residual counts linearly
_SCALE_OF_IMAGE = 0.06  # error of the scale of readings of one image: their spread over textures
_SCALE_OF_OPTICS = 0.07  # the same by the paraxial theory: an aperture is known to some percent
_LEAST_SLOPE = 0.05  # of the mean slope: the least that a curve may rise anywhere


def fit_lens_axis(focus, cylinder, axis, focus_std, axis_std, y=None):
    r"""Estimate the axis of the instrument's cylindrical lens.

    The lens is the same everywhere, so that at signed defocus s

    .. math:: f c\,(\cos 2\alpha, \sin 2\alpha) = s\, C\, (\cos 2\alpha_0, \sin 2\alpha_0)

    runs along one line. With depths y the line is the slope of its regression on y, which also says
    which way it is run through; without, it is the principal axis.

    Parameters
    ----------
    focus, cylinder, axis : ndarray of shape (m,)
        Readings.
    focus_std, axis_std : ndarray of shape (m,)
        Their standard deviations. Readings count by the precision of their focus; an axis of spread
        sigma by the expectation of its cosine, :math:`e^{-2\sigma^2}`.
    y : ndarray of shape (m,) or None
        Known depths, that vary.

    Returns
    -------
    float
        alpha_0 in [0, pi), such that s grows with y; without y in [0, pi / 2), since the PSFs alone
        do not tell the two sides of the focal plane apart.

    Examples
    --------
    >>> import numpy as np
    >>> s = np.linspace(-1, 1, 9)
    >>> axis = np.where(s < 0, 0.3 + np.pi / 2, 0.3)
    >>> round(fit_lens_axis(abs(s), 0.4 + 0 * s, axis, 0 * s, 0 * s, y=-s), 3)
    1.871
    """
    length = focus * cylinder * np.exp(-2 * axis_std**2)
    products = np.stack([length * np.cos(2 * axis), length * np.sin(2 * axis)])
    variance = np.maximum(focus_std, _floor(focus_std)) ** 2
    weights = 1 / (variance + np.median(variance))
    if y is None:
        vector = np.linalg.eigh((weights * products) @ products.T)[1][:, -1]
        period = np.pi / 2
    else:
        vector = products @ (weights * (y - np.average(y, weights=weights)))
        period = np.pi
    return float(np.arctan2(vector[1], vector[0]) / 2 % period)


def lens_cylinder(cylinder, cylinder_std):
    """Return the strength of the lens: the median of the readings, weighted by their precision.

    Parameters
    ----------
    cylinder, cylinder_std : ndarray of shape (m,)
        Readings and standard deviations, waves RMS.

    Returns
    -------
    float
        Waves RMS.

    Examples
    --------
    >>> import numpy as np
    >>> lens_cylinder(np.array([0.1, 0.4, 0.5]), np.array([0.1, 0.05, 0.1]))
    0.4
    """
    order = np.argsort(cylinder)
    weights = 1 / np.maximum(cylinder_std, 1e-3)[order] ** 2
    total = np.cumsum(weights)
    return float(cylinder[order][np.searchsorted(total, total[-1] / 2)])


def signed_focus(focus, axis, focus_std, axis_std, lens_axis):
    r"""Signed defocus :math:`s = f \cos 2(\alpha - \alpha_0)` and its standard deviation.

    It is continuous through focus: where the axis jumps by pi / 2, f is 0.

    Parameters
    ----------
    focus, axis : ndarray
        Readings, waves RMS and radians.
    focus_std, axis_std : ndarray of the same shape
        Their standard deviations.
    lens_axis : float
        alpha_0.

    Returns
    -------
    signed, std : ndarray of the same shape
        Waves RMS. An axis that is not known leaves a std of f, as does an unknown sign.

    Examples
    --------
    >>> import numpy as np
    >>> focus, axis = np.array([0.5]), np.array([0.3 + np.pi / 2])
    >>> signed_focus(focus, axis, np.array([0.1]), np.zeros(1), lens_axis=0.3)
    (array([-0.5]), array([0.1]))
    """
    angle = 2 * (axis - lens_axis)
    signed = focus * np.cos(angle)
    # Variance of a cosine whose angle has the spread 2 axis_std.
    lost = 1 - np.exp(-4 * axis_std**2)
    of_cosine = lost * (lost * np.cos(angle) ** 2 + (2 - lost) * np.sin(angle) ** 2) / 2
    return signed, np.sqrt((focus_std * np.cos(angle)) ** 2 + focus**2 * of_cosine)


def published_product(focus, axis, focus_std, axis_std):
    r"""The published read-out :math:`f (2\alpha / \pi - 1)` and its standard deviation.

    Parameters
    ----------
    focus, axis, focus_std, axis_std : ndarray
        Readings and their standard deviations, waves RMS and radians; the axis in [0, pi).

    Returns
    -------
    signed, std : ndarray of the same shape
        Waves RMS.

    Notes
    -----
    It is continuous through focus, but jumps where the axis passes 0 and pi.

    References
    ----------
    A. Shajkofci and M. Liebling, IEEE Trans. Image Process. 29 (2020) 5848-5861.

    Examples
    --------
    >>> import numpy as np
    >>> float(published_product(np.array([0.5]), np.array([0.0]), np.zeros(1), np.zeros(1))[0][0])
    -0.5
    """
    factor = 2 * axis / np.pi - 1
    return focus * factor, np.hypot(factor * focus_std, 2 * focus / np.pi * axis_std)


def signed_widths(width_y, width_x, std_y, std_x):
    """Difference ``width_y^2 - width_x^2`` and its standard deviation, of a lens along the grid.

    Parameters
    ----------
    width_y, width_x, std_y, std_x : ndarray
        Widths and their standard deviations, pixels.

    Returns
    -------
    signed, std : ndarray of the same shape
        Pixels squared. The squares of both widths are parabolas in the depth, shifted by the lens:
        their difference is a straight line.

    Examples
    --------
    >>> import numpy as np
    >>> signed_widths(np.array([3.0]), np.array([2.0]), np.array([0.0]), np.array([0.1]))
    (array([5.]), array([0.4]))
    """
    return width_y**2 - width_x**2, 2 * np.hypot(width_y * std_y, width_x * std_x)


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
        weights = 1 / np.maximum(std, _floor(std)) ** 2
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


def _floor(std):
    """Least standard deviation that is believed: a reading that claims more must not rule alone."""
    return max(0.3 * float(np.median(std)), 1e-6)


def _robust_polynomial(u, values, std, degree):
    """Coefficients of the polynomial under Huber's loss, by reweighting."""
    scale = np.maximum(std, _floor(std))
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
