"""One block of a large image: which windows and pixels it holds, how it is read and restored.

Everything here is NumPy on one block; who holds the blocks does not matter.
"""

import math
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .._validation import check_images
from ..operators import Block
from ..richardson_lucy import richardson_lucy

__all__ = ["WindowAxis", "crop_map", "deal_windows", "even_chunks", "read_block", "restore_block"]


class WindowAxis(NamedTuple):
    """How windows along one axis are dealt out to blocks."""

    starts: tuple  # first window of each block, and the number of windows
    edges: tuple  # first pixel of each block's core, and the length of the image
    before: int  # halo in pixels
    after: int
    stride: int  # in pixels of the network's sampling
    patch: int
    factor: float  # image pixels per pixel of the network's sampling

    @property
    def chunks(self):
        return tuple(np.diff(self.edges).tolist())

    @property
    def windows(self):
        return tuple(np.diff(self.starts).tolist())


def deal_windows(length, working_length, patch, stride, chunk_size):
    """Deal the windows along one axis out to blocks of about `chunk_size` image pixels."""
    factor = length / working_length
    n_windows = (working_length - patch) // stride + 1
    # what resampling needs besides: the reach of its filter and of the interpolation
    margin = 0 if factor == 1 else math.ceil(2 * max(factor - 1, 0)) + 3
    after = max(math.ceil((patch - stride) * factor), 0) + margin
    step = stride * factor
    per_block = max(math.ceil(chunk_size / step), math.ceil((after + margin + 1) / step))
    n_blocks = max(1, n_windows // per_block)
    starts = np.linspace(0, n_windows, n_blocks + 1).round().astype(int).tolist()
    edges = [math.floor(start * step) for start in starts[:-1]] + [length]
    if n_blocks == 1:
        after = margin = 0
    return WindowAxis(tuple(starts), tuple(edges), margin, after, stride, patch, factor)


def read_block(block, mapper, axes, block_id=None):
    """Read the windows of one block (1, h, w) and its halo."""
    image = check_images(block, name="images")[0]
    corners = []
    for k, (axis, b) in enumerate(zip(axes, block_id[1:], strict=False)):
        first, last = axis.starts[b], axis.starts[b + 1]
        origin = axis.edges[b] - (axis.before if b else 0)
        start, stop = first * axis.stride, (last - 1) * axis.stride + axis.patch
        image = _resample_axis(image, k, axis, start, stop, origin)
        corners.append(np.arange(last - first) * axis.stride)
    patch, grid = axes[0].patch, list(product(*corners))
    readings = []
    for i in range(0, len(grid), mapper.batch_size):
        places = grid[i : i + mapper.batch_size]
        patches = np.stack([image[r : r + patch, c : c + patch] for r, c in places])
        parameters, std, invalid, *encoded = mapper._read(patches)
        readings.append(np.hstack([parameters, std, invalid[:, np.newaxis], *encoded]))
    return np.concatenate(readings).reshape(1, len(corners[0]), len(corners[1]), -1)


def _resample_axis(image, k, axis, start, stop, origin):
    """Bring axis k to the network's sampling and cut out its pixels from start to stop.

    What the mapper does with a whole image: smooth against aliasing, interpolate linearly.
    """
    if axis.factor == 1:
        return image[(slice(None),) * k + (slice(start - origin, stop - origin),)]
    smooth = image.astype(np.float32)
    if axis.factor > 1:
        smooth = ndimage.gaussian_filter1d(smooth, (axis.factor - 1) / 2, axis=k, mode="mirror")
    places = (np.arange(start, stop) + 0.5) * axis.factor - 0.5 - origin
    last = image.shape[k] - 1
    places = last - abs(last - abs(places))  # mirrored at the border, as there
    low = np.minimum(places.astype(int), max(last - 1, 0))
    weight = (places - low).astype(np.float32)
    weight = weight[:, np.newaxis] if k == 0 else weight
    high = np.minimum(low + 1, last)
    return smooth.take(low, k) * (1 - weight) + smooth.take(high, k) * weight


def even_chunks(length, size):
    """Cut a length into chunks of at least `size`, equal but for the last one, or into one."""
    for count in range(length // size, 1, -1):
        chunk = math.ceil(length / count)
        whole, rest = divmod(length, chunk)
        if rest == 0 or rest >= size:
            return (chunk,) * whole + (rest,) * (rest > 0)
    return (length,)


def restore_block(block, origin, deconvolver, local, scale):
    """Restore one block (1, h, w), halo and all, with the PSFs of the whole image.

    Parameters
    ----------
    block : ndarray of shape (1, h, w)
        A part of an image.
    origin : (int, int)
        Its first row and column in the image.
    deconvolver : TVRLDeconvolver
        Fitted.
    local : LocalPSFs
        PSFs with their centres in pixels of the image.
    scale : float
        Mean signal of the whole image.

    Returns
    -------
    ndarray of shape (1, h, w)
        Restored, float32, in the units of the block.
    """
    image = check_images(block, name="images")[0]
    span = tuple(slice(a, a + n) for a, n in zip(origin, image.shape, strict=True))
    operator = local.operator(Block(span, span), **deconvolver._options())
    x = richardson_lucy(
        deconvolver._to_counts(image),
        operator,
        n_iter=deconvolver.n_iter_,
        lambda_tv=deconvolver.lambda_,
        background=float(deconvolver.background + deconvolver._shift()),
        accelerate=deconvolver.accelerate,
        scale=scale,
    )
    return (operator.crop(x).cpu().numpy() + np.float32(deconvolver.offset))[np.newaxis]


def crop_map(maps, i, rows, columns, images):
    """Return the map of a part of image i, with the windows whose PSFs reach it.

    Windows keep their places relative to the part, hence may lie outside it.
    """
    margin = maps.psf_model.size // 2
    down = _near(maps.rows, rows, margin)
    across = _near(maps.columns, columns, margin)
    part = (slice(i, i + 1), down, across)
    return replace(
        maps,
        images=images,
        **{name: getattr(maps, name)[part] for name in ("parameters", "std", "invalid")},
        rows=np.asarray(maps.rows)[down] - rows.start,
        columns=np.asarray(maps.columns)[across] - columns.start,
    )


def _near(centres, span, margin):
    # two centres beyond on each side: bilinear windows need one, triangular ones two
    first = int(np.searchsorted(centres, span.start - margin, side="right")) - 2
    last = int(np.searchsorted(centres, span.stop - 1 + margin, side="left")) + 2
    return slice(max(first, 0), min(last, len(centres)))
