"""Continuous coordinates for motions: equal where the blurs of two motions are equal.

A long exposure does not tell in which order things happened, and a lens without astigmatism does
not tell the two sides of focus apart.
"""

import torch

__all__ = [
    "decode_astigmatic_motion",
    "decode_motion",
    "encode_astigmatic_motion",
    "encode_motion",
    "nearest_motion",
]

_TINY = 1e-12
_N_TERMS = 8  # of a series whose terms fall as k^-2
_PIXELS_PER_WAVE = 20.0  # brings lateral and axial motion to one scale: that of their bounds


def encode_motion(p: torch.Tensor) -> torch.Tensor:
    r"""(v_y, v_x, v_z, z0) -> six coordinates, equal exactly where the blurs are equal.

    The blur is unchanged by (v, v_z) -> -(v, v_z) and by (v_z, z0) -> -(v_z, z0). With both used up
    to make v_z, z0 >= 0, the sense of v is known, and lost as v_z or z0 goes to 0:

    \|v\| cos 2t, \|v\| sin 2t, v_z, z0, g v_y, g v_x  with  g = 2 v_z z0 / (v_z + z0),

    where t is the angle of v from the x axis.

    Parameters
    ----------
    p : Tensor of shape (..., 4)
        Lateral motion, pixels; axial motion and mean defocus, waves.

    Returns
    -------
    Tensor of shape (..., 6)
        Coordinates.

    Examples
    --------
    >>> import torch
    >>> encode_motion(torch.tensor([[0.0, 2.0, 1.0, 1.0]]))
    tensor([[2., 0., 1., 1., 0., 2.]])
    """
    vy, vx, vz, z0 = p.unbind(-1)
    sense = torch.where(vz * z0 < 0, -1.0, 1.0).to(p.dtype)
    vy, vx, vz, z0 = vy * sense, vx * sense, vz.abs(), z0.abs()
    norm = torch.sqrt(vy**2 + vx**2 + _TINY)
    g = 2 * vz * z0 / (vz + z0 + _TINY)
    return torch.stack(
        [(vx**2 - vy**2) / norm, 2 * vx * vy / norm, vz, z0, g * vy, g * vx],
        -1,
    )


def decode_motion(e: torch.Tensor) -> torch.Tensor:
    """Invert `encode_motion`; v_z and z0 are clipped at 0.

    Parameters
    ----------
    e : Tensor of shape (..., 6)
        Coordinates, or an average of them.

    Returns
    -------
    Tensor of shape (..., 4)
        v_y, v_x, v_z, z0, with v_x >= 0 where the sense is lost.

    Examples
    --------
    >>> import torch
    >>> decode_motion(torch.tensor([[2.0, 0.0, 1.0, 1.0, 0.0, -2.0]])).round(decimals=4).abs()
    tensor([[0., 2., 1., 1.]])
    """
    speed = torch.sqrt(e[..., 0] ** 2 + e[..., 1] ** 2 + _TINY**2)
    angle = torch.atan2(e[..., 1], e[..., 0]) / 2
    vy, vx = speed * torch.sin(angle), speed * torch.cos(angle)
    against = vy * e[..., 4] + vx * e[..., 5] < 0
    sense = torch.where(against, -1.0, 1.0).to(e.dtype)
    return torch.stack([vy * sense, vx * sense, e[..., 2].clamp(min=0), e[..., 3].clamp(min=0)], -1)


