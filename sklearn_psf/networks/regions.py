"""A U-Net that reads an image twice: the second time with what moves alike kept apart."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..operators import apply_masks
from .spectra import normalize_patches
from .unet import Block, ResidualUNet, conv
from .windows import WINDOW

__all__ = ["RegionUNet", "alike_loss"]

_STRIDE = 4  # pixels per square of the maps
_SPACING = 12  # squares between two places that are read again
_NEAR = 0.8  # of the spacing: the width of a place's weight
_REACH = 2  # places to each side that add to a pixel
_SOFT = 5  # squares over which a mask is smoothed
_CHUNK = 64  # windows at a time: bounds the memory of their spectra
_TOLERANCE = 0.5  # standard deviations between encodings that still are alike
# Squares between the pairs that teach what is alike: all directions, up to half a window.
_SHIFTS = [
    (round(radius * math.sin(angle)), round(radius * math.cos(angle)))
    for radius, n in ((3, 4), (7, 6), (11, 6), (16, 6))
    for angle in math.pi * np.arange(n) / n
]
_LEAST = 1e-4


class RegionUNet(ResidualUNet):
    """A `ResidualUNet` whose windows are read again, each without what moves otherwise.

    A window across a border shows two blurs, and the sharper one prevails. Convolutions see where
    such borders are: their coordinates z give the likeness ``exp(-|z_p - z_q|^2)`` of two pixels. A
    window around each of a grid of places is masked by the likeness to that place and read again,
    and each pixel takes the mean of what was read at the places around, weighted by likeness,
    distance and precision. Last convolutions correct that.

    Parameters
    ----------
    n_outputs, reader, window_stride, widths, n_blocks, binning
        As of `ResidualUNet`; without binning.
    n_coordinates : int
        Coordinates of likeness.
    """

    # what weights of a `ResidualUNet` do not have
    added = ("alike.", "down_again.", "blocks_again.", "up_again.", "fc_again.")

    def __init__(
        self, n_outputs, reader, window_stride, widths, n_blocks, binning=1, n_coordinates=16
    ):
        super().__init__(n_outputs, reader, window_stride, widths, n_blocks, binning)
        first, wide = widths[0], 64
        self.alike = nn.Conv2d(first, n_coordinates, 1)
        self.down_again = conv(2 * n_outputs + n_coordinates + first, wide, stride=2)
        self.blocks_again = nn.Sequential(conv(wide, wide, stride=2), Block(wide), Block(wide))
        self.up_again = conv(2 * wide, wide)
        self.fc_again = nn.Conv2d(wide, n_outputs, 1)
        nn.init.zeros_(self.fc_again.weight)
        nn.init.zeros_(self.fc_again.bias)

    def forward(self, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Map images to outputs at stride 4, those of the first reading, and coordinates."""
        y, readings = self.see(x, images)
        first = self.fc(y).float() + readings
        z = self.alike(y).float()
        with torch.autocast(images.device.type, enabled=False):
            places = [_places(n) for n in images.shape[-2:]]
            # What is alike is learned from the truth: a gradient through the reader is costly.
            read = self._read_again(images[:, 0], z.detach(), places)
            second = _spread(read, z, places)
        deep = self.down_again(torch.cat([first, second, z, y.float()], 1))
        deeper = self.blocks_again(deep)
        deeper = F.interpolate(deeper, scale_factor=2, mode="bilinear", align_corners=False)
        deep = self.up_again(torch.cat([deep, deeper], 1))
        change = F.interpolate(
            self.fc_again(deep).float(), scale_factor=2, mode="bilinear", align_corners=False
        )
        return torch.cat([second + change, first, z], 1)

    def _read_again(self, images, z, places):
        """Outputs (n, gy, gx, C) of windows, masked by likeness to the place in each."""
        windows = [_masked(images, z, row, column) for row in places[0] for column in places[1]]
        x = torch.stack(windows, 1)
        x = normalize_patches(x.flatten(0, 1))
        seen = [
            self.windows.reader(part.contiguous(memory_format=torch.channels_last))
            for part in x.split(_CHUNK)
        ]
        return torch.cat(seen).reshape(len(images), len(places[0]), len(places[1]), -1)


