"""Tests of masks that leave a part of a patch."""

import torch

from sklearn_psf.operators import apply_masks, keep_apart


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


def test_two_parts_of_one_texture_are_equally_bright():
    x, own = noise(2, 64, 64), torch.zeros(2, 64, 64, dtype=torch.float64)
    own[:, :10] = 1
    rest = 0.7 * (1 - own)
    both = keep_apart(5 * x, own, rest)
    assert both.shape == (2, 4, 64, 64)
    parts, masks = both.split(2, 1)
    torch.testing.assert_close(masks, torch.stack([own, rest], 1))
    torch.testing.assert_close(parts[:, 0], apply_masks(5 * x, own))
    power = parts.square().sum((-2, -1))
    torch.testing.assert_close(power[:, 1] / power[:, 0], torch.ones(2, dtype=torch.float64),
                               atol=0.2, rtol=0)  # fmt: skip
    assert (parts[:, 1, :10] == 0).all()


def test_too_small_a_rest_is_none():
    own = torch.ones(1, 40, 40, dtype=torch.float64)
    own[:, :1] = 0
    parts = keep_apart(noise(1, 40, 40), own, 1 - own)
    assert (parts[:, 1] == 0).all() and parts[:, 0].abs().mean() > 0.5
