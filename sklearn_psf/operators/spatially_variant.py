"""Blur by a PSF that varies across the image, evaluated by PSF modes or by tiles.

``y = sum_m h_m * (w_m x)`` ("scatter": the PSF belongs to where the light comes from) or
``y = sum_m w_m (h_m * x)`` ("gather": to where it arrives), with windows ``w_m >= 0`` summing to
1. Both evaluations compute this sum: by tiles exactly, by modes up to the truncation of the PSFs.
"""

from collections.abc import Sequence

import numpy as np

from .._validation import check_choice, check_number
from .axis_convolution import cheapest_along_axis
from .convolution import Convolution
from .linear_operator import ORDERS, LinearOperator, as_shape, as_tensor
from .mode_convolution import ModeConvolution, cheapest_modes
from .psf_crop import crop_psfs
from .psf_modes import compute_psf_modes, decompose_psfs
from .tile_convolution import TileConvolution, plan_axis, tile_cost
from .windows import WINDOWS, windows

__all__ = [
    "WINDOWS",
    "ModeConvolution",
    "TileConvolution",
    "compute_psf_modes",
    "crop_psfs",
    "make_operator",
    "windows",
]

_METHODS = ("auto", "tiles", "modes")


def make_operator(
    psfs,
    rows,
    columns,
    shape: Sequence[int],
    window: str = "bilinear",
    order: str = "scatter",
    method: str = "auto",
    rtol: float = 1e-3,
    dtype=None,
    device=None,
) -> LinearOperator:
    """Build the operator of a grid of PSFs, evaluated the faster way.

    The time of one forward is counted from measured constants: of modes, one FFT more than there
    are modes for each patch of the image, whose size is chosen; of tiles, two for each. Where PSFs
    change along one axis only, modes share their transforms along the other. One PSF makes a
    `Convolution`.

    Parameters
    ----------
    psfs : array-like or Tensor of shape (gy, gx, kh, kw)
        PSFs at the centres.
    rows, columns : array-like of shape (gy,) and (gx,)
        Centres, strictly increasing, in pixels of the image.
    shape : (int, int)
        Height and width (H, W) of the image, pixels.
    window : {"bilinear", "triangular", "hann"}, default="bilinear"
        How PSFs share the image between their centres, see `windows`.
    order : {"scatter", "gather"}, default="scatter"
        Where the PSF belongs.
    method : {"auto", "tiles", "modes"}, default="auto"
        How to evaluate the sum.
    rtol : float, default=1e-3
        Largest relative error of any PSF, for modes.
    dtype : torch.dtype or None
        float32 or float64; None follows the PSFs.
    device : torch.device, str or None
        None follows the PSFs.

    Returns
    -------
    LinearOperator
        A `Convolution`, `ModeConvolution`, `AxisConvolution` or `TileConvolution`.

    Raises
    ------
    ValueError
        If an argument is unknown, not finite or does not fit the others.

    Examples
    --------
    >>> psfs = np.full((2, 2, 5, 5), 1 / 25)
    >>> operator = make_operator(psfs, [8, 24], [8, 24], shape=(32, 32))
    >>> type(operator).__name__, operator.field_shape
    ('ModeConvolution', (36, 36))
    """
    check_choice("order", order, ORDERS)
    check_choice("method", method, _METHODS)
    check_number("rtol", rtol, low=0.0, high=1.0)
    shape = as_shape(shape)
    psfs = as_tensor("psfs", psfs, 4, dtype, device)
    grid_y, grid_x, *kernel = psfs.shape
    pad = (kernel[0], kernel[1]) if order == "scatter" else (1, 1)  # the field's, or none
    wy, wx = windows(
        window,
        np.asarray(rows, dtype=np.float64) + pad[0] // 2,
        np.asarray(columns, dtype=np.float64) + pad[1] // 2,
        (shape[0] + pad[0] - 1, shape[1] + pad[1] - 1),
    )
    if (len(wy), len(wx)) != (grid_y, grid_x):
        raise ValueError(
            f"psfs of shape {tuple(psfs.shape)} need {grid_y} rows and {grid_x} columns, got "
            f"{len(wy)} and {len(wx)}."
        )
    if grid_y * grid_x == 1:
        return Convolution(psfs[0, 0], shape)
    if method != "tiles":
        modes = decompose_psfs(psfs, rtol)
        build, cost = min(
            cheapest_along_axis(modes, wy, wx, shape, order),
            cheapest_modes(modes, wy, wx, shape, order),
            key=lambda choice: choice[1],
        )
        if method == "modes" or cost <= _cost_of_tiles(wy, wx, shape, kernel, order):
            return build()
    return TileConvolution(psfs, wy, wx, shape, order)


def _cost_of_tiles(wy, wx, shape, kernel, order) -> float:
    return tile_cost(
        plan_axis(wy, shape[0], kernel[0], order), plan_axis(wx, shape[1], kernel[1], order)
    )
