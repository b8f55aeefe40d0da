"""Tests of the readings of windows of whole images."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_psf.networks.windows import WINDOW, WindowReadings


class Position(nn.Module):
    """Reads how much more there is in the middle of a window than around it, surely and validly."""

    n_features = 1

    def read(self, x):
        middle = x[..., 56:72, 56:72].mean((-3, -2, -1))[:, None]
        outputs = torch.cat([middle, torch.zeros_like(middle), torch.full_like(middle, -5)], 1)
        return outputs, x.std((-3, -2, -1))[:, None]


def spot(row, column, shape=(320, 320)):
    image = torch.zeros(1, 1, *shape)
    image[..., row - 8 : row + 8, column - 8 : column + 8] = 1
    return image


@pytest.mark.parametrize(("row", "column"), [(128, 192), (160, 160), (192, 128)])
def test_a_reading_stands_where_its_window_has_its_centre(row, column):
    readings = WindowReadings(Position(), stride=32)(spot(row, column), (20, 20))
    assert readings.shape == (1, 4, 20, 20)
    weight = (readings[0, 0] > 0.5 * readings[0, 0].max()).float()
    for axis, centre in enumerate((row, column)):
        along = weight.sum(1 - axis)
        at = 16 * torch.arange(len(along)) + 8.0
        assert abs(float((along * at).sum() / along.sum()) - centre) < 1


class Ramp(Position):
    """Reads 0, 1, 2 ... times a slope, window after window."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def read(self, x):
        outputs = torch.zeros(len(x), 3)
        outputs[:, 0] = self.slope * torch.arange(len(x))
        outputs[:, 1], outputs[:, 2] = -6, -9
        return outputs, outputs[:, :1].clone()


def test_a_tilt_goes_on_up_to_the_border():
    """Planes are fitted; features, which are not, keep their outermost value."""
    readings = WindowReadings(Ramp(0.1), stride=32)(torch.randn(1, 1, 320, 128), (20, 8))
    readings = readings[0, :, :, 4]
    mean, spread, feature = readings[0], readings[1].exp(), readings[3]
    at = 16 * torch.arange(20) + 7.5
    torch.testing.assert_close(mean, 0.1 * (at - 63.5) / 32, atol=0.07, rtol=0)
    assert spread[0] > 2 * spread[10]
    assert feature[0] == 0 and abs(feature[-1] - 0.6) < 1e-6


class Shares(Position):
    """Reads the brighter half of an image as 1 and the darker as 0, as surely as it is told."""

    def __init__(self, log_variance, logit):
        super().__init__()
        self.log_variance, self.logit = log_variance, logit

    def read(self, x):
        n = len(x) // 2
        outputs = torch.zeros(len(x), 3)
        outputs[n:] = torch.tensor([1.0, self.log_variance, self.logit])
        return outputs, torch.zeros(len(x), 1)


@pytest.mark.parametrize(
    ("log_variance", "logit", "share"),
    [(0.0, 0.0, 0.5), (np.log(9), 0.0, 0.1), (0.0, 20.0, 0.0)],
)
def test_unsure_and_invalid_windows_have_little_say(log_variance, logit, share):
    """Half way between a window that reads 0 and one that reads 1."""
    readings = WindowReadings(Shares(log_variance, logit), stride=128, cell=64)
    mean, spread = readings(torch.randn(1, 1, 256, 128), (4, 2))[0, :2, :, 0]
    # two windows, at 64 and 192 pixels; cells at 32, 96, 160 and 224
    odds = (mean[1:3] / (1 - mean[1:3])).prod().sqrt()
    assert abs(float(odds / (1 + odds)) - share) < 0.01
    assert mean[1] < mean[2] or share == 0
    assert (spread >= -1e-3).all() and (spread <= log_variance + 0.1).all()


def test_last_windows_end_at_the_border():
    calls = []

    class Count(Position):
        def read(self, x):
            calls.append(len(x))
            return super().read(x)

    WindowReadings(Count(), stride=96)(torch.randn(1, 1, 288, 128), (18, 8))
    assert calls == [3]  # at rows 0, 96 and 160


def test_windows_are_normalised_and_small_images_are_continued():
    x = torch.randn(2, 1, 64, 96)
    module = WindowReadings(Position(), stride=32, cell=32)
    one, other = module(x, (2, 3)), module(50 + 7 * x, (2, 3))
    assert one.shape == (2, 4, 2, 3)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    torch.testing.assert_close(one[:, 3], torch.ones(2, 2, 3), atol=0.01, rtol=0)
    assert WINDOW == 128


def test_a_frozen_reader_stays_in_evaluation_mode():
    module = WindowReadings(nn.Sequential(nn.BatchNorm1d(3)), stride=32)
    assert module.train().reader.training
    module.freeze()
    assert not module.train().reader.training
    assert not any(p.requires_grad for p in module.parameters())
