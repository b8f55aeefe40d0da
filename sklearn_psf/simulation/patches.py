"""Blurred patches with known PSF parameters: a function for tests, an endless stream for training.

A patch is cut from a larger blurred field, so that light from beyond its border reaches it as it
does in a microscope. Everything but the choice of crops runs as batched tensors on one device.
"""

import numpy as np
import torch
from scipy.fft import next_fast_len
from sklearn.utils import check_random_state
from torch.nn import functional as F

from .._validation import check_generator, check_image_list, check_number
from ..optics import Camera, make_psf_model
from .field_stream import FieldStream, crop, scaled

__all__ = ["PatchStream", "make_blurred_patches", "texture_contrast"]

# Texture (RMS within blocks of 8 pixels) must reach this many standard deviations of the noise.
MIN_CONTRAST = 1.0
_BLOCK = 8


def texture_contrast(photons: torch.Tensor, read_noise=0.0, weights=None) -> torch.Tensor:
    """RMS texture of sharp patches relative to the noise of their mean brightness.

    Texture is the standard deviation within blocks of 8 x 8 pixels, which slow shading does not
    raise; the noise is ``sqrt(mean + read_noise^2)``. A patch below `MIN_CONTRAST` is textureless:
    its blur cannot be read.

    Parameters
    ----------
    photons : Tensor of shape (n, H, W)
        Expected photon electrons, before blur.
    read_noise : float or Tensor of shape (n,)
        Electrons.
    weights : Tensor of shape (n, H, W) or None
        How much each pixel counts, from 0 to 1; of a block, its least. None counts all in full.

    Returns
    -------
    Tensor of shape (n,)
        Contrast to noise.

    Examples
    --------
    >>> import torch
    >>> texture_contrast(torch.full((1, 16, 16), 100.0))
    tensor([0.])
    """
    mean = F.avg_pool2d(photons[:, None], _BLOCK)
    variance = (F.avg_pool2d(photons[:, None] ** 2, _BLOCK) - mean**2).clamp(min=0)
    share = torch.ones_like(mean) if weights is None else -F.max_pool2d(-weights[:, None], _BLOCK)
    share = share / share.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    noise = (share * mean).sum((1, 2, 3)) + read_noise**2
    # Rounding leaves about 1e-7 of the squared mean in a constant patch.
    floor = 1e-6 * mean.square().mean((1, 2, 3))
    variance = (share * variance).sum((1, 2, 3))
    variance = torch.where(variance > floor, variance, torch.zeros_like(variance))
    return (variance / noise.clamp(min=1e-12)).sqrt()


def _blur(fields, index, psfs, patch):
    """Convolve field ``index[i]`` with PSF i by FFT and return the central patches, (n, p, p)."""
    size = fields.shape[-1]
    spectra = torch.fft.rfft2(fields)[index] * transfer(psfs, size)
    return central(torch.fft.irfft2(spectra, s=(size, size)), patch).clamp(min=0)


