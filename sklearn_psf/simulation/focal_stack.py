"""Focal stacks: one sample seen at many positions of the stage."""

import math
import warnings
from dataclasses import replace

import numpy as np
import torch
from skimage.transform import downscale_local_mean
from sklearn.utils import check_random_state

from .._validation import check_choice, check_number
from ..operators import Convolution
from ..optics import Camera, Optics, make_psf_model
from .scenes import make_scene

__all__ = ["make_focal_stack"]

_FAMILIES = ("born-wolf", "zernike-1")
_SPACING = 8  # pixels between the nodes of a tilted sample's PSFs


def make_focal_stack(
    image,
    z,
    *,
    optics,
    psf_model="born-wolf",
    z_focus=0.0,
    tilt=(0.0, 0.0),
    margin=0,
    oversampling=1,
    camera=None,
    random_state=None,
):
    r"""Photograph a thin sample at many stage positions.

    .. math:: y_i = h_{z_i - z_f} * x, \qquad z_f(r, c) = z_{focus} + t_y (r / H - 1/2)
              + t_x (c / W - 1/2)

    with the PSFs of a defocused pupil, and z_f a plane where the sample is tilted.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Sharp image, non-negative. Pixels are those of the camera divided by `oversampling`.
    z : array-like of shape (n_z,)
        Stage positions, micrometres, in any order.
    optics : Optics
        Microscope; `pixel_size` and `magnification` are those of the camera.
    psf_model : {"born-wolf", "zernike-1"}, default="born-wolf"
        Family. The two are the same paraxial defocus, in micrometres and in waves RMS.
    z_focus : float, default=0.0
        Stage position at which the centre of the image is sharp, micrometres.
    tilt : (float, float), default=(0.0, 0.0)
        By how much the position of focus changes from the first row to the last, and from the
        first column to the last, micrometres.
    margin : int, default=0
        Camera pixels cut from each side, so that what lies beyond the frame is sample too.
        Where the margin is smaller than the PSF, the sample goes on by reflection.
    oversampling : int, default=1
        Pixels of `image` per camera pixel and axis, averaged by the camera. Use 2 where the camera
        undersamples.
    camera : Camera or None
        None: no noise, and the units of the image are kept. Otherwise the brightest pixel of the
        image in focus receives ``camera.peak_photons``, and the same lamp lights every plane.
    random_state : int, RandomState or None
        Seed of the noise.

    Returns
    -------
    ndarray of shape (n_z, h, w)
        Grey values, float32; ``h = H / oversampling - 2 margin``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    References
    ----------
    M. Born and E. Wolf, "Principles of Optics", sec. 8.8.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import Optics
    >>> optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.43)
    >>> sharp = np.random.RandomState(0).rand(64, 64)
    >>> stack = make_focal_stack(sharp, [-20, 0, 20], optics=optics)
    >>> stack.shape, bool(stack[1].std() > 2 * stack[0].std())
    ((3, 64, 64), True)
    """
    field = _check_field(image, margin, oversampling)
    z = check_positions(z)
    if not isinstance(optics, Optics):
        raise TypeError(f"optics must be an Optics, got {optics!r}.")
    check_choice("psf_model", psf_model, _FAMILIES)
    check_number("z_focus", z_focus)
    tilt = _check_tilt(tilt)
    if not (camera is None or isinstance(camera, Camera)):
        raise TypeError(f"camera must be a Camera or None, got {camera!r}.")
    rng = check_random_state(random_state)

    def plane(position):
        fine = _blur(field, position - z_focus, tilt, margin, optics, psf_model, oversampling)
        return _crop_and_bin(fine, margin, oversampling)

    photons = np.stack([plane(position) for position in z])
    if camera is None:
        return photons
    photons *= camera.peak_photons / max(plane(z_focus).max(), np.finfo(np.float32).tiny)
    return camera.expose(photons, generator=int(rng.randint(2**31 - 1)))


def check_positions(z, name="z"):
    """Return stage positions as a vector of floats, or raise."""
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 1 or len(z) == 0:
        raise ValueError(f"{name} must be positions (n_z,), got shape {z.shape}.")
    if not np.isfinite(z).all():
        raise ValueError(f"{name} must be finite, got {z[~np.isfinite(z)][0]}.")
    return z


def _check_field(image, margin, oversampling):
    field = np.asarray(image, dtype=np.float32)
    if field.ndim != 2:
        raise ValueError(f"image must be one image (H, W), got shape {field.shape}.")
    if not np.isfinite(field).all() or field.min() < 0:
        raise ValueError("image must be finite and non-negative (it is light).")
    check_number("margin", margin, low=0, integer=True)
    check_number("oversampling", oversampling, low=1, integer=True)
    left = min(field.shape) // oversampling - 2 * margin
    if left < 1 or any(n % oversampling for n in field.shape):
        raise ValueError(
            f"image of shape {field.shape} must be a multiple of oversampling={oversampling} and "
            f"larger than twice margin={margin}."
        )
    return field


def _check_tilt(tilt):
    pair = tuple(np.ravel(tilt))
    if len(pair) != 2:
        raise ValueError(f"tilt must be (along rows, along columns), got {tilt!r}.")
    for value in pair:
        check_number("tilt", value)
    return pair


def _model(psf_model, optics, oversampling, z_largest):
    """Return a family whose array holds the PSF at the largest defocus, on the fine pixels."""
    cutoff = optics.cutoff / oversampling
    # The geometric radius of the blur, 4 sqrt(3) a_4 / f_c pixels, and room for the rings.
    focus = abs(optics.micrometres_to_waves(z_largest))
    half = math.ceil(1.1 * 4 * math.sqrt(3) * focus / cutoff + 6 / cutoff)
    if psf_model == "zernike-1":
        return make_psf_model("zernike-1", cutoff=cutoff, size=2 * half + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `optics` has warned already of what is undersampled
        fine = replace(optics, magnification=optics.magnification * oversampling)
    return make_psf_model("born-wolf", size=2 * half + 1, optics=fine)


def _blur(field, defocus, tilt, margin, optics, psf_model, oversampling):
    slopes = [abs(t) for t in tilt]
    model = _model(psf_model, optics, oversampling, abs(defocus) + sum(slopes))
    scale = optics.waves_per_micrometre if psf_model == "zernike-1" else 1.0
    if not any(slopes):
        pad = model.size // 2
        psf = torch.from_numpy(np.asarray(model.psf([[defocus * scale]])[0], dtype=np.float32))
        wide = torch.from_numpy(np.pad(field, pad, mode="symmetric"))
        return Convolution(psf, field.shape).forward(wide).numpy()
    y, x = ((np.arange(n) + 0.5 - n / 2) / (n - 2 * margin * oversampling) for n in field.shape)
    depth = defocus - tilt[0] * y[:, None] - tilt[1] * x
    parameters = depth[..., np.newaxis] * scale
    return make_scene(field, parameters, psf_model=model, spacing=_SPACING)[0]


def _crop_and_bin(fine, margin, oversampling):
    cut = margin * oversampling
    fine = fine[cut : fine.shape[0] - cut, cut : fine.shape[1] - cut]
    return downscale_local_mean(fine, oversampling).astype(np.float32).clip(min=0)
