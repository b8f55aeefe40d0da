"""The whole path: blurred images, a map of local PSFs, restored images, in one Pipeline."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from skimage.data import coins
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_html_repr

from sklearn_psf import (
    PSFMap,
    PSFParameterRegressor,
    SpatialPSFMapper,
    TVRLDeconvolver,
    persistence,
)
from sklearn_psf.metrics import snr
from sklearn_psf.networks import load_pretrained, save_weights
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import make_textures, make_tilted_scene


@pytest.fixture(scope="module")
def scenes():
    """Four blurred images of 72 x 80 pixels and the sharp ones, in the same units."""
    sharp = make_textures(4, size=(72, 80), kind="dead-leaves", random_state=3)
    family = make_psf_model("gaussian-1", size=15)
    pairs = [
        make_tilted_scene(
            image,
            psf_model=family,
            low=1.0,
            high=2.0,
            camera=Camera(peak_photons=3000),
            random_state=i,
        )[:2]
        for i, image in enumerate(sharp)
    ]
    blurred, truth = (np.stack(part) for part in zip(*pairs, strict=True))
    return blurred, truth


@pytest.fixture
def pipeline(tiny_weights):
    regressor = PSFParameterRegressor(pretrained=tiny_weights)
    return Pipeline(
        [
            ("psf", SpatialPSFMapper(regressor, stride=16)),
            ("deconv", TVRLDeconvolver(n_iter=4)),
        ]
    )


@pytest.fixture
def other_weights(tiny_weights, tmp_path):
    """Weights that differ a little from the tiny ones."""
    state, card = load_pretrained(tiny_weights)
    card = {k: v for k, v in card.items() if k not in ("sha256", "format_version")}
    mean = state["target_mean"] * 0.9
    save_weights(state | {"target_mean": mean}, card, tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


def test_restores_in_the_units_of_the_input(pipeline, scenes):
    X, y = scenes
    kept = X.copy()
    restored = pipeline.fit(X).transform(X)
    assert restored.shape == X.shape and restored.dtype == np.float32
    assert np.isfinite(restored).all()
    assert restored.mean() == pytest.approx(X.mean(), rel=0.02)
    assert pipeline.score(X, y) == pytest.approx(snr(y, restored), rel=1e-6)
    np.testing.assert_array_equal(X, kept)
    maps = pipeline[:-1].transform(X)
    assert isinstance(maps, PSFMap) and maps.parameters.shape == (4, 3, 4, 1)
    np.testing.assert_array_equal(pipeline[-1].transform(maps), restored)


def test_images_are_restored_one_by_one(pipeline, scenes):
    X, _ = scenes
    together = pipeline.fit(X).transform(X)
    for i in (0, 3):
        np.testing.assert_allclose(pipeline.transform(X[i : i + 1])[0], together[i], rtol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float64"])
def test_any_real_dtype(pipeline, scenes, dtype):
    X = np.clip(scenes[0] / scenes[0].max() * 250, 0, 255).round()
    expected = pipeline.fit(X).transform(X)
    np.testing.assert_allclose(pipeline.transform(X.astype(dtype)), expected, rtol=1e-3, atol=0.05)


def test_a_map_can_be_indexed_between_the_steps(pipeline, scenes):
    X, y = scenes
    maps = pipeline[:-1].fit_transform(X)
    deconv = clone(pipeline[-1]).fit(maps)
    halves = [deconv.transform(maps[:2]), deconv.transform(maps[2:])]
    np.testing.assert_array_equal(np.concatenate(halves), deconv.transform(maps))
    scores = cross_val_score(TVRLDeconvolver(n_iter=2), maps, y, cv=2, error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_cross_validation_of_the_pipeline(pipeline, scenes):
    X, y = scenes
    scores = cross_val_score(pipeline, X, y, cv=2, error_score="raise")
    assert scores.shape == (2,) and (scores > 5).all()  # dB
    held_out = cross_validate(pipeline, X, cv=2, error_score="raise")["test_score"]
    assert np.isfinite(held_out).all()  # without truth: log-likelihood of held-out photons


def entries(folder):
    """Cached runs of a transformer: path and time of their results."""
    return {
        p: p.stat().st_mtime_ns for p in Path(folder).rglob("*_fit_transform_one*/*/output.pkl")
    }


def test_grid_search_reads_each_fold_once_for_each_setting_of_the_mapper(
    pipeline, scenes, tiny_weights, other_weights, tmp_path
):
    X, y = scenes
    pipeline.set_params(memory=joblib.Memory(tmp_path / "cache", verbose=0))
    grid = {
        "deconv__lambda_tv": [0.01, 10.0],
        "psf__stride": [16, 40],
        "psf__regressor__pretrained": [str(tiny_weights), str(other_weights)],
    }
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, refit=False, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 8
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(set(np.round(scores, 6))) == 8
    assert search.best_params_["deconv__lambda_tv"] < 10
    cached = entries(tmp_path / "cache")
    assert len(cached) == 2 * 2 * 2  # folds x strides x weights, and not x lambda_tv
    # again, and with other values of lambda_tv: the mapper's results come from the cache
    again = clone(search).set_params(param_grid=grid | {"deconv__lambda_tv": [0.01, 0.02]})
    again.fit(X, y)
    assert entries(tmp_path / "cache") == cached
    same = [p["deconv__lambda_tv"] == 0.01 for p in search.cv_results_["params"]]
    same_again = [p["deconv__lambda_tv"] == 0.01 for p in again.cv_results_["params"]]
    np.testing.assert_allclose(again.cv_results_["mean_test_score"][same_again], scores[same])


def count_reads(monkeypatch):
    """Count the images that mappers read, in this process."""
    read, counted = SpatialPSFMapper.transform, []
    monkeypatch.setattr(
        SpatialPSFMapper, "transform", lambda self, X: counted.append(len(X)) or read(self, X)
    )
    return counted


def test_memory_spares_the_mapper_a_second_fit(pipeline, scenes, tmp_path, monkeypatch):
    counted = count_reads(monkeypatch)
    X, _ = scenes
    pipeline.set_params(memory=str(tmp_path / "cache"))
    pipeline.fit(X)
    assert counted == [4]
    first = pipeline.named_steps["psf"]
    pipeline.transform(X)  # transform of a Pipeline is not cached
    assert counted == [4, 4]
    pipeline.set_params(deconv__lambda_tv=0.02).fit(X)
    clone(pipeline).fit(X)
    assert counted == [4, 4]
    pipeline.set_params(psf__stride=24).fit(X)
    assert counted == [4, 4, 4]
    assert first.stride == 16 and pipeline.named_steps["psf"].stride == 24


def test_frozen_regressors_can_be_searched_over(pipeline, scenes, tiny_regressor, tmp_path):
    X, y = scenes
    pipeline.set_params(memory=str(tmp_path), psf__regressor=FrozenEstimator(tiny_regressor))
    before = joblib.hash(tiny_regressor)
    grid = {"deconv__n_iter": [1, 2], "psf__stride": [20]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(entries(tmp_path)) == 2 + 1  # the folds and the refit
    assert search.score(X, y) == pytest.approx(search.best_estimator_.score(X, y))
    assert joblib.hash(tiny_regressor) == before
    assert search.best_estimator_["psf"].regressor_.estimator.state_.keys()


def test_html_repr_shows_both_steps(pipeline, scenes):
    for estimator in (pipeline, clone(pipeline).fit(scenes[0])):
        html = estimator_html_repr(estimator)
        for name in ("SpatialPSFMapper", "PSFParameterRegressor", "TVRLDeconvolver"):
            assert name in html


def test_a_fitted_pipeline_is_persistent(pipeline, scenes, tiny_regressor, tmp_path):
    X, _ = scenes
    for regressor in (pipeline["psf"].regressor, FrozenEstimator(tiny_regressor)):
        pipeline.set_params(psf__regressor=regressor).fit(X)
        persistence.save(pipeline, tmp_path / "a.safetensors", overwrite=True)
        loaded = persistence.load(tmp_path / "a.safetensors")
        np.testing.assert_array_equal(loaded.transform(X), pipeline.transform(X))


def test_refusals_say_what_to_do(pipeline, scenes):
    X, y = scenes
    with pytest.raises(ValueError, match="put SpatialPSFMapper before TVRLDeconvolver"):
        TVRLDeconvolver().fit(X)
    unfitted = SpatialPSFMapper(PSFParameterRegressor(), stride=16)
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        clone(pipeline).set_params(psf=unfitted).fit(X)
    with pytest.raises(ValueError, match="neither a shipped name"):
        clone(pipeline).set_params(psf__regressor__pretrained="zernike-7").fit(X)
    with pytest.raises(ValueError, match="disagrees with the weights"):
        clone(pipeline).set_params(psf__regressor__psf_model="zernike-1").fit(X)
    with pytest.raises(ValueError, match="20 x 80 pixels, smaller than the minimum of 32 x 32"):
        pipeline.fit(X).transform(X[:, :20])
    with pytest.raises(ValueError, match="lambda_tv must be in"):
        clone(pipeline).set_params(deconv__lambda_tv=-1).fit(X)
    with pytest.raises(NotFittedError):
        clone(pipeline).transform(X)


def test_the_promise_on_the_first_page():
    """Two lines and the shipped weights restore an image that the network never saw."""
    sharp = coins()[40:240, 40:264]
    blurred, truth, _ = make_tilted_scene(
        sharp, psf_model="zernike-1", low=0.6, high=0.9, camera=Camera(), random_state=0
    )
    X, y = blurred[np.newaxis], truth[np.newaxis]
    pipeline = Pipeline([("psf", SpatialPSFMapper()), ("deconv", TVRLDeconvolver(n_iter=15))])
    restored = pipeline.fit(X).transform(X)
    assert restored.shape == X.shape and np.isfinite(restored).all() and (restored >= 0).all()
    assert pipeline.score(X, y) > snr(y, X) + 0.5
