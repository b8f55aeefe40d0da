"""What a network sees of a patch: its normalised pixels and estimates of its power spectrum."""

from functools import lru_cache

import torch

__all__ = ["RINGS", "harmonic_basis", "log_power_spectra", "normalize_patches"]

RINGS = 80  # of the spectrum, 1/128 cycles per pixel apart: up to beyond the Nyquist frequency


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


def log_power_spectra(x: torch.Tensor) -> torch.Tensor:
    """Logarithms of two estimates of the power spectrum of normalised patches, half plane.

    Blur multiplies the power spectrum by the squared modulus of the OTF: in the logarithm it adds a
    pattern that depends on the PSF alone. A patch is no period of its image, and the jump at its
    borders would hide that pattern. The first estimate fades the borders out by a Hann window; the
    second takes off a smooth image with the same jumps (Moisan's periodic part), which uses every
    pixel and keeps twice the resolution, but leaves a cross along the axes.

    Parameters
    ----------
    x : Tensor of shape (n, 1, H, W)
        Normalised patches.

    Returns
    -------
    Tensor of shape (n, 2, H, W // 2)
        About zero mean and unit scale; frequency 0 is at row ``H // 2``, column 0. The spectrum of
        a real image is symmetric, so columns from 0 to Nyquist hold all of it.

    References
    ----------
    L. Moisan, "Periodic plus smooth image decomposition", J. Math. Imaging Vis. 39 (2011).
    """
    x = x.float()
    height, width = x.shape[-2:]
    window, inverse_laplacian = _spectral_constants(height, width, x.device)
    faded = torch.fft.rfft2(x * window)
    jumps = torch.zeros_like(x)
    jump_y, jump_x = x[..., -1, :] - x[..., 0, :], x[..., :, -1] - x[..., :, 0]
    jumps[..., 0, :] += jump_y
    jumps[..., -1, :] -= jump_y
    jumps[..., :, 0] += jump_x
    jumps[..., :, -1] -= jump_x
    periodic = torch.fft.rfft2(x) - torch.fft.rfft2(jumps) * inverse_laplacian
    spectra = torch.cat([faded, periodic / (height * width) ** 0.5], 1)[..., : width // 2]
    # White noise of unit variance has power 1; 1e-5 is far below any camera's noise.
    power = spectra.real**2 + spectra.imag**2 + 1e-5
    return torch.fft.fftshift(torch.log10(power), dim=-2) / 2 + 0.5


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def _spectral_constants(height: int, width: int, device: torch.device):
    """Hann window of unit energy, and the inverse of the discrete Laplacian's spectrum."""
    window = torch.outer(torch.hann_window(height), torch.hann_window(width))
    window = window / window.square().sum().sqrt()
    f_y, f_x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    laplacian = 2 * torch.cos(2 * torch.pi * f_y) + 2 * torch.cos(2 * torch.pi * f_x) - 4
    laplacian[0, 0] = 1  # the jumps have no mean
    return window.to(device), (1 / laplacian).to(device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def harmonic_basis(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Rings and angular harmonics of a half-plane spectrum, (height * width, RINGS * 5).

    Column (k, a) averages over the ring at radius k / 128 cycles per pixel, weighted by 1, cos 2t,
    sin 2t, cos 4t or sin 4t of the angle t.
    """
    f_y = (torch.arange(height) - height // 2) / height * 128
    f_x = torch.arange(width) / (2 * width) * 128
    radius, angle = torch.hypot(f_y[:, None], f_x), torch.atan2(f_y[:, None], f_x)
    rings = (1 - (radius[..., None] - torch.arange(1, RINGS + 1)).abs()).clamp(min=0)
    rings = rings / rings.sum((0, 1)).clamp(min=1e-6)
    waves = [f(k * angle) for k in (2, 4) for f in (torch.cos, torch.sin)]
    harmonics = torch.stack([torch.ones_like(angle), *waves], -1)
    basis = rings[..., None] * harmonics[:, :, None]
    return basis.reshape(height * width, -1).to(device)
