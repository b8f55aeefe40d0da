"""Tests of convolutions over pixels: their frames, and what does not matter to them."""

import math

import pytest
import torch

from sklearn_psf.networks.pixel_reader import COARSE, PixelReader, rotation, squared

EYE = torch.eye(2)


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    return PixelReader().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pixels():
    x = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(x[:, None], 3, 1, 1)[:, 0]


def read(reader, pixels, frames=None, masks=None, closeness=None):
    n, side = pixels.shape[:2]
    maps = torch.ones(2, n, side // COARSE, side // COARSE)
    maps[1] = 0
    for given, part in zip((masks, closeness), maps, strict=True):
        if given is not None:
            part[:] = given
    frames = EYE.expand(n, 2, 2) if frames is None else frames
    return reader(pixels, maps.transpose(0, 1), frames)


def test_patches_become_squares():
    x = torch.arange(40.0 * 70).reshape(1, 40, 70)
    square = squared(x)
    assert square.shape == (1, 96, 96)
    torch.testing.assert_close(square[:, :40, :70], x)
    assert not square[:, 40:].any() and not square[:, :, 70:].any()
    assert squared(torch.ones(1, 31, 32)).shape == (1, 32, 32)


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
        read(reader, x * mask.repeat_interleave(8, 1).repeat_interleave(8, 2), masks=mask)
        for mask in masks.unbind(1)
    )
    blank = read(reader, torch.zeros_like(x), masks=torch.zeros(3, 32, 32))
    assert (half - quarter).abs().mean() < 0.3 * (half - blank).abs().mean()
    assert torch.isfinite(blank).all()


def test_faint_detail_counts_as_strong_detail_does(reader, pixels):
    """Contrast is local: detail at two scales is divided by that around it."""
    step = torch.ones(128, 128)
    step[:, 64:] = 0.2
    seen = []
    handle = reader.binned.register_forward_pre_hook(lambda _, views: seen.append(views[0]))
    for x in (pixels, pixels * step):
        read(reader, x)
    handle.remove()
    plain, stepped = (views[:, :16, :, 24:] for views in seen)  # away from the step
    ratio = (stepped.std((0, 2, 3)) / plain.std((0, 2, 3)).clamp(min=1e-6)).unflatten(0, (4, 4))
    assert (ratio[0] < 0.25).all() and (ratio[1:3] > 0.75).all(), ratio
    assert (seen[0][:, 12:16] == 1).all()


def test_what_binning_leaves_out_is_seen(reader, pixels):
    """Rows that alternate have no mean; the finest detail is seen beside that of pairs."""
    stripes = torch.ones(128, 128)
    stripes[::2] = -1
    seen = {}
    handles = [
        getattr(reader, name).register_forward_pre_hook(
            lambda _, views, name=name: seen.setdefault(name, []).append(views[0])
        )
        for name in ("binned", "fine")
    ]
    for x in (pixels, pixels + stripes):
        read(reader, x)
    for handle in handles:
        handle.remove()
    before, after = seen["binned"]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
    before, after = (views.unflatten(1, (2, 2, 4)) for views in seen["fine"])
    change = (after - before)[:, [0, 1], :, :, 4:-4, 4:-4].mean((0, 2, 3, 4, 5))
    assert change[0] < -0.5 and change[1] > 0.5


def test_a_place_counts_where_pixels_differ(reader, pixels):
    """Half of a part is blurred: what is found depends on which half is asked for."""
    network = PixelReader().eval().requires_grad_(False)
    network.load_state_dict(reader.state_dict())
    x = pixels.repeat(1, 2, 2)
    x[:, :, :128] = torch.nn.functional.avg_pool2d(x, 9, 1, 4)[:, :, :128]
    left, right = torch.zeros(2, 3, 32, 32)
    left[:, 12:20, 4:12] = 1
    right[:, 12:20, 20:28] = 1
    near = [read(network, x, closeness=closeness) for closeness in (left, right)]
    same = [read(network, pixels.repeat(1, 2, 2), closeness=c) for c in (left, right)]
    assert (near[0] - near[1]).abs().mean() > 3 * (same[0] - same[1]).abs().mean()
