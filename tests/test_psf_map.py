import pickle
from dataclasses import FrozenInstanceError

import joblib
import numpy as np
import pytest
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils import shuffle

from sklearn_psf import PSFMap
from sklearn_psf.optics import Optics, make_psf_model

OPTICS = Optics(na=0.5, wavelength=0.5, pixel_size=0.25)
N, HEIGHT, WIDTH = 5, 60, 81
ROWS, COLUMNS = np.array([9.5, 29.5, 49.5]), np.array([10.0, 30.0, 50.0, 70.0])


def make_map(name="zernike-3", n=N, optics=None, seed=0, **changes):
    rng = np.random.default_rng(seed)
    family = make_psf_model(name, size=15, optics=optics)
    shape = (n, len(ROWS), len(COLUMNS))
    parameters = family.sample(n * shape[1] * shape[2], seed).reshape(*shape, -1)
    fields = {
        "images": rng.integers(0, 900, (n, HEIGHT, WIDTH)).astype("uint16"),
        "parameters": parameters,
        "std": rng.random(parameters.shape),
        "invalid": rng.random(shape),
        "rows": ROWS,
        "columns": COLUMNS,
        "model": family.settings,
        "optics": optics,
    }
    return PSFMap(**fields | changes)


def assert_same_images(maps, expected, index):
    for name in ("images", "parameters", "std", "invalid"):
        np.testing.assert_array_equal(getattr(maps, name), getattr(expected, name)[index])
    assert maps.rows is expected.rows and maps.columns is expected.columns
    assert maps.model == expected.model and maps.optics == expected.optics


def test_length_shape_and_text():
    maps = make_map()
    assert len(maps) == N and maps.shape == (N, HEIGHT, WIDTH)
    assert maps.psf_model.name == "zernike-3" and maps.psf_model.size == 15
    text = repr(maps)
    assert "5 images of 60 x 81, 3 x 4 windows, zernike-3" in text and "% invalid" in text


@pytest.mark.parametrize(
    "key",
    [
        slice(1, 4),
        slice(None, None, -2),
        [3, 0, 3],
        np.array([2, 1]),
        np.arange(N) % 2 == 0,
        [True, False, True, False, False],
    ],
    ids=str,
)
@pytest.mark.parametrize("ellipsis", [False, True])
def test_indexing_like_an_array(key, ellipsis):
    maps = make_map(optics=OPTICS)
    index = np.asarray(key) if isinstance(key, list) else key
    assert_same_images(maps[(key, ...) if ellipsis else key], maps, index)


@pytest.mark.parametrize("i", [0, 3, -1, -5, np.int64(2), np.int64(-2)])
def test_an_integer_keeps_the_axis(i):
    maps = make_map()
    one = maps[i]
    assert len(one) == 1 and one.shape == (1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(one.parameters[0], maps.parameters[i])
    np.testing.assert_array_equal(one.images[0], maps.images[i])


def test_iteration_ends():
    maps = make_map()
    assert [m.images[0, 0, 0] for m in maps] == list(maps.images[:, 0, 0])


@pytest.mark.parametrize("key", [N, -N - 1, (0, 1), (slice(2), slice(2)), (0, ..., 1)], ids=str)
def test_bad_index(key):
    with pytest.raises(IndexError):
        make_map()[key]


def test_scikit_learn_splits_maps():
    maps, y = make_map(), np.arange(N)
    train, test, y_train, y_test = train_test_split(maps, y, test_size=2, random_state=0)
    assert_same_images(train, maps, y_train)
    assert_same_images(test, maps, y_test)
    shuffled, order = shuffle(maps, y, random_state=1)
    assert_same_images(shuffled, maps, order)
    assert [len(test) for _, test in KFold(5).split(maps)] == [1] * 5


def test_concatenate_inverts_indexing():
    maps = make_map(optics=OPTICS)
    joined = PSFMap.concatenate([maps[:2], maps[2], maps[3:]])
    assert_same_images(joined, maps, slice(None))
    assert_same_images(PSFMap.concatenate(m for m in [maps]), maps, slice(None))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("images", lambda: make_map(images=np.zeros((N, HEIGHT, WIDTH + 1)))),
        ("rows", lambda: make_map(rows=ROWS + 1)),
        ("columns", lambda: make_map(columns=COLUMNS * 0.5)),
        ("parameters", lambda: make_map("gaussian-1")),
        ("model", lambda: make_map(model={"name": "zernike-3", "cutoff": 0.2, "size": 15})),
        ("optics", lambda: make_map(optics=OPTICS)),
    ],
)
def test_maps_that_differ_are_not_joined(name, other):
    with pytest.raises(ValueError, match=f"differ in {name}"):
        PSFMap.concatenate([make_map(), other()])


def test_nothing_to_join():
    with pytest.raises(ValueError, match="at least one"):
        PSFMap.concatenate([])


@pytest.mark.parametrize("convert", [np.asarray, np.array, lambda m: np.stack([m, m]), np.sum])
def test_a_map_does_not_silently_become_an_array(convert):
    with pytest.raises(TypeError, match="cannot become one array; use maps.images"):
        convert(make_map())


