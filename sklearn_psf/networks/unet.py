"""A fully convolutional network: images in, a map of encoded parameters out."""

import torch
from torch import nn
from torch.nn import functional as F

from .windows import WindowReadings

__all__ = ["Block", "ResidualUNet", "conv", "normalize_locally"]

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


def conv(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and rectifier."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """Two convolutions beside the identity; between them there may be fewer channels."""

    def __init__(self, width: int, inner: int | None = None):
        super().__init__()
        inner = width if inner is None else inner
        self.first = conv(width, inner)
        self.second = nn.Sequential(
            nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, width, h, w) to the same shape."""
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
        self.stem = nn.Sequential(conv(1, first // 2, 7, 2), conv(first // 2, first, 3, 2))
        self.windows = WindowReadings(reader, window_stride, cell=16 * binning)
        n_seen = n_outputs + reader.n_features
        self.join = conv(widths[2] + n_seen, widths[2], 1)
        self.down = nn.ModuleList(
            conv(a, b, stride=2) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(n)))
            for width, n in zip(widths, n_blocks, strict=True)
        )
        self.up = nn.ModuleList(
            nn.Sequential(conv(a + b, a), Block(a))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.fc = nn.Conv2d(first, n_outputs, 1)
        nn.init.zeros_(self.fc.weight)  # a training starts from the readings of windows
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Map images to outputs at stride 4; for parameters see `see`."""
        y, readings = self.see(x, images)
        return self.fc(y).float() + readings

    def freeze(self, again: bool = False):
        """Leave the reader of windows as it is in trainings to come; `again` is for heirs."""
        self.windows.freeze()

    def see(self, x: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features of the last layer and the readings of windows, both at stride 4.

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
        return y, readings
