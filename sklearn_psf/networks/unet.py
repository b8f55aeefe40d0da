"""A fully convolutional network: images in, a map of encoded parameters out."""

import torch
from torch import nn
from torch.nn import functional as F

from .outputs import split_outputs
from .polar import PolarNetwork
from .window_spectra import WINDOW, WINDOW_BANDS, window_spectra

__all__ = ["DenseNetwork", "LocalSpectra", "ResidualUNet", "WindowReader", "normalize_locally"]

_N_FEATURES = 128  # of the spectra of windows of one size
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


class _SpectralFeatures(nn.Module):
    """Features of the power spectra of windows of one size."""

    def __init__(self, n_features: int, width: int = 128, n_layers: int = 3):
        super().__init__()
        n_rings = sum(band.n_rings for band in WINDOW_BANDS)
        self.polar = PolarNetwork(n_rings, width, n_layers)
        self.fc = nn.Linear(self.polar.n_features, n_features)

    def forward(self, x: torch.Tensor, pad: bool) -> torch.Tensor:
        """Map images (n, 1, H, W) to (n, n_features, h, w), one feature vector for each window."""
        with torch.autocast(x.device.type, enabled=False):
            spectra = window_spectra(x, pad)
        features = self.fc(self.polar(spectra.flatten(0, 2)))
        return features.reshape(*spectra.shape[:3], -1).permute(0, 3, 1, 2)


class LocalSpectra(nn.Module):
    """Features of the power spectra of windows of 64 and of 128 pixels, at stride 16.

    The larger windows are those of the image at half its resolution, at stride 32.

    Parameters
    ----------
    n_features : int
        Features of each window; both sizes together give twice as many.
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.small, self.large = _SpectralFeatures(n_features), _SpectralFeatures(n_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, H, W), multiples of 32, to (n, 2 n_features, H / 16, W / 16)."""
        large = self.large(F.avg_pool2d(x, 2), True)
        large = F.interpolate(large, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.cat([self.small(x, True), large], 1)

    def centre(self, x: torch.Tensor) -> torch.Tensor:
        """Map patches (n, 1, H, W) to the features of their centres (n, 2 n_features).

        The large window takes 128 pixels; smaller patches are continued by their last pixels.
        """
        wide = 2 * WINDOW
        missing = [max(0, wide - n) for n in (x.shape[-1], x.shape[-2])]
        x = F.pad(x, [p for m in missing for p in (m // 2, m - m // 2)], mode="replicate")
        top, left = ((n - wide) // 2 for n in x.shape[-2:])
        x = x[..., top : top + wide, left : left + wide]
        margin = WINDOW // 2
        small = self.small(x[..., margin:-margin, margin:-margin], False)
        large = self.large(F.avg_pool2d(x, 2), False)
        return torch.cat([small, large], 1).flatten(1)


class WindowReader(nn.Module):
    """Reads patches of 128 pixels by what the `ResidualUNet` sees of spectra at their centre.

    Its `spectra` are those of a `ResidualUNet`, which learn much faster from patches of one blur
    than from whole scenes.

    Parameters
    ----------
    n_outputs : int
        Length of the output.
    """

    def __init__(self, n_outputs: int):
        super().__init__()
        self.spectra = LocalSpectra(_N_FEATURES)
        self.hidden = nn.Sequential(nn.BatchNorm1d(2 * _N_FEATURES), nn.ReLU())
        self.fc = nn.Linear(2 * _N_FEATURES, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, 128, 128) to (n, n_outputs)."""
        return self.fc(self.hidden(self.spectra.centre(normalize_locally(x))))


class ResidualUNet(nn.Module):
    """An encoder of residual blocks down to stride 16 and a decoder with skips up to stride 4.

    At stride 16 it also sees the power spectra of windows of 64 and 128 pixels, on which blur
    leaves the modulus of its transfer function.

    Parameters
    ----------
    n_outputs : int
        Channels of the output.
    widths : tuple of int
        Channels at strides 4, 8 and 16.
    n_blocks : tuple of int
        Residual blocks at these strides.
    """

    def __init__(self, n_outputs: int, widths=(48, 96, 160), n_blocks=(1, 1, 3)):
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(_conv(1, first // 2, 7, 2), _conv(first // 2, first, 3, 2))
        self.spectra = LocalSpectra(_N_FEATURES)
        self.join = _conv(widths[2] + 2 * _N_FEATURES, widths[2], 1)
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, H, W), multiples of 32, to (n, n_outputs, H / 4, W / 4)."""
        levels = [self.blocks[0](self.stem(x))]
        levels.append(self.blocks[1](self.down[0](levels[0])))
        deepest = self.down[1](levels[1])
        deepest = self.join(torch.cat([deepest, self.spectra(x).to(deepest.dtype)], 1))
        y = self.blocks[2](deepest)
        for up in reversed(self.up):
            skip = levels.pop()
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = up(torch.cat([skip, y], 1))
        return self.fc(y)


class DenseNetwork(nn.Module):
    """A `ResidualUNet` with the normalisation of images and targets around it.

    Parameters
    ----------
    n_encoded : int
        Length E of a PSF family's encoding.
    mixed_precision : bool
        Compute in bfloat16 where it is safe, while training.

    Attributes
    ----------
    target_mean, target_scale : Tensor of shape (E,)
        Buffers: the network regresses ``(encoding - mean) / scale``.
    """

    stride = 4  # pixels of the image per pixel of the output
    multiple = 32  # height and width are padded to multiples of it

    def __init__(self, n_encoded: int, mixed_precision: bool = False):
        super().__init__()
        self.n_encoded, self.mixed_precision = n_encoded, mixed_precision
        self.backbone = ResidualUNet(2 * n_encoded + 1)
        self.register_buffer("target_mean", torch.zeros(n_encoded))
        self.register_buffer("target_scale", torch.ones(n_encoded))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, H, W) to (n, 2 E + 1, ceil(H / 32) * 8, ceil(W / 32) * 8)."""
        x = normalize_locally(images[:, None].float())
        height, width = x.shape[-2:]
        extra = (0, -width % self.multiple, 0, -height % self.multiple)
        x = F.pad(x, extra, mode="replicate").contiguous(memory_format=torch.channels_last)
        mixed = self.mixed_precision and self.training
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = self.backbone(x)
        return outputs.float()

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return encoding, variance, both (n, h, w, E), and probability of being invalid (n, h, w).

        They hold for squares of 4 x 4 pixels, ``h = ceil(H / 4)``.
        """
        outputs = self(images).movedim(1, -1)
        outputs = outputs[
            :, : -(-images.shape[1] // self.stride), : -(-images.shape[2] // self.stride)
        ]
        return split_outputs(outputs, self.target_mean, self.target_scale)
