"""Figures of merit: restoration (SNR, SSIM), regression of PSF parameters, and focus measures.

Everything here is NumPy on plain arrays and knows nothing of the rest of the package.
"""

from .flow import align_sense, flow_r2, sense_accuracy
from .focus import (
    FOCUS_MEASURES,
    conditional_entropy,
    high_pass,
    laplacian_variance,
    sum_modified_laplacian,
    tenengrad,
    useful_range,
    wavelet_energy,
    wavelet_sum,
)
from .regression import parameter_r2
from .restoration import snr, ssim

__all__ = [
    "FOCUS_MEASURES",
    "align_sense",
    "conditional_entropy",
    "flow_r2",
    "high_pass",
    "laplacian_variance",
    "parameter_r2",
    "sense_accuracy",
    "snr",
    "ssim",
    "sum_modified_laplacian",
    "tenengrad",
    "useful_range",
    "wavelet_energy",
    "wavelet_sum",
]
