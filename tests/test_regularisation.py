import numpy as np
import pytest
import torch

from sklearn_psf._regularisation import (
    held_out_likelihood,
    hold_out,
    prediction_likelihood,
    simulated_snr,
)
from sklearn_psf.operators import Convolution

WEIGHTS = 5e-4 * 2.0 ** np.arange(8)


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
    snr = simulated_snr(image, operator, WEIGHTS, 30, **options)
    return float(WEIGHTS[np.argmax(snr[:, -1])]), float(snr.max())


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


def likelihood(image, operator, weights=(0.0, 4e-3, 1.0), seed=0, **options):
    rng = np.random.RandomState(seed)
    options = {"gain": 1.0} | options
    return held_out_likelihood(image, operator, weights, 40, random_state=rng, **options)


def test_photons_held_out_reject_absurd_weights():
    nats = likelihood(*problem(30.0), weights=(0.0, 0.02, 5.0))
    assert nats.shape == (3,)
    # per pixel, of 4356
    assert nats[1] > nats[0] + 0.003 and nats[1] > nats[2] + 0.02


def test_photons_held_out_follow_from_the_seed_alone():
    image, operator = problem(100.0)
    before = image.copy()
    first = likelihood(image, operator)
    np.testing.assert_array_equal(first, likelihood(image, operator))
    assert (first != likelihood(image, operator, seed=1)).all()
    # every weight is judged by the same photons
    np.testing.assert_array_equal(first[::-1], likelihood(image, operator, (1.0, 4e-3, 0.0)))
    np.testing.assert_array_equal(image, before)


def test_photons_held_out_know_no_grey_values():
    image, operator = problem(100.0)
    image += 20
    grey = likelihood(8 * image, operator, gain=8.0, background=160.0)
    np.testing.assert_allclose(grey, likelihood(image, operator, background=20.0), atol=1e-5)
    assert abs(grey - likelihood(8 * image, operator, background=160.0)).min() > 0.1


def test_background_is_predicted_too():
    operator = problem(1.0)[1]
    image = np.random.RandomState(0).poisson(20.0, (66, 66)).astype(np.float32)
    _, held_out = hold_out(image, 1.0, np.random.RandomState(0))
    known = prediction_likelihood(held_out, np.full((66, 66), 20.0), 1.0)
    (predicted,) = likelihood(image, operator, [0.01], background=20.0)
    assert predicted == pytest.approx(known, abs=0.01)


def test_no_photon_is_lost_or_used_twice():
    image = 2.5 * np.random.RandomState(0).poisson(30.0, (40, 50))
    kept, held_out = hold_out(image, 2.5, np.random.RandomState(0))
    assert kept.dtype == np.float32 and kept.min() >= 0 and held_out.min() >= 0
    np.testing.assert_allclose(0.9 * kept / 2.5 + held_out, image / 2.5, rtol=1e-5)
    assert held_out.sum() == pytest.approx(0.1 * image.sum() / 2.5, rel=0.02)


def test_the_expected_image_predicts_best():
    _, held_out = hold_out(np.full((50, 50), 80.0), 2.0, np.random.RandomState(0))
    of = [prediction_likelihood(held_out, np.full((50, 50), level), 2.0) for level in (70, 80, 90)]
    assert of[1] > max(of[0], of[2])
    assert np.isfinite(prediction_likelihood(held_out, np.zeros((50, 50)), 2.0))


def test_an_empty_image_predicts_nothing():
    assert np.isfinite(likelihood(np.zeros((66, 66), np.float32), problem(1.0)[1])).all()
