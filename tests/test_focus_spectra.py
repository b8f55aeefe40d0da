import numpy as np
import pytest

from sklearn_psf._focus_spectra import (
    CrossSpectra,
    defocus_transfer,
    make_rings,
    ring_products,
    wishart_log_likelihood,
)
from sklearn_psf.optics import make_psf_model


@pytest.mark.parametrize("focus", [0.0, 0.3, 0.8])
def test_transfer_is_the_transform_of_the_familys_psf(focus):
    psf = make_psf_model("zernike-1", size=255).psf([[focus]])[0]
    expected = np.fft.fft2(np.fft.ifftshift(psf))[0, :100].real
    transfer = defocus_transfer(np.arange(100) / 255, np.array([focus]), 0.25)[0]
    np.testing.assert_allclose(transfer, expected, atol=0.01)


def test_transfer_ends_at_twice_the_cutoff():
    transfer = defocus_transfer(np.array([0.0, 0.39, 0.41]), np.array([0.2]), 0.2)[0]
    assert transfer[0] == pytest.approx(1, abs=1e-6)
    assert transfer[1] != 0 and transfer[2] == 0


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
