import numpy as np
import pytest
import torch

from sklearn_psf.operators import ModeConvolution, TileConvolution, make_operator, windows
from sklearn_psf.operators import mode_convolution as module
from sklearn_psf.operators.patches import cut_layout
from sklearn_psf.operators.psf_modes import decompose_psfs

from .test_convolution import TOLERANCE, assert_same_map, dot_error
from .test_spatially_variant import centres, gaussian_psfs

SHAPE, GRID = (61, 47), (5, 4)


def in_patches(rtol, order="scatter", parts=(3, 2), dtype=torch.float64):
    """The same blur by patches, each with modes of its own, and by tiles, exactly."""
    psfs = gaussian_psfs(GRID, 9)
    pad = 8 if order == "scatter" else 0
    rows, columns = (c + pad // 2 for c in centres(SHAPE, GRID))
    wy, wx = windows("bilinear", rows, columns, [n + pad for n in SHAPE])
    modes = decompose_psfs(torch.from_numpy(psfs).to(dtype), rtol)
    layout = cut_layout(SHAPE, (9, 9), parts)
    operator = ModeConvolution.on_grid(modes, wy, wx, layout, SHAPE, order)
    return operator, TileConvolution(psfs, wy, wx, SHAPE, order, dtype=dtype), len(modes.modes)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("order", ["scatter", "gather"])
def test_adjoint_is_exact_across_patches(order, dtype):
    operator, _, _ = in_patches(1e-2, order, dtype=dtype)
    assert dot_error(operator) < TOLERANCE[dtype]
    assert dot_error(operator, batch=(2,)) < TOLERANCE[dtype]


@pytest.mark.parametrize("order", ["scatter", "gather"])
@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-9])
def test_patches_blur_like_tiles(order, rtol):
    operator, tiles, _ = in_patches(rtol, order)
    assert_same_map(operator, tiles, rtol)


def test_a_patch_takes_fewer_modes_than_the_whole():
    operator, _, n_modes = in_patches(1e-3)
    (count,) = operator.fft_sizes.values()
    assert count < 6 * n_modes  # one more than modes, for each of six patches


def test_no_light_is_lost_to_truncation():
    operator, _, _ = in_patches(0.1)
    even = operator.forward(torch.ones(operator.field_shape, dtype=torch.float64))
    exact, _, _ = in_patches(1e-9)
    torch.testing.assert_close(
        even.sum(),
        exact.forward(torch.ones(operator.field_shape).double()).sum(),
        rtol=1e-3,
        atol=0,
    )


def test_given_modes_are_cut_into_patches_too(monkeypatch):
    modes, weights = torch.rand(2, 5, 5).double(), torch.rand(2, 44, 34).double()
    whole = ModeConvolution(modes, weights, (40, 30))
    layout = cut_layout((40, 30), (5, 5), (2, 2))
    monkeypatch.setattr(ModeConvolution, "_cheapest", lambda self, n: layout)
    parts = ModeConvolution(modes, weights, (40, 30))
    assert parts.fft_sizes == {layout.fft_shape: 12}
    x, y = torch.rand(3, 44, 34).double(), torch.rand(3, 40, 30).double()
    torch.testing.assert_close(parts.forward(x), whole.forward(x))
    torch.testing.assert_close(parts.adjoint(y), whole.adjoint(y))


def test_large_images_are_blurred_in_patches_by_default():
    psfs = gaussian_psfs((6, 6), 9)
    rows, columns = centres((700, 640), (6, 6))
    options = {"shape": (700, 640), "dtype": torch.float32}
    modes, tiles = (
        make_operator(psfs, rows, columns, method=method, **options)
        for method in ("modes", "tiles")
    )
    assert len(modes._parts) > 1
    x = torch.rand(modes.field_shape)
    assert (modes.forward(x) - tiles.forward(x)).norm() < 1e-3 * tiles.forward(x).norm()
    assert dot_error(modes) < TOLERANCE[torch.float32]


def test_the_faster_of_both_is_counted():
    wy, wx = windows("bilinear", *centres((300, 300), (3, 3)), (308, 308))
    modes = decompose_psfs(torch.from_numpy(gaussian_psfs((3, 3), 9)), 1e-3)
    build, cost = module.cheapest_modes(modes, wy, wx, (300, 300), "scatter")
    few = decompose_psfs(torch.from_numpy(gaussian_psfs((3, 3), 9)), 0.3)
    assert module.cheapest_modes(few, wy, wx, (300, 300), "scatter")[1] < cost
    assert isinstance(build(), ModeConvolution)
    assert np.isfinite(cost)
