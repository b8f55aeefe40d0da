import json
from dataclasses import fields
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from sklearn_psf import PSFMap, PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.persistence import _digest, load, save

RNG = np.random.default_rng(0)
X = RNG.integers(0, 900, (1, 40, 44)).astype("uint16")


def make_map(images=X, optics=None):
    parameters = RNG.random((1, 2, 3, 1))
    return PSFMap(
        images=images,
        parameters=parameters,
        std=parameters / 10,
        invalid=np.zeros((1, 2, 3)),
        rows=np.array([10.0, 30.0]),
        columns=np.array([10.0, 20.0, 30.0]),
        model=make_psf_model("gaussian-1", size=9).settings,
        optics=optics,
    )


def estimator_with(**fitted):
    """An unfitted deconvolver that carries attributes of every kind the format knows."""
    estimator = TVRLDeconvolver(n_iter=3)
    for name, value in fitted.items():
        setattr(estimator, name, value)
    return estimator


def round_trip(obj, tmp_path):
    save(obj, tmp_path / "a.safetensors", overwrite=True)
    return load(tmp_path / "a.safetensors")


def params_hash(estimator):
    return joblib.hash({k: v for k, v in estimator.get_params().items() if not hasattr(v, "fit")})


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int64", "float16", "float32", ">f8"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3)])
def test_arrays_keep_type_shape_and_values(tmp_path, dtype, shape):
    array = (RNG.random(shape) * 9).astype(dtype)
    back = round_trip(estimator_with(x_=array), tmp_path).x_
    assert back.dtype == array.dtype.newbyteorder("=") and back.shape == shape
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        float("inf"),
        "text \u00b5",
        [1, (2, "x"), []],
        {"a": 1, 2: (None, False), (1, "b"): [0.5]},
        np.float32(0.1),
        np.int64(7),
        np.bool_(True),
        Path("weights", "a.safetensors"),
        torch.device("cpu"),
        Optics(0.5, 0.52, 0.2),
        Camera(peak_photons=300.0, bits=12),
    ],
)
def test_values_keep_their_type(tmp_path, value):
    back = round_trip(estimator_with(x_=value), tmp_path).x_
    assert back == value and type(back) is type(value)


def test_containers_of_arrays_and_families(tmp_path):
    family = make_psf_model("zernike-3", cutoff=0.2, size=31, optics=Optics(0.5, 0.52, 0.2))
    state = {"w": np.arange(3.0), "b": [np.ones((2, 2), "float16")], "t": torch.arange(4)}
    back = round_trip(estimator_with(state_=state, family_=family), tmp_path)
    np.testing.assert_array_equal(back.state_["w"], state["w"])
    np.testing.assert_array_equal(back.state_["b"][0], state["b"][0])
    assert torch.equal(back.state_["t"], state["t"])
    assert back.family_.settings == family.settings and back.family_.optics == family.optics


def test_nan_and_non_contiguous_arrays(tmp_path):
    array = np.array([[1.0, np.nan], [3.0, 4.0]]).T
    back = round_trip(estimator_with(x_=array, y_=float("nan")), tmp_path)
    np.testing.assert_array_equal(back.x_, array)
    assert np.isnan(back.y_)


@pytest.mark.parametrize("optics", [None, Optics(0.5, 0.52, 6.5, 1.33, 40)])
def test_maps_come_back(tmp_path, optics):
    maps = make_map(optics=optics)
    back = round_trip(maps, tmp_path)
    assert type(back) is PSFMap and back.optics == optics and back.model == maps.model
    for field in fields(PSFMap):
        value = getattr(maps, field.name)
        if isinstance(value, np.ndarray):
            assert getattr(back, field.name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(back, field.name), value)


def test_fitted_deconvolver_restores_the_same(tmp_path):
    psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    fitted = TVRLDeconvolver(psf=psf, n_iter=3).fit(X)
    back = round_trip(fitted, tmp_path)
    np.testing.assert_array_equal(back.transform(X), fitted.transform(X))
    assert params_hash(clone(back)) == params_hash(clone(fitted))


@pytest.fixture(scope="module")
def regressor():
    """A tiny fitted regressor; its training is not what is tested."""
    patches = RNG.random((40, 32, 32)).astype("float32")
    return PSFParameterRegressor(
        psf_model="gaussian-1", patch_size=32, max_epochs=1, random_state=0
    ).fit(patches, RNG.uniform(1, 5, (40, 1)))


def test_fitted_regressor_predicts_the_same(tmp_path, regressor):
    patches = RNG.random((3, 32, 32)).astype("float32")
    expected = regressor.predict(patches)
    back = round_trip(regressor, tmp_path)
    np.testing.assert_array_equal(back.predict(patches), expected)
    assert joblib.hash(back.state_) == joblib.hash(regressor.state_)


