"""Physics of image formation: batched, differentiable functions on torch tensors."""

from .camera import Camera
from .noise import estimate_noise
from .psf_model import PSFModel
from .psf_models import PSF_MODELS, make_psf_model
from .pupil import Optics, pupil_psf, radial_psf
from .transfer import defocus_transfer
from .zernike import noll_to_nm, zernike, zernike_basis

__all__ = [
    "PSF_MODELS",
    "Camera",
    "Optics",
    "PSFModel",
    "defocus_transfer",
    "estimate_noise",
    "make_psf_model",
    "noll_to_nm",
    "pupil_psf",
    "radial_psf",
    "zernike",
    "zernike_basis",
]
