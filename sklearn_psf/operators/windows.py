"""Windows that share an image out among local PSFs: non-negative, summing to 1 everywhere."""

from collections.abc import Sequence

import numpy as np

from .._validation import check_choice

__all__ = ["WINDOWS", "reaching_windows", "windows"]

WINDOWS = ("bilinear", "triangular", "hann")


def windows(kind: str, rows, columns, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the 1-D factors of separable windows, ``w_ij(r, c) = wy_i(r) wx_j(c)``.

    Beyond the outermost centres the weights stay what they are at those centres, so the windows
    sum to 1 everywhere, borders included. Centres may be unevenly spaced and may lie outside.

    * "bilinear": linear interpolation between neighbouring centres.
    * "hann": raised cosine between neighbouring centres, ``cos^2(pi t / 2)``.
    * "triangular": symmetric triangles as wide as the larger of the two gaps, divided by their
      sum. On even spacing this is "bilinear"; on uneven spacing it is smoother.

    Parameters
    ----------
    kind : {"bilinear", "triangular", "hann"}
        Shape of the window.
    rows, columns : array-like of shape (gy,) and (gx,)
        Centres, strictly increasing, in pixels of `shape`.
    shape : (int, int)
        Height and width on which the windows live.

    Returns
    -------
    wy : ndarray of shape (gy, height)
        Weights along rows, float64.
    wx : ndarray of shape (gx, width)
        Weights along columns, float64.

    Raises
    ------
    ValueError
        If `kind` is unknown or the centres are not finite and strictly increasing.

    References
    ----------
    .. [1] J. G. Nagy and D. P. O'Leary, "Restoring images degraded by spatially variant blur",
       SIAM J. Sci. Comput. 19, 1063-1082 (1998).

    Examples
    --------
    >>> wy, wx = windows("bilinear", [1, 3], [0], (5, 2))
    >>> wy
    array([[1. , 1. , 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 1. , 1. ]])
    >>> wx
    array([[1., 1.]])
    """
    check_choice("window", kind, WINDOWS)
    return _axis_windows(kind, "rows", rows, shape[0]), _axis_windows(
        kind, "columns", columns, shape[1]
    )


def _axis_windows(kind: str, name: str, centres, length: int) -> np.ndarray:
    centres = np.asarray(centres, dtype=np.float64)
    gaps = np.diff(centres)
    if centres.ndim != 1 or len(centres) == 0 or not np.isfinite(centres).all():
        raise ValueError(f"{name} must be a non-empty 1-D array of finite centres, got {centres}.")
    if (gaps <= 0).any():
        raise ValueError(f"{name} must be strictly increasing, got {centres}.")
    if len(centres) == 1:
        return np.ones((1, length))
    # clipping holds the weights constant beyond the outermost centres
    position = np.clip(np.arange(length), centres[0], centres[-1])
    if kind == "triangular":
        half_width = np.maximum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))
        distance = np.abs(position - centres[:, None]) / half_width[:, None]
        weights = np.maximum(1 - distance, 0)
        return weights / weights.sum(axis=0)
    cell = np.clip(np.searchsorted(centres, position, side="right") - 1, 0, len(gaps) - 1)
    t = (position - centres[cell]) / gaps[cell]
    if kind == "hann":
        t = np.sin(np.pi / 2 * t) ** 2
    weights = np.zeros((len(centres), length))
    index = np.arange(length)
    weights[cell, index] = 1 - t
    weights[cell + 1, index] = t
    return weights


def reaching_windows(factors: np.ndarray, span: slice) -> slice:
    """Find which windows are not zero on a part of their length; all, if it is the whole.

    Blocks of an image are given neighbouring PSFs besides: with the modes of all that they share,
    they agree better where they meet.

    Parameters
    ----------
    factors : ndarray of shape (g, length)
        One of the factors of `windows`.
    span : slice
        The part.

    Returns
    -------
    slice
        Of the windows, which are neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> reaching_windows(np.eye(4), slice(1, 3))
    slice(1, 3, None)
    """
    if (span.start, span.stop) == (0, factors.shape[1]):
        return slice(0, len(factors))
    used = np.flatnonzero((factors[:, span] != 0).any(1))
    return slice(int(used[0]), int(used[-1]) + 1)
