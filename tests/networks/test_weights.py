import hashlib
import json

import numpy as np
import pytest

from sklearn_psf.networks import load_pretrained, pretrained_names, save_weights
from sklearn_psf.networks.modules import build_network
from sklearn_psf.networks.weights import _FOLDER, FORMAT_VERSION
from sklearn_psf.optics import make_psf_model

FAMILIES = ["gaussian-1", "gaussian-2", "zernike-1", "zernike-2", "zernike-3"]
CARD = {
    "weight_version": 3,
    "psf_model": {"name": "gaussian-1", "cutoff": 0.25, "size": 31},
    "architecture": "compact",
    "patch_size": 32,
}
STATE = {
    "filters": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "bias": np.linspace(0, 1e5, 7, dtype=np.float32),
    "count": np.array(12, dtype=np.int64),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "own.safetensors"
    save_weights(STATE, CARD, path)
    return path


def edit_card(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text()) | changes
    card = {key: value for key, value in card.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_round_trip(path, kind):
    state, card = load_pretrained(kind(path))
    assert card.items() >= CARD.items() and card["format_version"] == FORMAT_VERSION
    assert len(card["sha256"]) == 64
    assert {k: (v.dtype, v.shape) for k, v in state.items()} == {
        k: (v.dtype, v.shape) for k, v in STATE.items()
    }
    np.testing.assert_array_equal(state["bias"], STATE["bias"])  # vectors keep 32 bits
    np.testing.assert_allclose(state["filters"], STATE["filters"], rtol=5e-4)
    assert state["count"] == 12


def test_matrices_take_half_the_room(tmp_path):
    state = {"w": np.ones((500, 500), np.float32)}
    save_weights(state, CARD, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < 500 * 500 * 2 + 1000


def test_loaded_arrays_cannot_be_changed_and_are_not_stale(path):
    state, _ = load_pretrained(path)
    with pytest.raises(ValueError, match="read-only"):
        state["bias"][0] = 1
    save_weights(STATE | {"bias": np.zeros(7, np.float32)}, CARD, path)
    assert not load_pretrained(path)[0]["bias"].any()


def test_corrupt_weights(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="own.safetensors are corrupt or foreign: their sha256"):
        load_pretrained(path)


def test_weights_of_another_card(path):
    edit_card(path, sha256="0" * 64)
    with pytest.raises(ValueError, match="corrupt or foreign.*the card says 000000000000"):
        load_pretrained(path)


def test_a_foreign_file_that_the_card_vouches_for(path):
    path.write_bytes(b"PK\x03\x04 this is a zip file")
    edit_card(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="own.safetensors are not safetensors"):
        load_pretrained(path)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None])
def test_unknown_format(path, version):
    edit_card(path, format_version=version)
    with pytest.raises(ValueError, match=f"own.json has format_version {version!r}; .*reads 1"):
        load_pretrained(path)


@pytest.mark.parametrize("key", ["psf_model", "architecture", "patch_size", "sha256"])
def test_incomplete_card(path, key):
    edit_card(path, **{key: None})
    with pytest.raises(ValueError, match=f"own.json lacks {key}"):
        load_pretrained(path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[1]", b"3"])
def test_a_card_that_is_none(path, content):
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(ValueError, match="card own.json"):
        load_pretrained(path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("zernike-9", "'zernike-9' is neither a shipped name .* nor the path of a .safetensors"),
        ("weights.pt", "'weights.pt' is neither a shipped name"),
        ("nowhere.safetensors", "there is no file nowhere.safetensors"),
        (3, "pretrained must be a name or a path, got 3"),
        (None, "pretrained must be a name or a path, got None"),
        ("", "neither a shipped name"),
    ],
)
def test_unknown_names(name, match):
    with pytest.raises(ValueError, match=match):
        load_pretrained(name)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_half_a_pair(path, suffix):
    path.with_suffix(suffix).unlink()
    with pytest.raises(ValueError, match=f"there is no file own{suffix}"):
        load_pretrained(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_weights(family):
    assert family in pretrained_names()
    state, card = load_pretrained(family)
    model = make_psf_model(**card["psf_model"])
    assert model.name == family
    network = build_network(card["architecture"], model.n_encoded, state)
    assert all(np.isfinite(v).all() for v in state.values())
    assert card["patch_size"] == 128 and card["weight_version"] >= 1
    assert len(card["std_scale"]) == len(model.bounds)
    assert not network.training


def test_shipped_weights_are_small():
    sizes = [path.stat().st_size for path in _FOLDER.glob("*.safetensors")]
    assert max(sizes) <= 16e6 and sum(sizes) <= 48e6
