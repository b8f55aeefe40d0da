"""Images larger than memory: map and restore dask and zarr arrays block by block.

Reading is exact: every window is read once, by the block that holds its corner, and the readings of
the whole image are combined into one map. Restoring works on blocks with a halo of the size of the
PSFs and more, since each iteration carries an influence that far, and less and less of it.
"""

from dataclasses import replace
from itertools import accumulate, product
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from .._image_psfs import warn_of_no_psf
from .._psf_map import PSFMap
from .._validation import check_images, check_number
from ..deconvolution import TVRLDeconvolver
from ..operators import LocalPSFs, central_block, crop_psfs
from ..psf_mapper import SpatialPSFMapper
from ._blocks import crop_map, deal_windows, even_chunks, read_block, restore_block
from ._dask_compute import compute

__all__ = ["map_psfs", "read_windows", "restore", "write_zarr"]

# Halo in sizes of the PSFs (after cropping), and pixels besides: an iteration reaches one size far;
# what later ones carry further decays, over some pixels even if the PSFs are small.
_HALO_PSFS, _HALO_PIXELS = 2, 32
# PSFs looked at for their size: the extreme ones and a sample of the others.
_N_SAMPLED = 256
# Side of the crop that an unfitted deconvolver is fitted on, pixels.
_FIT_SIZE = 1024


def read_windows(images, mapper, *, chunk_size=1024):
    """Read every window of images, lazily.

    Parameters
    ----------
    images : dask.array.Array, zarr.Array or array-like of shape (n, H, W)
        Images of any real dtype.
    mapper : SpatialPSFMapper
        Fitted, ``method="sliding"``.
    chunk_size : int, default=1024
        Approximate side of a block, pixels, without its halo of one patch.

    Returns
    -------
    dask.array.Array of shape (n, gy, gx, F)
        Readings of the windows before gaps are filled and readings smoothed: parameters, standard
        deviations, invalidity, encoding and its variance, float64. `map_psfs` turns them into a
        map.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    """
    images = _as_dask(images)
    check_is_fitted(mapper)
    check_number("chunk_size", chunk_size, low=1, integer=True)
    if mapper.method != "sliding":
        raise ValueError(f"mapper must have method='sliding' here, got {mapper.method!r}.")
    mapper._check_size(images)
    shape = mapper._working_shape(images.shape[1:])
    axes = [
        deal_windows(n, m, mapper.patch_size_, mapper.stride, chunk_size)
        for n, m in zip(images.shape[1:], shape, strict=True)
    ]
    images = images.rechunk((1, axes[0].chunks, axes[1].chunks))
    depth = {0: 0} | {k + 1: (axis.before, axis.after) for k, axis in enumerate(axes)}
    n_columns = sum(_columns(mapper.psf_model_))
    return da.map_overlap(
        read_block,
        images,
        depth=depth,
        boundary="none",
        trim=False,
        chunks=(images.chunks[0], axes[0].windows, axes[1].windows, (n_columns,)),
        new_axis=3,
        dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)),
        mapper=dask.delayed(mapper, traverse=False),
        axes=axes,
    )


def map_psfs(images, mapper=None, *, chunk_size=1024, verbose=0):
    """Read the PSF map of images that need not fit into memory.

    Windows are read block by block at once; the images stay where they are.

    Parameters
    ----------
    images : dask.array.Array, zarr.Array or array-like of shape (n, H, W)
        Images of any real dtype.
    mapper : SpatialPSFMapper or None
        None is ``SpatialPSFMapper()``. One that is not fitted is fitted, which trains nothing.
    chunk_size : int, default=1024
        Approximate side of a block, pixels.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    PSFMap
        The map that ``mapper.transform(images)`` returns, but its images are the lazy dask array.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    """
    images = _as_dask(images)
    mapper = _fitted_mapper(SpatialPSFMapper() if mapper is None else mapper, images)
    readings = read_windows(images, mapper, chunk_size=chunk_size)
    blocks = readings.to_delayed()
    parts = np.empty(blocks.shape, dtype=object)
    parts.ravel()[:] = compute(blocks.ravel().tolist(), "PSF map", verbose)
    values = np.block(parts.tolist())
    return _assemble(images, mapper, values)


