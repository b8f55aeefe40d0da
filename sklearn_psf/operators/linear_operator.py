"""What every operator of this package shares.

An operator maps a *padded field* of ``(H + kh - 1, W + kw - 1)`` pixels to an image of
``(H, W)`` pixels. The field reaches half a PSF beyond the frame on each side, because light from
there arrives in the image: it is unknown, and estimated along with the rest. Nothing is assumed
about it, so no periodic, reflected or black border enters the model.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .fft import fft_cost
from .patches import cut_layout

__all__ = ["ORDERS", "LinearOperator", "as_shape", "as_tensor"]

ORDERS = ("scatter", "gather")

_DTYPES = (torch.float32, torch.float64)


def as_tensor(name: str, value, ndim: int, dtype=None, device=None) -> torch.Tensor:
    """Return `value` as a finite float32 or float64 tensor with `ndim` axes, or raise."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype not in (np.float32, np.float64) and array.dtype.kind != "c":
            array = array.astype(np.float32)  # torch does not know every integer type
        # torch warns about memory it may not write to, and does not know swapped bytes
        value = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
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
    low, high = torch.aminmax(tensor)  # NaN, if there is any; needs no array of flags
    if not (low > -torch.inf and high < torch.inf):
        raise ValueError(f"{name} contains NaN or infinity.")
    return tensor


def as_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return `shape` as two positive integers, or raise."""
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be a positive (height, width), got {tuple(shape)}.")
    return int(shape[0]), int(shape[1])


class LinearOperator:
    """A linear map from a padded field to an image, with its exact adjoint.

    Subclasses implement `_forward` and `_adjoint`, which write to a given array.

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
        FFTs of one `forward`, in units of that of the whole field by `fft_cost`.
    fft_sizes : dict
        How many real FFTs of which (height, width) one `forward` takes.
    real_line_ffts : dict
        How many times it takes real FFTs of the columns of (height, width).
    complex_line_ffts : dict
        How many times it takes complex FFTs of the rows of (height, width).
    spectra_bytes : int
        What the spectra of its PSFs or modes take.
    dtype : torch.dtype
        float32 or float64.
    device : torch.device
        Where it computes.
    """

    order: str = "scatter"
    fft_sizes: dict[tuple[int, int], int]
    real_line_ffts: dict[tuple[int, int], int]
    complex_line_ffts: dict[tuple[int, int], int]
    spectra_bytes: int = 0

    def __init__(
        self, shape: Sequence[int], kernel_shape: Sequence[int], like: torch.Tensor
    ) -> None:
        self.shape = as_shape(shape)
        self.kernel_shape = as_shape(kernel_shape)
        self.field_shape = (
            self.shape[0] + self.kernel_shape[0] - 1,
            self.shape[1] + self.kernel_shape[1] - 1,
        )
        self.dtype, self.device = like.dtype, like.device
        self.fft_sizes, self.real_line_ffts, self.complex_line_ffts = {}, {}, {}

    @property
    def n_ffts(self) -> float:
        """FFTs of one `forward`, in units of that of the whole field."""
        whole = cut_layout(self.shape, self.kernel_shape)
        cost = sum(count * fft_cost(h * w) for (h, w), count in self.fft_sizes.items())
        cost += sum(n * w * fft_cost(h) for (h, w), n in self.real_line_ffts.items())
        # a complex one is two real ones
        cost += sum(2 * n * h * fft_cost(w) for (h, w), n in self.complex_line_ffts.items())
        return cost / fft_cost(whole.n_points)

    def forward(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Blur a field.

        Parameters
        ----------
        x : Tensor of shape (..., H + kh - 1, W + kw - 1)
            Field.
        out : Tensor of shape (..., H, W) or None
            Where to write; None is a new tensor.

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
        return self._apply(self._forward, x, self.shape, out)

    def adjoint(self, y: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the exact transpose: ``<forward(x), y> = <x, adjoint(y)>``.

        Parameters
        ----------
        y : Tensor of shape (..., H, W)
            Image.
        out : Tensor of shape (..., H + kh - 1, W + kw - 1) or None
            Where to write; None is a new tensor.

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
        return self._apply(self._adjoint, y, self.field_shape, out)

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

    def _apply(self, function, value, shape, out):
        value = value.to(torch.promote_types(value.dtype, self.dtype))
        if out is None:
            out = value.new_empty((*value.shape[:-2], *shape))
        self._check("out", out, shape)
        function(value, out)
        return out

    def _forward(self, x: torch.Tensor, out: torch.Tensor) -> None:
        raise NotImplementedError

    def _adjoint(self, y: torch.Tensor, out: torch.Tensor) -> None:
        raise NotImplementedError
