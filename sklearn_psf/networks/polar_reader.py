"""A network that reads a part of a patch by its polar spectrum and that of what is beside it."""

import torch
from torch import nn

from .compact import patch_features
from .odd_spectra import ODD_CHANNELS, odd_spectrum
from .spectra import RINGS, SECTORS, normalize_parts, polar_spectrum

__all__ = ["N_PIXELS", "PolarReader", "see_both", "turn_seen"]

_SHAPES = ((RINGS, SECTORS), (RINGS, SECTORS), (ODD_CHANNELS, SECTORS))
N_PIXELS = 128  # features of the patch itself, the last of what is seen
_LARGEST = 3.0  # decades between two spectra


class Around(nn.Module):
    """Convolution around the clock, with the mean over all sectors beside it.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.near = nn.Conv1d(n_in, n_out, 3, padding=1, padding_mode="circular", bias=False)
        self.mean = nn.Linear(n_in, n_out, bias=False)
        self.norm = nn.BatchNorm1d(n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, n_in, sectors) to (n, n_out, sectors)."""
        return self.norm(self.near(x) + self.mean(x.mean(-1))[..., None])


class AroundBlock(nn.Module):
    """Two convolutions around the clock beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = Around(width, width), Around(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, width, sectors) to the same shape."""
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def _conv(n_in, n_out, kernel):
    return nn.Sequential(
        nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, padding_mode="circular", bias=False),
        nn.BatchNorm1d(n_out),
        nn.ReLU(inplace=True),
    )


