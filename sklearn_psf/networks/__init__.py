"""Networks that read PSF parameters off image patches, their training and their weights."""

from .modules import ARCHITECTURES, READERS, PSFNetwork, build_network
from .reading import read_image
from .training import train_network
from .unet import ResidualUNet
from .weights import load_pretrained, pretrained_names, save_weights

__all__ = [
    "ARCHITECTURES",
    "READERS",
    "PSFNetwork",
    "ResidualUNet",
    "build_network",
    "load_pretrained",
    "pretrained_names",
    "read_image",
    "save_weights",
    "train_network",
]
