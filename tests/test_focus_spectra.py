import numpy as np
import pytest

from sklearn_psf._focus_spectra import (
    CrossSpectra,
    make_rings,
    ring_products,
    wishart_log_likelihood,
)
from sklearn_psf.optics import defocus_transfer


@pytest.mark.parametrize("shape", [(64, 64), (65, 48)])
def test_rings_count_every_frequency_once(shape):
    rings = make_rings(shape, 12)
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    within = (radius >= 2 / min(shape)) & (radius < 0.48)
    assert rings.counts.sum() == within.sum()
    np.testing.assert_allclose(rings.leakage.sum(1), 1, atol=0.05)


def test_cross_spectra_of_white_noise_are_white_and_uncorrelated():
    rng = np.random.default_rng(0)
    spectra = CrossSpectra()
    for _ in range(2):
        spectra.add(100 + rng.standard_normal((128, 128)))
    np.testing.assert_allclose(spectra.noise, 1e-4 * np.eye(2), rtol=0.04)
    diagonal = np.einsum("kii->ki", spectra.matrices)
    np.testing.assert_allclose(diagonal[20:].mean(), 1e-4, rtol=0.1)
    assert np.abs(spectra.matrices[20:, 0, 1]).mean() < 0.2e-4


def test_brightness_does_not_matter():
    image = np.random.default_rng(0).random((64, 64)) + 1
    a, b = CrossSpectra(), CrossSpectra()
    a.add(image)
    b.add(40 * image)
    np.testing.assert_allclose(a.matrices, b.matrices, rtol=1e-4)


def test_likelihood_is_highest_at_the_truth():
    """Cross spectra drawn from the model itself, at its expectation."""
    rings = make_rings((96, 96), 24)
    hypotheses = np.linspace(-0.4, 0.4, 17)
    positions = np.array([0.5, 0.8])
    transfers = np.stack(
        [defocus_transfer(rings.frequency, np.abs(positions - h), 0.25) for h in hypotheses]
    )
    products = ring_products(transfers, rings).astype(float)
    truth, noise = 11, 1e-3 * np.eye(2)
    matrices = 2.0 * products[truth] + noise
    value, power = wishart_log_likelihood(matrices, noise, rings.counts, products)
    assert value.argmax() == truth
    assert power.shape == (17, 24) and np.median(power[truth]) == pytest.approx(2.0, rel=0.1)


def test_a_pattern_of_the_camera_is_noise():
    rng = np.random.default_rng(0)
    pattern, spectra = 0.3 * rng.standard_normal((128, 128)), CrossSpectra()
    for _ in range(3):
        spectra.add(100 + pattern + rng.standard_normal((128, 128)))
    np.testing.assert_allclose(spectra.noise.diagonal(), 1.09e-4, rtol=0.04)
    np.testing.assert_allclose(spectra.noise[np.triu_indices(3, 1)], 0.09e-4, rtol=0.3)


def test_shading_is_not_seen():
    ramp = np.linspace(0.7, 1.3, 96)
    image = 1 + 0.3 * np.random.default_rng(0).random((96, 96))
    plain, shaded = CrossSpectra(), CrossSpectra()
    plain.add(image)
    shaded.add(image + 10 * (ramp[:, None] + ramp**2) / image.mean())
    a, b = (x.matrices[:, 0, 0] * m**2 for x, m in ((plain, 1), (shaded, 1)))
    # divided by another mean, the same texture has the same spectrum up to a factor
    np.testing.assert_allclose(b / a, b[-1] / a[-1], rtol=1e-3)


HYPOTHESES = np.linspace(-3, 3, 121)  # waves


def judge(images, positions):
    spectra = CrossSpectra()
    for image in images:
        spectra.add(image)
    rings = spectra.rings
    transfers = np.stack(
        [defocus_transfer(rings.frequency, np.abs(positions - h), 0.25) for h in HYPOTHESES]
    )
    products = ring_products(transfers, rings, 0.01)
    return wishart_log_likelihood(spectra.matrices, spectra.noise, rings.counts, products)[0]


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_says_nothing(seed):
    rng = np.random.default_rng(seed)
    ramp = 6000 * (1 + 0.3 * np.linspace(-1, 1, 128))
    images = rng.poisson(np.broadcast_to(ramp, (3, 128, 128)))
    assert np.ptp(judge(images, np.array([1.5, 2.2, -0.4]))) < 4


def blur_steep_sample(power, seed, positions, size=256):
    """Images of a sample whose spectrum falls with a power of the frequency, by their defocus."""
    rng, field = np.random.default_rng(seed), 2 * size
    radius = np.hypot(np.fft.fftfreq(field)[:, None], np.fft.rfftfreq(field))
    spectrum = np.fft.rfft2(rng.standard_normal((field, field)))
    spectrum *= np.maximum(radius, 1 / field) ** (-power / 2)
    spectrum[0, 0] = 0
    known = np.linspace(0, radius.max(), 2000)
    images = []
    for transfer in defocus_transfer(known, np.abs(positions), 0.25):
        blurred = np.fft.irfft2(spectrum * np.interp(radius, known, transfer))[:size, :size]
        images.append(blurred / np.fft.irfft2(spectrum).std())
    return [rng.poisson(8000 * np.clip(1 + 0.2 * image, 0, None)) for image in images]


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_steep_samples_are_not_thought_nearer(power):
    """What leaks out of low frequencies, where far images still have light, is not sharpness."""
    positions = np.array([1.4, 1.8])
    value = sum(judge(blur_steep_sample(power, seed, positions), positions) for seed in range(6))
    assert HYPOTHESES[value.argmax()] == pytest.approx(0, abs=0.03)


def test_next_to_no_transfer_explains_nothing():
    """A thousandth of the true H, and a sample a million times stronger, would fit as well."""
    rings = make_rings((96, 96), 24)
    true = np.stack([defocus_transfer(rings.frequency, np.array([a]), 0.25)[0] for a in (0.3, 0.5)])
    hypotheses, noise = np.stack([true, 1e-3 * true]), 1e-3 * np.eye(2)
    matrices = 2.0 * ring_products(true[np.newaxis], rings)[0] + noise
    plain, wary = (
        wishart_log_likelihood(
            matrices, noise, rings.counts, ring_products(hypotheses, rings, aberration)
        )[0]
        for aberration in (0.0, 0.02)
    )
    assert plain[1] == pytest.approx(plain[0], abs=1)
    assert wary[0] > 0.95 * plain[0] and wary[1] < wary[0] - 100
