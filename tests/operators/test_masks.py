"""Tests of masks that leave a part of a patch."""

import torch

from sklearn_psf.operators import apply_masks


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_is_left_has_no_mean_and_the_rest_does_not_count():
    x, masks = 1000 + noise(3, 32, 40), torch.rand(3, 32, 40, dtype=torch.float64)
    masks[:, :10] = 0
    left = apply_masks(x, masks)
    torch.testing.assert_close(left.mean((1, 2)), torch.zeros(3, dtype=torch.float64))
    assert (left[:, :10] == 0).all()
    other = x.clone()
    other[:, :10] += 500
    torch.testing.assert_close(apply_masks(other, masks), left)
    torch.testing.assert_close(apply_masks(7 * x + 3, masks), 7 * left)


def test_nothing_is_left_without_a_mask():
    assert (apply_masks(noise(1, 8, 8), torch.zeros(1, 8, 8)) == 0).all()
