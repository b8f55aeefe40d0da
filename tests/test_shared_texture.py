"""The blur of windows from their spectra together: what it finds, and what it must leave."""

import dask.array as da
import numpy as np
import pytest
import torch

from sklearn_psf import PSFMap
from sklearn_psf._defocus_spectra import SURELY_FLAT, measure_lens, refine_defocus
from sklearn_psf._shared_texture import SharedTexture, compare_windows
from sklearn_psf._window_powers import Band, transfer_powers, window_powers
from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.simulation import make_surface, make_textures, make_tilted_plane

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
LENS = (0.4, 0.3)


@pytest.fixture(scope="module")
def plane():
    """A plane of 6 degrees seen through a lens, and its true defocus in waves at the windows."""
    texture = make_textures(1, 384, kind="dead-leaves", random_state=3)[0]
    image, depth = make_tilted_plane(
        texture,
        optics=OPTICS,
        tilt=8,
        cylinder=LENS[0],
        axis=LENS[1],
        camera=Camera(peak_photons=1e4),
        random_state=0,
    )
    centres = np.arange(63.5, 384 - 63, 64)
    at = np.rint(centres).astype(int)
    return image, centres, OPTICS.micrometres_to_waves(depth[np.ix_(at, at)])


def make_map(image, centres, readings=None):
    shape = (1, len(centres), len(centres))
    return PSFMap(
        images=image[np.newaxis],
        parameters=np.zeros((*shape, 3)) if readings is None else readings,
        std=np.full((*shape, 3), 0.1),
        invalid=np.zeros(shape),
        rows=centres,
        columns=centres,
        model={"name": "zernike-3", "cutoff": OPTICS.cutoff, "size": 127},
        optics=OPTICS,
    )


def bad_readings(truth, seed=0):
    """Readings that shrink towards focus and scatter, as a network's do on a soft texture."""
    noise = np.random.RandomState(seed).normal(0, 0.1, truth.shape)
    return (0.5 * truth + noise)[np.newaxis], np.full((1, *truth.shape), 0.15)


def test_transfer_powers_are_those_of_the_psfs():
    model, band = make_psf_model("zernike-3", size=127), Band(96, 0.25)
    parameters = np.array([[0.0, 0.0, 0.0], [0.7, 0.4, 0.3], [-0.7, 0.4, 0.3]])
    ours = transfer_powers(model, parameters, band)
    psfs = np.asarray(model.psf(torch.as_tensor(parameters)))
    y, x = np.mgrid[:127, :127] - 63
    f_y = np.fft.fftfreq(96)[:, None] * np.ones(49)
    f_x = np.fft.rfftfreq(96) * np.ones((96, 1))
    inside = band.inside.numpy()
    for psf, power in zip(psfs, ours, strict=True):
        for k in (0, 100, -1):
            wave = np.exp(-2j * np.pi * (f_y[inside][k] * y + f_x[inside][k] * x))
            assert float(power[k]) == pytest.approx(abs((psf * wave).sum()) ** 2, abs=1e-5)
    assert not torch.allclose(ours[1], ours[2], atol=1e-2)  # the lens tells the sides apart


def test_powers_of_white_noise_are_flat():
    image = np.random.RandomState(0).normal(1e4, 3, (160, 160))
    band = Band(64, 0.25)
    centres = np.array([31.5, 63.5, 95.5])
    power, noise, textured = window_powers(image, centres, centres, band)
    assert power.shape[0] == 9 and textured.all()
    assert float(power.mean()) == pytest.approx(1, rel=0.1)
    assert float(noise.mean()) == pytest.approx(1, rel=0.1)
    assert not window_powers(np.ones((160, 160)), centres, centres, band)[2].any()


def test_the_texture_is_found_under_the_blur():
    band, rng = Band(64, 0.25), np.random.RandomState(0)
    model = make_psf_model("zernike-1", size=63)
    transfer = transfer_powers(model, np.linspace(0, 0.8, 40)[:, None], band)
    truth = torch.exp(-2 * band.log_radius)
    expected = transfer * truth + 0.5
    power = expected * torch.as_tensor(rng.exponential(size=expected.shape)).float()
    texture = SharedTexture(power, torch.full((40,), 0.5), band, torch.ones(40))
    texture.fit(transfer, n_steps=12)
    seen = (transfer > 0.2).any(0)
    common = texture.own.mean(0) @ texture.own_basis.T  # what all windows have of their own
    found = texture.smooth @ texture.basis.T + texture.lines + common
    assert float((found - truth.log())[seen].abs().median()) < 0.25
    assert texture.dispersion(transfer) == pytest.approx(1, abs=0.15)


def test_windows_without_weight_keep_their_reading():
    band, rng = Band(64, 0.25), np.random.RandomState(0)
    model, grid = make_psf_model("zernike-1", size=63), np.linspace(0, 1, 21)
    table = transfer_powers(model, grid[:, None], band)
    power = torch.as_tensor(rng.exponential(size=(9, table.shape[1]))).float()
    weights = torch.ones(9)
    weights[4] = 0
    texture = SharedTexture(power, torch.full((9,), 0.1), band, weights)
    mean, deviation, _ = compare_windows(
        texture, table, grid, np.full(9, 0.5), np.full(9, 0.1), (3, 3), (1.0, 1.0), 1.0
    )
    assert mean[4] == pytest.approx(0.5, abs=1e-3)
    assert deviation[4] == pytest.approx(0.1, rel=0.02)


