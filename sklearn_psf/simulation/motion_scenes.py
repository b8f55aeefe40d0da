"""Long exposures of moving samples, with the motion of every pixel beside them."""

import math

import numpy as np
from sklearn.utils import check_random_state

from .._validation import check_choice, check_number
from ..optics import make_psf_model
from .scenes import check_sharp, make_scene

__all__ = ["make_motion_scene", "make_particles", "make_pipe_flow", "make_vortex"]

_STEPS = 64  # of a profile of speeds, so that few PSFs are to be computed


def make_particles(shape, *, density=0.01, diameter=3.0, random_state=None):
    """Draw bright round particles of finite size on black.

    Parameters
    ----------
    shape : tuple of int
        Height and width, pixels.
    density : float, default=0.01
        Particles per pixel.
    diameter : float, default=3.0
        Of a particle, pixels.
    random_state : int, RandomState or None
        Seed.

    Returns
    -------
    ndarray of shape (H, W)
        Between 0 and 1, float64. Particles overlap additively; their brightness varies by a factor
        of two.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> image = make_particles((64, 80), density=0.02, random_state=0)
    >>> image.shape, bool(0.05 < (image > 0).mean() < 0.4)
    ((64, 80), True)
    """
    shape = _check_shape(shape)
    check_number("density", density, low=0, high=1, open_low=True)
    check_number("diameter", diameter, low=0.5)
    rng = check_random_state(random_state)
    reach = math.ceil(diameter / 2 + 1)
    # Particles whose centre lies beyond the border reach into the image too.
    wide = [m + 2 * reach for m in shape]
    n = max(1, round(density * wide[0] * wide[1]))
    places = rng.uniform(-reach - 0.5, np.array(shape) + reach - 0.5, (n, 2))
    brightness = rng.uniform(0.5, 1, n)
    image = np.zeros([m + 4 * reach + 2 for m in shape])
    offset = np.arange(-reach, reach + 1)
    for place, bright in zip(places, brightness, strict=True):
        at = np.floor(place).astype(int)
        dy, dx = (offset + start - p for start, p in zip(at, place, strict=True))
        distance = np.hypot(dy[:, None], dx)
        disk = np.clip(diameter / 2 + 0.5 - distance, 0, 1)
        box = tuple(slice(a + reach + 1, a + 3 * reach + 2) for a in at)
        image[box] += bright * disk
    image = image[2 * reach + 1 : -2 * reach - 1, 2 * reach + 1 : -2 * reach - 1]
    return image / max(image.max(), 1e-12)


def make_motion_scene(
    image, motions, *, regions=None, psf_model=None, camera=None, random_state=None
):
    """Photograph a sample whose regions move differently during the exposure.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Sharp image at mid-exposure, non-negative.
    motions : array-like of shape (k, 4)
        v_y, v_x (pixels per exposure), v_z (waves RMS per exposure) and z0 (waves RMS) of each
        region.
    regions : array-like of int of shape (H, W) or None
        Number of the region of each pixel, 0 ... k - 1. None cuts the image by chance: each pixel
        belongs to the nearest of k random points.
    psf_model : PSFModel or None
        The family "motion", for instance of a lens with a known `cylinder`.
    camera, random_state
        As for `make_scene`.

    Returns
    -------
    blurred, sharp : ndarray of shape (H, W)
        As from `make_scene`.
    motion : ndarray of shape (4, H, W)
        Of every pixel, as `BlurFlowEstimator` predicts it.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> sharp = np.random.RandomState(0).rand(64, 64)
    >>> halves = np.repeat([[0] * 32 + [1] * 32], 64, axis=0)
    >>> blurred, _, motion = make_motion_scene(
    ...     sharp, [[0, 9, 0.3, 0.4], [5, 0, 0, 0.2]], regions=halves)
    >>> motion[:, 0, 0].tolist()
    [0.0, 9.0, 0.3, 0.4]
    """
    image = check_sharp(image)
    motions = np.asarray(motions, dtype=np.float64)
    if motions.ndim != 2 or motions.shape[1] != 4 or not len(motions):
        raise ValueError(f"motions must have shape (k, 4), got {motions.shape}.")
    if not np.isfinite(motions).all():
        raise ValueError("motions must be finite, got NaN or infinity.")
    rng = check_random_state(random_state)
    regions = _random_regions(image.shape, len(motions), rng) if regions is None else regions
    regions = np.asarray(regions)
    if regions.shape != image.shape or not np.isin(regions, np.arange(len(motions))).all():
        raise ValueError(
            f"regions must have shape {image.shape} and values 0 to {len(motions) - 1}, got shape "
            f"{regions.shape} and values {regions.min()} to {regions.max()}."
        )
    parameters = motions[regions.astype(int)]
    return _photograph(image, parameters, None, psf_model, camera, rng, spacing=1)


