"""Signed distances from focus, read off PSF parameters."""

import numpy as np

from ._depth_curve import least_std

__all__ = [
    "fit_lens_axis",
    "lens_cylinder",
    "published_product",
    "signed_focus",
    "signed_widths",
]


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
    variance = np.maximum(focus_std, least_std(focus_std)) ** 2
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
