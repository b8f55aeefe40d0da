"""Autofocus in three or four images, after one calibration stack of any textured object."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ._focus_curve import (
    guess_rates,
    learn_optics,
    moffat_fwhm,
    pick_planes,
    read_distance,
    respond,
)
from ._focus_evidence import Evidence, FocusModel, crop_images, find_posterior, summarize
from ._focus_scores import score_by_measure, score_by_regressor
from ._focus_search import FocusResult, FocusSearch, GoldenSearch, add_regions
from ._validation import check_bool, check_choice, check_images, check_number
from .metrics import FOCUS_MEASURES, useful_range
from .optics import Optics
from .psf_regressor import PSFParameterRegressor
from .simulation.focal_stack import check_positions

__all__ = ["DeepFocusAutofocus", "FocusResult"]

_STRATEGIES = {"posterior": FocusSearch, "golden": GoldenSearch}
_MIN_PLANES = 5
# Part of the span of the curve: what one stack does not tell of other samples. The shape of a
# classical measure's curve depends on the sample.
_SPREAD, _SPREAD_OF_MEASURES = 0.03, 0.15
_NETWORK_CUTOFF = 0.25  # cycles per pixel, of the default scorer
_ABERRATION = 0.02  # of the transfer function, where no stack tells it
_MIN_MEASURED = 8  # pixels per axis that a classical measure is taken on


class DeepFocusAutofocus(RegressorMixin, BaseEstimator):
    r"""Find focus from three or four images, from far outside the depth of field.

    A network reads the blur of single images; one stack of any textured object says what blur
    belongs to what distance. On which side focus lies, and where exactly, the images say together:
    they show one sample through transfer functions that only the position of focus relates,
    :math:`Y_i(f) = H(f, z_i - z_0) X(f)`, so that the ratio of their spectra fixes `z_0`. The next
    image is taken where the posterior of `z_0` on a grid expects to learn most.

    Parameters
    ----------
    scorer : estimator, str or None, default=None
        A fitted regressor of PSF parameters (in a `FrozenEstimator`, or with `pretrained` set)
        whose first parameter is the blur; or a classical measure, one of
        `sklearn_psf.metrics.FOCUS_MEASURES`. None is
        ``PSFParameterRegressor(pretrained="zernike-1")``.
    optics : Optics or None, default=None
        The microscope. None: cut-off and defocus per micrometre are learnt from the stack.
    spectra : bool, default=True
        Whether images are compared with each other; otherwise their scores alone count.
    strategy : {"posterior", "golden"}, default="posterior"
        How the next position is chosen; "golden" is the published rule and uses scores alone.
    roi : (int, int, int, int) or None, default=None
        Top, left, height and width of the part of the image that is to be in focus.
    regions : (int, int), default=(1, 1)
        Rows and columns of regions, each focused on its own, with a plane through them: the tilt
        of the sample. Each must hold a patch of the scorer.
    patches_per_side : int, default=2
        Patches that the scorer reads per axis and binning.

    Attributes
    ----------
    scorer_ : estimator or str
        The scorer.
    z_calibration_ : ndarray of shape (n,)
        Sorted positions of the calibration, micrometres.
    curve_, curve_std_ : ndarray of shape (n,)
        Response curve and its spread, in the unit of the score.
    moffat_ : ndarray of shape (5,)
        Centre, width, power, height and base of Moffat's curve.
    fwhm_ : float
        Its width at half height, micrometres.
    range_ : float
        Width of the interval in which the score leads to focus, micrometres.
    z_focus_ : float
        Position of focus in the calibration, micrometres.
    cutoff_, rate_ : float
        Cut-off, cycles per pixel, and defocus per micrometre, waves RMS; NaN without spectra, or
        where the stack does not tell them.
    aberration_ : float
        What the stack shows beyond a transfer function of defocus alone, root mean square.

    References
    ----------
    A. Shajkofci and M. Liebling, "DeepFocus: a few-shot microscope slide auto-focus using a sample
    invariant CNN-based sharpness function", IEEE ISBI (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf import DeepFocusAutofocus
    >>> from sklearn_psf.optics import Camera, Optics
    >>> from sklearn_psf.simulation import make_focal_stack, make_textures
    >>> optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.43)
    >>> sharp = make_textures(2, size=192, kind="dead-leaves", random_state=0)
    >>> z = np.linspace(-60, 60, 13)
    >>> scope = {"optics": optics, "camera": Camera(), "random_state": 0}
    >>> stack = make_focal_stack(sharp[0], z, **scope)
    >>> af = DeepFocusAutofocus("tenengrad", optics=optics).fit(stack, z)
    >>> images = make_focal_stack(sharp[1], [3, 9, 20], z_focus=5.0, **scope)
    >>> abs(af.locate(images, [3, 9, 20]).z - 5.0) < 0.5
    True
    """

    def __init__(
        self,
        scorer=None,
        *,
        optics=None,
        spectra=True,
        strategy="posterior",
        roi=None,
        regions=(1, 1),
        patches_per_side=2,
    ):
        self.scorer = scorer
        self.optics = optics
        self.spectra = spectra
        self.strategy = strategy
        self.roi = roi
        self.regions = regions
        self.patches_per_side = patches_per_side

    def fit(self, X, y=None):
        """Calibrate on one stack of a textured object.

        Parameters
        ----------
        X : array-like of shape (n_z, H, W) or None
            The stack. None: no calibration at hand, `optics` gives a symmetric curve for a scorer
            of the family "zernike-1".
        y : array-like of shape (n_z,)
            Stage positions, micrometres; any sign, order and steps, at least 5 different ones.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described, or the stack has no texture.
        """
        self._check_parameters()
        if X is None:
            return self._fit_optics()
        X = check_images(X)
        z = _check_z(y, len(X), "y")
        if len(np.unique(z)) < _MIN_PLANES:
            raise ValueError(
                f"Found {len(X)} sample(s) at {len(np.unique(z))} positions (y) while a minimum of "
                f"{_MIN_PLANES} different ones is required."
            )
        self.scorer_ = self._make_scorer(X)
        X = self._crop(X)
        self._check_size(X.shape[1:])
        readings = self._score(X)
        scores, spread, seen = readings.scores, readings.spread, readings.textured
        if len(np.unique(z[seen])) < _MIN_PLANES:
            raise ValueError(
                f"X shows texture in {seen.sum()} of {len(X)} planes; calibrate on a textured "
                "object."
            )
        self._store_curve(z[seen], scores[seen], spread[seen])
        self._find_optics(X, z)
        return self

    def score_images(self, X):
        """Return the score of each image.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images.

        Returns
        -------
        ndarray of shape (n,)
            Blur in the unit of the scorer's first parameter, or a classical measure's sharpness;
            NaN where there is no texture.
        """
        check_is_fitted(self)
        X = self._crop(check_images(X))
        self._check_size(X.shape[1:])
        return self._score(X).scores

    def predict(self, X):
        """Return the distance of each image from focus, without its sign.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images.

        Returns
        -------
        ndarray of shape (n,)
            Micrometres, from the score alone; NaN where there is no texture.
        """
        scores = self.score_images(X)
        offset = self.z_calibration_ - self.z_focus_
        return read_distance(scores, offset, self.curve_, self._is_upward())

    def score(self, X, y):
        """Return R^2 of the unsigned distances of images whose positions are known.

        An image without texture counts as one read to be in focus.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images of the calibration's microscope.
        y : array-like of shape (n,)
            Stage positions on the scale of the calibration, micrometres.

        Returns
        -------
        float
            At most 1.
        """
        check_is_fitted(self)
        distance = np.abs(_check_z(y, len(X), "y") - self.z_focus_)
        return float(r2_score(distance, np.nan_to_num(self.predict(X))))

    def locate(self, X, z):
        """Find focus from images already taken of one sample.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            The images.
        z : array-like of shape (n,)
            Where they were taken, micrometres.

        Returns
        -------
        FocusResult
            With the absolute position of focus.
        """
        check_is_fitted(self)
        X = check_images(X)
        z = _check_z(z, len(X), "z")
        model = self._model(X.shape[1:])
        reach = max(self.range_ / 2, self.fwhm_)
        limits = (z.min() - reach, z.max() + reach)
        evidence = Evidence(model)
        for position, image in zip(z, X, strict=True):
            evidence.add(position, image)
        history = tuple(zip(evidence.z, evidence.scores, strict=True))
        grid, density = find_posterior(evidence, *limits)
        if evidence.has_texture:
            found = summarize(grid, density, model.step)
            reason = "uncertain" if found[1] > model.depth_of_field else "located"
        else:
            found, reason = (float(z[0]), np.inf), "textureless"
        result = FocusResult(*found, len(X), history, reason, grid, density)
        return add_regions(result, model, list(model.crop(X)), limits)

    def start(self, z0, limits=None, *, max_images=4, tol=None):
        """Begin a search by ask and tell.

        Parameters
        ----------
        z0 : float
            Where the stage is, micrometres.
        limits : (float, float) or None
            Positions never to be left; None is `z0` and half of `range_` to both sides.
        max_images : int, default=4
            Dose limit.
        tol : float or None
            Standard deviation at which to stop early, micrometres.

        Returns
        -------
        FocusSearch
            With `suggest`, `tell`, `done` and `result`.
        """
        check_is_fitted(self)
        check_choice("strategy", self.strategy, _STRATEGIES)
        check_number("z0", z0)
        if limits is None:
            limits = (z0 - self.range_ / 2, z0 + self.range_ / 2)
        if np.shape(limits) != (2,):
            raise ValueError(f"limits must be (low, high), got {limits!r}.")
        limits = tuple(limits)
        for value in limits:
            check_number("limits", value)
        if not limits[0] < limits[1]:
            raise ValueError(f"limits must rise, got {limits!r}.")
        if not limits[0] <= z0 <= limits[1]:
            raise ValueError(f"z0={z0!r} must be within limits={limits!r}.")
        check_number("max_images", max_images, low=1, integer=True)
        if tol is not None:
            check_number("tol", tol, low=0, open_low=True)
        model = self._model(None)
        model.prepare()
        return _STRATEGIES[self.strategy](model, z0, limits, max_images, tol)

    def focus(self, acquire, z0, limits=None, *, max_images=4, tol=None, backlash=0.0, move=None):
        """Search for focus over a callable that takes images.

        Parameters
        ----------
        acquire : callable
            ``acquire(z)`` moves to z and returns the image (H, W).
        z0, limits, max_images, tol
            As for `start`.
        backlash : float, default=0.0
            Every position is approached by a move of at least this much in the direction of its
            sign, micrometres, so that the slack of the gear is always on one side.
        move : callable or None
            ``move(z)`` moves without taking an image; needed with backlash.

        Returns
        -------
        FocusResult
            The position of focus; the stage stays at the last image.
        """
        if not callable(acquire):
            raise TypeError(f"acquire must be callable, got {acquire!r}.")
        check_number("backlash", backlash)
        if backlash and not callable(move):
            raise ValueError(f"backlash={backlash!r} needs move, a callable that takes no image.")
        search, last = self.start(z0, limits, max_images=max_images, tol=tol), None
        while not search.done:
            z = search.suggest()
            if backlash and (last is None or (z - last) * backlash < backlash**2):
                move(float(np.clip(z - backlash, *search.limits)))
            search.tell(z, acquire(z))
            last = z
        return search.result

    def _check_parameters(self):
        check_choice("strategy", self.strategy, _STRATEGIES)
        check_number("patches_per_side", self.patches_per_side, low=1, integer=True)
        check_bool("spectra", self.spectra)
        if not (self.optics is None or isinstance(self.optics, Optics)):
            raise TypeError(f"optics must be an Optics or None, got {self.optics!r}.")
        if isinstance(self.scorer, str):
            check_choice("scorer", self.scorer, FOCUS_MEASURES)
        _check_integers("regions", self.regions, 2, 1)
        if self.roi is not None:
            _check_integers("roi", self.roi, 4, 0)

    def _make_scorer(self, X):
        """A clone fitted by validation, a frozen estimator as it is, or the name of a measure."""
        scorer = self.scorer
        if isinstance(scorer, str):
            return scorer
        if scorer is None:
            scorer = PSFParameterRegressor(pretrained="zernike-1")
        if isinstance(scorer, FrozenEstimator):
            return scorer
        if not hasattr(scorer, "predict"):
            raise TypeError(f"scorer must be a regressor or a measure's name, got {scorer!r}.")
        if getattr(scorer, "pretrained", None) is None:
            raise NotFittedError(
                f"scorer={scorer!r} would have to be trained: fit it on sharp images and pass "
                "FrozenEstimator(scorer), or set pretrained=."
            )
        return clone(scorer).fit(X)

    def _fit_optics(self):
        if self.optics is None:
            raise ValueError("X=None needs optics=Optics(...), from which a curve is computed.")
        if isinstance(self.scorer, str):
            raise ValueError(f"X=None needs a scorer of the family zernike-1, not {self.scorer!r}.")
        self.scorer_ = self._make_scorer(np.zeros((1, 1, 1)))
        name = self.scorer_.psf_model_.name
        if name != "zernike-1":
            raise ValueError(f"X=None needs a scorer of the family zernike-1, not of {name!r}.")
        # The same blur in pixels has the focus of the network's own cut-off.
        rate = self.optics.waves_per_micrometre * _NETWORK_CUTOFF / self.optics.cutoff
        top = 1.5 * self.scorer_.psf_model_.bounds[0, 1]
        offset = np.linspace(-top / rate, top / rate, 121)
        blur = rate * np.abs(offset)
        self._store_curve(offset, np.hypot(blur, 0.1), 0.03 + 0.07 * blur)
        self.z_focus_, self.moffat_[0] = 0.0, 0.0
        known = (self.optics.cutoff, self.optics.waves_per_micrometre)
        self._set_optics(*(known if self.spectra else (np.nan, np.nan)))
        return self

    def _store_curve(self, z, scores, spread):
        part = _SPREAD_OF_MEASURES if isinstance(self.scorer_, str) else _SPREAD
        self.z_calibration_, self.curve_, self.curve_std_, self.moffat_ = respond(
            z, scores, spread, part
        )
        self.fwhm_ = min(moffat_fwhm(self.moffat_[1], self.moffat_[2]), float(np.ptp(z)))
        self.z_focus_ = float(self.moffat_[0])
        self.range_ = useful_range(self.z_calibration_, self.curve_)

    def _find_optics(self, X, z):
        """Know or learn the transfer function; with it, the position of focus to a tenth."""
        self._set_optics(np.nan, np.nan)
        if not self.spectra:
            return
        if self.optics is not None:
            cutoff, rate = self.optics.cutoff, self.optics.waves_per_micrometre
            rates = [rate]
        else:
            is_measure = isinstance(self.scorer_, str)
            likely, rates = guess_rates(self.z_calibration_, self.curve_, is_measure)
            cutoff, rate = None, likely * _NETWORK_CUTOFF
        learnt, picks = None, pick_planes(z - self.z_focus_, rate)
        if len(picks) >= 3:
            learnt = learn_optics([X[i] for i in picks], z[picks], self.z_focus_, rates, cutoff)
        if learnt is None:
            warnings.warn(
                "The stack does not tell the optics, so that scores alone will count: give "
                "optics=Optics(...), or a stack of more texture and planes.",
                stacklevel=3,
            )
            return
        cutoff, rate, focus, aberration = learnt
        self._set_optics(cutoff, rate, aberration)
        if abs(focus - self.z_focus_) * rate < 0.3:
            self.z_focus_ = float(focus)

    def _set_optics(self, cutoff, rate, aberration=_ABERRATION):
        self.cutoff_, self.rate_ = float(cutoff), float(rate)
        self.aberration_ = float(aberration)

    def _is_upward(self):
        return bool(self.moffat_[3] > 0)

    def _score(self, images):
        if isinstance(self.scorer_, str):
            return score_by_measure(images, self.scorer_)
        return score_by_regressor(images, self.scorer_, self.patches_per_side)

    def _crop(self, images):
        return crop_images(images, self.roi)

    def _check_size(self, shape, regions=None):
        regions = self.regions if regions is None else regions
        least = _MIN_MEASURED if isinstance(self.scorer_, str) else self.scorer_.patch_size_
        part = [n // k for n, k in zip(shape, regions, strict=True)]
        if min(part) < least:
            raise ValueError(
                f"Regions of {part[0]} x {part[1]} pixels (regions={tuple(regions)} of images "
                f"of {shape[0]} x {shape[1]}) are smaller than the minimum of {least} x {least} "
                "that the scorer required."
            )

    def _model(self, shape):
        if shape is not None and self.roi is None:
            self._check_size(shape)
        known = bool(self.spectra) and np.isfinite(self.rate_)

        def score(images):
            images = check_images(images, name="image")
            self._check_size(images.shape[1:], (1, 1))
            return self._score(images)

        return FocusModel(
            offsets=self.z_calibration_ - self.z_focus_,
            curve=self.curve_,
            curve_std=self.curve_std_,
            fwhm=self.fwhm_,
            upward=self._is_upward(),
            free_gain=isinstance(self.scorer_, str),
            cutoff=self.cutoff_ if known else None,
            rate=self.rate_ if known else None,
            aberration=self.aberration_,
            score=score,
            roi=None if self.roi is None else tuple(self.roi),
            regions=tuple(self.regions),
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.input_tags.allow_nan = False
        tags.target_tags.required = True
        tags.regressor_tags.poor_score = True
        return tags


def _check_z(z, n, name):
    if z is None:
        raise ValueError(
            f"This estimator requires {name} to be passed, but the target y is None: stage "
            "positions of the images, micrometres."
        )
    if np.ndim(z) == 2 and np.shape(z)[1] == 1:
        z = column_or_1d(z, warn=True)
    z = check_positions(z, name)
    if len(z) != n:
        raise ValueError(f"{name} must hold one position for each of {n} images, got {len(z)}.")
    return z


def _check_integers(name, values, n, low):
    values = tuple(values) if np.iterable(values) else (values,)
    whole = all(isinstance(v, Integral) and v >= low for v in values)
    if len(values) != n or not whole:
        raise ValueError(f"{name} must be {n} integers of at least {low}, got {values!r}.")