class PolarReader(nn.Module):
    r"""Read the blur of a part of a patch, beside another part of the same texture.

    A power spectrum is that of the texture times :math:`|H|^2`; that of a part of the same texture
    which is blurred differently shares the first factor, and in their ratio it cancels. Filters
    reach over all rings of both spectra and a few neighbouring sectors, and are the same in every
    direction. What turns is read out in angular harmonics, whose strength depends on what does not:
    outputs then turn with the blur. Odd spectra tell the sense of a direction, and convolutions
    what phases tell: a few features of the pixels.

    What it sees of patches does not depend on its other weights, so that a training can use it
    again, turned.

    Parameters
    ----------
    n_outputs : int
        Length of the output.
    width : int
        Channels of the convolutions around the clock.
    n_blocks : int
        Residual blocks of two of them.
    n_turning : int
        Features of each angular harmonic.
    """

    own_part = "patch."  # the weights that it can take from a network of `Compact`'s kind

    def __init__(self, n_outputs: int, width: int = 256, n_blocks: int = 4, n_turning: int = 48):
        super().__init__()
        odd, k = 64, n_turning
        self.patch = patch_features()
        self.scale = nn.BatchNorm1d(2 * RINGS + 1)
        self.first = Around(2 * RINGS + 1, width)
        self.blocks = nn.Sequential(*(AroundBlock(width) for _ in range(n_blocks)))
        self.odd_scale = nn.BatchNorm1d(ODD_CHANNELS)
        self.odd = _conv(ODD_CHANNELS, odd, 5)
        self.even = nn.Conv1d(width, odd, 1)
        self.odd_blocks = nn.Sequential(_conv(2 * odd, 2 * odd, 5), _conv(2 * odd, 2 * odd, 3))
        self.turning = nn.Conv1d(width, 2 * k, 1)
        self.turning_odd = nn.Conv1d(2 * odd, k, 1)
        hidden = 256
        self.hidden = nn.Sequential(
            nn.Linear(width + 5 * k + N_PIXELS, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        )  # fmt: skip
        self.strength = nn.Linear(hidden, 2 * k)
        self.strength_odd = nn.Linear(hidden, k)
        self.fc = nn.Linear(6 * k + hidden, n_outputs)
        angle = torch.arange(2 * SECTORS) * (torch.pi / SECTORS)
        waves = [[f(m * angle) for f in (torch.cos, torch.sin)] for m in (1, 2, 4)]
        waves = torch.stack([torch.stack(pair, 1) for pair in waves]) / SECTORS
        self.register_buffer("harmonics", waves, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map patches (n, 1, H, W), or two parts of them (n, 2, H, W), to (n, n_outputs)."""
        return self.read_seen(self.see(x))

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Return all that is seen of normalised patches, or of two parts of them, (n, L)."""
        own, rest = x[:, 0], x[:, 1:]
        with torch.autocast(x.device.type, enabled=False):
            even = polar_spectrum(torch.cat([own, rest.flatten(0, 1)])).split(len(x))
            views = [even[0], even[-1], odd_spectrum(own)[..., :SECTORS]]
            present = rest.flatten(1).any(1, keepdim=True)
            # Without something beside it a part is compared with itself.
            views[1] = torch.where(present[..., None], views[1], views[0])
        return torch.cat([*(view.flatten(1) for view in views), present, self.see_pixels(own)], 1)

    def see_pixels(self, own: torch.Tensor) -> torch.Tensor:
        """Return features (n, 128) of normalised patches (n, H, W)."""
        x = own[:, None].contiguous(memory_format=torch.channels_last)
        return self.patch(x).flatten(1)

    def read_seen(self, seen: torch.Tensor) -> torch.Tensor:
        """Map what `see` returns to outputs (n, n_outputs)."""
        own, beside, odd, present, pixels = _split(seen)
        ratio = ((beside - own) * present[..., None]).clamp(-_LARGEST, _LARGEST)
        constant = present[..., None].expand(-1, 1, SECTORS)
        x = torch.relu(self.first(self.scale(torch.cat([own, ratio, constant], 1))))
        x = self.blocks(x)
        odd = self.odd(self.odd_scale(torch.cat([odd, -odd], -1)))
        even = torch.relu(self.even(x))
        odd = self.odd_blocks(torch.cat([odd, torch.cat([even, even], -1)], 1))
        once, twice, four_times = self.harmonics.to(x)
        turning = self.turning(x)
        c4, c2 = (turning @ waves[:SECTORS] for waves in (four_times, twice))
        c1 = self.turning_odd(odd) @ once / 2
        lengths = [torch.linalg.vector_norm(c, dim=-1) for c in (c2, c4, c1)]
        hidden = self.hidden(torch.cat([x.mean(-1), *lengths, pixels], 1))
        turned = [self.strength(hidden)[..., None] * c2, self.strength_odd(hidden)[..., None] * c1]
        return self.fc(torch.cat([*(part.flatten(1) for part in turned), hidden], 1))


def see_both(reader: PolarReader, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is seen of each of two parts beside the other, for less than seeing one after the other.

    Parameters
    ----------
    reader : PolarReader
        Its features of pixels are taken.
    parts : Tensor of shape (n, 2, H, W)
        Of `keep_apart`.

    Returns
    -------
    seen : Tensor of shape (2 n, L)
        As of `PolarReader.see`: of all first parts, then of all second ones.
    there : Tensor of shape (2 n,)
        False where the part is empty.
    """
    n = len(parts)
    apart = [normalize_parts(part[:, None])[:, 0] for part in parts.unbind(1)]
    deviations = parts.std((-2, -1), correction=0).clamp(min=1e-20)
    even = polar_spectrum(torch.cat(apart)).split(n)
    odd = odd_spectrum(torch.cat(apart))[..., :SECTORS].split(n)
    pixels = reader.see_pixels(torch.cat(apart)).split(n)
    there = torch.stack([part.flatten(1).any(1) for part in apart])
    both, seen = there.all(0), []
    for k in range(2):
        brighter = 2 * torch.log10(deviations[:, 1 - k] / deviations[:, k])
        beside = torch.where(both[:, None, None], even[1 - k] + brighter[:, None, None], even[k])
        views = [view.flatten(1) for view in (even[k], beside, odd[k])]
        seen.append(torch.cat([*views, both[:, None], pixels[k]], 1))
    return torch.cat(seen), there.flatten()


def turn_seen(seen: torch.Tensor, steps: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """What would be seen of patches that are mirrored and then turned.

    Parameters
    ----------
    seen : Tensor of shape (n, L)
        As of `PolarReader.see`.
    steps : int Tensor of shape (n,)
        Sectors to turn by, from the column (x) axis towards the row (y) axis.
    mirrored : bool Tensor of shape (n,)
        Whether the order of the rows is reversed first.

    Returns
    -------
    Tensor of shape (n, L)
        Features of pixels stay as they are.
    """
    *views, present, pixels = _split(seen)
    sector = torch.arange(SECTORS, device=seen.device) - steps[:, None]
    sector = torch.where(mirrored[:, None], -sector, sector) % (2 * SECTORS)
    opposite = torch.where(sector >= SECTORS, -1, 1)[:, None].to(seen)
    index = (sector % SECTORS)[:, None]
    turned = [torch.gather(view, 2, index.expand(-1, view.shape[1], -1)) for view in views]
    turned[2] = turned[2] * opposite
    return torch.cat([*(view.flatten(1) for view in turned), present, pixels], 1)


def _split(seen):
    """Own spectrum, that beside it and the odd one, whether there is one beside, and pixels."""
    sizes = [n * m for n, m in _SHAPES]
    *views, present, pixels = seen.split([*sizes, 1, N_PIXELS], 1)
    views = [view.reshape(-1, *shape) for view, shape in zip(views, _SHAPES, strict=True)]
    return *views, present, pixels
