"""Polar power spectra of the overlapping windows of whole images."""

import math
import warnings
from functools import lru_cache

import torch
from torch.nn import functional as F

from .spectra import SECTORS, Band, polar_cells, whitening

__all__ = ["STRIDE", "WINDOW", "WINDOW_BANDS", "window_spectra"]

WINDOW = 64  # pixels
STRIDE = 16  # pixels from one window to the next
WINDOW_BANDS = (Band(1.5, 1 / 128, 1 / 128, 32, 128), Band(0.7, 17 / 64, 1 / 32, 8, 64))
_FADE = 16  # pixels at the border of a window
_CHUNK = 512  # windows at a time: bounds the memory of their spectra


def window_spectra(x: torch.Tensor, pad: bool = True) -> torch.Tensor:
    """Logarithm of the power spectra of overlapping windows, on rings and sectors.

    As `polar_spectrum`, but of windows of 64 pixels around every 16th pixel. The whole image is
    whitened at once, and transforms are products with matrices of those frequencies alone that are
    looked at.

    Parameters
    ----------
    x : Tensor of shape (n, 1, H, W)
        Normalised images; H and W are multiples of 16.
    pad : bool
        Continue images by 24 pixels beyond their borders, where the last pixel holds, so that there
        is a window around every square of 16 pixels. Otherwise only windows within the image count:
        one for an image of 64 x 64 pixels.

    Returns
    -------
    Tensor of shape (n, H / 16, W / 16, rings, SECTORS)
        With `pad`, window (i, j) is centred on pixel ``(16 i + 7.5, 16 j + 7.5)``.

    Examples
    --------
    >>> import torch
    >>> window_spectra(torch.rand(1, 1, 32, 48)).shape
    torch.Size([1, 2, 3, 40, 16])
    """
    margin = (WINDOW - STRIDE) // 2
    padded = F.pad(x.float(), (margin,) * 4, mode="replicate") if pad else x.float()
    parts = []
    spectrum = torch.fft.rfft2(padded[:, 0])
    for band in WINDOW_BANDS:
        # What wraps around the border reaches only the faded rim of the outermost windows.
        white = torch.fft.irfft2(spectrum * whitening(band, padded), s=padded.shape[-2:])
        windows = white.unfold(1, WINDOW, STRIDE).unfold(2, WINDOW, STRIDE)
        shape = windows.shape[:3]
        windows = windows.reshape(-1, WINDOW, WINDOW).split(_CHUNK)
        parts.append(
            torch.cat([_polar_power(w, band) for w in windows]).reshape(*shape, -1, SECTORS)
        )
    return torch.log10(torch.cat(parts, 3) + 1e-9)


def _polar_power(windows: torch.Tensor, band: Band) -> torch.Tensor:
    """Power of windows (n, WINDOW, WINDOW) on the rings of a band, (n, n_rings, SECTORS)."""
    taper, across, along, cells = _transforms(band, windows.device)
    rows = (windows * taper) @ across  # (n, y, f_x): cosines in one half, sines in the other
    both = rows.transpose(1, 2).contiguous() @ along
    real, imaginary = both.chunk(2, 1)
    (real_cos, real_sin), (imaginary_cos, imaginary_sin) = real.chunk(2, 2), imaginary.chunk(2, 2)
    power = (real_cos + imaginary_sin).square() + (imaginary_cos - real_sin).square()
    power = power.flatten(1).T.contiguous() / WINDOW**2
    return (cells @ power).T.reshape(len(windows), band.n_rings, SECTORS)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def _transforms(band: Band, device: torch.device):
    """Taper of a window, matrices of its transforms along rows and columns, and polar cells."""
    size = band.least_size
    cells, n_columns = polar_cells(band, size, device)
    at = torch.arange(WINDOW, dtype=torch.float64)
    fade = torch.minimum(at + 0.5, WINDOW - at - 0.5) / _FADE
    fade = (math.pi / 2 * fade.clamp(max=1)).sin().square()
    f_x = torch.arange(n_columns, dtype=torch.float64) / size
    f_y = torch.fft.fftfreq(size, dtype=torch.float64)
    f_y = f_y[f_y.abs() <= f_x[-1]]
    x_phase, y_phase = (2 * math.pi * torch.outer(at, f) for f in (f_x, f_y))
    across = torch.cat([x_phase.cos(), -x_phase.sin()], 1)
    along = torch.cat([y_phase.cos(), y_phase.sin()], 1)
    matrices = (torch.outer(fade, fade), across, along, _cells_on(cells, size, f_y, n_columns))
    return tuple(matrix.float().to(device) for matrix in matrices)


def _cells_on(cells, size, f_y, n_columns):
    """The columns of sparse cells, each of one frequency, in the order (f_x, f_y) of a grid."""
    dense = cells.to_dense().cpu().reshape(-1, size, n_columns)
    rows = torch.round(f_y * size).long() % size
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return dense[:, rows].transpose(1, 2).flatten(1).to_sparse_csr()