def transfer(psfs, size):
    """Fourier transforms (n, size, size // 2 + 1) of PSFs whose centre is put at the origin."""
    k = psfs.shape[-1]
    kernels = F.pad(psfs, (0, size - k, 0, size - k))
    return torch.fft.rfft2(kernels.roll((-(k // 2), -(k // 2)), (-2, -1)))


def central(fields, patch):
    """The middle (n, patch, patch) of fields."""
    start = (fields.shape[-1] - patch) // 2
    return fields[..., start : start + patch, start : start + patch]


def make_blurred_patches(
    images, n, *, psf_model="zernike-3", camera=None, patch_size=128, random_state=None
):
    """Blur random patches of sharp images with random PSFs, and photograph them.

    Parameters
    ----------
    images : array-like of shape (n_images, H, W) or list of 2-D arrays
        Sharp images in any unit. Each is scaled so that its brightest pixel receives
        ``camera.peak_photons``, its darkest none. One smaller than a patch with its margin is
        mirrored at the borders.
    n : int
        Number of patches. Images are drawn in proportion to their area.
    psf_model : str or PSFModel
        Family; parameters are drawn by its `sample`.
    camera : Camera or None
        ``Camera()`` by default.
    patch_size : int, default=128
        Height and width of a patch, pixels.
    random_state : int, RandomState or None
        Seed.

    Returns
    -------
    X : ndarray of shape (n, patch_size, patch_size)
        Blurred patches in grey values, float32.
    y : ndarray of shape (n, P)
        Parameters; a row of NaN where the sharp patch has no texture above the noise
        (`texture_contrast` below 1).

    Raises
    ------
    ValueError, TypeError
        If an image or argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> sharp = np.random.RandomState(0).rand(1, 200, 200)
    >>> X, y = make_blurred_patches(sharp, 3, psf_model="gaussian-1", random_state=0)
    >>> X.shape, y.shape
    ((3, 128, 128), (3, 1))
    """
    images = check_image_list(images, name="images")
    check_number("n", n, low=1, integer=True)
    check_number("patch_size", patch_size, low=16, integer=True)
    model = make_psf_model(psf_model) if isinstance(psf_model, str) else psf_model
    camera = Camera() if camera is None else camera
    rng = check_random_state(random_state)
    parameters = model.sample(n, rng)
    generator = check_generator(rng)
    sources = [scaled(image, "cpu") for image in images]
    areas = np.array([image.size for image in images], dtype=float)
    choice = rng.choice(len(sources), size=n, p=areas / areas.sum())
    size = next_fast_len(patch_size + model.size - 1, real=True)
    X = np.empty((n, patch_size, patch_size), np.float32)
    for start in range(0, n, 64):
        rows = slice(start, start + 64)
        fields = torch.stack([crop(sources[i], size, rng) for i in choice[rows]])
        photons = fields * camera.peak_photons
        psfs = model.psf(torch.as_tensor(parameters[rows], dtype=torch.float32))
        blurred = _blur(photons, torch.arange(len(fields)), psfs, patch_size)
        X[rows] = camera.expose(blurred, generator=generator).numpy()
        electrons = camera.quantum_efficiency * central(photons, patch_size)
        flat = texture_contrast(electrons, camera.read_noise) < MIN_CONTRAST
        parameters[rows][flat.numpy()] = np.nan
    return X, parameters


class PatchStream(FieldStream):
    """An endless, seeded stream of blurred patches for training; no patch is seen twice.

    Sharp crops are turned, mirrored, zoomed out, inverted, lifted by a background, blurred, shaded,
    exposed at 10^2.5 to 10^4.5 peak photons (of the sharp patch or of the blurred one, as often)
    with 0 to 5 electrons of read noise, and quantised. All that changes the geometry happens before
    the blur. PSFs come from a pool that is renewed a little with each batch.

    Parameters
    ----------
    images : list of 2-D arrays or array-like of shape (n_images, H, W)
        Sharp images.
    psf_model : PSFModel
        Family.
    patch_size : int, default=128
        Pixels.
    batch_size : int, default=64
        Patches per draw.
    camera : Camera or None
        None draws peak photons and read noise at random; a camera fixes them.
    pool_size : int, default=1024
        PSFs kept.
    device : str, torch.device or None
        Where patches are made.
    random_state : int, RandomState or None
        Seed.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import make_psf_model
    >>> sharp = np.random.RandomState(0).rand(1, 300, 300)
    >>> stream = PatchStream(sharp, psf_model=make_psf_model("gaussian-1"), batch_size=4,
    ...                      pool_size=8, random_state=0)
    >>> X, y = stream.draw()
    >>> X.shape, y.shape
    (torch.Size([4, 128, 128]), torch.Size([4, 1]))
    """

    margin = 44  # pixels of field beyond the patch: the radius of 1.5 waves of defocus
    textureless = 0.05  # share of patches without any texture
    reuse = 3  # PSFs that blur the same sharp field

    def __init__(
        self,
        images,
        *,
        psf_model,
        patch_size=128,
        batch_size=64,
        camera=None,
        pool_size=1024,
        device=None,
        random_state=None,
    ):
        size = next_fast_len(max(patch_size + 2 * self.margin, psf_model.size), real=True)
        super().__init__(images, size, camera, device, random_state)
        self.psf_model, self.patch_size, self.batch_size = psf_model, patch_size, batch_size
        self._parameters = torch.empty(0, len(psf_model.parameter_names), device=self.device)
        self._pool = torch.empty(0, psf_model.size, psf_model.size, device=self.device)
        self._renew(pool_size)

    def draw(self):
        """Return one batch: patches (n, size, size) and parameters (n, P), NaN where textureless.

        Returns
        -------
        X : Tensor of shape (batch_size, patch_size, patch_size)
            Grey values.
        y : Tensor of shape (batch_size, P)
            Parameters.
        """
        fields, index, chosen = self._choose()
        full_scale, read_noise = self.exposure(len(chosen))
        patches = _blur(fields, index, self._pool[chosen], self.patch_size)
        X, peak, empty = self._photograph(patches, full_scale, read_noise)
        sharp = central(fields, self.patch_size)[index] * peak  # shading is no texture
        return X, self._labels(chosen, sharp, read_noise, empty)

    def _choose(self):
        """Sharp fields, and of each patch the places of its field and of its PSF in the pool."""
        n = self.batch_size
        fresh = self._renew(max(1, n // self.psf_model.renewal), replace=True)
        chosen = torch.as_tensor(self.rng.randint(len(self._pool), size=n), device=self.device)
        chosen[: len(fresh)] = fresh  # every PSF of the pool is seen at least once
        fields = torch.stack([self.field() for _ in range(-(-n // self.reuse))])
        return fields, torch.arange(n, device=self.device) // self.reuse, chosen

    def _photograph(self, patches, full_scale, read_noise):
        """Grey values of blurred patches, photons of sharp pixels of value 1, and what is empty."""
        n = len(patches)
        peak = self._peak(patches, full_scale)
        shading = self.shading(n, self.patch_size)
        photons = patches * peak * shading
        empty = self.uniform(n) < self.textureless
        photons[empty] = (full_scale * shading * self.uniform(n, 1, 1))[empty]
        return self.quantize(self.expose(photons, read_noise), full_scale), peak, empty

    def _labels(self, chosen, sharp, read_noise, empty, weights=None):
        """Parameters of patches, NaN of those that are empty or without texture when sharp."""
        y = self._parameters[chosen].clone()
        contrast = texture_contrast(sharp, read_noise[:, 0, 0], weights)
        y[empty | (contrast < MIN_CONTRAST)] = torch.nan
        return y

    def _peak(self, patches, full_scale):
        """Photons of sharp pixels of value 1: half of the patches are exposed for their blur.

        Blur dims points by orders of magnitude, which the user makes up for by light.
        """
        brightest = patches.amax((-2, -1), keepdim=True).clamp(min=1e-4)
        if self.camera is not None:  # a camera says what the sharp peak is
            return full_scale
        return torch.where(
            self.uniform(len(patches), 1, 1) < 0.5, full_scale / brightest, full_scale
        )

    def _renew(self, n, replace=False):
        """Add n PSFs to the pool, or replace the oldest ones; return their places."""
        parameters = torch.as_tensor(self._sample(n), dtype=torch.float32).to(self.device)
        psfs = self.psf_model.psf(parameters)
        if not replace:
            self._parameters = torch.cat([self._parameters, parameters])
            self._pool, self._next = torch.cat([self._pool, psfs]), 0
            return torch.arange(len(self._pool), device=self.device)
        places = (self._next + torch.arange(len(psfs), device=self.device)) % len(self._pool)
        self._pool[places], self._parameters[places] = psfs, parameters
        self._next = (self._next + len(psfs)) % len(self._pool)
        return places

    def _sample(self, n):
        """New parameters (n, P) for the pool."""
        return self.psf_model.sample(n, self.rng)
