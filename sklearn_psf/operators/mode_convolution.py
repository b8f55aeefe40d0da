"""Varying blur by PSF modes: few convolutions with weighted modes, patch by patch."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from .._validation import check_choice
from .convolution import PatchOperator
from .fft import PaddedFFT, multiply_conjugate
from .linear_operator import ORDERS, LinearOperator, as_tensor
from .patches import Layout, Patch, cheapest_layout
from .psf_modes import PSFModes
from .windows import reaching_windows

__all__ = ["ModeConvolution", "cheapest_modes"]


class _Part(NamedTuple):
    """A patch, the spectra of its modes, and their weights at its pixels."""

    patch: Patch
    spectra: torch.Tensor  # (K, ...)
    weights: "torch.Tensor | _WeightsOnGrid"  # [k] broadcasts to the patch


class _WeightsOnGrid:
    """Weights of modes, multiplied out of separable windows when they are asked for.

    That takes no longer than reading them from memory would, and K of them are K images.
    """

    def __init__(self, wy: torch.Tensor, wx: torch.Tensor, coefficients: torch.Tensor) -> None:
        self._wy = wy.T.contiguous()  # (h, gy)
        self._wx = coefficients @ wx  # (K, gy, w)
        self._one = wy.new_ones(())

    def __getitem__(self, k: int) -> torch.Tensor:
        # the first mode is the mean PSF, whose weight the windows share out to 1
        return self._wy @ self._wx[k] if k else self._one


class ModeConvolution(PatchOperator):
    """Varying blur as few convolutions with weighted modes.

    "scatter": ``y = sum_k e_k * (c_k x)``, coefficients on the padded field. "gather":
    ``y = sum_k c_k (e_k * x)``, coefficients on the image. K + 1 FFTs each way.

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
        modes = as_tensor("modes", modes, 3, dtype, device)
        LinearOperator.__init__(self, shape, modes.shape[1:], modes)
        self.order = order
        weights = as_tensor("coefficients", coefficients, 3, modes.dtype, modes.device)
        expected = (len(modes), *(self.field_shape if order == "scatter" else self.shape))
        if tuple(weights.shape) != expected:
            raise ValueError(
                f"coefficients must have shape {expected} for {len(modes)} modes in order "
                f"{order!r}, got {tuple(weights.shape)}."
            )
        self._layout = self._cheapest(len(modes))
        spectra = torch.fft.rfft2(modes, s=self._layout.fft_shape)
        self._set_parts(
            [
                _Part(patch, spectra, weights[(slice(None), *_weighted(patch, order))])
                for patch in self._layout.patches
            ]
        )

    @classmethod
    def on_grid(
        cls, modes: PSFModes, wy, wx, layout: Layout, shape: Sequence[int], order: str
    ) -> "ModeConvolution":
        """Build the operator of a grid of PSFs, of whose modes each patch takes what it needs.

        Parameters
        ----------
        modes : PSFModes
            Modes of all PSFs, in the order of the grid.
        wy, wx : ndarray of shape (gy, Hf) and (gx, Wf), or (gy, H) and (gx, W)
            Separable windows on the padded field ("scatter") or on the image ("gather").
        layout : Layout
            Patches.
        shape : (int, int)
            Height and width (H, W) of the image, pixels.
        order : {"scatter", "gather"}
            Where the PSF belongs.

        Returns
        -------
        ModeConvolution
            The operator.
        """
        operator = cls.__new__(cls)
        LinearOperator.__init__(operator, shape, modes.modes.shape[1:], modes.modes)
        operator.order, operator._layout = order, layout
        spectra = torch.fft.rfft2(modes.modes, s=layout.fft_shape)
        wy_tensor, wx_tensor = (torch.as_tensor(w).to(modes.modes) for w in (wy, wx))
        parts = []
        for patch in layout.patches:
            rows, columns = _weighted(patch, order)
            down, across = reaching_windows(wy, rows), reaching_windows(wx, columns)
            mixture, coefficients = modes.restrict(down, across)
            weights = _WeightsOnGrid(
                wy_tensor[down, rows], wx_tensor[across, columns], coefficients
            )
            parts.append(_Part(patch, _mix(mixture, spectra), weights))
        operator._set_parts(parts)
        return operator

    def _set_parts(self, parts: list[_Part]) -> None:
        self._parts = parts
        self.fft_sizes = {self._layout.fft_shape: sum(1 + len(part.spectra) for part in parts)}
        different = {part.spectra.data_ptr(): part.spectra.nbytes for part in parts}
        self.spectra_bytes = sum(different.values())

    def _forward(self, x: torch.Tensor, out: torch.Tensor) -> None:
        fft = PaddedFFT(self._layout.fft_shape, x)
        blur = self._blur_scattered if self.order == "scatter" else self._blur_gathered
        for part in self._parts:
            blur(fft, part, x[(..., *part.patch.field)], out[(..., *part.patch.image)])

    def _adjoint(self, y: torch.Tensor, out: torch.Tensor) -> None:
        fft = PaddedFFT(self._layout.fft_shape, y)
        back = self._back_scattered if self.order == "scatter" else self._back_gathered
        out.zero_()
        for part in self._parts:
            back(fft, part, y[(..., *part.patch.image)], out[(..., *part.patch.field)])

    # One mode at a time: K fields at once would not fit the cache, nor always the memory.
    def _blur_scattered(self, fft, part: _Part, source, target) -> None:
        room = self._place_field(fft, part.patch)
        torch.mul(part.weights[0], source, out=room)
        total = fft.spectrum().mul_(part.spectra[0])
        for k, mode in enumerate(part.spectra[1:], 1):
            torch.mul(part.weights[k], source, out=room)
            total.addcmul_(fft.spectrum(), mode)
        target.copy_(self._image_of(fft, total, part.patch))

    def _blur_gathered(self, fft, part: _Part, source, target) -> None:
        self._place_field(fft, part.patch).copy_(source)
        spectrum = fft.spectrum()
        target.zero_()
        for k, mode in enumerate(part.spectra):
            target.addcmul_(part.weights[k], self._image_of(fft, spectrum * mode, part.patch))

    def _back_scattered(self, fft, part: _Part, source, target) -> None:
        self._place_image(fft, part.patch).copy_(source)
        spectrum = fft.spectrum().conj_physical_()
        for k, mode in enumerate(part.spectra):
            product = torch.mul(spectrum, mode).conj_physical_()
            target.addcmul_(part.weights[k], self._field_of(fft, product, part.patch))

    def _back_gathered(self, fft, part: _Part, source, target) -> None:
        room = self._place_image(fft, part.patch)
        torch.mul(part.weights[0], source, out=room)
        total = multiply_conjugate(fft.spectrum(), part.spectra[0])
        for k, mode in enumerate(part.spectra[1:], 1):
            torch.mul(part.weights[k], source, out=room)
            total += multiply_conjugate(fft.spectrum(), mode)
        target += self._field_of(fft, total, part.patch)


