import math

import pytest
import torch

from sklearn_psf.networks.spectra import (
    RINGS,
    SECTORS,
    normalize_patches,
    periodic_spectrum,
    polar_spectrum,
)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, -3.0, 50.0])
def test_normalized_patches_forget_brightness(scale, offset):
    x = torch.rand(3, 16, 18, generator=torch.Generator().manual_seed(0))
    y = normalize_patches(x)
    assert y.shape == (3, 1, 16, 18)
    assert y.mean((-2, -1)).abs().max() < 1e-5
    torch.testing.assert_close(y.square().mean((-2, -1)), torch.ones(3, 1), rtol=1e-5, atol=0)
    torch.testing.assert_close(normalize_patches((x + offset) * scale), y, rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 255.0, 65535.0, 1e6 + 0.1])
def test_constant_patches_normalize_to_zero(value):
    assert not normalize_patches(torch.full((2, 128, 128), value, dtype=torch.float32)).any()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (15, 22), (31, 9)])
def test_the_periodic_part_solves_its_poisson_equation(shape):
    # Moisan: the smooth part s has the periodic Laplacian of the jumps across the border
    x = noise(2, *shape).double().cumsum(-1)
    smooth = x - torch.fft.irfft2(periodic_spectrum(x), s=shape)
    rolls = [smooth.roll(k, axis) for axis in (-2, -1) for k in (1, -1)]
    jumps = torch.zeros_like(x)
    jumps[:, 0] += x[:, -1] - x[:, 0]
    jumps[:, -1] -= x[:, -1] - x[:, 0]
    jumps[:, :, 0] += x[:, :, -1] - x[:, :, 0]
    jumps[:, :, -1] -= x[:, :, -1] - x[:, :, 0]
    size = float(x.abs().max())
    torch.testing.assert_close(sum(rolls) - 4 * smooth, jumps, rtol=0, atol=1e-5 * size)


def test_borders_that_meet_leave_the_spectrum_as_it_is():
    x = noise(1, 24, 24)
    x[..., -1, :] = x[..., 0, :]
    x[..., -1] = x[..., 0]
    torch.testing.assert_close(periodic_spectrum(x), torch.fft.rfft2(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [64, 128, 300])
def test_spectrum_of_white_noise_is_the_whitening(size):
    powers = 10 ** polar_spectrum(noise(64, size, size))
    assert powers.shape == (64, RINGS, SECTORS)
    for first, spacing, n, scale in ((1 / 256, 1 / 256, 64, 1.5), (17 / 64, 1 / 64, 18, 0.7)):
        f_squared = (first + spacing * torch.arange(n)) ** 2
        filters = 1e2 * f_squared * torch.exp(-2 * (math.pi * scale) ** 2 * f_squared)
        mean, powers = powers[:, :n].mean((0, 2)), powers[:, n:]
        # the inmost rings see leakage, the outmost the corners of the spectrum
        ratio = (mean / filters.square())[24 * (n == 64) : -4]
        # of 4 faded pixels at each end, sin^4 leaves 3 / 8
        assert (ratio / (1 - 5 / size) ** 2 - 1).abs().max() < 0.15


@pytest.mark.parametrize("sector", [0, 3, 8, 13])
@pytest.mark.parametrize("ring", [10, 40])
def test_a_wave_lies_on_its_ring_and_in_its_direction(ring, sector):
    angle, frequency = sector * math.pi / SECTORS, (ring + 1) / 256
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    phase = 2 * math.pi * frequency * (rows * math.sin(angle) + columns * math.cos(angle))
    spectrum = polar_spectrum(torch.cos(phase + 0.3)[None])[0, :64]
    found = divmod(int(spectrum.argmax()), SECTORS)
    assert abs(found[0] - ring) <= 1 and found[1] == sector


def test_turning_a_patch_shifts_the_sectors():
    x = noise(1, 96, 96)
    turned = polar_spectrum(torch.rot90(x, 1, (1, 2)))
    inside = slice(0, RINGS - 3)  # the outmost rings meet the corners of the spectrum
    expected = polar_spectrum(x).roll(SECTORS // 2, -1)
    torch.testing.assert_close(turned[:, inside], expected[:, inside], rtol=0, atol=2e-3)
    mirrored = polar_spectrum(x.flip(-1))
    expected = polar_spectrum(x)[..., (-torch.arange(SECTORS)) % SECTORS]
    torch.testing.assert_close(mirrored[:, inside], expected[:, inside], rtol=0, atol=2e-3)


def test_blur_adds_its_transfer_function():
    f_y, f_x = torch.fft.fftfreq(256)[:, None], torch.fft.rfftfreq(256)
    fall = 1 / torch.hypot(f_y, f_x).clamp(min=1 / 256)  # as the spectra of images do
    x = torch.fft.irfft2(torch.fft.rfft2(noise(16, 256, 256)) * fall)[:, :144, :144]
    kernel = torch.exp(-(torch.arange(-8, 9) ** 2) / (2 * 2.0**2))
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    blurred = torch.nn.functional.conv2d(x[:, None], kernel[None, None])[:, 0]
    sharp = x[:, 8:-8, 8:-8]
    change = (polar_spectrum(blurred) - polar_spectrum(sharp))[:, 8:32].mean((0, 2))
    frequency = (torch.arange(8, 32) + 1) / 256
    expected = -2 * (2 * math.pi * 2.0 * frequency) ** 2 / 2 / math.log(10)
    torch.testing.assert_close(change, expected, rtol=0, atol=0.06)


def test_a_slope_of_the_illumination_hardly_enters():
    x = noise(1, 128, 128)
    slope = torch.linspace(-20, 20, 128).expand(1, 128, 128)
    change = (polar_spectrum(x + slope) - polar_spectrum(x)).abs()
    plain = torch.fft.rfft2(x + slope).abs().log10() - torch.fft.rfft2(x).abs().log10()
    assert change.mean() < 0.03 < plain.abs()[:, 0].mean()
