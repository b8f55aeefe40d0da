"""Tests of the walks that borders hold up."""

import pytest
import torch

from sklearn_psf.networks.walks import reachability


def halves(apart=1.0, squares=64, column=32):
    z = torch.zeros(1, 2, squares, squares)
    z[:, 0, :, column:] = apart
    return z


@pytest.mark.parametrize("shape", [(64, 64), (64, 40), (22, 33)])
def test_without_borders_all_is_reached(shape):
    z = 5 + torch.zeros(2, 3, *shape)
    alike = reachability(z, torch.tensor([[0, 0], [20, 16]]))
    assert alike.shape == (2, *shape)
    expected = 1 / (1 + 0.7**3)  # as many walkers as with nothing in the way
    torch.testing.assert_close(alike, torch.full_like(alike, expected), atol=1e-3, rtol=0)


def test_a_border_is_not_crossed_from_either_side():
    alike = reachability(halves().repeat(2, 1, 1, 1), torch.tensor([[30, 10], [30, 60]]))
    assert alike[0, :, :28].min() > 0.7 and alike[0, :, 36:].max() < 0.05
    assert alike[1, :, 36:].min() > 0.7 and alike[1, :, :28].max() < 0.05


def test_far_squares_that_are_equal_by_chance_are_not_alike():
    z = halves(column=24)
    z[:, 0, :, 44:] = 0.0
    alike = reachability(z, torch.tensor([[30, 8]]))[0]
    assert alike[:, :20].min() > 0.7 and alike[:, 48:].max() < 0.05


def test_a_small_gap_in_a_border_lets_few_through():
    z = halves()
    z[:, 0, 28:36, 32:34] = 0.5
    alike = reachability(z, torch.tensor([[30, 10]]))[0]
    assert alike[:, :28].mean() > 0.7 and alike[:, 40:].mean() < 0.2


def test_a_slope_is_less_of_a_border_than_a_step():
    slope = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    place = torch.tensor([[30, 10]])
    step = reachability(halves()[:, :1], place)[0, :, 50:].mean()
    assert step < 0.05 < reachability(slope, place)[0, :, 50:].mean()
