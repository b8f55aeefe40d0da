import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d

from sklearn_psf.operators import Convolution, LinearOperator
from sklearn_psf.operators.fft import fft_cost
from sklearn_psf.operators.patches import cut_layout

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
SIZES = [
    ((8, 8), (3, 3)),
    ((9, 12), (5, 3)),
    ((17, 13), (7, 7)),
    ((4, 3), (9, 11)),
    ((1, 1), (3, 5)),
]


def dot_error(operator, seed=0, batch=()):
    """Relative mismatch of <A x, y> and <x, A^T y>."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*batch, *operator.field_shape, generator=generator, dtype=operator.dtype)
    y = torch.rand(*batch, *operator.shape, generator=generator, dtype=operator.dtype)
    left = (operator.forward(x).double() * y.double()).sum()
    right = (x.double() * operator.adjoint(y).double()).sum()
    return float(abs(left - right) / abs(left))


def assert_same_map(operator, other, rtol):
    """Forward and adjoint of both agree on a random field and image."""
    x = torch.rand(operator.field_shape, dtype=torch.float64)
    y = torch.rand(operator.shape, dtype=torch.float64)
    for a, b in (
        (operator.forward(x), other.forward(x)),
        (operator.adjoint(y), other.adjoint(y)),
    ):
        assert (a - b).norm() <= rtol * b.norm()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "kernel"), SIZES)
def test_adjoint_is_exact(shape, kernel, dtype):
    psf = np.random.default_rng(0).random(kernel)
    operator = Convolution(psf, shape, dtype=dtype)
    assert operator.dtype is dtype
    assert dot_error(operator) < TOLERANCE[dtype]
    assert dot_error(operator, batch=(2, 3)) < TOLERANCE[dtype]


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kernel=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_is_the_valid_convolution_of_the_field(shape, kernel, seed):
    rng = np.random.default_rng(seed)
    psf = rng.random(kernel)
    operator = Convolution(psf, shape)
    x = rng.standard_normal(operator.field_shape)
    np.testing.assert_allclose(
        operator.forward(torch.from_numpy(x)), convolve2d(x, psf, mode="valid"), atol=1e-12
    )
    assert dot_error(operator, seed) < 1e-12


def test_matrix_of_the_adjoint_is_the_transpose():
    operator = Convolution(np.random.default_rng(0).random((3, 4)), (3, 2))
    n_field, n_image = 5 * 5, 3 * 2
    forward = operator.forward(torch.eye(n_field).double().reshape(n_field, 5, 5)).flatten(1)
    adjoint = operator.adjoint(torch.eye(n_image).double().reshape(n_image, 3, 2)).flatten(1)
    torch.testing.assert_close(adjoint, forward.T)


def test_frame_is_aligned_with_the_image():
    psf = np.zeros((5, 7))
    psf[2, 3] = 1
    operator = Convolution(psf, (6, 9))
    x = torch.rand(operator.field_shape, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(x), operator.crop(x))


def test_patches_make_one_convolution(monkeypatch):
    psf = np.random.default_rng(0).random((7, 4))
    whole = Convolution(psf, (50, 41))
    layout = cut_layout((50, 41), (7, 4), (3, 2))
    monkeypatch.setattr(Convolution, "_cheapest", lambda self, n: layout)
    parts = Convolution(psf, (50, 41))
    assert parts.fft_sizes == {layout.fft_shape: 12}
    x, y = torch.rand(2, 56, 44).double(), torch.rand(2, 50, 41).double()
    torch.testing.assert_close(parts.forward(x), whole.forward(x))
    torch.testing.assert_close(parts.adjoint(y), whole.adjoint(y))
    assert dot_error(parts, batch=(2,)) < 1e-12


def test_results_are_written_where_they_are_wanted():
    operator = Convolution(np.random.default_rng(0).random((3, 5)), (10, 11))
    x, y = torch.rand(12, 15).double(), torch.rand(10, 11).double()
    image, field = torch.full((10, 11), 7.0).double(), torch.full((12, 15), 7.0).double()
    assert operator.forward(x, out=image) is image
    assert operator.adjoint(y, out=field) is field
    torch.testing.assert_close(image, operator.forward(x), rtol=0, atol=0)
    torch.testing.assert_close(field, operator.adjoint(y), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"out must have shape \(..., 10, 11\)"):
        operator.forward(x, out=field)


def test_a_wider_type_than_the_operator_is_kept():
    operator = Convolution(np.ones((3, 3), np.float32), (8, 8))
    assert operator.forward(torch.ones(10, 10).double()).dtype is torch.float64
    assert operator.forward(torch.ones(10, 10, dtype=torch.int64)).dtype is torch.float32


def test_counts_and_shapes():
    operator = Convolution(np.ones((3, 5)), (10, 11))
    assert operator.n_ffts == 2
    assert operator.spectra_bytes == 16 * 12 * (15 // 2 + 1)
    assert operator.shape == (10, 11)
    assert operator.field_shape == (12, 15)
    assert operator.order == "scatter"
    assert fft_cost(1024) == 10240


def test_integer_psf_works_in_float32():
    assert Convolution(np.ones((3, 3), int), (4, 4)).dtype is torch.float32


@pytest.mark.parametrize(
    ("psf", "shape", "message"),
    [
        (np.ones(3), (4, 4), "psf must have 2 axes"),
        (np.ones((0, 3)), (4, 4), "none of length 0"),
        (np.full((3, 3), np.nan), (4, 4), "psf contains NaN"),
        (np.ones((3, 3), complex), (4, 4), "psf must be real"),
        (np.ones((3, 3)), (4, 0), "shape must be a positive"),
        (np.ones((3, 3)), (4, 4, 4), "shape must be a positive"),
    ],
)
def test_bad_arguments(psf, shape, message):
    with pytest.raises(ValueError, match=message):
        Convolution(psf, shape)


def test_bad_dtype_and_wrong_shapes():
    with pytest.raises(TypeError, match="float32 or torch.float64"):
        Convolution(np.ones((3, 3)), (4, 4), dtype=torch.float16)
    operator = Convolution(np.ones((3, 3)), (4, 4))
    with pytest.raises(ValueError, match=r"x must have shape \(..., 6, 6\)"):
        operator.forward(torch.ones(4, 4).double())
    with pytest.raises(ValueError, match=r"y must have shape \(..., 4, 4\)"):
        operator.adjoint(torch.ones(6, 6).double())


def test_the_base_class_is_abstract():
    operator = LinearOperator((2, 2), (1, 1), torch.zeros(1))
    with pytest.raises(NotImplementedError):
        operator.forward(torch.ones(2, 2))
    with pytest.raises(NotImplementedError):
        operator.adjoint(torch.ones(2, 2))
