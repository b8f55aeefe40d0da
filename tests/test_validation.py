import numpy as np
import pytest
import torch
from scipy import sparse

from sklearn_psf._validation import (
    check_choice,
    check_device,
    check_generator,
    check_image_list,
    check_images,
    check_number,
)

GOOD = np.arange(2 * 8 * 9).reshape(2, 8, 9)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float16", "float32", "f8"])
def test_images_of_any_real_dtype_pass_as_they_are(dtype):
    X = GOOD.astype(dtype)
    assert check_images(X) is X


def test_lists_of_equal_images_become_an_array():
    X = check_images(GOOD.tolist())
    np.testing.assert_array_equal(X, GOOD)
    assert check_images(list(GOOD)).shape == GOOD.shape


def test_memmap_stays_on_disk(tmp_path):
    X = np.memmap(tmp_path / "X", dtype="float32", mode="w+", shape=(3, 40, 50))
    X[:] = 1
    assert check_images(X) is X
    X[2, 39, 49] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        check_images(X)


def test_nan_is_found_in_any_block(monkeypatch):
    monkeypatch.setattr("sklearn_psf._validation._BLOCK_BYTES", 64)
    X = np.ones((2, 8, 9))
    X[1, 7, 8] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        check_images(X)


def with_value(value):
    X = GOOD.astype(float)
    X[1, 2, 3] = value
    return X


