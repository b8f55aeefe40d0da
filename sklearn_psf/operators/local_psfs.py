"""PSFs at places of an image, and the operator of the whole image or of one block of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .._validation import check_number
from .linear_operator import LinearOperator
from .psf_crop import crop_psfs
from .spatially_variant import make_operator

__all__ = ["Block", "LocalPSFs", "central_block", "split_blocks"]

# Below this size, without its halo, nearly all work of a block is halo.
_MIN_BLOCK = 32
# Bytes per pixel of the field, in float32: arrays of the iteration and of the image; what a mode
# adds, patches overlapping; and what is worked with on a patch, whose pixels are bounded. More
# modes than this have not been met at the tolerances in use; tiles need no more memory.
_ITERATION_BYTES, _MODE_BYTES, _PATCH_BYTES = 48, 6, 20
_MANY_MODES, _PATCH_PIXELS = 16, 2**19


class Block(NamedTuple):
    """A part of an image: `core` is wanted, `outer` is what is worked on, with a halo."""

    core: tuple[slice, slice]
    outer: tuple[slice, slice]

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the core lies within the outer part."""
        (r, c), (top, left) = self.core, (self.outer[0].start, self.outer[1].start)
        return slice(r.start - top, r.stop - top), slice(c.start - left, c.stop - left)


