"""The camera: from expected photons to grey values, noise and all."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch

__all__ = ["Camera"]

# Range of each argument, both ends included.
_RANGES = {
    "quantum_efficiency": (0.0, 1.0),
    "read_noise": (0.0, float("inf")),
    "offset": (float("-inf"), float("inf")),
    "salt_pepper": (0.0, 1.0),
}
_MAX_BITS = 24  # float32 holds integers exactly up to 2^24


@dataclass(frozen=True, slots=True)
class Camera:
    r"""A camera with shot noise, read noise, linear gain, quantisation and dead pixels.

    .. math:: g = \mathrm{clip}\left(\gamma \left[ \mathrm{Poisson}(q\, n)
              + \mathcal{N}(0, \sigma^2) \right] + o\right)

    with n expected photons, q quantum efficiency, sigma read noise, gamma gain, o offset.

    Parameters
    ----------
    peak_photons : float, default=1e4
        Expected photons in the brightest pixel of a sharp image: what simulations scale to.
    quantum_efficiency : float, default=1.0
        Electrons per photon, 0 excluded.
    read_noise : float, default=2.0
        Standard deviation, electrons.
    gain : float, default=1.0
        Grey values per electron.
    offset : float, default=0.0
        Grey value of darkness.
    bits : int or None
        Rounds to integers and clips to ``[0, 2**bits - 1]``. None does neither.
    salt_pepper : float, default=0.0
        Probability that a pixel is dead: half of them read 0, half the white level,
        ``2**bits - 1`` or, without `bits`, the largest value of their image.

    Raises
    ------
    TypeError
        If an argument is not a number (`bits`: not an integer).
    ValueError
        If an argument is out of range or not finite.

    References
    ----------
    European Machine Vision Association, "EMVA Standard 1288: Standard for characterization of
    image sensors and cameras".

    Examples
    --------
    >>> import numpy as np
    >>> camera = Camera(peak_photons=1000, gain=0.5, offset=100, bits=16)
    >>> grey = camera.expose(np.full((64, 64), 1000.0), generator=0)
    >>> float(camera.to_grey(1000.0)), abs(float(grey.mean()) - 600) < 1
    (600.0, True)
    """

    peak_photons: float = 1e4
    quantum_efficiency: float = 1.0
    read_noise: float = 2.0
    gain: float = 1.0
    offset: float = 0.0
    bits: int | None = None
    salt_pepper: float = 0.0

    def __post_init__(self) -> None:
        for name in ("peak_photons", "quantum_efficiency", "gain"):
            value = _check_number(name, getattr(self, name))
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value!r}.")
        for name, (low, high) in _RANGES.items():
            value = _check_number(name, getattr(self, name))
            if not low <= value <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {value!r}.")
        _check_bits(self.bits)

    def to_grey(self, photons):
        """Return the noise-free grey value ``gain * quantum_efficiency * photons + offset``.

        Parameters
        ----------
        photons : float, ndarray or Tensor
            Expected photons.

        Returns
        -------
        float, ndarray or Tensor
            Grey values, neither rounded nor clipped; expectation of `expose` where it does not
            clip and no pixel is dead.
        """
        return (self.gain * self.quantum_efficiency) * photons + self.offset

    def expose(self, photons, generator=None):
        """Take a picture.

        Parameters
        ----------
        photons : ndarray or Tensor of shape (..., H, W)
            Expected photons, non-negative.
        generator : torch.Generator, int or None
            Source of randomness: a generator on the device of `photons`, or a seed. None draws a
            seed from the operating system. No global state is read or changed.

        Returns
        -------
        ndarray or Tensor of shape (..., H, W)
            Grey values: NumPy from NumPy, torch from torch; float64 from float64, else float32.

        Raises
        ------
        ValueError
            If `photons` are negative or not finite, or have fewer than two axes.
        TypeError
            If they are not real, or `generator` is of another kind.
        """
        is_tensor = isinstance(photons, torch.Tensor)
        mean = _as_photons(photons)
        generator = _as_generator(generator, mean.device)
        grey = torch.poisson(self.quantum_efficiency * mean, generator=generator)
        if self.read_noise > 0:
            grey += self.read_noise * _draw(torch.randn, mean, generator)
        grey = self.gain * grey + self.offset
        if self.bits is not None:
            grey = grey.round_().clamp_(0, 2**self.bits - 1)
        if self.salt_pepper > 0:
            grey = self._kill_pixels(grey, generator)
        return grey if is_tensor else grey.numpy()

    def _kill_pixels(self, grey: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.bits is None:
            white = grey.amax((-2, -1), keepdim=True)
        else:
            white = grey.new_tensor(2**self.bits - 1)
        draw = _draw(torch.rand, grey, generator)
        grey = torch.where(draw < self.salt_pepper / 2, torch.zeros_like(grey), grey)
        return torch.where(draw >= 1 - self.salt_pepper / 2, white, grey)


def _check_number(name: str, value) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    if not isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}.")
    return float(value)


def _check_bits(bits) -> None:
    if bits is None:
        return
    if isinstance(bits, (bool, np.bool_)) or not isinstance(bits, (int, np.integer)):
        raise TypeError(f"bits must be an integer or None, got {bits!r}.")
    if not 1 <= bits <= _MAX_BITS:
        raise ValueError(f"bits must be in [1, {_MAX_BITS}], got {bits!r}.")


def _as_photons(photons) -> torch.Tensor:
    """Return expected photons as a floating tensor, or raise."""
    if not isinstance(photons, torch.Tensor):
        array = np.asarray(photons)
        if array.dtype.kind not in "uifb":
            raise TypeError(f"photons must be real numbers, got dtype {array.dtype}.")
        kind = np.float64 if array.dtype == np.float64 else np.float32
        # a copy: torch refuses read-only and negatively strided memory
        photons = torch.from_numpy(np.array(array, dtype=kind, order="C"))
    elif photons.is_complex():
        raise TypeError(f"photons must be real numbers, got dtype {photons.dtype}.")
    if photons.dtype not in (torch.float32, torch.float64):
        photons = photons.float()
    if photons.ndim < 2:
        raise ValueError(f"photons must be images (..., H, W), got shape {tuple(photons.shape)}.")
    if not (torch.isfinite(photons) & (photons >= 0)).all():
        raise ValueError("photons must be finite and non-negative.")
    return photons.detach()  # a draw has no derivative


def _as_generator(generator, device: torch.device) -> torch.Generator:
    if isinstance(generator, torch.Generator):
        return generator
    fresh = torch.Generator(device=device)
    if generator is None:
        fresh.seed()
        return fresh
    if isinstance(generator, (bool, np.bool_)) or not isinstance(generator, (int, np.integer)):
        raise TypeError(
            f"generator must be a torch.Generator, an integer seed or None, got {generator!r}."
        )
    return fresh.manual_seed(int(generator))


def _draw(distribution, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return distribution(like.shape, generator=generator, dtype=like.dtype, device=like.device)
