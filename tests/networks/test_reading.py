import numpy as np
import pytest

from sklearn_psf.networks.reading import angular_difference, fit_std_scale, propagate_std
from sklearn_psf.optics import make_psf_model


def test_std_of_an_amplitude_is_that_of_its_encoding():
    model = make_psf_model("zernike-3", size=31)
    encoding = model.encode(np.array([[0.8, 0.4, 1.0]]))
    variance = np.array([[0.04, 0.01, 0, 0, 0, 0]])
    std = propagate_std(model, encoding, variance, scale=np.array([1.0, 2.0, 1.0]))
    assert std[0, :2] == pytest.approx([0.2, 0.2])


def test_std_of_an_axis_is_the_spread_of_decoded_draws():
    model = make_psf_model("zernike-3", size=31)
    truth = np.array([[0.8, 0.4, 1.0]])
    variance = np.array([[0, 0, 1e-4, 1e-4, 1e-4, 1e-4]])
    draws = np.random.RandomState(0).normal(model.encode(truth), np.sqrt(variance), (4000, 6))
    error = angular_difference(model.decode(draws), truth, model.periods)
    std = propagate_std(model, model.encode(truth), variance)
    assert std[0, 2] == pytest.approx(error[:, 2].std(), rel=0.1)


@pytest.mark.parametrize("value", [-0.3, 0.0, 0.7])
def test_std_is_positive_also_beyond_the_border_of_the_possible(value):
    model = make_psf_model("zernike-1", size=31)
    std = propagate_std(model, np.array([[value]]), np.array([[0.01]]))
    assert 0.001 < std[0, 0] <= 0.1 + 1e-12
    assert value < 0 or std[0, 0] == pytest.approx(0.1)


def test_an_unknown_axis_has_the_std_of_a_uniform_one():
    model = make_psf_model("zernike-2", size=31)
    std = propagate_std(model, np.array([[0.4, 0.01, 0.0]]), np.array([[0.1, 0.1, 0.1]]))
    assert std[0, 1] <= np.pi / 2 / np.sqrt(12)


def test_angles_differ_by_the_shorter_way_round():
    difference = angular_difference(np.array([[0.1, 5.0]]), np.array([[3.1, 1.0]]), [np.pi, None])
    np.testing.assert_allclose(difference, [[np.pi - 3.0, 4.0]])


def test_errors_of_a_normal_density_get_its_standard_deviation():
    rng = np.random.RandomState(0)
    std = rng.uniform(0.5, 2, (20000, 2))
    scale = fit_std_scale(np.abs(rng.normal(0, 3, std.shape) * std), std)
    np.testing.assert_allclose(scale, 3, rtol=0.03)


def test_long_tails_are_met_halfway():
    error = np.abs(np.random.RandomState(1).standard_t(4, (20000, 1)))
    scale = fit_std_scale(error, np.ones_like(error))
    assert 0.683 < (error < scale).mean() < 0.75  # more than of a normal density,
    assert 0.90 < (error < 2 * scale).mean() < 0.954  # and less


def test_few_errors_tell_nothing():
    np.testing.assert_array_equal(fit_std_scale(np.full((19, 2), 5.0), np.ones((19, 2))), [1, 1])