def make_pipe_flow(
    image=None,
    *,
    shape=(256, 256),
    speed=12.0,
    axial_speed=0.4,
    depth=0.5,
    profile="poiseuille",
    radius=80.0,
    direction=0.0,
    density=0.02,
    diameter=3.0,
    psf_model=None,
    camera=None,
    random_state=None,
    spacing=8,
):
    r"""Photograph the flow between two walls, in a layer of one depth.

    .. math:: v(r) = v_{max}\left(1 - r^2 / R^2\right)\ \text{(Poiseuille)},\qquad
              v(r) = v_{max}\ \text{(plug)}

    with r the distance from the axis of the pipe, which runs through the middle of the image.
    Lateral and axial motion share the profile, since both are parts of one velocity.

    Parameters
    ----------
    image : array-like of shape (H, W) or None
        Sharp texture that flows. None draws particles (`make_particles`).
    shape : tuple of int, default=(256, 256)
        Height and width without `image`, pixels.
    speed : float, default=12.0
        Lateral speed on the axis, pixels per exposure.
    axial_speed : float, default=0.4
        Axial speed on the axis, waves RMS per exposure.
    depth : float, default=0.5
        Defocus of the pipe's axis, waves RMS.
    profile : {"poiseuille", "plug"}
        Profile of speeds; the first is 0 at the wall.
    radius : float, default=80.0
        Of the pipe, pixels. Beyond it there is no light.
    direction : float, default=0.0
        Of the flow, radians from the column (x) axis towards the row (y) axis.
    density, diameter : float
        Of the particles, see `make_particles`.
    psf_model : PSFModel or None
        The family "motion".
    camera, random_state, spacing
        As for `make_scene`.

    Returns
    -------
    blurred, sharp : ndarray of shape (H, W)
        As from `make_scene`.
    motion : ndarray of shape (4, H, W)
        v_y, v_x, v_z and z0 of every pixel; NaN outside the pipe. Speeds change in 64 steps.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    References
    ----------
    L. D. Landau and E. M. Lifshitz, "Fluid Mechanics", sec. 17.

    Examples
    --------
    >>> blurred, sharp, motion = make_pipe_flow(shape=(96, 96), radius=40, speed=8, random_state=0)
    >>> motion[1, [48, 28, 8, 2], 0].round(1).tolist()
    [8.0, 6.1, 0.2, nan]
    """
    check_choice("profile", profile, ("poiseuille", "plug"))
    check_number("radius", radius, low=1)
    for name, value in (("speed", speed), ("axial_speed", axial_speed), ("depth", depth)):
        check_number(name, value)
    check_number("direction", direction)
    image, rng = _texture(image, shape, density, diameter, random_state)
    y, x = _centred(image.shape)
    across = (y * math.cos(direction) - x * math.sin(direction)) / radius
    inside = abs(across) <= 1
    share = 1 - across**2 if profile == "poiseuille" else np.ones(image.shape)
    share = np.round(share.clip(min=0) * _STEPS) / _STEPS
    parameters = np.stack(
        [
            speed * math.sin(direction) * share,
            speed * math.cos(direction) * share,
            axial_speed * share,
            np.full(image.shape, float(depth)),
        ],
        -1,
    )
    return _photograph(image, parameters, inside, psf_model, camera, rng, spacing)


