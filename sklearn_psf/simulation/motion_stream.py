"""An endless stream of images in which regions move differently, for training."""

import numpy as np
import torch

from .path_stream import PathStream

__all__ = ["MotionStream"]


class MotionStream(PathStream):
    """An endless, seeded stream of images with several motions and their truth.

    Each image is cut into one to three regions by wavy borders. A region moves as a whole, or its
    motion goes from one end of a straight path of parameters to the other: along a plane, around a
    point, across a pipe, or by chance. Images are turned and mirrored, and the motions with them.
    For the rest see `PathStream`, whose parameters it takes; the family is "motion".

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import make_psf_model
    >>> sharp = np.random.RandomState(0).rand(1, 300, 300)
    >>> stream = MotionStream(sharp, psf_model=make_psf_model("motion"), image_size=64,
    ...                       batch_size=2, pool_size=2, random_state=0)
    >>> X, y = stream.draw()
    >>> X.shape, y.shape
    (torch.Size([2, 64, 64]), torch.Size([2, 4, 16, 16]))
    """

    def _path(self):
        rng, (low, high) = self.rng, self.psf_model.bounds.T
        start = self.psf_model.sample(1, rng)[0]
        if rng.rand() < 0.05:  # what stands still is part of many images
            start[:3] = 0
        end = start + rng.uniform(-0.5, 0.5, 4) * (high - low)
        # Mirrored at the bounds: no motion is more frequent than others.
        end = high - np.abs((end - low) % (2 * (high - low)) - (high - low))
        if rng.rand() < 0.2:  # the profile of a flow in a pipe
            end = start * [0, 0, 0, 1]
        return start + np.linspace(0, 1, self.nodes)[:, None] * (end - start)

    def _scene(self):
        rng = self.rng
        field = self.field()
        owner = self._regions(rng.choice([1, 2, 2, 2, 3]))
        if rng.rand() < 0.3:  # regions of different texture
            field = torch.where(owner == 0, field, self.field())
        if rng.rand() < 0.1:  # a region without light
            field = torch.where(owner == 1, 0.0, field)
        motion = torch.zeros(4, *field.shape, device=self.device)
        spectrum = 0
        for region in owner.unique().tolist():
            mask = (owner == region).float()
            path = rng.randint(len(self._paths))
            place = self._places() if rng.rand() < 0.5 else float(rng.randint(self.nodes))
            spectrum = spectrum + self._light(field * mask, path, place)
            first, last = self._paths[path, 0], self._paths[path, -1]
            t = torch.as_tensor(place, device=self.device) / (self.nodes - 1)
            motion += mask * (first[:, None, None] + t * (last - first)[:, None, None])
        blurred = torch.fft.irfft2(spectrum, s=field.shape).clamp(min=0)
        return self._turn(*(self._central(part) for part in (blurred, field, motion)))

    def _regions(self, n):
        """Number of the region of each pixel: whose of n points is nearest, by wavy distances."""
        y, x = self._grid()
        centres = self.rng.uniform(-0.8, 0.8, (n, 2))
        distances = [torch.hypot(y - b, x - a) + self._waves(0.15) for b, a in centres]
        return torch.stack(distances).argmin(0)

    def _turn(self, blurred, sharp, motion):
        """Mirror and turn an image and the vectors in it."""
        v_y, v_x, v_z, z0 = motion
        if self.rng.rand() < 0.5:
            blurred, sharp, v_y, v_x, v_z, z0 = (
                part.flip(0) for part in (blurred, sharp, -v_y, v_x, v_z, z0)
            )
        for _ in range(self.rng.randint(4)):
            blurred, sharp, v_y, v_x, v_z, z0 = (
                part.rot90() for part in (blurred, sharp, -v_x, v_y, v_z, z0)
            )
        return blurred, sharp, torch.stack([v_y, v_x, v_z, z0])
