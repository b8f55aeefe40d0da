"""What a network for patches reads in the overlapping windows of whole images."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .compact import Compact
from .reading import linear_weights
from .spectra import normalize_patches

__all__ = ["WINDOW", "WindowReadings"]

WINDOW = 128  # pixels
_SLOPE = 1 / 200  # by which encodings, of standard deviation 1, may change over a pixel
_CHUNK = 64  # windows at a time: bounds the memory of their spectra


class WindowReadings(nn.Module):
    """Readings of overlapping windows, brought together at each place.

    A plane is fitted to the encodings around a place, each weighted by the precision of its window,
    the probability that it is valid, and a Gaussian of its distance, three quarters of the stride
    wide. Readings of one motion or focus gain by the mean, windows across a border, which are
    unsure, have little say, and a tilt goes on up to the border of the image. Features are
    interpolated bilinearly.

    A reader learns most from patches of one blur, many of which take the time of one image; one
    that has done so is frozen here.

    Parameters
    ----------
    reader : Compact
        Reads patches of 128 pixels.
    stride : int
        Pixels from one window to the next; the last ones end at the border.
    cell : int
        Pixels of the image per pixel of the result.

    Examples
    --------
    >>> readings = WindowReadings(Compact(3), stride=64)
    >>> readings(torch.rand(1, 1, 157, 250), (10, 16)).shape
    torch.Size([1, 195, 10, 16])
    """

    def __init__(self, reader: Compact, stride: int, cell: int = 16):
        super().__init__()
        self.reader, self.frozen = reader, False
        self.stride, self.cell = stride, cell

    def freeze(self):
        """Leave the reader as it is in trainings to come."""
        self.frozen = True
        self.reader.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True):
        """Set the mode of training, but for a frozen reader."""
        return super().train(mode and not self.frozen)

    def forward(self, images: torch.Tensor, cells: Sequence[int]) -> torch.Tensor:
        """Map images (n, 1, H, W) to outputs and features (n, channels, *cells).

        Smaller images than a window are continued by their last pixels.
        """
        missing = [max(0, WINDOW - n) for n in images.shape[-2:]]
        pads = [p for m in reversed(missing) for p in (m // 2, m - m // 2)]
        images = F.pad(images, pads, mode="replicate") if any(pads) else images
        starts = [_starts(n, self.stride) for n in images.shape[-2:]]
        windows = torch.stack(
            [images[:, 0, y : y + WINDOW, x : x + WINDOW] for y in starts[0] for x in starts[1]],
            1,
        )
        with torch.autocast(images.device.type, enabled=False):
            seen = torch.cat([self._read(some) for some in windows.flatten(0, 1).split(_CHUNK)])
        seen = seen.reshape(len(images), len(starts[0]), len(starts[1]), -1)
        n_outputs = seen.shape[-1] - self.reader.n_features
        outputs, features = seen[..., :n_outputs], seen[..., n_outputs:]
        width = 0.75 * self.stride
        weights = [
            [w.to(seen) for w in _weights(tuple(s), n, self.cell, m // 2, width)]
            for s, n, m in zip(starts, cells, missing, strict=True)
        ]
        between = _apply(weights[0][3], weights[1][3], features)
        return torch.cat([_fit_planes(outputs, *weights, 1 / (_SLOPE * width) ** 2), between], 1)

    def _read(self, windows):
        x = normalize_patches(windows).contiguous(memory_format=torch.channels_last)
        return torch.cat(self.reader.read(x), 1)


def _apply(down, across, x):
    return torch.einsum("hy,nyxc,wx->nchw", down, x, across)


def _fit_planes(outputs, down, across, ridge):
    """Bring outputs (n, gy, gx, 2 E + 1) together as the means, variances and validity they are.

    `down` and `across` hold the moments of order 0, 1 and 2 of the distances of windows, `ridge` is
    the precision with which slopes are expected to be 0.
    """
    n_encoded = (outputs.shape[-1] - 1) // 2
    mean, log_variance = outputs[..., :n_encoded], outputs[..., n_encoded:-1].clamp(-12, 6)
    valid = torch.sigmoid(-outputs[..., -1:]).clamp(min=1e-6)
    precision = valid * torch.exp(-log_variance)

    def moment(i, j, x):
        return _apply(down[i], across[j], x)

    total, y, x = (moment(i, j, precision) for i, j in ((0, 0), (1, 0), (0, 1)))
    yy, xy, xx = (moment(i, j, precision) for i, j in ((2, 0), (1, 1), (0, 2)))
    sums = [moment(i, j, precision * mean) for i, j in ((0, 0), (1, 0), (0, 1))]
    rows = ((total, y, x), (y, yy + ridge, xy), (x, xy, xx + ridge))
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
    inverse = torch.linalg.inv(matrix)[..., 0, :]
    fitted = (inverse * torch.stack(sums, -1)).sum(-1)
    # Windows err together: the variance is that of one, more beyond the outermost ones.
    variance = inverse[..., 0] * moment(0, 0, valid)
    return torch.cat([fitted, variance.log(), moment(0, 0, outputs[..., -1:])], 1)


def _starts(n: int, stride: int) -> list[int]:
    return sorted({*range(0, n - WINDOW + 1, stride), n - WINDOW})


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is cached must also serve a training
def _weights(starts, n_cells: int, cell: int, shift: int, width: float) -> tuple[torch.Tensor, ...]:
    """Weights (n_cells, windows): moments of order 0, 1, 2, and those of an interpolation.

    Distances count from each place; what is near, beyond the outermost centres, counts from these.
    """
    centres = np.array(starts) + (WINDOW - 1) / 2 - shift
    at = cell * np.arange(n_cells) + (cell - 1) / 2
    inside = at.clip(centres[0], centres[-1])
    near = np.exp(-(((inside[:, None] - centres) / width) ** 2) / 2)
    near /= near.sum(1, keepdims=True)
    distance = (centres - at[:, None]) / width
    parts = (near, near * distance, near * distance**2, linear_weights(centres, at))
    return tuple(torch.as_tensor(w, dtype=torch.float32) for w in parts)
