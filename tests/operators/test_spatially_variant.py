import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_psf.operators import (
    Block,
    Convolution,
    LocalPSFs,
    ModeConvolution,
    TileConvolution,
    central_block,
    compute_psf_modes,
    crop_psfs,
    make_operator,
    split_blocks,
    windows,
)
from sklearn_psf.operators.psf_modes import decompose_psfs
from sklearn_psf.operators.spatially_variant import WINDOWS

from .test_convolution import TOLERANCE, dot_error

ORDERS = ("scatter", "gather")
SHAPES = [(16, 16), (15, 18), (17, 13), (5, 4)]  # even, odd, prime, smaller than the PSF


def gaussian_psfs(grid, size, low=0.6, high=1.6):
    """PSFs whose width grows along the grid, (gy, gx, size, size), sum 1."""
    t = np.arange(size) - size // 2
    width = np.linspace(low, high, grid[0] * grid[1]).reshape(*grid, 1, 1)
    psfs = np.exp(-(t[:, None] ** 2 + 0.5 * t**2) / (2 * width**2))
    return psfs / psfs.sum((-2, -1), keepdims=True)


def centres(shape, grid):
    return [(np.arange(g) + 0.5) * n / g - 0.5 for g, n in zip(grid, shape, strict=True)]


def direct(psfs, wy, wx, x, shape, order):
    """Evaluate the varying blur pixel by pixel, as it is written."""
    kh, kw = psfs.shape[2:]
    y = np.zeros(shape)
    for r in range(shape[0]):
        for c in range(shape[1]):
            for a in range(kh):
                for b in range(kw):
                    p, q = r + kh - 1 - a, c + kw - 1 - b
                    at = (p, q) if order == "scatter" else (r, c)
                    weights = wy[:, at[0]][:, None] * wx[:, at[1]]
                    y[r, c] += (weights * psfs[:, :, a, b]).sum() * x[p, q]
    return y


def grid_windows(kind, psfs, shape, order):
    pad = np.array(psfs.shape[2:]) // 2 if order == "scatter" else np.zeros(2, int)
    rows, columns = centres(shape, psfs.shape[:2])
    return windows(kind, rows + pad[0], columns + pad[1], np.array(shape) + 2 * pad)


@pytest.mark.parametrize("kind", WINDOWS)
@settings(max_examples=15)
@given(
    gaps=st.lists(st.floats(0.3, 20), min_size=0, max_size=6),
    start=st.floats(-10, 10),
    length=st.integers(1, 60),
)
def test_windows_share_everything(kind, gaps, start, length):
    rows = start + np.concatenate([[0], np.cumsum(gaps)])
    wy, wx = windows(kind, rows, [0.0], (length, 3))
    assert wy.shape == (len(rows), length)
    assert (wy >= 0).all() and (wx == 1).all()
    np.testing.assert_allclose(wy.sum(0), 1, atol=1e-12)
    before, after = np.arange(length) <= rows[0], np.arange(length) >= rows[-1]
    np.testing.assert_allclose(wy[0, before], wy[0, before][:1].repeat(before.sum()))
    np.testing.assert_allclose(wy[-1, after], wy[-1, after][:1].repeat(after.sum()))


def test_windows_belong_to_their_centres():
    for kind in ("bilinear", "hann"):
        wy, _ = windows(kind, [2, 6, 11], [0], (14, 1))
        np.testing.assert_allclose(wy[:, [2, 6, 11]], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(windows("bilinear", [2, 6], [0], (9, 1))[0][1, 3], 0.25)
    np.testing.assert_allclose(
        windows("hann", [2, 6], [0], (9, 1))[0][1, 3], np.sin(np.pi / 8) ** 2
    )
    even, uneven = [2, 6, 10], [2, 4, 10]
    for rows, same in ((even, True), (uneven, False)):
        bilinear, triangular = (windows(k, rows, [0], (12, 1))[0] for k in WINDOWS[:2])
        assert np.allclose(bilinear, triangular) == same


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("square", [1, 2], "window must be one of"),
        ("hann", [2, 1], "rows must be strictly increasing"),
        ("hann", [1, 1], "rows must be strictly increasing"),
        ("hann", [], "rows must be a non-empty"),
        ("hann", [np.nan], "rows must be a non-empty 1-D array of finite"),
    ],
)
def test_bad_windows(kind, rows, message):
    with pytest.raises(ValueError, match=message):
        windows(kind, rows, [0], (4, 4))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", WINDOWS)
def test_both_evaluations_are_the_direct_sum(kind, order):
    shape, psfs = (9, 12), gaussian_psfs((3, 2), 5)
    rows, columns = centres(shape, (3, 2))
    x = np.random.default_rng(0).random((13, 16))
    truth = direct(psfs, *grid_windows(kind, psfs, shape, order), x, shape, order)
    for method in ("tiles", "modes"):
        operator = make_operator(psfs, rows, columns, shape, kind, order, method, rtol=1e-9)
        assert operator.order == order
        np.testing.assert_allclose(operator.forward(torch.from_numpy(x)), truth, atol=1e-9)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", ["tiles", "modes"])
