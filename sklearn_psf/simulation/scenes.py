"""Scenes: whole images under a PSF that varies from pixel to pixel, with the truth beside them.

Light leaves each pixel of the sample with the PSF of that pixel, ``y(r) = sum_s h_s(r - s) x(s)``
("scatter"). PSFs are computed at nodes, written in few modes, and interpolated between nodes as
PSFs: raw parameters (angles above all) are never interpolated.
"""

import math

import numpy as np
import torch

from .._validation import check_generator, check_images, check_number
from ..operators import ModeConvolution, compute_psf_modes, windows
from ..optics import Camera, PSFModel, make_psf_model

__all__ = ["check_sharp", "make_scene", "make_tilted_scene"]

_RTOL = 1e-3  # largest relative error (L2) that a PSF suffers from being written in modes
_AIM = 0.9 * _RTOL  # what modes are cut to, so that rounding does not ask for more
_N_FIRST = 384  # nodes whose PSFs found the first modes
_PSF_BYTES = 2**24  # PSFs held at a time, float32
_COEFFICIENT_BYTES = 2**25  # coefficient maps held at a time, float32


def make_scene(
    image, parameters, *, psf_model="zernike-3", camera=None, random_state=None, spacing=8
):
    r"""Blur a sharp image by a PSF that varies from pixel to pixel, and photograph it.

    .. math:: y(r) = \sum_s h_{p(s)}(r - s)\, x(s)

    Parameters
    ----------
    image : array-like of shape (H, W)
        Sharp image, non-negative, of any real dtype. With a camera it is scaled so that its
        brightest pixel sends ``camera.peak_photons``; zero stays dark. Beyond the frame it is
        continued by reflection for half a PSF, since that light arrives in the image too.
    parameters : array-like of shape (H, W, P)
        PSF parameters of every pixel, finite; beyond the bounds of the family is allowed. Beyond
        the frame the nearest pixel's hold.
    psf_model : str or PSFModel, default="zernike-3"
        Family.
    camera : Camera or None
        None: no noise, and the units of the image are kept.
    random_state : int, RandomState or None
        Seed of the noise.
    spacing : int, default=8
        PSFs are computed at every `spacing`-th pixel along rows and columns, and interpolated
        bilinearly between. Use 1 where `parameters` jump; equal parameters are computed once.

    Returns
    -------
    blurred : ndarray of shape (H, W)
        Grey values, float32.
    sharp : ndarray of shape (H, W)
        The sharp image in the same grey units (`Camera.to_grey`), without noise, float32.
    parameters : ndarray of shape (H, W, P)
        A copy, float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, or parameters give no finite PSF.

    Notes
    -----
    PSFs are written as a mean and modes that leave a relative error of at most 1e-3 (L2 norm) in
    each; every node's PSF is checked against this, and modes are added where it fails. PSFs
    are held in chunks, so that memory stays below about 0.5 GB for a 512 x 512 image. Time goes
    with the number of modes: ten or so for a tilt, hundreds where focus, cylinder and axis all
    vary freely.

    Examples
    --------
    >>> import numpy as np
    >>> sharp = np.random.RandomState(0).rand(64, 96)
    >>> width = np.broadcast_to(np.linspace(0.5, 3, 96)[:, np.newaxis], (64, 96, 1))
    >>> blurred, truth, p = make_scene(sharp, width, psf_model="gaussian-1")
    >>> blurred.shape, bool(blurred[:, 64:].std() < 0.3 * truth[:, 64:].std())
    ((64, 96), True)
    """
    image = check_sharp(image)
    model = _check_model(psf_model)
    parameters = _check_parameters(parameters, image.shape, model)
    check_number("spacing", spacing, low=1, integer=True)
    if not (camera is None or isinstance(camera, Camera)):
        raise TypeError(f"camera must be a Camera or None, got {camera!r}.")
    generator = check_generator(random_state)
    peak = image.max()
    photons = image if camera is None or peak == 0 else image * (camera.peak_photons / peak)
    photons = photons.astype(np.float32)
    # truncated modes may leave a trace below zero, of which a camera could make nothing
    blurred = _blur(photons, parameters, model, spacing).clip(min=0)
    if camera is None:
        return blurred, photons, parameters
    return camera.expose(blurred, generator=generator), camera.to_grey(photons), parameters