def test_bad_readings_are_put_right(plane):
    image, centres, truth = plane
    signed, std = bad_readings(truth)
    known = np.ones(signed.shape, bool)
    better, deviation, reach = refine_defocus(make_map(image, centres), signed, std, known, LENS)
    assert reach >= SURELY_FLAT
    before, after = np.abs(signed[0] - truth).mean(), np.abs(better[0] - truth).mean()
    assert after < 0.25 * before and after < 0.05 * np.ptp(truth)
    assert (np.abs(better[0] - truth) < 3 * deviation[0]).mean() > 0.8


def test_the_lens_is_measured(plane):
    image, centres, truth = plane
    signed, std = bad_readings(truth)
    known = np.ones(signed.shape, bool)
    found = measure_lens(make_map(image, centres), signed, std, known, (0.46, 0.4))
    assert found[0] == pytest.approx(LENS[0], abs=0.015)
    assert found[1] == pytest.approx(LENS[1], abs=0.02)


def test_unknown_and_constant_windows_are_left_alone(plane):
    image, centres, truth = plane
    image = image.copy()
    image[:128, :128] = 7
    signed, std = bad_readings(truth)
    known = np.ones(signed.shape, bool)
    known[0, -1, -1] = False
    better, deviation, _ = refine_defocus(make_map(image, centres), signed, std, known, LENS)
    for place in ((0, 0, 0), (0, -1, -1)):
        assert better[place] == signed[place] and deviation[place] == std[place]
    assert np.abs(better[0] - truth)[2:, 2:-1].mean() < 0.05


def test_a_flat_sample_stays_where_it_was_read():
    texture = make_textures(1, 320, kind="cells", random_state=2)[0]
    image, depth = make_tilted_plane(
        texture, optics=OPTICS, tilt=0, cylinder=LENS[0], axis=LENS[1], offset=6.0, random_state=0
    )
    truth = float(OPTICS.micrometres_to_waves(6.0))
    centres = np.arange(63.5, 320 - 63, 32)
    signed = np.full((1, len(centres), len(centres)), truth)
    known = np.ones(signed.shape, bool)
    better, *_ = refine_defocus(
        make_map(image, centres), signed, np.full(signed.shape, 0.05), known, LENS
    )
    assert np.abs(better - truth).max() < 0.1
    assert np.ptp(depth) == 0


def test_curved_samples_are_seen_to_be_curved():
    texture = make_textures(1, 320, kind="cells", random_state=2)[0]
    image, depth = make_surface(
        texture,
        optics=OPTICS,
        shape="waves",
        height=10.0,
        cylinder=LENS[0],
        axis=LENS[1],
        random_state=0,
    )
    centres = np.arange(63.5, 320 - 63, 16)
    places = np.ix_(*2 * [np.rint(centres).astype(int)])
    truth = OPTICS.micrometres_to_waves(depth[places])
    signed, std = bad_readings(truth)
    known = np.ones(signed.shape, bool)
    better, deviation, reach = refine_defocus(make_map(image, centres), signed, std, known, LENS)
    error = np.abs(better[0] - truth)
    assert reach < SURELY_FLAT
    assert error.mean() < np.abs(signed[0] - truth).mean()
    assert (error < 2 * deviation[0]).mean() > 0.6


def test_more_windows_than_memory_holds_are_left_alone():
    image = np.random.RandomState(0).rand(320, 320)
    centres = np.arange(31.5, 289, 5.0)  # 52 x 52
    signed = np.random.RandomState(1).normal(size=(1, len(centres), len(centres)))
    std, known = np.full(signed.shape, 0.1), np.ones(signed.shape, bool)
    better, _, reach = refine_defocus(make_map(image, centres), signed, std, known, LENS)
    np.testing.assert_array_equal(better, signed)
    assert np.isnan(reach).all()


def test_images_on_disk_are_read(plane):
    image, centres, _ = plane
    band = Band(128, OPTICS.cutoff)
    ours = window_powers(da.from_array(image, chunks=100), centres, centres, band)
    for part, whole in zip(ours, window_powers(image, centres, centres, band), strict=True):
        torch.testing.assert_close(part, whole)


@pytest.mark.parametrize(
    "centres", [np.array([15.5, 47.5, 79.5]), np.array([63.5, 127.5])], ids=["small", "few"]
)
def test_too_small_or_too_few_windows_are_left_alone(centres):
    image = np.random.RandomState(0).rand(192, 192)
    signed = np.random.RandomState(1).normal(size=(1, len(centres), len(centres)))
    std, known = np.full(signed.shape, 0.1), np.ones(signed.shape, bool)
    maps = make_map(image, centres)
    better, deviation, _ = refine_defocus(maps, signed, std, known, LENS)
    np.testing.assert_array_equal(better, signed)
    np.testing.assert_array_equal(deviation, std)
    assert measure_lens(maps, signed, std, known, LENS) == LENS