def test_adjoint_is_exact(method, order, shape, dtype):
    psfs = gaussian_psfs((3, 2), 7)
    rows, columns = centres(shape, (3, 2))
    operator = make_operator(
        psfs, rows, columns, shape, order=order, method=method, rtol=1e-2, dtype=dtype
    )
    assert type(operator) is (TileConvolution if method == "tiles" else ModeConvolution)
    assert operator.field_shape == (shape[0] + 6, shape[1] + 6)
    assert dot_error(operator) < TOLERANCE[dtype]
    assert dot_error(operator, batch=(2,)) < TOLERANCE[dtype]


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 99),
)
def test_tiles_and_modes_agree(shape, kernel, grid, order, seed):
    rng = np.random.default_rng(seed)
    psfs = rng.random((*grid, 2 * kernel[0] - 1, 2 * kernel[1] - 1))
    rows, columns = (np.sort(rng.choice(40, g, replace=False)) - 8 for g in grid)
    tiles, modes = (
        make_operator(psfs, rows, columns, shape, "hann", order, method, rtol=0)
        for method in ("tiles", "modes")
    )
    assert dot_error(tiles, seed) < 1e-12
    assert dot_error(modes, seed) < 1e-12
    x = torch.from_numpy(rng.random(tiles.field_shape))
    torch.testing.assert_close(modes.forward(x), tiles.forward(x))
    y = torch.from_numpy(rng.random(shape))
    torch.testing.assert_close(modes.adjoint(y), tiles.adjoint(y))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", ["tiles", "modes", "auto"])
def test_equal_psfs_are_one_psf(method, order):
    shape, psf = (20, 23), gaussian_psfs((1, 1), 7)[0, 0]
    psfs = np.broadcast_to(psf, (3, 4, 7, 7))
    rows, columns = centres(shape, (3, 4))
    operator = make_operator(psfs, rows, columns, shape, order=order, method=method)
    one = Convolution(psf, shape)
    x = torch.rand(one.field_shape, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(x), one.forward(x))
    y = torch.rand(shape, dtype=torch.float64)
    torch.testing.assert_close(operator.adjoint(y), one.adjoint(y))


def test_one_psf_makes_a_convolution():
    operator = make_operator(np.ones((1, 1, 3, 3)), [4], [4], (9, 9))
    assert type(operator) is Convolution


def test_a_far_point_takes_the_psf_of_its_place():
    psfs = gaussian_psfs((2, 2), 9)
    operator = make_operator(psfs, [10, 30], [10, 30], (40, 40), rtol=1e-9)
    x = torch.zeros(operator.field_shape, dtype=torch.float64)
    x[10 + 4, 30 + 4] = 1
    np.testing.assert_allclose(operator.forward(x)[6:15, 26:35], psfs[0, 1], atol=1e-9)


@settings(max_examples=10)
@given(rtol=st.sampled_from([0.2, 1e-2, 1e-3, 1e-5, 1e-8]), seed=st.integers(0, 99))
def test_modes_keep_every_psf_within_rtol(rtol, seed):
    rng = np.random.default_rng(seed)
    for psfs in (gaussian_psfs((4, 5), 9).reshape(20, 9, 9), rng.random((90, 7, 7))):
        psfs = psfs / psfs.sum((-2, -1), keepdims=True)
        modes, coefficients = compute_psf_modes(psfs, rtol)
        approximate = np.einsum("mk,kij->mij", coefficients, modes)
        error = np.linalg.norm(approximate - psfs, axis=(1, 2)) / np.linalg.norm(psfs, axis=(1, 2))
        assert error.max() <= rtol + 1e-12
        # truncation moves no light
        np.testing.assert_allclose(approximate.sum((1, 2)), 1, atol=1e-9)
        if len(modes) > 1:  # none too many
            error = np.einsum("mk,kij->mij", coefficients[:, :-1], modes[:-1]) - psfs
            error = np.linalg.norm(error, axis=(1, 2)) / np.linalg.norm(psfs, axis=(1, 2))
            assert error.max() > rtol


@pytest.mark.parametrize("outlier", [False, True])
def test_modes_of_many_psfs_are_found_in_chunks(outlier, monkeypatch):
    psfs = gaussian_psfs((10, 10), 9).reshape(100, 9, 9)
    if outlier:  # that the first chunk does not hold
        psfs[57] = np.eye(9) / 9
    whole, _ = compute_psf_modes(psfs, 1e-3)
    monkeypatch.setattr("sklearn_psf.operators.psf_modes._CHUNK", 8)
    modes, coefficients = compute_psf_modes(psfs, 1e-3)
    assert len(modes) <= len(whole) + 1
    error = np.einsum("mk,kij->mij", coefficients, modes) - psfs
    error = np.linalg.norm(error, axis=(1, 2)) / np.linalg.norm(psfs, axis=(1, 2))
    assert error.max() <= 1e-3


