"""How an image is cut into patches whose convolutions are cheap."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch

from .fft import fast_length, transform_cost

__all__ = ["Layout", "Patch", "cheapest_layout", "cut_layout", "useful_counts"]

# Patches are not made smaller than that: their overlap, and the calls, would cost too much.
_SMALLEST_FFT = 256
# Differences of cost that the measured constants do not tell apart.
_NEGLIGIBLE = 1.03


class Patch(NamedTuple):
    """A part of an image, and the part of the padded field that lights it."""

    image: tuple[slice, slice]
    field: tuple[slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image's part."""
        return _lengths(self.image)

    @property
    def field_shape(self) -> tuple[int, int]:
        """Height and width of the field's part."""
        return _lengths(self.field)


class Layout(NamedTuple):
    """Patches that tile an image, and the one size of their FFTs.

    A circular convolution of at least the size of the field's part gives the "valid" part of the
    linear one untouched: only its first kh - 1 rows and kw - 1 columns are wrapped.
    """

    fft_shape: tuple[int, int]
    patches: tuple[Patch, ...]

    @property
    def n_points(self) -> int:
        """Points of one FFT."""
        return self.fft_shape[0] * self.fft_shape[1]


def _lengths(slices: tuple[slice, slice]) -> tuple[int, int]:
    return slices[0].stop - slices[0].start, slices[1].stop - slices[1].start


def cut_layout(
    shape: Sequence[int], kernel_shape: Sequence[int], parts: Sequence[int] = (1, 1)
) -> Layout:
    """Cut an image into patches of nearly equal size.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image, pixels.
    kernel_shape : (int, int)
        Height and width of the PSFs, pixels.
    parts : (int, int), default=(1, 1)
        Number of patches along each axis.

    Returns
    -------
    Layout
        The patches.

    Examples
    --------
    >>> layout = cut_layout((100, 50), (9, 9), (2, 1))
    >>> layout.fft_shape, layout.patches[1].field
    ((60, 60), (slice(50, 108, None), slice(0, 58, None)))
    """
    axes, fft_shape = [], []
    for n, kernel, count in zip(shape, kernel_shape, parts, strict=True):
        edges = [round(i * n / count) for i in range(count + 1)]
        spans = list(zip(edges[:-1], edges[1:], strict=True))
        axes.append([(slice(a, b), slice(a, b + kernel - 1)) for a, b in spans])
        fft_shape.append(fast_length(max(b - a for a, b in spans) + kernel - 1))
    patches = [Patch((r, c), (rf, cf)) for r, rf in axes[0] for c, cf in axes[1]]
    return Layout((fft_shape[0], fft_shape[1]), tuple(patches))


def cheapest_layout(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    n_ffts: Callable[[Layout], float],
    device: torch.device,
) -> tuple[Layout, float]:
    """Find the layout of the least cost, one axis after the other.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image, pixels.
    kernel_shape : (int, int)
        Height and width of the PSFs, pixels.
    n_ffts : callable
        FFTs of one forward, of all patches together.
    device : torch.device
        Others than the CPU have no small cache to stay in, and get one patch.

    Returns
    -------
    layout : Layout
        The cheapest that was tried.
    cost : float
        Nanoseconds, see `transform_cost`.
    """

    @cache
    def cost(parts):
        layout = cut_layout(shape, kernel_shape, parts)
        return n_ffts(layout) * transform_cost(layout.n_points)

    best = (1, 1)
    if device.type == "cpu":
        counts = [useful_counts(n, k) for n, k in zip(shape, kernel_shape, strict=True)]
        start = None
        while best != start:
            start = best
            best = _cheapest_of([(rows, best[1]) for rows in counts[0]], cost)
            best = _cheapest_of([(best[0], columns) for columns in counts[1]], cost)
    return cut_layout(shape, kernel_shape, best), cost(best)


def _cheapest_of(choices, cost):
    # the last that is as good as any: small patches need less memory
    least = min(map(cost, choices))
    return [parts for parts in choices if cost(parts) <= _NEGLIGIBLE * least][-1]


def useful_counts(n: int, kernel: int) -> list[int]:
    """Return into how many patches an axis may be cut; a patch below a PSF is mostly overlap.

    Parameters
    ----------
    n : int
        Length of the image, pixels.
    kernel : int
        Length of the PSFs, pixels.

    Returns
    -------
    list of int
        Rising numbers, of patches whose transforms are shorter by a factor of 1.4 each.
    """
    counts = {1}
    target = fast_length(n + kernel - 1)
    while target >= max(_SMALLEST_FFT, 2 * kernel):
        counts.add(-(-n // (target - kernel + 1)))
        target = int(target / 2**0.5)
    return sorted(counts)
