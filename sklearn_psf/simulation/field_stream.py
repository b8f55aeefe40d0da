"""Sharp fields and their exposure: what the streams that train networks have in common."""

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.nn import functional as F

from .._validation import check_device, check_generator, check_image_list

__all__ = ["FieldStream", "crop", "scaled"]


def scaled(image, device):
    """Image as a float32 tensor with minimum 0 and maximum 1; a constant image becomes 0."""
    image = torch.as_tensor(np.array(image, dtype=np.float32, order="C"), device=device)
    image = image - image.min()
    return image / image.max().clamp(min=1e-20)


def crop(image, size, rng):
    """Random square crop of `size` pixels; a smaller image is mirrored beyond its borders."""
    missing = [max(0, size - n) for n in image.shape]
    if any(missing):
        pads = [(m // 2, m - m // 2) for m in missing]
        index = [
            torch.as_tensor(np.pad(np.arange(n), pad, mode="symmetric"), device=image.device)
            for n, pad in zip(image.shape, pads, strict=True)
        ]
        image = image[index[0]][:, index[1]]
    top, left = (rng.randint(0, n - size + 1) for n in image.shape)
    return image[top : top + size, left : left + size]


class FieldStream:
    """Sharp fields drawn from images, and the camera that photographs them, on one device.

    Parameters
    ----------
    images : list of 2-D arrays or array-like of shape (n_images, H, W)
        Sharp images.
    size : int
        Height and width of a field, pixels.
    camera : Camera or None
        None draws peak photons and read noise at random; a camera fixes them.
    device : str, torch.device or None
        Where fields are made.
    random_state : int, RandomState or None
        Seed.
    """

    def __init__(self, images, size, camera, device, random_state):
        self.camera = camera
        self.device = check_device(device)
        self.rng = check_random_state(random_state)
        self.generator = check_generator(self.rng, self.device)
        self.size = size
        images = check_image_list(images, name="images")
        self.sources = [scaled(image, self.device) for image in images]
        weights = np.sqrt([image.size for image in images])
        self.weights = weights / weights.sum()

    def __iter__(self):
        while True:
            yield self.draw()

    def uniform(self, *shape):
        """Uniform random numbers of a shape, in [0, 1)."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def field(self):
        """One sharp field in [0, 1]: cropped, zoomed out, turned, perhaps inverted and lifted."""
        rng, image = self.rng, self.sources[self.rng.choice(len(self.sources), p=self.weights)]
        room = min(image.shape) / self.size
        # Zooming out sharpens textures that are soft at the pixel. Small images keep their pixels.
        zoom = 1.0 if rng.rand() < 0.5 else rng.uniform(1, min(3.0, max(1.0, 1.25 * room)))
        field = crop(image, int(round(self.size * zoom)), rng)
        if field.shape[0] != self.size:
            shape = (self.size, self.size)
            field = F.interpolate(field[None, None], shape, mode="bilinear", antialias=True)[0, 0]
        field = torch.rot90(field, rng.randint(4))
        field = field.flip(0) if rng.rand() < 0.5 else field
        if rng.rand() < 0.5:  # expose for the crop instead of for the whole image
            field = (field - field.min()) / (field.max() - field.min()).clamp(min=1e-3)
        field = 1 - field if rng.rand() < 0.3 else field
        background = rng.uniform(0, 0.4) * (rng.rand() < 0.4)
        return (field * (1 - background) + background).clamp(0, 1)

    def exposure(self, n):
        """Peak photo-electrons and read noise of n images, each of shape (n, 1, 1)."""
        if self.camera is not None:
            ones = torch.ones(n, 1, 1, device=self.device)
            scale = self.camera.peak_photons * self.camera.quantum_efficiency
            return scale * ones, self.camera.read_noise * ones
        return 10 ** (2.5 + 2 * self.uniform(n, 1, 1)), 5 * self.uniform(n, 1, 1)

    def shading(self, n, size):
        """Vignetting and sloping illumination, in (0, 1]; none for half of the patches."""
        r = torch.linspace(-0.5, 0.5, size, device=self.device)
        slope_y, slope_x = (0.4 * self.uniform(n, 1, 1) - 0.2 for _ in range(2))
        bowl = 0.4 * self.uniform(n, 1, 1)
        shading = 0.8 + slope_y * r[:, None] + slope_x * r - bowl * (r[:, None] ** 2 + r**2)
        return torch.where(self.uniform(n, 1, 1) < 0.5, torch.ones_like(shading), shading)

    def expose(self, photons, read_noise):
        """Shot and read noise in one draw: the square of a normal has Poisson's first moments.

        (sqrt(m + r^2) + g / 2)^2 - r^2 - 1/4 with g ~ N(0, 1) has mean m, variance m + r^2 + 1/8
        and the sense of Poisson's skewness; it is several times faster than exact Poisson draws.
        """
        noise = torch.randn(photons.shape, generator=self.generator, device=self.device)
        variance = read_noise**2
        return ((photons + variance).sqrt() + 0.5 * noise).square() - variance - 0.25

    def quantize(self, electrons, peak):
        """Round to 8 bits for a third of the patches; the others keep fine grey values."""
        step = peak / 255
        coarse = (electrons / step).round() * step
        return torch.where(self.uniform(len(peak), 1, 1) < 1 / 3, coarse, electrons)
