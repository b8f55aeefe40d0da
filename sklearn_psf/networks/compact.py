"""The default networks: small ones that read a patch and its power spectrum side by side."""

import torch
from torch import nn

from .odd_spectra import ODD_CHANNELS, odd_spectrum
from .polar import PolarNetwork
from .spectra import SECTORS, polar_spectrum

__all__ = ["Compact", "DirectedCompact", "OddNetwork", "patch_features"]


def _linear(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(inplace=True))


def _conv(n_in: int, n_out: int, kernel: int = 3, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


def patch_features() -> nn.Sequential:
    """Convolutions that map (n, 1, H, W) to features (n, 128, 1, 1), pooled over the patch."""
    return nn.Sequential(
        _conv(1, 32, 8, 4), _conv(32, 64), _conv(64, 96), _conv(96, 128), nn.AdaptiveAvgPool2d(1)
    )


class Compact(nn.Module):
    """The default: a small network on the patch beside one on its polar power spectrum.

    The patch branch is pooled, since where a texture stands does not matter. The harmonics of the
    spectral branch go to the outputs directly too: an encoded axis is linear in them.

    Parameters
    ----------
    n_outputs : int
        Length of the output.
    """

    n_features = 192  # what it has found before the outputs

    def __init__(self, n_outputs: int):
        super().__init__()
        self.patch = patch_features()
        self.polar = PolarNetwork()
        self.hidden = _linear(128 + self.polar.n_features, self.n_features)
        self.fc = nn.Linear(self.n_features + self.polar.n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, H, W) to (n, n_outputs)."""
        return self.read(x)[0]

    def read(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs and the features (n, n_features) behind them."""
        with torch.autocast(x.device.type, enabled=False):
            spectrum = polar_spectrum(x[:, 0])
        polar = self.polar(spectrum)
        hidden = self.hidden(torch.cat([self.patch(x).flatten(1), polar], 1))
        return self.fc(torch.cat([hidden, polar], 1)), hidden


class OddNetwork(nn.Module):
    """Features of an odd spectrum, by convolutions around the whole clock.

    They are read out in the harmonics of order 1 and 3, which change their sign as the direction
    does.

    Parameters
    ----------
    width : int
        Filters of each of two layers.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.scale = nn.BatchNorm1d(ODD_CHANNELS)
        self.around = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv1d(n, width, 5, padding=2, padding_mode="circular", bias=False),
                    nn.BatchNorm1d(width),
                    nn.ReLU(inplace=True),
                )
                for n in (ODD_CHANNELS, width)
            )
        )
        angle = torch.arange(2 * SECTORS) * (torch.pi / SECTORS)
        waves = [f(k * angle) for k in (1, 3) for f in (torch.cos, torch.sin)]
        self.register_buffer("harmonics", torch.stack(waves, 1) / SECTORS, persistent=False)
        self.n_features = len(waves) * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map odd spectra (n, ODD_CHANNELS, 2 SECTORS) to (n, n_features)."""
        x = self.around(self.scale(x))
        return (x @ self.harmonics.to(x)).flatten(1)


class DirectedCompact(Compact):
    """`Compact`, that also sees the odd spectrum of the patch: the sense of a direction.

    A power spectrum is the same for a PSF and for its mirror image.

    Parameters
    ----------
    n_outputs : int
        Length of the output.
    """

    added = ("odd.", "mixed.", "directed.")  # what weights of `Compact` do not have

    def __init__(self, n_outputs: int):
        super().__init__(n_outputs)
        self.odd = OddNetwork()
        self.mixed = _linear(self.n_features + self.odd.n_features, 128)
        self.directed = nn.Linear(128 + self.odd.n_features, n_outputs)
        nn.init.normal_(self.directed.weight, std=1e-4)  # to start from weights of `Compact`
        nn.init.zeros_(self.directed.bias)

    def read(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs and the features (n, n_features) behind them."""
        outputs, hidden = super().read(x)
        with torch.autocast(x.device.type, enabled=False):
            spectrum = odd_spectrum(x[:, 0])
        odd = self.odd(spectrum)
        mixed = self.mixed(torch.cat([hidden, odd.to(hidden.dtype)], 1))
        return outputs + self.directed(torch.cat([mixed, odd.to(mixed.dtype)], 1)), hidden
