"""Tests of the second reading, which keeps apart what moves differently."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_psf.networks import build_network
from sklearn_psf.networks.regions import (
    RegionUNet,
    _masked,
    _neighbours,
    _places,
    _spread,
    alike_loss,
)
from sklearn_psf.networks.training import PSFLoss


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def halves(n=1, squares=64, column=24, apart=5.0):
    """Coordinates of two regions, left and right of a column of squares."""
    z = torch.zeros(n, 2, squares, squares)
    z[:, 0, :, column:] = apart
    return z


# ------------------------------------------------------------------------------- masked windows


@pytest.mark.parametrize("place", [(30, 10), (30, 40), (2, 60)])
def test_a_window_does_not_see_what_moves_otherwise(place):
    images, z = noise(1, 256, 256), halves(apart=20.0)
    elsewhere = images.clone()
    own = torch.zeros(256, dtype=torch.bool)
    own[:96] = True
    own = own if place[1] < 24 else ~own
    columns = torch.arange(256)
    far = (columns - 95.5).abs() > 16  # masks are soft
    elsewhere[:, :, ~own & far] += 100
    seen, other = (_masked(part, z, *place) for part in (images, elsewhere))
    assert seen.shape == (1, 128, 128)
    torch.testing.assert_close(seen, other, atol=1e-4, rtol=0)
    elsewhere[:, :, own & far] += noise(1, 256, int((own & far).sum()), seed=2)
    assert (_masked(elsewhere, z, *place) - seen).abs().max() > 0.5


def test_where_all_is_alike_nothing_is_hidden():
    images = noise(1, 200, 240)
    window = _masked(images, torch.zeros(1, 2, 50, 60), 25, 30)
    expected = images[:, 4 * 9 : 4 * 9 + 128, 4 * 14 : 4 * 14 + 128]
    torch.testing.assert_close(window, expected - expected.mean(), atol=1e-5, rtol=0)


def test_beyond_a_small_image_there_is_nothing():
    window = _masked(noise(1, 80, 200), torch.zeros(1, 2, 24, 56), 10, 25)
    assert window.shape == (1, 128, 128)
    assert window[:, :80].abs().mean() > 0.5
    assert (window[:, 80:] == 0).all()


# ------------------------------------------------------------------------ what pixels make of it


def read_by_side(places, column=24, log_variance=0.0):
    """Outputs that say 1 left of a column of squares and -1 right of it."""
    read = torch.zeros(1, len(places[0]), len(places[1]), 3)
    read[..., 0] = torch.as_tensor(np.where(places[1] < column, 1.0, -1.0))
    read[..., 1], read[..., 2] = log_variance, -4
    return read


def test_a_pixel_takes_the_readings_of_its_own_region():
    places = [_places(256)] * 2
    result = _spread(read_by_side(places, log_variance=-1.0), halves(), places)
    assert result.shape == (1, 3, 64, 64)
    torch.testing.assert_close(result[0, 0, :, :23], torch.ones(64, 23), atol=1e-3, rtol=0)
    torch.testing.assert_close(result[0, 0, :, 25:], -torch.ones(64, 39), atol=1e-3, rtol=0)
    torch.testing.assert_close(result[0, 1], torch.full((64, 64), -1.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(result[0, 2], torch.full((64, 64), -4.0), atol=1e-3, rtol=0)
    smooth = _spread(read_by_side(places), halves(apart=0.0), places)[0, 0, 30]
    assert (smooth.diff() <= 1e-6).all() and smooth[20] - smooth[28] < 1  # distance alone counts


def test_sure_and_valid_readings_count_more():
    places = [_places(256)] * 2
    for entry, value in ((1, 6.0), (2, 8.0)):
        read = read_by_side(places)
        read[..., entry] += value * (read[..., 0] < 0)
        result = _spread(read, halves(apart=0.0), places)[0, 0, 30]
        assert result[30] > 0.8  # on the side of those that say -1


def test_neighbours_cover_an_image():
    places = _places(250)
    indices, logs = _neighbours(places, 64)
    assert (np.diff(places) == 12).all() and places[0] <= 12 and 63 - places[-1] <= 12
    nearest = np.abs(np.arange(64)[:, None] - places).argmin(1)
    np.testing.assert_array_equal(indices[2], nearest)
    assert (logs[2] >= np.max(logs, 0)).all()
    assert (logs[0][:10] < -1e3).all()  # beyond the border there is no place


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
    assert network.backbone.fc_again.weight.grad.abs().sum() > 0
    assert network.backbone.alike.weight.grad.abs().sum() > 0
    network.eval()
    with torch.inference_mode():
        assert network(noise(2, 128, 128)).shape == (2, 7, 32, 32)


class Texture(nn.Module):
    """Reads how rough a window is, whatever its mask hides."""

    n_features = 1

    def read(self, x):
        rough = x.diff(dim=-1).square().mean((-3, -2, -1)) / x.square().mean((-3, -2, -1))
        outputs = torch.stack([rough, torch.full_like(rough, -2), torch.full_like(rough, -5)], 1)
        return outputs, outputs[:, :1]

    def forward(self, x):
        return self.read(x)[0]


def test_a_blurred_region_beside_a_sharp_one_is_read_as_blurred():
    network = RegionUNet(3, Texture(), 64, (8, 8, 8), (1, 1, 1), n_coordinates=2).eval()
    image = noise(1, 1, 256, 256)
    soft = nn.functional.avg_pool2d(image, 7, 1, 3)
    image[..., 128:] = soft[..., 128:] / soft.std()
    mask = torch.zeros(1, 2, 64, 64)
    mask[:, 0, :, 32:] = 6.0
    with torch.inference_mode():
        network.alike = nn.Identity()
        network.see = lambda x, images: (torch.cat([mask, torch.zeros(1, 6, 64, 64)], 1),
                                         torch.zeros(1, 3, 64, 64))  # fmt: skip
        network.down_again[0] = nn.Conv2d(6 + 8 + 8, 64, 3, 2, 1)
        read = network(image, image)[0, 0]
    rough, smooth = read[:, 24:31].mean(), read[:, 33:40].mean()
    assert rough > 1.8 and smooth < 0.5