class LocalPSFs(NamedTuple):
    """PSFs on a grid of centres.

    Attributes
    ----------
    psfs : ndarray of shape (gy, gx, kh, kw)
        PSFs, odd-sized.
    rows, columns : ndarray of shape (gy,) and (gx,)
        Centres, pixels of the image.

    Examples
    --------
    >>> local = LocalPSFs.on_cells(np.ones((2, 1, 3, 3)) / 9, shape=(8, 6))
    >>> local.rows, local.columns
    (array([1.5, 5.5]), array([2.5]))
    >>> blocks = split_blocks((8, 6), (3, 3), n_psfs=2)
    >>> local.operator(blocks[0]).shape
    (8, 6)
    """

    psfs: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def on_cells(cls, psfs: np.ndarray, shape: Sequence[int]) -> "LocalPSFs":
        """Place PSFs at the centres of the cells of an even partition of an image.

        Parameters
        ----------
        psfs : ndarray of shape (gy, gx, kh, kw)
            PSFs.
        shape : (int, int)
            Height and width of the image, pixels.

        Returns
        -------
        LocalPSFs
            The PSFs with their centres.
        """
        rows, columns = (
            (np.arange(g) + 0.5) * n / g - 0.5 for g, n in zip(psfs.shape, shape, strict=False)
        )
        return cls(psfs, rows, columns)

    def crop(self, rtol: float) -> "LocalPSFs":
        """Cut the PSFs to what carries their light, see `crop_psfs`."""
        return self._replace(psfs=crop_psfs(self.psfs, rtol))

    def resized(self, kernel_shape: Sequence[int]) -> "LocalPSFs":
        """Cut or pad the PSFs to a size, each keeping its sum.

        Parameters
        ----------
        kernel_shape : (int, int)
            Height and width, odd.

        Returns
        -------
        LocalPSFs
            The PSFs in arrays of this size.
        """
        psfs = self.psfs
        for axis, size in zip((2, 3), kernel_shape, strict=True):
            change = (size - psfs.shape[axis]) // 2
            if change < 0:
                psfs = np.take(psfs, range(-change, psfs.shape[axis] + change), axis)
            else:
                pads = [(change * (k == axis),) * 2 for k in range(4)]
                psfs = np.pad(psfs, pads)
        total, kept = (p.sum((2, 3), keepdims=True) for p in (self.psfs, psfs))
        return self._replace(psfs=psfs * (total / kept))

    def operator(self, block: Block, **options) -> LinearOperator:
        """Build the operator of a block from the PSFs that reach it.

        Parameters
        ----------
        block : Block
            The part of the image.
        **options
            Arguments of `make_operator`.

        Returns
        -------
        LinearOperator
            Operator whose image is ``block.outer``.
        """
        down, across = block.outer
        rows = _reaching(self.rows, down, self.psfs.shape[2] // 2)
        columns = _reaching(self.columns, across, self.psfs.shape[3] // 2)
        return make_operator(
            np.ascontiguousarray(self.psfs[rows, columns]),
            self.rows[rows] - down.start,
            self.columns[columns] - across.start,
            (down.stop - down.start, across.stop - across.start),
            **options,
        )


def central_block(shape: Sequence[int], size: int) -> Block:
    """Cut the middle out of an image.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image, pixels.
    size : int
        Height and width of the middle, at most.

    Returns
    -------
    Block
        Without a halo.

    Examples
    --------
    >>> central_block((5, 100), 10).core
    (slice(0, 5, None), slice(45, 55, None))
    """
    down, across = (slice((n - min(n, size)) // 2, (n + min(n, size)) // 2) for n in shape)
    return Block((down, across), (down, across))


def _reaching(centres: np.ndarray, span: slice, pad: int) -> slice:
    """Select the centres that matter between ``span.start - pad`` and ``span.stop + pad``.

    One centre beyond the last needed one is kept on each side: triangular windows look that far.
    """
    first = int(np.searchsorted(centres, span.start - pad, side="right")) - 2
    last = int(np.searchsorted(centres, span.stop - 1 + pad, side="left")) + 2
    return slice(max(first, 0), min(last, len(centres)))


def split_blocks(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    n_psfs: int = 1,
    max_bytes: float | None = None,
) -> list[Block]:
    """Split an image into as few blocks as restore within a given memory.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image, pixels.
    kernel_shape : (int, int)
        Height and width of the PSFs, pixels. The halo on each side of a block is one and a half
        times that and 32 pixels.
    n_psfs : int, default=1
        Number of PSFs: an upper bound of the modes.
    max_bytes : float or None, default=None
        Approximate limit in float32; None makes one block.

    Returns
    -------
    list of Block
        Their cores tile the image.

    Raises
    ------
    ValueError
        If the limit is too small for the smallest useful block.

    Examples
    --------
    >>> [block.core[1] for block in split_blocks((64, 400), (5, 5), max_bytes=1_400_000)]
    [slice(0, 133, None), slice(133, 267, None), slice(267, 400, None)]
    """
    if max_bytes is None:
        return _cut(shape, (0, 0), (1, 1))
    check_number("max_memory", max_bytes, low=0, open_low=True)
    parts = [1, 1]
    while True:
        sizes = [math.ceil(n / p) for n, p in zip(shape, parts, strict=True)]
        need = _bytes_of(sizes, shape, kernel_shape, n_psfs)
        if need <= max_bytes:
            return _cut(shape, [_halo(kernel) for kernel in kernel_shape], parts)
        longer = int(sizes[1] >= sizes[0])
        if sizes[longer] <= _MIN_BLOCK:
            raise ValueError(
                f"max_memory={max_bytes!r} bytes is too little: PSFs of {tuple(kernel_shape)} "
                f"pixels need at least {need} bytes."
            )
        parts[longer] += 1


def _halo(kernel: int) -> int:
    # A pixel looks at the blurred image around it, and that at the sharp one around it: what is a
    # PSF away matters, what is further away hardly does. Total variation reaches beyond a small
    # PSF, by a pixel for each iteration at most.
    return kernel + kernel // 2 + 32


def _bytes_of(sizes, shape, kernel_shape, n_psfs) -> int:
    """Memory of a restoration, by what was measured of whole images, rounded up."""
    field = [
        min(size + 2 * _halo(kernel), n) + kernel
        for size, n, kernel in zip(sizes, shape, kernel_shape, strict=True)
    ]
    pixels = field[0] * field[1]
    per_pixel = _ITERATION_BYTES + _MODE_BYTES * min(n_psfs, _MANY_MODES)
    return pixels * per_pixel + _PATCH_BYTES * min(pixels, _PATCH_PIXELS)


def _cut(shape, halo, parts) -> list[Block]:
    axes = []
    for n, pad, count in zip(shape, halo, parts, strict=True):
        edges = np.linspace(0, n, count + 1).round().astype(int).tolist()
        axes.append(
            [
                (slice(a, b), slice(max(a - pad, 0), min(b + pad, n)))
                for a, b in zip(edges[:-1], edges[1:], strict=True)
            ]
        )
    return [Block((r, c), (ro, co)) for r, ro in axes[0] for c, co in axes[1]]
