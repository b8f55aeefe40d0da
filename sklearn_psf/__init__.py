"""Blind, spatially variant deconvolution of microscope images as scikit-learn estimators."""

from ._psf_map import PSFMap
from .autofocus import DeepFocusAutofocus
from .deconvolution import TVRLDeconvolver
from .depth import AstigmaticDepthEstimator
from .flow import BlurFlowEstimator
from .psf_mapper import SpatialPSFMapper
from .psf_regressor import PSFParameterRegressor

__all__ = [
    "BlurFlowEstimator",
    "DeepFocusAutofocus",
    "AstigmaticDepthEstimator",
    "PSFMap",
    "PSFParameterRegressor",
    "SpatialPSFMapper",
    "TVRLDeconvolver",
    "__version__",
]

__version__ = "0.1.0"
