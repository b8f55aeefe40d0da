"""Finite differences, their exact adjoint, and total variation."""

import torch

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


def tv_curvature(x: torch.Tensor, eps) -> torch.Tensor:
    r"""Curvature of the level lines, the negative gradient of `total_variation`.

    .. math:: \mathrm{div}\left(\nabla x / \sqrt{|\nabla x|^2 + \epsilon^2}\right)

    Parameters
    ----------
    x : Tensor of shape (..., H, W)
        Images.
    eps : float or Tensor broadcastable to (..., 1, 1)
        Smoothing, in units of x; positive.

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
    g = gradient(x)
    return divergence(g / _norm(g, eps).unsqueeze(-3))
