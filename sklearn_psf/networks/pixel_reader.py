"""Convolutions over the pixels of a patch, or of a part of it, turned into a given frame."""

import torch
from torch import nn
from torch.nn import functional as F

from .unet import Block, conv

__all__ = ["COARSE", "N_FEATURES", "PixelReader", "half_resolution", "rotation"]

N_FEATURES = 256  # that are found
COARSE = 4  # pixels of half resolution along a side of what a mask says
_CELL = 16  # pixels of half resolution behind a feature, along a side
_SCALES = (2, 8)  # pixels of half resolution over which detail is taken from what is around it
_FAINT = 1e-5  # of the variance of a patch: detail that is not amplified further
_STRONGEST = 4.0  # standard deviations
_LEAST = 0.02  # of a neighbourhood
_MOSTLY = 0.2  # of a cell


def half_resolution(x: torch.Tensor) -> torch.Tensor:
    """Bin patches by 2, and pad them to a square whose side is a multiple of 16.

    Parameters
    ----------
    x : Tensor of shape (n, H, W)
        Normalised patches.

    Returns
    -------
    Tensor of shape (n, S, S)
        0 where nothing is.
    """
    x = F.avg_pool2d(x[:, None], 2)[:, 0]
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
    tell most. They see a part of a patch as it is, its detail at two scales divided by the local
    contrast, and the mask that shows the part. They need not learn every blur in every direction
    if patches are turned into the frame of their blur before.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/4, 1/8, 1/16 and 1/32 of the resolution of the patch.
    most : int
        Channels between the two convolutions of a block, at most.
    """

    def __init__(self, widths=(32, 64, 128, 256), most=208):
        super().__init__()
        first, *rest = widths
        deeper = zip(widths, rest, strict=False)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            conv(4 * (2 + len(_SCALES)), first),
            *(layer for a, b in deeper for layer in (conv(a, b, stride=2), Block(b, min(b, most)))),
        )
        self.features = nn.Sequential(
            nn.Linear(3 * widths[-1], N_FEATURES, bias=False),
            nn.BatchNorm1d(N_FEATURES),
            nn.ReLU(inplace=True),
        )

    def forward(
        self, pixels: torch.Tensor, masks: torch.Tensor, frames: torch.Tensor
    ) -> torch.Tensor:
        """Return features (n, 256).

        Parameters
        ----------
        pixels : Tensor of shape (n, S, S)
            Of `half_resolution`; masked.
        masks : Tensor of shape (n, S / 4, S / 4)
            Of `half_resolution` too, binned by `COARSE`.
        frames : Tensor of shape (n, 2, 2)
            Columns: where the x and y axes of the frames lie in the patches, orthonormal.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            masks = F.interpolate(
                masks.float()[:, None], pixels.shape[-2:], mode="bilinear", align_corners=False
            )
            views = _views(*_framed(pixels.float()[:, None], masks, frames.float()))
        there = F.avg_pool2d(views[:, -1:], _CELL)
        found = self.layers(views.contiguous(memory_format=torch.channels_last)).float()
        weights = there / there.sum((-2, -1), keepdim=True).clamp(min=1e-3)
        mean = (weights * found).sum((-2, -1))
        variance = (weights * (found - mean[..., None, None]).square()).sum((-2, -1))
        largest = (found * (there > _MOSTLY)).amax((-2, -1))
        return self.features(torch.cat([mean, (variance + 1e-4).sqrt(), largest], 1))


def _framed(x, masks, frames):
    """Images and masks (n, 1, S, S) in their frames."""
    grid = F.affine_grid(F.pad(frames, (0, 1)), list(x.shape), align_corners=False)
    return (
        F.grid_sample(x, grid, mode="bicubic", align_corners=False),
        F.grid_sample(masks, grid, mode="bilinear", align_corners=False),
    )


def _views(x, masks):
    """What convolutions see of masked images (n, 4, S, S)."""
    views = [x / 2]
    for scale in _SCALES:
        detail = x - masks * _around(x, masks, scale)
        contrast = (_around(detail.square(), masks.square(), 2 * scale) + _FAINT).sqrt()
        views.append((detail / contrast).clamp(-_STRONGEST, _STRONGEST))
    return torch.cat([*views, masks], 1)


def _around(x, masks, scale):
    """Smooth local mean of masked images, without their masks."""
    both = F.avg_pool2d(torch.cat([x, masks], 1), scale)
    both = F.avg_pool2d(F.pad(both, (1, 1, 1, 1), mode="replicate"), 3, 1)
    both = F.interpolate(both, x.shape[-2:], mode="bilinear", align_corners=False)
    return both[:, :1] / both[:, 1:].clamp(min=_LEAST)