def restore(X, deconvolver=None, *, chunk_size=2048, halo=None):
    """Restore images block by block, lazily.

    Parameters
    ----------
    X : PSFMap, dask.array.Array, zarr.Array or array-like of shape (n, H, W)
        The map that `map_psfs` returned, or plain images if the deconvolver has a `psf`.
    deconvolver : TVRLDeconvolver or None
        None is ``TVRLDeconvolver()``. One that is not fitted is fitted on the central 1024 x 1024
        pixels of the first image. Its `max_memory` has no part here: the size of the blocks
        bounds the memory.
    chunk_size : int, default=2048
        Approximate side of a block, pixels, without its halo.
    halo : int or None
        Pixels of the neighbours that are restored along with each block and dropped. None is twice
        the size of the PSFs, cropped to their support, and 32. The larger, the less of the borders
        of the blocks is in the result.

    Returns
    -------
    dask.array.Array of shape (n, H, W)
        Restored images, float32, in the units of X. Nothing is restored before it is computed
        or written (`write_zarr`), but one pass over the images finds their mean, to which
        all blocks are scaled alike.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or there is no PSF.

    Examples
    --------
    >>> import dask.array as da
    >>> image = np.zeros((1, 96, 96), np.float32)
    >>> image[0, 40:60, 30:70] = 100.0
    >>> deconvolver = TVRLDeconvolver(psf=np.ones((5, 5)), n_iter=5)
    >>> restored = restore(da.from_array(image), deconvolver, chunk_size=48)
    >>> restored.numblocks, restored.compute().shape
    ((1, 2, 2), (1, 96, 96))
    """
    maps = X if isinstance(X, PSFMap) else None
    images = _as_dask(X if maps is None else maps.images)
    deconvolver = TVRLDeconvolver() if deconvolver is None else deconvolver
    deconvolver = _fitted_deconvolver(deconvolver, images, maps)
    check_number("chunk_size", chunk_size, low=1, integer=True)
    supports = _supports(deconvolver, maps, len(images))
    halo = _HALO_PSFS * int(np.max(supports)) + _HALO_PIXELS if halo is None else halo
    check_number("halo", halo, low=0, integer=True)
    chunks = [even_chunks(n, max(chunk_size, halo)) for n in images.shape[1:]]
    images = images.rechunk((1, *chunks))
    if deconvolver.psf_ is None:
        _warn_of_images_without_psf(maps)
    bare = None if maps is None else replace(maps, images=np.empty((len(maps), 0, 0)))
    return da.map_overlap(
        _restore_block,
        images,
        depth={0: 0, 1: halo, 2: halo},
        boundary="none",
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        deconvolver=dask.delayed(deconvolver, traverse=False),
        maps=dask.delayed(bare, traverse=False),
        scales=_mean_signals(images, deconvolver),
        supports=supports,
        chunks_=chunks,
        halo=halo,
    )


