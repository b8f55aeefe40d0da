"""What a network sees of a patch: its normalised pixels and its power spectrum around the clock."""

import math
import warnings
from functools import lru_cache
from typing import NamedTuple

import torch

__all__ = [
    "RINGS",
    "SECTORS",
    "Band",
    "normalize_parts",
    "normalize_patches",
    "periodic_spectrum",
    "polar_cells",
    "polar_spectrum",
    "whitening",
]

SECTORS = 16  # directions of the half plane at which a polar spectrum is read


class Band(NamedTuple):
    """Rings ``first, first + spacing, ...`` of a spectrum, after whitening at a scale in pixels."""

    scale: float
    first: float  # cycles per pixel
    spacing: float
    n_rings: int
    least_size: int  # pixels to which a patch is padded


# The zeros of strong blur lie 1/90 cycles per pixel apart, hence fine rings up to the cut-off of
# the Zernike families; beyond it there is only noise, or a narrow Gaussian: few rings will do.
_BANDS = (Band(1.5, 1 / 256, 1 / 256, 64, 256), Band(0.7, 17 / 64, 1 / 64, 18, 128))
RINGS = sum(band.n_rings for band in _BANDS)
_FADE = 4  # pixels at the border of a patch


def normalize_patches(x: torch.Tensor) -> torch.Tensor:
    """Bring each patch to mean 0 and standard deviation 1; a constant patch becomes 0.

    Parameters
    ----------
    x : Tensor of shape (n, H, W)
        Patches in any unit, with any offset.

    Returns
    -------
    Tensor of shape (n, 1, H, W)
        Normalised patches, float32.

    Examples
    --------
    >>> import torch
    >>> normalize_patches(torch.tensor([[[1.0, 3.0]], [[7.0, 7.0]]])).squeeze()
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    x = x.unsqueeze(1).float()
    mean = x.mean((-2, -1), keepdim=True)
    x = x - mean
    scale = x.square().mean((-2, -1), keepdim=True).sqrt()
    # Rounding of the offset, some 1e-7 of it, must not be blown up into texture.
    textured = scale > (1e-6 * mean.abs()).clamp(min=1e-20)
    return torch.where(textured, x / scale, torch.zeros_like(x))


def normalize_parts(x: torch.Tensor) -> torch.Tensor:
    """Bring the first of the parts of each patch to mean 0 and standard deviation 1.

    Parameters
    ----------
    x : Tensor of shape (n, k, H, W)
        One or two parts, of mean 0, and masks.

    Returns
    -------
    Tensor of shape (n, k, H, W)
        Parts divided by the deviation of the first; 0 where that is constant. Masks as they are.
    """
    parts, masks = x.float().tensor_split([2], 1)
    scale = parts[:, :1].std((-2, -1), correction=0, keepdim=True)
    parts = torch.where(scale > 1e-20, parts / scale.clamp(min=1e-20), 0.0)
    return torch.cat([parts, masks], 1)


def periodic_spectrum(x: torch.Tensor) -> torch.Tensor:
    """Fourier transform of the periodic part of images.

    A patch is no period of its image; the jump at its borders makes a bright cross in its spectrum.
    The periodic part is the patch less the smooth image that has the same jumps.

    Parameters
    ----------
    x : Tensor of shape (n, H, W)
        Images.

    Returns
    -------
    complex Tensor of shape (n, H, W // 2 + 1)
        As of `torch.fft.rfft2`.

    References
    ----------
    L. Moisan, "Periodic plus smooth image decomposition", J. Math. Imaging Vis. 39 (2011).
    """
    f_y, f_x = _frequencies(*x.shape[-2:], x.device)
    # The jumps lie on the first and last row and column: one-dimensional transforms will do.
    jump_y, jump_x = x[..., -1, :] - x[..., 0, :], x[..., :, -1] - x[..., :, 0]
    rows = torch.fft.rfft(jump_y)[..., None, :] * (1 - torch.exp(2j * math.pi * f_y))
    columns = torch.fft.fft(jump_x)[..., :, None] * (1 - torch.exp(2j * math.pi * f_x))
    laplacian = 2 * torch.cos(2 * math.pi * f_y) + 2 * torch.cos(2 * math.pi * f_x) - 4
    laplacian[0, 0] = 1  # the jumps have no mean
    return torch.fft.rfft2(x) - (rows + columns) / laplacian


def polar_spectrum(x: torch.Tensor) -> torch.Tensor:
    """Logarithm of the power spectrum of normalised patches, on rings and sectors.

    Blur multiplies the power spectrum by the squared modulus of the OTF: in the logarithm it adds a
    pattern that depends on the PSF alone, and that turns with the PSF. What hides the pattern are
    the few strong low frequencies of every image, which leak into all others. Therefore the
    periodic part of a patch is first whitened by a Laplacian of a Gaussian, its borders are faded
    out, and it is padded, so that the spectrum is read at twice the resolution that its size gives:
    with less, correlations over more than half a patch, such as those of a wide disk of defocus,
    would fold back.

    Parameters
    ----------
    x : Tensor of shape (n, H, W)
        Normalised patches.

    Returns
    -------
    Tensor of shape (n, RINGS, SECTORS)
        Ring after ring outwards; sector s looks into the direction ``s pi / SECTORS`` from the
        column (x) axis towards the row (y) axis, and into the opposite one.
    """
    x = x.float()
    height, width = x.shape[-2:]
    spectrum = periodic_spectrum(x)
    power_of_two = 2 ** math.ceil(math.log2(max(height, width)))
    rows = []
    for band in _BANDS:
        white = torch.fft.irfft2(spectrum * whitening(band, x), s=(height, width))
        white = white * _fade(height, x.device)[:, None] * _fade(width, x.device)
        size = max(band.least_size, power_of_two)
        cells, n_columns = polar_cells(band, size, x.device)
        # One axis after the other: most columns of the spectrum are not looked at.
        padded = torch.fft.fft(torch.fft.rfft(white, n=size)[..., :n_columns], n=size, dim=-2)
        power = (padded.real**2 + padded.imag**2).flatten(1) / (height * width)
        rows.append((cells @ power.T.contiguous()).T.reshape(len(x), band.n_rings, SECTORS))
    return torch.log10(torch.cat(rows, 1) + 1e-9)


def whitening(band: Band, x: torch.Tensor) -> torch.Tensor:
    """Transfer function of the Laplacian of a Gaussian at the scale of a band.

    Parameters
    ----------
    band : Band
        Its scale is used.
    x : Tensor of shape (..., H, W)
        The images to be whitened; their size and device are used.

    Returns
    -------
    Tensor of shape (H, W // 2 + 1)
        Positive, at the frequencies of `torch.fft.rfft2`.
    """
    f_y, f_x = _frequencies(*x.shape[-2:], x.device)
    f_squared = f_y**2 + f_x**2
    return 1e2 * f_squared * torch.exp(-2 * (math.pi * band.scale) ** 2 * f_squared)


def _frequencies(height: int, width: int, device: torch.device):
    f_y = torch.fft.fftfreq(height, device=device)[:, None]
    return f_y, torch.fft.rfftfreq(width, device=device)


def _fade(n: int, device: torch.device) -> torch.Tensor:
    distance = torch.arange(n, device=device) + 0.5
    distance = torch.minimum(distance, n - distance)
    return (math.pi / 2 * (distance / _FADE).clamp(max=1)).sin().square()


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def polar_cells(band: Band, size: int, device: torch.device, odd: bool = False):
    """Sparse averages over the polar cells of a band, and the columns they look at.

    A cell weighs the points of the half plane by two triangles, of the width of a ring along the
    radius and of a sector, or of one frequency where sectors are narrower, along the angle.

    Parameters
    ----------
    band : Band
        The rings.
    size : int
        Rows of the spectrum, pixels.
    device : torch.device
        Where the result goes.
    odd : bool
        Whether what is averaged changes its sign at the opposite point of the plane.

    Returns
    -------
    cells : sparse Tensor of shape (band.n_rings * SECTORS, size * n_columns)
        Weights that sum to 1 in each row, but for their signs if `odd`.
    n_columns : int
        First columns of the half plane of `torch.fft.rfft2` that are used.
    """
    last = (band.first + band.n_rings * band.spacing) * size
    n_columns = min(size // 2 + 1, math.ceil(last) + 1)
    f_y = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
    f_x = torch.arange(n_columns, dtype=torch.float64) / size
    radius, angle = (
        torch.hypot(f_y, f_x).flatten(),
        torch.atan2(f_y, f_x.expand(size, -1)).flatten(),
    )
    # The columns of frequency 0 and 1/2 hold both of each pair of opposite points, others hold one.
    twice = ((f_x == 0) | (f_x == 0.5)).expand(size, -1).flatten()
    share = torch.where(twice, 0.5, 1.0).double()
    rows, columns, values = [], [], []
    for k in range(band.n_rings):
        ring = band.first + k * band.spacing
        near = torch.nonzero((radius - ring).abs() < band.spacing)[:, 0]
        along = share[near] * (1 - (radius[near] - ring).abs() / band.spacing)
        for sector in range(SECTORS):
            step = math.pi / SECTORS
            turn = torch.remainder(angle[near] - sector * step + math.pi / 2, math.pi) - math.pi / 2
            weight = along * (1 - turn.abs() / max(step, 1 / (size * ring))).clamp(min=0)
            inside = weight > 0
            rows.append(torch.full((int(inside.sum()),), k * SECTORS + sector))
            columns.append(near[inside])
            values.append(weight[inside] / weight.sum())
            if odd:  # points that stand for their opposites
                values[-1] = values[-1] * (angle[columns[-1]] - sector * step).cos().sign()
    indices = torch.stack([torch.cat(rows), torch.cat(columns)])
    shape = (band.n_rings * SECTORS, size * n_columns)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        cells = torch.sparse_coo_tensor(
            indices, torch.cat(values).float(), shape, check_invariants=False
        ).to_sparse_csr()
    return cells.to(device), n_columns
