"""A network that reads a part of a patch by its polar spectrum and that of what is beside it."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .odd_spectra import ODD_CHANNELS, odd_spectrum
from .pixel_reader import COARSE, N_FEATURES, PixelReader, rotation, squared
from .spectra import RINGS, SECTORS, normalize_parts, polar_spectrum

__all__ = ["PolarReader", "hide_pixels", "see_both", "turn_seen"]

_SHAPES = ((RINGS, SECTORS), (RINGS, SECTORS), (ODD_CHANNELS, SECTORS))
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
    outputs then turn with the blur. Odd spectra tell the sense of a direction.

    The axis that spectra tell is the frame in which pixels are looked at. What those say changes
    the strengths, and adds an axis and a direction, in the frame, to what turns. The first two
    outputs are taken for that axis, at twice its angle: those of a motion are. Pixels, unlike
    spectra, also say what is at one place of the part, where blur varies.

    What it sees of patches does not depend on its weights, so that a training can use it again,
    turned.

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

    def __init__(self, n_outputs: int, width: int = 256, n_blocks: int = 4, n_turning: int = 48):
        super().__init__()
        odd, k = 64, n_turning
        self.scale = nn.BatchNorm1d(2 * RINGS + 1)
        self.first = Around(2 * RINGS + 1, width)
        self.blocks = nn.Sequential(*(AroundBlock(width) for _ in range(n_blocks)))
        self.odd_scale = nn.BatchNorm1d(ODD_CHANNELS)
        self.odd = _conv(ODD_CHANNELS, odd, 5)
        self.even = nn.Conv1d(width, odd, 1)
        self.odd_blocks = nn.Sequential(_conv(2 * odd, 2 * odd, 5), _conv(2 * odd, 2 * odd, 3))
        self.turning = nn.Conv1d(width, 2 * k, 1)
        self.turning_odd = nn.Conv1d(2 * odd, k, 1)
        self.pixels = PixelReader()
        hidden = 256
        self.hidden = nn.Sequential(
            nn.Linear(width + 5 * k + N_FEATURES, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        )  # fmt: skip
        self.strength = nn.Linear(hidden, 2 * k)
        self.strength_odd = nn.Linear(hidden, k)
        self.in_frame = nn.Linear(hidden + N_FEATURES, 4)
        self.fc = nn.Linear(6 * k + 4 + hidden + N_FEATURES, n_outputs)
        angle = torch.arange(2 * SECTORS) * (torch.pi / SECTORS)
        waves = [[f(m * angle) for f in (torch.cos, torch.sin)] for m in (1, 2, 4)]
        waves = torch.stack([torch.stack(pair, 1) for pair in waves]) / SECTORS
        self.register_buffer("harmonics", waves, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map patches (n, 1, H, W) or their parts (n, 4 or 5, H, W) to outputs (n, n_outputs)."""
        return self.read_seen(self.see(x))

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Return all that is seen of normalised patches, or of parts of them, (n, L).

        Parameters
        ----------
        x : Tensor of shape (n, 1, H, W), (n, 4, H, W) or (n, 5, H, W)
            Patches; or two parts and their masks, of `keep_apart`, and how close the place is that
            is asked for, from 0 to 1. All of the part is, if that is missing or 0.
        """
        own, rest = x[:, 0], x[:, 1:2]
        maps = _maps(x[:, 2:3] if x.shape[1] > 1 else torch.ones_like(x), x[:, 4:])
        with torch.autocast(x.device.type, enabled=False):
            even = polar_spectrum(torch.cat([own, rest.flatten(0, 1)])).split(len(x))
            views = [even[0], even[-1], odd_spectrum(own)[..., :SECTORS]]
            present = rest.flatten(1).any(1, keepdim=True)
            # Without something beside it a part is compared with itself.
            views[1] = torch.where(present[..., None], views[1], views[0])
        return _joined(views, present, maps, own)

    def read_seen(self, seen: torch.Tensor) -> torch.Tensor:
        """Map what `see` returns to outputs (n, n_outputs)."""
        *views, frames, maps, pixels = _split(seen)
        staying, *harmonics = self._read_spectra(*views)
        angle = self._axis(staying, harmonics[0])
        features = self.pixels(pixels, maps, frames @ rotation(angle))
        features = features * pixels.flatten(1).any(1, keepdim=True)
        hidden = self.hidden(torch.cat([staying, features], 1))
        strengths = self.strength(hidden), self.strength_odd(hidden)
        turned = [s[..., None] * c for s, c in zip(strengths, harmonics, strict=True)]
        pairs = self.in_frame(torch.cat([hidden, features], 1)).float().split(2, 1)
        turned += [
            (rotation(times * angle) @ pair[..., None])[..., 0]
            for times, pair in zip((2, 1), pairs, strict=True)
        ]
        return self.fc(torch.cat([*(part.flatten(1) for part in turned), hidden, features], 1))

    def _read_spectra(self, own, beside, odd, present):
        """Features (n, F) that stay, and harmonics (n, k, 2) at twice the angle and at once."""
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
        return torch.cat([x.mean(-1), *lengths], 1), c2, c1

    @torch.no_grad()
    def _axis(self, staying, twice):
        """Angles (n,) of the first two outputs without pixels; this look teaches nothing."""
        training = self.hidden.training
        self.hidden.eval()
        blind = staying.new_zeros(len(staying), N_FEATURES)
        strength = self.strength(self.hidden(torch.cat([staying, blind], 1)))
        self.hidden.train(training)
        first, second = self.fc.weight[:2, : 2 * twice.shape[1]].unflatten(1, (-1, 2))
        share = first[:, 0] + second[:, 1]  # of their weights what turns with the patch
        x, y = ((share * strength)[..., None] * twice).sum(1).float().unbind(1)
        return torch.atan2(y, x) / 2


def see_both(parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is seen of each of two parts beside the other, for less than seeing one after the other.

    Parameters
    ----------
    parts : Tensor of shape (n, 4, H, W) or (n, 5, H, W)
        Of `keep_apart`, and how close the place in the first part is that is asked for.

    Returns
    -------
    seen : Tensor of shape (2 n, L)
        As of `PolarReader.see`: of all first parts, then of all second ones.
    there : Tensor of shape (2 n,)
        False where the part is empty.
    """
    n, (parts, masks, closeness) = len(parts), parts.tensor_split([2, 4], 1)
    apart = [normalize_parts(part[:, None])[:, 0] for part in parts.unbind(1)]
    deviations = parts.std((-2, -1), correction=0).clamp(min=1e-20)
    even = polar_spectrum(torch.cat(apart)).split(n)
    odd = odd_spectrum(torch.cat(apart))[..., :SECTORS].split(n)
    there = torch.stack([part.flatten(1).any(1) for part in apart])
    both, seen = there.all(0), []
    for k in range(2):
        brighter = 2 * torch.log10(deviations[:, 1 - k] / deviations[:, k])
        beside = torch.where(both[:, None, None], even[1 - k] + brighter[:, None, None], even[k])
        maps = _maps(masks[:, k : k + 1], closeness if k == 0 else closeness[:, :0])
        seen.append(_joined((even[k], beside, odd[k]), both[:, None], maps, apart[k]))
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
        Pixels stay as they are, but are said to be seen in another frame.
    """
    *views, present, frames, maps, pixels = _split(seen)
    sector = torch.arange(SECTORS, device=seen.device) - steps[:, None]
    sector = torch.where(mirrored[:, None], -sector, sector) % (2 * SECTORS)
    opposite = torch.where(sector >= SECTORS, -1, 1)[:, None].to(seen)
    index = (sector % SECTORS)[:, None]
    turned = [torch.gather(view, 2, index.expand(-1, view.shape[1], -1)) for view in views]
    turned[2] = turned[2] * opposite
    back = rotation(-steps.to(seen) * (torch.pi / SECTORS))
    back[:, 1] = torch.where(mirrored[:, None], -back[:, 1], back[:, 1])
    return _joined(turned, present, maps, pixels, frames @ back)


def hide_pixels(seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """What is seen (n, L), but for those (n,) that are hidden spectra alone."""
    pixels = _split(seen)[-1].flatten(1)
    others = seen[:, : -pixels.shape[1]]
    return torch.cat([others, pixels * ~hidden[:, None]], 1)


def _maps(masks, closeness):
    """Masks (n, 1, H, W) and closeness (n, 0 or 1, H, W) as squares, binned."""
    if not closeness.shape[1]:
        closeness = torch.zeros_like(masks)
    return F.avg_pool2d(squared(torch.cat([masks, closeness], 1)), COARSE)


def _joined(views, present, maps, patches, frames=None):
    """All that is seen, (n, L); patches are as they were drawn where no frames are given."""
    if frames is None:
        frames = torch.eye(2).to(patches).expand(len(patches), 2, 2)
        patches = squared(patches)
    parts = [*views, present, frames, maps, patches]
    return torch.cat([part.flatten(1) for part in parts], 1)


def _split(seen):
    """Own spectrum, that beside it, the odd one, if one is beside; frames, maps, pixels."""
    sizes = [*(n * m for n, m in _SHAPES), 1, 4]
    side = math.isqrt((seen.shape[1] - sum(sizes)) // (COARSE**2 + 2))  # of a map
    *views, present, frames, maps, pixels = seen.split(
        [*sizes, 2 * side**2, (COARSE * side) ** 2], 1
    )
    views = [view.reshape(-1, *shape) for view, shape in zip(views, _SHAPES, strict=True)]
    maps, pixels = maps.reshape(-1, 2, side, side), pixels.unflatten(1, (COARSE * side, -1))
    return *views, present, frames.reshape(-1, 2, 2), maps, pixels
