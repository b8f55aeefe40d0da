import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from sklearn_psf import simulation
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import make_scene, make_tilted_scene, scenes

GAUSSIAN = make_psf_model("gaussian-1", size=9)


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 50, (height, width))


def direct_sum(image, parameters, model):
    """Spread each pixel's light with its own PSF, one pixel at a time."""
    half = model.size // 2
    field = np.pad(image, half, mode="symmetric")
    field_parameters = np.pad(parameters, ((half, half), (half, half), (0, 0)), mode="edge")
    canvas = np.zeros([n + 2 * half for n in field.shape])
    for i, j in np.ndindex(field.shape):
        psf = model.psf(field_parameters[i, j][None])[0]
        canvas[i : i + model.size, j : j + model.size] += field[i, j] * psf
    return canvas[2 * half : -2 * half, 2 * half : -2 * half]


@pytest.mark.parametrize("shape", [(14, 17), (11, 12)])
def test_spacing_one_is_the_sum_over_pixels(shape):
    image, rng = image_of(*shape), np.random.default_rng(1)
    parameters = rng.uniform(0.5, 3, (*shape, 1))  # unrelated from pixel to pixel
    blurred, _, _ = make_scene(image, parameters, psf_model=GAUSSIAN, spacing=1)
    expected = direct_sum(image, parameters, GAUSSIAN)
    assert np.linalg.norm(blurred - expected) < 1e-3 * np.linalg.norm(expected)


def test_a_jump_stays_a_jump():
    image = np.zeros((40, 40))
    image[20, 15], image[20, 25] = 1.0, 1.0
    parameters = np.full((40, 40, 1), 0.5)
    parameters[:, 20:] = 3.0
    blurred, _, _ = make_scene(image, parameters, psf_model="gaussian-1", spacing=1)
    psfs = make_psf_model("gaussian-1").psf(np.array([[0.5], [3.0]]))[:, 63, 63]
    np.testing.assert_allclose(blurred[20, [15, 25]], psfs, rtol=0.02)


@pytest.mark.parametrize("name", ["zernike-1", "zernike-3", "gaussian-2", "motion"])
def test_a_constant_field_is_one_convolution(name):
    model = make_psf_model(name, size=21)
    image = image_of(30, 41)
    values = model.sample(1, random_state=0)[0]
    parameters = np.broadcast_to(values, (30, 41, len(values)))
    blurred, sharp, _ = make_scene(image, parameters, psf_model=model)
    padded = np.pad(image, 10, mode="symmetric")
    expected = fftconvolve(padded, model.psf(values[None])[0], mode="valid")
    np.testing.assert_allclose(blurred, expected, rtol=1e-4)
    np.testing.assert_allclose(sharp, image, rtol=1e-6)


@pytest.mark.parametrize("name", ["zernike-1", "zernike-3"])
def test_nodes_interpolate_psfs(name):
    model = make_psf_model(name, size=63)
    image = simulation.make_textures(1, size=(48, 160), kind="dead-leaves", random_state=0)[0]
    tilt = {"psf_model": model, "low": 0.0, "high": 1.0}
    if name == "zernike-3":  # through focus: the parameters jump there, the PSF does not
        tilt |= {"low": -1.0, "others": {"cylinder": 0.3, "axis": 1.0}}
    exact, _, _ = make_tilted_scene(image, spacing=1, **tilt)
    errors = [
        np.linalg.norm(make_tilted_scene(image, spacing=s, **tilt)[0] - exact) for s in (16, 8)
    ]
    # bilinear interpolation is of second order
    assert errors[1] < 0.4 * errors[0] and errors[1] < 0.005 * np.linalg.norm(exact)


def test_angles_are_never_averaged():
    # axis 3.0 and 0.1 are neighbours on the circle of period pi; 1.55 is not between them
    model = make_psf_model("zernike-3", size=31)
    parameters = np.zeros((41, 65, 3))
    parameters[..., 0], parameters[..., 1] = 0.6, 0.5
    parameters[..., 2] = np.where(np.arange(65) < 32, 3.0, 0.1)
    point = np.zeros((41, 65))
    point[20, 24] = 1.0
    blurred, _, _ = make_scene(point, parameters, psf_model=model, spacing=16)
    here, there = model.psf(np.array([[0.6, 0.5, 3.0], [0.6, 0.5, 0.1]]))
    expected = (here + there) / 2  # halfway between the nodes of columns 16 and 32
    seen = blurred[5:36, 9:40]
    assert np.linalg.norm(seen - expected) < 2e-3 * np.linalg.norm(expected)


