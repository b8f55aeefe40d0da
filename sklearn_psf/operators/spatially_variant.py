"""Blur by a PSF that varies across the image, evaluated by PSF modes or by tiles.

``y = sum_m h_m * (w_m x)`` ("scatter": the PSF belongs to where the light comes from) or
``y = sum_m w_m (h_m * x)`` ("gather": to where it arrives), with windows ``w_m >= 0`` summing to
1. Both evaluations compute this sum: by tiles exactly, by modes up to the truncation of the PSFs.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .._validation import check_choice
from .convolution import (
    ORDERS,
    Convolution,
    LinearOperator,
    _as_shape,
    _as_tensor,
    _fast_shape,
    fft_cost,
)
from .psf_modes import compute_psf_modes, crop_psfs
from .tile_convolution import TileConvolution, plan_axis, tile_cost
from .windows import WINDOWS, windows

__all__ = [
    "WINDOWS",
    "ModeConvolution",
    "TileConvolution",
    "compute_psf_modes",
    "crop_psfs",
    "make_operator",
    "windows",
]

_METHODS = ("auto", "tiles", "modes")


class ModeConvolution(LinearOperator):
    """Varying blur as few convolutions with weighted modes.

    "scatter": ``y = sum_k e_k * (c_k x)``, coefficients on the padded field. "gather":
    ``y = sum_k c_k (e_k * x)``, coefficients on the image. K + 1 full-size FFTs each way.

    Parameters
    ----------
    modes : array-like or Tensor of shape (K, kh, kw)
        Modes e_k of the PSFs.
    coefficients : array-like or Tensor of shape (K, Hf, Wf) or (K, H, W)
        Weight c_k of each mode at each pixel of the field ("scatter") or image ("gather").
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    order : {"scatter", "gather"}, default="scatter"
        Where the PSF belongs.
    dtype : torch.dtype or None
        float32 or float64; None follows the modes.
    device : torch.device, str or None
        None follows the modes.

    Raises
    ------
    ValueError
        If shapes do not fit each other, values are not finite, or `order` is unknown.

    References
    ----------
    .. [1] R. C. Flicker and F. J. Rigaut, "Anisoplanatic deconvolution of adaptive optics
       images", J. Opt. Soc. Am. A 22, 504-513 (2005).

    Examples
    --------
    >>> modes = torch.full((1, 3, 3), 1 / 9)
    >>> operator = ModeConvolution(modes, torch.ones(1, 6, 7), shape=(4, 5))
    >>> operator.n_ffts
    2.0
    >>> bool(torch.allclose(operator.forward(torch.ones(6, 7)), torch.ones(4, 5)))
    True
    """

    def __init__(
        self,
        modes,
        coefficients,
        shape: Sequence[int],
        order: str = "scatter",
        *,
        dtype=None,
        device=None,
    ) -> None:
        check_choice("order", order, ORDERS)
        modes = _as_tensor("modes", modes, 3, dtype, device)
        super().__init__(shape, modes.shape[1:], modes)
        self.order, self.n_ffts = order, float(len(modes) + 1)
        self._coefficients = _as_tensor("coefficients", coefficients, 3, modes.dtype, modes.device)
        expected = (len(modes), *(self.field_shape if order == "scatter" else self.shape))
        if tuple(self._coefficients.shape) != expected:
            raise ValueError(
                f"coefficients must have shape {expected} for {len(modes)} modes in order "
                f"{order!r}, got {tuple(self._coefficients.shape)}."
            )
        self._spectra = torch.fft.rfft2(modes, s=self._fft_shape)
        if order == "scatter":
            # Padded once, so that no transform has to pad or crop its own field.
            self._coefficients = self._padded(self._coefficients)

    # One mode at a time: K fields of a large image at once would not fit the cache, nor always
    # the memory.
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        modes = zip(self._coefficients, self._spectra, strict=True)
        if self.order == "scatter":
            x = self._padded(x)
            return self._image_of_spectrum(
                _accumulate((self._spectrum_of_field(c * x), e) for c, e in modes)
            )
        x_spectrum = self._spectrum_of_field(x)
        return _accumulate((c, self._image_of_spectrum(x_spectrum * e)) for c, e in modes)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        modes = zip(self._coefficients, self._spectra, strict=True)
        if self.order == "gather":
            return self._field_of_spectrum(
                _accumulate((self._spectrum_of_image(c * y), e.conj()) for c, e in modes)
            )
        y_spectrum = self._spectrum_of_image(y)
        full = _accumulate(
            (c, torch.fft.irfft2(y_spectrum * e.conj(), s=self._fft_shape)) for c, e in modes
        )
        return full[..., : self.field_shape[0], : self.field_shape[1]].contiguous()

    def _padded(self, field: torch.Tensor) -> torch.Tensor:
        down, across = (n - m for n, m in zip(self._fft_shape, self.field_shape, strict=True))
        return torch.nn.functional.pad(field, (0, across, 0, down))


def _accumulate(products) -> torch.Tensor:
    """Sum ``a * b`` over pairs, in place and one pair at a time."""
    a, b = next(products)
    total = a * b
    for a, b in products:
        total.addcmul_(a, b)
    return total


def make_operator(
    psfs,
    rows,
    columns,
    shape: Sequence[int],
    window: str = "bilinear",
    order: str = "scatter",
    method: str = "auto",
    rtol: float = 1e-3,
    dtype=None,
    device=None,
) -> LinearOperator:
    """Build the operator of a grid of PSFs, evaluated the cheaper way.

    The cost counted is ``n log2(n)`` summed over the FFTs of one forward: K + 1 full-size ones
    for modes, two small ones per tile. One PSF makes a `Convolution`.

    Parameters
    ----------
    psfs : array-like or Tensor of shape (gy, gx, kh, kw)
        PSFs at the centres.
    rows, columns : array-like of shape (gy,) and (gx,)
        Centres, strictly increasing, in pixels of the image.
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    window : {"bilinear", "triangular", "hann"}, default="bilinear"
        How PSFs share the image between their centres, see `windows`.
    order : {"scatter", "gather"}, default="scatter"
        Where the PSF belongs.
    method : {"auto", "tiles", "modes"}, default="auto"
        How to evaluate the sum.
    rtol : float, default=1e-3
        Largest relative error of any PSF, for modes.
    dtype : torch.dtype or None
        float32 or float64; None follows the PSFs.
    device : torch.device, str or None
        None follows the PSFs.

    Returns
    -------
    LinearOperator
        A `Convolution`, `ModeConvolution` or `TileConvolution`.

    Raises
    ------
    ValueError
        If an argument is unknown, not finite or does not fit the others.

    Examples
    --------
    >>> psfs = np.full((2, 2, 5, 5), 1 / 25)
    >>> operator = make_operator(psfs, [8, 24], [8, 24], shape=(32, 32))
    >>> type(operator).__name__, operator.field_shape
    ('ModeConvolution', (36, 36))
    """
    check_choice("order", order, ORDERS)
    check_choice("method", method, _METHODS)
    shape = _as_shape(shape)
    psfs = _as_tensor("psfs", psfs, 4, dtype, device)
    grid_y, grid_x, *kernel = psfs.shape
    pad = (kernel[0], kernel[1]) if order == "scatter" else (1, 1)  # the field's, or none
    wy, wx = windows(
        window,
        np.asarray(rows, dtype=np.float64) + pad[0] // 2,
        np.asarray(columns, dtype=np.float64) + pad[1] // 2,
        (shape[0] + pad[0] - 1, shape[1] + pad[1] - 1),
    )
    if (len(wy), len(wx)) != (grid_y, grid_x):
        raise ValueError(
            f"psfs of shape {tuple(psfs.shape)} need {grid_y} rows and {grid_x} columns, got "
            f"{len(wy)} and {len(wx)}."
        )
    if grid_y * grid_x == 1:
        return Convolution(psfs[0, 0], shape)
    if method != "tiles":
        modes, coefficients = compute_psf_modes(psfs.flatten(0, 1), rtol)
        if method == "modes" or _modes_are_cheaper(len(modes), wy, wx, shape, kernel, order):
            weights = coefficients.T.reshape(-1, grid_y, grid_x)
            weights = torch.einsum(
                "kij,ih,jw->khw", weights, *(torch.as_tensor(w).to(weights) for w in (wy, wx))
            )
            return ModeConvolution(modes, weights, shape, order)
    return TileConvolution(psfs, wy, wx, shape, order)


def _modes_are_cheaper(n_modes, wy, wx, shape, kernel, order) -> bool:
    tiles = tile_cost(
        plan_axis(wy, shape[0], kernel[0], order), plan_axis(wx, shape[1], kernel[1], order)
    )
    height, width = _fast_shape(shape[0] + kernel[0] - 1, shape[1] + kernel[1] - 1)
    return (n_modes + 1) * fft_cost(height * width) <= tiles
