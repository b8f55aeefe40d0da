import numpy as np
import pytest

from sklearn_psf._psf_grid import fill_invalid, smooth_grid

PRIOR = np.zeros(1), np.ones(1)


def grid_positions(grid_y, grid_x):
    return np.stack(np.meshgrid(range(grid_y), range(grid_x), indexing="ij"), -1).reshape(-1, 2)


def test_fill_weighs_by_the_inverse_square_of_the_distance():
    values = np.array([[1.0, 0.0], [np.nan, np.nan], [4.0, 8.0]])
    positions = np.array([[0, 0], [0, 1], [0, 3]])
    filled, spread = fill_invalid(values, np.array([False, True, False]), positions)
    weights = np.array([1, 1 / 4]) / (5 / 4)
    np.testing.assert_allclose(filled[1], weights @ values[[0, 2]])
    np.testing.assert_array_equal(filled[[0, 2]], values[[0, 2]])
    variance = weights @ values[[0, 2]] ** 2 - filled[1] ** 2
    np.testing.assert_allclose(spread, [0, np.sqrt(variance.mean()), 0])


def test_fill_leaves_the_input_alone():
    values = np.arange(6.0).reshape(3, 2)
    before = values.copy()
    filled, spread = fill_invalid(values, np.zeros(3, bool), grid_positions(1, 3))
    filled += 1
    np.testing.assert_array_equal(values, before)
    assert not spread.any()


def test_certain_readings_stay_as_they_are():
    values = np.random.RandomState(0).normal(size=(5, 6, 2))
    smooth = smooth_grid(values, np.zeros((5, 6, 2)), np.zeros(2), np.ones(2))
    np.testing.assert_allclose(smooth, values, atol=1e-5)


def test_strength_zero_changes_nothing():
    values = np.random.RandomState(0).normal(size=(5, 6, 1))
    assert smooth_grid(values, np.ones((5, 6, 1)), *PRIOR, strength=0) is values


@pytest.mark.parametrize("shape", [(9, 9), (1, 40), (40, 1)])
def test_noise_about_a_plane_is_smoothed_away(shape):
    plane = 0.1 * np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., np.newaxis]
    plane = plane - plane.mean()
    noise = np.random.RandomState(1).normal(0, 0.3, plane.shape)
    # What a network that knows the prior N(0, 1) says of a reading with that noise
    shrunk = (plane + noise) / (1 + 0.3**2)
    variance = np.full(plane.shape, 0.3**2 / (1 + 0.3**2))
    error = smooth_grid(shrunk, variance, *PRIOR) - plane
    assert np.sqrt((error**2).mean()) < 0.5 * noise.std()


def test_the_prior_counts_once_and_not_once_for_each_window():
    # Every window sees the value 2 with unit noise: each posterior mean is 1, variance 1/2. All of
    # 100 together know it: 100 readings of 2 against one prior of 0.
    values, variance = np.full((10, 10, 1), 1.0), np.full((10, 10, 1), 0.5)
    smooth = smooth_grid(values, variance, *PRIOR)
    np.testing.assert_allclose(smooth, 2 * 100 / 101, rtol=1e-6)


def test_windows_that_say_nothing_leave_the_prior():
    smooth = smooth_grid(np.zeros((4, 4, 1)), np.ones((4, 4, 1)), np.zeros(1), np.ones(1))
    np.testing.assert_allclose(smooth, 0, atol=1e-12)


def test_scale_and_offset_of_a_column_do_not_matter():
    rng = np.random.RandomState(2)
    values, variance = rng.normal(size=(6, 5, 1)), rng.uniform(0.1, 0.9, (6, 5, 1))
    smooth = smooth_grid(values, variance, *PRIOR)
    other = smooth_grid(7 + 3 * values, 9 * variance, np.full(1, 7.0), np.full(1, 9.0))
    np.testing.assert_allclose(other, 7 + 3 * smooth)


def test_many_gaps_are_filled_in_parts(monkeypatch):
    rng = np.random.RandomState(0)
    values, gaps, places = rng.rand(50, 2), rng.rand(50) < 0.5, rng.rand(50, 2)
    whole = fill_invalid(values, gaps, places)
    monkeypatch.setattr("sklearn_psf._psf_grid._CHUNK", 3)
    for a, b in zip(whole, fill_invalid(values, gaps, places), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