BAD_IMAGES = {
    "2-D": (GOOD[0], ValueError, r"Expected 3D images \(n, H, W\) for X, got 2D.*X\[np.newaxis\]"),
    "1-D": (np.arange(9.0), ValueError, "got 1D array of shape"),
    "scalar": (3.0, ValueError, "got 0D array"),
    "colour images": (np.zeros((2, 8, 9, 3)), ValueError, "got 4D.*looks like colour"),
    "alpha": (np.zeros((2, 8, 9, 4)), ValueError, "got 4D.*looks like colour"),
    "volumes": (np.zeros((2, 8, 9, 7)), ValueError, "got 4D array of shape"),
    "one colour image": (np.zeros((8, 9, 3)), ValueError, "last axis of 3 looks like colour"),
    "NaN": (with_value(np.nan), ValueError, "X contains NaN or infinity"),
    "inf": (with_value(-np.inf), ValueError, "X contains NaN or infinity"),
    "complex": (GOOD + 1j, ValueError, "Complex data not supported: X has dtype complex128"),
    "object": (GOOD.astype(object), ValueError, "X must hold real numbers, got dtype object"),
    "text": (GOOD.astype(str), ValueError, "X must hold real numbers"),
    "dates": (GOOD.astype("M8[s]"), ValueError, "X must hold real numbers"),
    "no image": (np.zeros((0, 8, 9)), ValueError, r"Found array with 0 sample\(s\)"),
    "no pixel": (np.zeros((2, 0, 9)), ValueError, "minimum of 1 image of 1 x 1 pixels"),
    "too small": (np.zeros((1, 5, 9)), ValueError, "X are 5 x 9 pixels, smaller .* 6 x 6"),
    "ragged": ([np.zeros((8, 8)), np.zeros((8, 9))], ValueError, "ragged list.*one image per call"),
    "ragged rows": ([[[1, 2], [3]], [[1, 2], [3]]], ValueError, "ragged list"),
    "sparse": (sparse.csr_matrix(GOOD[0]), TypeError, "sparse X was passed.*toarray"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused(case):
    X, error, match = BAD_IMAGES[case]
    with pytest.raises(error, match=match):
        check_images(X, min_size=6)


def test_messages_name_the_argument():
    with pytest.raises(ValueError, match="for sharp, got 2D.*sharp\\[np.newaxis\\]"):
        check_images(GOOD[0], name="sharp")


def test_narrow_images_are_not_taken_for_colour():
    assert check_images(np.zeros((2, 3, 3))).shape == (2, 3, 3)


def test_image_lists_may_be_ragged():
    images = [np.zeros((8, 9), np.uint16), np.ones((30, 7), np.float32)]
    checked = check_image_list(images)
    assert all(a is b or np.shares_memory(a, b) for a, b in zip(checked, images, strict=True))
    assert [image.dtype for image in check_image_list(GOOD.astype("uint8"))] == [np.uint8] * 2


BAD_LISTS = {
    "empty": ([], ValueError, r"Found 0 sample\(s\) for X"),
    "2-D": (GOOD[0], ValueError, "got 2D"),
    "rows": (GOOD[0].tolist(), ValueError, "got 2D"),
    "colour": ([np.zeros((8, 9, 3))], ValueError, r"X\[0\] of shape \(8, 9, 3\).*colour"),
    "a volume": ([GOOD[0], GOOD], ValueError, r"X\[1\] of shape \(2, 8, 9\)"),
    "NaN": ([GOOD[0], with_value(np.nan)[1]], ValueError, r"X\[1\] contains NaN"),
    "too small": ([GOOD[0], np.zeros((5, 5))], ValueError, r"X\[1\] are 5 x 5 pixels, smaller"),
    "complex": ([GOOD[0] * 1j], ValueError, r"X\[0\] has dtype complex"),
    "sparse": ([sparse.csr_matrix(GOOD[0])], TypeError, r"sparse X\[0\] was passed"),
    "ragged rows": ([[[1, 2], [3]]], ValueError, r"X\[0\] is a ragged list"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists_are_refused(case):
    X, error, match = BAD_LISTS[case]
    with pytest.raises(error, match=match):
        check_image_list(X, min_size=6)


@pytest.mark.parametrize("value", [0, 3, 2.5, np.float32(1), np.int64(3)])
def test_good_numbers(value):
    assert check_number("a", value, low=0, high=3) is None


@pytest.mark.parametrize(
    ("value", "limits", "error", "match"),
    [
        ("3", {}, TypeError, "a must be a real number, got '3'"),
        (None, {}, TypeError, "a must be a real number, got None"),
        (True, {}, TypeError, "a must be a real number, got True"),
        (1j, {}, TypeError, "a must be a real number"),
        (2.0, {"integer": True}, TypeError, "a must be an integer, got 2.0"),
        (np.bool_(True), {"integer": True}, TypeError, "a must be an integer"),
        (np.nan, {}, ValueError, "a must be finite, got nan"),
        (np.inf, {"low": 0}, ValueError, "a must be finite, got inf"),
        (-1, {"low": 0}, ValueError, r"a must be in \[0, inf\), got -1"),
        (0, {"low": 0, "open_low": True}, ValueError, r"a must be in \(0, inf\), got 0"),
        (2, {"low": 0, "high": 1}, ValueError, r"a must be in \[0, 1\], got 2"),
        (2, {"high": 1}, ValueError, r"a must be in \(-inf, 1\], got 2"),
    ],
)
def test_bad_numbers(value, limits, error, match):
    with pytest.raises(error, match=match):
        check_number("a", value, **limits)


@pytest.mark.parametrize("value", ["c", None, 1, ["a"]])
def test_bad_choices(value):
    with pytest.raises(ValueError, match="b must be one of 'a', 'd'; got"):
        check_choice("b", value, ("a", "d"))
    assert check_choice("b", "a", ("a", "d")) is None


def test_devices():
    assert check_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert check_device(None).type == expected


@pytest.mark.parametrize("device", ["abacus", "cuda:99", 3.5])
def test_bad_devices(device):
    with pytest.raises(ValueError, match="device .* cannot be used here"):
        check_device(device)


def test_generators_are_seeded_and_leave_the_global_state_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    a, b = (torch.rand(4, generator=check_generator(7)) for _ in range(2))
    c = torch.rand(4, generator=check_generator(8))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    # a RandomState is drawn from, so that two calls differ
    rng = np.random.RandomState(0)
    a, b = (torch.rand(4, generator=check_generator(rng)) for _ in range(2))
    assert not torch.equal(a, b)


def test_bad_seed():
    with pytest.raises(ValueError, match="seed"):
        check_generator("monday")
