import numpy as np
import pytest

from sklearn_psf._surface import edge_aware_surface, interpolate_grid, smooth_surface

RNG = np.random.RandomState(0)
PLACES = np.argwhere(np.ones((9, 9))) * 32.0
PLANE = PLACES @ [0.02, -0.03] + 1.0


def overlapping_noise(std, seed):
    """Errors of windows of 128 pixels that share a field of texture."""
    field = np.random.RandomState(seed).standard_normal((9 + 3, 9 + 3))
    sums = [[field[i : i + 4, j : j + 4].sum() / 4 for j in range(9)] for i in range(9)]
    return std * np.ravel(sums)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_standard_deviations_are_those_of_the_surface(scale):
    """Their scale comes from the scatter; what all windows share is hard to see in it."""
    ratios = []
    for seed in range(20):
        noisy = PLANE + overlapping_noise(0.5, seed)
        mean, std = smooth_surface(noisy, np.full(81, 0.5 * scale), PLACES, (128, 128))
        ratios.append((mean - PLANE) / std)
    assert 0.5 < np.std(ratios) < 2.5


def test_curved_surfaces_are_kept():
    bump = 4 * np.exp(-((PLACES - 128) ** 2).sum(1) / (2 * 70**2))
    noisy = PLANE + bump + 0.2 * RNG.standard_normal(81)
    mean, _ = smooth_surface(noisy, np.full(81, 0.2), PLACES, (32, 32))
    assert np.abs(mean - PLANE - bump).mean() < 0.16


def test_unsure_readings_count_less_and_gaps_are_bridged():
    noisy, std = PLANE.copy(), np.full(81, 0.1)
    noisy[:40:2] += 5.0
    std[:40:2] = 5.0
    noisy[60] = np.nan
    mean, deviation = smooth_surface(noisy, std, PLACES, (32, 32))
    np.testing.assert_allclose(mean, PLANE, atol=0.1)
    assert np.isfinite(deviation).all()


def test_few_depths_stay_as_they_are():
    depth = np.array([1.0, np.nan, 3.0])
    mean, std = smooth_surface(depth, np.ones(3), PLACES[:3], (32, 32))
    np.testing.assert_array_equal(mean, depth)
    np.testing.assert_array_equal(std, 1.0)


def test_scale_and_offset_pass_through():
    noisy = PLANE + 0.3 * RNG.standard_normal(81)
    first, std = smooth_surface(noisy, np.full(81, 0.3), PLACES, (64, 64))
    second, wide = smooth_surface(7 * noisy + 100, np.full(81, 2.1), PLACES, (64, 64))
    np.testing.assert_allclose(second, 7 * first + 100, rtol=1e-6)
    np.testing.assert_allclose(wide, 7 * std, rtol=1e-5)


def test_edges():
    step = np.where(np.arange(10) < 5, -2.0, 2.0) * np.ones((8, 1))
    noisy = step + 0.4 * RNG.standard_normal(step.shape)
    noisy[3, 3] = np.nan
    surface = edge_aware_surface(noisy, np.full(step.shape, 0.4))
    assert np.abs(surface - step).mean() < 0.2
    assert np.nanmean(np.abs(noisy - step)) > 0.25
    assert np.isnan(edge_aware_surface(np.full((2, 2), np.nan), np.ones((2, 2)))).all()


def test_interpolation_passes_over_gaps():
    values = np.array([[[1.0, np.nan, 5.0], [3.0, np.nan, np.nan]]])
    dense = interpolate_grid(values, [0, 4], [0, 4, 8], (5, 9))[0]
    assert (dense[0, 0], dense[2, 0], dense[4, 0]) == (1.0, 2.0, 3.0)
    assert dense[0, 2] == 1.0 and dense[0, 7] == 5.0
    assert np.isnan(dense[4, 8]) and np.isnan(dense[0, 4])
