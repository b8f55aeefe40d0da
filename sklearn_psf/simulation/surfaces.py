"""Surfaces under an astigmatic microscope: what it sees of them, and their true depth.

A weak cylindrical lens gives every point the same astigmatism; the depth of the surface adds a
defocus that goes with the distance from the focal plane, of either sign. Only the field of PSF
parameters is built here; `make_scene` renders it, pixel by pixel.
"""

import math

import numpy as np

from .._validation import check_choice, check_number
from ..optics import Optics, make_psf_model
from .scenes import check_sharp, make_scene

__all__ = ["SURFACE_SHAPES", "depth_to_parameters", "make_surface", "make_tilted_plane"]

SURFACE_SHAPES = ("sphere", "steps", "waves")
_CUTOFF, _SIZE = 0.25, 127  # support of a PSF, pixels, at Nyquist sampling
_N_STEPS, _N_WAVES = 4, 2


def make_tilted_plane(
    image,
    *,
    optics,
    tilt,
    direction=math.pi / 4,
    offset=0.0,
    cylinder=0.4,
    axis=0.0,
    camera=None,
    random_state=None,
    spacing=8,
):
    r"""Photograph a tilted plane through a microscope with a weak cylindrical lens.

    .. math:: z(y, x) = z_0 + \tan(t)\,(x \cos d + y \sin d)

    with (y, x) from the centre of the frame, in micrometres of the object.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Sharp texture as it is seen, foreshortening included; see `make_scene`.
    optics : Optics
        The microscope: gives micrometres and the cut-off of the pupil.
    tilt : float
        t, degrees, within +-80.
    direction : float, default=pi / 4
        d, where the depth grows: radians from the column (x) axis towards the row (y) axis. The
        default runs along the diagonal.
    offset : float, default=0.0
        z_0, depth at the centre of the frame, micrometres from the focal plane.
    cylinder : float, default=0.4
        Strength of the cylindrical lens, waves RMS. 0 leaves the side of focus unknown.
    axis : float, default=0.0
        Its axis where the depth is positive, radians; beyond focus it is turned by pi / 2.
    camera, random_state, spacing
        As for `make_scene`.

    Returns
    -------
    blurred : ndarray of shape (H, W)
        Grey values, float32.
    depth : ndarray of shape (H, W)
        True depth of every pixel, micrometres, float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    See Also
    --------
    make_surface : Surfaces that are not flat.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import Optics
    >>> texture = np.random.RandomState(0).rand(48, 64)
    >>> optics = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
    >>> image, depth = make_tilted_plane(texture, optics=optics, tilt=10, direction=0)
    >>> depth[0, [0, -1]].round(2)
    array([-1.81,  1.81])
    """
    image = check_sharp(image)
    depth = _plane(image.shape, optics, tilt, direction, offset)
    return _photograph(image, depth, optics, cylinder, axis, camera, random_state, spacing)


def make_surface(
    image,
    *,
    optics,
    height,
    shape="sphere",
    tilt=0.0,
    direction=math.pi / 4,
    offset=0.0,
    cylinder=0.4,
    axis=0.0,
    camera=None,
    random_state=None,
    spacing=None,
):
    """Photograph a curved or stepped surface through a microscope with a weak cylindrical lens.

    * "sphere": the cap of a sphere, as wide as the shorter side of the frame, on flat ground.
    * "steps": four terraces along `direction`, of equal height.
    * "waves": a sine of two periods along `direction`.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Sharp texture; see `make_scene`.
    optics : Optics
        The microscope.
    height : float
        From the lowest to the highest point of the shape, micrometres, positive.
    shape : {"sphere", "steps", "waves"} or array-like of shape (H, W), default="sphere"
        An array is a profile of your own, which is scaled to `height`; one that does not vary is
        flat.
    tilt, direction : float
        A plane that is added, as in `make_tilted_plane`; `direction` turns the steps and waves too.
    offset : float, default=0.0
        Depth half-way up the shape, micrometres from the focal plane.
    cylinder, axis, camera, random_state
        As for `make_tilted_plane`.
    spacing : int or None
        As for `make_scene`; None takes 1 for "steps" and for arrays, else 8.

    Returns
    -------
    blurred : ndarray of shape (H, W)
        Grey values, float32.
    depth : ndarray of shape (H, W)
        True depth of every pixel, micrometres, float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Notes
    -----
    The sample is thin and does not hide itself: light leaves every pixel with the PSF of its own
    depth.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import Optics
    >>> texture = np.random.RandomState(0).rand(48, 64)
    >>> optics = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
    >>> image, depth = make_surface(texture, optics=optics, height=6.0, shape="steps")
    >>> np.unique(depth.round(2))
    array([-3., -1.,  1.,  3.])
    """
    image = check_sharp(image)
    check_number("height", height, low=0, open_low=True)
    plane = _plane(image.shape, optics, tilt, direction, offset)
    own = not isinstance(shape, str)
    if own:
        profile = _own_profile(shape, image.shape)
    else:
        check_choice("shape", shape, SURFACE_SHAPES)
        profile = _PROFILES[shape](image.shape, direction)
    depth = plane + height * _centred(profile)
    if spacing is None:
        spacing = 1 if own or shape == "steps" else 8
    return _photograph(image, depth, optics, cylinder, axis, camera, random_state, spacing)


