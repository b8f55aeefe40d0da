"""Endless streams of images whose blur varies along paths of PSF parameters, for training."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch.nn import functional as F

from .field_stream import FieldStream
from .patches import MIN_CONTRAST

__all__ = ["PathStream", "VaryingBlurStream"]

_BLOCK = 8  # pixels within which texture is measured
_REACH = 5  # blocks along a side of the neighbourhood whose texture decides on validity


class PathStream(FieldStream, ABC):
    """What streams of images with varying blur have in common.

    A path leads through PSF parameters by a few nodes, between which PSFs are interpolated; each
    pixel has its place on a path, and sends its light by its own PSF ("scatter"). Paths come from a
    pool that is renewed a little with each batch. Heirs say what a path is, `_path`, and what is in
    an image, `_scene`.

    Parameters
    ----------
    images : list of 2-D arrays or array-like of shape (n_images, H, W)
        Sharp images.
    psf_model : PSFModel
        Family.
    image_size : int, default=160
        Height and width of an image, pixels; a multiple of 8.
    batch_size : int, default=16
        Images per draw.
    label_stride : int, default=4
        The truth is given at the centre of squares of that many pixels.
    camera : Camera or None
        None draws peak photons and read noise at random; a camera fixes them.
    pool_size : int, default=128
        Paths kept.
    device : str, torch.device or None
        Where images are made.
    random_state : int, RandomState or None
        Seed.
    """

    margin = 56  # pixels of field beyond the image: the reach of a PSF
    nodes = 8  # PSFs along a path
    renewal = 16  # a path is used in about that many images

    def __init__(
        self,
        images,
        *,
        psf_model,
        image_size=160,
        batch_size=16,
        label_stride=4,
        camera=None,
        pool_size=128,
        device=None,
        random_state=None,
    ):
        size = next_fast_len(max(image_size + 2 * self.margin, psf_model.size), real=True)
        super().__init__(images, size, camera, device, random_state)
        self.psf_model, self.image_size, self.batch_size = psf_model, image_size, batch_size
        self.label_stride = label_stride
        k, n_parameters = psf_model.size, len(psf_model.parameter_names)
        self._paths = torch.empty(pool_size, self.nodes, n_parameters, device=self.device)
        self._psfs = torch.empty(pool_size, self.nodes, k, k, device=self.device)
        self._next, self._due = 0, 0.0
        for _ in range(pool_size):
            self._renew()

    def draw(self):
        """Return one batch: images (n, size, size) and their parameters, NaN where textureless.

        Returns
        -------
        X : Tensor of shape (batch_size, image_size, image_size)
            Grey values.
        y : Tensor of shape (batch_size, P, image_size / label_stride, image_size / label_stride)
            Parameters.
        """
        n = self.batch_size
        self._due += n / self.renewal
        while self._due >= 1:
            self._renew()
            self._due -= 1
        scenes = [self._scene() for _ in range(n)]
        blurred, sharp, truth = (torch.stack(part) for part in zip(*scenes, strict=True))
        peak, read_noise = self.exposure(n)
        light = peak * self.shading(n, self.image_size)
        flat = _local_contrast(sharp * light, read_noise) < MIN_CONTRAST
        flat = F.interpolate(flat[:, None].float(), scale_factor=_BLOCK)[:, 0] > 0.5
        empty = self.uniform(n) < 0.03  # images without any texture
        photons = torch.where(empty[:, None, None], light * self.uniform(n, 1, 1), light * blurred)
        truth = truth.masked_fill((flat | empty[:, None, None])[:, None], torch.nan)
        X = self.quantize(self.expose(photons, read_noise), peak)
        step = self.label_stride
        return X, truth[..., step // 2 :: step, step // 2 :: step]

    @abstractmethod
    def _path(self):
        """Parameters (nodes, P) along a new path."""

    @abstractmethod
    def _scene(self):
        """Blurred and sharp image (size, size) in [0, 1], and parameters (P, size, size)."""

    def _renew(self):
        """Replace the oldest path of the pool."""
        parameters = torch.as_tensor(self._path(), dtype=torch.float32).to(self.device)
        self._paths[self._next] = parameters
        self._psfs[self._next] = self.psf_model.psf(parameters)
        self._next = (self._next + 1) % len(self._paths)

    def _light(self, light, path, place):
        """Spectrum of light (size, size) that PSFs send from places along a path."""
        if isinstance(place, float):
            psfs, parts = self._psfs[path, int(place)][None], light[None]
        else:
            node = torch.arange(self.nodes, device=self.device)[:, None, None]
            parts = light * (1 - (place - node).abs()).clamp(min=0)
            psfs = self._psfs[path]
        k = psfs.shape[-1]
        kernels = F.pad(psfs, (0, self.size - k, 0, self.size - k))
        kernels = kernels.roll((-(k // 2), -(k // 2)), (-2, -1))
        return (torch.fft.rfft2(parts) * torch.fft.rfft2(kernels)).sum(0)

    def _grid(self):
        """Coordinates of the field, about -1 to 1 over the image."""
        at = (torch.arange(self.size, device=self.device) - self.size / 2) * (2 / self.image_size)
        return at[:, None], at

    def _waves(self, strength):
        """A smooth random field of a standard deviation of about `strength`."""
        coarse = torch.randn(1, 1, 6, 6, generator=self.generator, device=self.device)
        shape = (self.size, self.size)
        return strength * F.interpolate(coarse, shape, mode="bicubic", align_corners=True)[0, 0]

    def _places(self):
        """Places 0 ... nodes - 1 along a path for each pixel."""
        rng, (y, x) = self.rng, self._grid()
        angle, b, a = rng.uniform(0, 2 * math.pi), *rng.uniform(-0.5, 0.5, 2)
        along = (y - b) * math.sin(angle) + (x - a) * math.cos(angle)
        kind, width = rng.randint(4), rng.uniform(0.4, 1.5)
        if kind == 0:
            t = 0.5 + along / (2 * width)
        elif kind == 1:
            t = torch.hypot(y - b, x - a) / width
        elif kind == 2:
            t = (along / width) ** 2
        else:
            t = 0.5 + self._waves(0.3)
        return t.clamp(0, 1) * (self.nodes - 1)

    def _central(self, field):
        start = (self.size - self.image_size) // 2
        stop = start + self.image_size
        return field[..., start:stop, start:stop]


class VaryingBlurStream(PathStream):
    """An endless, seeded stream of images whose PSF varies smoothly, and the PSF of each pixel.

    The parameters of an image go from one end of a path to the other: along a plane, around a
    point, across a line, or by chance; or they are the same everywhere. A path is straight in the
    encoding of the family. For the rest see `PathStream`, whose parameters it takes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import make_psf_model
    >>> sharp = np.random.RandomState(0).rand(1, 300, 300)
    >>> stream = VaryingBlurStream(sharp, psf_model=make_psf_model("zernike-1"), image_size=64,
    ...                            batch_size=2, pool_size=2, random_state=0)
    >>> X, y = stream.draw()
    >>> X.shape, y.shape
    (torch.Size([2, 64, 64]), torch.Size([2, 1, 16, 16]))
    """

    def _path(self):
        """A part of the way between two draws of the family."""
        ends = self.psf_model.encode(self.psf_model.sample(2, self.rng))
        share = self.rng.uniform(0, 0.7) * np.linspace(0, 1, self.nodes)[:, None]
        return self.psf_model.decode(
            self.psf_model.coherent((1 - share) * ends[:1] + share * ends[1:])
        )

    def _scene(self):
        rng, field = self.rng, self.field()
        path = rng.randint(len(self._paths))
        place = self._places() if rng.rand() < 0.7 else float(rng.randint(self.nodes))
        blurred = torch.fft.irfft2(self._light(field, path, place), s=field.shape).clamp(min=0)
        encoded = self.psf_model.encode(self._paths[path]).float()
        at = torch.as_tensor(place, device=self.device).expand(field.shape)
        first = at.long().clamp(max=self.nodes - 2)
        mixed = torch.lerp(encoded[first], encoded[first + 1], (at - first)[..., None])
        truth = self.psf_model.decode(mixed).movedim(-1, 0)
        return tuple(self._central(part) for part in (blurred, field, truth))


def _local_contrast(photons, read_noise):
    """Texture relative to noise, as `texture_contrast`, around each block: (n, H / 8, W / 8)."""
    mean = F.avg_pool2d(photons[:, None], _BLOCK)
    variance = F.avg_pool2d(photons[:, None] ** 2, _BLOCK) - mean**2
    # Rounding leaves about 1e-7 of the squared mean in a constant block.
    variance = variance * (variance > 1e-6 * mean**2)
    around = [
        F.avg_pool2d(part, _REACH, 1, _REACH // 2, count_include_pad=False)
        for part in (variance, mean)
    ]
    noise = around[1] + read_noise[:, None] ** 2
    return (around[0] / noise.clamp(min=1e-12)).sqrt()[:, 0]
