"""Where the windows of a map look, and what depth they see there."""

import numpy as np

__all__ = ["window_depths", "window_size"]


def window_size(maps):
    """Return height and width of the windows of a map, in pixels.

    Parameters
    ----------
    maps : PSFMap
        The map. Its first windows are taken to begin at the border of the image.

    Returns
    -------
    (float, float)
        At least 1.
    """
    return tuple(max(1.0, 2 * float(centres[0]) + 1) for centres in (maps.rows, maps.columns))


def window_depths(maps, y):
    """Return the depth of each window from depths of windows, pixels or images.

    Parameters
    ----------
    maps : PSFMap
        The map.
    y : array-like of shape (n, gy, gx), (n, H, W) or (n,)
        Depths; NaN where unknown. Of pixels, the mean over each window is taken.

    Returns
    -------
    ndarray of shape (n, gy, gx)
        Float64.

    Raises
    ------
    ValueError
        If `y` has another shape, holds no real numbers, or infinity.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "uif":
        raise ValueError(f"y must hold real numbers, got dtype {y.dtype}.")
    y = y.astype(np.float64)
    if np.isinf(y).any():
        raise ValueError("Input y contains infinity.")
    grid, n = maps.invalid.shape, len(maps)
    if y.shape == grid:
        return y
    if y.shape == (n,):
        return np.broadcast_to(y[:, np.newaxis, np.newaxis], grid).copy()
    if y.shape != maps.shape:
        raise ValueError(
            f"y must have shape {grid} (windows), {maps.shape} (pixels) or {(n,)} (images), got "
            f"{y.shape}."
        )
    weights = [
        _box_means(centres, size, length)
        for centres, size, length in zip(
            (maps.rows, maps.columns), window_size(maps), maps.shape[1:], strict=True
        )
    ]
    return np.einsum("ir,nrc,jc->nij", weights[0], y, weights[1], optimize=True)


def _box_means(centres, size, length):
    """Weights (len(centres), length) of means over windows, cut at the borders."""
    offset = np.abs(np.arange(length) - np.asarray(centres)[:, np.newaxis])
    weights = np.clip((size + 1) / 2 - offset, 0, 1)
    return weights / weights.sum(1, keepdims=True)