def test_a_map_is_frozen_compared_by_identity_and_picklable():
    maps = make_map(optics=OPTICS)
    with pytest.raises(FrozenInstanceError):
        maps.images = None
    with pytest.raises((AttributeError, TypeError)):  # slots: nothing can be added either
        maps.note = "x"
    copy = pickle.loads(pickle.dumps(maps))
    assert copy != maps and hash(copy) != hash(maps)
    for name in ("images", "parameters", "std", "invalid", "rows", "columns"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(maps, name))
    assert joblib.hash(copy) == joblib.hash(maps) != joblib.hash(make_map(seed=1, optics=OPTICS))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"parameters": np.zeros((N, 3, 4, 2))}, r"parameters .*shape \(5, 3, 4, 3\)"),
        ({"std": np.zeros((N, 3, 4))}, r"std .*shape \(5, 3, 4, 3\)"),
        ({"invalid": np.zeros((N, 4, 3))}, r"invalid .*shape \(5, 3, 4\)"),
        ({"images": np.zeros((N, WIDTH))}, r"images .*shape \(n, H, W\), got \(5, 81\)"),
        ({"images": np.zeros((N, 9, 9, 3))}, r"images .*shape \(n, H, W\)"),
        ({"images": np.zeros((2, 9, 9))}, "parameters .*must have shape"),
        ({"rows": ROWS[::-1]}, "rows of a PSFMap must increase"),
        ({"columns": COLUMNS * 0}, "columns of a PSFMap must increase"),
        ({"model": {"name": "bessel", "cutoff": 0.25, "size": 15}}, "psf_model must be one of"),
    ],
)
def test_parts_that_do_not_fit(changes, match):
    with pytest.raises(ValueError, match=match):
        make_map(**changes)


def test_psfs_are_those_of_the_family():
    maps = make_map()
    psfs = maps.psfs(2)
    assert psfs.shape == (3, 4, 15, 15) and psfs.dtype == np.float32
    expected = maps.psf_model.psf(maps.parameters[2].reshape(-1, 3).astype("f4"))
    np.testing.assert_array_equal(psfs.reshape(-1, 15, 15), expected)
    np.testing.assert_allclose(psfs.sum((-2, -1)), 1, rtol=1e-5)


@pytest.mark.parametrize("all_invalid", [False, True])
def test_psfs_of_unknown_parameters_are_a_delta(all_invalid):
    maps = make_map()
    parameters = maps.parameters.copy()
    parameters[0] = np.nan if all_invalid else parameters[0]
    parameters[0, 1, 2, 0] = np.nan
    psfs = make_map(parameters=parameters).psfs(0)
    delta = np.zeros((15, 15))
    delta[7, 7] = 1
    np.testing.assert_array_equal(psfs[1, 2], delta)
    assert (psfs[0, 0].max() == 1) == all_invalid


def test_upsample_meets_the_windows_and_is_linear_between():
    maps = make_map("gaussian-2", rows=np.array([10, 30, 50]))
    dense = maps.upsample()
    assert dense.shape == (N, HEIGHT, WIDTH, 2) and dense.dtype == np.float32
    np.testing.assert_allclose(dense[:, 10:51:20, 10:71:20], maps.parameters, rtol=1e-6)
    between = (maps.parameters[:, 0, 1] + 3 * maps.parameters[:, 1, 1]) / 4
    np.testing.assert_allclose(dense[:, 25, 30], between, rtol=1e-6)
    np.testing.assert_array_equal(dense[:, :10], np.repeat(dense[:, 10:11], 10, 1))  # outside
    np.testing.assert_array_equal(dense[..., 71:, :], np.repeat(dense[..., 70:71, :], 10, 2))


def test_upsample_turns_angles_the_short_way():
    # 0.05 and pi - 0.05 are neighbours; between them lies 0, and not pi / 2
    parameters = np.zeros((N, 3, 4, 3)) + [0.8, 0.5, 0.05]
    parameters[:, :, 1::2, 2] = np.pi - 0.05
    maps = make_map(parameters=parameters)
    focus, cylinder, axis = np.moveaxis(maps.upsample()[:, :, 10:71], -1, 0)
    assert np.abs(np.sin(axis)).max() < 0.051
    assert np.abs(np.sin(axis[:, :, 10])).max() < 1e-3
    np.testing.assert_allclose(focus, 0.8, rtol=1e-3)
    np.testing.assert_allclose(cylinder, 0.5, rtol=0.02)


def test_upsample_other_values():
    maps = make_map("gaussian-1")
    dense = maps.upsample(np.full_like(maps.parameters, 2.5))
    np.testing.assert_allclose(dense, 2.5, rtol=1e-6)


def test_defocus_in_micrometres():
    maps = make_map(optics=OPTICS)
    # paraxial: a_4 = z NA^2 / (4 sqrt(3) n lambda)
    z = maps.parameters[..., 0] * 4 * np.sqrt(3) * 0.5 / 0.5**2
    np.testing.assert_allclose(maps.defocus(), z, rtol=1e-9)
    depth = make_map("born-wolf", optics=OPTICS)
    np.testing.assert_allclose(depth.defocus(), np.abs(depth.parameters[..., 0]))


@pytest.mark.parametrize(
    ("maps", "match"),
    [
        (lambda: make_map(), "needs optics; give SpatialPSFMapper optics="),
        (lambda: make_map("gaussian-1", optics=OPTICS), "family with a focus, got 'gaussian-1'"),
        (lambda: make_map("zernike-2", optics=OPTICS), "family with a focus, got 'zernike-2'"),
    ],
)
def test_defocus_needs_optics_and_a_focus(maps, match):
    with pytest.raises(ValueError, match=match):
        maps().defocus()
