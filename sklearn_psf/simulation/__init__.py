"""Seeded generators: sharp textures, blurred patches, scenes with their ground truth."""

from .patches import PatchStream, make_blurred_patches
from .scenes import make_scene, make_tilted_scene
from .sources import SKIMAGE_IMAGES, bin_to_pixel_limit, find_binning, load_folder, load_skimage
from .textures import TEXTURE_KINDS, make_textures

__all__ = [
    "SKIMAGE_IMAGES",
    "TEXTURE_KINDS",
    "PatchStream",
    "bin_to_pixel_limit",
    "find_binning",
    "load_folder",
    "load_skimage",
    "make_blurred_patches",
    "make_scene",
    "make_textures",
    "make_tilted_scene",
]