def make_tilted_scene(
    image,
    *,
    psf_model="zernike-1",
    low=None,
    high=None,
    direction=0.0,
    others=None,
    camera=None,
    random_state=None,
    spacing=8,
):
    """Photograph a tilted sample: the first PSF parameter is a plane across the image.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Sharp image, as for `make_scene`.
    psf_model : str or PSFModel, default="zernike-1"
        Family. Its first parameter (focus, width, depth) is tilted; of "gaussian-2" both widths.
    low, high : float or None
        Values at the two extreme corners; None takes the family's bounds. A negative focus is the
        other side of focus: ``(-f, c, axis)`` is returned as ``(f, c, axis + pi/2)``, the same PSF,
        and without an axis as ``f``.
    direction : float, default=0.0
        Where the parameter grows, in radians from the column (x) axis towards the row (y) axis.
    others : dict of str to float, optional
        Constant values of the other parameters by name. By default 0, or the bound nearest to it.
    camera, random_state, spacing
        As for `make_scene`.

    Returns
    -------
    blurred, sharp : ndarray of shape (H, W)
        As from `make_scene`.
    parameters : ndarray of shape (H, W, P)
        The parameters of every pixel, float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> sharp = np.random.RandomState(0).rand(48, 64)
    >>> _, _, p = make_tilted_scene(sharp, psf_model="zernike-3", low=-0.5, high=1.0,
    ...                             others={"cylinder": 0.2})
    >>> p[0, [0, -1]].round(3).tolist()
    [[0.5, 0.2, 1.571], [1.0, 0.2, 0.0]]
    """
    image = check_sharp(image)
    model = _check_model(psf_model)
    low = model.bounds[0, 0] if low is None else low
    high = model.bounds[0, 1] if high is None else high
    for name, value in (("low", low), ("high", high), ("direction", direction)):
        check_number(name, value)
    values = _constant_parameters(model, others)
    parameters = np.broadcast_to(values, (*image.shape, len(values))).copy()
    ramp = low + (high - low) * _plane(image.shape, direction)
    if model.name == "gaussian-2":
        parameters[...] = ramp[..., None]
    else:
        parameters[..., 0] = ramp
    _fold_focus(parameters, model.parameter_names)
    return make_scene(
        image,
        parameters,
        psf_model=model,
        camera=camera,
        random_state=random_state,
        spacing=spacing,
    )


def check_sharp(image):
    """Check one sharp image (H, W) and return it as float64; light cannot be negative."""
    array = np.asarray(image)
    if array.ndim != 2:
        raise ValueError(f"image must be one image (H, W), got shape {array.shape}.")
    image = check_images(array[np.newaxis], name="image")[0].astype(np.float64)
    if image.min() < 0:
        raise ValueError(
            f"image must be non-negative (it is light), got {image.min()}; subtract its background."
        )
    return image


def _check_model(psf_model):
    if isinstance(psf_model, str):
        return make_psf_model(psf_model)
    if not isinstance(psf_model, PSFModel):
        raise TypeError(f"psf_model must be a name or a PSFModel, got {psf_model!r}.")
    return psf_model


def _check_parameters(parameters, shape, model):
    parameters = np.array(parameters, dtype=np.float64)  # a copy: it is handed back
    expected = (*shape, len(model.parameter_names))
    if parameters.shape != expected:
        raise ValueError(
            f"parameters must have shape {expected} for {model.name} {model.parameter_names}, "
            f"got {parameters.shape}."
        )
    if not np.isfinite(parameters).all():
        raise ValueError("parameters must be finite, got NaN or infinity.")
    return parameters


def _constant_parameters(model, others):
    """One value for each parameter: those given, else 0 moved into the bounds."""
    values = dict(zip(model.parameter_names, np.clip(0.0, *model.bounds.T), strict=True))
    tilted = model.parameter_names[: 2 if model.name == "gaussian-2" else 1]
    for name, value in ({} if others is None else dict(others)).items():
        if name not in values or name in tilted:
            free = [key for key in values if key not in tilted]
            raise ValueError(f"others may name {free} of {model.name}, got {name!r}.")
        check_number(f"others[{name!r}]", value)
        values[name] = float(value)
    return np.array(list(values.values()))


def _plane(shape, direction):
    """Return a plane over the frame, from 0 to 1 between its extreme corners."""
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    plane = y * math.sin(direction) + x * math.cos(direction)
    plane = plane - plane.min()
    return plane / max(plane.max(), np.finfo(float).tiny)