def _mix(mixture: torch.Tensor, spectra: torch.Tensor) -> torch.Tensor:
    # as real numbers, of which a complex one is two
    mixed = mixture @ torch.view_as_real(spectra).flatten(1)
    return torch.view_as_complex(mixed.reshape(len(mixture), *spectra.shape[1:], 2))


def _weighted(patch: Patch, order: str) -> tuple[slice, slice]:
    return patch.field if order == "scatter" else patch.image


def cheapest_modes(modes: PSFModes, wy: np.ndarray, wx: np.ndarray, shape, order: str):
    """Find the patches with which modes are cheapest.

    Parameters
    ----------
    modes : PSFModes
        Modes of all PSFs, in the order of the grid.
    wy, wx : ndarray
        Separable windows, see `ModeConvolution.on_grid`.
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    order : {"scatter", "gather"}
        Where the PSF belongs.

    Returns
    -------
    build : callable
        Builds the operator.
    cost : float
        Of one forward, see `transform_cost`.
    """
    like = modes.modes

    def n_ffts(layout):
        count = 0
        for patch in layout.patches:
            part = [
                reaching_windows(w, s)
                for w, s in zip((wy, wx), _weighted(patch, order), strict=True)
            ]
            count += 1 + len(modes.restrict(*part)[0])
        return count

    layout, cost = cheapest_layout(shape, tuple(like.shape[1:]), n_ffts, like.device)
    return partial(ModeConvolution.on_grid, modes, wy, wx, layout, shape, order), cost
