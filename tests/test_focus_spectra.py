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
    np.testing.assert_allclose(spectra.noise, 1e-4, rtol=0.1)
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
    truth, noise = 11, np.full(2, 1e-3)
    matrices = 2.0 * products[truth] + np.diag(noise)
    value, power = wishart_log_likelihood(matrices, noise, rings.counts, products)
    assert value.argmax() == truth
    assert power.shape == (17, 24) and np.median(power[truth]) == pytest.approx(2.0, rel=0.1)