def test_parts_of_a_grid_keep_the_tolerance_with_fewer_modes():
    psfs = torch.from_numpy(gaussian_psfs((6, 6), 13))
    whole = decompose_psfs(psfs, 1e-3)
    for rows, columns in ((slice(0, 2), slice(0, 3)), (slice(2, 6), slice(5, 6))):
        mixture, weights = whole.restrict(rows, columns)
        part = psfs[rows, columns]
        modes = torch.einsum("lk,kij->lij", mixture, whole.modes)
        error = torch.einsum("lrc,lij->rcij", weights, modes) - part
        assert (error.norm(dim=(2, 3)) <= 1e-3 * part.norm(dim=(2, 3))).all()
        assert len(modes) < len(whole.modes) and (weights[0] == 1).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_of_equal_psfs_have_the_modes_of_one(axis):
    line = torch.from_numpy(gaussian_psfs((1, 6), 9))
    grid = line.expand(4, 6, 9, 9)
    if axis == 1:
        line, grid = line.transpose(0, 1), grid.transpose(0, 1)
    one, all_ = decompose_psfs(line, 1e-4), decompose_psfs(grid, 1e-4)
    torch.testing.assert_close(all_.modes, one.modes)
    torch.testing.assert_close(all_.coefficients, one.coefficients.expand(*grid.shape[:2], -1))
    approximate = torch.einsum("yxk,kij->yxij", all_.coefficients, all_.modes)
    assert (approximate - grid).norm() < 1e-4 * grid.norm()


def test_equal_psfs_have_one_mode():
    psf = gaussian_psfs((1, 1), 5)[0, 0]
    for dtype in (np.float32, np.float64):
        modes, coefficients = compute_psf_modes(np.repeat(psf[None], 7, 0).astype(dtype), 1e-5)
        assert modes.shape == (1, 5, 5) and (coefficients == 1).all()
        np.testing.assert_allclose(modes[0], psf, rtol=1e-6)


def test_few_modes_carry_a_smooth_family():
    modes, _ = compute_psf_modes(gaussian_psfs((8, 8), 13).reshape(64, 13, 13), 1e-2)
    assert len(modes) <= 5


def test_cropping_loses_no_more_than_asked():
    psfs = gaussian_psfs((2, 2), 31)
    for rtol in (1e-1, 1e-3, 1e-6):
        cut = crop_psfs(psfs, rtol)
        top, left = (31 - cut.shape[2]) // 2, (31 - cut.shape[3]) // 2
        kept = psfs[..., top : 31 - top, left : 31 - left].sum((-2, -1))
        assert cut.shape[2] % 2 == cut.shape[3] % 2 == 1 and cut.shape[2] < 31
        assert kept.min() >= 1 - rtol
        np.testing.assert_allclose(cut.sum((-2, -1)), 1)
    assert crop_psfs(psfs.astype(np.float32), 0.0).dtype == np.float32
    assert crop_psfs(np.ones((5, 3)) / 15, 0.01).shape == (5, 3)
    assert crop_psfs(np.zeros((3, 3))).tolist() == [[0.0]]
    with pytest.raises(ValueError, match="odd height and width"):
        crop_psfs(np.ones((4, 3)))
    with pytest.raises(ValueError, match="rtol must be in"):
        crop_psfs(np.ones((3, 3)), 1.5)


def test_auto_takes_the_cheaper():
    rng = np.random.default_rng(0)
    smooth, unrelated = gaussian_psfs((4, 4), 9), rng.random((4, 4, 9, 9))
    rows, columns = centres((256, 256), (4, 4))
    operator = make_operator(smooth, rows, columns, (256, 256), rtol=1e-2)
    assert type(operator) is ModeConvolution
    operator = make_operator(unrelated, rows, columns, (256, 256))
    assert type(operator) is TileConvolution
    modes = make_operator(unrelated, rows, columns, (256, 256), method="modes")
    assert modes.n_ffts == 17
    assert 2 < operator.n_ffts < 17


def test_read_only_and_swapped_arrays_are_taken():
    psfs = gaussian_psfs((2, 1), 3)
    psfs.setflags(write=False)
    swapped = psfs.astype(psfs.dtype.newbyteorder())
    x = torch.rand(10, 10, dtype=torch.float64)
    blurred = [make_operator(p, [2, 5], [4], (8, 8)).forward(x) for p in (psfs, swapped)]
    torch.testing.assert_close(*blurred)