def make_vortex(
    image=None,
    *,
    shape=(256, 256),
    speed=12.0,
    axial_speed=0.3,
    depth=0.5,
    core=50.0,
    density=0.02,
    diameter=3.0,
    psf_model=None,
    camera=None,
    random_state=None,
    spacing=8,
):
    r"""Photograph a Rankine vortex around the middle of the image.

    .. math:: v(r) = v_{max} \min(r / R, R / r)

    perpendicular to the radius, together with an even axial motion.

    Parameters
    ----------
    image, shape, density, diameter
        As for `make_pipe_flow`.
    speed : float, default=12.0
        Largest speed, at the border of the core, pixels per exposure; the sense is from the column
        (x) axis towards the row (y) axis, and the other one if negative.
    axial_speed : float, default=0.3
        Waves RMS per exposure.
    depth : float, default=0.5
        Defocus, waves RMS.
    core : float, default=50.0
        Radius R of the core, which turns like a solid body, pixels.
    psf_model, camera, random_state, spacing
        As for `make_pipe_flow`.

    Returns
    -------
    blurred, sharp : ndarray of shape (H, W)
        As from `make_scene`.
    motion : ndarray of shape (4, H, W)
        Of every pixel. Velocities change in steps of a 32nd of `speed`.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    References
    ----------
    P. G. Saffman, "Vortex Dynamics", 1992.

    Examples
    --------
    >>> _, _, motion = make_vortex(shape=(65, 65), core=20, speed=8, random_state=0, spacing=16)
    >>> abs(motion[:2, 32, [32, 42, 52]]).round(1).tolist()
    [[0.0, 4.0, 8.0], [0.0, 0.0, 0.0]]
    """
    check_number("core", core, low=1)
    for name, value in (("speed", speed), ("axial_speed", axial_speed), ("depth", depth)):
        check_number(name, value)
    image, rng = _texture(image, shape, density, diameter, random_state)
    y, x = _centred(image.shape)
    radius = np.hypot(y, x)
    rate = np.minimum(1 / core, core / np.maximum(radius, 1e-9) ** 2)
    lateral = [
        speed * np.round(component * rate * _STEPS / 2) / (_STEPS / 2) for component in (x, -y)
    ]
    rest = [np.full(image.shape, float(value)) for value in (axial_speed, depth)]
    parameters = np.stack([*lateral, *rest], -1)
    return _photograph(image, parameters, None, psf_model, camera, rng, spacing)


def _photograph(image, parameters, inside, psf_model, camera, rng, spacing):
    """Render, and give the truth as (4, H, W) with NaN where there is nothing."""
    psf_model = make_psf_model("motion") if psf_model is None else psf_model
    if getattr(psf_model, "name", psf_model) != "motion":
        raise ValueError(f"psf_model must be of the family 'motion', got {psf_model!r}.")
    if inside is not None:
        image = np.where(inside, image, 0.0)
    blurred, sharp, motion = make_scene(
        image, parameters, psf_model=psf_model, camera=camera, random_state=rng, spacing=spacing
    )
    if inside is not None:
        motion[~inside] = np.nan
    return blurred, sharp, np.moveaxis(motion, -1, 0)


def _texture(image, shape, density, diameter, random_state):
    rng = check_random_state(random_state)
    if image is not None:
        return check_sharp(image), rng
    return make_particles(shape, density=density, diameter=diameter, random_state=rng), rng


def _check_shape(shape):
    shape = tuple(shape)
    if len(shape) != 2:
        raise ValueError(f"shape must be (height, width), got {shape}.")
    for n in shape:
        check_number("shape", n, low=8, integer=True)
    return shape


def _centred(shape):
    """Coordinates from the middle of an image, each (H, W)."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    return np.broadcast_arrays(y[:, None], x)


def _random_regions(shape, n, rng):
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    centres = rng.uniform(0.1, 0.9, (n, 2)) * shape
    return np.argmin([np.hypot(y - a, x - b) for a, b in centres], axis=0)
