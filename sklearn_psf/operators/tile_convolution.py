"""Varying blur by tiles: one small convolution per window, laid out once and added up."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .._validation import check_choice
from .fft import PaddedFFT, fast_length, multiply_conjugate, transform_cost
from .linear_operator import ORDERS, LinearOperator, as_tensor

__all__ = ["TileConvolution", "plan_axis", "tile_cost"]


# Of a tile's two transforms and one product each way, against one of each of a mode: measured.
_PLAIN = 0.87


class Span(NamedTuple):
    """Plan of one window along one axis: what it reads, what it writes, and the FFT between."""

    window: slice  # support of the weights, on the field ("scatter") or the image ("gather")
    field: slice
    image: slice
    skip: int  # outputs of the linear convolution before the first wanted one
    n_fft: int


def plan_axis(weights: np.ndarray, size: int, kernel: int, order: str) -> list[Span | None]:
    """Lay out every window along one axis.

    Parameters
    ----------
    weights : ndarray of shape (g, field or image length)
        Weights of the windows.
    size : int
        Length of the image, pixels.
    kernel : int
        Length of the PSFs, pixels.
    order : {"scatter", "gather"}
        Where the PSF belongs.

    Returns
    -------
    list of Span or None
        One per window; None where a window has no support.
    """
    spans: list[Span | None] = []
    for weight in weights:
        support = np.flatnonzero(weight)
        if len(support) == 0:
            spans.append(None)
            continue
        start, stop = int(support[0]), int(support[-1]) + 1
        if order == "gather":
            field, image = slice(start, stop + kernel - 1), slice(start, stop)
            skip = kernel - 1
        else:
            # field pixel p lights the image pixels p - (kernel - 1) ... p
            field = slice(start, stop)
            image = slice(max(start - kernel + 1, 0), min(stop, size))
            skip = image.start - (start - kernel + 1)
        n_field, n_image = field.stop - field.start, image.stop - image.start
        # long enough that neither the wrapped part nor the end touches what is wanted
        n_fft = fast_length(max(n_field + kernel - 1 - skip, skip + n_image))
        spans.append(Span(slice(start, stop), field, image, skip, n_fft))
    return spans


def tile_cost(rows: list[Span | None], columns: list[Span | None]) -> float:
    """Return the cost of one forward over all tiles, see `transform_cost`.

    Parameters
    ----------
    rows, columns : list of Span or None
        Plans of the two axes.

    Returns
    -------
    float
        Nanoseconds.
    """
    return (
        2
        * _PLAIN
        * sum(
            transform_cost(row.n_fft * column.n_fft)
            for row in rows
            for column in columns
            if row and column
        )
    )


class TileConvolution(LinearOperator):
    """Varying blur as one small convolution per window; exact.

    Parameters
    ----------
    psfs : array-like or Tensor of shape (gy, gx, kh, kw)
        The PSF of each window.
    wy, wx : array-like of shape (gy, Hf) and (gx, Wf), or (gy, H) and (gx, W)
        Separable windows ``w_ij = wy_i wx_j`` on the padded field ("scatter") or on the image
        ("gather"), see `windows`.
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    order : {"scatter", "gather"}, default="scatter"
        Where the PSF belongs.
    dtype : torch.dtype or None
        float32 or float64; None follows the PSFs.
    device : torch.device, str or None
        None follows the PSFs.

    Raises
    ------
    ValueError
        If shapes do not fit each other, values are not finite, or `order` is unknown.

    References
    ----------
    .. [1] M. Hirsch, S. Sra, B. Schoelkopf and S. Harmeling, "Efficient filter flow for
       space-variant multiframe blind deconvolution", CVPR, 607-614 (2010).

    Examples
    --------
    >>> from sklearn_psf.operators import windows
    >>> wy, wx = windows("bilinear", [2, 4], [3], (6, 7))
    >>> operator = TileConvolution(torch.full((2, 1, 3, 3), 1 / 9), wy, wx, shape=(4, 5))
    >>> bool(torch.allclose(operator.forward(torch.ones(6, 7)), torch.ones(4, 5)))
    True
    """

    def __init__(
        self,
        psfs,
        wy,
        wx,
        shape: Sequence[int],
        order: str = "scatter",
        *,
        dtype=None,
        device=None,
    ) -> None:
        check_choice("order", order, ORDERS)
        psfs = as_tensor("psfs", psfs, 4, dtype, device)
        super().__init__(shape, psfs.shape[2:], psfs)
        self.order = order
        grid = self.field_shape if order == "scatter" else self.shape
        factors = []
        for name, w, length, count in zip(("wy", "wx"), (wy, wx), grid, psfs.shape, strict=False):
            w = as_tensor(name, w, 2, psfs.dtype, psfs.device)
            if tuple(w.shape) != (count, length):
                raise ValueError(
                    f"{name} must have shape {(count, length)} in order {order!r}, got "
                    f"{tuple(w.shape)}."
                )
            factors.append(w)
        self._wy, self._wx = factors
        self._plan(psfs)

    def _plan(self, psfs: torch.Tensor) -> None:
        """Lay out the tiles and transform their PSFs."""
        rows, columns = (
            plan_axis(w.cpu().numpy(), size, kernel, self.order)
            for w, size, kernel in zip(
                (self._wy, self._wx), self.shape, self.kernel_shape, strict=True
            )
        )
        self._tiles = []
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                if row and column:
                    fft_shape = (row.n_fft, column.n_fft)
                    weights = (self._wy[i, row.window, None], self._wx[j, column.window])
                    spectrum = torch.fft.rfft2(psfs[i, j], s=fft_shape)
                    self._tiles.append((row, column, weights, spectrum))
        sizes = Counter((row.n_fft, column.n_fft) for row, column, *_ in self._tiles)
        self.fft_sizes = {size: 2 * count for size, count in sizes.items()}
        self.spectra_bytes = sum(spectrum.nbytes for *_, spectrum in self._tiles)

    def _forward(self, x: torch.Tensor, out: torch.Tensor) -> None:
        out.zero_()
        for row, column, (wy, wx), spectrum in self._tiles:
            source, target = x[..., row.field, column.field], out[..., row.image, column.image]
            fft = PaddedFFT((row.n_fft, column.n_fft), source)
            room = fft.room(source.shape[-2], source.shape[-1])
            room.copy_(source)
            if self.order == "scatter":
                room.mul_(wy).mul_(wx)
            height, width = target.shape[-2:]
            part = fft.inverse(
                fft.spectrum().mul_(spectrum),
                slice(row.skip, row.skip + height),
                slice(column.skip, column.skip + width),
            )
            target += part.mul_(wy).mul_(wx) if self.order == "gather" else part

    def _adjoint(self, y: torch.Tensor, out: torch.Tensor) -> None:
        out.zero_()
        for row, column, (wy, wx), spectrum in self._tiles:
            source, target = y[..., row.image, column.image], out[..., row.field, column.field]
            fft = PaddedFFT((row.n_fft, column.n_fft), source)
            room = fft.room(source.shape[-2], source.shape[-1], row.skip, column.skip)
            room.copy_(source)
            if self.order == "gather":
                room.mul_(wy).mul_(wx)
            height, width = target.shape[-2:]
            product = multiply_conjugate(fft.spectrum(), spectrum)
            part = fft.inverse(product, slice(0, height), slice(0, width))
            target += part.mul_(wy).mul_(wx) if self.order == "scatter" else part
