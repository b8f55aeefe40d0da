"""PSFs cut to what carries their light."""

import numpy as np

from .._validation import check_number

__all__ = ["crop_psfs"]


def crop_psfs(psfs, rtol: float = 1e-4) -> np.ndarray:
    """Cut PSFs to their common support and give each its former sum.

    Parameters
    ----------
    psfs : array-like of shape (..., kh, kw)
        Odd-sized non-negative PSFs.
    rtol : float, default=1e-4
        Largest share of its light that any PSF may lose by the cut.

    Returns
    -------
    ndarray of shape (..., kh', kw')
        The centre of the PSFs, odd-sized, same dtype.

    Raises
    ------
    ValueError
        If `rtol` is outside [0, 1), or a size is even.

    Examples
    --------
    >>> import numpy as np
    >>> psf = np.zeros((9, 7))
    >>> psf[3:6, 3] = [0.25, 0.5, 0.25]
    >>> crop_psfs(psf).shape
    (3, 1)
    """
    check_number("rtol", rtol, low=0.0, high=1.0)
    psfs = np.asarray(psfs)
    if psfs.ndim < 2 or psfs.shape[-2] % 2 == 0 or psfs.shape[-1] % 2 == 0:
        raise ValueError(f"psfs must have odd height and width, got shape {psfs.shape}.")
    total = psfs.sum(axis=(-2, -1), dtype=np.float64)
    # half the loss for each axis bounds the loss of both
    half = [
        _half_width(psfs.sum(axis=axis, dtype=np.float64), total, rtol / 2) for axis in (-1, -2)
    ]
    top, left = psfs.shape[-2] // 2 - half[0], psfs.shape[-1] // 2 - half[1]
    cut = psfs[..., top : top + 2 * half[0] + 1, left : left + 2 * half[1] + 1]
    kept = cut.sum(axis=(-2, -1), dtype=np.float64)
    scale = np.divide(total, kept, out=np.ones_like(total), where=kept > 0)
    return cut * scale[..., None, None].astype(psfs.dtype)


def _half_width(marginal: np.ndarray, total: np.ndarray, loss: float) -> int:
    """Smallest half-width whose window keeps ``1 - loss`` of every profile (..., k)."""
    centre = marginal.shape[-1] // 2
    folded = marginal[..., centre:].copy()
    folded[..., 1:] += marginal[..., :centre][..., ::-1]
    outside = total[..., None] - folded.cumsum(axis=-1)
    # the last entry is zero but for rounding
    enough = outside <= np.maximum(loss, 1e-12) * np.abs(total)[..., None]
    enough[..., -1] = True
    return int(np.argmax(enough, axis=-1).max())
