"""Other ways to deconvolve, called as a user of each would call them: image in, image out.

Every function takes one image (H, W) above its offset and returns a restored image (H, W) in the
same units. Where PSFs are wanted they are odd-sized and sum to 1: `psf` (kh, kw) is one for the
whole image, `psfs` (gy, gx, kh, kw) one for each cell of an even partition. None of the packages
knows of light from beyond the frame: images are continued by reflection first, without which all
lose several dB at the borders.
"""

import warnings

import numpy as np
from scipy.signal import correlate, fftconvolve
from skimage.filters import unsharp_mask
from skimage.restoration import richardson_lucy as skimage_richardson_lucy
from skimage.restoration import unsupervised_wiener as skimage_unsupervised_wiener

__all__ = [
    "blind_richardson_lucy",
    "has_redlionfish",
    "per_tile",
    "redlionfish",
    "richardson_lucy",
    "sharpening",
    "unsupervised_wiener",
    "update_psf",
]


def richardson_lucy(image, psf, n_iter=20):
    """Richardson-Lucy of scikit-image, on values up to 1 as its documentation shows."""
    scale = image.max()
    padded = _reflect(image, psf) / scale
    return _frame(skimage_richardson_lucy(padded, psf, num_iter=n_iter, clip=False), psf) * scale


def unsupervised_wiener(image, psf):
    """Wiener filter of scikit-image that finds its own regularisation."""
    scale = image.max()
    padded = _reflect(image, psf) / scale
    return _frame(skimage_unsupervised_wiener(padded, psf, clip=False, rng=0)[0], psf) * scale


def has_redlionfish():
    """Whether the optional package RedLionfish is there."""
    try:
        _redlionfish()
    except ImportError:
        return False
    return True


def redlionfish(image, psf, n_iter=20, planes=2):
    """Richardson-Lucy of RedLionfish on the CPU.

    It is made for volumes and leaves the PSF of a single plane uncentred, so that the image is
    given twice. It returns values on a scale of its own; they are given the light of the image.
    """
    volume = np.repeat(_reflect(image, psf)[np.newaxis], planes, 0).astype(np.float32)
    kernel = np.zeros((2 * (planes // 2) + 1, *psf.shape), np.float32)
    kernel[planes // 2] = psf
    restored = _frame(_redlionfish()(volume, kernel, niter=n_iter, method="cpu")[0], psf)
    return restored * (image.sum() / restored.sum())


def _redlionfish():
    with warnings.catch_warnings():  # of packages that it imports
        warnings.simplefilter("ignore")
        from RedLionfishDeconv import doRLDeconvolutionFromNpArrays
    return doRLDeconvolutionFromNpArrays


def per_tile(method, image, psfs, **settings):
    """Restore each cell with its own PSF and paste the cells together.

    A cell is cut out with a margin of half a PSF where the image has one, restored by `method`,
    and the margin is dropped.
    """
    restored = np.empty(image.shape)
    margins = [size // 2 for size in psfs.shape[2:]]
    cells = [
        np.linspace(0, n, g + 1).round().astype(int)
        for n, g in zip(image.shape, psfs.shape[:2], strict=True)
    ]
    for i, (top, bottom) in enumerate(zip(cells[0], cells[0][1:], strict=False)):
        for j, (left, right) in enumerate(zip(cells[1], cells[1][1:], strict=False)):
            first = max(top - margins[0], 0), max(left - margins[1], 0)
            part = image[first[0] : bottom + margins[0], first[1] : right + margins[1]]
            result = method(part, psfs[i, j], **settings)
            restored[top:bottom, left:right] = result[
                top - first[0] : bottom - first[0], left - first[1] : right - first[1]
            ]
    return restored


def blind_richardson_lucy(image, size=31, n_iter=10, n_inner=5):
    """Alternate Richardson-Lucy steps for the PSF and for the image; knows nothing beforehand.

    Starts from a Gaussian of standard deviation 2 pixels and the image itself.

    References
    ----------
    D. A. Fish, A. M. Brinicombe, E. R. Pike and J. G. Walker, "Blind deconvolution by means of the
    Richardson-Lucy algorithm", J. Opt. Soc. Am. A 12, 58-65 (1995).
    """
    r = np.arange(size) - size // 2
    psf = np.exp(-(r[:, np.newaxis] ** 2 + r**2) / 8)
    psf /= psf.sum()
    image = _positive(image.astype(np.float64))
    field = _reflect(image, psf)
    x = field.copy()
    for _ in range(n_iter):
        for _ in range(n_inner):
            psf = update_psf(psf, x, image)
        for _ in range(n_inner):
            ratio = field / _positive(fftconvolve(x, psf, mode="same"))
            x = x * np.maximum(fftconvolve(ratio, psf[::-1, ::-1], mode="same"), 0)
    return _frame(x, psf)


def update_psf(psf, field, image):
    """One Richardson-Lucy step for the PSF, the padded sharp field being known."""
    ratio = image / _positive(fftconvolve(field, psf, mode="valid"))
    gradient = correlate(field, ratio, mode="valid", method="fft")[::-1, ::-1]
    psf = psf * np.maximum(gradient, 0)
    return psf / psf.sum()


def _reflect(image, psf):
    return np.pad(image, [(size // 2,) * 2 for size in psf.shape], mode="symmetric")


def _frame(field, psf):
    top, left = (size // 2 for size in psf.shape)
    return field[top : field.shape[0] - top, left : field.shape[1] - left]


def _positive(image):
    return np.maximum(image, 1e-6 * image.mean())


def sharpening(image, radius=2.0, amount=1.0):
    """Unsharp masking of scikit-image."""
    scale = image.max()
    return unsharp_mask(image / scale, radius=radius, amount=amount, preserve_range=True) * scale
