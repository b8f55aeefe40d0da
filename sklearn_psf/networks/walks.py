"""Which squares of a window a random walk reaches that does not like to cross borders."""

from functools import lru_cache

import torch
from torch.nn import functional as F

__all__ = ["reachability"]

_NODE = 4  # squares along a side that a walk takes for one place
_STEPS = 24
_REACH = 3  # nodes that one step can go, hence borders of that width are seen
_RELUCTANCE = 16.0  # against steps between nodes whose coordinates are 1 apart
_HALF, _SHARP = 0.7, 3.0  # the share of walkers that counts half, and how steeply it does


def reachability(z: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    r"""Likeness of each square of windows to a place in them, by random walks from there.

    Coordinates tell near squares of different motions apart, far ones may be equal by chance. So a
    walk from the place takes short steps alone, from p to q with probabilities proportional to
    :math:`\exp(-16 |z_p - z_q|^2)`. The share u of walkers that are at a square after 24 steps is
    compared with the share v of those that nothing holds up: r = u / v is small beyond a border,
    even if it has gaps, and the likeness is :math:`r^3 / (r^3 + 0.7^3)`.

    Parameters
    ----------
    z : Tensor of shape (n, k, h, w)
        Coordinates of the squares of windows.
    places : int Tensor of shape (n, 2)
        Row and column of the place in each window.

    Returns
    -------
    Tensor of shape (n, h, w)
        Between 0 and 1.

    Examples
    --------
    >>> z = torch.zeros(1, 1, 64, 64)
    >>> z[..., 32:] = 1.0
    >>> alike = reachability(z, torch.tensor([[30, 12]]))[0]
    >>> bool(alike[:, :28].min() > 0.6), bool(alike[:, 36:].max() < 0.1)
    (True, True)
    """
    shape = z.shape[-2:]
    nodes = F.avg_pool2d(z, _NODE, ceil_mode=True, count_include_pad=False)
    grid = tuple(nodes.shape[-2:])
    near, free = (a.to(z) for a in _free_walk(grid))
    beside = _around(nodes).unflatten(1, (z.shape[1], -1))
    distances = (beside - nodes.flatten(2)[:, :, None]).square().sum(1)
    steps = torch.exp(-_RELUCTANCE * distances) * near
    steps = steps / steps.sum(1, keepdim=True)
    at = places.to(z.device) // _NODE
    start = at[:, 0] * grid[1] + at[:, 1]
    walkers = F.one_hot(start, grid[0] * grid[1]).to(z)
    for _ in range(_STEPS):
        walkers = (steps * _around(walkers.reshape(-1, 1, *grid))).sum(1)
    share = walkers / free[:, start].T.clamp(min=1e-12)
    powers = share**_SHARP
    likeness = (powers / (powers + _HALF**_SHARP)).reshape(-1, 1, *grid)
    likeness = F.interpolate(likeness, scale_factor=_NODE, mode="bilinear", align_corners=False)
    return likeness[:, 0, : shape[0], : shape[1]]


def _around(nodes):
    """Values (n, c k, nodes) at the k nodes around each, c being channels."""
    return F.unfold(nodes, 2 * _REACH + 1, padding=_REACH)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def _free_walk(grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which nodes around each are near, and the walk from all to all with nothing in the way."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    at = torch.stack([y.flatten(), x.flatten()], 1).float()
    near = (torch.cdist(at, at) <= _REACH + 0.2).float()
    free = torch.linalg.matrix_power(near / near.sum(1, keepdim=True), _STEPS)
    offset = torch.arange(-_REACH, _REACH + 1).float()
    inside = torch.hypot(offset[:, None], offset) <= _REACH + 0.2
    return inside.flatten()[:, None] * _around(torch.ones(1, 1, *grid))[0], free
