import numpy as np
import pytest
import torch

from sklearn_psf.operators import (
    AxisConvolution,
    ModeConvolution,
    TileConvolution,
    make_operator,
    windows,
)
from sklearn_psf.operators.axis_convolution import cheapest_along_axis
from sklearn_psf.operators.psf_modes import decompose_psfs
from sklearn_psf.richardson_lucy import richardson_lucy

from .test_convolution import TOLERANCE, assert_same_map, dot_error
from .test_spatially_variant import centres, gaussian_psfs

SHAPE = (61, 47)


def line_of_psfs(count, along_rows, repeats=3):
    """PSFs that widen along one axis only, not symmetric."""
    psfs = gaussian_psfs((1, count), 9)
    psfs[..., 2, 1] += 0.01
    psfs /= psfs.sum((-2, -1), keepdims=True)
    psfs = np.repeat(psfs, repeats, 0)
    return np.ascontiguousarray(psfs.swapaxes(0, 1)) if along_rows else psfs


def both(rtol, order, along_rows, counts=(2, 3), dtype=torch.float64):
    """The same blur with one transform for all modes, and by tiles, exactly."""
    psfs = line_of_psfs(5, along_rows)
    pad = 8 if order == "scatter" else 0
    rows, columns = (c + pad // 2 for c in centres(SHAPE, psfs.shape[:2]))
    weights = windows("bilinear", rows, columns, [n + pad for n in SHAPE])
    modes = decompose_psfs(torch.from_numpy(psfs).to(dtype), rtol)
    line = modes.collapse(int(along_rows))
    wide = weights[0 if along_rows else 1]
    operator = AxisConvolution(line, wide, SHAPE, counts, order, along_rows)
    return operator, TileConvolution(psfs, *weights, SHAPE, order, dtype=dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("along_rows", [False, True])
@pytest.mark.parametrize("order", ["scatter", "gather"])
@pytest.mark.parametrize("counts", [(1, 1), (1, 4), (3, 2)])
def test_adjoint_is_exact(counts, order, along_rows, dtype):
    operator, _ = both(1e-2, order, along_rows, counts, dtype)
    assert dot_error(operator) < TOLERANCE[dtype]
    assert dot_error(operator, batch=(2, 2)) < TOLERANCE[dtype]


@pytest.mark.parametrize("along_rows", [False, True])
@pytest.mark.parametrize("order", ["scatter", "gather"])
@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-9])
@pytest.mark.parametrize("chunk_bytes", [1, 1e6])
def test_blurs_like_tiles(chunk_bytes, rtol, order, along_rows, monkeypatch):
    monkeypatch.setattr("sklearn_psf.operators.axis_convolution._CHUNK_BYTES", chunk_bytes)
    operator, tiles = both(rtol, order, along_rows)
    assert_same_map(operator, tiles, rtol)


@pytest.mark.parametrize("order", ["scatter", "gather"])
def test_any_memory_layout_and_precision_is_taken(order):
    operator, tiles = both(1e-5, order, False, dtype=torch.float32)
    for given, shape, ours, theirs in (
        (operator.field_shape, SHAPE, operator.forward, tiles.forward),
        (SHAPE, operator.field_shape, operator.adjoint, tiles.adjoint),
    ):
        x = torch.rand(2, 5, *given, dtype=torch.float64)[:, 1:4].mT.contiguous().mT
        before = x.clone()
        out = torch.full((2, 5, *shape), torch.nan, dtype=torch.float64)[:, 1:4]
        ours(x, out=out)
        torch.testing.assert_close(out, theirs(x), rtol=1e-4, atol=1e-4)
        assert torch.equal(x, before)


@pytest.mark.parametrize("along_rows", [False, True])
def test_a_tilt_along_an_axis_is_recognised(along_rows):
    psfs = line_of_psfs(6, along_rows)
    rows, columns = centres((500, 500), psfs.shape[:2])
    options = {"shape": (500, 500), "dtype": torch.float32}
    operator = make_operator(psfs, rows, columns, **options)
    tiles = make_operator(psfs, rows, columns, method="tiles", **options)
    assert type(operator) is AxisConvolution and operator.kernel_shape == (9, 9)
    x = torch.rand(operator.field_shape)
    assert (operator.forward(x) - tiles.forward(x)).norm() < 1e-3 * tiles.forward(x).norm()


def test_less_is_transformed_than_by_patches():
    psfs = line_of_psfs(6, False)
    rows, columns = centres((500, 500), psfs.shape[:2])
    axis = make_operator(psfs, rows, columns, (500, 500))
    psfs = psfs * (1 + 0.01 * np.arange(3)[:, None, None, None])  # along both axes
    patches = make_operator(psfs, rows, columns, (500, 500), method="modes")
    assert type(patches) is ModeConvolution
    assert 2 < axis.n_ffts < 0.9 * patches.n_ffts


def test_other_changes_are_not_taken_for_a_tilt():
    def best(psfs):
        modes = decompose_psfs(torch.from_numpy(psfs), 1e-3)
        return cheapest_along_axis(modes, *weights, (90, 90), "scatter")

    psfs = line_of_psfs(3, False)
    weights = windows("bilinear", *centres((98, 98), psfs.shape[:2]), (98, 98))
    build, cost = best(psfs)
    assert isinstance(build(), AxisConvolution) and np.isfinite(cost)
    assert best(psfs[:, [0, 0, 0]]) == (None, np.inf)  # one mode
    # differences down the columns are too much where they exceed what a part may lose
    moved = psfs.copy()
    moved[0] += 0.5 * (psfs[0, 1] - psfs[0, 0])
    assert best(moved) == (None, np.inf)
    moved[0] = psfs[0] + 1e-5 * (psfs[0, 1] - psfs[0, 0])
    assert best(moved)[0] is not None


def test_tall_images_are_cut_along_the_axis_of_no_change(monkeypatch):
    monkeypatch.setattr("sklearn_psf.operators.axis_convolution._LONGEST", 128)
    psfs = line_of_psfs(3, False)
    rows, columns = centres((400, 60), psfs.shape[:2])
    modes = make_operator(psfs, rows, columns, (400, 60), method="modes", rtol=1e-9)
    assert type(modes) is AxisConvolution and max(h for h, _ in modes.real_line_ffts) <= 128
    tiles = make_operator(psfs, rows, columns, (400, 60), method="tiles")
    x = torch.rand(modes.field_shape, dtype=torch.float64)
    torch.testing.assert_close(modes.forward(x), tiles.forward(x), rtol=1e-6, atol=0)
    assert dot_error(modes) < 1e-12


def test_restorations_agree_with_those_by_tiles():
    psfs = line_of_psfs(4, False)
    rows, columns = centres((80, 90), psfs.shape[:2])
    image = torch.from_numpy(np.random.default_rng(0).poisson(100, (80, 90)).astype(float))
    options = {"n_iter": 10, "lambda_tv": 0.01, "accelerate": True}
    modes, tiles = (
        richardson_lucy(image, make_operator(psfs, rows, columns, (80, 90), method=m), **options)
        for m in ("modes", "tiles")
    )
    assert (modes - tiles).norm() < 1e-3 * tiles.norm()