def test_fitted_pipeline_with_a_frozen_regressor(tmp_path, regressor):
    mapper = SpatialPSFMapper(FrozenEstimator(regressor), stride=8)
    pipeline = Pipeline([("psf", mapper), ("deconv", TVRLDeconvolver(n_iter=2))]).fit(X)
    back = round_trip(pipeline, tmp_path)
    assert isinstance(back.named_steps["psf"].regressor, FrozenEstimator)
    np.testing.assert_array_equal(back.transform(X), pipeline.transform(X))


@pytest.mark.parametrize("obj", [SpatialPSFMapper(stride=32), PSFParameterRegressor(n_patches=7)])
def test_unfitted_estimators(tmp_path, obj):
    back = round_trip(obj, tmp_path)
    assert type(back) is type(obj) and params_hash(back) == params_hash(obj)
    assert not [name for name in vars(back) if name.endswith("_")]


def test_private_state_is_left_out(tmp_path):
    back = round_trip(estimator_with(_module=object(), __secret_=1), tmp_path)
    assert not hasattr(back, "_module")


@pytest.mark.parametrize("obj", [Ridge(), 3, {"a": 1}, Optics(0.5, 0.52, 0.2), None])
def test_foreign_objects_are_refused(tmp_path, obj):
    with pytest.raises(TypeError, match="obj must be one of"):
        save(obj, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.random.RandomState(0), r"obj\.x_ is a RandomState.*int as seed"),
        ({"a": [Ridge()]}, r"obj\.x_\['a'\]\[0\] is a Ridge"),
        (print, "builtin_function"),
        (np.array(["a"]), "dtype <U1"),
        (np.array([print]), "dtype object"),
        (np.ones(2, complex), "dtype complex128"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, value, match):
    with pytest.raises(TypeError, match=match):
        save(estimator_with(x_=value), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_overwriting_is_asked_for(tmp_path):
    path = tmp_path / "a.safetensors"
    save(TVRLDeconvolver(n_iter=1), path)
    with pytest.raises(FileExistsError, match="not overwritten"):
        save(TVRLDeconvolver(n_iter=2), path)
    assert load(path).n_iter == 1
    save(TVRLDeconvolver(n_iter=2), str(path), overwrite=True)
    assert load(path).n_iter == 2


@pytest.mark.parametrize(
    ("name", "error"), [("a.pkl", ValueError), ("no/a.safetensors", FileNotFoundError)]
)
def test_bad_paths(tmp_path, name, error):
    with pytest.raises(error):
        save(TVRLDeconvolver(), tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / name)
    with pytest.raises(TypeError, match="path must be"):
        load(3)


def rewrite(path, edit, checksum=True):
    """Change the document of a saved file, as an attacker would: with a right checksum."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    document = json.loads(metadata["document"])
    edit(metadata, document, arrays)
    metadata["document"] = json.dumps(document)
    if checksum:
        metadata["sha256"] = _digest(metadata["document"], arrays.items())
    save_file(arrays, path, metadata=metadata)


EDITS = {
    "a later version": (lambda m, d, a: m.update(version="99"), "version is '99'"),
    "another format": (lambda m, d, a: m.update(format="pt"), "format is 'pt'"),
    "an unknown class": (lambda m, d, a: d.update({"class": "system"}), "unknown class 'system'"),
    "an unknown kind": (lambda m, d, a: d.update(type="pickle"), "unknown kind 'pickle'"),
    "an unknown parameter": (lambda m, d, a: d["params"].update(command="ls"), "command"),
    "a method as attribute": (lambda m, d, a: d["fitted"].update(fit=1), "no fitted attribute"),
    "a dunder": (lambda m, d, a: d["fitted"].update(__class__=1), "no fitted attribute"),
    "a missing array": (lambda m, d, a: a.clear(), "a0"),
    "a bare list": (lambda m, d, a: d["params"].update(n_iter=[1]), "untagged"),
    "no estimator": (lambda m, d, a: (d.clear(), d.update(type="float", value="1")), "holds no"),
}


@pytest.mark.parametrize("case", EDITS)
def test_manipulated_documents_are_refused(tmp_path, case):
    path = tmp_path / "a.safetensors"
    save(estimator_with(x_=np.ones(3)), path)
    edit, match = EDITS[case]
    rewrite(path, edit)
    with pytest.raises(ValueError, match=match):
        load(path)


def test_flipped_bits_are_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    save(estimator_with(x_=np.ones(3)), path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        load(path)
    rewrite(path, lambda m, d, a: d["params"].update(n_iter=9), checksum=False)
    with pytest.raises(ValueError, match="checksum"):
        load(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04pickle", b"\x10" + bytes(7) + b"{not json at all"]
)
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(tmp_path / "a.safetensors")


def test_truncated_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save(make_map(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(path)
