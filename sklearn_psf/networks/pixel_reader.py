"""Convolutions over the pixels of a patch, or of a part of it, turned into a given frame."""

import torch
from torch import nn
from torch.nn import functional as F

from .unet import Block, conv

__all__ = ["COARSE", "N_FEATURES", "PixelReader", "rotation", "squared"]

N_FEATURES = 256  # that are found
COARSE = 8  # pixels along a side of what a map says
_CELL = 32  # pixels behind a feature, along a side
_SCALES = (2, 8)  # pairs of pixels over which detail is taken from what is around it
_N_CLOSE = 32  # features of what is around a place
_FAINT = 1e-5  # of the variance of a patch: detail that is not amplified further
_STRONGEST = 4.0  # standard deviations
_LEAST = 0.02  # of a neighbourhood
_MOSTLY = 0.2  # of a cell


def squared(x: torch.Tensor) -> torch.Tensor:
    """Pad patches to a square whose side is a multiple of 32.

    Parameters
    ----------
    x : Tensor of shape (..., H, W)
        Normalised patches, or maps of them.

    Returns
    -------
    Tensor of shape (..., S, S)
        0 where nothing is.
    """
    height, width = x.shape[-2:]
    side = -(-max(height, width) // _CELL) * _CELL
    return F.pad(x, (0, side - width, 0, side - height))


def rotation(angle: torch.Tensor) -> torch.Tensor:
    """Matrices (n, 2, 2) that turn (x, y) by angles (n,), from the x axis towards the y axis."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)


class PixelReader(nn.Module):
    """Features of pixels, in a frame: there, blur has always the same direction.

    A spectrum adds up all of a patch, its noise too; convolutions find the few edges and spots that
    tell most. They see a part of a patch binned by 2 as it is, its detail at two scales divided by
    the local contrast, and the mask that shows the part; and what binning leaves out, divided by
    the contrast of the finer one. They need not learn every blur in every direction if patches are
    turned into the frame of their blur before. Features are gathered over all of the part, and
    around one place in it: where motion varies, that is the one which is asked for.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/4, 1/8, 1/16 and 1/32 of the resolution of the patch.
    most : int
        Channels between the two convolutions of a block, at most.
    """

    def __init__(self, widths=(32, 64, 128, 256), most=196):
        super().__init__()
        first, *rest = widths
        deeper = zip([2 * first, *rest], rest, strict=False)
        self.binned = conv(4 * (2 + len(_SCALES)) + 1, first)
        self.fine = conv(16, first)
        self.layers = nn.Sequential(
            *(layer for a, b in deeper for layer in (conv(a, b, stride=2), Block(b, min(b, most))))
        )
        last = widths[-1]
        self.close = nn.Sequential(
            nn.Linear(last, _N_CLOSE, bias=False), nn.Linear(_N_CLOSE, N_FEATURES, bias=False)
        )
        self.features = nn.Linear(3 * last, N_FEATURES, bias=False)
        self.active = nn.Sequential(nn.BatchNorm1d(N_FEATURES), nn.ReLU(inplace=True))

    def forward(
        self, pixels: torch.Tensor, maps: torch.Tensor, frames: torch.Tensor
    ) -> torch.Tensor:
        """Return features (n, 256).

        Parameters
        ----------
        pixels : Tensor of shape (n, S, S)
            Of `squared`; masked.
        maps : Tensor of shape (n, 2, S / 8, S / 8)
            Masks, and how close the place is; binned by `COARSE`.
        frames : Tensor of shape (n, 2, 2)
            Columns: where the x and y axes of the frames lie in the patches, orthonormal.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            views, fine, closeness = _views(*_framed(pixels.float(), maps.float(), frames.float()))
        there = F.avg_pool2d(views[:, -1:], _CELL // 2)
        views = torch.cat([F.pixel_unshuffle(views, 2), closeness], 1)
        views, fine = (
            x.contiguous(memory_format=torch.channels_last)
            for x in (views, F.pixel_unshuffle(fine, 2))
        )
        found = self.layers(torch.cat([self.binned(views), self.fine(fine)], 1)).float()
        mean = _mean(found, there)
        variance = _mean((found - mean[..., None, None]).square(), there)
        largest = (found * (there > _MOSTLY)).amax((-2, -1))
        around = _mean(found, there * (F.avg_pool2d(closeness, _CELL // 4) + 1e-3))
        features = self.features(torch.cat([mean, (variance + 1e-4).sqrt(), largest], 1))
        return self.active(features + self.close(around - mean))


def _mean(x, weights):
    """Weighted mean (n, C) over what is there of (n, C, h, w)."""
    return (weights * x).sum((-2, -1)) / weights.sum((-2, -1)).clamp(min=1e-6)


def _framed(pixels, maps, frames):
    """Pixels, four by four (n, 4, S / 2, S / 2), and maps (n, 2, S / 2, S / 2) in their frames."""
    n, side = pixels.shape[:2]
    frames = F.pad(frames, (0, 1))
    grids = [F.affine_grid(frames, [n, 1, s, s], align_corners=False) for s in (side, side // 2)]
    fine = F.grid_sample(pixels[:, None], grids[0], mode="bicubic", align_corners=False)
    maps = F.interpolate(maps, scale_factor=COARSE // 2, mode="bilinear", align_corners=False)
    maps = F.grid_sample(maps, grids[1], mode="bilinear", align_corners=False)
    return F.pixel_unshuffle(fine, 2), maps


def _views(fine, maps):
    """What convolutions see of masked images.

    (n, 4, S / 2, S / 2) binned, (n, 4, S / 2, S / 2) what that leaves out, and how close the place
    is (n, 1, S / 4, S / 4).
    """
    x, masks = fine.mean(1, keepdim=True), maps[:, :1]
    views, contrasts = [x / 2], []
    for scale in _SCALES:
        detail = x - masks * _around(x, masks, scale)
        contrast = (_around(detail.square(), masks.square(), 2 * scale) + _FAINT).sqrt()
        contrasts.append(contrast)
        views.append((detail / contrast).clamp(-_STRONGEST, _STRONGEST))
    left_out = ((fine - x) / contrasts[0]).clamp(-_STRONGEST, _STRONGEST)
    return torch.cat([*views, masks], 1), left_out, F.avg_pool2d(maps[:, 1:], 2)


def _around(x, masks, scale):
    """Smooth local mean of masked images, without their masks."""
    both = F.avg_pool2d(torch.cat([x, masks], 1), scale)
    both = F.avg_pool2d(F.pad(both, (1, 1, 1, 1), mode="replicate"), 3, 1)
    both = F.interpolate(both, x.shape[-2:], mode="bilinear", align_corners=False)
    return both[:, :1] / both[:, 1:].clamp(min=_LEAST)
