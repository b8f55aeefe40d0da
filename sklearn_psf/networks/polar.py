"""Convolutions around the clock: what a network makes of a polar power spectrum."""

import torch
from torch import nn

from .spectra import RINGS, SECTORS

__all__ = ["PolarNetwork"]


class PolarNetwork(nn.Module):
    """Features of a polar spectrum, by convolutions around the clock.

    Turning the PSF shifts its spectrum along the sectors, so filters that reach over all rings and
    a few neighbouring sectors, the same in every direction, see each orientation of a blur as the
    same thing. Every layer also sees the mean over all sectors. The result is read out in angular
    harmonics: those of order 0 tell what does not turn, those of order 2 and 4 turn with an axis.

    Parameters
    ----------
    n_rings : int
        Rings of the spectrum.
    width : int
        Filters of each layer.
    n_layers : int
        Layers.
    """

    def __init__(self, n_rings: int = RINGS, width: int = 192, n_layers: int = 3):
        super().__init__()
        widths = [n_rings] + [width] * n_layers
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.scale = nn.BatchNorm1d(n_rings)
        self.around = nn.ModuleList(
            nn.Conv1d(a, b, 3, padding=1, padding_mode="circular", bias=False) for a, b in pairs
        )
        self.mean = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for _, b in pairs)
        angle = torch.arange(SECTORS) * (torch.pi / SECTORS)
        waves = [torch.ones(SECTORS)]
        waves += [f(k * angle) for k in (2, 4) for f in (torch.cos, torch.sin)]
        self.register_buffer("harmonics", torch.stack(waves, 1) / SECTORS, persistent=False)
        self.n_features = len(waves) * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map polar spectra (n, n_rings, SECTORS) to (n, n_features)."""
        x = self.scale(x)
        for around, mean, norm in zip(self.around, self.mean, self.norms, strict=True):
            x = torch.relu(norm(around(x) + mean(x.mean(-1))[..., None]))
        return (x @ self.harmonics.to(x)).flatten(1)