@settings(max_examples=10)
@given(
    level=st.floats(0.1, 1e4),
    direction=st.floats(-np.pi, np.pi),
    name=st.sampled_from(["zernike-1", "zernike-2", "gaussian-1", "gaussian-2"]),
)
def test_no_light_is_gained_or_lost(level, direction, name):
    model = make_psf_model(name, size=15)
    image = np.zeros((32, 34))
    image[8:24, 8:24] = level  # no light leaves the frame, none enters
    blurred, _, _ = make_tilted_scene(image, psf_model=model, direction=direction)
    assert blurred.min() >= 0
    assert blurred.sum() == pytest.approx(image.sum(), rel=2e-3)


def test_camera_scales_and_counts():
    camera = Camera(peak_photons=500, quantum_efficiency=0.8, gain=2.0, offset=30.0, bits=16)
    image = image_of(40, 40).astype(np.uint8)
    blurred, sharp, _ = make_tilted_scene(image, psf_model=GAUSSIAN, camera=camera, random_state=0)
    assert sharp.max() == pytest.approx(camera.to_grey(500.0))
    np.testing.assert_allclose(sharp - 30, image * (800 / image.max()), rtol=1e-5)
    assert (blurred == blurred.round()).all() and blurred.dtype == sharp.dtype == np.float32
    clean, _, _ = make_tilted_scene(image, psf_model=GAUSSIAN)
    mean = camera.to_grey(clean * (500 / image.max()))
    residual = (blurred - mean) / np.sqrt(4 * (0.8 * clean * 500 / image.max() + 4))
    assert abs(residual.mean()) < 0.15 and abs(residual.std() - 1) < 0.1


def test_same_seed_same_scene_and_inputs_stay():
    image, camera = image_of(24, 24), Camera()
    parameters = np.random.default_rng(0).uniform(1, 2, (24, 24, 1))
    before = image.copy(), parameters.copy()
    first, other = (
        make_scene(image, parameters, psf_model=GAUSSIAN, camera=camera, random_state=s)
        for s in (3, 4)
    )
    again = make_scene(image, parameters, psf_model=GAUSSIAN, camera=camera, random_state=3)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()
    first[2][:] = 0
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(parameters, before[1])


def test_a_dark_image_is_dark():
    blurred, sharp, _ = make_tilted_scene(np.zeros((20, 20)), camera=Camera(offset=5.0))
    assert np.isfinite(blurred).all() and (sharp == 5).all()


@pytest.mark.parametrize(
    ("direction", "low_at", "high_at"),
    [
        (0.0, (slice(None), 0), (slice(None), -1)),
        (np.pi / 2, (0,), (-1,)),
        (np.pi / 4, (0, 0), (-1, -1)),
    ],
)
def test_tilt_runs_from_low_to_high(direction, low_at, high_at):
    _, _, p = make_tilted_scene(
        image_of(20, 20), psf_model=GAUSSIAN, low=1.0, high=4.0, direction=direction
    )
    np.testing.assert_allclose(p[low_at], 1.0)
    np.testing.assert_allclose(p[high_at], 4.0)
    # a plane has no second differences
    assert abs(np.diff(p, 2, axis=0)).max() < 1e-12 > abs(np.diff(p, 2, axis=1)).max()


def test_tilt_defaults_to_the_bounds_and_moves_both_widths():
    model = make_psf_model("gaussian-2", size=9)
    _, _, p = make_tilted_scene(image_of(16, 30), psf_model=model)
    np.testing.assert_array_equal(p[..., 0], p[..., 1])
    assert (p.min(), p.max()) == tuple(model.bounds[0])


def test_a_negative_focus_is_the_other_side_of_focus():
    model = make_psf_model("zernike-3", size=15)
    _, _, p = make_tilted_scene(
        image_of(16, 33),
        psf_model=model,
        low=-1.0,
        high=1.0,
        others={"cylinder": 0.3, "axis": 2.0},
    )
    assert p[..., 0].min() >= 0 and p[..., 2].min() >= 0 and p[..., 2].max() < np.pi
    signed = model.psf(np.array([[-1.0, 0.3, 2.0]]))
    np.testing.assert_allclose(model.psf(p[0, :1]), signed, atol=1e-10)
    np.testing.assert_allclose(p[0, -1], [1.0, 0.3, 2.0])
    _, _, p = make_tilted_scene(image_of(16, 33), psf_model="zernike-1", low=-1.0, high=0.5)
    assert p[0, 0, 0] == pytest.approx(1.0) and p.min() >= 0


