import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sklearn_psf.optics import Camera, estimate_noise


def light(size=256, blur=3.0, seed=0):
    """Expected photons of a blurred image, 0 to 1."""
    image = gaussian_filter(np.random.RandomState(seed).rand(size, size), blur)
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("gain", [0.3, 1.0, 12.0])
@pytest.mark.parametrize("peak", [300.0, 10_000.0])
def test_gain_is_found(gain, peak):
    camera = Camera(gain=gain, read_noise=2.0, offset=100.0)
    image = camera.expose(peak * light(), generator=0)
    assert estimate_noise(image, offset=100.0)[0] == pytest.approx(gain, rel=0.1)


@pytest.mark.parametrize("read_noise", [5.0, 20.0])
def test_read_noise_is_found(read_noise):
    half_dark = np.clip(2 * light(512) - 0.8, 0, None)
    image = Camera(gain=2.0, read_noise=read_noise).expose(1000 * half_dark, generator=0)
    gain, found = estimate_noise(image)
    assert gain == pytest.approx(2.0, rel=0.2)
    assert found == pytest.approx(read_noise, rel=0.25)


def test_texture_adds_little():
    sharp = np.kron(np.random.RandomState(1).rand(32, 32), np.ones((16, 16)))
    image = Camera(read_noise=0.0).expose(1000 * gaussian_filter(sharp, 1.0), generator=0)
    assert 0.7 < estimate_noise(image)[0] < 1.5


def test_without_noise_there_is_no_gain():
    assert estimate_noise(1000 * light(blur=8.0))[0] < 1e-2
    assert estimate_noise(np.full((64, 64), 7.0)) == (0.0, 0.0)


def test_an_even_image_has_noise_but_no_gain_to_tell():
    image = np.random.RandomState(0).normal(50, 3, (128, 128)) - 50
    gain, noise = estimate_noise(np.abs(image) * 0 + image)
    assert gain == 0 or gain * noise == pytest.approx(3, rel=0.3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((63, 100)), "at least 64 x 64"),
        (np.ones((2, 64, 64)), "2-D"),
        (np.full((64, 64), np.nan), "NaN"),
    ],
)
def test_unusable_images(image, message):
    with pytest.raises(ValueError, match=message):
        estimate_noise(image)
