"""Varying blur along one axis only, as of a tilted plane: half of the transforms are shared.

Where PSFs do not change along the rows, the weights of their modes pass through the transform along
the rows: it is done once, not for each mode, and for the whole width. What is left are
one-dimensional convolutions, one for each frequency, in parts so short that they need few modes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from mmap import mmap
from typing import NamedTuple

import numpy as np
import torch

from .fft import add_inverse_columns, fast_length, transform_columns
from .linear_operator import LinearOperator
from .patches import useful_counts
from .psf_modes import PSFModes
from .tile_convolution import Span, plan_axis
from .windows import reaching_windows

__all__ = ["AxisConvolution", "cheapest_along_axis"]

# Nanoseconds per point: of a real transform along rows, of a complex one across, and of what a
# mode is multiplied with; measured as those of `transform_cost`.
_NS_ALONG, _NS_ACROSS, _NS_PRODUCT = 1.2, 1.25, 0.6
# Longer transforms along rows leave the cache, and take memory.
_LONGEST = 2048
# Bytes of the modes that are worked on at a time, which stay in the cache.
_CHUNK_BYTES = 1e6
_TRANSFORMS = torch.fft.fft, torch.fft.ifft


class _Strip(NamedTuple):
    """Columns of the image, the spectra of their modes, and weights at each column."""

    span: Span
    spectra: torch.Tensor  # (K, frequencies, n_fft)
    weights: torch.Tensor  # (K, 1, 2 n), each twice: for real and imaginary parts
    conjugating: torch.Tensor  # the same, those of imaginary parts negative


class AxisConvolution(LinearOperator):
    """Varying blur whose PSFs change from column to column only, or from row to row only.

    The same map as `ModeConvolution`, with one transform along the axis of no change for all
    modes. Its adjoint swaps both transforms of each pair and is exact.

    Parameters
    ----------
    modes : PSFModes
        Modes of a grid (1, gx) of PSFs; along rows, of the transposed PSFs.
    windows : ndarray of shape (gx, length)
        Windows along the columns of the padded field ("scatter") or of the image ("gather").
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    counts : (int, int)
        Number of parts along the axis of no change, and along that of change.
    order : {"scatter", "gather"}, default="scatter"
        Where the PSF belongs.
    along_rows : bool, default=False
        Whether they change from row to row: then everything is done to transposed images.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.operators import windows
    >>> from sklearn_psf.operators.psf_modes import decompose_psfs
    >>> modes = decompose_psfs(torch.full((1, 2, 3, 3), 1 / 9), 1e-3)
    >>> _, wx = windows("bilinear", [0], [2, 4], (6, 7))
    >>> operator = AxisConvolution(modes, wx, (4, 5), (1, 2))
    >>> bool(torch.allclose(operator.forward(torch.ones(6, 7)), torch.ones(4, 5)))
    True
    """

    def __init__(
        self,
        modes: PSFModes,
        windows: np.ndarray,
        shape: Sequence[int],
        counts: Sequence[int],
        order: str = "scatter",
        along_rows: bool = False,
    ) -> None:
        kernel = modes.modes.shape[1:]
        super().__init__(shape, kernel[::-1] if along_rows else kernel, modes.modes)
        self.order, self._along_rows = order, along_rows
        height, width = self.shape[::-1] if along_rows else self.shape
        self._rows = _cut(height, kernel[0], counts[0], "gather")
        spans = _cut(width, kernel[1], counts[1], order)
        self._n_fft = _longest(self._rows), _longest(spans)
        signs = modes.modes.new_tensor([1.0, -1.0])
        self._signs = signs.repeat(max(self.field_shape))
        self._strips = self._transform(modes, windows, spans)
        self._count_ffts(width, kernel[1])

    def _transform(self, modes: PSFModes, windows: np.ndarray, spans: list[Span]) -> list[_Strip]:
        """Find the modes of each strip and transform them."""
        parts = [
            modes.restrict(slice(0, 1), reaching_windows(windows, span.window)) for span in spans
        ]
        shape = self._n_fft[0] // 2 + 1, self._n_fft[1]
        dtype = modes.modes.dtype.to_complex()
        n_modes = sum(len(mixture) for mixture, _ in parts)
        # Memory of their own: between arrays that come and go they would leave holes.
        memory = mmap(-1, n_modes * shape[0] * shape[1] * dtype.itemsize)
        all_spectra = torch.frombuffer(memory, dtype=dtype).reshape(n_modes, *shape)
        strips, first = [], 0
        for span, (mixture, coefficients) in zip(spans, parts, strict=True):
            spectra = all_spectra[first : first + len(mixture)]
            mixed = torch.einsum("lk,kij->lij", mixture, modes.modes)
            for mode, spectrum in zip(mixed, spectra, strict=True):
                columns = transform_columns(mode, self._n_fft[0])
                torch.fft.fft(columns, n=shape[1], out=spectrum)
            first += len(mixture)
            reaching = torch.as_tensor(windows[reaching_windows(windows, span.window), span.window])
            weights = (coefficients @ reaching.to(coefficients)).repeat_interleave(2, -1)
            conjugating = weights * self._signs[: weights.shape[-1]]
            strips.append(_Strip(span, spectra, weights, conjugating))
        return strips

    def _count_ffts(self, width: int, kernel: int) -> None:
        n_frequencies, parts = self._n_fft[0] // 2 + 1, len(self._rows)
        n_modes = [len(strip.spectra) for strip in self._strips]
        sizes = Counter((self._n_fft[0], n) for n in (width, width + kernel - 1))
        self.real_line_ffts = {lines: parts * count for lines, count in sizes.items()}
        across = parts * (sum(n_modes) + len(n_modes))
        self.complex_line_ffts = {(n_frequencies, self._n_fft[1]): across}
        self.spectra_bytes = sum(strip.spectra.nbytes for strip in self._strips)
        most = max(n_modes) * self._n_fft[1] * self._strips[0].spectra.element_size()
        n_chunks = min(-(-n_frequencies * most // int(_CHUNK_BYTES)), n_frequencies)
        self._chunk = -(-n_frequencies // n_chunks)

    def _forward(self, x: torch.Tensor, out: torch.Tensor) -> None:
        for one, target in _pairs(self._turn(x), self._turn(out)):
            for rows in self._rows:
                spectra = transform_columns(one[rows.field], self._n_fft[0])
                self._across(spectra, target.shape[1], adjoint=False)
                spectra, place = spectra[:, : target.shape[1]], _place(rows, "image")
                add_inverse_columns(spectra, self._n_fft[0], place, target[rows.image], alone=True)

    def _adjoint(self, y: torch.Tensor, out: torch.Tensor) -> None:
        alone = len(self._rows) == 1
        if not alone:
            out.zero_()
        for one, target in _pairs(self._turn(y), self._turn(out)):
            for rows in self._rows:
                options = {"skip": rows.skip, "width": target.shape[1]}
                spectra = transform_columns(one[rows.image], self._n_fft[0], **options)
                self._across(spectra, target.shape[1], adjoint=True)
                place = _place(rows, "field")
                add_inverse_columns(spectra, self._n_fft[0], place, target[rows.field], alone)

    def _turn(self, image: torch.Tensor) -> torch.Tensor:
        return image.mT if self._along_rows else image

    def _across(self, spectra: torch.Tensor, width: int, adjoint: bool) -> None:
        """Convolve each frequency, a row of `spectra`, across the columns; in its place."""
        first = (self.order == "scatter") != adjoint
        method = _weighted_first if first else _weighted_last
        read, write = ("image", "field") if adjoint else ("field", "image")
        n_modes = max(len(strip.spectra) for strip in self._strips) if first else 1
        shape = self._chunk, self._n_fft[1]
        buffer, taken = spectra.new_zeros(n_modes, *shape), None
        scratch = spectra.new_empty(max(len(strip.spectra) for strip in self._strips), *shape)
        for top in range(0, len(spectra), self._chunk):
            some = spectra[top : top + self._chunk]
            result = some.new_zeros(len(some), width)
            for strip in self._strips:
                places = _place(strip.span, read), _place(strip.span, write)
                if taken not in (None, places[0]):
                    buffer.zero_()  # of what strips before have left around this one
                taken = places[0]
                method(
                    some[:, getattr(strip.span, read)],
                    result[:, getattr(strip.span, write)],
                    strip._replace(spectra=strip.spectra[:, top : top + self._chunk]),
                    places,
                    buffer[: len(strip.spectra), : len(some)],
                    scratch[: len(strip.spectra), : len(some)],
                    self._signs if adjoint else None,
                )
            some[:, :width] = result


# The adjoint has the conjugate spectra: it conjugates what comes in and what goes out, where it
# is copied or multiplied anyway, and does the inverse transform first.


def _weighted_first(source, target, strip: _Strip, places, room, scratch, signs) -> None:
    """Add the sum of the convolutions of modes with what each weights."""
    weights = strip.weights if signs is None else strip.conjugating
    torch.mul(_floats(source), weights, out=_floats(room[..., places[0]]))
    there, back = _TRANSFORMS if signs is None else _TRANSFORMS[::-1]
    total = there(room, out=scratch).mul_(strip.spectra).sum(0)
    result = back(total)[:, places[1]]
    if signs is None:
        target += result
    else:
        result = _floats(result)
        _floats(target).addcmul_(result, signs[: result.shape[-1]])


def _weighted_last(source, target, strip: _Strip, places, room, scratch, signs) -> None:
    """Add the weighted sum of the convolutions of modes with one source."""
    room[0, :, places[0]] = source if signs is None else source.conj()
    there, back = _TRANSFORMS if signs is None else _TRANSFORMS[::-1]
    torch.mul(there(room[0]), strip.spectra, out=scratch)
    parts = _floats(back(scratch)[..., places[1]])
    target = _floats(target)
    weights = strip.weights if signs is None else strip.conjugating
    for part, weight in zip(parts, weights, strict=True):
        target.addcmul_(part, weight)


def _floats(x: torch.Tensor) -> torch.Tensor:
    """Return complex (..., n) as real (..., 2 n), a view: real numbers multiply it faster."""
    return torch.view_as_real(x).flatten(-2)


def _pairs(x: torch.Tensor, out: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x[index], out[index]) for index in np.ndindex(x.shape[:-2])]


def _cut(size: int, kernel: int, count: int, order: str) -> list[Span]:
    """Cut the field ("scatter") or the image ("gather") into nearly equal parts."""
    length = size + kernel - 1 if order == "scatter" else size
    part_of = np.arange(length) * count // length
    parts = (part_of == np.arange(count)[:, None]).astype(float)
    return [span for span in plan_axis(parts, size, kernel, order) if span is not None]


def _longest(spans: list[Span]) -> int:
    return max(span.n_fft for span in spans)


def _place(span: Span, name: str) -> slice:
    """Return where a part of the field or of the image lies in its transform."""
    part, start = getattr(span, name), span.skip if name == "image" else 0
    return slice(start, start + part.stop - part.start)


def cheapest_along_axis(modes: PSFModes, wy: np.ndarray, wx: np.ndarray, shape, order: str):
    """Find an operator for PSFs that change along one axis only.

    Parameters
    ----------
    modes : PSFModes
        Modes of all PSFs, in the order of the grid.
    wy, wx : ndarray of shape (gy, Hf) and (gx, Wf), or (gy, H) and (gx, W)
        Separable windows on the padded field ("scatter") or on the image ("gather").
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    order : {"scatter", "gather"}
        Where the PSF belongs.

    Returns
    -------
    build : callable or None
        Builds the operator; None where PSFs change along both axes, or along none, or where
        there are no small caches (other devices than the CPU).
    cost : float
        Of one forward, see `transform_cost`.
    """
    best: tuple[Callable[[], AxisConvolution] | None, float] = None, float("inf")
    if modes.modes.device.type != "cpu" or len(modes.modes) == 1:
        return best
    for along_rows, windows in ((False, wx), (True, wy)):
        line = modes.collapse(int(along_rows))
        if line is not None:
            size = shape[::-1] if along_rows else shape
            counts, cost = _cheapest_counts(line, windows, size, order)
            build = partial(AxisConvolution, line, windows, shape, counts, order, along_rows)
            best = min(best, (build, cost), key=lambda choice: choice[1])
    return best


def _cheapest_counts(modes: PSFModes, windows, size, order: str):
    kernel = modes.modes.shape[1:]
    n_rows = -(-size[0] // max(_LONGEST - kernel[0], kernel[0]))
    length = fast_length(-(-size[0] // n_rows) + kernel[0] - 1)
    along = _NS_ALONG * length * (2 * size[1] + kernel[1])
    best = (float("inf"), 1)
    for count in useful_counts(windows.shape[1], kernel[1]):
        spans = _cut(size[1], kernel[1], count, order)
        n_modes = sum(
            len(modes.restrict(slice(0, 1), reaching_windows(windows, s.window))[0]) for s in spans
        )
        per_point = (n_modes + len(spans)) * _NS_ACROSS + n_modes * _NS_PRODUCT
        best = min(best, (per_point * _longest(spans) * (length // 2 + 1), count))
    return (n_rows, best[1]), n_rows * (along + best[0])
