"""Tests of convolutions over pixels: their frames, and what does not matter to them."""

import math

import pytest
import torch

from sklearn_psf.networks.pixel_reader import COARSE, PixelReader, half_resolution, rotation

EYE = torch.eye(2)


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    return PixelReader().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pixels():
    x = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(x[:, None], 3, 1, 1)[:, 0]


def read(reader, pixels, frames=None, masks=None):
    n, side = pixels.shape[:2]
    masks = torch.ones(n, side // COARSE, side // COARSE) if masks is None else masks
    return reader(pixels, masks, EYE.expand(n, 2, 2) if frames is None else frames)


def test_patches_become_squares_of_half_the_resolution():
    x = torch.arange(40.0 * 70).reshape(1, 40, 70)
    small = half_resolution(x)
    assert small.shape == (1, 48, 48)
    torch.testing.assert_close(small[0, 0, 0], x[0, :2, :2].mean())
    assert not small[:, 20:].any() and not small[:, :, 35:].any()
    assert half_resolution(torch.ones(1, 31, 31)).shape == (1, 16, 16)


def test_a_rotation_goes_from_x_to_y():
    turned = rotation(torch.tensor([math.pi / 2])) @ torch.tensor([1.0, 0.0])
    torch.testing.assert_close(turned, torch.tensor([[0.0, 1.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_frame_sees_what_a_turned_patch_shows(reader, pixels, quarters):
    """Its axes say where to look: a patch that is turned with them looks the same."""
    moved = torch.rot90(pixels, -quarters, (-2, -1))  # from the column axis towards the row axis
    angle = rotation(torch.full((3,), quarters * math.pi / 2))
    expected, other = (read(reader, x) for x in (pixels, moved))
    error = (read(reader, moved, angle) - expected).abs().mean()
    assert error < 0.01 * (other - expected).abs().mean()


def test_a_mirrored_frame(reader, pixels):
    mirrored = torch.tensor([[1.0, 0.0], [0.0, -1.0]]).expand(3, 2, 2)
    expected, other = (read(reader, x) for x in (pixels, pixels.flip(-2)))
    error = (read(reader, pixels.flip(-2), mirrored) - expected).abs().mean()
    assert error < 0.01 * (other - expected).abs().mean()


def test_what_is_masked_does_not_count(reader, pixels):
    """Features are averages over what is there, at the scale of cells."""
    masks = torch.zeros(3, 2, 32, 32)
    masks[:, 0, :, :16] = 1  # the right half is empty
    masks[:, 1, :16, :16] = 1
    x = pixels.repeat(1, 2, 2)
    half, quarter = (
        read(reader, x * mask.repeat_interleave(4, 1).repeat_interleave(4, 2), masks=mask)
        for mask in masks.unbind(1)
    )
    blank = read(reader, torch.zeros_like(x), masks=torch.zeros(3, 32, 32))
    assert (half - quarter).abs().mean() < 0.3 * (half - blank).abs().mean()
    assert torch.isfinite(blank).all()


def test_faint_detail_counts_as_strong_detail_does(reader, pixels):
    """Contrast is local: detail at two scales is divided by that around it."""
    step = torch.ones(64, 64)
    step[:, 32:] = 0.2
    seen = []
    handle = reader.layers.register_forward_pre_hook(lambda _, views: seen.append(views[0]))
    for x in (pixels, pixels * step):
        read(reader, x)
    handle.remove()
    plain, stepped = (views[..., 48:] for views in seen)  # away from the step
    ratio = stepped.std((0, 2, 3)) / plain.std((0, 2, 3)).clamp(min=1e-6)
    assert ratio[0] < 0.25 and (ratio[1:3] > 0.75).all(), ratio
    assert (seen[0][:, 3] == 1).all()