def nearest_motion(e: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    r"""Coordinates of the motion that is nearest, in the mean, to one that is not known for sure.

    Means of :math:`\|v\| (\cos 2t, \sin 2t)` over possible directions are short, down to 0 where
    every direction is possible, though the speed be known. Of all vectors along the mean axis that
    of length

    .. math:: \|v\|\, E |\cos \delta| = \|v\| \frac{2}{\pi} \left(1 + 2 \sum_{k \ge 1}
              \frac{(-1)^{k + 1} \kappa^{k^2}}{4 k^2 - 1} \right)

    has the least mean squared distance to v or -v, for a wrapped normal distribution of the angle
    :math:`\delta` between them with :math:`E \cos 2 \delta = \kappa`. The square of the speed is
    that of the mean plus its variances, and :math:`\kappa` the length of the mean over the speed.

    Parameters
    ----------
    e : Tensor of shape (..., 6)
        Means of coordinates of `encode_motion`.
    variance : Tensor of shape (..., 6)
        Their variances.

    Returns
    -------
    Tensor of shape (..., 6)
        Coordinates; the same where variances are 0.

    References
    ----------
    K. V. Mardia and P. E. Jupp, Directional Statistics (Wiley, 2000), section 3.5.7.

    Examples
    --------
    >>> import torch
    >>> e = torch.tensor([[3.0, 0.0, 1.0, 1.0, 0.0, 3.0]])
    >>> nearest = nearest_motion(e, torch.tensor([[16.0, 0.0, 0.1, 0.1, 1.0, 1.0]]))
    >>> round(nearest[0, 0].item(), 2)
    4.41
    """
    squares = e[..., :2].square().sum(-1) + _TINY
    speed = torch.sqrt(squares + variance[..., :2].sum(-1))
    kappa = torch.sqrt(squares) / speed
    k = torch.arange(1, _N_TERMS + 1, dtype=e.dtype, device=e.device)
    factors = 2 * (-1) ** (k + 1) / (4 * k * k - 1)
    terms = (kappa[..., None] ** (k * k) * factors).sum(-1)
    share = (1 + terms) / (1 + factors.sum())  # pi / 2, but for what is cut off
    longer = e[..., :2] * (share / kappa)[..., None]
    return torch.cat([longer, e[..., 2:]], -1)


def encode_astigmatic_motion(p: torch.Tensor) -> torch.Tensor:
    r"""(v_y, v_x, v_z, z0) -> seven coordinates, for a lens of known astigmatism.

    Such a lens tells the sides of focus apart, so z0 has a sign; what remains is that a blur reads
    the same backwards, (v, v_z) -> -(v, v_z). Coordinates that do not change with that sign are

    .. math:: q_y^2, q_x^2, q_z^2, q_y q_x, q_y q_z, q_x q_z, \quad\text{all over } \|q\|,
              \quad z_0

    with q = (v_y, v_x, 20 v_z).

    Parameters
    ----------
    p : Tensor of shape (..., 4)
        Lateral motion, pixels; axial motion and mean defocus, waves.

    Returns
    -------
    Tensor of shape (..., 7)
        Coordinates.

    Examples
    --------
    >>> import torch
    >>> encode_astigmatic_motion(torch.tensor([[0.0, 3.0, 0.2, -0.5]])).round(decimals=4).tolist()
    [[0.0, 1.7999999523162842, 3.200000047683716, 0.0, 0.0, 2.4000000953674316, -0.5]]
    """
    vy, vx, vz, z0 = p.unbind(-1)
    qz = _PIXELS_PER_WAVE * vz
    norm = torch.sqrt(vy**2 + vx**2 + qz**2 + _TINY)
    products = [vy * vy, vx * vx, qz * qz, vy * vx, vy * qz, vx * qz]
    return torch.stack([*(product / norm for product in products), z0], -1)


def decode_astigmatic_motion(e: torch.Tensor) -> torch.Tensor:
    """Invert `encode_astigmatic_motion`.

    Parameters
    ----------
    e : Tensor of shape (..., 7)
        Coordinates, or an average of them.

    Returns
    -------
    Tensor of shape (..., 4)
        v_y, v_x, v_z, z0, with v_z >= 0.

    Examples
    --------
    >>> import torch
    >>> e = encode_astigmatic_motion(torch.tensor([[4.0, -3.0, -0.5, -0.2]]))
    >>> decode_astigmatic_motion(e).round(decimals=4).tolist()
    [[-4.0, 3.0, 0.5, -0.20000000298023224]]
    """
    yy, xx, zz, yx, yz, xz, z0 = e.unbind(-1)
    rows = torch.stack(
        [torch.stack(row, -1) for row in ((yy, yx, yz), (yx, xx, xz), (yz, xz, zz))], -2
    )
    squares = torch.stack([yy, xx, zz], -1).clamp(min=0)
    # The row of the largest component, q_i q / |q|, is known best.
    best = squares.argmax(-1, keepdim=True)
    row = torch.take_along_dim(rows, best[..., None], -2)[..., 0, :]
    speed = squares.sum(-1, keepdim=True)
    own = torch.take_along_dim(squares, best, -1)
    q = row * torch.sqrt((speed + _TINY) / (own + _TINY))
    q = q * torch.where(q[..., 2:] < 0, -1.0, 1.0).to(e.dtype)
    return torch.cat([q[..., :2], q[..., 2:] / _PIXELS_PER_WAVE, z0[..., None]], -1)