def test_windows_without_support_are_left_out():
    wy = np.zeros((2, 12))
    wy[0] = 1
    operator = TileConvolution(np.ones((2, 1, 3, 3)), wy, np.ones((1, 12)), (10, 10))
    one = Convolution(np.ones((3, 3)), (10, 10))
    x = torch.rand(12, 12, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(x), one.forward(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"psfs": np.ones((3, 3))}, "psfs must have 4 axes"),
        ({"psfs": np.full((2, 1, 3, 3), np.inf)}, "psfs contains NaN or infinity"),
        ({"rows": [1, 2, 3]}, "need 2 rows and 1 columns, got 3 and 1"),
        ({"rows": [2, 1]}, "rows must be strictly increasing"),
        ({"window": "box"}, "window must be one of"),
        ({"order": "both"}, "order must be one of"),
        ({"method": "fast"}, "method must be one of"),
        ({"rtol": -1}, "rtol must be in"),
        ({"shape": (0, 5)}, "shape must be a positive"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"psfs": np.ones((2, 1, 3, 3)), "rows": [2, 7], "columns": [4], "shape": (9, 9)}
    with pytest.raises(ValueError, match=message):
        make_operator(**(arguments | changes))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"coefficients must have shape \(2, 6, 6\)"):
        ModeConvolution(torch.ones(2, 3, 3), torch.ones(2, 4, 4), (4, 4))
    with pytest.raises(ValueError, match=r"coefficients must have shape \(2, 4, 4\)"):
        ModeConvolution(torch.ones(2, 3, 3), torch.ones(2, 6, 6), (4, 4), "gather")
    with pytest.raises(ValueError, match=r"wx must have shape \(1, 6\)"):
        TileConvolution(torch.ones(1, 1, 3, 3), torch.ones(1, 6), torch.ones(1, 4), (4, 4))


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    kernel=st.sampled_from([(3, 3), (31, 15)]),
    limit=st.floats(5e6, 2e7),
)
def test_blocks_tile_the_image(shape, kernel, limit):
    seen = np.zeros(shape, int)
    blocks = split_blocks(shape, kernel, 4, limit)
    for block in blocks:
        seen[block.core] += 1
        whole = np.arange(shape[0] * shape[1]).reshape(shape)
        np.testing.assert_array_equal(whole[block.outer][block.inner], whole[block.core])
        halos = [k + k // 2 + 32 if len(blocks) > 1 else 0 for k in kernel]
        for core, outer, n, halo in zip(block.core, block.outer, shape, halos, strict=True):
            assert outer.start == max(core.start - halo, 0)
            assert outer.stop == min(core.stop + halo, n)
    assert (seen == 1).all()


def test_memory_limit():
    assert len(split_blocks((500, 700), (9, 9))) == 1
    few, many = (len(split_blocks((500, 700), (9, 9), 4, m)) for m in (3e7, 3e6))
    assert 1 < few < many
    with pytest.raises(ValueError, match="max_memory=1000 bytes is too little"):
        split_blocks((500, 700), (9, 9), 4, 1000)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_operator_of_a_block_is_that_part_of_the_whole(window):
    shape = (60, 90)
    local = LocalPSFs.on_cells(gaussian_psfs((6, 9), 5), shape)
    (whole,) = split_blocks(shape, (5, 5))
    full = local.operator(whole, window=window, method="tiles")
    x = torch.rand(full.field_shape, dtype=torch.float64)
    block = Block((slice(21, 37), slice(40, 52)), (slice(16, 42), slice(35, 57)))
    part = local.operator(block, window=window, method="tiles")
    torch.testing.assert_close(
        part.forward(x[16 : 42 + 4, 35 : 57 + 4]), full.forward(x)[16:42, 35:57]
    )


@pytest.mark.parametrize("size", [(3, 9), (9, 3), (5, 5), (11, 13)])
def test_resized_psfs_keep_their_centre_and_sum(size):
    local = LocalPSFs.on_cells(gaussian_psfs((2, 3), 5), (20, 30))
    resized = local.resized(size)
    assert resized.psfs.shape == (2, 3, *size)
    np.testing.assert_allclose(resized.psfs.sum((2, 3)), local.psfs.sum((2, 3)))
    middle = resized.psfs[..., size[0] // 2, size[1] // 2]
    assert (middle >= resized.psfs.max((2, 3)) - 1e-12).all()
    np.testing.assert_array_equal(local.resized((5, 5)).psfs, local.psfs)


@pytest.mark.parametrize(("shape", "size"), [((7, 100), 10), ((10, 10), 10), ((11, 31), 8)])
def test_the_central_block_is_central(shape, size):
    block = central_block(shape, size)
    assert block.core == block.outer
    for part, n in zip(block.core, shape, strict=True):
        assert part.stop - part.start == min(n, size)
        assert abs(part.start - (n - part.stop)) <= 1
