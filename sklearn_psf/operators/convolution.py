"""Convolution with one PSF, and what operators that work patch by patch share."""

from collections.abc import Sequence

import torch

from .fft import PaddedFFT, multiply_conjugate
from .linear_operator import LinearOperator, as_tensor
from .patches import Layout, Patch, cheapest_layout

__all__ = ["Convolution", "PatchOperator"]


class PatchOperator(LinearOperator):
    """An operator that blurs patch by patch, each with FFTs of one size.

    Padding and cropping are each other's transposes, and the transpose of a circulant matrix has
    the conjugate spectrum, so the adjoint is exact.
    """

    _layout: Layout

    def _cheapest(self, n_spectra: int) -> Layout:
        """Choose the patches for as many modes and one spectrum of the image."""
        n_ffts = n_spectra + 1
        return cheapest_layout(
            self.shape,
            self.kernel_shape,
            lambda layout: n_ffts * len(layout.patches),
            self.device,
        )[0]

    def _place_field(self, fft: PaddedFFT, patch: Patch) -> torch.Tensor:
        return fft.room(*patch.field_shape)

    def _place_image(self, fft: PaddedFFT, patch: Patch) -> torch.Tensor:
        # the first kh - 1 rows of a circular convolution are wrapped, the image comes after them
        top, left = self.kernel_shape[0] - 1, self.kernel_shape[1] - 1
        return fft.room(*patch.shape, top, left)

    def _image_of(self, fft: PaddedFFT, spectrum: torch.Tensor, patch: Patch) -> torch.Tensor:
        top, left = self.kernel_shape[0] - 1, self.kernel_shape[1] - 1
        height, width = patch.shape
        return fft.inverse(spectrum, slice(top, top + height), slice(left, left + width))

    def _field_of(self, fft: PaddedFFT, spectrum: torch.Tensor, patch: Patch) -> torch.Tensor:
        height, width = patch.field_shape
        return fft.inverse(spectrum, slice(0, height), slice(0, width))


class Convolution(PatchOperator):
    """Blur by one PSF: the "valid" convolution of a padded field.

    ``y[i, j] = sum_ab h[a, b] x[i + kh - 1 - a, j + kw - 1 - b]``, by real FFTs of patches of
    a fast size with the spectrum of the PSF computed once.

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
        psf = as_tensor("psf", psf, 2, dtype, device)
        super().__init__(shape, psf.shape, psf)
        self._layout = self._cheapest(1)
        self.fft_sizes = {self._layout.fft_shape: 2 * len(self._layout.patches)}
        self._psf_spectrum = torch.fft.rfft2(psf, s=self._layout.fft_shape)
        self.spectra_bytes = self._psf_spectrum.nbytes

    def _forward(self, x: torch.Tensor, out: torch.Tensor) -> None:
        fft = PaddedFFT(self._layout.fft_shape, x)
        for patch in self._layout.patches:
            self._place_field(fft, patch).copy_(x[(..., *patch.field)])
            spectrum = fft.spectrum().mul_(self._psf_spectrum)
            out[(..., *patch.image)] = self._image_of(fft, spectrum, patch)

    def _adjoint(self, y: torch.Tensor, out: torch.Tensor) -> None:
        fft = PaddedFFT(self._layout.fft_shape, y)
        out.zero_()
        for patch in self._layout.patches:
            self._place_image(fft, patch).copy_(y[(..., *patch.image)])
            spectrum = multiply_conjugate(fft.spectrum(), self._psf_spectrum)
            out[(..., *patch.field)] += self._field_of(fft, spectrum, patch)
