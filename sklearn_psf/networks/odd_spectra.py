"""The odd part of third-order statistics of a patch: what a power spectrum cannot tell."""

import math

import torch
from torch.nn import functional as F

from .spectra import SECTORS, Band, periodic_spectrum, polar_cells, whitening

__all__ = ["ODD_CHANNELS", "odd_spectrum"]

# Of the patch at half its resolution. Finer detail is noise where blur has two unlike ends.
_BAND = Band(1.25, 1 / 64, 1 / 64, 16, 128)
ODD_CHANNELS = 2 * _BAND.n_rings
_FADE = 0.1  # of a patch, at each border


def odd_spectrum(x: torch.Tensor) -> torch.Tensor:
    r"""Imaginary part of the cross spectrum of a patch and of its square, around the clock.

    .. math:: B(f) = \mathrm{Im}\; \overline{\mathcal F[w^2](f)} \, \mathcal F[w](f)

    with the patch w, whitened by a Laplacian of a Gaussian. It is an average of the bispectrum:
    zero where texture and PSF are symmetric, and of opposite sign for the mirror image of a PSF. It
    is divided by the square root of the product of both power spectra. The contrast of the texture
    turns its sign; hence it is given twice, times the sign of the skewness of w and as it is.

    Parameters
    ----------
    x : Tensor of shape (n, H, W)
        Normalised patches; H and W are even.

    Returns
    -------
    Tensor of shape (n, ODD_CHANNELS, 2 * SECTORS)
        Sector s looks into the direction ``s pi / SECTORS`` from the column (x) axis towards the
        row (y) axis; opposite ones have opposite signs.

    References
    ----------
    C. L. Nikias and M. R. Raghuveer, "Bispectrum estimation: a digital signal processing
    framework", Proc. IEEE 75, 869-891 (1987).

    Examples
    --------
    >>> x = torch.rand(1, 128, 128)
    >>> odd_spectrum(x).shape
    torch.Size([1, 32, 32])
    """
    small = F.avg_pool2d(x.float()[:, None], 2)[:, 0]
    shape = small.shape[-2:]
    white = torch.fft.irfft2(periodic_spectrum(small) * whitening(_BAND, small), s=shape)
    white = white / white.square().mean((-2, -1), keepdim=True).clamp(min=1e-20).sqrt()
    square = white.square()
    skewness = (square * white).mean((-2, -1))
    fade = torch.outer(*(_fade(n, x.device) for n in shape))
    size = max(_BAND.least_size, 2 ** math.ceil(math.log2(max(shape))))
    even, odd, n_columns = _cells(size, x.device)
    first, second = (
        torch.fft.rfft2((part - part.mean((-2, -1), keepdim=True)) * fade, s=(size, size))[
            ..., :n_columns
        ].flatten(1)
        for part in (white, square)
    )
    cross = first.imag * second.real - first.real * second.imag
    power = [part.real.square() + part.imag.square() for part in (first, second)]
    cross, *power = (
        (m @ part.T).T for m, part in zip((odd, even, even), (cross, *power), strict=True)
    )
    half = cross / (power[0] * power[1]).clamp(min=1e-20).sqrt()
    half = half.reshape(len(x), _BAND.n_rings, SECTORS)
    around = torch.cat([half, -half], -1)
    sign = skewness / (skewness.square() + 0.02).sqrt()
    return torch.cat([around * sign[:, None, None], around], 1)


def _cells(size, device):
    """Averages over polar cells of what is even and of what is odd, and the columns they need."""
    even, n_columns = polar_cells(_BAND, size, device)
    return even, polar_cells(_BAND, size, device, odd=True)[0], n_columns


def _fade(n, device):
    at = torch.arange(n, device=device) + 0.5
    distance = torch.minimum(at, n - at) / (_FADE * n)
    return (math.pi / 2 * distance.clamp(max=1)).sin().square()