def _places(n: int) -> np.ndarray:
    """Squares, by their index, along a side of n pixels; a lattice that begins with the image."""
    return np.arange(_SPACING // 2, -(-n // _STRIDE), _SPACING)


def _masked(images, z, row, column):
    """Windows (n, WINDOW, WINDOW) around a place; a mask hides what is beyond the image too."""
    side = WINDOW // _STRIDE
    starts = [
        max(0, min(at - side // 2, (n - WINDOW) // _STRIDE))
        for at, n in zip((row, column), images.shape[-2:], strict=True)
    ]
    squares = tuple(slice(start, start + side) for start in starts)
    pixels = tuple(slice(_STRIDE * start, _STRIDE * start + WINDOW) for start in starts)
    around = z[..., max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    here = around.mean((-2, -1), keepdim=True)
    likeness = torch.exp(-(z[:, :, *squares] - here).square().sum(1, keepdim=True))
    likeness = F.avg_pool2d(likeness, _SOFT, 1, _SOFT // 2, count_include_pad=False)
    masks = F.interpolate(likeness, scale_factor=_STRIDE, mode="bilinear", align_corners=False)
    windows = images[:, *pixels]
    masks = masks[:, 0, : windows.shape[1], : windows.shape[2]]
    missing = [WINDOW - n for n in windows.shape[1:]]
    return F.pad(apply_masks(windows, masks), (0, missing[1], 0, missing[0]))


def _spread(read, z, places):
    """Bring outputs (n, gy, gx, 2 E + 1) at places to all squares (n, 2 E + 1, h, w) of z."""
    near = [_neighbours(at, n) for at, n in zip(places, z.shape[-2:], strict=True)]
    here = F.avg_pool2d(z, 3, 1, 1, count_include_pad=False)
    here = here[:, :, places[0][:, None], places[1]]
    n_encoded = (read.shape[-1] - 1) // 2
    mean, log_variance, logit = read.movedim(-1, 1).split([n_encoded, n_encoded, 1], 1)
    precision = torch.exp(-log_variance.clamp(-12, 6))
    logit = logit.clamp(-12, 12)
    options, weights = [], []
    for rows, down in zip(*near[0], strict=True):
        for columns, across in zip(*near[1], strict=True):
            at = (slice(None), slice(None), rows[:, None], columns)
            closeness = torch.as_tensor(down[:, None] + across).to(z)
            options.append(at)
            weights.append(closeness - (z - here[at]).square().sum(1))
    weights = torch.stack(weights, 1).softmax(1)
    total = sums = valid = spread_logit = 0
    for at, weight in zip(options, weights.split(1, 1), strict=True):
        sure = weight * torch.sigmoid(-logit[at]).clamp(min=_LEAST)
        valid = valid + sure
        total = total + sure * precision[at]
        sums = sums + sure * precision[at] * mean[at]
        spread_logit = spread_logit + weight * logit[at]
    # Windows of one texture err together: the variance is that of one of them.
    return torch.cat([sums / total, (valid / total).log(), spread_logit], 1)


def _neighbours(places, n_squares):
    """Indices of the places around each square, and the logarithms of their weights."""
    squares = np.arange(n_squares)
    nearest = np.abs(squares[:, None] - places).argmin(1)
    indices, logs = [], []
    for step in range(-_REACH, _REACH + 1):
        index = nearest + step
        inside = (index >= 0) & (index < len(places))
        index = index.clip(0, len(places) - 1)
        distance = (places[index] - squares) / (_NEAR * _SPACING)
        indices.append(index)
        logs.append(np.where(inside, -(distance**2) / 2, -1e4))
    return indices, logs


def alike_loss(z: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the likeness that coordinates say and that of the truth.

    Parameters
    ----------
    z : Tensor of shape (n, k, h, w)
        Coordinates, one per square of 4 pixels.
    targets : Tensor of shape (n, h, w, E)
        Standardised encodings; NaN is left out.

    Returns
    -------
    Tensor
        Mean over pairs of squares at most half a window apart.

    Examples
    --------
    >>> truth = torch.zeros(1, 40, 40, 1)
    >>> truth[:, 20:] = 3.0
    >>> far, near = (alike_loss(k * truth.movedim(-1, 1), truth) for k in (1.0, 0.1))
    >>> bool(far < near)
    True
    """
    truth = targets.movedim(-1, 1)
    losses, count = 0.0, 0
    for down, across in _SHIFTS:
        pairs = [_shifted(part, down, across) for part in (z, truth)]
        distance, difference = ((a - b).square().sum(1) for a, b in pairs)
        valid = ~torch.isnan(difference)
        if not valid.any():
            continue
        likeness = torch.exp(-difference[valid] / (2 * _TOLERANCE**2))
        said = torch.exp(-distance[valid]).clamp(_LEAST, 1 - _LEAST)
        losses = losses + F.binary_cross_entropy(said, likeness, reduction="sum")
        count += int(valid.sum())
    return losses / max(1, count)


def _shifted(part, down, across):
    """A map and the same moved, where they overlap."""
    h, w = part.shape[-2:]
    a = part[..., max(0, down) : h + min(0, down), max(0, across) : w + min(0, across)]
    b = part[..., max(0, -down) : h + min(0, -down), max(0, -across) : w + min(0, -across)]
    return a, b
