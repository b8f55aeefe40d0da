from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_psf.optics import Camera


@pytest.mark.parametrize("photons", [0.5, 30.0, 3000.0])
@pytest.mark.parametrize("efficiency", [1.0, 0.6])
def test_moments_are_those_of_shot_and_read_noise(photons, efficiency):
    camera = Camera(quantum_efficiency=efficiency, read_noise=3.0, gain=0.5, offset=100.0)
    grey = camera.expose(np.full((4, 250, 250), photons), generator=0)
    electrons = efficiency * photons
    variance = 0.25 * (electrons + 9.0)
    n = grey.size
    assert abs(grey.mean() - (100 + 0.5 * electrons)) < 5 * np.sqrt(variance / n)
    # Poisson has a fourth moment above the normal's: 1 / mean at most here
    assert abs(grey.var() / variance - 1) < 5 * np.sqrt((2 + 1 / electrons) / n)


def test_shot_noise_alone_is_poisson():
    camera = Camera(read_noise=0.0)
    counts = camera.expose(np.full((400, 400), 4.0), generator=1)
    assert (counts == counts.round()).all() and counts.min() >= 0
    share = np.bincount(counts.astype(int).ravel(), minlength=9)[:9] / counts.size
    factorial = np.cumprod([1, 1, 2, 3, 4, 5, 6, 7, 8])
    expected = np.exp(-4.0) * 4.0 ** np.arange(9) / factorial
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.2 / counts.size))


@settings(max_examples=20)
@given(
    gain=st.floats(0.01, 10),
    offset=st.floats(-100, 500),
    bits=st.sampled_from([None, 1, 8, 12, 16]),
    seed=st.integers(0, 2**31 - 1),
)
def test_quantised_images_are_integers_within_the_range(gain, offset, bits, seed):
    camera = Camera(gain=gain, offset=offset, bits=bits)
    grey = camera.expose(np.linspace(0, 1e4, 256).reshape(16, 16), generator=seed)
    assert np.isfinite(grey).all()
    if bits is not None:
        assert (grey == grey.round()).all()
        assert grey.min() >= 0 and grey.max() <= 2**bits - 1


def test_without_bits_nothing_is_clipped():
    grey = Camera(read_noise=5.0).expose(np.zeros((50, 50)), generator=0)
    assert grey.min() < -5 and len(np.unique(grey)) == grey.size


@pytest.mark.parametrize("bits", [None, 8])
def test_dead_pixels_are_half_black_half_white(bits):
    camera = Camera(read_noise=0.0, bits=bits, salt_pepper=0.1, gain=0.1)
    photons = np.full((2, 300, 300), 500.0)
    photons[1] = 1500.0
    grey = camera.expose(photons, generator=0)
    for image in grey:
        white = 255 if bits else image.max()
        assert abs((image == 0).mean() - 0.05) < 0.005
        assert abs((image == white).mean() - 0.05) < 0.005
    if bits is None:  # white is a matter of each image
        assert grey[0].max() < 80 < grey[1].max()


@pytest.mark.parametrize("camera", [Camera(), Camera(bits=12, gain=0.3), Camera(salt_pepper=0.2)])
def test_same_seed_same_picture(camera):
    photons = np.linspace(0, 1000, 600).reshape(20, 30)
    first = camera.expose(photons, generator=7)
    np.testing.assert_array_equal(first, camera.expose(photons, generator=7))
    generator = torch.Generator().manual_seed(7)
    np.testing.assert_array_equal(first, camera.expose(photons, generator=generator))
    # the generator has moved on
    assert (first != camera.expose(photons, generator=generator)).any()
    assert (first != camera.expose(photons, generator=8)).any()


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second = (Camera().expose(np.full((8, 8), 100.0)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert (first != second).any()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("uint16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_kind_and_precision_follow_the_input(dtype, expected):
    photons = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    photons.setflags(write=False)
    grey = Camera().expose(photons, generator=0)
    assert isinstance(grey, np.ndarray) and grey.dtype == expected and grey.shape == (2, 3, 4)
    tensor = torch.from_numpy(photons.astype(expected))
    result = Camera().expose(tensor, generator=0)
    assert isinstance(result, torch.Tensor) and str(result.dtype) == f"torch.{expected}"
    np.testing.assert_array_equal(result.numpy(), grey)


@pytest.mark.parametrize("read_noise", [0.0, 2.0])
def test_input_is_not_modified(read_noise):
    photons = torch.rand(5, 6) * 100
    before = photons.clone()
    Camera(read_noise=read_noise, quantum_efficiency=1.0, bits=8).expose(photons, generator=0)
    assert torch.equal(photons, before)


def test_to_grey_is_the_expected_exposure():
    camera = Camera(quantum_efficiency=0.5, gain=2.0, offset=10.0)
    np.testing.assert_allclose(camera.to_grey(np.array([0.0, 3.0])), [10.0, 13.0])
    assert camera.to_grey(torch.tensor([4.0])).tolist() == [14.0]
    assert camera.to_grey(np.float32([1])).dtype == np.float32


def test_camera_is_frozen_and_compares_by_value():
    assert Camera() == Camera(peak_photons=10000) and Camera() != Camera(bits=8)
    with pytest.raises(FrozenInstanceError):
        Camera().gain = 2.0


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("peak_photons", 0, ValueError),
        ("peak_photons", float("inf"), ValueError),
        ("peak_photons", "many", TypeError),
        ("quantum_efficiency", 0.0, ValueError),
        ("quantum_efficiency", 1.1, ValueError),
        ("read_noise", -1.0, ValueError),
        ("read_noise", None, TypeError),
        ("gain", -2.0, ValueError),
        ("offset", float("nan"), ValueError),
        ("bits", 0, ValueError),
        ("bits", 25, ValueError),
        ("bits", 8.0, TypeError),
        ("bits", True, TypeError),
        ("salt_pepper", 1.5, ValueError),
        ("salt_pepper", True, TypeError),
    ],
)
def test_bad_arguments_are_named(argument, value, error):
    with pytest.raises(error, match=f"{argument} must be .*{value!r}"):
        Camera(**{argument: value})


@pytest.mark.parametrize(
    ("photons", "error"),
    [
        (np.full((4, 4), -1.0), ValueError),
        (np.full((4, 4), np.nan), ValueError),
        (np.full((4, 4), np.inf), ValueError),
        (np.ones(4), ValueError),
        (np.ones((4, 4), complex), TypeError),
        (torch.ones(4, 4, dtype=torch.complex64), TypeError),
        (np.array([["a"]]), TypeError),
    ],
)
def test_bad_photons_are_refused(photons, error):
    with pytest.raises(error, match="photons must be"):
        Camera().expose(photons)


@pytest.mark.parametrize("generator", ["0", 1.5, np.random.default_rng(0), True])
def test_bad_generators_are_refused(generator):
    with pytest.raises(TypeError, match="generator must be"):
        Camera().expose(np.ones((4, 4)), generator=generator)
