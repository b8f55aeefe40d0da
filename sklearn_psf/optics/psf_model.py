"""What all PSF families share: checks, kinds of arrays, batches, sampling."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike

from .pupil import Optics, is_number

__all__ = ["PSFModel"]

_CHUNK = 64  # PSFs computed at a time: bounds the memory of the quadrature


class PSFModel:
    """A PSF family: what its parameters mean and how they become PSFs.

    Parameters
    ----------
    cutoff : float, default=0.25
        Pupil cut-off, cycles per pixel. 0.25 is Nyquist sampling.
    size : int, default=127
        Height and width of the PSFs, pixels; odd.
    optics : Optics or None
        Needed only by families whose parameters are in micrometres.

    Attributes
    ----------
    name : str
        Name of the family.
    parameter_names, units : tuple of str
        One per parameter.
    bounds : ndarray of shape (P, 2)
        Range that `sample` draws from and that regression is trained on.
    periods : tuple of float or None
        Period of a parameter that is an angle, None for the others.
    n_encoded : int
        Length of the encoding.
    turns : bool
        Whether `turned` says what a turned PSF is.
    settings : dict
        Arguments that rebuild the family by `make_psf_model` (but for the optics).
    """

    name: str
    parameter_names: tuple[str, ...]
    units: tuple[str, ...]
    periods: tuple[float | None, ...]
    n_encoded: int
    turns = False
    renewal = 8  # a stream that draws PSFs for a training uses each about this often

    def __init__(self, cutoff: float = 0.25, size: int = 127, optics: Optics | None = None):
        if not (is_number(cutoff) and 0 < cutoff <= 0.5):
            raise ValueError(f"cutoff must be in (0, 0.5] cycles per pixel, got {cutoff!r}.")
        if not (is_number(size) and size >= 3 and size % 2 == 1):
            raise ValueError(f"size must be an odd integer of at least 3, got {size!r}.")
        self.cutoff, self.size, self.optics = float(cutoff), int(size), optics

    @property
    def bounds(self) -> np.ndarray:
        """Range of each parameter, shape (P, 2)."""
        return np.array(self._bounds())

    @property
    def settings(self) -> dict:
        """Arguments of `make_psf_model` that rebuild this family."""
        return {"name": self.name, "cutoff": self.cutoff, "size": self.size}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in list(self.settings.items())[1:])
        return f"make_psf_model({self.name!r}, {arguments})"

    def psf(self, parameters: ArrayLike | torch.Tensor):
        """Compute PSFs.

        Parameters
        ----------
        parameters : array-like or Tensor of shape (n, P)
            Family parameters; values outside `bounds` are allowed.

        Returns
        -------
        ndarray or Tensor of shape (n, size, size)
            Non-negative, sum 1, centred; of the kind and precision given (float32 or float64).

        Raises
        ------
        ValueError
            If the shape is wrong or a value is not finite.
        TypeError
            If the parameters are not real numbers.
        """
        p, back = _to_tensor("parameters", parameters)
        if p.ndim != 2 or p.shape[1] != len(self.parameter_names):
            raise ValueError(
                f"parameters of {self.name} must have shape (n, {len(self.parameter_names)}) for "
                f"{self.parameter_names}, got {tuple(p.shape)}."
            )
        if not torch.isfinite(p).all():
            raise ValueError("parameters must be finite, got NaN or infinity.")
        if len(p) == 0:
            return back(p.new_empty((0, self.size, self.size)))
        return back(torch.cat([self._psf(chunk) for chunk in p.split(_CHUNK)]))

    def encode(self, parameters: ArrayLike | torch.Tensor):
        """Return the coordinates in which parameters are regressed and averaged.

        Equal encodings mean equal PSFs, and the encoding is continuous (see `optics.encodings`).

        Parameters
        ----------
        parameters : array-like or Tensor of shape (..., P)
            Family parameters.

        Returns
        -------
        ndarray or Tensor of shape (..., n_encoded)
            Coordinates; of the kind and precision given. NaN stays NaN.

        Raises
        ------
        ValueError
            If the last axis has another length.
        TypeError
            If the parameters are not real numbers.
        """
        p, back = _to_tensor("parameters", parameters)
        self._check_last_axis("parameters", p, len(self.parameter_names))
        return back(self._encode(p))

    def decode(self, encoded: ArrayLike | torch.Tensor):
        """Return the parameters of coordinates, or of an average of coordinates.

        Parameters
        ----------
        encoded : array-like or Tensor of shape (..., n_encoded)
            Coordinates.

        Returns
        -------
        ndarray or Tensor of shape (..., P)
            Family parameters; of the kind and precision given. NaN stays NaN.

        Raises
        ------
        ValueError
            If the last axis has another length.
        TypeError
            If the coordinates are not real numbers.
        """
        e, back = _to_tensor("encoded", encoded)
        self._check_last_axis("encoded", e, self.n_encoded)
        return back(self._decode(e))

    def coherent(self, encoded: ArrayLike | torch.Tensor):
        """Return averaged encodings with the amplitude on which their directions agree.

        The amplitude of an angle (a cylinder) is positive, so that its average stays large even
        where the angles contradict each other, as they do where there is nothing to see. What the
        averaged vectors have in common is shorter, and is the amplitude of the common PSF.

        Parameters
        ----------
        encoded : array-like or Tensor of shape (..., E)
            Averages of encodings.

        Returns
        -------
        ndarray or Tensor of shape (..., E)
            The same where all directions agree, or the family has none.

        Raises
        ------
        ValueError
            If the last axis is not of length `n_encoded`.
        """
        e, back = _to_tensor("encoded", encoded)
        self._check_last_axis("encoded", e, self.n_encoded)
        return back(self._coherent(e))

    def _check_last_axis(self, name: str, values: torch.Tensor, length: int) -> None:
        if values.ndim == 0 or values.shape[-1] != length:
            raise ValueError(
                f"{name} of {self.name} must have shape (..., {length}), got {tuple(values.shape)}."
            )

    def sample(self, n: int, random_state: int | np.random.RandomState | None = None) -> np.ndarray:
        """Draw parameters uniformly within the bounds.

        Parameters
        ----------
        n : int
            Number of draws.
        random_state : int, RandomState or None
            Seed.

        Returns
        -------
        ndarray of shape (n, P)
            Parameters.
        """
        low, high = self.bounds.T
        return _random(random_state).uniform(low, high, size=(n, len(low)))

    def turned(
        self, parameters: torch.Tensor, angle: torch.Tensor, mirrored: torch.Tensor
    ) -> torch.Tensor:
        """Return the parameters of PSFs that are mirrored and then turned.

        Parameters
        ----------
        parameters : Tensor of shape (n, P)
            Parameters.
        angle : Tensor of shape (n,)
            Radians from the column (x) axis towards the row (y) axis.
        mirrored : bool Tensor of shape (n,)
            Whether the order of the rows is reversed first.

        Returns
        -------
        Tensor of shape (n, P)
            Parameters.

        Raises
        ------
        ValueError
            If the family does not turn (`turns`), for instance because its lens has an axis.

        Examples
        --------
        >>> import torch
        >>> from sklearn_psf.optics import make_psf_model
        >>> quarter, no = torch.tensor([torch.pi / 2]), torch.tensor([False])
        >>> motion = torch.tensor([[0.0, 7.0, 0.5, 0.2]])
        >>> make_psf_model("motion").turned(motion, quarter, no).abs().round(decimals=3)
        tensor([[7.0000, 0.0000, 0.5000, 0.2000]])
        """
        if not self.turns:
            raise ValueError(f"PSFs of {self!r} cannot be turned.")
        return self._turned(parameters, angle, mirrored)

    def _bounds(self) -> list[tuple[float, float]]:
        raise NotImplementedError

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _turned(self, parameters, angle, mirrored) -> torch.Tensor:
        raise NotImplementedError

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return p.clone()

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return e.clone()

    def _coherent(self, e: torch.Tensor) -> torch.Tensor:
        return e.clone()


def _random(random_state) -> np.random.RandomState:
    """Return the generator that a scikit-learn `random_state` stands for."""
    if isinstance(random_state, np.random.RandomState):
        return random_state
    try:
        return np.random.RandomState(random_state)
    except (TypeError, ValueError):
        raise ValueError(
            f"random_state must be None, an int or a RandomState, got {random_state!r}."
        ) from None


def _to_tensor(name: str, values: ArrayLike | torch.Tensor) -> tuple[torch.Tensor, Callable]:
    """Return a floating tensor and the function that brings results back to the caller's kind."""
    if isinstance(values, torch.Tensor):
        if values.is_complex():
            raise TypeError(f"{name} must be real numbers, got dtype {values.dtype}.")
        return (values if values.dtype == torch.float64 else values.float()), lambda t: t
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}.")
    kind = np.float32 if array.dtype == np.float32 else np.float64
    return torch.from_numpy(np.array(array, dtype=kind)), lambda t: t.numpy()
