"""Linear maps of image formation, each with its exact adjoint."""

from .convolution import ORDERS, Convolution, LinearOperator
from .gradient import divergence, gradient, total_variation, tv_curvature
from .local_psfs import Block, LocalPSFs, central_block, split_blocks
from .psf_modes import compute_psf_modes, crop_psfs
from .spatially_variant import ModeConvolution, make_operator
from .tile_convolution import TileConvolution
from .windows import WINDOWS, windows

__all__ = [
    "ORDERS",
    "WINDOWS",
    "Block",
    "Convolution",
    "LinearOperator",
    "LocalPSFs",
    "ModeConvolution",
    "TileConvolution",
    "central_block",
    "compute_psf_modes",
    "crop_psfs",
    "divergence",
    "gradient",
    "make_operator",
    "split_blocks",
    "total_variation",
    "tv_curvature",
    "windows",
]