def depth_to_parameters(depth, *, optics, cylinder=0.4, axis=0.0):
    """Return what the PSF of "zernike-3" is at some depth under a cylindrical lens.

    Parameters
    ----------
    depth : array-like of any shape
        Distance from the focal plane, micrometres, of either sign.
    optics : Optics
        Converts micrometres to waves RMS (`Optics.micrometres_to_waves`).
    cylinder : float, default=0.4
        Strength of the lens, waves RMS, non-negative.
    axis : float, default=0.0
        Its axis where the depth is positive, radians.

    Returns
    -------
    ndarray of shape (..., 3)
        Focus, cylinder and axis, float64: the focus is never negative, and the axis turns by
        pi / 2 where the depth does.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Examples
    --------
    >>> from sklearn_psf.optics import Optics
    >>> optics = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
    >>> depth_to_parameters([-10.0, 10.0], optics=optics).round(2)
    array([[0.44, 0.4 , 1.57],
           [0.44, 0.4 , 0.  ]])
    """
    _check_optics(optics)
    check_number("cylinder", cylinder, low=0)
    check_number("axis", axis)
    focus = np.asarray(optics.micrometres_to_waves(np.asarray(depth, dtype=np.float64)))
    turned = np.where(focus < 0, axis + math.pi / 2, axis) % math.pi
    return np.stack([np.abs(focus), np.full(focus.shape, float(cylinder)), turned], -1)


def _photograph(image, depth, optics, cylinder, axis, camera, random_state, spacing):
    parameters = depth_to_parameters(depth, optics=optics, cylinder=cylinder, axis=axis)
    # A finer sampling needs more pixels for the same PSF.
    size = 2 * math.ceil(_SIZE // 2 * max(1.0, _CUTOFF / optics.cutoff)) + 1
    model = make_psf_model("zernike-3", cutoff=optics.cutoff, size=size)
    blurred, _, _ = make_scene(
        image,
        parameters,
        psf_model=model,
        camera=camera,
        random_state=random_state,
        spacing=spacing,
    )
    return blurred, depth


def _check_optics(optics):
    if not isinstance(optics, Optics):
        raise TypeError(f"optics must be an Optics, got {optics!r}.")


def _along(shape, direction):
    """Distance of every pixel from the centre of the frame along a direction, pixels."""
    y, x = ((np.arange(n) - (n - 1) / 2) for n in shape)
    return y[:, np.newaxis] * math.sin(direction) + x * math.cos(direction)


def _plane(shape, optics, tilt, direction, offset):
    _check_optics(optics)
    check_number("tilt", tilt, low=-80, high=80)
    check_number("direction", direction)
    check_number("offset", offset)
    slope = math.tan(math.radians(tilt)) * optics.object_pixel
    return offset + slope * _along(shape, direction)


def _centred(profile):
    """Profile scaled to the range -1/2 .. 1/2; one that does not vary becomes 0."""
    low, high = profile.min(), profile.max()
    return (profile - (low + high) / 2) / (high - low) if high > low else np.zeros(profile.shape)


def _own_profile(profile, shape):
    profile = np.asarray(profile, dtype=np.float64)
    if profile.shape != shape:
        raise ValueError(f"shape must be a name or an array {shape}, got shape {profile.shape}.")
    if not np.isfinite(profile).all():
        raise ValueError("shape must be finite, got NaN or infinity.")
    return profile


def _sphere(shape, direction):
    """A cap whose rim rises at 45 degrees of the sphere, in units of the sphere's radius."""
    rim = math.sin(math.pi / 4)
    y, x = ((np.arange(n) - (n - 1) / 2) for n in shape)
    squared = (y[:, np.newaxis] ** 2 + x**2) * (2 * rim / min(shape)) ** 2
    return np.sqrt(1 - np.minimum(squared, rim**2))


def _steps(shape, direction):
    along = _centred(_along(shape, direction)) + 0.5
    return np.minimum(np.floor(_N_STEPS * along), _N_STEPS - 1)


def _waves(shape, direction):
    along = _centred(_along(shape, direction)) + 0.5
    return np.sin(2 * math.pi * _N_WAVES * along)


_PROFILES = {"sphere": _sphere, "steps": _steps, "waves": _waves}
