import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sklearn_psf._focus_curve import (
    fit_moffat,
    learn_optics,
    moffat,
    moffat_fwhm,
    pick_planes,
    read_distance,
    respond,
    smooth_curve,
)
from sklearn_psf.optics import Camera, Optics
from sklearn_psf.simulation import make_focal_stack, make_textures


@pytest.mark.parametrize("height", [1.0, -2.0])
@pytest.mark.parametrize("centre", [-7.0, 300.0])
def test_moffat_is_recovered(height, centre):
    z = centre + np.sort(np.random.default_rng(0).uniform(-60, 60, 80))
    scores = moffat(z, centre + 3, 15.0, 1.5, height, 5.0)
    fitted = fit_moffat(z, scores)
    np.testing.assert_allclose(fitted, [centre + 3, 15.0, 1.5, height, 5.0], rtol=0.03)


def test_width_at_half_height():
    half = moffat_fwhm(12.0, 2.5) / 2
    assert moffat(half, 0, 12.0, 2.5, 1.0, 0.0) == pytest.approx(0.5)


def test_fit_survives_an_outlier_and_a_constant():
    z = np.linspace(-50, 50, 41)
    scores = moffat(z, 4.0, 15.0, 1.5, 1.0, 0.0)
    scores[3] = 3.0
    assert abs(fit_moffat(z, scores)[0] - 4.0) < 1
    assert np.isfinite(fit_moffat(z, np.ones(41))).all()


def test_smoothing_reduces_noise_and_keeps_lines():
    z = np.sort(np.random.default_rng(0).uniform(0, 100, 200))
    noise = np.random.default_rng(1).standard_normal(200)
    np.testing.assert_allclose(smooth_curve(z, 3 * z - 1, 2.0), 3 * z - 1, atol=1e-6)
    assert smooth_curve(z, noise, 4.0).std() < 0.5


def test_response_averages_planes_of_one_position():
    z = np.r_[np.linspace(-40, 40, 21), np.linspace(-40, 40, 21)]
    scores = np.abs(z - 3.0) / 40 + np.repeat([-0.05, 0.05], 21)
    places, curve, std, shape = respond(z, scores, np.full(42, 0.02), part=0.1)
    assert places.shape == curve.shape == std.shape == (21,) and shape[0] == pytest.approx(3, abs=2)
    far = np.abs(places - 3) > 8  # smoothing rounds the tip
    np.testing.assert_allclose(curve[far], np.abs(places - 3)[far] / 40, atol=0.02)
    assert (std >= 0.1 * np.ptp(curve)).all() and std[0] > std[10]


@pytest.mark.parametrize("upward", [False, True])
def test_distance_is_read_off_the_curve(upward):
    offset = np.linspace(-50, 50, 101)
    curve = np.abs(offset) / 50
    curve = 1 - curve if upward else curve
    scores = np.array([curve[30], curve[95], np.nan])
    np.testing.assert_allclose(read_distance(scores, offset, curve, upward), [20, 45, np.nan])


def test_planes_that_teach_lie_on_both_sides():
    offset = np.arange(-50.0, 51, 2)
    picks = offset[pick_planes(offset, 0.02)]
    assert picks.min() < -40 and picks.max() > 20 and len(picks) == 6
    # where a misjudged rate would leave the ends alone, planes between them are added
    assert len(pick_planes(offset, 1e-4)) >= 6


@pytest.fixture(scope="module")
def planes():
    optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.4)
    texture = make_textures(1, size=256, kind="dead-leaves", random_state=0)[0]
    z = np.array([-36.0, -14.0, 2.0, 8.0, 20.0])
    options = dict(optics=optics, margin=32, z_focus=3.0, camera=Camera(peak_photons=8000))
    return optics, z, make_focal_stack(texture, z, random_state=0, **options)


def test_optics_are_learnt_from_a_stack(planes):
    optics, z, stack = planes
    rate = optics.waves_per_micrometre
    rates = rate / optics.cutoff * np.array([0.7, 1.4])
    cutoff, learnt, focus, aberration = learn_optics(list(stack), z, 1.0, rates)
    assert learnt == pytest.approx(rate, rel=0.15)
    assert cutoff == pytest.approx(optics.cutoff, rel=0.15)
    assert focus == pytest.approx(3.0, abs=0.3)
    # what matters for the images is the blur in pixels, the ratio of the two
    assert learnt / cutoff == pytest.approx(rate / optics.cutoff, rel=0.04)
    assert aberration <= 0.02  # there is none


def test_aberrations_are_seen(planes):
    """Each plane through another PSF besides defocus."""
    optics, z, stack = planes
    blurred = [gaussian_filter(p, (s, 2 - s)) for p, s in zip(stack, (0, 2, 0, 2, 1), strict=True)]
    known = [optics.waves_per_micrometre], optics.cutoff
    plain, aberrated = (learn_optics(list(x), z, 3.0, *known)[3] for x in (stack, blurred))
    assert aberrated > 2 * plain


def test_planes_that_are_alike_teach_nothing(planes):
    optics, z, stack = planes
    alike = list(np.random.default_rng(0).poisson(np.repeat(stack[2:3], 5, 0)))
    rates = optics.waves_per_micrometre / optics.cutoff * np.array([0.7, 1.4])
    assert learn_optics(alike, z, 3.0, rates) is None
