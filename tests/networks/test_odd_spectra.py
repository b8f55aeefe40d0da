"""Tests of the odd spectrum: what tells the sense of a direction."""

import numpy as np
import pytest
import torch

from sklearn_psf.networks import build_network
from sklearn_psf.networks.modules import load_initial_weights
from sklearn_psf.networks.odd_spectra import ODD_CHANNELS, odd_spectrum
from sklearn_psf.networks.spectra import SECTORS, normalize_patches
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import make_blurred_patches, make_particles

HALF = ODD_CHANNELS // 2


def normalised(x):
    return normalize_patches(torch.as_tensor(x, dtype=torch.float32))[:, 0]


@pytest.fixture(scope="module")
def patches():
    return normalised(np.random.RandomState(0).rand(3, 128, 128) ** 8)


def test_opposite_directions_have_opposite_signs(patches):
    odd = odd_spectrum(patches)
    assert odd.shape == (3, ODD_CHANNELS, 2 * SECTORS)
    torch.testing.assert_close(odd[..., SECTORS:], -odd[..., :SECTORS])


@pytest.mark.parametrize(
    ("turn", "sector"),
    [
        (lambda x: x.flip(-1), lambda s: SECTORS - s),  # mirrored: the angle from the x axis
        (lambda x: x.flip(-2), lambda s: -s),
        (lambda x: x.transpose(-2, -1), lambda s: SECTORS // 2 - s),
    ],
)
def test_sectors_turn_with_the_patch(patches, turn, sector):
    """What lies in sector s of the turned patch lay in another one before."""
    before = odd_spectrum(patches)
    index = sector(torch.arange(2 * SECTORS)) % (2 * SECTORS)
    torch.testing.assert_close(odd_spectrum(turn(patches)), before[..., index], atol=1e-4, rtol=0)


def test_contrast_turns_one_half_and_not_the_other(patches):
    one, other = odd_spectrum(patches), odd_spectrum(-patches)
    torch.testing.assert_close(other[:, :HALF], one[:, :HALF], atol=1e-5, rtol=0)
    torch.testing.assert_close(other[:, HALF:], -one[:, HALF:], atol=1e-5, rtol=0)


def test_normal_noise_has_none_whatever_blurs_it():
    """Bright points of the same power spectrum have much."""
    rng = np.random.RandomState(0)
    points = (rng.rand(32, 128, 128) < 0.01).astype(float)
    tail = np.exp(-np.arange(24) / 8)
    shares = []
    for x in (points, rng.normal(size=points.shape)):
        smeared = np.apply_along_axis(np.convolve, 2, x, tail)[:, :, :128]
        odd = odd_spectrum(normalised(smeared))[:, HALF : HALF + 8]
        along = (odd * (torch.arange(2 * SECTORS) * (torch.pi / SECTORS)).cos()).sum((1, 2))
        shares.append(abs(float(along.mean() / along.std())))
    assert shares[0] > 1.5 and shares[1] < 0.6


def test_the_sense_of_a_streak_is_seen_in_a_sum():
    """Streaks of particles point to their blurred end, whatever their direction."""
    family, rng = make_psf_model("motion"), np.random.RandomState(0)
    particles = [make_particles((300, 300), density=0.01, random_state=rng) for _ in range(3)]
    X, y = make_blurred_patches(particles, 150, psf_model=family, random_state=0)
    clear = (y[:, 2] > 0.3) & (y[:, 3] > 0.3) & (np.hypot(y[:, 0], y[:, 1]) > 5)
    odd = odd_spectrum(normalised(X[clear]))[:, :6, :SECTORS].sum(1)
    angle = torch.arange(SECTORS) * (torch.pi / SECTORS)
    v = torch.as_tensor(y[clear, :2], dtype=torch.float32)
    along = (odd * (v[:, 1:] * angle.cos() + v[:, :1] * angle.sin())).sum(1)
    assert clear.sum() > 40
    assert (along < 0).float().mean() > 0.85


def test_weights_that_know_no_sense_are_a_start():
    compact = build_network("compact", 6, seed=1)
    directed = build_network("compact-directed", 6, seed=2)
    load_initial_weights(directed, compact.state_dict())
    x = torch.rand(4, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = directed.eval()(x) - compact.eval()(x)
    assert difference.abs().max() < 0.01
