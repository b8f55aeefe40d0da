"""Patches in which something else begins, masked as well as it is known where."""

import math

import torch
from torch.nn import functional as F

from ..operators import apply_masks
from .patches import PatchStream

__all__ = ["MaskedPatchStream"]


class MaskedPatchStream(PatchStream):
    """A `PatchStream`, most patches of which are left in the middle alone.

    Beyond one or two wavy borders the patch is another one, of another PSF, and a mask hides that,
    more or less: it is soft, and does not lie just where the border does. For parameters see
    `PatchStream`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import make_psf_model
    >>> sharp = np.random.RandomState(0).rand(1, 200, 200)
    >>> stream = MaskedPatchStream(sharp, psf_model=make_psf_model("gaussian-1"), patch_size=64,
    ...                            batch_size=4, random_state=0)
    >>> X, y = stream.draw()
    >>> X.shape, y.shape
    (torch.Size([4, 64, 64]), torch.Size([4, 1]))
    """

    whole = 0.3  # of the patches
    aside = 0.3  # of the patches have something else in their middle

    def draw(self):
        """Return one batch, as `PatchStream` does."""
        X, y = super().draw()
        n = len(X)
        distance = self._distances(n)
        other = X.roll(1, 0)
        level = [part.mean((-2, -1), keepdim=True) for part in (X, other)]
        contrast = [part.std((-2, -1), keepdim=True).clamp(min=1e-9) for part in (X, other)]
        strength = torch.exp(0.7 * self._normal(n))
        other = (other - level[1]) * (strength * contrast[0] / contrast[1]) + level[0]
        share = torch.sigmoid(distance / (1 + 6 * self.uniform(n, 1, 1)))
        mixed = other + share * (X - other)
        off, width = 5 * self._normal(n), 2 + 8 * self.uniform(n, 1, 1)
        masks = torch.sigmoid((distance - off) / width)
        faint = 0.5 * self.uniform(n, 1, 1) * (self.uniform(n, 1, 1) < 0.3)
        masks = faint + (1 - faint) * masks
        whole = (self.uniform(n, 1, 1) < self.whole) | torch.isnan(y[:, :1, None])
        return torch.where(whole, X, apply_masks(mixed, masks)), y

    def _normal(self, n):
        return torch.randn(n, 1, 1, generator=self.generator, device=self.device)

    def _distances(self, n):
        """Distance of each pixel from the nearest border, negative beyond it."""
        size = self.patch_size
        at = torch.arange(size, device=self.device) - (size - 1) / 2
        # At the border of an image, what is left is not around the middle of a window.
        aside = self.uniform(n, 1, 1) < self.aside
        start_y, start_x = (aside * size * (self.uniform(n, 1, 1) - 0.5) for _ in range(2))
        waves = torch.randn(n, 2, 5, 5, generator=self.generator, device=self.device)
        waves = 0.06 * size * F.interpolate(
            waves, (size, size), mode="bicubic", align_corners=True
        )  # fmt: skip
        borders = []
        for k in range(2):
            angle = 2 * math.pi * self.uniform(n, 1, 1)
            reach = (0.05 + (0.55, 1.5)[k] * self.uniform(n, 1, 1)) * size  # the second is rarer
            down, across = at[:, None] - start_y, at - start_x
            along = down * torch.sin(angle) + across * torch.cos(angle)
            borders.append(reach - along + waves[:, k])
        return torch.minimum(*borders)
