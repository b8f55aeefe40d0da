"""Finite differences, their exact adjoint, and total variation."""

import torch

from .row_strips import strips

__all__ = ["divergence", "gradient", "total_variation", "tv_curvature"]


def gradient(x: torch.Tensor) -> torch.Tensor:
    """Forward differences; zero at the last row and column (nothing flows through the border).

    Parameters
    ----------
    x : Tensor of shape (..., H, W)
        Images.

    Returns
    -------
    Tensor of shape (..., 2, H, W)
        Differences along rows and columns.

    Examples
    --------
    >>> gradient(torch.tensor([[0.0, 1.0], [3.0, 3.0]]))
    tensor([[[3., 2.],
             [0., 0.]],
            [[1., 0.],
             [0., 0.]]])
    """
    g = x.new_zeros((*x.shape[:-2], 2, *x.shape[-2:]))
    g[..., 0, :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    g[..., 1, :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    return g


def divergence(p: torch.Tensor) -> torch.Tensor:
    """Divergence, the exact negative adjoint of `gradient`.

    ``<gradient(x), p> = -<x, divergence(p)>`` for every x and p.

    Parameters
    ----------
    p : Tensor of shape (..., 2, H, W)
        Vector field, components along rows and columns.

    Returns
    -------
    Tensor of shape (..., H, W)
        Its divergence.

    Raises
    ------
    ValueError
        If the third axis from the end is not of length 2.

    Examples
    --------
    >>> divergence(torch.ones(2, 3, 3))
    tensor([[ 2.,  1.,  0.],
            [ 1.,  0., -1.],
            [ 0., -1., -2.]])
    """
    if p.ndim < 3 or p.shape[-3] != 2:
        raise ValueError(f"p must have shape (..., 2, H, W), got {tuple(p.shape)}.")
    d = p.new_zeros((*p.shape[:-3], *p.shape[-2:]))
    along_rows, along_columns = p[..., 0, :-1, :], p[..., 1, :, :-1]
    d[..., :-1, :] += along_rows
    d[..., 1:, :] -= along_rows
    d[..., :, :-1] += along_columns
    d[..., :, 1:] -= along_columns
    return d


def _norm(g: torch.Tensor, eps) -> torch.Tensor:
    # |g|_eps = sqrt(g_y^2 + g_x^2 + eps^2), shape (..., H, W)
    eps = torch.as_tensor(eps, dtype=g.dtype, device=g.device)
    return (g.square().sum(-3) + eps.square()).sqrt()


def total_variation(x: torch.Tensor, eps=0.0, weight=None) -> torch.Tensor:
    r"""Isotropic total variation, smoothed at zero.

    .. math:: TV(x) = \sum_p w_p \left(\sqrt{|\nabla x|_p^2 + \epsilon^2} - \epsilon\right)

    Parameters
    ----------
    x : Tensor of shape (..., H, W)
        Images.
    eps : float or Tensor broadcastable to (..., 1, 1)
        Gradients well under it count quadratically; in units of x.
    weight : Tensor broadcastable to (..., H, W) or None
        Weight of each pixel; None is 1.

    Returns
    -------
    Tensor of shape (...)
        Total variation, in units of x.

    References
    ----------
    .. [1] L. I. Rudin, S. Osher and E. Fatemi, "Nonlinear total variation based noise removal
       algorithms", Physica D 60, 259-268 (1992).

    Examples
    --------
    >>> total_variation(torch.tensor([[0.0, 0.0], [3.0, 3.0]]))
    tensor(6.)
    """
    value = _norm(gradient(x), eps) - eps
    return (value if weight is None else value * weight).sum((-2, -1))


def tv_curvature(x: torch.Tensor, eps, out: torch.Tensor | None = None) -> torch.Tensor:
    r"""Curvature of the level lines, the negative gradient of `total_variation`.

    .. math:: \mathrm{div}\left(\nabla x / \sqrt{|\nabla x|^2 + \epsilon^2}\right)

    Parameters
    ----------
    x : Tensor of shape (..., H, W)
        Images.
    eps : float or Tensor broadcastable to (..., 1, 1)
        Smoothing, in units of x; positive.
    out : Tensor of shape (..., H, W) or None
        Where to write; None is a new tensor.

    Returns
    -------
    Tensor of shape (..., H, W)
        Curvature in 1 / pixel, between -4 and 4.

    Examples
    --------
    >>> spot = torch.zeros(3, 3)
    >>> spot[1, 1] = 1.0
    >>> float(tv_curvature(spot, 1e-6)[1, 1]) < -3
    True
    """
    x = x.contiguous()
    out = torch.empty_like(x) if out is None else out
    eps2 = torch.as_tensor(eps, dtype=x.dtype, device=x.device).square()
    # Rows follow each other in memory: one long axis is faster than two.
    eps2 = eps2[..., 0] if eps2.ndim else eps2
    width = x.shape[-1]
    for rows in strips(x):
        # the divergence looks one row up, unless there is none
        above = width * min(rows.start, 1)
        down, across = _differences(x, rows.start - min(rows.start, 1), rows.stop)
        inverse = torch.addcmul(eps2, down, down).addcmul_(across, across).rsqrt_()
        down *= inverse
        across *= inverse
        part = torch.add(down[..., above:], across[..., above:], out=out[..., rows, :].flatten(-2))
        part[..., width - above :] -= down[..., :-width]
        # the last of a row is zero, hence nothing flows into the first of the next
        part[..., 1 - min(above, 1) :] -= across[..., max(above, 1) - 1 : -1]
    return out


def _differences(x: torch.Tensor, top: int, bottom: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the components of `gradient` on some rows, each (..., (bottom - top) * W)."""
    width, end = x.shape[-1], min(bottom + 1, x.shape[-2])
    part, more = (x[..., top:stop, :].flatten(-2) for stop in (bottom, end))
    down, across = torch.empty_like(part), torch.empty_like(part)
    n = more.shape[-1] - width
    torch.sub(more[..., width:], part[..., :n], out=down[..., :n])
    down[..., n:] = 0
    torch.sub(part[..., 1:], part[..., :-1], out=across[..., :-1])
    across[..., width - 1 :: width] = 0
    return down, across
