"""Tests of the network that maps whole images, and of the spectra of its windows."""

import numpy as np
import pytest
import torch

from sklearn_psf.networks import build_network, read_image
from sklearn_psf.networks.spectra import SECTORS, polar_spectrum
from sklearn_psf.networks.training import PSFLoss
from sklearn_psf.networks.unet import LocalSpectra, normalize_locally
from sklearn_psf.networks.window_spectra import WINDOW, WINDOW_BANDS, window_spectra

N_FINE = WINDOW_BANDS[0].n_rings


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    return build_network("unet", 3, seed=0).eval()


# ----------------------------------------------------------------------------- local spectra


def wave(f, angle, size=128):
    at = torch.arange(float(size))
    phase = 2 * np.pi * f * (np.cos(angle) * at + np.sin(angle) * at[:, None])
    return torch.cos(phase + 0.3)[None, None]


@pytest.mark.parametrize("sector", [0, 3, 8, 13])
def test_a_wave_is_found_at_its_ring_and_sector_in_every_window(sector):
    spectra = window_spectra(wave(16 / 128, sector * np.pi / SECTORS))
    assert spectra.shape == (1, 8, 8, sum(b.n_rings for b in WINDOW_BANDS), SECTORS)
    inner = spectra[0, 2:-2, 2:-2, :N_FINE].flatten(0, 1).flatten(1)
    found = {divmod(int(row.argmax()), SECTORS) for row in inner}
    assert found == {(15, sector)}


def test_spectra_of_white_noise_are_those_of_patches():
    """The same whitening as of patches: other tapers and sizes change no power."""
    windows = (10 ** window_spectra(noise(8, 1, 256, 256))).mean((0, 1, 2, 4))[:N_FINE]
    patches = (10 ** polar_spectrum(noise(64, 128, 128, seed=1))).mean((0, 2))[1:64:2]
    share = float((_taper() ** 2).mean()) ** 2 / 0.96**2  # power that the tapers let through
    # the whitening rises steeply over the inner rings, where the smaller windows see it broader
    torch.testing.assert_close(windows[20:], share * patches[20:], rtol=0.12, atol=0)


def _taper():
    at = torch.arange(WINDOW) + 0.5
    return (torch.minimum(at, WINDOW - at) / 16).clamp(max=1).mul(np.pi / 2).sin().square()


def test_a_window_alone_is_read_as_within_an_image():
    x = noise(1, 1, 128, 128)
    alone = window_spectra(x[..., 24:88, 24:88], pad=False)
    assert alone.shape[1:3] == (1, 1)
    # window (3, 3) lies 24 pixels from the border; what wraps around differs a little
    within = window_spectra(x)[0, 3, 3]
    assert (alone[0, 0, 0] - within).abs().mean() < 0.05


def test_the_centre_of_a_patch_has_the_features_of_an_image():
    spectra = LocalSpectra(8).eval()
    with torch.inference_mode():
        centre = spectra.centre(noise(3, 1, 128, 128))
    assert centre.shape == (3, 16) and torch.isfinite(centre).all()


# -------------------------------------------------------------------------------- normalising


def test_local_normalisation_does_not_know_brightness():
    x = noise(2, 1, 96, 96)
    gradient = 1 + torch.linspace(0, 3, 96)
    y = normalize_locally(x)
    torch.testing.assert_close(normalize_locally(7 * x + 300), y, atol=2e-3, rtol=0)
    assert abs(float(y.std()) - 1) < 0.1
    # uneven light within a neighbourhood changes little
    assert (normalize_locally(gradient * x) - y).abs().mean() < 0.25


def test_a_constant_image_has_no_texture():
    assert normalize_locally(torch.full((1, 1, 70, 70), 5e4)).abs().max() == 0


# -------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("shape", [(64, 64), (65, 97), (128, 80)])
def test_one_reading_for_each_square_of_four_pixels(network, shape):
    with torch.inference_mode():
        encoding, variance, invalid = network.read(noise(2, *shape))
    squares = tuple(-(-n // 4) for n in shape)
    assert encoding.shape == variance.shape == (2, *squares, 3)
    assert invalid.shape == (2, *squares)
    assert (variance > 0).all() and (invalid >= 0).all() and (invalid <= 1).all()


def test_a_reading_belongs_to_its_place(network):
    x = noise(1, 256, 256)
    y = x.clone()
    y[:, 200:, 200:] = noise(1, 56, 56, seed=1)
    with torch.inference_mode():
        change = (network.read(x)[0] - network.read(y)[0])[0].abs().amax(-1)
    assert change[52:, 52:].mean() > 20 * change[:12, :12].mean()


@pytest.mark.parametrize("shape", [(400, 150), (257, 330)])
def test_tiles_equal_the_whole(network, shape):
    image = noise(*shape).numpy()
    whole = read_image(network, image, tile=1024)
    tiled = read_image(network, image, tile=128, halo=192)
    spread = whole[0].std((0, 1))
    assert np.abs(whole[0] - tiled[0]).max() < 0.1 * spread.min()
    assert np.abs(whole[2] - tiled[2]).max() < 0.02


def test_large_offsets_do_not_round_texture_away(network):
    image = noise(96, 96).double().numpy()
    for ours, expected in zip(
        read_image(network, image + 1e6), read_image(network, image), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-2)


def test_loss_of_maps_is_that_of_their_pixels():
    outputs, targets = noise(2, 7, 4, 5), noise(2, 4, 5, 3, seed=1)
    targets[0, 1, 2] = torch.nan
    loss = PSFLoss()
    flat = loss(outputs.movedim(1, -1).reshape(-1, 7), targets.reshape(-1, 3))
    torch.testing.assert_close(loss(outputs, targets), flat)
