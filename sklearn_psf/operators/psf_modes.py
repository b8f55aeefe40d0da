"""Many PSFs as few modes, and the cutting of PSFs to what carries their light."""

import numpy as np
import torch

from .._validation import check_number
from .convolution import _as_tensor

__all__ = ["compute_psf_modes", "crop_psfs"]

# Below this tolerance the Gram matrix, which squares the singular values, has lost them.
_GRAM_RTOL = 1e-6


def compute_psf_modes(psfs, rtol: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
    """Write PSFs as a mean and few modes, ``h_m = sum_k c_mk e_k``, by truncated SVD.

    The first mode is the mean PSF with coefficients 1, the others are the singular vectors of
    what deviates from it. Where all PSFs have the same sum, these modes sum to 0: truncation
    then moves no light, and equal PSFs need one mode exactly.

    Parameters
    ----------
    psfs : array-like or Tensor of shape (M, kh, kw)
        The PSFs.
    rtol : float, default=1e-3
        Largest relative error ``||h_m - sum_k c_mk e_k|| / ||h_m||`` over all PSFs m (hence of
        the relative Frobenius error of the set).

    Returns
    -------
    modes : Tensor of shape (K, kh, kw)
        Mean PSF, then orthonormal modes by falling singular value.
    coefficients : Tensor of shape (M, K)
        Weight of each mode in each PSF.

    Raises
    ------
    ValueError
        If `psfs` is not 3-D or not finite, or `rtol` is outside [0, 1).

    Notes
    -----
    For ``rtol`` of 1e-6 and more the singular vectors come from the smaller of the two Gram
    matrices, in float64: cheaper, and accurate down to about 1e-8 of the largest.

    References
    ----------
    .. [1] R. C. Flicker and F. J. Rigaut, "Anisoplanatic deconvolution of adaptive optics
       images", J. Opt. Soc. Am. A 22, 504-513 (2005).

    Examples
    --------
    >>> import numpy as np
    >>> psfs = np.zeros((3, 3, 3))
    >>> psfs[:, 1, 1], psfs[:, 1, 0] = [1, 0.9, 0.8], [0, 0.1, 0.2]
    >>> modes, coefficients = compute_psf_modes(psfs)
    >>> modes.shape, coefficients.shape
    (torch.Size([2, 3, 3]), torch.Size([3, 2]))
    >>> torch.allclose(torch.einsum("mk,kij->mij", coefficients, modes), torch.tensor(psfs))
    True
    """
    check_number("rtol", rtol, low=0.0, high=1.0)
    psfs = _as_tensor("psfs", psfs, 3)
    work = torch.float32 if psfs.device.type == "mps" else torch.float64
    flat = psfs.flatten(1).to(work)
    mean = flat.mean(0)
    deviation = flat - mean
    basis = _right_singular_vectors(deviation, rtol)  # (R, P)
    weights = deviation @ basis.T
    norm2 = flat.square().sum(1).clamp(min=torch.finfo(work).tiny)
    # dropped[:, k] is what is lost of each PSF when the first k modes are kept
    energy = torch.cat([weights, weights.new_zeros(len(flat), 1)], 1).square()
    dropped = energy.flip(1).cumsum(1).flip(1)
    # the part outside the basis is exactly rounding; rounding must not ask for more modes
    allowed = torch.clamp(torch.as_tensor(rtol**2), min=torch.finfo(work).eps ** 2 * 1e4)
    n_kept = int((dropped > allowed * norm2[:, None]).any(0).sum())
    modes = torch.cat([mean[None], basis[:n_kept]]).reshape(-1, *psfs.shape[1:])
    coefficients = torch.cat([weights.new_ones(len(flat), 1), weights[:, :n_kept]], 1)
    return modes.to(psfs.dtype), coefficients.to(psfs.dtype)


def _right_singular_vectors(matrix: torch.Tensor, rtol: float) -> torch.Tensor:
    """Return the right singular vectors (R, P) of a matrix (M, P), strongest first."""
    if rtol < _GRAM_RTOL:
        return torch.linalg.svd(matrix, full_matrices=False)[2]
    tall = matrix.shape[0] > matrix.shape[1]
    gram = matrix.T @ matrix if tall else matrix @ matrix.T
    values, vectors = torch.linalg.eigh(gram)
    # what lies under the rounding of the squares has no direction worth keeping
    keep = values.flip(0) > values[-1] * 1e-15
    vectors = vectors.flip(1)[:, keep]
    if tall:
        return vectors.T
    basis = vectors.T @ matrix
    # normalising by QR keeps the weak modes orthogonal, which the error count relies on
    return torch.linalg.qr(basis.T)[0].T


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
    return (cut * scale[..., None, None]).astype(psfs.dtype)


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
