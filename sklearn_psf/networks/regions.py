"""A U-Net that reads an image twice: the second time with what moves alike kept apart."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..operators import FADE, apply_masks, keep_apart
from .polar_reader import PolarReader
from .spectra import normalize_parts, normalize_patches
from .unet import ResidualUNet
from .walks import reachability
from .windows import WINDOW

__all__ = ["WIDE_WINDOW", "RegionUNet", "alike_loss"]

WIDE_WINDOW = 256  # pixels
_STRIDE = 4  # pixels per square of the maps
_SPACING = 16  # squares between two places that are read again
_NEAR = 0.8  # of the spacing: the width of a place's weight
_CLOSE = 24  # pixels
_REACH = 2  # places to each side that add to a pixel
_AWAY = 2  # squares by which masks keep away from borders, where both motions mix
_LEAST_LEFT = 0.05  # of a window: a region that would become smaller is taken up to its border
_SOFT = 5  # squares over which a mask is smoothed
_CHUNK = 16  # windows at a time: few enough for the caches of a processor
_FIRST = 0.4  # of what precision says, for a reading that takes several motions for one
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
    such borders are: their coordinates z differ across them, and a random walk that borders hold up
    tells which squares belong to a place. Around each of a grid of places, what belongs to it is
    read twice: in a window by the reader of windows, and in a wide one by a second reader, beside
    the rest of that window. Each pixel takes the mean of what was read at the places around,
    weighted by how it is reached from there, by distance and by precision; and of both readings and
    the first one, which counts less, the mean, weighted by precision: they err in different ways.

    Parameters
    ----------
    n_outputs, reader, window_stride, widths, n_blocks, binning
        As of `ResidualUNet`; without binning.
    n_coordinates : int
        Coordinates z.
    """

    added = ("alike.", "again.")  # what weights of a `ResidualUNet` do not have

    def __init__(
        self, n_outputs, reader, window_stride, widths, n_blocks, binning=1, n_coordinates=16
    ):
        super().__init__(n_outputs, reader, window_stride, widths, n_blocks, binning)
        self.alike = nn.Conv2d(widths[0], n_coordinates, 1)
        self.again, self.frozen = PolarReader(n_outputs), False

    def freeze(self, again: bool = False):
        """Leave the reader of windows, and with `again` the second one, as they are."""
        super().freeze()
        if again:
            self.frozen = True
            self.again.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True):
        """Set the mode of training, but for a frozen reader."""
        super().train(mode)
        self.again.train(mode and not self.frozen)
        return self

    def forward(self, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Map images to outputs at stride 4, those of the first reading, and coordinates."""
        y, readings = self.see(x, images)
        first = self.fc(y).float() + readings
        z = self.alike(y).float()
        if self.training and self.frozen:  # there is nothing to learn from a second reading
            return torch.cat([first, first, z], 1)
        with torch.autocast(images.device.type, enabled=False):
            second = self._read_again(images[:, 0], z.detach(), first.shape)
            joined = _join([first[:, :-1], *second], (_FIRST, 1, 1))
        # Where there is texture, pixels tell better than large windows.
        return torch.cat([joined, first[:, -1:], first, z], 1)

    def find_parts(self, x, images, places):
        """What moves as places do, and what is beside it, in wide windows around them.

        Parameters
        ----------
        x, images : Tensor of shape (n, 1, H, W)
            As of `forward`.
        places : list of (row, column)
            Squares.

        Returns
        -------
        Tensor of shape (n len(places), 5, 256, 256)
            As of `keep_apart`, and how close the place is: of all images around the first place,
            and so on.
        """
        z = self.alike(self.see(x, images)[0]).float()
        return _take_apart(images[:, 0], z, places)[2]

    def _read_again(self, images, z, shape):
        """Means and log variances (n, 2 E, h, w) by the windows around places, near and wide."""
        lattice = [_places(n) for n in images.shape[1:]]
        places = [(row, column) for row in lattice[0] for column in lattice[1]]
        n, n_encoded = len(images), (shape[1] - 1) // 2
        sums = [[images.new_zeros(n, n_encoded, *shape[2:]) for _ in range(3)] for _ in range(2)]
        step = max(1, _CHUNK // n)
        for start in range(0, len(places), step):
            some = places[start : start + step]
            wide, likeness, parts = _take_apart(images, z, some)
            near = _Windows.around(some, WINDOW, images.shape[1:])
            mask = near.mask(near.cut_from(likeness, wide))
            x = normalize_patches(_padded(apply_masks(near.cut(images), mask), WINDOW))
            read = (
                self.windows.reader(x.contiguous(memory_format=torch.channels_last)),
                self.again(normalize_parts(parts)),
            )
            for total, outputs in zip(sums, read, strict=True):
                _add(total, some, wide, likeness, outputs)
        # Windows of one texture err together: the variance is that of one of them.
        return [torch.cat([m / total, (valid / total).log()], 1) for total, valid, m in sums]


def _places(n: int) -> list[int]:
    """Squares, by their index, along a side of n pixels; a lattice that begins with the image."""
    return list(range(_SPACING // 2, -(-n // _STRIDE), _SPACING))


def _take_apart(images, z, places):
    """Wide windows around places, how squares are reached from there, and the parts of windows."""
    wide = _Windows.around(places, WIDE_WINDOW, images.shape[1:])
    at = torch.tensor(places) - torch.tensor(wide.starts)
    likeness = reachability(wide.cut(z, _STRIDE), at.repeat_interleave(len(images), 0))
    own, rest = (wide.mask(mask) for mask in (likeness, 1 - likeness))
    parts = _padded(keep_apart(wide.cut(images), own, rest), WIDE_WINDOW)
    pixel = torch.arange(WIDE_WINDOW, device=images.device) + 0.5
    steps = (pixel - _STRIDE * (at[..., None].to(pixel) + 0.5)) / _CLOSE
    down, across = torch.exp(-steps.square() / 2).repeat_interleave(len(images), 0).unbind(1)
    closeness = down[:, :, None] * across[:, None]
    return wide, likeness, torch.cat([parts, closeness[:, None]], 1)


class _Windows(NamedTuple):
    """Windows of one size; they reach less than a square beyond the image."""

    starts: list[tuple[int, int]]  # squares
    sides: tuple[int, int]  # squares: of a window, or of a smaller image
    shape: tuple[int, int]  # pixels of the image
    size: int  # pixels that a window should have

    @classmethod
    def around(cls, places, size, shape):
        """Windows around places, shifted where the image ends."""
        squares = [-(-n // _STRIDE) for n in shape]
        sides = tuple(min(size // _STRIDE, n) for n in squares)
        starts = [
            tuple(
                max(0, min(at - size // (2 * _STRIDE), n - side))
                for at, n, side in zip(place, squares, sides, strict=True)
            )
            for place in places
        ]
        return cls(starts, sides, tuple(shape), size)

    def cut(self, maps, stride=1):
        """Windows of maps with that many pixels per element, the first of all maps, and so on."""
        factor = _STRIDE // stride
        sizes = [factor * side for side in self.sides]
        missing = [
            max(0, factor * max(s[k] for s in self.starts) + sizes[k] - maps.shape[k - 2])
            for k in range(2)
        ]
        maps = F.pad(maps, (0, missing[1], 0, missing[0])) if any(missing) else maps
        return torch.cat(
            [
                maps[..., factor * y : factor * y + sizes[0], factor * x : factor * x + sizes[1]]
                for y, x in self.starts
            ]
        )

    def cut_from(self, likeness, wide):
        """Windows (n, h, w) of what is known of wider ones around the same places."""
        parts = likeness.split(len(likeness) // len(self.starts))
        inner = zip(self.starts, wide.starts, parts, strict=True)
        height, width = self.sides
        return torch.cat(
            [
                part[:, y - top : y - top + height, x - left : x - left + width]
                for (y, x), (top, left), part in inner
            ]
        )

    def mask(self, likeness):
        """Soft masks of pixels that keep away from borders, and fade where the image ends."""
        mask = likeness = likeness[:, None]
        for away in (_AWAY // 2, _AWAY):
            smaller = -F.max_pool2d(-likeness, 2 * away + 1, 1, away)
            enough = smaller.mean((-2, -1), keepdim=True) > _LEAST_LEFT
            mask = torch.where(enough, smaller, mask)
        mask = F.avg_pool2d(mask, _SOFT, 1, _SOFT // 2, count_include_pad=False)
        mask = F.interpolate(mask, scale_factor=_STRIDE, mode="bilinear", align_corners=False)
        fade = [self._fade(k, mask.device) for k in range(2)]
        inside = fade[0][:, :, None] * fade[1][:, None]
        return mask[:, 0] * inside.repeat_interleave(len(mask) // len(inside), 0)

    def _fade(self, axis, device):
        n, length = self.shape[axis], _STRIDE * self.sides[axis]
        first = _STRIDE * torch.tensor([start[axis] for start in self.starts], device=device)
        left = n - first[:, None] - torch.arange(length, device=device)
        ends = (left[:, -1:] < 1) if length == self.size else torch.ones_like(left, dtype=bool)
        return torch.where(ends, (left / FADE).clamp(0, 1), 1.0)


def _padded(parts, size):
    height, width = parts.shape[-2:]
    return F.pad(parts, (0, size - width, 0, size - height))


def _add(sums, places, windows, likeness, outputs):
    """Add the outputs (n, 2 E + 1) at places to the sums of weighted ones around them."""
    n = len(outputs) // len(places)
    n_encoded = (outputs.shape[1] - 1) // 2
    mean, log_variance, logit = outputs[..., None, None].split([n_encoded, n_encoded, 1], 1)
    valid = torch.sigmoid(-logit.clamp(-12, 12)).clamp(min=_LEAST)
    precision = valid * torch.exp(-log_variance.clamp(-12, 6))
    values = zip(
        *(part.split(n) for part in (precision, valid, precision * mean, likeness)), strict=True
    )
    for place, start, (*parts, alike) in zip(places, windows.starts, values, strict=True):
        squares, closeness = [], []
        for at, first, side, limit in zip(
            place, start, windows.sides, sums[0].shape[2:], strict=True
        ):
            squares.append(slice(first, min(first + side, limit)))
            steps = torch.arange(squares[-1].stop - first, device=outputs.device) + first - at
            near = torch.exp(-((steps / (_NEAR * _SPACING)) ** 2) / 2)
            closeness.append(near * (steps.abs() <= (_REACH + 0.5) * _SPACING))
        weight = (closeness[0][:, None] * closeness[1] * alike.clamp(min=_LEAST))[:, None]
        for total, part in zip(sums, parts, strict=True):
            total[..., *squares] += weight * part


def _join(readings, counts):
    """Mean of readings (n, 2 E, h, w) by precision, of which each counts a share.

    Their variance is the harmonic mean of what these shares of precision leave.
    """
    means, logs = zip(*(reading.chunk(2, 1) for reading in readings), strict=True)
    precisions = [
        count * torch.exp(-log.clamp(-12, 6)) for count, log in zip(counts, logs, strict=True)
    ]
    total = sum(precisions)
    mean = sum(p * m for p, m in zip(precisions, means, strict=True)) / total
    return torch.cat([mean, (len(readings) / total).log()], 1)


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
