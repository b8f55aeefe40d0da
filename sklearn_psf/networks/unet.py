"""A fully convolutional network: images in, a map of encoded parameters out."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .compact import Compact, DirectedCompact
from .outputs import split_outputs
from .windows import WindowReadings

__all__ = ["DENSE_ARCHITECTURES", "DenseNetwork", "ResidualUNet", "normalize_locally"]

_MULTIPLE = 32  # pixels, of the network's, to which height and width are padded
_NEIGHBOURHOOD = 65  # pixels over which an image is normalised


def normalize_locally(x: torch.Tensor) -> torch.Tensor:
    """Subtract the local mean of images and divide by their local standard deviation.

    Parameters
    ----------
    x : Tensor of shape (n, 1, H, W)
        Images in any unit, with any offset.

    Returns
    -------
    Tensor of shape (n, 1, H, W)
        Mean 0 and standard deviation 1 within squares of 65 pixels; 0 where an image is constant.

    Examples
    --------
    >>> import torch
    >>> normalize_locally(torch.ones(1, 1, 80, 80)).abs().max()
    tensor(0.)
    """
    scale = x.abs().mean((-2, -1), keepdim=True)
    x = x - _box(x)
    deviation = _box(x.square()).sqrt()
    # Rounding of the offset must not be blown up into texture.
    textured = deviation > (1e-6 * scale).clamp(min=1e-20)
    return torch.where(textured, x / deviation.clamp(min=1e-20), torch.zeros_like(x))


def _box(x: torch.Tensor) -> torch.Tensor:
    """Mean over squares; beyond the border there is nothing, and nothing is counted."""
    for kernel in ((_NEIGHBOURHOOD, 1), (1, _NEIGHBOURHOOD)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    return x


def _conv(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class _Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class ResidualUNet(nn.Module):
    """An encoder of residual blocks down to stride 16 and a decoder with skips up again.

    At stride 16 it also sees what a network for patches reads in windows of the image, and its
    output is added to that reading: windows know the blur, convolutions where it changes.

    Parameters
    ----------
    n_outputs : int
        Channels of the output, and outputs of the reader.
    reader : Compact
        Reads windows. It is trained too, unless it came with weights and is frozen.
    window_stride : int
        Pixels from one window to the next.
    widths : tuple of int
        Channels at strides 4, 8 and 16.
    n_blocks : tuple of int
        Residual blocks at these strides.
    binning : int
        Pixels of the image, along a side, that make one of the network's. Strides count the latter.
    """

    def __init__(self, n_outputs: int, reader, window_stride, widths, n_blocks, binning=1):
        super().__init__()
        first = widths[0]
        self.n_outputs = n_outputs
        self.stem = nn.Sequential(_conv(1, first // 2, 7, 2), _conv(first // 2, first, 3, 2))
        self.windows = WindowReadings(reader, window_stride, cell=16 * binning)
        n_seen = n_outputs + reader.n_features
        self.join = _conv(widths[2] + n_seen, widths[2], 1)
        self.down = nn.ModuleList(
            _conv(a, b, stride=2) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(n)))
            for width, n in zip(widths, n_blocks, strict=True)
        )
        self.up = nn.ModuleList(
            nn.Sequential(_conv(a + b, a), _Block(a))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.fc = nn.Conv2d(first, n_outputs, 1)
        nn.init.zeros_(self.fc.weight)  # a training starts from the readings of windows
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Map images to outputs at stride 4.

        `x` (n, 1, H, W) are the binned and normalised images, padded to multiples of 16, `images`
        those that windows are read in: what was padded is no texture.
        """
        levels = [self.blocks[0](self.stem(x))]
        levels.append(self.blocks[1](self.down[0](levels[0])))
        deepest = self.down[1](levels[1])
        seen = self.windows(images, deepest.shape[-2:])
        deepest = self.join(torch.cat([deepest, seen.to(deepest.dtype)], 1))
        y = self.blocks[2](deepest)
        for up in reversed(self.up):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = up(torch.cat([levels.pop(), y], 1))
        readings = F.interpolate(
            seen[:, : self.n_outputs], scale_factor=4, mode="bilinear", align_corners=False
        )
        return self.fc(y).float() + readings


class _Layout(NamedTuple):
    reader: type[Compact]
    window_stride: int
    widths: tuple[int, int, int]
    n_blocks: tuple[int, int, int]
    binning: int


DENSE_ARCHITECTURES = {
    # a PSF changes slowly over an image: few windows, few channels, at half the resolution
    "unet": _Layout(Compact, 96, (32, 48, 64), (1, 1, 2), 2),
    # motions change at the borders of what moves, and have a sense
    "unet-directed": _Layout(DirectedCompact, 32, (48, 96, 160), (1, 1, 3), 1),
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
    target_mean, target_scale : Tensor of shape (E,)
        Buffers: the network regresses ``(encoding - mean) / scale``.
    """

    def __init__(self, architecture: str, n_encoded: int, mixed_precision: bool = False):
        super().__init__()
        self.architecture, self.n_encoded = architecture, n_encoded
        self.mixed_precision = mixed_precision
        n_outputs = 2 * n_encoded + 1
        reader, *layout = DENSE_ARCHITECTURES[architecture]
        self.backbone = ResidualUNet(n_outputs, reader(n_outputs), *layout)
        self.binning = layout[-1]
        self.stride = 4 * self.binning
        self.register_buffer("target_mean", torch.zeros(n_encoded))
        self.register_buffer("target_scale", torch.ones(n_encoded))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, H, W) to (n, 2 E + 1, h, w), padded to multiples of 8 squares."""
        images = images[:, None].float()
        binned = F.avg_pool2d(images, self.binning, ceil_mode=True)
        height, width = binned.shape[-2:]
        extra = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        x = F.pad(normalize_locally(binned), extra, mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        mixed = self.mixed_precision and self.training
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = self.backbone(x, images)
        return outputs.float()

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return encoding, variance, both (n, h, w, E), and probability of being invalid (n, h, w).

        They hold for squares of `stride` pixels, ``h = ceil(H / stride)``.
        """
        outputs = self(images).movedim(1, -1)
        height, width = (-(-n // self.stride) for n in images.shape[1:])
        return split_outputs(outputs[:, :height, :width], self.target_mean, self.target_scale)
