"""What scikit-learn expects of an estimator, asked of every estimator of the package.

Scikit-learn's own checks speak of tables. The adapters here are subclasses that change nothing but
the shape: each row of a table is laid out as a small image, so that the checks really run.
"""

import inspect
import pickle
import warnings
from dataclasses import fields, replace

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import estimator_html_repr, get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

import sklearn_psf
from sklearn_psf import (
    AstigmaticDepthEstimator,
    BlurFlowEstimator,
    DeepFocusAutofocus,
    PSFMap,
    PSFParameterRegressor,
    SpatialPSFMapper,
    TVRLDeconvolver,
    persistence,
)
from sklearn_psf.networks import ARCHITECTURES
from sklearn_psf.networks.dense import DENSE_ARCHITECTURES
from sklearn_psf.optics import Optics, make_psf_model

FAMILY = make_psf_model("gaussian-1", size=15)
MOTION = make_psf_model("motion", size=15)
PSF = np.outer([1, 2, 1], [1, 2, 1]) / 16


class BlockMeans(nn.Module):
    """A network with few weights, in place of the default one: its accuracy is not at stake."""

    def __init__(self, n_outputs):
        super().__init__()
        self.fc = nn.Linear(64, n_outputs)

    def forward(self, x):
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 8).flatten(1))


class SquareMeans(nn.Module):
    """The same for whole images."""

    def __init__(self, n_outputs, *layout):
        super().__init__()
        self.fc = nn.Conv2d(1, n_outputs, 1)

    def forward(self, x, images):
        return self.fc(nn.functional.avg_pool2d(x, 4))


SQUARES = DENSE_ARCHITECTURES["unet-directed"]._replace(kind=SquareMeans)


class SpreadReader(BaseEstimator):
    """Stands for a fitted regressor: the width is the spread of the grey values of a patch."""

    psf_model_, patch_size_ = FAMILY, 8

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X, return_std=False):
        width = 0.5 + np.std(X, (1, 2), dtype=float)[:, None]
        return (width, 0.1 * width) if return_std else width

    def predict_invalid(self, X):
        return np.zeros(len(X))


class SignReader(SpreadReader):
    """Stands for a regressor of astigmatism: bright patches lie before focus, dark ones behind."""

    psf_model_ = make_psf_model("zernike-3", size=15)

    def predict(self, X, return_std=False):
        mean = np.mean(X, (1, 2), dtype=float)
        signed = np.tanh((mean - 70) / (30 + abs(mean)))
        p = np.stack([abs(signed), np.full(len(X), 0.4), np.where(signed < 0, np.pi / 2, 0)], -1)
        return (p, np.full(p.shape, 0.05)) if return_std else p


