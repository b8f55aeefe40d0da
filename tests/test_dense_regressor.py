"""Tests of the regressor that reads whole images at once."""

import pickle

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from sklearn_psf import PSFParameterRegressor, SpatialPSFMapper
from sklearn_psf.networks import build_network, save_weights
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import VaryingBlurStream, make_textures

FAMILY = make_psf_model("gaussian-1", size=31)
SMALL = {
    "psf_model": FAMILY,
    "architecture": "unet",
    "patch_size": 64,
    "n_patches": 4,
    "batch_size": 2,
    "max_epochs": 1,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def sharp():
    return make_textures(3, size=200, kind="dead-leaves", random_state=0)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_VALIDATION", 32)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Weights of an untrained network for patches."""
    path = tmp_path_factory.mktemp("weights") / "reader.safetensors"
    state = build_network("compact", FAMILY.n_encoded, seed=3).state_dict()
    card = {
        "weight_version": 1, "name": "reader", "psf_model": FAMILY.settings,
        "licence": "BSD-3-Clause", "architecture": "compact", "patch_size": 128, "std_scale": [1.0],
    }  # fmt: skip
    save_weights({name: value.numpy() for name, value in state.items()}, card, path)
    return path


@pytest.fixture(scope="module")
def dense(reader, sharp):
    settings = {k: v for k, v in SMALL.items() if k != "psf_model"}
    return PSFParameterRegressor(initial_weights=reader, **settings).fit(sharp)


def test_it_starts_from_weights_that_read_patches(dense, reader, sharp):
    assert dense.architecture_ == "unet" and dense.patch_size_ == 64
    assert dense.psf_model_.settings == FAMILY.settings
    fixed = PSFParameterRegressor(pretrained=reader).fit(sharp)
    for name, value in fixed.state_.items():
        if name.startswith("backbone."):
            kept = dense.state_["backbone.windows.reader." + name.removeprefix("backbone.")]
            np.testing.assert_array_equal(kept, value)
    with pytest.raises(ValueError, match="architecture='resnet34' disagrees"):
        PSFParameterRegressor(initial_weights=reader, architecture="resnet34").fit(sharp)


def test_training_from_nothing_and_on_labelled_patches(sharp):
    alone = PSFParameterRegressor(**SMALL).fit(sharp)
    assert np.isfinite(alone.history_[0]["train_loss"])
    y = np.array([[1.0], [2.0], [np.nan], [4.0]])
    labelled = PSFParameterRegressor(**SMALL).fit(np.asarray(sharp)[[0, 1, 2, 0], :64, :64], y)
    assert labelled.predict(np.asarray(sharp)[:, :64, :64]).shape == (3, 1)


def test_patches_of_any_size_are_read_at_their_centre(dense, sharp):
    X = np.asarray(sharp)[:, :160, :128]
    parameters, std, invalid = dense.predict_all(X)[:3]
    maps = dense.predict_map(X, [79.5], [63.5])
    np.testing.assert_allclose(maps[3][:, 0, 0], dense.predict_all(X)[3], rtol=1e-5)
    assert parameters.shape == std.shape == (3, 1) and invalid.shape == (3,)
    np.testing.assert_array_equal(dense.predict(X), parameters)


def test_a_map_of_squares_and_of_any_places(dense, sharp):
    X = np.asarray(sharp)[:2, :100, :77]
    parameters, std, invalid, encoding, variance = dense.predict_map(X)
    assert parameters.shape == std.shape == (2, 13, 10, 1)
    assert invalid.shape == (2, 13, 10) and (0 <= invalid).all() and (invalid <= 1).all()
    assert encoding.shape == variance.shape == (2, 13, 10, FAMILY.n_encoded)
    at = dense.predict_map(X, [3.5, 7.5], [19.5])
    np.testing.assert_allclose(at[3][:, 0, 0], encoding[:, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(at[3][:, 1, 0], encoding[:, :2, 2].mean(1), rtol=1e-6)
    np.testing.assert_allclose(dense.predict_map(X[1:])[0][0], parameters[1], rtol=1e-5)


def test_others_have_no_map(reader, sharp, dense):
    assert hasattr(dense, "predict_map") and hasattr(
        pickle.loads(pickle.dumps(dense)), "predict_map"
    )
    patches = PSFParameterRegressor(pretrained=reader).fit(sharp)
    assert not hasattr(patches, "predict_map")
    with pytest.raises(ValueError, match="method='dense' needs a fully convolutional regressor"):
        SpatialPSFMapper(FrozenEstimator(patches), method="dense").fit(np.ones((1, 128, 128)))


def test_the_mapper_reads_squares_of_its_stride(dense, sharp):
    X = np.asarray(sharp)
    mapper = SpatialPSFMapper(FrozenEstimator(dense), method="dense", stride=20, smoothing=0)
    maps = mapper.fit_transform(X)
    assert maps.parameters.shape == (3, 10, 10, 1)
    np.testing.assert_array_equal(maps.rows[:2], [9.5, 29.5])
    expected = dense.predict_map(X, maps.rows, maps.columns)
    valid = maps.invalid <= 0.5
    np.testing.assert_allclose(maps.parameters[valid], expected[0][valid], rtol=1e-5)
    np.testing.assert_allclose(maps.invalid, expected[2])


def test_a_patch_size_that_does_not_fit(sharp):
    with pytest.raises(ValueError, match="patch_size must be a multiple of 64 .* got 100"):
        PSFParameterRegressor(**SMALL | {"patch_size": 100}).fit(sharp)


def test_weights_of_a_dense_network_say_what_a_training_draws(dense, sharp, monkeypatch):
    """Without `architecture`, too, a training that starts from them sees varying blur."""
    drawn = []

    def note(self):
        drawn.append(self.label_stride)
        return draw(self)

    draw = VaryingBlurStream.draw
    monkeypatch.setattr(VaryingBlurStream, "draw", note)
    card = {"psf_model": FAMILY.settings, "architecture": "unet", "patch_size": 64}
    monkeypatch.setattr(
        "sklearn_psf._held_network.load_pretrained", lambda name: (dense.state_, card)
    )
    settings = {k: v for k, v in SMALL.items() if k not in ("psf_model", "architecture")}
    again = PSFParameterRegressor(initial_weights="dense", **settings).fit(sharp)
    assert again.architecture_ == "unet" and drawn and set(drawn) == {8}


def test_sizes_that_do_not_fit(dense, sharp):
    mapper = SpatialPSFMapper(FrozenEstimator(dense), method="dense", stride=16)
    assert mapper.fit_transform(np.asarray(sharp)[:, :64, :70]).parameters.shape == (3, 4, 4, 1)
    with pytest.raises(ValueError, match="63 x 70 pixels, smaller than the minimum of 64 x 64"):
        mapper.fit(np.asarray(sharp)[:, :63, :70])
    with pytest.raises(ValueError, match="patch_size=288 disagrees .* reads patches of any size"):
        PSFParameterRegressor(pretrained="zernike-3-dense", patch_size=288).fit(sharp)