def test_every_psf_is_within_tolerance_although_the_sample_missed_some(monkeypatch):
    monkeypatch.setattr(scenes, "_N_FIRST", 3)
    monkeypatch.setattr(scenes, "_PSF_BYTES", 4 * 31**2 * 16)  # chunks of 16
    model = make_psf_model("zernike-1", size=31)
    parameters = model.sample(70, random_state=0)
    modes, coefficients = scenes._modes_of(model, parameters)
    psfs = torch.from_numpy(model.psf(parameters))
    error = psfs - torch.einsum("mk,kij->mij", coefficients, modes)
    assert (error.flatten(1).norm(dim=1) / psfs.flatten(1).norm(dim=1)).max() < 1.1e-3
    assert 4 < len(modes) < 40


def test_modes_in_groups_give_the_same(monkeypatch):
    arguments = {"psf_model": GAUSSIAN, "low": 0.5, "high": 3.0}
    whole, _, _ = make_tilted_scene(image_of(20, 25), **arguments)
    monkeypatch.setattr(scenes, "_COEFFICIENT_BYTES", 1)  # one mode at a time
    parts, _, _ = make_tilted_scene(image_of(20, 25), **arguments)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 3)])
def test_images_smaller_than_the_psf(shape):
    blurred, _, _ = make_tilted_scene(np.full(shape, 3.0), psf_model="gaussian-1", low=1.9, high=2)
    np.testing.assert_allclose(blurred, 3.0, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": np.ones((3, 8, 8))}, ValueError, "image must be one image"),
        ({"image": np.full((8, 8), -1.0)}, ValueError, "image must be non-negative"),
        ({"image": np.full((8, 8), np.nan)}, ValueError, "NaN"),
        ({"image": np.ones((8, 8), complex)}, ValueError, "Complex"),
        ({"parameters": np.ones((8, 8))}, ValueError, r"parameters must have shape \(8, 8, 1\)"),
        ({"parameters": np.ones((8, 8, 2))}, ValueError, "parameters must have shape"),
        ({"parameters": np.full((8, 8, 1), np.inf)}, ValueError, "parameters must be finite"),
        ({"psf_model": "gaussian-9"}, ValueError, "gaussian-9"),
        ({"psf_model": 3}, TypeError, "psf_model must be"),
        ({"camera": 1e4}, TypeError, "camera must be"),
        ({"spacing": 0}, ValueError, "spacing must be"),
        ({"spacing": 2.5}, TypeError, "spacing must be"),
        ({"random_state": "x"}, ValueError, "seed"),
    ],
)
def test_bad_scenes(change, error, message):
    arguments = {
        "image": np.ones((8, 8)),
        "parameters": np.ones((8, 8, 1)),
        "psf_model": GAUSSIAN,
    } | change
    with pytest.raises(error, match=message):
        make_scene(arguments.pop("image"), arguments.pop("parameters"), **arguments)


def test_parameters_without_a_psf_are_named():
    class Broken(type(GAUSSIAN)):
        def psf(self, parameters):
            return super().psf(parameters) / (parameters[:, :1, None] < 3)

    parameters = np.ones((8, 8, 1))
    parameters[0, 0] = 4.0
    with pytest.raises(ValueError, match=r"parameters \[4.0\] of gaussian-1 give no finite PSF"):
        make_scene(np.ones((8, 8)), parameters, psf_model=Broken(size=9))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"low": np.nan}, ValueError, "low must be"),
        ({"high": "far"}, TypeError, "high must be"),
        ({"direction": np.inf}, ValueError, "direction must be"),
        ({"others": {"coma": 1.0}}, ValueError, "coma"),
        ({"others": {"focus": 1.0}}, ValueError, "focus"),
        ({"others": {"axis": None}}, TypeError, "axis"),
    ],
)
def test_bad_tilts(change, error, message):
    with pytest.raises(error, match=message):
        make_tilted_scene(np.ones((8, 8)), psf_model="zernike-3", **change)
