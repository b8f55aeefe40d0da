"""Convolution with one PSF, and what every operator of this package shares.

An operator maps a *padded field* of ``(H + kh - 1, W + kw - 1)`` pixels to an image of
``(H, W)`` pixels. The field reaches half a PSF beyond the frame on each side, because light from
there arrives in the image: it is unknown, and estimated along with the rest. Nothing is assumed
about it, so no periodic, reflected or black border enters the model.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.fft import next_fast_len

__all__ = ["ORDERS", "Convolution", "LinearOperator", "fft_cost"]

ORDERS = ("scatter", "gather")

_DTYPES = (torch.float32, torch.float64)


def fft_cost(n_points: float) -> float:
    """Return the cost of one FFT, ``n log2(n)``: the unit in which evaluations are compared.

    Parameters
    ----------
    n_points : float
        Number of points.

    Returns
    -------
    float
        Cost in points.

    Examples
    --------
    >>> fft_cost(256)
    2048.0
    """
    return float(n_points * math.log2(max(n_points, 2)))


def _fast_shape(height: int, width: int) -> tuple[int, int]:
    # the height is the complex axis of a real FFT, but sizes fit for the real one serve both
    return next_fast_len(height, real=True), next_fast_len(width, real=True)


def _as_tensor(name: str, value, ndim: int, dtype=None, device=None) -> torch.Tensor:
    """Return `value` as a finite float32 or float64 tensor with `ndim` axes, or raise."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype not in (np.float32, np.float64) and array.dtype.kind != "c":
            array = array.astype(np.float32)  # torch does not know every integer type
        # torch warns about memory it may not write to, and does not know swapped bytes
        value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    if value.is_complex():
        raise ValueError(f"{name} must be real, got dtype {value.dtype}.")
    if dtype is None:
        dtype = value.dtype if value.dtype in _DTYPES else torch.float32
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}.")
    tensor = value.to(dtype=dtype, device=device)
    if tensor.ndim != ndim or tensor.numel() == 0:
        raise ValueError(
            f"{name} must have {ndim} axes, none of length 0; got shape {tuple(tensor.shape)}."
        )
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} contains NaN or infinity.")
    return tensor


