"""PSFs for the images that a deconvolver is given: an array of its own, or those of a map."""

from dataclasses import replace
from warnings import warn

import numpy as np

from .operators import LocalPSFs

__all__ = [
    "check_psf",
    "draw_deviates",
    "local_psfs",
    "moved_parameters",
    "possible_psfs",
    "warn_of_no_psf",
]


def check_psf(psf):
    """Return the PSFs as a float32 array (gy, gx, kh, kw), each of sum 1."""
    array = np.asarray(psf)
    if array.dtype.kind not in "uifb":
        raise ValueError(f"psf must hold real numbers, got dtype {array.dtype}.")
    if array.ndim not in (2, 4) or array.size == 0:
        raise ValueError(
            f"psf must have shape (kh, kw) or (gy, gx, kh, kw), got shape {array.shape}."
        )
    if array.shape[-2] % 2 == 0 or array.shape[-1] % 2 == 0:
        raise ValueError(
            f"psf must have an odd height and width, so that it has a centre pixel, got "
            f"{array.shape[-2]} x {array.shape[-1]}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("psf contains NaN or infinity.")
    if (array < 0).any():
        raise ValueError(f"psf must not be negative, got a minimum of {array.min():.3g}.")
    total = array.sum(axis=(-2, -1), keepdims=True)
    if (total == 0).any():
        raise ValueError("psf must not be zero everywhere.")
    return (array / total).reshape((1,) * (4 - array.ndim) + array.shape).astype(np.float32)


def draw_deviates(shape, rng):
    """Standard normal deviates (1, gy, gx, P), half of whose variance all windows share.

    The readings of neighbouring windows look at the same texture with the same network, and err
    together.
    """
    return np.sqrt(0.5) * (
        rng.standard_normal(shape) + rng.standard_normal((*shape[:1], 1, 1, *shape[-1:]))
    )


def moved_parameters(one_map, deviates):
    """Return the map with its parameters moved by `deviates` times their std, within the bounds.

    Angles are not bounded: they may turn through the end of their period.
    """
    model = one_map.psf_model
    std = np.nan_to_num(np.asarray(one_map.std, float), nan=0.0, posinf=0.0, neginf=0.0)
    moved = one_map.parameters + std * deviates
    angles = np.array([period is not None for period in model.periods])
    low, high = np.where(angles, np.array([[-np.inf], [np.inf]]), model.bounds.T)
    return replace(one_map, parameters=np.clip(moved, low, high))


def possible_psfs(one_map, rng):
    """Return PSFs of one image that the std of its map holds possible; [None] without any std.

    Two draws that lie opposite each other, so that their mean is the map.
    """
    if not np.nan_to_num(one_map.std).any():
        return [None]
    deviates = draw_deviates(one_map.std.shape, rng)
    shape = one_map.images.shape[1:]
    return [
        local_psfs(None, moved_parameters(one_map, sign * deviates), 0, shape) for sign in (1, -1)
    ]


def local_psfs(psf, X, i, shape):
    """Return the PSFs of image i with their centres, or None, warning, if none is known.

    Parameters
    ----------
    psf : ndarray of shape (gy, gx, kh, kw) or None
        PSFs of all images; None takes those of the map.
    X : PSFMap or ndarray
        The images.
    i : int
        Which one.
    shape : (int, int)
        Its height and width.

    Returns
    -------
    LocalPSFs or None
        The PSFs.
    """
    if psf is not None:
        return LocalPSFs.on_cells(psf, shape)
    if np.isfinite(X.parameters[i]).all(-1).any():
        return LocalPSFs(X.psfs(i), np.asarray(X.rows, float), np.asarray(X.columns, float))
    warn_of_no_psf(i)
    return None


def warn_of_no_psf(i):
    """Say that image i shows too little to be restored."""
    warn(
        f"No window of image {i} shows enough texture to tell its PSF; the image is returned "
        "as it is.",
        UserWarning,
        stacklevel=4,
    )
