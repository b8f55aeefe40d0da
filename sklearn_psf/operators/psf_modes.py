"""Many PSFs as few modes."""

from typing import NamedTuple

import torch

from .._validation import check_number
from .linear_operator import as_tensor

__all__ = ["PSFModes", "compute_psf_modes", "decompose_psfs"]

# Below this tolerance the Gram matrix, which squares the singular values, has lost them.
_GRAM_RTOL = 1e-6
# Shares of the tolerance that the modes of a whole grid and those of its parts may spend. Together
# they stay well below it: few parts hold the worst PSF, to which those of the whole are kept, so
# that parts which spent all of it would be less accurate for most.
_SHARE = 0.25
# PSFs that are worked on in double precision at a time.
_CHUNK = 256


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
    psfs = as_tensor("psfs", psfs, 3)
    whole = decompose_psfs(psfs[:, None], rtol, share=1.0)
    return whole.modes, whole.coefficients.flatten(0, 1).to(psfs.dtype)


class PSFModes(NamedTuple):
    """Modes of a grid of PSFs, and how much error each PSF may take.

    Attributes
    ----------
    modes : Tensor of shape (K, kh, kw)
        Mean PSF, then orthonormal modes by falling singular value.
    coefficients : Tensor of shape (gy, gx, K)
        Weight of each mode in each PSF, float64.
    allowed : Tensor of shape (gy, gx)
        Squared error that a PSF may take in a part of the grid, float64.
    """

    modes: torch.Tensor
    coefficients: torch.Tensor
    allowed: torch.Tensor

    def restrict(self, rows: slice, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the fewer modes that a part of the grid needs.

        Parameters
        ----------
        rows, columns : slice
            The part.

        Returns
        -------
        mixture : Tensor of shape (L, K)
            The modes of the part, as sums of those of the whole; the first is the mean.
        coefficients : Tensor of shape (L, rows, columns)
            Weight of each mode in each PSF of the part.
        """
        part = self.coefficients[rows, columns]
        flat = part.flatten(0, 1)
        mean = flat.mean(0)
        basis, weights = _truncate(flat[:, 1:] - mean[1:], self.allowed[rows, columns].flatten())
        mixture = torch.zeros(len(basis) + 1, flat.shape[1], dtype=flat.dtype, device=flat.device)
        mixture[0], mixture[1:, 1:] = mean, basis
        weights = torch.cat([weights.new_ones(len(flat), 1), weights], 1)
        like = self.modes
        return mixture.to(like), weights.T.reshape(-1, *part.shape[:2]).to(like)

    def collapse(self, axis: int) -> "PSFModes | None":
        """Return the modes of one line of PSFs that stands for all.

        Parameters
        ----------
        axis : {0, 1}
            Axis of the grid along which PSFs may not differ; 1 transposes grid and modes.

        Returns
        -------
        PSFModes or None
            Of a grid (1, g); None where that would be more error than a part of the grid may
            take.
        """
        line = self.coefficients.mean(axis, keepdim=True)
        if ((self.coefficients - line).square().sum(-1) > self.allowed).any():
            return None
        allowed = self.allowed.amin(axis, keepdim=True)
        if axis == 0:
            return PSFModes(self.modes, line, allowed)
        return PSFModes(self.modes.mT.contiguous(), line.transpose(0, 1), allowed.T)


def decompose_psfs(psfs: torch.Tensor, rtol: float, share: float = _SHARE) -> PSFModes:
    """Return the modes of a grid of PSFs, see `compute_psf_modes`.

    Parameters
    ----------
    psfs : Tensor of shape (gy, gx, kh, kw)
        The PSFs.
    rtol : float
        Largest relative error of any PSF.
    share : float, default=0.25
        How much of it the modes of the whole grid may spend, and those of a part once more.

    Returns
    -------
    PSFModes
        Modes, coefficients and allowed errors.
    """
    work = torch.float32 if psfs.device.type == "mps" else torch.float64
    grid = psfs.shape[:2]
    psfs = _distinct(psfs)
    flat = psfs.flatten(2).flatten(0, 1)
    chunks = flat.split(_CHUNK)
    mean = sum(chunk.to(work).sum(0) for chunk in chunks) / len(flat)
    norm2 = torch.cat([chunk.to(work).square().sum(1) for chunk in chunks])
    norm2 = norm2.clamp(min=torch.finfo(work).tiny)
    # the part outside the basis is exactly rounding; rounding must not ask for more modes
    rounding = torch.finfo(work).eps ** 2 * 1e4
    allowed = max((share * rtol) ** 2, rounding) * norm2
    basis, weights = _basis_of_all(flat, mean, allowed, rtol)
    modes = torch.cat([mean[None], basis]).reshape(-1, *psfs.shape[2:])
    coefficients = torch.cat([weights.new_ones(len(flat), 1), weights], 1)
    coefficients = coefficients.reshape(*psfs.shape[:2], -1).expand(*grid, -1)
    allowed = allowed.reshape(psfs.shape[:2]).expand(grid)
    return PSFModes(modes.to(psfs.dtype), coefficients, allowed)


def _distinct(psfs: torch.Tensor) -> torch.Tensor:
    """Return one row of the grid where all are the same, and one column."""
    for axis in (0, 1):
        first, *others = psfs.split(1, axis)
        if all(torch.equal(first, other) for other in others):
            psfs = first
    return psfs


def _basis_of_all(flat: torch.Tensor, mean: torch.Tensor, allowed: torch.Tensor, rtol: float):
    """Return a basis (R, P) of what deviates from the mean, and its weights (M, R).

    It is that of some rows, to which those are added that it does not serve, so that never all
    are held in double precision at once.
    """
    chosen = torch.linspace(0, len(flat) - 1, min(len(flat), _CHUNK), device=flat.device).long()
    while True:
        some = flat[chosen].to(mean.dtype).sub_(mean)
        basis = _right_singular_vectors(some, allowed[chosen], rtol)
        if len(chosen) == len(flat):
            weights, outside = some @ basis.T, torch.zeros_like(allowed)  # but for rounding
            break
        weights, outside = _project(flat, mean, basis)
        if (outside <= allowed).all():
            break
        worst = (outside / allowed).argsort(descending=True)[: _CHUNK // 4]
        chosen = torch.cat([chosen, worst]).unique()
    turn, turned = _truncate(weights, allowed - outside)
    return turn @ basis, turned


def _project(flat, mean, basis):
    """Return the weights (M, R) of all rows, and the squares (M,) of what the basis leaves out."""
    weights, outside = [], []
    for chunk in flat.split(_CHUNK):
        deviation = chunk.to(mean.dtype) - mean
        weights.append(deviation @ basis.T)
        deviation -= weights[-1] @ basis
        outside.append(torch.linalg.vecdot(deviation, deviation))
    return torch.cat(weights), torch.cat(outside)


def _truncate(deviation: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first right singular vectors (R, P) of a matrix (M, P), and its weights (M, R).

    As few as leave each row a squared error of at most `allowed`.
    """
    basis = torch.linalg.svd(deviation, full_matrices=False)[2]
    weights = deviation @ basis.T
    n_kept = _count(weights, allowed)
    return basis[:n_kept], weights[:, :n_kept]


def _count(weights: torch.Tensor, allowed: torch.Tensor) -> int:
    # dropped[:, k] is what is lost of each row when the first k columns are kept
    energy = torch.cat([weights, weights.new_zeros(len(weights), 1)], 1).square()
    dropped = energy.flip(1).cumsum(1).flip(1)
    return int((dropped > allowed[:, None]).any(0).sum())


def _right_singular_vectors(matrix, allowed, rtol: float) -> torch.Tensor:
    """Return right singular vectors (R, P) of a matrix (M, P), strongest first, enough of them."""
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
    # a hundredth of the squared error is asked for, so that no mode is missed by rounding
    weights = vectors * values.flip(0)[keep].sqrt()
    basis = vectors[:, : _count(weights, allowed / 100)].T @ matrix
    # normalising by QR keeps the weak modes orthogonal, which the error count relies on
    return torch.linalg.qr(basis.T)[0].T
