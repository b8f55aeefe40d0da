"""Zernike polynomials on the unit disk: Noll's order, RMS 1 over the disk."""

from math import sqrt

import torch

__all__ = ["noll_to_nm", "zernike", "zernike_basis"]


def noll_to_nm(j: int) -> tuple[int, int]:
    """Return the radial order and signed azimuthal order of a Noll index.

    Parameters
    ----------
    j : int
        Noll index, from 1 (piston).

    Returns
    -------
    n : int
        Radial order.
    m : int
        Azimuthal order: positive for the cosine, negative for the sine.

    Raises
    ------
    ValueError
        If `j` is not a positive integer.

    References
    ----------
    R. J. Noll, "Zernike polynomials and atmospheric turbulence", J. Opt. Soc. Am. 66 (1976).

    Examples
    --------
    >>> [noll_to_nm(j) for j in (1, 2, 3, 4, 5, 6, 11)]
    [(0, 0), (1, 1), (1, -1), (2, 0), (2, -2), (2, 2), (4, 0)]
    """
    if j != int(j) or j < 1:
        raise ValueError(f"Noll index j must be a positive integer, got {j!r}.")
    n = 0
    while (n + 1) * (n + 2) // 2 < j:
        n += 1
    k = j - n * (n + 1) // 2  # 1 .. n + 1 within the radial order
    m = 2 * (k // 2) if n % 2 == 0 else 2 * ((k + 1) // 2) - 1
    return n, m if j % 2 == 0 else -m


def _radial(n: int, m: int, rho: torch.Tensor) -> torch.Tensor:
    """Radial polynomial by the three-term recurrence of Jacobi polynomials, stable at any order.

    R_n^m(rho) = rho^m P_k^(0, m)(2 rho^2 - 1) with k = (n - m) / 2.
    """
    x = 2 * rho**2 - 1
    previous, current = torch.zeros_like(x), torch.ones_like(x)
    for i in range(1, (n - m) // 2 + 1):
        if i == 1:
            following = 0.5 * ((m + 2) * x - m)
        else:
            a = 2 * i * (i + m) * (2 * i + m - 2)
            b = (2 * i + m - 1) * ((2 * i + m) * (2 * i + m - 2) * x - m * m)
            c = 2 * (i - 1) * (i + m - 1) * (2 * i + m)
            following = (b * current - c * previous) / a
        previous, current = current, following
    return rho**m * current


def zernike(j: int, rho: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    r"""Evaluate one Zernike polynomial.

    .. math:: Z_j = \sqrt{n + 1}\, R_n^0, \quad
              Z_j = \sqrt{2 (n + 1)}\, R_n^m(\rho) \{\cos m\theta, \sin m\theta\}

    with the cosine for even `j`. The RMS over the disk is 1 (but for the piston, whose mean is 1).

    Parameters
    ----------
    j : int
        Noll index, from 1.
    rho : Tensor
        Radius, in units of the pupil radius.
    theta : Tensor of the shape of `rho`
        Angle from the column (x) axis towards the row (y) axis, radians.

    Returns
    -------
    Tensor of the shape of `rho`
        The polynomial; it is not cut off outside the disk.

    Raises
    ------
    ValueError
        If `j` is not a positive integer.

    References
    ----------
    R. J. Noll, "Zernike polynomials and atmospheric turbulence", J. Opt. Soc. Am. 66 (1976).

    Examples
    --------
    >>> import torch
    >>> zernike(4, torch.tensor([0.0, 1.0]), torch.zeros(2))
    tensor([-1.7321,  1.7321])
    """
    n, m = noll_to_nm(j)
    radial = _radial(n, abs(m), rho)
    if m == 0:
        return sqrt(n + 1) * radial
    azimuthal = torch.cos(m * theta) if m > 0 else torch.sin(-m * theta)
    return sqrt(2 * (n + 1)) * radial * azimuthal


def zernike_basis(indices: tuple[int, ...], y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Stack several Zernike polynomials at pupil points.

    Parameters
    ----------
    indices : tuple of int
        Noll indices.
    y, x : Tensor of one shape
        Pupil coordinates in units of the pupil radius.

    Returns
    -------
    Tensor of shape (len(indices), ...)
        The polynomials.

    Examples
    --------
    >>> import torch
    >>> y, x = torch.tensor([0.5]), torch.tensor([0.25])
    >>> zernike_basis((2, 3), y, x).squeeze().round(decimals=4)
    tensor([0.5000, 1.0000])
    """
    rho, theta = torch.hypot(y, x), torch.atan2(y, x)
    return torch.stack([zernike(j, rho, theta) for j in indices])
