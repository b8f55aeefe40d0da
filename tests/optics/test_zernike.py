import math

import numpy as np
import pytest
import torch
from prysm.polynomials import noll_to_nm as prysm_noll_to_nm
from prysm.polynomials import zernike_nm
from scipy.special import eval_jacobi

from sklearn_psf.optics import noll_to_nm, zernike, zernike_basis
from sklearn_psf.optics.quadrature import chord_nodes

# Table I of Noll (1976), continued to radial order 5; positive for the cosine.
NOLL = [
    (0, 0),
    (1, 1), (1, -1),
    (2, 0), (2, -2), (2, 2),
    (3, -1), (3, 1), (3, -3), (3, 3),
    (4, 0), (4, 2), (4, -2), (4, 4), (4, -4),
    (5, 1), (5, -1), (5, 3), (5, -3), (5, 5), (5, -5),
]  # fmt: skip

# Written out from the table, as functions of the radius r and the angle t.
CLOSED_FORMS = {
    1: lambda r, t: 1 + 0 * r,
    2: lambda r, t: 2 * r * np.cos(t),
    3: lambda r, t: 2 * r * np.sin(t),
    4: lambda r, t: math.sqrt(3) * (2 * r**2 - 1),
    5: lambda r, t: math.sqrt(6) * r**2 * np.sin(2 * t),
    6: lambda r, t: math.sqrt(6) * r**2 * np.cos(2 * t),
    7: lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(t),
    8: lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(t),
    10: lambda r, t: math.sqrt(8) * r**3 * np.cos(3 * t),
    11: lambda r, t: math.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
    12: lambda r, t: math.sqrt(10) * (4 * r**4 - 3 * r**2) * np.cos(2 * t),
    22: lambda r, t: math.sqrt(7) * (20 * r**6 - 30 * r**4 + 12 * r**2 - 1),
}


def polar_points(n=60):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, n), rng.uniform(-math.pi, math.pi, n)


def ours(j, r, t):
    return zernike(j, torch.from_numpy(r), torch.from_numpy(t)).numpy()


def test_noll_table():
    assert [noll_to_nm(j) for j in range(1, len(NOLL) + 1)] == NOLL


def test_noll_index_is_one_to_one():
    pairs = [noll_to_nm(j) for j in range(1, 232)]  # radial orders 0 to 20, complete
    assert len(set(pairs)) == len(pairs)
    assert all(abs(m) <= n <= 20 and (n - m) % 2 == 0 for n, m in pairs)


@pytest.mark.parametrize("j", [0, -1, 1.5, "2"])
def test_noll_index_must_be_positive_integer(j):
    with pytest.raises(ValueError, match=f"Noll index.*{j!r}"):
        noll_to_nm(j)


@pytest.mark.parametrize("j", CLOSED_FORMS)
def test_closed_forms(j):
    r, t = polar_points()
    np.testing.assert_allclose(ours(j, r, t), CLOSED_FORMS[j](r, t), atol=1e-13)


def test_orthonormal_on_the_disk():
    n = 36
    y, x, weights = chord_nodes(20)
    basis = zernike_basis(tuple(range(1, n + 1)), y[:, None].expand_as(x), x)
    gram = torch.einsum("iyx,jyx,yx->ij", basis, basis, weights) / math.pi
    torch.testing.assert_close(gram, torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("j", range(1, 46))
def test_agrees_with_prysm(j):
    r, t = polar_points()
    assert noll_to_nm(j) == tuple(prysm_noll_to_nm(j))
    np.testing.assert_allclose(ours(j, r, t), zernike_nm(*prysm_noll_to_nm(j), r, t), atol=1e-12)


@pytest.mark.parametrize("j", [200, 497, 861])
def test_high_orders_are_stable(j):
    n, m = noll_to_nm(j)
    r, _ = polar_points()
    theta = np.zeros_like(r) if m >= 0 else np.full_like(r, math.pi / (2 * abs(m)))
    m = abs(m)
    norm = math.sqrt((n + 1) * (2 if m else 1))
    expected = norm * r**m * eval_jacobi((n - m) // 2, 0, m, 2 * r**2 - 1)
    np.testing.assert_allclose(ours(j, r, theta), expected, atol=1e-10)


def test_coordinates_are_row_and_column():
    y, x = torch.tensor([0.5]), torch.tensor([0.25])
    tilt_x, tilt_y = zernike_basis((2, 3), y, x)[:, 0].tolist()
    assert tilt_x == pytest.approx(0.5) and tilt_y == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_shape_are_kept(dtype):
    r = torch.linspace(0, 1, 6, dtype=dtype).reshape(2, 3)
    assert zernike(11, r, r).dtype == dtype
    assert zernike_basis((4, 5), r, r).shape == (2, 2, 3)


def test_gradient_of_defocus():
    r = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(zernike(4, r, torch.zeros(3)).sum(), r)
    torch.testing.assert_close(gradient, 4 * math.sqrt(3) * r.detach())