class DepthOfImages(AstigmaticDepthEstimator):
    """Takes images, which are mapped first; calibrated by the optics where there is no `y`."""

    def _maps(self, X):
        mapper = SpatialPSFMapper(FrozenEstimator(SignReader().fit(None)), stride=8)
        maps = mapper.set_params(smoothing=0).fit_transform(X)
        return replace(maps, optics=Optics(na=0.3, wavelength=0.5, pixel_size=0.4))

    def fit(self, X, y=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().fit(self._maps(X), y)

    def predict(self, X, return_std=False):
        check_is_fitted(self)
        return super().predict(self._maps(X), return_std)

    def score(self, X, y):
        return super().score(self._maps(X), y)


DepthOfImages.__name__ = "AstigmaticDepthEstimator"  # what messages say


# ---- Scikit-learn's checks ----


class _Tables:
    """Takes tables (n, n_features); each row, repeated, fills an image of `side` x `side`."""

    side = 16

    def _images(self, X, reset=False):
        if sparse.issparse(X) or np.asarray(X).ndim != 2:
            return X  # images already, or the estimator itself shall refuse it
        table = np.asarray(X)
        if table.shape[1] == 0:  # what a feature is, only the adapter knows
            shape = table.shape
            raise ValueError(f"0 feature(s) (shape={shape}) while a minimum of 1 is required.")
        if table.dtype.kind in "uif" and len(table) and np.isfinite(table).all():
            validate_data(self, X, reset=reset, skip_check_array=True)  # number and names
        repeats = -(-(self.side**2) // table.shape[1])
        images = np.tile(table, (1, repeats))[:, : self.side**2]
        return images.reshape(len(table), self.side, self.side)

    def fit(self, X, y=None):
        return super().fit(self._images(X, reset=True), y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


class RegressorOfTables(_Tables, PSFParameterRegressor):
    side = 32

    def predict(self, X, return_std=False):
        p = super().predict(self._images(X), return_std)
        return p[:, 0] if np.asarray(X).ndim == 2 else p

    def score(self, X, y=None):
        return super().score(self._images(X), y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # few weights, trained for a moment
        return tags


class MapperOfTables(_Tables, SpatialPSFMapper):
    def transform(self, X):
        maps = super().transform(self._images(X))
        return maps.parameters.reshape(len(maps), -1)


class DeconvolverOfTables(_Tables, TVRLDeconvolver):
    def transform(self, X):
        restored = super().transform(self._images(X))
        return restored.reshape(len(restored), -1) if np.asarray(X).ndim == 2 else restored

    def score(self, X, y=None):
        images = self._images(X)
        truth = None if y is None else 1 + np.zeros(images.shape) + np.reshape(y, (-1, 1, 1))
        return super().score(images, truth)


class DepthOfTables(_Tables, DepthOfImages):
    def fit(self, X, y=None):
        return super().fit(X, y if y is None else np.asarray(y).ravel())

    def predict(self, X, return_std=False):
        depth = super().predict(self._images(X), return_std)
        return depth.mean((1, 2)) if np.asarray(X).ndim == 2 else depth

    def score(self, X, y):
        return super().score(self._images(X), y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # what the checks ask for has no depth
        return tags


class AutofocusOfTables(_Tables, DeepFocusAutofocus):
    """Targets of the checks become positions, of which a stack needs five."""

    def _images(self, X, reset=False):
        images = super()._images(X, reset)
        table = np.zeros(0) if sparse.issparse(X) else np.asarray(X)
        if table.dtype.kind in "uif" and table.shape[1:] == (1,):
            raise ValueError("1 feature(s): an image of one value has no texture.")
        return images

    def fit(self, X, y=None):
        if y is not None and np.asarray(y).dtype.kind in "uif" and np.asarray(y).size:
            y = np.asarray(y, dtype=float)
            steps = 1e-3 * np.arange(len(y)).reshape((-1,) + (1,) * (y.ndim - 1))
            y = np.where(np.isfinite(y), y + steps, y)
        return super().fit(X, y)

    def predict(self, X):
        return super().predict(self._images(X))

    def score(self, X, y):
        return super().score(self._images(X), y)


class FlowOfTables(_Tables, BlurFlowEstimator):
    """The target is the depth of all pixels of an image, which do not move."""

    side = 64

    def fit(self, X, y=None):
        values = np.zeros(0) if y is None else np.asarray(y)
        if values.dtype.kind in "uif" and len(values):
            truth = np.zeros((len(values), 4, self.side, self.side))
            truth[:, 3] = values.reshape(len(values), -1)[:, :1, None]
            y = truth
        return super().fit(X, y)

    def predict(self, X, return_std=False):
        motion = super().predict(self._images(X))
        return motion[:, 3].mean((1, 2)) if np.asarray(X).ndim == 2 else motion

    def score(self, X, y=None):
        return -np.mean((self.predict(X) - np.ravel(y)) ** 2)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # few weights, trained for a moment
        return tags


OBJECTS = {"check_dtype_object": "arrays of objects are no images and are refused"}
FIXED = {"check_regressor_multioutput": "the PSF family says how many parameters there are"}
ONE_DEPTH = {"check_regressor_multioutput": "a window has one depth"}
CASES = {
    "regressor": (
        lambda: RegressorOfTables(
            psf_model=FAMILY, patch_size=32, n_patches=8, batch_size=8, max_epochs=2
        ),
        OBJECTS | FIXED,
    ),
    "mapper": (
        lambda: MapperOfTables(FrozenEstimator(SpreadReader().fit(None)), stride=8),
        OBJECTS,
    ),
    "depth": (lambda: DepthOfTables(axis=0.0, margin=1e6), OBJECTS | ONE_DEPTH),
    "autofocus": (lambda: AutofocusOfTables("tenengrad", spectra=False), OBJECTS),
    "flow": (
        lambda: FlowOfTables(psf_model=MOTION, n_images=4, batch_size=8, max_epochs=2),
        OBJECTS | FIXED,
    ),
    "deconvolver": (lambda: DeconvolverOfTables(psf=PSF, n_iter=2), OBJECTS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(case, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "compact", BlockMeans)
    monkeypatch.setitem(DENSE_ARCHITECTURES, "unet-directed", SQUARES)
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_SCORE", 16)
    make, expected = CASES[case]
    results = check_estimator(make(), expected_failed_checks=expected, on_fail=None, on_skip=None)
    names = {"passed": [], "failed": [], "xfail": [], "skipped": []}
    for result in results:
        names[result["status"]].append(result["check_name"])
    failures = [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert failures == []
    assert set(names["xfail"]) == set(expected)  # nothing is expected to fail needlessly
    assert set(names["skipped"]) <= {"check_array_api_input"}
    assert len(names["passed"]) >= 40


# ---- What tables cannot ask ----


@pytest.fixture(scope="module")
def images():
    rng = np.random.RandomState(0)
    return rng.poisson(50 + 40 * np.kron(rng.rand(2, 8, 8), np.ones((8, 8)))).astype("uint16")


def estimators():
    """Unfitted estimators that `images` (n, 64, 64) can be given to, by name."""
    reader = FrozenEstimator(SpreadReader().fit(None))
    regressor = PSFParameterRegressor(
        psf_model=FAMILY, patch_size=64, n_patches=4, batch_size=2, max_epochs=1, random_state=0
    )
    return {
        "PSFParameterRegressor": regressor,
        "AstigmaticDepthEstimator": DepthOfImages(axis=0.0),
        "BlurFlowEstimator": BlurFlowEstimator(
            psf_model=MOTION, image_size=64, n_images=2, batch_size=2, max_epochs=1, random_state=0
        ),
        "SpatialPSFMapper": SpatialPSFMapper(reader, stride=16),
        "TVRLDeconvolver": TVRLDeconvolver(psf=PSF, n_iter=2, random_state=0),
    }


@pytest.fixture(params=list(estimators()))
def fitted(request, images, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "compact", BlockMeans)
    monkeypatch.setitem(DENSE_ARCHITECTURES, "unet-directed", SQUARES)
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_VALIDATION", 4)
    monkeypatch.setattr("sklearn_psf.flow._N_VALIDATION", 4)
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_SCORE", 4)
    return estimators()[request.param].fit(images)


def use(estimator, X):
    """What an estimator makes of images, as one array."""
    if hasattr(estimator, "predict"):
        return np.hstack(estimator.predict(X, return_std=True))
    result = estimator.transform(X)
    return result.parameters if isinstance(result, PSFMap) else result


def test_every_public_estimator_is_tested_here():
    public = {name for name in sklearn_psf.__all__ if hasattr(getattr(sklearn_psf, name), "fit")}
    adapted = {type(make()).__mro__[2].__name__ for make, _ in CASES.values()}
    # an autofocus needs a stack with its positions: see test_autofocus for what is tested below
    assert public == set(estimators()) | {"DeepFocusAutofocus"} == adapted


@pytest.mark.parametrize("name", estimators())
def test_constructors_only_assign(name):
    cls = getattr(sklearn_psf, name)
    marks = {p: object() for p in inspect.signature(cls).parameters}
    estimator = cls(**marks)
    assert vars(estimator) == marks
    first, *others = inspect.signature(cls).parameters.values()
    kinds = {p.kind for p in ([first, *others] if name != "SpatialPSFMapper" else others)}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", estimators())
def test_tags(name):
    tags = get_tags(estimators()[name])
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array
    assert not tags.input_tags.sparse and not tags.input_tags.allow_nan
    if tags.transformer_tags is not None:
        assert tags.transformer_tags.preserves_dtype == []


def test_clone_and_parameters(fitted):
    before = joblib.hash(fitted.get_params())
    copy = clone(fitted)
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert copy.get_params(deep=False).keys() == fitted.get_params(deep=False).keys()
    if "verbose" in copy.get_params():
        assert copy.set_params(verbose=0).get_params()["verbose"] == 0
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        copy.set_params(colour=1)
    assert joblib.hash(fitted.get_params()) == before


def test_pickle_and_persistence_give_the_same_results(fitted, images, tmp_path):
    expected = use(fitted, images)
    np.testing.assert_array_equal(use(pickle.loads(pickle.dumps(fitted)), images), expected)
    if isinstance(fitted, (SpatialPSFMapper, DepthOfImages)):
        return  # a stand-in is no class of the package: see test_pipeline and test_depth
    persistence.save(fitted, tmp_path / "a.safetensors")
    loaded = persistence.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(use(loaded, images), expected)
    for name, value in fitted.get_params().items():
        if isinstance(value, (int, float, str, type(None))):
            assert loaded.get_params()[name] == value


def test_hash_does_not_change_with_use(fitted, images):
    fresh = joblib.hash(pickle.loads(pickle.dumps(fitted)))
    before = joblib.hash(fitted)
    use(fitted, images)
    assert joblib.hash(fitted) == before == fresh


def test_fitted_attributes_are_no_tensors(fitted):
    for name, value in vars(fitted).items():
        if name.endswith("_"):
            values = value.values() if isinstance(value, dict) else [value]
            assert not any(type(v).__module__.startswith("torch") for v in values), name


def test_same_seed_same_result(fitted, images):
    again = clone(fitted).fit(images)
    np.testing.assert_array_equal(use(again, images), use(fitted, images))


def test_inputs_are_not_modified(fitted, images):
    X = images.astype(np.float32)
    kept = X.copy()
    X.flags.writeable = False
    clone(fitted).fit(X)
    use(fitted, X)
    np.testing.assert_array_equal(X, kept)


def test_order_and_company_do_not_matter(fitted, images):
    X = np.concatenate([images, images[::-1] // 2 + 7])
    together = use(fitted, X)
    np.testing.assert_allclose(use(fitted, X[::-1])[::-1], together, rtol=1e-5, atol=1e-5)
    alone = np.concatenate([use(fitted, x[np.newaxis]) for x in X])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64", ">f4", "F"])
def test_memory_layout_and_dtype_do_not_matter(fitted, images, dtype):
    X = images % 200
    expected = use(fitted, X)
    changed = np.asfortranarray(X) if dtype == "F" else X.astype(dtype)
    np.testing.assert_allclose(use(fitted, changed), expected, rtol=1e-5, atol=1e-5)


def test_html_repr(fitted):
    for estimator in (fitted, clone(fitted)):
        html = estimator_html_repr(estimator)
        assert type(fitted).__name__ in html and "sk-" in html
    assert type(fitted).__name__ in repr(fitted)


def test_pandas_output_changes_nothing(fitted, images):
    expected = use(fitted, images)
    with config_context(transform_output="pandas"):
        result = clone(fitted).fit(images)
        np.testing.assert_array_equal(use(result, images), expected)
        if hasattr(fitted, "transform"):
            output = fitted.transform(images)
            assert isinstance(output, (PSFMap, np.ndarray))
            assert type(fitted.fit_transform(images)) is type(output)
    assert not hasattr(fitted, "set_output")


@pytest.mark.parametrize("name", estimators())
def test_unfitted(name, images):
    with pytest.raises(NotFittedError, match=f"{name} instance is not fitted yet"):
        use(estimators()[name], images)


BAD = {
    "2-D": (lambda X: X[0], ValueError, "got 2D"),
    "empty": (lambda X: X[:0], ValueError, r"0 sample\(s\)"),
    "NaN": (lambda X: np.where(X == X[0, 0, 0], np.nan, X), ValueError, "NaN or infinity"),
    "inf": (lambda X: np.where(X == X[0, 0, 0], np.inf, X), ValueError, "NaN or infinity"),
    "complex": (lambda X: X * 1j, ValueError, "Complex data not supported"),
    "object": (lambda X: X.astype(object), ValueError, "must hold real numbers"),
    "colour": (lambda X: np.stack([X] * 3, -1), ValueError, "colour"),
    "colour image": (lambda X: np.stack([X[0]] * 3, -1), ValueError, "colour"),
    "ragged": (lambda X: [X[0], X[0, :32]], ValueError, "ragged list"),
    "sparse": (lambda X: sparse.csr_matrix(X[0]), TypeError, "sparse X"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images(fitted, images, case):
    change, error, match = BAD[case]
    with pytest.raises(error, match=match):
        use(fitted, change(images))
    if not (case == "ragged" and hasattr(fitted, "predict")):  # sharp images may differ in size
        with pytest.raises(error, match=match):
            clone(fitted).fit(change(images))


@pytest.mark.parametrize("case", ["constant", "black", "negative", "16 bits", "dark"])
def test_hard_images_give_finite_results(fitted, images, case):
    X = {
        "constant": np.full((1, 64, 64), 77.7),
        "black": np.zeros((1, 64, 64), np.uint8),
        "negative": -images.astype(float),
        "16 bits": (images * 257).astype(np.uint16),
        "dark": images * 1e-9,
    }[case]
    assert np.isfinite(use(fitted, X)).all()


def test_maps_are_persistent(images, tmp_path):
    maps = estimators()["SpatialPSFMapper"].fit_transform(images)
    persistence.save(maps, tmp_path / "a.safetensors")
    loaded = persistence.load(tmp_path / "a.safetensors")
    for field in fields(PSFMap):
        a, b = getattr(maps, field.name), getattr(loaded, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b
    np.testing.assert_array_equal(loaded.psfs(1), maps.psfs(1))
