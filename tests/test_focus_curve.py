import numpy as np
import pytest

from sklearn_psf._focus_curve import fit_moffat, learn_optics, moffat, moffat_fwhm, smooth_curve
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


def test_optics_are_learnt_from_a_stack():
    optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.4)
    camera = Camera(peak_photons=8000)
    texture = make_textures(1, size=256, kind="dead-leaves", random_state=0)[0]
    z = np.array([-36.0, -14.0, 2.0, 8.0, 20.0])
    stack = make_focal_stack(
        texture, z, optics=optics, margin=32, z_focus=3.0, camera=camera, random_state=0
    )
    rate = optics.waves_per_micrometre
    rates = rate / optics.cutoff * np.array([0.7, 1.4])
    cutoff, learnt, focus = learn_optics(list(stack), z, 1.0, rates)
    assert learnt == pytest.approx(rate, rel=0.15)
    assert cutoff == pytest.approx(optics.cutoff, rel=0.15)
    assert focus == pytest.approx(3.0, abs=0.3)
    # what matters for the images is the blur in pixels, the ratio of the two
    assert learnt / cutoff == pytest.approx(rate / optics.cutoff, rel=0.04)
