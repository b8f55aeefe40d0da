import numpy as np
import pytest
from scipy.signal import fftconvolve

from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.simulation import (
    SURFACE_SHAPES,
    depth_to_parameters,
    make_scene,
    make_surface,
    make_tilted_plane,
)

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
TEXTURE = np.random.default_rng(0).uniform(0, 50, (40, 56))


def test_parameters_of_a_depth():
    p = depth_to_parameters([[-10.0, 0.0, 10.0]], optics=OPTICS, cylinder=0.3, axis=2.0)
    assert p.shape == (1, 3, 3)
    waves = 10 * 0.4**2 / (4 * np.sqrt(3) * 0.52)
    np.testing.assert_allclose(p[0, :, 0], [waves, 0, waves])
    np.testing.assert_allclose(p[0, :, 1], 0.3)
    np.testing.assert_allclose(p[0, :, 2], [(2 + np.pi / 2) % np.pi, 2, 2])


@pytest.mark.parametrize(("tilt", "direction"), [(5, 0.0), (-7, np.pi / 2), (10, np.pi / 4)])
def test_plane_rises_by_its_tilt(tilt, direction):
    _, depth = make_tilted_plane(TEXTURE, optics=OPTICS, tilt=tilt, direction=direction, offset=3.0)
    slope_y, slope_x = (np.diff(depth, axis=k).mean() / 0.325 for k in (0, 1))
    rise = np.tan(np.radians(tilt))
    np.testing.assert_allclose(slope_x, rise * np.cos(direction), atol=1e-9)
    np.testing.assert_allclose(slope_y, rise * np.sin(direction), atol=1e-9)
    assert depth.mean() == pytest.approx(3.0)


def test_flat_surface_is_one_convolution():
    image, depth = make_tilted_plane(
        TEXTURE, optics=OPTICS, tilt=0, offset=-12.0, cylinder=0.3, axis=0.5
    )
    assert (depth == -12).all()
    parameters = depth_to_parameters(-12.0, optics=OPTICS, cylinder=0.3, axis=0.5)
    psf = make_psf_model("zernike-3", cutoff=OPTICS.cutoff).psf(parameters[None])[0]
    padded = np.pad(TEXTURE, 63, mode="symmetric")
    np.testing.assert_allclose(image, fftconvolve(padded, psf, mode="valid"), rtol=5e-3)


@pytest.mark.parametrize("shape", SURFACE_SHAPES)
def test_heights_of_shapes(shape):
    _, depth = make_surface(TEXTURE, optics=OPTICS, height=8.0, shape=shape, offset=2.0)
    assert depth.shape == TEXTURE.shape
    assert (depth.min(), depth.max()) == pytest.approx((-2.0, 6.0))


def test_shapes_are_what_they_are_called():
    shapes = {
        s: make_surface(TEXTURE, optics=OPTICS, height=8.0, shape=s, direction=0.0)[1]
        for s in SURFACE_SHAPES
    }
    assert len(np.unique(shapes["steps"].round(9))) == 4
    assert (np.diff(shapes["steps"], axis=1) >= -1e-9).all()
    assert np.ptp(shapes["steps"], axis=0).max() < 1e-9
    assert np.sum(np.diff(np.sign(shapes["waves"][0])) != 0) == pytest.approx(4, abs=1)
    sphere = shapes["sphere"]
    assert np.unravel_index(sphere.argmax(), sphere.shape) in [(19, 27), (19, 28), (20, 27)]
    np.testing.assert_allclose(sphere, sphere[::-1, ::-1])
    assert (sphere[:, 0] == sphere.min()).all()  # flat ground beside the cap
    # On the cap the radius of curvature is one: (z - z0)^2 + r^2 = R^2.
    y, x = np.mgrid[:40, :56] - np.array([19.5, 27.5])[:, None, None]
    squared = y**2 + x**2
    cap = squared < 19**2
    radius = 20 / np.sin(np.pi / 4)
    scale = 8.0 / (1 - np.cos(np.pi / 4)) / radius  # of z against the pixels
    z = np.sqrt(radius**2 - squared[cap]) * scale
    np.testing.assert_allclose(np.diff(sphere[cap]), np.diff(z), atol=0.02)


def test_own_profile_and_plane_add_up():
    profile = np.zeros(TEXTURE.shape)
    profile[10:20] = 7.0
    _, depth = make_surface(
        TEXTURE, optics=OPTICS, height=4.0, shape=profile, tilt=5, direction=0.0
    )
    _, plane = make_tilted_plane(TEXTURE, optics=OPTICS, tilt=5, direction=0.0)
    np.testing.assert_allclose(depth - plane, np.where(profile > 0, 2.0, -2.0))


def test_rendered_by_make_scene_pixel_by_pixel():
    camera = Camera(peak_photons=1e3)
    image, depth = make_surface(
        TEXTURE, optics=OPTICS, height=20.0, shape="steps", camera=camera, random_state=3
    )
    parameters = depth_to_parameters(depth, optics=OPTICS)
    model = make_psf_model("zernike-3", cutoff=OPTICS.cutoff)
    expected, _, _ = make_scene(
        TEXTURE, parameters, psf_model=model, camera=camera, random_state=3, spacing=1
    )
    np.testing.assert_array_equal(image, expected)


def test_the_lens_tells_the_sides_of_focus_apart():
    kwargs = {"optics": OPTICS, "tilt": 0}
    above, below = (make_tilted_plane(TEXTURE, offset=z, **kwargs)[0] for z in (9, -9))
    assert np.abs(above - below).mean() > 0.1 * above.std()
    above, below = (make_tilted_plane(TEXTURE, offset=z, cylinder=0, **kwargs)[0] for z in (9, -9))
    np.testing.assert_allclose(above, below, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"optics": None}, TypeError, "optics must be an Optics, got None"),
        ({"tilt": 90}, ValueError, r"tilt must be in \[-80"),
        ({"height": 0.0}, ValueError, r"height must be in \(0"),
        ({"shape": "cube"}, ValueError, "shape must be one of 'sphere', 'steps', 'waves'"),
        ({"shape": np.ones((3, 3))}, ValueError, r"got shape \(3, 3\)"),
        ({"shape": np.full(TEXTURE.shape, np.nan)}, ValueError, "shape must be finite"),
        ({"cylinder": -0.1}, ValueError, "cylinder must be in"),
        ({"axis": np.inf}, ValueError, "axis must be finite"),
        ({"image": -TEXTURE}, ValueError, "image must be non-negative"),
        ({"camera": 1e4}, TypeError, "camera must be a Camera"),
    ],
)
def test_bad_arguments(arguments, error, match):
    good = {"image": TEXTURE, "optics": OPTICS, "height": 5.0}
    with pytest.raises(error, match=match):
        make_surface(**(good | arguments))
