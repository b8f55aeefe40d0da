"""PSFMap: images together with their local PSFs, the one thing that flows between estimators."""

from dataclasses import dataclass, fields, replace

import numpy as np

from .optics import Optics, make_psf_model

__all__ = ["PSFMap"]

_PER_IMAGE = ("images", "parameters", "std", "invalid")


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class PSFMap:
    """Images and the PSF parameters of windows on a grid over them.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        The images, as they were given to the mapper.
    parameters : ndarray of shape (n, gy, gx, P)
        PSF parameters in family units (waves RMS, pixels, radians); invalid windows are filled from
        their neighbours, all NaN if an image has no valid window.
    std : ndarray of shape (n, gy, gx, P)
        Standard deviations.
    invalid : ndarray of shape (n, gy, gx)
        Probability that a window has no texture to read, in [0, 1].
    rows, columns : ndarray of shape (gy,) and (gx,)
        Window centres, pixels of the images; pixel centres are at integers.
    model : dict
        Settings of the PSF family at the sampling of the images (`PSFModel.settings`).
    optics : Optics or None
        Needed for micrometres.

    Raises
    ------
    ValueError
        If the shapes do not agree.

    Notes
    -----
    A map does not turn into an array by itself: ``np.asarray(maps)`` raises TypeError, because the
    images alone would drop the parameters. Use ``maps.images``.

    Examples
    --------
    >>> import numpy as np
    >>> maps = PSFMap(
    ...     images=np.zeros((2, 64, 64)), parameters=np.full((2, 3, 3, 1), 0.4),
    ...     std=np.zeros((2, 3, 3, 1)), invalid=np.zeros((2, 3, 3)), rows=np.arange(3) * 32.0,
    ...     columns=np.arange(3) * 32.0, model={"name": "zernike-1", "cutoff": 0.25, "size": 31},
    ... )
    >>> len(maps), maps[0].shape, maps.psfs(0).shape
    (2, (1, 64, 64), (3, 3, 31, 31))
    """

    images: np.ndarray
    parameters: np.ndarray
    std: np.ndarray
    invalid: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    model: dict
    optics: Optics | None = None

    def __post_init__(self):
        if np.ndim(self.images) != 3:
            raise ValueError(
                f"images of a PSFMap must have shape (n, H, W), got {np.shape(self.images)}."
            )
        grid = (len(self.images), len(self.rows), len(self.columns))
        n_parameters = len(self.psf_model.parameter_names)
        wanted = {
            "parameters": (*grid, n_parameters),
            "std": (*grid, n_parameters),
            "invalid": grid,
        }
        for name, shape in wanted.items():
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(
                    f"{name} of a PSFMap must have shape {shape}, got "
                    f"{np.shape(getattr(self, name))}."
                )
        for name in ("rows", "columns"):
            if (np.diff(getattr(self, name)) <= 0).any():
                raise ValueError(f"{name} of a PSFMap must increase, got {getattr(self, name)}.")

    def __repr__(self):
        n, height, width = self.shape
        gy, gx = self.invalid.shape[1:]
        return (
            f"PSFMap({n} images of {height} x {width}, {gy} x {gx} windows, "
            f"{self.model['name']}, {np.mean(self.invalid > 0.5):.0%} invalid)"
        )

    @property
    def shape(self):
        """Shape of the images, (n, H, W)."""
        return self.images.shape

    @property
    def psf_model(self):
        """The PSF family at the sampling of the images."""
        return make_psf_model(**self.model, optics=self.optics)

    def __len__(self):
        return len(self.images)

    def __array__(self, dtype=None, copy=None):
        """Refuse to become an array."""
        raise TypeError(
            "A PSFMap holds images and PSF parameters and cannot become one array; use "
            "maps.images or maps.parameters."
        )

    def __getitem__(self, key):
        """Return the map of some images; an integer keeps the axis, with n = 1."""
        if isinstance(key, tuple):
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError(f"A PSFMap is indexed by images alone, got {key!r}.")
            key = key[0]
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"Image {key} is out of range for {len(self)} images.")
            key = slice(key, key + 1 if key != -1 else None)
        elif not isinstance(key, slice):
            key = np.asarray(key)
        return replace(self, **{name: getattr(self, name)[key] for name in _PER_IMAGE})

    @staticmethod
    def concatenate(maps):
        """Join maps of the same grid, family and optics along the images.

        Parameters
        ----------
        maps : sequence of PSFMap
            At least one.

        Returns
        -------
        PSFMap
            All images in order.

        Raises
        ------
        ValueError
            If the sequence is empty or the maps do not fit together.
        """
        maps = list(maps)
        if not maps:
            raise ValueError("maps must hold at least one PSFMap, got none.")
        first = maps[0]
        for other in maps[1:]:
            for field in fields(first):
                if field.name in _PER_IMAGE:
                    a, b = getattr(first, field.name), getattr(other, field.name)
                    same = a.shape[1:] == b.shape[1:]
                elif field.name in ("rows", "columns"):
                    a, b = getattr(first, field.name), getattr(other, field.name)
                    same = np.array_equal(a, b)
                else:
                    same = getattr(first, field.name) == getattr(other, field.name)
                if not same:
                    raise ValueError(f"The maps differ in {field.name} and cannot be joined.")
        return replace(
            first,
            **{n: np.concatenate([getattr(m, n) for m in maps]) for n in _PER_IMAGE},
        )

    def psfs(self, i):
        """Return the PSFs of image `i` on its own sampling.

        Parameters
        ----------
        i : int
            Image.

        Returns
        -------
        ndarray of shape (gy, gx, size, size)
            Non-negative, sum 1, float32; a delta where the parameters are NaN.
        """
        model = self.psf_model
        parameters = self.parameters[i].reshape(-1, self.parameters.shape[-1])
        known = np.isfinite(parameters).all(1)
        psfs = np.zeros((len(parameters), model.size, model.size), np.float32)
        psfs[:, model.size // 2, model.size // 2] = 1
        if known.any():
            psfs[known] = model.psf(parameters[known].astype(np.float32))
        return psfs.reshape(*self.parameters.shape[1:3], model.size, model.size)

    def upsample(self, values=None):
        """Interpolate the parameters to every pixel, bilinearly in the family's encoding.

        Beyond the outermost window centres the nearest value is kept.

        Parameters
        ----------
        values : ndarray of shape (n, gy, gx, P) or None
            Parameters to interpolate; `parameters` by default.

        Returns
        -------
        ndarray of shape (n, H, W, P)
            Float32.
        """
        model = self.psf_model
        encoded = model.encode(self.parameters if values is None else np.asarray(values))
        height, width = self.shape[1:]
        down = _interpolation_matrix(self.rows, height)
        across = _interpolation_matrix(self.columns, width)
        result = np.empty((*self.shape, self.parameters.shape[-1]), np.float32)
        for image, grid in zip(result, encoded, strict=True):
            dense = np.einsum("yi,ije->yje", down, grid)
            image[:] = model.decode(np.einsum("xj,yje->yxe", across, dense))
        return result

    def defocus(self):
        """Return the distance from focus of each window in micrometres, unsigned.

        Returns
        -------
        ndarray of shape (n, gy, gx)
            Micrometres, by the paraxial relation of `Optics.waves_to_micrometres`.

        Raises
        ------
        ValueError
            Without optics, or for a family without focus or depth.
        """
        names = self.psf_model.parameter_names
        if self.optics is None:
            raise ValueError(
                "defocus() in micrometres needs optics; give SpatialPSFMapper optics=."
            )
        if "depth" in names:
            return np.abs(self.parameters[..., names.index("depth")])
        if "focus" not in names:
            raise ValueError(f"defocus() needs a family with a focus, got {self.model['name']!r}.")
        return self.optics.waves_to_micrometres(self.parameters[..., names.index("focus")])


def _interpolation_matrix(centres, n):
    """Weights (n, len(centres)) of linear interpolation at pixels 0 .. n - 1, constant outside."""
    pixels = np.arange(n)
    return np.stack([np.interp(pixels, centres, row) for row in np.eye(len(centres))], -1)
