"""Linear maps of image formation, each with its exact adjoint."""

from .axis_convolution import AxisConvolution
from .convolution import Convolution
from .gradient import divergence, gradient, total_variation, tv_curvature
from .linear_operator import ORDERS, LinearOperator
from .local_psfs import Block, LocalPSFs, central_block, split_blocks
from .masks import FADE, apply_masks, keep_apart
from .mode_convolution import ModeConvolution
from .psf_crop import crop_psfs
from .psf_modes import compute_psf_modes
from .row_strips import strips
from .spatially_variant import make_operator
from .tile_convolution import TileConvolution
from .windows import WINDOWS, windows

__all__ = [
    "FADE",
    "ORDERS",
    "WINDOWS",
    "AxisConvolution",
    "Block",
    "Convolution",
    "LinearOperator",
    "LocalPSFs",
    "ModeConvolution",
    "TileConvolution",
    "apply_masks",
    "central_block",
    "compute_psf_modes",
    "crop_psfs",
    "divergence",
    "gradient",
    "keep_apart",
    "make_operator",
    "split_blocks",
    "strips",
    "total_variation",
    "tv_curvature",
    "windows",
]
