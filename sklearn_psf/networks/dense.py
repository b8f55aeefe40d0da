"""Networks for whole images, with the normalisation of images and targets around them."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .compact import Compact, DirectedCompact
from .outputs import split_outputs
from .regions import RegionUNet
from .unet import ResidualUNet, normalize_locally

__all__ = ["DENSE_ARCHITECTURES", "DenseNetwork"]

_MULTIPLE = 32  # pixels, of the network's, to which height and width are padded


class _Layout(NamedTuple):
    kind: type[ResidualUNet]
    reader: type[Compact]
    window_stride: int
    widths: tuple[int, int, int]
    n_blocks: tuple[int, int, int]
    binning: int
    halo: int  # pixels around a tile of an image: so far away nothing changes a reading


DENSE_ARCHITECTURES = {
    # a PSF changes slowly over an image: few windows, few channels, at half the resolution
    "unet": _Layout(ResidualUNet, Compact, 96, (32, 48, 64), (1, 1, 2), 2, 192),
    # motions change at the borders of what moves, and have a sense
    "unet-directed": _Layout(RegionUNet, DirectedCompact, 64, (48, 96, 160), (1, 1, 3), 1, 256),
}


class DenseNetwork(nn.Module):
    """A `ResidualUNet` with the normalisation of images and targets around it.

    Parameters
    ----------
    architecture : str
        A key of `DENSE_ARCHITECTURES`.
    n_encoded : int
        Length E of a PSF family's encoding.
    mixed_precision : bool
        Compute in bfloat16 where it is safe, while training.

    Attributes
    ----------
    stride : int
        Pixels of the image per pixel of the output.
    halo : int
        Pixels around a tile of an image that have a say in what is read there.
    target_mean, target_scale : Tensor of shape (E,)
        Buffers: the network regresses ``(encoding - mean) / scale``.
    """

    def __init__(self, architecture: str, n_encoded: int, mixed_precision: bool = False):
        super().__init__()
        self.architecture, self.n_encoded = architecture, n_encoded
        self.mixed_precision = mixed_precision
        n_outputs = 2 * n_encoded + 1
        kind, reader, *layout, self.binning, self.halo = DENSE_ARCHITECTURES[architecture]
        self.n_outputs = n_outputs
        self.backbone = kind(n_outputs, reader(n_outputs), *layout, self.binning)
        self.stride = 4 * self.binning
        self.register_buffer("target_mean", torch.zeros(n_encoded))
        self.register_buffer("target_scale", torch.ones(n_encoded))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, H, W) to (n, 2 E + 1, h, w), padded to multiples of 8 squares.

        While training, what else the backbone says follows; see `PSFLoss`.
        """
        images = images[:, None].float()
        x = self._normalized(images)
        mixed = self.mixed_precision and self.training
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = self.backbone(x, images)
        return (outputs if self.training else outputs[:, : self.n_outputs]).float()

    def find_parts(self, images: torch.Tensor, places: list[tuple[int, int]]) -> torch.Tensor:
        """Parts of images (n, H, W) around places, as of `RegionUNet.find_parts`."""
        images = images[:, None].float()
        return self.backbone.find_parts(self._normalized(images), images, places)

    def _normalized(self, images):
        """What convolutions see of images, binned, and padded to a multiple of their stride."""
        binned = F.avg_pool2d(images, self.binning, ceil_mode=True)
        height, width = binned.shape[-2:]
        extra = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        x = F.pad(normalize_locally(binned), extra, mode="replicate")
        return x.contiguous(memory_format=torch.channels_last)

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return encoding, variance, both (n, h, w, E), and probability of being invalid (n, h, w).

        They hold for squares of `stride` pixels, ``h = ceil(H / stride)``.
        """
        outputs = self(images).movedim(1, -1)
        height, width = (-(-n // self.stride) for n in images.shape[1:])
        return split_outputs(outputs[:, :height, :width], self.target_mean, self.target_scale)