def _as_shape(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be a positive (height, width), got {tuple(shape)}.")
    return int(shape[0]), int(shape[1])


class LinearOperator:
    """A linear map from a padded field to an image, with its exact adjoint.

    Subclasses implement `_forward` and `_adjoint`.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image, pixels.
    kernel_shape : (int, int)
        Height and width of the PSFs, pixels.
    like : Tensor
        A tensor whose dtype and device the operator works in.

    Attributes
    ----------
    shape : (int, int)
        Image (H, W).
    field_shape : (int, int)
        Padded field (H + kh - 1, W + kw - 1); image pixel (i, j) is field pixel
        (i + kh // 2, j + kw // 2).
    kernel_shape : (int, int)
        PSF (kh, kw).
    order : {"scatter", "gather"}
        "scatter": the PSF belongs to the source of the light, ``y = sum_m h_m * (w_m x)``, which
        is the physics. "gather": to the pixel that receives it, ``y = sum_m w_m (h_m * x)``.
    n_ffts : float
        Full-size FFTs of one `forward`; small ones are counted by their cost.
    dtype : torch.dtype
        float32 or float64.
    device : torch.device
        Where it computes.
    """

    order: str = "scatter"
    n_ffts: float = 0.0

    def __init__(
        self, shape: Sequence[int], kernel_shape: Sequence[int], like: torch.Tensor
    ) -> None:
        self.shape = _as_shape(shape)
        self.kernel_shape = _as_shape(kernel_shape)
        self.field_shape = (
            self.shape[0] + self.kernel_shape[0] - 1,
            self.shape[1] + self.kernel_shape[1] - 1,
        )
        self.dtype, self.device = like.dtype, like.device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Blur a field.

        Parameters
        ----------
        x : Tensor of shape (..., H + kh - 1, W + kw - 1)
            Field.

        Returns
        -------
        Tensor of shape (..., H, W)
            Image.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        self._check("x", x, self.field_shape)
        return self._forward(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the exact transpose: ``<forward(x), y> = <x, adjoint(y)>``.

        Parameters
        ----------
        y : Tensor of shape (..., H, W)
            Image.

        Returns
        -------
        Tensor of shape (..., H + kh - 1, W + kw - 1)
            Field.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        self._check("y", y, self.shape)
        return self._adjoint(y)

    def crop(self, x: torch.Tensor) -> torch.Tensor:
        """Cut the frame out of a field: shape (..., H, W), aligned with the image.

        Parameters
        ----------
        x : Tensor of shape (..., H + kh - 1, W + kw - 1)
            Field.

        Returns
        -------
        Tensor of shape (..., H, W)
            A view of it.
        """
        self._check("x", x, self.field_shape)
        top, left = self.kernel_shape[0] // 2, self.kernel_shape[1] // 2
        return x[..., top : top + self.shape[0], left : left + self.shape[1]]

    def _check(self, name: str, value: torch.Tensor, shape: tuple[int, int]) -> None:
        if tuple(value.shape[-2:]) != shape:
            raise ValueError(f"{name} must have shape (..., {shape[0]}, {shape[1]}), got "
                             f"{tuple(value.shape)}.")  # fmt: skip

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    # The FFT plumbing of every operator. A circular convolution of the field's size gives the
    # "valid" part of the linear one untouched: only its first kh - 1 rows are wrapped. Padding
    # and cropping are each other's transposes, and the transpose of the circulant matrix has the
    # conjugate spectrum, so the adjoint is exact.
    @property
    def _fft_shape(self) -> tuple[int, int]:
        return _fast_shape(*self.field_shape)

    def _spectrum_of_field(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(x, s=self._fft_shape)

    def _spectrum_of_image(self, y: torch.Tensor) -> torch.Tensor:
        top, left = self.kernel_shape[0] - 1, self.kernel_shape[1] - 1
        embedded = torch.nn.functional.pad(y, (left, 0, top, 0))
        return torch.fft.rfft2(embedded, s=self._fft_shape)

    def _image_of_spectrum(self, spectrum: torch.Tensor) -> torch.Tensor:
        top, left = self.kernel_shape[0] - 1, self.kernel_shape[1] - 1
        full = torch.fft.irfft2(spectrum, s=self._fft_shape)
        return full[..., top : top + self.shape[0], left : left + self.shape[1]]

    def _field_of_spectrum(self, spectrum: torch.Tensor) -> torch.Tensor:
        full = torch.fft.irfft2(spectrum, s=self._fft_shape)
        return full[..., : self.field_shape[0], : self.field_shape[1]]


class Convolution(LinearOperator):
    """Blur by one PSF: the "valid" convolution of a padded field.

    ``y[i, j] = sum_ab h[a, b] x[i + kh - 1 - a, j + kw - 1 - b]``, by real FFTs of a fast size
    with the spectrum of the PSF computed once.

    Parameters
    ----------
    psf : array-like or Tensor of shape (kh, kw)
        The PSF; odd sizes are centred on a pixel.
    shape : (int, int)
        Height and width of the image, pixels.
    dtype : torch.dtype or None
        float32 or float64; None follows the PSF.
    device : torch.device, str or None
        None follows the PSF.

    Raises
    ------
    ValueError
        If the PSF is not 2-D, empty, complex or not finite, or the shape not positive.
    TypeError
        If the dtype is neither float32 nor float64.

    Examples
    --------
    >>> import torch
    >>> operator = Convolution(torch.full((3, 3), 1 / 9), shape=(4, 5))
    >>> operator.field_shape
    (6, 7)
    >>> bool(torch.allclose(operator.forward(torch.ones(6, 7)), torch.ones(4, 5)))
    True
    """

    def __init__(self, psf, shape: Sequence[int], *, dtype=None, device=None) -> None:
        psf = _as_tensor("psf", psf, 2, dtype, device)
        super().__init__(shape, psf.shape, psf)
        self.n_ffts = 2.0
        self._psf_spectrum = torch.fft.rfft2(psf, s=self._fft_shape)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._image_of_spectrum(self._spectrum_of_field(x) * self._psf_spectrum)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._field_of_spectrum(self._spectrum_of_image(y) * self._psf_spectrum.conj())
