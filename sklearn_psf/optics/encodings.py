"""Continuous coordinates for PSF parameters with angles and signs.

A blur does not determine every parameter: an axis has a period, two sets of parameters may give
the same PSF, and an angle means nothing where its amplitude vanishes. Regression and averages are
therefore done in coordinates that are equal exactly where the PSFs are, and continuous everywhere.
"""

import math

import torch

__all__ = [
    "coherent_astigmatism",
    "coherent_cylinder",
    "decode_astigmatism",
    "decode_cylinder",
    "encode_astigmatism",
    "encode_cylinder",
]

_TINY = 1e-12


def _length(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return sqrt(x^2 + y^2), with a finite gradient at the origin."""
    return torch.sqrt(x**2 + y**2 + _TINY**2)


def _wrap(angle: torch.Tensor, period: float) -> torch.Tensor:
    """Return the angle in [0, period), where float32 may round a remainder up to the period."""
    angle = torch.remainder(angle, period)
    return torch.where(angle >= period, torch.zeros_like(angle), angle)


def encode_cylinder(p: torch.Tensor) -> torch.Tensor:
    """(cylinder, axis) -> (c, c cos 4axis, c sin 4axis): without focus the period is pi / 2.

    Parameters
    ----------
    p : Tensor of shape (..., 2)
        Cylinder, any unit; axis, radians. A negative cylinder turns the axis by pi / 2.

    Returns
    -------
    Tensor of shape (..., 3)
        Coordinates in the unit of the cylinder.

    Examples
    --------
    >>> import torch
    >>> encode_cylinder(torch.tensor([[0.5, torch.pi / 8]])).round(decimals=4).abs()
    tensor([[0.5000, 0.0000, 0.5000]])
    """
    c, axis = p.unbind(-1)
    c = c.abs()  # the sign of c turns the axis by pi / 2, a whole period
    return torch.stack([c, c * torch.cos(4 * axis), c * torch.sin(4 * axis)], -1)


def decode_cylinder(e: torch.Tensor) -> torch.Tensor:
    """Invert `encode_cylinder`; the cylinder is clipped at 0, the axis is in [0, pi / 2).

    Parameters
    ----------
    e : Tensor of shape (..., 3)
        Coordinates, or an average of them.

    Returns
    -------
    Tensor of shape (..., 2)
        Cylinder and axis; the axis is 0 where the coordinates do not tell.

    Examples
    --------
    >>> import torch
    >>> decode_cylinder(torch.tensor([[0.5, 0.0, 0.5]])).round(decimals=4)
    tensor([[0.5000, 0.3927]])
    """
    c, x, y = e.unbind(-1)
    return torch.stack([c.clamp(min=0), _wrap(torch.atan2(y, x) / 4, math.pi / 2)], -1)


def coherent_cylinder(e: torch.Tensor) -> torch.Tensor:
    """Give an average of `encode_cylinder` the cylinder on which its axes agree.

    Parameters
    ----------
    e : Tensor of shape (..., 3)
        Average of encodings: the first coordinate is the mean cylinder, however its axes point.

    Returns
    -------
    Tensor of shape (..., 3)
        The first coordinate replaced by the length of the other two.

    Examples
    --------
    >>> import torch
    >>> opposite = encode_cylinder(torch.tensor([[0.5, 0.0], [0.5, torch.pi / 4]])).mean(0)
    >>> coherent_cylinder(opposite)[0] < 1e-6
    tensor(True)
    """
    return torch.cat([e[..., 1:].norm(dim=-1, keepdim=True), e[..., 1:]], -1)


def coherent_astigmatism(e: torch.Tensor) -> torch.Tensor:
    """Give an average of `encode_astigmatism` the cylinder on which its axes agree.

    The last four coordinates of an encoding have the length c; those of an average are shorter the
    less its axes agree.

    Parameters
    ----------
    e : Tensor of shape (..., 6)
        Average of encodings.

    Returns
    -------
    Tensor of shape (..., 6)
        The second coordinate replaced by the length of the last four.

    Examples
    --------
    >>> import torch
    >>> e = encode_astigmatism(torch.tensor([[0.4, 0.3, 1.0]]))
    >>> bool(torch.allclose(coherent_astigmatism(e), e))
    True
    """
    return torch.cat([e[..., :1], e[..., 2:].norm(dim=-1, keepdim=True), e[..., 2:]], -1)


def encode_astigmatism(p: torch.Tensor) -> torch.Tensor:
    r"""(focus, cylinder, axis) -> six coordinates, equal exactly where the PSFs are equal.

    The PSF depends on v = (f, c cos 2axis, c sin 2axis) up to a common sign, since mirroring an
    even wavefront mirrors an even PSF. The products :math:`v v^T / |v|` are therefore continuous
    through f = 0 and c = 0; written out they are

    f, c, (f c / \|v\|) (cos 2axis, sin 2axis), (c^2 / \|v\|) (cos 4axis, sin 4axis).

    Parameters
    ----------
    p : Tensor of shape (..., 3)
        Focus and cylinder, in one unit; axis, radians. Negative values are allowed.

    Returns
    -------
    Tensor of shape (..., 6)
        Coordinates in the unit of focus and cylinder.

    Examples
    --------
    >>> import torch
    >>> encode_astigmatism(torch.tensor([[3.0, 4.0, 0.0]]))
    tensor([[3.0000, 4.0000, 2.4000, 0.0000, 3.2000, 0.0000]])
    """
    f, c, axis = p.unbind(-1)
    c = torch.where(f < 0, -c, c)  # the common sign goes to the axis: (-f, c) ~ (f, -c)
    f = f.abs()
    norm = torch.sqrt(f**2 + c**2 + _TINY)
    once, twice = f * c / norm, c**2 / norm
    return torch.stack(
        [
            f,
            c.abs(),
            once * torch.cos(2 * axis),
            once * torch.sin(2 * axis),
            twice * torch.cos(4 * axis),
            twice * torch.sin(4 * axis),
        ],
        -1,
    )


def _double_axis(
    f: torch.Tensor,
    c: torch.Tensor,
    p1: torch.Tensor,
    p2: torch.Tensor,
    q1: torch.Tensor,
    q2: torch.Tensor,
) -> torch.Tensor:
    """Angle phi = 2 axis that maximises v^T M v over v = (f, c cos phi, c sin phi).

    Up to factors and terms without phi this is a cos(phi - alpha) + b cos(2 phi - beta). Its
    maximum lies near phi = alpha or phi = beta / 2 (+ pi); Newton's steps polish the best of them.
    """
    a, b = 4 * f * _length(p1, p2), c * _length(q1, q2)
    alpha, beta = torch.atan2(p2, p1), torch.atan2(q2, q1)
    starts = torch.stack([alpha, beta / 2, beta / 2 + math.pi])
    values = a * torch.cos(starts - alpha) + b * torch.cos(2 * starts - beta)
    phi = torch.gather(starts, 0, values.argmax(0, keepdim=True))[0]
    for _ in range(6):
        slope = -a * torch.sin(phi - alpha) - 2 * b * torch.sin(2 * phi - beta)
        bend = a * torch.cos(phi - alpha) + 4 * b * torch.cos(2 * phi - beta)
        step = slope / bend.clamp(min=_TINY)
        phi = phi + step.clamp(-0.3, 0.3)
    return phi


def decode_astigmatism(e: torch.Tensor) -> torch.Tensor:
    """Invert `encode_astigmatism`; also for averages, whose coordinates are not exactly on it.

    Focus and cylinder are clipped at 0, the axis is in [0, pi) and carries the sign of defocus.
    The axis is that of the v whose :math:`v v^T` lies nearest to the products.

    Parameters
    ----------
    e : Tensor of shape (..., 6)
        Coordinates, or an average of them.

    Returns
    -------
    Tensor of shape (..., 3)
        Focus, cylinder and axis; the axis is 0 where the coordinates do not tell.

    Examples
    --------
    >>> import torch
    >>> p = torch.tensor([[1.0, 0.5, 2.0]])
    >>> decode_astigmatism(encode_astigmatism(p)).round(decimals=4)
    tensor([[1.0000, 0.5000, 2.0000]])
    """
    f, c = e[..., 0].clamp(min=0), e[..., 1].clamp(min=0)
    phi = _double_axis(f, c, *e[..., 2:].unbind(-1))
    return torch.stack([f, c, _wrap(phi / 2, math.pi)], -1)
