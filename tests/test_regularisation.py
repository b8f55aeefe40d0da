import numpy as np
import pytest
import torch

from sklearn_psf._regularisation import LAMBDAS, choose_setting, simulated_snr
from sklearn_psf.operators import Convolution


def test_weights_are_even_on_a_logarithmic_scale():
    np.testing.assert_allclose(np.diff(np.log2(LAMBDAS)), 1)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[1.0, 2.0, 3.0]], (0, 3)),
        ([[1.0, 3.0, 2.0], [0.0, 1.0, 2.9]], (0, 2)),
        ([[1.0, 2.0, 2.5], [1.0, 2.985, 3.0]], (1, 2)),  # 0.02 dB is not worth an iteration
        ([[0.0, 0.0]], (0, 1)),
    ],
)
def test_the_cheapest_of_the_best_is_chosen(table, expected):
    assert choose_setting(np.array(table)) == expected


def problem(light, read_noise=0.0, gain=1.0):
    rng = np.random.RandomState(0)
    sharp = np.kron(rng.rand(12, 12), np.ones((6, 6))) * light
    psf = np.outer(*[np.hanning(9)[1:-1]] * 2)
    operator = Convolution(psf / psf.sum(), (66, 66))
    blurred = operator.forward(torch.as_tensor(sharp, dtype=torch.float32)).numpy()
    electrons = rng.poisson(blurred) + read_noise * rng.standard_normal(blurred.shape)
    return np.maximum(gain * electrons, 0).astype(np.float32), operator


def best_weight(image, operator, **options):
    options = {"gain": 1.0, "read_noise": 0.0, "random_state": np.random.RandomState(1)} | options
    snr = simulated_snr(image, operator, LAMBDAS, 30, **options)
    return float(LAMBDAS[choose_setting(snr[:, -1:])[0]]), float(snr.max())


def test_fewer_photons_and_more_read_noise_ask_for_more():
    many, few = (problem(light) for light in (3000.0, 30.0))
    assert best_weight(*few)[0] > best_weight(*many)[0]
    assert best_weight(*few)[1] < best_weight(*many)[1] - 3
    assert best_weight(*few, read_noise=20.0)[1] < best_weight(*few)[1] - 0.5


def test_the_gain_counts_photons():
    image, operator = problem(100.0)
    brighter = 8 * image
    a, b = best_weight(image, operator), best_weight(brighter, operator, gain=8.0)
    assert a[0] == b[0] and a[1] == pytest.approx(b[1], abs=0.1)


def test_another_blur_of_the_simulation_costs():
    image, operator = problem(1000.0)
    wide = np.outer(*[np.hanning(9)[1:-1] ** 0.3] * 2)
    other = Convolution(wide / wide.sum(), (66, 66))
    assert best_weight(image, operator, truth_operator=other)[1] < best_weight(image, operator)[1]


def test_an_empty_image_is_no_error():
    operator = problem(1.0)[1]
    assert np.isfinite(best_weight(np.zeros((66, 66), np.float32), operator)[1])