def _fold_focus(parameters, names):
    """Bring a negative focus or depth into the domain of its family, without a change of PSF."""
    if names[0] not in ("focus", "depth"):
        return
    beyond = parameters[..., 0] < 0
    parameters[..., 0] = abs(parameters[..., 0])
    if "axis" in names:
        axis = parameters[..., names.index("axis")]
        axis[beyond] = (axis[beyond] + np.pi / 2) % np.pi


def _blur(photons, parameters, model, spacing):
    """Noise-free image of `photons` (H, W), float32."""
    nodes = [_node_places(n, spacing) for n in photons.shape]
    at_nodes = parameters[np.ix_(*nodes)]
    unique, inverse = np.unique(
        at_nodes.reshape(-1, at_nodes.shape[-1]), axis=0, return_inverse=True
    )
    modes, coefficients = _modes_of(model, unique)
    coefficients = coefficients[torch.from_numpy(inverse.reshape(at_nodes.shape[:2]))]
    half = model.size // 2
    field = torch.from_numpy(np.pad(photons, half, mode="symmetric"))
    wy, wx = (
        torch.from_numpy(w).float()
        for w in windows("bilinear", nodes[0] + half, nodes[1] + half, field.shape)
    )
    step = max(1, _COEFFICIENT_BYTES // (4 * field.numel()))
    blurred = torch.zeros(photons.shape)
    for k in range(0, len(modes), step):
        maps = wy.T @ coefficients[..., k : k + step].permute(2, 0, 1) @ wx
        blurred += ModeConvolution(modes[k : k + step], maps, photons.shape).forward(field)
    return blurred.numpy()


def _node_places(n, spacing):
    """Every `spacing`-th pixel of n, the last one included."""
    return np.unique(np.append(np.arange(0, n, spacing), n - 1))


def _modes_of(model, parameters):
    """Write the PSFs of parameters (U, P) as modes (K, size, size) and coefficients (U, K).

    The first modes come from a sample of the PSFs. All are then projected on them, a chunk at a
    time; where a PSF is left with too large an error, the residuals supply further modes. Those
    are orthogonal to all former ones, so PSFs already accepted have no part in them.
    """
    sample = np.unique(np.linspace(0, len(parameters) - 1, _N_FIRST).round().astype(int))
    first, _ = compute_psf_modes(_psfs(model, parameters[sample]), rtol=_AIM)
    mean, basis = first[0].flatten(), first[1:].flatten(1)
    rows = []
    for start in range(0, len(parameters), _chunk(model)):
        psfs = _psfs(model, parameters[start : start + _chunk(model)]).flatten(1)
        weights = (psfs - mean) @ basis.T
        residual = psfs - mean - weights @ basis
        bad = residual.norm(dim=1) > _RTOL * psfs.norm(dim=1)
        if bad.any():
            fresh = _span(residual[bad], _AIM * psfs[bad].norm(dim=1))
            basis = torch.cat([basis, fresh])
            weights = torch.cat([weights, residual @ fresh.T], 1)
        rows.append(weights)
    coefficients = torch.zeros(len(parameters), 1 + len(basis))
    coefficients[:, 0] = 1
    for i, weights in enumerate(rows):
        start = i * _chunk(model)
        coefficients[start : start + len(weights), 1 : 1 + weights.shape[1]] = weights
    modes = torch.cat([mean[None], basis]).reshape(-1, model.size, model.size)
    return modes, coefficients


def _chunk(model):
    return max(1, _PSF_BYTES // (4 * model.size**2))


def _psfs(model, parameters):
    psfs = model.psf(torch.from_numpy(np.ascontiguousarray(parameters, dtype=np.float32)))
    if not torch.isfinite(psfs).all():
        bad = parameters[~torch.isfinite(psfs).flatten(1).all(1).numpy()][0]
        raise ValueError(f"parameters {bad.tolist()} of {model.name} give no finite PSF.")
    return psfs


def _span(residual, tolerance):
    """Orthonormal rows that leave of each residual (m, p) at most its tolerance (m,)."""
    basis = torch.linalg.svd(residual, full_matrices=False)[2]
    energy = (residual @ basis.T).square()
    dropped = energy.flip(1).cumsum(1).flip(1)
    return basis[: int((dropped > tolerance[:, None] ** 2).any(0).sum())]