def write_zarr(array, path, *, verbose=0):
    """Compute a dask array block by block and write each to a zarr array as it is done.

    Parameters
    ----------
    array : dask.array.Array
        What `restore` returned.
    path : str or os.PathLike
        Folder of the zarr array, which must not exist.
    verbose : int, default=0
        1 shows a progress bar, with the threads of this process as well as on a cluster.

    Returns
    -------
    zarr.Array
        The array on disk, one zarr chunk for each block.

    Raises
    ------
    FileExistsError
        If there is something at the path.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; nothing was written.")
    chunks = tuple(max(sizes) for sizes in array.chunks)
    target = zarr.create_array(path, shape=array.shape, chunks=chunks, dtype=array.dtype)
    starts = [list(accumulate(sizes, initial=0)) for sizes in array.chunks]
    regions = product(*([slice(a, b) for a, b in zip(s, s[1:], strict=False)] for s in starts))
    write = dask.delayed(_write, pure=False)
    tasks = [
        write(block, target, region)
        for block, region in zip(array.to_delayed().ravel(), regions, strict=True)
    ]
    compute(tasks, "writing", verbose)
    return target


def _as_dask(images):
    """Return images as a dask array (n, H, W), whatever holds them, or raise."""
    if isinstance(images, zarr.Array):
        images = da.from_zarr(images)
    elif not isinstance(images, da.Array):
        images = da.from_array(check_images(images, name="images"))
    # the checks of any images, on an array of their type and shape that takes no memory
    stand_in = np.broadcast_to(np.zeros((), images.dtype), images.shape)
    check_images(stand_in, name="images")
    return images


def _columns(model):
    """Number of columns of parameters, std, invalidity, encoding and variance."""
    n_parameters = len(model.parameter_names)
    n_encoded = model.encode(model.sample(1, random_state=0)).shape[1]
    return n_parameters, n_parameters, 1, n_encoded, n_encoded


def _fitted_mapper(mapper, images):
    try:
        check_is_fitted(mapper)
    except NotFittedError:
        mapper = clone(mapper).fit(_centre(images)[0])
    return mapper


def _fitted_deconvolver(deconvolver, images, maps):
    if deconvolver.n_samples:
        raise ValueError(
            f"n_samples={deconvolver.n_samples!r} is for images restored in one piece; use "
            "n_samples=0 here."
        )
    try:
        check_is_fitted(deconvolver)
    except NotFittedError:
        crop, rows, columns = _centre(images)
        X = crop if maps is None else crop_map(maps, 0, rows, columns, crop)
        deconvolver = clone(deconvolver).fit(X)
    if deconvolver.psf_ is None and maps is None:
        raise ValueError("X is plain images and psf=None; pass the PSFMap of map_psfs, or set psf=")
    return deconvolver


def _centre(images):
    """Central part of the first image, in memory, and where it lies."""
    rows, columns = central_block(images.shape[1:], _FIT_SIZE).core
    return images[:1, rows, columns].compute(), rows, columns


def _assemble(images, mapper, values):
    """Build the map of the readings (n, gy, gx, F) of all windows."""
    gy, gx = values.shape[1:3]
    corners = np.array(list(product(np.arange(gy), np.arange(gx)))) * mapper.stride
    splits = np.cumsum(_columns(mapper.psf_model_))[:-1]
    maps = {"parameters": [], "std": [], "invalid": []}
    for readings in values.reshape(len(values), gy * gx, -1):
        parameters, std, invalid, encoding, variance = np.split(readings, splits, axis=1)
        invalid = invalid[:, 0]
        smooth, widened = mapper._regularised(
            parameters, std, invalid, encoding, variance, corners, (gy, gx)
        )
        maps["parameters"].append(smooth.reshape(gy, gx, -1))
        maps["std"].append(widened.reshape(gy, gx, -1))
        maps["invalid"].append(invalid.reshape(gy, gx))
    shape = mapper._working_shape(images.shape[1:])
    rows, columns = (
        (np.arange(g) * mapper.stride + mapper.patch_size_ / 2) * n / m - 0.5
        for g, n, m in zip((gy, gx), images.shape[1:], shape, strict=True)
    )
    return PSFMap(
        images=images,
        **{name: np.stack(parts) for name, parts in maps.items()},
        rows=rows,
        columns=columns,
        model=mapper._original_model().settings,
        optics=mapper.optics,
    )


def _supports(deconvolver, maps, n_images):
    """Height and width that the PSFs of each image are cropped to, alike in all its blocks."""
    if deconvolver.psf_ is not None:
        return [crop_psfs(deconvolver.psf_, deconvolver.rtol).shape[-2:]] * n_images
    supports = []
    for parameters in maps.parameters:
        parameters = parameters[np.isfinite(parameters).all(-1)]
        if len(parameters) == 0:
            supports.append((1, 1))
            continue
        some = np.linspace(0, len(parameters) - 1, _N_SAMPLED).round().astype(int)
        chosen = np.unique(np.concatenate([some, parameters.argmin(0), parameters.argmax(0)]))
        psfs = maps.psf_model.psf(parameters[chosen].astype(np.float32))
        supports.append(crop_psfs(psfs, deconvolver.rtol).shape[-2:])
    return supports


def _warn_of_images_without_psf(maps):
    unknown = ~np.isfinite(maps.parameters).all(-1).any((1, 2))
    for i in np.flatnonzero(unknown):
        warn_of_no_psf(i)


def _mean_signals(images, deconvolver):
    """Mean signal of each image: the scale that one restoration of the whole would use."""
    level = np.float32(deconvolver.offset + deconvolver.background)
    signal = da.maximum(images.astype(np.float32) - level, 0)
    return signal.mean(axis=(1, 2), dtype=np.float64).compute()


def _restore_block(block, deconvolver, maps, scales, supports, chunks_, halo, block_id=None):
    """Restore one block (1, h, w) and its halo by the PSFs that reach it."""
    i = block_id[0]
    origin = [
        sum(sizes[:b]) - (halo if b else 0) for sizes, b in zip(chunks_, block_id[1:], strict=True)
    ]
    if deconvolver.psf_ is not None:
        local = LocalPSFs.on_cells(deconvolver.psf_, [sum(sizes) for sizes in chunks_])
    elif not np.isfinite(maps.parameters[i]).all(-1).any():
        return np.asarray(block, np.float32)
    else:
        rows, columns = (slice(a, a + n) for a, n in zip(origin, block.shape[1:], strict=True))
        part = crop_map(maps, i, rows, columns, np.empty((1, 0, 0)))
        local = LocalPSFs(part.psfs(0), part.rows + origin[0], part.columns + origin[1])
    return restore_block(block, origin, deconvolver, local.resized(supports[i]), scales[i])


def _write(block, target, region):
    target[region] = block
