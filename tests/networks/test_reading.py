"""What standard deviations are multiplied by."""

import numpy as np

from sklearn_psf.networks.reading import fit_std_scale


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
