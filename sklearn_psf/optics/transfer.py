"""The optical transfer function in closed form, at any frequency: no grid of pixels, no FFT."""

import math

import numpy as np

__all__ = ["defocus_transfer"]

_N_NODES = 96


def defocus_transfer(frequency, focus, cutoff):
    r"""Optical transfer function of a defocused, aberration-free pupil.

    .. math:: H(s, a) = \frac{4}{\pi} \int_0^{1 - s/2} \sqrt{1 - (x + s/2)^2}
              \cos(8 \pi \sqrt 3\, a\, s\, x)\, dx, \qquad s = f / f_c

    Parameters
    ----------
    frequency : ndarray of shape (F,)
        Cycles per pixel.
    focus : ndarray of shape (Z,)
        Noll coefficient 4, waves RMS.
    cutoff : float
        Cut-off f_c of the pupil, cycles per pixel.

    Returns
    -------
    ndarray of shape (Z, F)
        1 at frequency zero, 0 beyond 2 f_c; negative where contrast is reversed.

    References
    ----------
    H. H. Hopkins, "The frequency response of a defocused optical system", Proc. R. Soc. A 231
    (1955).

    Examples
    --------
    >>> import numpy as np
    >>> H = defocus_transfer(np.array([0.0, 0.25, 0.5]), np.array([0.0]), 0.25)
    >>> abs(H.round(3)).tolist()
    [[1.0, 0.391, 0.0]]
    """
    s = np.asarray(frequency) / cutoff
    t, weight = np.polynomial.legendre.leggauss(_N_NODES)
    angle = (t + 1) * np.pi / 4  # x = (1 - s/2) sin(angle) takes the root's edge away
    reach = np.clip(1 - s / 2, 0, None)[:, None]
    x = reach * np.sin(angle)
    height = np.sqrt(np.clip(1 - (x + s[:, None] / 2) ** 2, 0, None))
    mass = height * reach * np.cos(angle) * weight  # pi/4 of the angle, 4/pi of the integral
    phase = 8 * np.pi * math.sqrt(3) * s[:, None] * x
    focus = np.asarray(focus, dtype=np.float64)
    return np.stack([(mass * np.cos(a * phase)).sum(1) for a in focus])
