"""Seeded generators: sharp textures, blurred patches, scenes with their ground truth."""

from .focal_stack import make_focal_stack
from .motion_scenes import make_motion_scene, make_particles, make_pipe_flow, make_vortex
from .motion_stream import MotionStream
from .patches import PatchStream, make_blurred_patches
from .path_stream import VaryingBlurStream
from .region_patches import RegionPatchStream
from .scenes import make_scene, make_tilted_scene
from .sources import SKIMAGE_IMAGES, bin_to_pixel_limit, find_binning, load_folder, load_skimage
from .surfaces import SURFACE_SHAPES, depth_to_parameters, make_surface, make_tilted_plane
from .textures import TEXTURE_KINDS, make_textures

__all__ = [
    "SKIMAGE_IMAGES",
    "SURFACE_SHAPES",
    "TEXTURE_KINDS",
    "MotionStream",
    "PatchStream",
    "RegionPatchStream",
    "VaryingBlurStream",
    "bin_to_pixel_limit",
    "depth_to_parameters",
    "find_binning",
    "load_folder",
    "load_skimage",
    "make_blurred_patches",
    "make_focal_stack",
    "make_motion_scene",
    "make_particles",
    "make_pipe_flow",
    "make_scene",
    "make_surface",
    "make_textures",
    "make_tilted_plane",
    "make_tilted_scene",
    "make_vortex",
]
