"""From a pupil to a PSF: units, and the one place where transforms are normalised and centred.

The amplitude in the image is the Fourier integral of the pupil over the unit disk,

    A(x) = integral of exp(2 pi i (W(u) - f_c u.x)) du,      h(x) = f_c^2 / pi |A(x)|^2,

with x in pixels from the centre of the array, u in pupil radii, f_c the pupil's cut-off in cycles
per pixel and W the wavefront error in waves. By Parseval's theorem h sums to 1 over an unbounded
grid. A tilt W = a f_c u_x moves the PSF by +a pixels along x.

The integral is taken by Gaussian quadrature on the disk (Gauss-Legendre along each chord,
Gauss-Chebyshev of the second kind across the chords) as two matrix products. It costs no more than
an FFT of a Cartesian pupil, and its error falls exponentially with the number of nodes instead of
staircasing along the rim: the Airy pattern comes out to machine precision.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, pi, sqrt

import numpy as np
import torch
from scipy.special import j0

from .quadrature import chord_nodes, radial_nodes

__all__ = ["Optics", "pupil_psf", "radial_psf"]

NYQUIST_CUTOFF = 0.25


def is_number(value: object) -> bool:
    """Tell whether `value` is a real number; a truth value is none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Optics:
    """A microscope's optics, in micrometres.

    Parameters
    ----------
    na : float
        Numerical aperture.
    wavelength : float
        Vacuum wavelength of the detected light, micrometres.
    pixel_size : float
        Pitch of the camera's pixels, micrometres.
    refractive_index : float, default=1.0
        Index of the immersion medium.
    magnification : float, default=1.0
        From object to camera. Leave 1 and give object pixels as `pixel_size` instead.

    Raises
    ------
    ValueError
        If a value is not positive and finite, or the aperture exceeds the refractive index.

    Warns
    -----
    UserWarning
        If the image is undersampled (cut-off above 0.25 cycles per pixel).

    Examples
    --------
    >>> optics = Optics(na=0.3, wavelength=0.5, pixel_size=4.0, magnification=10)
    >>> round(optics.cutoff, 6)
    0.24
    >>> round(optics.waves_to_micrometres(1.0), 2)
    38.49
    """

    na: float
    wavelength: float
    pixel_size: float
    refractive_index: float = 1.0
    magnification: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not (is_number(value) and isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive finite number, got {value!r}.")
        if self.na > self.refractive_index:
            raise ValueError(
                f"na must not exceed refractive_index={self.refractive_index}, got {self.na!r}."
            )
        if self.wavelength > 20:
            raise ValueError(
                f"wavelength must be in micrometres (0.52 for green), got {self.wavelength!r}."
            )
        if self.cutoff > NYQUIST_CUTOFF * (1 + 1e-9):
            warnings.warn(
                f"Undersampled: the pupil cut-off is {self.cutoff:.3f} cycles per pixel, above "
                f"the Nyquist limit of {NYQUIST_CUTOFF}. Object pixels of at most "
                f"{self.wavelength * NYQUIST_CUTOFF / self.na:.4g} um would resolve the PSF; "
                f"these are {self.object_pixel:.4g} um.",
                UserWarning,
                stacklevel=3,
            )

    @property
    def object_pixel(self) -> float:
        """Size of a pixel in the object, micrometres."""
        return self.pixel_size / self.magnification

    @property
    def cutoff(self) -> float:
        """Cut-off of the pupil ``NA * object_pixel / wavelength``, cycles per pixel."""
        return self.na * self.object_pixel / self.wavelength

    @property
    def waves_per_micrometre(self) -> float:
        """Defocus coefficient (Noll 4, waves RMS) of one micrometre, paraxial."""
        return self.na**2 / (4 * sqrt(3) * self.refractive_index * self.wavelength)

    def micrometres_to_waves(self, z):
        """Convert a distance from focus to the paraxial defocus ``z NA^2 / (4 sqrt(3) n lambda)``.

        Parameters
        ----------
        z : float, ndarray or Tensor
            Distance from focus in the object, micrometres.

        Returns
        -------
        float, ndarray or Tensor
            Noll coefficient 4, waves RMS.
        """
        return z * self.waves_per_micrometre

    def waves_to_micrometres(self, focus):
        """Convert a defocus coefficient to a distance from focus, the inverse of the above.

        Parameters
        ----------
        focus : float, ndarray or Tensor
            Noll coefficient 4, waves RMS.

        Returns
        -------
        float, ndarray or Tensor
            Distance from focus in the object, micrometres.
        """
        return focus / self.waves_per_micrometre

    def defocus_wavefront(
        self, z: float | torch.Tensor, rho: torch.Tensor, exact: bool = True
    ) -> torch.Tensor:
        """Wavefront error of a defocus, in waves, zero on the axis.

        Parameters
        ----------
        z : float or Tensor
            Distance from focus, micrometres.
        rho : Tensor
            Pupil radius, 0 to 1.
        exact : bool
            ``n z / lambda (1 - sqrt(1 - (NA rho / n)^2))``; False takes its paraxial limit
            ``z NA^2 rho^2 / (2 n lambda)``.

        Returns
        -------
        Tensor
            Waves.

        References
        ----------
        S. F. Gibson and F. Lanni, "Diffraction by a circular aperture as a model for
        three-dimensional optical microscopy", J. Opt. Soc. Am. A 6 (1989).
        """
        n = self.refractive_index
        if exact:
            return n * z / self.wavelength * (1 - (1 - (self.na * rho / n) ** 2) ** 0.5)
        return z * self.na**2 * rho**2 / (2 * n * self.wavelength)


def _fourier_kernels(
    size: int,
    cutoff: float | torch.Tensor,
    n_nodes: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourier kernels of the two matrix products: (chords, nodes, size) and (size, chords)."""
    y, x, _ = (t.to(device) for t in chord_nodes(n_nodes))
    pixels = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    along = torch.exp(-2j * pi * cutoff * (x[:, :, None] * pixels))
    across = torch.exp(-2j * pi * cutoff * (pixels[:, None] * y))
    return along.to(dtype), across.to(dtype)


_cached_kernels = lru_cache(maxsize=8)(_fourier_kernels)


def pupil_psf(
    wavefront: torch.Tensor,
    cutoff: float | torch.Tensor,
    size: int,
    amplitude: torch.Tensor | None = None,
    normalize: bool = True,
) -> torch.Tensor:
    r"""Compute the intensity PSFs of a batch of pupils.

    .. math:: h(x) = \frac{f_c^2}{\pi} \left| \int_{|u| \le 1} P(u)
              e^{2 \pi i (W(u) - f_c u \cdot x)} du \right|^2

    Parameters
    ----------
    wavefront : Tensor of shape (n, k, k)
        Wavefront error W at the nodes of `chord_nodes(k)`, waves.
    cutoff : float or Tensor of shape ()
        Pupil cut-off f_c, cycles per pixel; differentiable as a tensor.
    size : int
        Height and width of the PSFs, pixels; the centre is pixel ``size // 2``.
    amplitude : Tensor of shape (k, k) or (n, k, k), optional
        Pupil transmission P; 1 by default.
    normalize : bool
        Divide each PSF by its sum. Otherwise the sum is the part of the energy within the array.

    Returns
    -------
    Tensor of shape (n, size, size)
        The PSFs, non-negative.

    References
    ----------
    J. W. Goodman, "Introduction to Fourier Optics", ch. 6.
    R. Soummer et al., "Fast computation of Lyot-style coronagraph propagation", Opt. Express 15
    (2007), for the matrix form.

    Examples
    --------
    >>> import torch
    >>> h = pupil_psf(torch.zeros(1, 96, 96), cutoff=0.25, size=127, normalize=False)
    >>> round(float(h[0, 63, 63]) / (torch.pi * 0.25**2), 4)
    1.0
    """
    n_nodes = wavefront.shape[-1]
    dtype = torch.complex128 if wavefront.dtype == torch.float64 else torch.complex64
    # A cut-off that is itself a parameter varies and is differentiated: nothing to keep.
    kernels = _fourier_kernels if isinstance(cutoff, torch.Tensor) else _cached_kernels
    along, across = kernels(size, cutoff, n_nodes, dtype, wavefront.device)
    weights = chord_nodes(n_nodes)[2].to(wavefront)
    magnitude = weights if amplitude is None else weights * amplitude
    pupil = torch.polar(magnitude.expand_as(wavefront).contiguous(), 2 * pi * wavefront)
    chords = torch.bmm(pupil.transpose(0, 1), along)  # (chord, n, x)
    field = across @ chords.transpose(0, 1)  # (n, y, x)
    psf = (field.real**2 + field.imag**2) * (cutoff**2 / pi)
    return _normalized(psf) if normalize else psf


def _normalized(psf: torch.Tensor) -> torch.Tensor:
    return psf / psf.sum((-2, -1), keepdim=True)


@lru_cache(maxsize=8)
def _radial_kernel(
    size: int, cutoff: float, n_nodes: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hankel kernel (nodes, radii) and the index of each pixel's radius."""
    squares = (np.arange(size) - size // 2) ** 2
    radii, index = np.unique(np.add.outer(squares, squares), return_inverse=True)
    rho = np.sqrt(radial_nodes(n_nodes)[0].numpy())
    kernel = j0(2 * np.pi * cutoff * np.outer(rho, np.sqrt(radii)))
    return (
        torch.from_numpy(kernel).to(device, dtype),
        torch.from_numpy(index.reshape(size, size)).to(device),
    )


def radial_psf(
    wavefront: torch.Tensor, cutoff: float, size: int, normalize: bool = True
) -> torch.Tensor:
    r"""Compute the PSFs of pupils without angular structure, by a Hankel integral.

    .. math:: h(r) = \pi f_c^2 \left| \int_0^1 J_0(2 \pi f_c r \rho)\,
              e^{2 \pi i W(\rho)}\, 2 \rho\, d\rho \right|^2

    the scalar Debye integral; ten times cheaper than `pupil_psf` and equal to it.

    Parameters
    ----------
    wavefront : Tensor of shape (n, k)
        W in waves at ``rho**2 = radial_nodes(k)[0]``.
    cutoff : float
        Pupil cut-off f_c, cycles per pixel.
    size : int
        Height and width of the PSFs, pixels.
    normalize : bool
        Divide each PSF by its sum.

    Returns
    -------
    Tensor of shape (n, size, size)
        The PSFs.

    References
    ----------
    M. Born and E. Wolf, "Principles of Optics", sec. 8.8.

    Examples
    --------
    >>> import torch
    >>> radial_psf(torch.zeros(1, 64), cutoff=0.25, size=5).shape
    torch.Size([1, 5, 5])
    """
    n_nodes = wavefront.shape[-1]
    kernel, index = _radial_kernel(size, float(cutoff), n_nodes, wavefront.dtype, wavefront.device)
    weights = radial_nodes(n_nodes)[1].to(wavefront)
    phase = 2 * pi * wavefront
    real = (weights * torch.cos(phase)) @ kernel
    imag = (weights * torch.sin(phase)) @ kernel
    psf = ((real**2 + imag**2) * (pi * cutoff**2))[:, index]
    return _normalized(psf) if normalize else psf
