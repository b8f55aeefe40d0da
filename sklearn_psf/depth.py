"""Depth of a surface from the astigmatism of its image."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from ._defocus_spectra import SURELY_FLAT, measure_lens, refine_defocus
from ._depth_curve import apply_curve, fit_curve, scale_by_optics
from ._psf_map import PSFMap
from ._signed_focus import (
    fit_lens_axis,
    lens_cylinder,
    published_product,
    signed_focus,
    signed_widths,
)
from ._surface import (
    edge_aware_surface,
    interleaved_surface,
    interpolate_grid,
    smooth_surface,
)
from ._validation import check_bool, check_choice, check_number
from ._window_depths import window_depths, window_size

__all__ = ["AstigmaticDepthEstimator"]

_WEAK_LENS = 0.05  # waves RMS: below, the axis of the lens is not seen
_SHARED = 0.3  # of a window: how far the errors of compared windows of a curved sample are alike
_FAR = 3.0  # half ranges of extrapolation that readings are let into the surface with


class AstigmaticDepthEstimator(RegressorMixin, BaseEstimator):
    r"""Depth of a thin, uneven sample from PSF maps under a weak cylindrical lens.

    The lens makes the blur elongated, and the elongation turns by pi / 2 where the sample passes
    through focus: focus and axis together are a signed distance from the focal plane,

    .. math:: s = f \cos 2(\alpha - \alpha_0),

    where alpha_0, the axis of the lens, is a constant of the instrument that `fit` finds, like the
    monotone curve from s to micrometres.

    Parameters
    ----------
    method : {"signed-focus", "product"}, default="signed-focus"
        "product" is the published :math:`f (2 \alpha / \pi - 1)`, turned into micrometres by a
        straight line. Maps of "gaussian-2" are read by ``width_y^2 - width_x^2``, of a lens along
        rows or columns.
    curve : {"cubic", "linear", "isotonic"}, default="cubic"
        Monotone curve from readings to micrometres (`sklearn_psf._depth_curve.fit_curve`).
    axis : float or None
        Axis of the lens where the depth is positive, radians, if it is known. None fits it.
    smoothing : {"surface", "edges", None}, default="surface"
        What neighbouring windows know of each other. "surface": the most probable smooth surface
        through the readings, each counted by its standard deviation; how smooth, the readings
        decide. "edges": few jumps, for samples with steps. None leaves each window as it was read.
    spectra : bool, default=True
        Whether the windows of an image are compared with one another, besides being read one by
        one: they show the same texture, so that the ratios of their power spectra tell their blur,
        and the lens. Only for maps of "zernike-3" and ``method="signed-focus"``. Images of fewer
        than nine windows with texture, or of windows below 48 pixels, are left as they were read.
    margin : float, default=0.1
        Depths further outside the calibrated range than this part of it are NaN.
    invalid_threshold : float, default=0.5
        Windows more likely than this to be without texture are NaN.

    Attributes
    ----------
    calibration_ : dict
        "calibrated": whether known depths were used; "depth", "reading": knots of the curve
        (micrometres; waves RMS, or pixels squared of "gaussian-2"), "compared": the readings at the
        same depths of windows that were compared (None without `spectra`); "axis", "cylinder": the
        lens (radians, waves RMS; None of "gaussian-2"); "n_windows": how many were used;
        "rms_error": of their single readings, micrometres (None if uncalibrated).
    model_name_ : str
        Family of the maps.

    See Also
    --------
    SpatialPSFMapper : Makes the maps; with ``smoothing=0`` it leaves all smoothing to this
        estimator, which knows that depth is what is smooth.
    sklearn_psf.simulation.make_tilted_plane : Images to try it on.

    Notes
    -----
    Errors of windows that overlap are correlated, which "surface" takes into account: the size of
    a window is taken to be twice the distance of the first centre from the border.

    The standard deviations are those of the comparison, or those of the regressor, propagated; with
    "surface" they hold how far surfaces through parts of the windows differ. On planes of other
    textures (``benchmarks/table_3_1.py``) the error was within one and two standard deviations in
    81 and 98 % of the windows, without smoothing in 63 and 86 %; with ``spectra=False``, which does
    not know what all windows of an image have in common, in 30 and 54 %.

    References
    ----------
    A. Shajkofci and M. Liebling, "Spatially-variant CNN-based point spread function estimation for
    blind deconvolution and depth estimation in optical microscopy", IEEE Trans. Image Process. 29
    (2020) 5848-5861.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf import AstigmaticDepthEstimator, PSFMap
    >>> depth = np.linspace(-8, 8, 20).reshape(1, 4, 5)
    >>> axis = np.where(depth < 0, 0.3 + np.pi / 2, 0.3)
    >>> parameters = np.stack([abs(depth) / 20, np.full(depth.shape, 0.4), axis], -1)
    >>> maps = PSFMap(
    ...     images=np.ones((1, 160, 192)), parameters=parameters, std=0.02 * np.ones((1, 4, 5, 3)),
    ...     invalid=np.zeros((1, 4, 5)), rows=np.arange(32.0, 160, 32),
    ...     columns=np.arange(32.0, 192, 32),
    ...     model={"name": "zernike-3", "cutoff": 0.25, "size": 31})
    >>> estimator = AstigmaticDepthEstimator(smoothing=None).fit(maps, depth)
    >>> estimator.predict(maps)[0, 0].round(2)
    array([-8.  , -7.16, -6.32, -5.47, -4.63])
    >>> round(estimator.calibration_["axis"], 2)
    0.3
    """

    def __init__(
        self,
        *,
        method="signed-focus",
        curve="cubic",
        axis=None,
        smoothing="surface",
        spectra=True,
        margin=0.1,
        invalid_threshold=0.5,
    ):
        self.method = method
        self.curve = curve
        self.axis = axis
        self.smoothing = smoothing
        self.spectra = spectra
        self.margin = margin
        self.invalid_threshold = invalid_threshold

    def fit(self, X, y=None):
        """Calibrate on maps of known depth, or by the optics alone.

        Parameters
        ----------
        X : PSFMap
            Maps, of "zernike-3" or "gaussian-2".
        y : array-like of shape (n, gy, gx), (n, H, W), (n,), or None
            Depths in micrometres: of each window, of each pixel (the mean over each window is
            taken), or one for each image of a focal sweep. NaN where unknown. None takes the
            paraxial defocus of the map's optics for the depth, and warns.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is not as described, `y` does not vary, no window is
            valid, or the family has no astigmatism.

        Warns
        -----
        UserWarning
            If nothing is calibrated, or the maps show no astigmatism.
        """
        self._check_parameters()
        self._check_maps(X)
        used = (X.invalid <= self.invalid_threshold) & np.isfinite(X.parameters).all(-1)
        if y is None:
            depths = None
            if X.optics is None or X.model["name"] != "zernike-3" or self.method == "product":
                raise ValueError(
                    "Without known depths y, maps need optics, the family 'zernike-3' and "
                    f"method='signed-focus'; got optics={X.optics!r}, {X.model['name']!r}, "
                    f"method={self.method!r}."
                )
        else:
            depths = window_depths(X, y)
            used &= np.isfinite(depths)
        if not used.any():
            raise ValueError(f"No window of X can be used: all {used.size} are invalid or unknown.")
        if depths is not None:
            depths = depths[used]
            if np.ptp(depths) <= 1e-9 * max(1.0, np.abs(depths).max()):
                raise ValueError(
                    f"y must vary to calibrate on, got {depths[0]} everywhere "
                    f"(n_samples = {len(X)})."
                )
        self.model_name_ = X.model["name"]
        self.calibration_ = self._calibrate(X, used, depths)
        return self

    def predict(self, X, return_std=False):
        """Return the depth of every window.

        Parameters
        ----------
        X : PSFMap
            Maps of the family that was calibrated.
        return_std : bool, default=False
            Whether to return standard deviations as well.

        Returns
        -------
        depth : ndarray of shape (n, gy, gx)
            Micrometres; NaN in windows without texture or beyond the calibrated range.
        std : ndarray of shape (n, gy, gx)
            Standard deviations, micrometres. Only if `return_std`.

        Warns
        -----
        UserWarning
            With the number of windows that have no depth.
        """
        depth, std, unknown = self._depths(X)
        beyond = self._is_beyond(depth)
        if unknown.any() or beyond.any():
            warnings.warn(
                f"{np.sum(unknown | beyond)} of {depth.size} windows have no depth: "
                f"{unknown.sum()} invalid, {np.sum(beyond & ~unknown)} out of range.",
                UserWarning,
                stacklevel=2,
            )
        missing = unknown | beyond
        depth, std = np.where(missing, np.nan, depth), np.where(missing, np.nan, std)
        return (depth, std) if return_std else depth

    def predict_dense(self, X):
        """Return the depth of every pixel, bilinear between windows.

        Parameters
        ----------
        X : PSFMap
            Maps of the family that was calibrated.

        Returns
        -------
        ndarray of shape (n, H, W)
            Micrometres. Pixels beyond the outermost centres take the nearest; windows without a
            depth are left out of the average, pixels all of whose windows are such are NaN.

        Notes
        -----
        The interpolation is that of `PSFMap.upsample`, of depths instead of encoded parameters,
        which have a kink at focus that a bilinear average would round off.
        """
        return interpolate_grid(self.predict(X), X.rows, X.columns, X.shape[1:])

    def points(self, X, dense=False):
        """Return the surface as points in space.

        Parameters
        ----------
        X : PSFMap
            Maps with optics, for the size of a pixel.
        dense : bool, default=False
            One point per pixel instead of one per window.

        Returns
        -------
        ndarray of shape (n_points, 3)
            x (along columns), y (along rows) and z, micrometres, of all images in turn. Windows
            without a depth are left out.

        Raises
        ------
        ValueError
            If the maps have no optics.
        """
        self._check_maps(X)
        if X.optics is None:
            raise ValueError("points need maps with optics; give SpatialPSFMapper optics=.")
        if dense:
            z, rows, columns = self.predict_dense(X), *map(np.arange, X.shape[1:])
        else:
            z, rows, columns = self.predict(X), X.rows, X.columns
        pixel = X.optics.object_pixel
        y, x = np.meshgrid(rows * pixel, columns * pixel, indexing="ij")
        points = np.stack([np.broadcast_to(x, z.shape), np.broadcast_to(y, z.shape), z], -1)
        return points[np.isfinite(z)]

    def score(self, X, y):
        """Return R^2 of the depths of windows.

        Parameters
        ----------
        X : PSFMap
            Maps.
        y : array-like of shape (n, gy, gx), (n, H, W) or (n,)
            True depths, as for `fit`.

        Returns
        -------
        float
            At most 1. Windows without texture or of unknown depth are left out; a depth beyond the
            calibrated range counts as it was read, so that leaving windows out gains nothing.
        """
        depth, _, unknown = self._depths(X)
        truth = window_depths(X, y)
        used = ~unknown & np.isfinite(truth)
        if used.sum() < 2:
            raise ValueError(f"R^2 needs at least two valid windows, got {used.sum()}.")
        return float(r2_score(truth[used], depth[used]))

    def _check_parameters(self):
        check_choice("method", self.method, ("signed-focus", "product"))
        check_choice("curve", self.curve, ("cubic", "linear", "isotonic"))
        if self.smoothing is not None:
            check_choice("smoothing", self.smoothing, ("surface", "edges"))
        check_bool("spectra", self.spectra)
        if self.axis is not None:
            check_number("axis", self.axis)
        check_number("margin", self.margin, low=0)
        check_number("invalid_threshold", self.invalid_threshold, low=0, high=1)

    def _check_maps(self, X):
        if not isinstance(X, PSFMap):
            raise TypeError(
                f"X must be a PSFMap, got {type(X).__name__}; put a SpatialPSFMapper before this "
                "estimator in a Pipeline."
            )
        name = X.model["name"]
        allowed = ("zernike-3",) if self.method == "product" else ("zernike-3", "gaussian-2")
        if name not in allowed:
            raise ValueError(
                f"Depth by method={self.method!r} needs maps of {' or '.join(allowed)}, which tell "
                f"the side of focus; got {name!r}."
            )

    def _calibrate(self, X, used, depths):
        """Lens and curve; `depths` are those of the windows used, None if unknown."""
        calibration = {"calibrated": depths is not None, "axis": None, "cylinder": None}
        calibration |= {"n_windows": int(used.sum()), "rms_error": None}
        if X.model["name"] == "zernike-3":
            calibration |= self._fit_lens(X, used, depths)
        if depths is None:
            return calibration | self._paraxial_curve(X)
        signed, std = self._read(X, calibration["axis"])
        kind = "linear" if self.method == "product" else self.curve
        knots = fit_curve(depths, signed[used], std[used], kind)
        error = apply_curve(*knots, signed[used], std[used])[0] - depths
        calibration |= {"depth": knots[0], "reading": knots[1]}
        calibration["rms_error"] = float(np.sqrt(np.mean(error**2)))
        return calibration | {"compared": self._compared_readings(X, used, depths, calibration)}

    def _paraxial_curve(self, X):
        """The curve by the optics alone, and a warning."""
        warnings.warn(
            "Uncalibrated: depths are the paraxial defocus of the optics"
            + ("" if self.axis is not None else ", and their sign is a guess")
            + ". Give known depths y to calibrate.",
            UserWarning,
            stacklevel=4,
        )
        half = X.psf_model.bounds[0, 1]
        reading = np.array([-half, half])
        depth = np.asarray(X.optics.waves_to_micrometres(reading))
        compared = reading if self._compares(X) else None
        return {"depth": depth, "reading": reading, "compared": compared}

    def _compared_readings(self, X, used, depths, calibration):
        """Readings of compared windows at the knots; None if too few depths were compared."""
        signed, std, reach = self._compare(X, used, calibration)
        also = np.isfinite(reach)[:, np.newaxis, np.newaxis] & used
        known = depths[also[used]]
        if not also.any() or np.ptp(known) <= 0.5 * np.ptp(depths):
            return None
        knots = fit_curve(known, signed[also], std[also], self.curve)
        readings = np.interp(calibration["depth"], *knots)
        if X.optics is None:
            return readings
        theory = X.optics.micrometres_to_waves(calibration["depth"])
        return readings * scale_by_optics(readings, theory, also.any((1, 2)).sum())

    def _fit_lens(self, X, used, depths):
        """Strength and axis of the lens from the readings, then from the spectra of windows."""
        parameters, std = X.parameters[used], X.std[used]
        focus, cylinder, axis = parameters.T
        lens_axis = self.axis
        if lens_axis is None:
            lens_axis = fit_lens_axis(focus, cylinder, axis, std[:, 0], std[:, 2], depths)
        strength = lens_cylinder(cylinder, std[:, 1])
        if strength < _WEAK_LENS:
            warnings.warn(
                f"The maps show a cylinder of {strength:.3f} waves RMS: without astigmatism the "
                "side of focus cannot be told.",
                UserWarning,
                stacklevel=4,
            )
        elif self._compares(X):
            signed, spread = self._read(X, lens_axis)
            strength, seen = measure_lens(X, signed, spread, used, (strength, lens_axis))
            lens_axis = seen if self.axis is None else lens_axis
        return {"axis": float(lens_axis), "cylinder": float(strength)}

    def _compares(self, X):
        return self.spectra and self.method == "signed-focus" and X.model["name"] == "zernike-3"

    def _compare(self, X, known, calibration):
        """Signed readings of all windows, standard deviations, and how smooth each image is."""
        signed, std = self._read(X, calibration["axis"])
        if not self._compares(X) or calibration["cylinder"] < _WEAK_LENS:
            return signed, std, np.full(len(X), np.nan)
        return refine_defocus(X, signed, std, known, (calibration["cylinder"], calibration["axis"]))

    def _read(self, X, lens_axis):
        """Signed readings and standard deviations, each window by itself."""
        values, std = np.moveaxis(X.parameters, -1, 0), np.moveaxis(X.std, -1, 0)
        if X.model["name"] == "gaussian-2":
            return signed_widths(*values, *std)
        if self.method == "product":
            return published_product(values[0], values[2], std[0], std[2])
        return signed_focus(values[0], values[2], std[0], std[2], lens_axis)

    def _depths(self, X):
        """Depths, standard deviations, and which windows are without texture."""
        check_is_fitted(self)
        self._check_maps(X)
        if X.model["name"] != self.model_name_:
            raise ValueError(
                f"The calibration is of maps of {self.model_name_!r}, got {X.model['name']!r}."
            )
        unknown = (X.invalid > self.invalid_threshold) | ~np.isfinite(X.parameters).all(-1)
        calibration = self.calibration_
        if calibration["compared"] is None:  # no image of the calibration was
            signed, std = self._read(X, calibration["axis"])
            reach = np.full(len(X), np.nan)
        else:
            signed, std, reach = self._compare(X, ~unknown, calibration)
        depth, std = self._to_micrometres(signed, std, np.isfinite(reach))
        depth, std = np.where(unknown, np.nan, depth), np.where(unknown, np.nan, std)
        if self.smoothing == "edges":
            depth = np.stack([edge_aware_surface(*pair) for pair in zip(depth, std, strict=True)])
        elif self.smoothing == "surface":
            smooth = [self._smooth(X, *image) for image in zip(depth, std, reach, strict=True)]
            depth, std = (np.stack(part) for part in zip(*smooth, strict=True))
        return depth, std, unknown

    def _smooth(self, X, depth, std, reach):
        """Surface through the depths of one image, and its standard deviation."""
        if reach >= SURELY_FLAT:
            return interleaved_surface(depth, std, X.rows, X.columns, window_size(X))
        compared = np.isfinite(reach)
        window = (_SHARED if compared else 1.0) * np.array(window_size(X))
        places = np.stack(np.meshgrid(X.rows, X.columns, indexing="ij"), -1).reshape(-1, 2)
        smooth = smooth_surface(depth.ravel(), std.ravel(), places, window)
        smooth, spread = (part.reshape(depth.shape) for part in smooth)
        # Of a curved sample the comparison errs by its model, which no neighbour makes up for.
        return smooth, np.where(np.isfinite(std), std, spread) if compared else spread

    def _to_micrometres(self, signed, std, compared):
        """Depths by the curve of single readings, or by that of windows that were compared."""
        knots, low, high = self._range()
        reach = _FAR * (high - low) / 2
        depth, spread = apply_curve(knots, self.calibration_["reading"], signed, std)
        if compared.any():
            better = apply_curve(knots, self.calibration_["compared"], signed, std)
            depth[compared], spread[compared] = (part[compared] for part in better)
        return np.clip(depth, low - reach, high + reach), spread

    def _range(self):
        depth = self.calibration_["depth"]
        return depth, depth.min(), depth.max()

    def _is_beyond(self, depth):
        _, low, high = self._range()
        slack = self.margin * (high - low)
        with np.errstate(invalid="ignore"):
            return (depth < low - slack) | (depth > high + slack)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.target_tags.required = False
        tags.target_tags.multi_output = True
        return tags
