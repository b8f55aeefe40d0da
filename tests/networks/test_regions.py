"""Tests of the second reading, which keeps apart what moves differently."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_psf.networks import build_network
from sklearn_psf.networks.modules import load_initial_weights
from sklearn_psf.networks.regions import (
    RegionUNet,
    _add,
    _join,
    _padded,
    _places,
    _Windows,
    alike_loss,
)
from sklearn_psf.networks.training import PSFLoss
from sklearn_psf.networks.walks import reachability
from sklearn_psf.operators import keep_apart


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def halves(n=1, squares=64, column=24, apart=5.0):
    """Coordinates of two regions, left and right of a column of squares."""
    z = torch.zeros(n, 2, squares, squares)
    z[:, 0, :, column:] = apart
    return z


# ------------------------------------------------------------------------------- parts of windows


def taken_apart(images, z, place):
    """Both parts (n, 2, h, w) of the wide window around a place."""
    windows = _Windows.around([place], 256, images.shape[1:])
    at = (torch.tensor([place]) - torch.tensor(windows.starts)).expand(len(images), 2)
    likeness = reachability(windows.cut(z, 4), at)
    own, rest = windows.mask(likeness), windows.mask(1 - likeness)
    return keep_apart(windows.cut(images), own, rest)[:, :2]


@pytest.mark.parametrize("place", [(8, 8), (24, 8), (40, 56)])
def test_parts_see_what_moves_alike_and_the_rest(place):
    images, z = noise(1, 256, 256), halves()
    own = torch.arange(256) < 96
    own = own if place[1] < 24 else ~own
    far = (torch.arange(256) - 95.5).abs() > 20  # masks are soft
    seen = taken_apart(images, z, place)
    assert seen.shape == (1, 2, 256, 256)
    for k, columns in enumerate((own & far, ~own & far)):
        changed = images.clone()
        changed[:, :, columns] += noise(1, 256, int(columns.sum()), seed=2)
        change = (taken_apart(changed, z, place) - seen).abs().mean((0, 2, 3))
        assert change[k] > 5 * change[1 - k]


def test_masks_keep_away_from_borders():
    parts = taken_apart(noise(1, 256, 256), halves(column=40), (24, 24))
    strength = parts.abs().mean((0, 2))
    assert strength[0, 160:].max() < 0.2 * strength[0, :120].mean()  # the border is at 160
    assert strength[0, 172:].max() < 0.02 * strength[0, :120].mean()
    assert strength[1, :160].max() < 0.2 * strength[1, 200:].mean()


def test_a_small_region_is_taken_up_to_its_border():
    z = torch.zeros(1, 2, 64, 64)
    z[:, 0, 22:27, 10:54] = 5.0  # 20 pixels wide
    own = taken_apart(noise(1, 256, 256), z, (24, 24))[:, 0]
    assert own[:, 94:102].abs().mean() > 0.2


def test_beyond_a_small_image_there_is_nothing():
    parts = taken_apart(noise(1, 80, 201), torch.zeros(1, 2, 24, 56), (8, 8))
    assert parts.shape == (1, 2, 80, 204)
    assert parts[:, 0, :70, :190].abs().mean() > 0.5
    assert (parts[..., 201:] == 0).all()
    edge = parts[:, 0, 79].abs().mean()  # no hard edge, which a spectrum would show
    assert edge < 0.2 * parts[:, 0, 40].abs().mean()
    assert _padded(parts, 256).shape == (1, 2, 256, 256)


@pytest.mark.parametrize("shape", [(256, 256), (250, 601), (70, 64)])
@pytest.mark.parametrize("size", [128, 256])
def test_windows_lie_around_places_within_the_image(shape, size):
    places = [(y, x) for y in _places(shape[0]) for x in _places(shape[1])]
    windows = _Windows.around(places, size, shape)
    maps = [torch.arange(n) for n in shape]
    rows, columns = (
        windows.cut(part.expand(1, *shape).float()) for part in (maps[0][:, None] + 1, maps[1] + 1)
    )
    for k, (place, start) in enumerate(zip(places, windows.starts, strict=True)):
        for at, first, side, n in zip(place, start, windows.sides, shape, strict=True):
            assert 0 <= first <= at < first + side <= -(-n // 4)
            assert side == min(size // 4, -(-n // 4))
        seen = rows[k][rows[k] > 0]
        assert seen.min() == 4 * start[0] + 1
        assert seen.max() == min(shape[0], 4 * (start[0] + windows.sides[0]))
        seen = columns[k][columns[k] > 0]
        assert seen.min() == 4 * start[1] + 1
        assert seen.max() == min(shape[1], 4 * (start[1] + windows.sides[1]))


def test_near_windows_are_cut_from_wide_ones():
    shape, places = (300, 520), [(8, 8), (40, 72), (72, 120)]
    near, wide = (_Windows.around(places, size, shape) for size in (128, 256))
    z = noise(2, 75, 130)
    expected = near.cut(z, 4)
    assert torch.equal(near.cut_from(wide.cut(z, 4), wide), expected)
    assert expected.shape == (6, 32, 32)


def test_places_cover_an_image():
    places = np.array(_places(250))
    assert (np.diff(places) == 16).all() and places[0] <= 16 and 63 - places[-1] <= 16


# ------------------------------------------------------------------------ what pixels make of it


def added(apart=True, **values):
    """Mean and log variance (h, w) by windows that say 1 left of a column and -1 right of it."""
    sums = [torch.zeros(1, 1, 64, 64) for _ in range(3)]
    places = [(y, x) for y in _places(256) for x in _places(256)]
    left, alike, outputs = torch.arange(64) < 24, [], []
    for _, x in places:
        own = left if x < 24 else ~left
        alike.append((own if apart else own | ~own).float().expand(64, 64))
        outputs.append([1.0 if x < 24 else -1.0, values.get("log_variance", 0.0), -4.0])
        if x >= 24:
            outputs[-1][1] += values.get("right", (0.0, 0.0))[0]
            outputs[-1][2] += values.get("right", (0.0, 0.0))[1]
    windows = _Windows.around(places, 256, (256, 256))
    _add(sums, places, windows, torch.stack(alike), torch.tensor(outputs))
    total, valid, mean = sums
    return (mean / total)[0, 0], (valid / total)[0, 0].log()


def test_a_pixel_takes_the_readings_of_its_own_region():
    mean, log_variance = added(log_variance=-1.0)
    torch.testing.assert_close(mean[:, :23], torch.ones(64, 23), atol=1e-2, rtol=0)
    torch.testing.assert_close(mean[:, 25:], -torch.ones(64, 39), atol=1e-2, rtol=0)
    torch.testing.assert_close(log_variance, torch.full((64, 64), -1.0), atol=1e-3, rtol=0)
    smooth = added(apart=False)[0][30]
    assert (smooth[:40].diff() <= 1e-6).all() and smooth[20] - smooth[28] < 1


@pytest.mark.parametrize("right", [(6.0, 0.0), (0.0, 8.0)])
def test_sure_and_valid_readings_count_more(right):
    assert added(apart=False, right=right)[0][30, 30] > 0.5  # what the unsure right side is told


# ------------------------------------------------------------------------------------- training


def test_likeness_is_learned_from_the_truth():
    truth = noise(2, 4, 4, 3).repeat_interleave(12, 1).repeat_interleave(12, 2)
    truth[0, :8] = torch.nan
    loose = noise(2, 5, 48, 48, seed=1).requires_grad_()
    optimiser = torch.optim.Adam([loose], 0.1)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = alike_loss(loose, truth)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert (loose.grad[0, :, :8] == 0).all()  # what has no truth teaches nothing
    assert alike_loss(loose.detach(), torch.full_like(truth, torch.nan)) == 0


def test_training_also_sees_the_first_reading_and_the_coordinates():
    network = build_network("unet-directed", 3, seed=0)
    network.train()
    outputs = network(noise(2, 128, 128))
    assert outputs.shape == (2, 7 + 7 + 16, 32, 32)
    targets = noise(2, 32, 32, 3, seed=1)
    loss = PSFLoss()
    parts = [loss(outputs[:, i : i + 7], targets) for i in (0, 7)]
    whole = loss(outputs, targets)
    alike = alike_loss(outputs[:, 14:], targets)
    torch.testing.assert_close(whole, parts[0] + parts[1] / 2 + alike)
    whole.backward()
    assert network.backbone.again.fc.weight.grad.abs().sum() > 0
    assert network.backbone.alike.weight.grad.abs().sum() > 0
    network.eval()
    with torch.inference_mode():
        assert network(noise(2, 128, 128)).shape == (2, 7, 32, 32)


def test_readers_that_are_given_stay_as_they_are():
    readers = {"windows.reader.": "compact-directed", "again.": "polar"}
    given = {
        prefix + name.removeprefix("backbone."): value
        for prefix, kind in readers.items()
        for name, value in build_network(kind, 3, seed=5).state_dict().items()
        if name.startswith("backbone.")
    }
    network = build_network("unet-directed", 3, seed=0)
    load_initial_weights(network, given)
    network.train()
    assert not network.backbone.again.training and not network.backbone.windows.reader.training
    assert network.backbone.stem.training
    outputs = network(noise(2, 128, 128))
    torch.testing.assert_close(outputs[:, :7], outputs[:, 7:14])  # it is not read again
    PSFLoss()(outputs, noise(2, 32, 32, 3, seed=1)).backward()
    for name, value in network.backbone.named_parameters():
        reader = name.startswith(tuple(readers))
        assert reader == (value.grad is None), name
        if reader:
            assert torch.equal(value, given[name])
    only_first = {k: v for k, v in given.items() if not k.startswith("again.")}
    network = build_network("unet-directed", 3, seed=0)
    load_initial_weights(network, only_first)
    assert network.train().backbone.again.training


def test_readings_are_joined_by_precision():
    readings = [torch.tensor([[m, v]]).log()[..., None, None] for m, v in ((1.0, 1.0), (1.0, 4.0))]
    readings[0][:, 0], readings[1][:, 0] = 5.0, 10.0
    joined = _join(readings, (1, 1))[0, :, 0, 0]
    torch.testing.assert_close(joined, torch.tensor([6.0, np.log(1.6)], dtype=torch.float32))
    less = _join(readings, (0.5, 1))[0, 0, 0, 0]
    assert float(less) == pytest.approx((0.5 * 5 + 0.25 * 10) / 0.75)


class Texture(nn.Module):
    """Reads how rough its part of a window is, as both readers would."""

    def forward(self, x):
        own = x[:, 0]
        rough = own.diff(dim=-1).square().mean((-2, -1))[:, None]
        rough = rough / own.square().mean((-2, -1))[:, None].clamp(min=1e-6)
        return torch.cat([rough, torch.full_like(rough, -2), torch.full_like(rough, -5)], 1)


def test_a_blurred_region_beside_a_sharp_one_is_read_as_blurred():
    network = build_network("unet-directed", 1, seed=0).backbone.eval()
    image = noise(1, 256, 256)
    soft = nn.functional.avg_pool2d(image, 7, 1, 3)
    image[..., 128:] = soft[..., 128:] / soft.std()
    network.again = network.windows.reader = Texture()
    with torch.inference_mode():
        read = RegionUNet._read_again(network, image, halves(column=32), (1, 3, 64, 64))
    for means in read:
        assert means[0, 0, :, :31].min() > 1.5 and means[0, 0, :, 34:].max() < 0.6
