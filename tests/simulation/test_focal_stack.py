import numpy as np
import pytest

from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.simulation import make_focal_stack, make_textures

OPTICS = Optics(na=0.3, wavelength=0.52, pixel_size=0.4)
SHARP = make_textures(1, size=96, kind="dead-leaves", random_state=0)[0]


def test_a_point_becomes_the_psf():
    point = np.zeros((81, 81))
    point[40, 40] = 1.0
    image = make_focal_stack(point, [12.0], optics=OPTICS, z_focus=2.0)[0]
    model = make_psf_model("born-wolf", size=81, optics=OPTICS)
    np.testing.assert_allclose(image, model.psf([[10.0]])[0], atol=2e-5)


def test_families_agree_and_defocus_is_symmetric():
    z = [-15.0, 0.0, 15.0]
    a = make_focal_stack(SHARP, z, optics=OPTICS)
    b = make_focal_stack(SHARP, z, optics=OPTICS, psf_model="zernike-1")
    np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_allclose(a[0], a[2], atol=1e-5)
    assert a[1].std() > 1.2 * a[0].std()


def test_light_is_kept_and_the_margin_cut():
    flat = np.ones((64, 80))
    stack = make_focal_stack(flat, [0.0, 30.0], optics=OPTICS, margin=8)
    assert stack.shape == (2, 48, 64)
    np.testing.assert_allclose(stack, 1, atol=1e-4)


def test_tilt_moves_focus_across_the_image():
    stack = make_focal_stack(SHARP, [-10.0, 10.0], optics=OPTICS, tilt=(0.0, 40.0))
    left, right = slice(0, 32), slice(64, 96)
    flat = make_focal_stack(SHARP, [0.0], optics=OPTICS)[0]
    error = abs(stack - flat)
    assert error[0][:, left].mean() < 0.6 * error[1][:, left].mean()
    assert error[1][:, right].mean() < 0.6 * error[0][:, right].mean()


def test_no_tilt_is_the_limit_of_a_small_tilt():
    plain = make_focal_stack(SHARP, [8.0], optics=OPTICS)
    tilted = make_focal_stack(SHARP, [8.0], optics=OPTICS, tilt=(1e-6, 1e-6))
    np.testing.assert_allclose(tilted, plain, atol=1e-3)


def test_oversampling_averages_fine_pixels():
    fine = np.repeat(np.repeat(SHARP, 2, 0), 2, 1)
    stack = make_focal_stack(fine, [25.0], optics=OPTICS, oversampling=2)
    plain = make_focal_stack(SHARP, [25.0], optics=OPTICS)
    assert stack.shape == plain.shape
    np.testing.assert_allclose(stack, plain, atol=0.02)


def test_camera_photons_and_seed():
    camera = Camera(peak_photons=5000, read_noise=0.0)
    options = dict(optics=OPTICS, camera=camera, random_state=0)
    stack = make_focal_stack(SHARP, [0.0, 30.0], **options)
    assert stack[0].max() == pytest.approx(5000, rel=0.06)
    assert stack[1].max() < stack[0].max()
    np.testing.assert_array_equal(stack, make_focal_stack(SHARP, [0.0, 30.0], **options))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image": np.ones((2, 4, 4))}, ValueError, "image"),
        ({"image": -SHARP}, ValueError, "non-negative"),
        ({"z": [0.0, np.nan]}, ValueError, "z must be finite"),
        ({"z": 3.0}, ValueError, "z must be positions"),
        ({"optics": None}, TypeError, "optics"),
        ({"psf_model": "gaussian-1"}, ValueError, "psf_model"),
        ({"tilt": (1.0,)}, ValueError, "tilt"),
        ({"margin": 48}, ValueError, "margin=48"),
        ({"oversampling": 5}, ValueError, "oversampling=5"),
        ({"camera": "cmos"}, TypeError, "camera"),
    ],
)
def test_bad_input(change, error, words):
    arguments = {"image": SHARP, "z": [0.0], "optics": OPTICS} | change
    with pytest.raises(error, match=words):
        make_focal_stack(arguments.pop("image"), arguments.pop("z"), **arguments)
