"""Maps of the local PSF over whole images."""

import numpy as np
from skimage.transform import resize
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from ._psf_grid import fill_invalid, smooth_grid
from ._psf_map import PSFMap
from ._validation import check_choice, check_images, check_number
from .optics import Optics, make_psf_model
from .psf_regressor import PSFParameterRegressor

__all__ = ["SpatialPSFMapper"]

# Most microscopes have no cylindrical lens, and an astigmatism that is read but not there costs the
# restoration of their images most of its gain.
_DEFAULT_WEIGHTS = "zernike-1"
_MIN_DENSE = 64  # pixels of an image that method="dense" reads


class SpatialPSFMapper(TransformerMixin, BaseEstimator):
    """Read the local PSF at every window of a grid over images.

    A window of the regressor's patch size slides over each image. Windows without texture are
    filled from the valid ones by inverse-distance weighting, and readings are smoothed in
    proportion to their uncertainty, both in the family's encoding.

    Parameters
    ----------
    regressor : PSFParameterRegressor, FrozenEstimator or None
        Reads the patches. `fit` never trains it: it must name its `pretrained` weights, or be
        fitted and wrapped in `sklearn.frozen.FrozenEstimator`. None takes
        ``PSFParameterRegressor(pretrained="zernike-1")``: defocus, which is what a tilted or uneven
        sample shows in a microscope without a cylindrical lens.
    stride : int, default=64
        Step between windows, pixels (of the network's sampling, if `optics` resamples the image).
    method : {"sliding", "dense"}, default="sliding"
        "dense" asks a fully convolutional regressor, such as one with the weights
        "zernike-3-dense", for the whole map at once (`predict_map`): many times faster where
        windows would overlap, and up to the border of the image.
    optics : Optics or None
        Resamples the images to the sampling that the network was trained at, so that waves are
        waves of this microscope, and gives micrometres. Without it the scale is relative: blur is
        measured in units of a pupil with the network's cut-off.
    invalid_threshold : float, default=0.5
        Windows more likely than this to be without texture are filled.
    smoothing : float, default=1.0
        Strength of the prior that the PSF changes smoothly: readings are traded against the bending
        of the map by their standard deviations (`smooth_grid`); a plane is not bent. 0 leaves each
        window as it was read.
    batch_size : int, default=64
        Windows read at a time: bounds the memory.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    regressor_ : estimator
        The validated regressor.
    psf_model_ : PSFModel
        Its family.
    patch_size_ : int
        Its patch size.

    Notes
    -----
    The map of an image of height H has ``floor((H - patch_size) / stride) + 1`` rows, a "dense" one
    ``floor(H / stride)``.

    The standard deviations are those of the single readings, widened where a window was filled.
    Smoothing makes the map better than they say; by how much depends on how far the readings of
    overlapping windows err together.

    Examples
    --------
    >>> import numpy as np
    >>> from skimage.data import camera
    >>> from sklearn_psf import SpatialPSFMapper
    >>> maps = SpatialPSFMapper(stride=128).fit_transform(camera()[np.newaxis, :256, :384])
    >>> maps.parameters.shape
    (1, 2, 3, 1)
    """

    def __init__(
        self,
        regressor=None,
        *,
        stride=64,
        method="sliding",
        optics=None,
        invalid_threshold=0.5,
        smoothing=1.0,
        batch_size=64,
        verbose=0,
    ):
        self.regressor = regressor
        self.stride = stride
        self.method = method
        self.optics = optics
        self.invalid_threshold = invalid_threshold
        self.smoothing = smoothing
        self.batch_size = batch_size
        self.verbose = verbose

    def fit(self, X, y=None):
        """Validate the parameters, the regressor and the images; nothing is trained.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images.
        y : object
            Ignored.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an image is not as described.
        NotFittedError
            If the regressor is neither pretrained nor frozen after fitting.
        """
        check_number("stride", self.stride, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("invalid_threshold", self.invalid_threshold, low=0, high=1)
        check_number("smoothing", self.smoothing, low=0)
        check_choice("method", self.method, ("sliding", "dense"))
        if self.optics is not None and not isinstance(self.optics, Optics):
            raise TypeError(f"optics must be an Optics or None, got {self.optics!r}.")
        X = check_images(X)
        self.regressor_ = self._checked_regressor(X)
        self.psf_model_ = self.regressor_.psf_model_
        self.patch_size_ = self.regressor_.patch_size_
        if self.method == "dense" and not hasattr(self.regressor_, "predict_map"):
            raise ValueError(
                "method='dense' needs a fully convolutional regressor with predict_map; "
                f"{self.regressor_!r} has none. Use method='sliding'."
            )
        self._check_size(X)
        return self

    def transform(self, X):
        """Return the PSF map of images.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images of any real dtype, at least one patch large; a `numpy.memmap` is read one image
            at a time.

        Returns
        -------
        PSFMap
            With the images themselves.

        Raises
        ------
        ValueError, TypeError
            If the images are not as described.
        """
        check_is_fitted(self)
        X = check_images(X)
        self._check_size(X)
        shape = self._working_shape(X.shape[1:])
        # What a dense network reads belongs to squares of the stride, what others do to windows.
        size = self.stride if self.method == "dense" else self.patch_size_
        grid = [np.arange(0, n - size + 1, self.stride) for n in shape]
        parts = []
        total = len(X) * len(grid[0]) * len(grid[1])
        with tqdm(total=total, disable=not self.verbose, desc="PSF map", unit="PSF") as bar:
            for image in X:
                parts.append(self._map_one(self._resampled(image, shape), grid, bar))
        parameters, std, invalid = (np.stack(part) for part in zip(*parts, strict=True))
        centres = [
            (start + size / 2) * n / m - 0.5
            for start, n, m in zip(grid, X.shape[1:], shape, strict=True)
        ]
        return PSFMap(
            images=X,
            parameters=parameters,
            std=std,
            invalid=invalid,
            rows=centres[0],
            columns=centres[1],
            model=self._original_model().settings,
            optics=self.optics,
        )

    def _checked_regressor(self, X):
        regressor = self.regressor
        if regressor is None:
            regressor = PSFParameterRegressor(pretrained=_DEFAULT_WEIGHTS)
        if not isinstance(regressor, FrozenEstimator):
            if getattr(regressor, "pretrained", None) is None:
                raise NotFittedError(
                    f"{regressor!r} is not usable: fit it on sharp images and pass "
                    "FrozenEstimator(regressor), or set pretrained=."
                )
            return clone(regressor).fit(X)
        try:
            check_is_fitted(regressor)
        except NotFittedError as error:
            raise NotFittedError(f"The frozen regressor is not fitted: {error}") from None
        return regressor

    def _check_size(self, X):
        shape = self._working_shape(X.shape[1:])
        least, reason = self.patch_size_, "patch_size of the regressor"
        if self.method == "dense":  # smaller images are continued beyond their borders
            least, reason = (
                max(self.stride, _MIN_DENSE),
                f"least that is read, and stride={self.stride}",
            )
        if min(shape) < least:
            resampled = ""
            if shape != X.shape[1:]:
                resampled = f" ({shape[0]} x {shape[1]} at the network's sampling)"
            raise ValueError(
                f"Images of X are {X.shape[1]} x {X.shape[2]} pixels{resampled}, smaller than "
                f"the minimum of {least} x {least} required: the {reason}."
            )

    def _scale(self):
        """Zoom that brings images to the network's sampling; widths in pixels need none."""
        if self.optics is None or "waves RMS" not in self.psf_model_.units:
            return 1.0
        return self.optics.cutoff / self.psf_model_.cutoff

    def _working_shape(self, shape):
        return tuple(max(1, int(round(n * self._scale()))) for n in shape)

    def _resampled(self, image, shape):
        image = np.asarray(image)
        if image.shape == shape:
            return image
        image = image.astype(np.float32)
        return resize(image, shape, order=1, anti_aliasing=True, preserve_range=True)

    def _original_model(self):
        """The family at the sampling of the images: same waves, PSF arrays of the same extent."""
        settings = dict(self.psf_model_.settings)
        scale = self._scale()
        settings["cutoff"] = min(settings["cutoff"] * scale, 0.5)
        if scale != 1:
            settings["size"] = 2 * int(np.ceil(settings["size"] / scale / 2)) + 1
        return make_psf_model(**settings, optics=self.optics)

    def _map_one(self, image, grid, bar):
        """Parameters, standard deviations and invalidity of one image's windows."""
        corners = [(r, c) for r in grid[0] for c in grid[1]]
        shape = (len(grid[0]), len(grid[1]))
        if self.method == "dense":
            reading = self._read_dense(image, grid)
            bar.update(len(corners))
        else:
            reading = self._read_windows(image, corners, bar)
        parameters, std = self._regularised(*reading, np.array(corners), shape)
        return parameters.reshape(*shape, -1), std.reshape(*shape, -1), reading[2].reshape(shape)

    def _read_dense(self, image, grid):
        """As `_read`, of squares of `stride` pixels."""
        centres = [starts + (self.stride - 1) / 2 for starts in grid]
        maps = self.regressor_.predict_map(image[np.newaxis], *centres)
        return [part.reshape(-1, *part.shape[3:]) for part in maps]

    def _read_windows(self, image, corners, bar):
        """As `_read`, of windows."""
        size = self.patch_size_
        parts = []
        for start in range(0, len(corners), self.batch_size):
            block = corners[start : start + self.batch_size]
            patches = np.stack([image[r : r + size, c : c + size] for r, c in block])
            parts.append(self._read(patches))
            bar.update(len(block))
        return [np.concatenate(p) for p in zip(*parts, strict=True)]

    def _read(self, patches):
        """Parameters, std, invalidity, encoding and its variance of patches."""
        read_all = getattr(self.regressor_, "predict_all", None)
        if read_all is not None:  # one pass of the network instead of two
            return read_all(patches)
        parameters, std = self.regressor_.predict(patches, return_std=True)
        invalid = self.regressor_.predict_invalid(patches)
        # The variance of the encoding in proportion to that of the parameters within their bounds.
        low, high = self.psf_model_.bounds.T
        relative = (12 * (std / (high - low)) ** 2).mean(1, keepdims=True)
        encoding = self.psf_model_.encode(parameters)
        return parameters, std, invalid, encoding, relative * self._prior()[1]

    def _prior(self):
        """Mean and variance of the encoding over the family's bounds."""
        encoded = self.psf_model_.encode(self.psf_model_.sample(4096, random_state=0))
        return encoded.mean(0), encoded.var(0)

    def _regularised(self, parameters, std, invalid, encoding, variance, corners, shape):
        """Parameters and standard deviations with gaps filled and noise smoothed."""
        bad = invalid > self.invalid_threshold
        if bad.all():
            return np.full_like(parameters, np.nan), np.full_like(std, np.nan)
        prior_mean, prior_variance = self._prior()
        filled, spread = fill_invalid(encoding, bad, corners)
        std = np.hypot(fill_invalid(std, bad, corners)[0], spread[:, np.newaxis])
        variance = np.where(bad[:, np.newaxis], prior_variance, variance)
        smooth = smooth_grid(
            filled.reshape(*shape, -1),
            variance.reshape(*shape, -1),
            prior_mean,
            prior_variance,
            float(self.smoothing),
        ).reshape(encoding.shape)
        # What was not changed keeps its value instead of one that went through the encoding.
        same = ~bad & np.isclose(smooth, encoding, rtol=1e-6).all(1)
        changed = self.psf_model_.decode(self.psf_model_.coherent(smooth))
        return np.where(same[:, np.newaxis], parameters, changed), std

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags
