"""Patches of two regions that are blurred differently, with the masks that keep them apart."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from ..operators import FADE, keep_apart
from .patches import PatchStream, central, transfer

__all__ = ["RegionPatchStream"]

_NODES = 3  # PSFs along a path


class RegionPatchStream(PatchStream):
    """A `PatchStream` of patches with one or two regions, each of its own blur.

    Each region sends its light by its own PSF, so that both mix along their wavy border; the
    texture goes on beyond it, or is another one. Two masks keep them apart, more or less: masks are
    soft, keep some distance from the border, and do not lie just where it does. For parameters see
    `PatchStream`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import make_psf_model
    >>> sharp = np.random.RandomState(0).rand(1, 200, 200)
    >>> stream = RegionPatchStream(sharp, psf_model=make_psf_model("gaussian-1"), patch_size=64,
    ...                            batch_size=4, pool_size=8, random_state=0)
    >>> X, y = stream.draw()
    >>> X.shape, y.shape
    (torch.Size([4, 4, 64, 64]), torch.Size([4, 2, 1]))
    """

    whole = 0.2  # of the patches are one region
    aside = 0.3  # of the patches have something else in their middle
    strips = 0.3  # of the regions lie between two opposite borders
    cut = 0.2  # of the patches reach beyond the border of their image
    varying = 0.4  # of the regions have a blur that changes
    continued = 0.15  # of the patches have a blur that goes on changing beyond the border

    def draw(self):
        """Return one batch: both parts of patches with masks, and the parameters of both.

        Returns
        -------
        X : Tensor of shape (batch_size, 4, patch_size, patch_size)
            As of `keep_apart`.
        y : Tensor of shape (batch_size, 2, P)
            Parameters, the mean over a part; NaN of one that is textureless or not there.
        """
        fields, index, chosen = self._choose()
        n, patch = len(chosen), self.patch_size
        full_scale, read_noise = self.exposure(n)
        distance = self._distances(n)
        share = torch.sigmoid(distance / (0.5 + 2 * self.uniform(n, 1, 1)))
        first = self._places(chosen)
        second = self._places(chosen.roll(1))
        goes_on = self.uniform(n) < self.continued
        second = [torch.where(_like(goes_on, b), a, b) for a, b in zip(first, second, strict=True)]
        regions = ((index, share, *first), (index.roll(1), 1 - share, *second))
        patches = central(self._light(fields, regions), patch).clamp(min=0)
        X, peak, empty = self._photograph(patches, full_scale, read_noise)
        masks = self._masks(central(distance, patch))
        X, sharp, labels = keep_apart(X, *masks), central(fields, patch), []
        for mask, (index, share, path, at) in zip(masks, regions, strict=True):
            part = sharp[index] * peak
            known = self._labels(chosen, part, read_noise, empty, central(share, patch))
            mean = (mask * central(at, patch)).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1e-6)
            y = self._between(path, mean)  # of what is in the part, not of the PSF first chosen
            labels.append(y.masked_fill(known.isnan(), torch.nan))
        absent = X[:, :2].abs().amax((-2, -1)) == 0
        return X, torch.stack(labels, 1).masked_fill(absent[..., None], torch.nan)

    def _sample(self, n):
        """Parameters along straight paths of three, mirrored at the bounds: all are as frequent."""
        n = -(-n // _NODES)
        low, high = self.psf_model.bounds.T
        steps = self.rng.uniform(-0.5, 0.5, (n, 1, len(low))) * np.linspace(0, 1, _NODES)[:, None]
        paths = self.psf_model.sample(n, self.rng)[:, None] + steps * (high - low)
        paths = high - np.abs((paths - low) % (2 * (high - low)) - (high - low))
        return paths.reshape(n * _NODES, -1)

    def _places(self, chosen):
        """First places (n,) of paths in the pool, and where (n, size, size) on them pixels are."""
        n, path = len(chosen), chosen - chosen % _NODES
        at = (torch.arange(self.size, device=self.device) - self.size / 2) / self.patch_size
        angle = 2 * math.pi * self.uniform(n, 1, 1)
        along = at[:, None] * torch.sin(angle) + at * torch.cos(angle)
        along = (along + self.uniform(n, 1, 1) - 0.5) / (0.5 + self.uniform(n, 1, 1))
        across = self.uniform(n, 1, 1) < 0.5  # as in a pipe, or along a slope
        t = torch.where(across, (2 * along).square(), 0.5 + along).clamp(0, 1) * (_NODES - 1)
        varies = self.uniform(n, 1, 1) < self.varying
        return path, torch.where(varies, t, (chosen % _NODES).to(t)[:, None, None])

    def _light(self, fields, regions):
        """Fields (n, size, size) as blurred by the PSFs of all regions."""
        shape = (len(regions[0][0]), self.size, self.size // 2 + 1)
        spectra = torch.zeros(shape, dtype=torch.complex64, device=self.device)
        for index, share, path, at in regions:
            for node in range(_NODES):
                near = (1 - (at - node).abs()).clamp(min=0)
                rows = near.flatten(1).any(1)
                part = torch.fft.rfft2(fields[index[rows]] * share[rows] * near[rows])
                spectra[rows] += part * transfer(self._pool[path[rows] + node], self.size)
        return torch.fft.irfft2(spectra, s=(self.size, self.size))

    def _between(self, path, at):
        """Parameters (n, P) at places (n,) along paths."""
        model = self.psf_model
        lower = at.floor().clamp(0, _NODES - 2)
        ends = [model.encode(self._parameters[path + lower.long() + k]) for k in range(2)]
        return model.decode(torch.lerp(*ends, (at - lower)[:, None]))

    def _masks(self, distance):
        """Masks (n, H, W) of what is to be read and of what is beside it."""
        n, size = len(distance), self.patch_size
        off, width = 4 * self._normal(n), 2 + 6 * self.uniform(n, 1, 1)
        away = 16 * self.uniform(n, 1, 1)
        faint = [0.3 * self.uniform(n, 1, 1) * (self.uniform(n, 1, 1) < 0.3) for _ in range(2)]
        masks = [
            f + (1 - f) * torch.sigmoid((sign * (distance - off) - away) / width)
            for f, sign in zip(faint, (1, -1), strict=True)
        ]
        alone = torch.isinf(distance)
        masks = [torch.where(alone, 1.0 - k, mask) for k, mask in enumerate(masks)]
        at, is_cut = torch.arange(size, device=self.device), self.uniform(n, 1, 1) < self.cut
        last = [
            torch.where(
                is_cut & (self.uniform(n, 1, 1) < 0.7),
                size * (1 - 0.6 * self.uniform(n, 1, 1)),
                torch.inf,
            )
            for _ in range(2)
        ]
        inside = [((end - at) / FADE).clamp(0, 1) for end in last]
        inside = inside[0].mT * inside[1]
        return [mask * inside for mask in masks]

    def _normal(self, n):
        return torch.randn(n, 1, 1, generator=self.generator, device=self.device)

    def _distances(self, n):
        """Distance of each pixel of a field from the nearest border, negative beyond it."""
        at = torch.arange(self.size, device=self.device) - (self.size - 1) / 2
        patch = self.patch_size
        aside = self.uniform(n, 1, 1) < self.aside
        start_y, start_x = (aside * patch * (self.uniform(n, 1, 1) - 0.5) for _ in range(2))
        waves = torch.randn(n, 2, 6, 6, generator=self.generator, device=self.device)
        waves = waves * (0.06 * patch * self.uniform(n, 1, 1, 1))
        for size, mode in ((self.size // 4, "bicubic"), (self.size, "bilinear")):
            waves = F.interpolate(waves, (size, size), mode=mode, align_corners=True)
        angles = [2 * math.pi * self.uniform(n, 1, 1) for _ in range(2)]
        strip = self.uniform(n, 1, 1) < self.strips
        angles[1] = torch.where(strip, angles[0] + math.pi, angles[1])
        spans = (0.5, torch.where(strip, 0.5, 1.5))  # the second border is rarer, but of strips
        borders = []
        for k, (angle, span) in enumerate(zip(angles, spans, strict=True)):
            reach = (0.05 + span * self.uniform(n, 1, 1)) * patch
            down, across = at[:, None] - start_y, at - start_x
            along = down * torch.sin(angle) + across * torch.cos(angle)
            borders.append(reach - along + waves[:, k])
        whole = self.uniform(n, 1, 1) < self.whole
        return torch.where(whole, torch.inf, torch.minimum(*borders))


def _like(choice, tensor):
    """A choice (n,) that broadcasts to a tensor (n, ...)."""
    return choice.reshape(-1, *[1] * (tensor.ndim - 1))
