import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_psf import AstigmaticDepthEstimator, PSFMap, SpatialPSFMapper, persistence
from sklearn_psf.optics import Optics, make_psf_model
from sklearn_psf.simulation import (
    depth_to_parameters,
    make_surface,
    make_textures,
    make_tilted_plane,
)

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
FAMILY = make_psf_model("zernike-3", size=31)
PATCH, STRIDE = 64, 32


def make_depth(n=2, grid=(7, 9), height=10.0, seed=0):
    """Tilted planes and a curved one."""
    y, x = (np.linspace(-1, 1, k) for k in grid)
    turns = np.random.RandomState(seed).uniform(0, 2 * np.pi, n)
    planes = [np.cos(t) * x + np.sin(t) * y[:, None] for t in turns]
    return height / np.sqrt(2) * np.stack(planes)


def make_maps(depth, noise=0.0, cylinder=0.4, axis=0.3, optics=OPTICS, seed=0):
    """Maps as a perfect or a noisy regressor would read them."""
    rng = np.random.RandomState(seed)
    parameters = depth_to_parameters(depth, optics=OPTICS, cylinder=cylinder, axis=axis)
    e = FAMILY.encode(parameters)
    parameters = FAMILY.decode(e + noise * rng.standard_normal(e.shape)) if noise else parameters
    n, gy, gx = depth.shape
    return PSFMap(
        images=np.ones((n, PATCH + (gy - 1) * STRIDE, PATCH + (gx - 1) * STRIDE), "float32"),
        parameters=parameters,
        std=np.full(parameters.shape, max(noise, 1e-3)),
        invalid=np.zeros(depth.shape),
        rows=PATCH / 2 - 0.5 + STRIDE * np.arange(gy),
        columns=PATCH / 2 - 0.5 + STRIDE * np.arange(gx),
        model=FAMILY.settings,
        optics=optics,
    )


def pixel_depth(depth, maps):
    """Depth of every pixel, linear between and beyond window centres."""
    result = np.empty(maps.shape)
    for z, image in zip(depth, result, strict=True):
        y, x = np.meshgrid(maps.rows, maps.columns, indexing="ij")
        basis = np.stack([np.ones(y.size), y.ravel(), x.ravel()], -1)
        plane = np.linalg.lstsq(basis, z.ravel(), rcond=None)[0]
        rows, columns = (np.arange(k) for k in image.shape)
        image[:] = plane[0] + plane[1] * rows[:, None] + plane[2] * columns
    return result


# ---- What it reads ----


@pytest.mark.parametrize("axis", [0.0, 0.3, 1.5, 2.9])
@pytest.mark.parametrize("smoothing", [None, "surface", "edges"])
def test_perfect_readings_give_the_depth_back(axis, smoothing):
    depth = make_depth()
    maps = make_maps(depth, axis=axis)
    estimator = AstigmaticDepthEstimator(smoothing=smoothing).fit(maps, depth)
    assert np.cos(2 * (estimator.calibration_["axis"] - axis)) > 0.9999
    assert estimator.calibration_["cylinder"] == pytest.approx(0.4)
    tolerance = 0.5 if smoothing == "edges" else 0.05
    np.testing.assert_allclose(estimator.predict(maps), depth, atol=tolerance)
    assert estimator.score(maps, depth) > 0.99


def test_calibration_holds_on_other_surfaces_and_runs_either_way():
    estimator = AstigmaticDepthEstimator().fit(
        make_maps(make_depth(height=12)), -make_depth(height=12)
    )
    other = make_depth(seed=5, height=8)
    np.testing.assert_allclose(estimator.predict(make_maps(other)), -other, atol=0.05)
    calibration = estimator.calibration_
    assert np.cos(2 * (calibration["axis"] - 0.3 - np.pi / 2)) > 0.999
    assert (np.diff(calibration["depth"]) > 0).all() and (np.diff(calibration["reading"]) > 0).all()


def test_a_known_axis_is_kept():
    depth = make_depth()
    estimator = AstigmaticDepthEstimator(axis=0.3).fit(make_maps(depth), -depth)
    assert estimator.calibration_["axis"] == 0.3
    np.testing.assert_allclose(estimator.predict(make_maps(depth)), -depth, atol=0.05)


@pytest.mark.parametrize("kind", ["windows", "pixels", "images"])
def test_kinds_of_known_depths(kind):
    depth = make_depth(n=12)
    if kind == "images":
        depth = np.broadcast_to(np.linspace(-9, 9, 12)[:, None, None], depth.shape)
    maps = make_maps(depth)
    y = {"windows": depth, "pixels": pixel_depth(depth, maps), "images": depth[:, 0, 0]}[kind]
    estimator = AstigmaticDepthEstimator(smoothing=None).fit(maps, y)
    np.testing.assert_allclose(estimator.predict(maps), depth, atol=0.05)
    assert estimator.score(maps, y) > 0.999


def test_depth_of_pixels_is_averaged_over_windows():
    depth = make_depth(n=1)
    maps = make_maps(depth)
    y = np.zeros(maps.shape)
    y[:, :PATCH, : PATCH // 2] = 8.0  # half of the first window
    estimator = AstigmaticDepthEstimator(smoothing=None)
    truth = np.zeros(depth.shape)
    truth[0, 0, 0], truth[0, 1, 0] = 4.0, 2.0
    estimator.fit(maps, depth)
    assert estimator.score(maps, y) == pytest.approx(estimator.score(maps, truth), abs=0.05)


@pytest.mark.parametrize("curve", ["cubic", "linear", "isotonic"])
def test_curves_are_monotone(curve):
    depth = make_depth(n=4, height=12)
    bent = depth + 0.01 * depth**3
    maps = make_maps(depth, noise=0.01)
    estimator = AstigmaticDepthEstimator(curve=curve, smoothing=None).fit(maps, bent)
    assert (np.diff(estimator.calibration_["reading"]) > 0).all()
    error = np.abs(estimator.predict(maps) - bent).mean() / np.ptp(bent)
    assert error < (0.06 if curve == "linear" else 0.03)


def test_readings_that_spread_do_not_draw_the_curve_together():
    depth = make_depth(n=6, height=12)
    estimator = AstigmaticDepthEstimator(smoothing=None).fit(make_maps(depth, noise=0.12), depth)
    prediction = estimator.predict(make_maps(depth, noise=0.12, seed=1))
    known = np.isfinite(prediction)
    slope = np.polyfit(depth[known], prediction[known], 1)[0]
    assert 0.9 < slope < 1.1


def test_gaussian_widths():
    depth = make_depth()
    maps = make_maps(depth)
    width_y, width_x = (np.sqrt(1 + (0.3 * (depth + shift)) ** 2) for shift in (4, -4))
    maps = replace(
        maps,
        parameters=np.stack([width_y, width_x], -1),
        std=np.full((*depth.shape, 2), 0.05),
        model={"name": "gaussian-2", "size": 31},
    )
    estimator = AstigmaticDepthEstimator().fit(maps, depth)
    np.testing.assert_allclose(estimator.predict(maps), depth, atol=0.05)
    assert estimator.calibration_["axis"] is None


def test_published_product():
    depth = make_depth(height=6)
    axis = 3 * np.pi / 4  # the published equation is antisymmetric at pi / 4 and 3 pi / 4 alone
    maps = make_maps(depth, axis=axis)
    estimator = AstigmaticDepthEstimator(method="product", smoothing=None).fit(maps, depth)
    focus, _, alpha = np.moveaxis(maps.parameters, -1, 0)
    product = focus * (2 * alpha / np.pi - 1)
    line = np.polyfit(depth.ravel(), product.ravel(), 1)
    np.testing.assert_allclose(estimator.predict(maps), (product - line[1]) / line[0], atol=1e-3)
    np.testing.assert_allclose(estimator.predict(maps), depth, atol=1e-3)


# ---- Without calibration ----


def test_optics_alone_give_micrometres_and_say_so():
    depth = make_depth()
    estimator = AstigmaticDepthEstimator(axis=0.3)
    with pytest.warns(UserWarning, match="Uncalibrated.*Give known depths"):
        estimator.fit(make_maps(depth))
    assert estimator.calibration_["calibrated"] is False
    np.testing.assert_allclose(estimator.predict(make_maps(depth)), depth, atol=0.01)
    with pytest.warns(UserWarning, match="sign is a guess"):
        estimator = AstigmaticDepthEstimator().fit(make_maps(depth, axis=0.3 + np.pi / 2))
    np.testing.assert_allclose(estimator.predict(make_maps(depth)), depth, atol=0.01)


# ---- Standard deviations and neighbours ----


def test_standard_deviations_are_propagated():
    depth = np.linspace(-9, 9, 40).reshape(1, 5, 8)
    noise = 0.03
    estimator = AstigmaticDepthEstimator(smoothing=None, curve="linear")
    estimator.fit(make_maps(depth, noise), depth)
    _, std = estimator.predict(make_maps(depth, noise), return_std=True)
    far = np.abs(depth) > 4
    expected = noise * OPTICS.waves_to_micrometres(1.0)
    np.testing.assert_allclose(std[far], expected, rtol=0.25)


def test_smoothing_helps_and_knows_by_how_much():
    depth = make_depth(n=8, grid=(9, 11), height=12)
    maps = make_maps(depth, noise=0.08)
    single = AstigmaticDepthEstimator(smoothing=None).fit(maps, depth)
    smooth = AstigmaticDepthEstimator().fit(maps, depth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = np.nanmean(np.abs(single.predict(maps) - depth))
        z, std = smooth.predict(maps, return_std=True)
    error = np.abs(z - depth)
    assert np.nanmean(error) < 0.6 * before
    assert 0.4 < np.nanmean(error < 2 * std) and np.nanmedian(std) < before


def mapped_badly(image, depth, seed):
    """Map of a real image as a bad regressor would read it; and the depths of its windows."""
    rows, columns = (np.arange(63.5, n - 63, 32) for n in image.shape)
    truth = depth[np.ix_(*(np.rint(at).astype(int) for at in (rows, columns)))][np.newaxis]
    seen = 0.6 * truth + np.random.RandomState(seed).normal(0, 2, truth.shape)
    maps = PSFMap(
        images=image[np.newaxis],
        parameters=depth_to_parameters(seen, optics=OPTICS, cylinder=0.45, axis=0.35),
        std=np.full((*truth.shape, 3), 0.1),
        invalid=np.zeros(truth.shape),
        rows=rows,
        columns=columns,
        model=make_psf_model("zernike-3", cutoff=OPTICS.cutoff).settings,
        optics=OPTICS,
    )
    return maps, truth


def photographed(tilt, seed):
    """The same of a plane."""
    image, depth = make_tilted_plane(
        make_textures(1, 320, kind="dead-leaves", random_state=seed)[0],
        optics=OPTICS,
        tilt=tilt,
        cylinder=0.4,
        axis=0.3,
        random_state=seed,
    )
    return mapped_badly(image, depth, seed)


@pytest.fixture(scope="module")
def calibrated():
    """Estimators that compare windows, and that do not."""
    maps, truth = photographed(12, seed=4)
    return {s: AstigmaticDepthEstimator(spectra=s).fit(maps, truth) for s in (False, True)}


@pytest.mark.parametrize("smoothing", [None, "surface"])
def test_windows_that_are_compared_are_read_better(calibrated, smoothing):
    maps, truth = photographed(7, seed=5)
    errors = {}
    for spectra, estimator in calibrated.items():
        estimator.set_params(smoothing=smoothing)  # has no part in the calibration
        depth, std = estimator.predict(maps, return_std=True)
        errors[spectra] = np.abs(depth - truth).mean() / np.ptp(truth)
    assert errors[True] < 0.05 and errors[True] < 0.5 * errors[False]
    assert (np.abs(depth - truth) < 3 * std).mean() > 0.8


def test_the_lens_is_measured(calibrated):
    assert calibrated[True].calibration_["cylinder"] == pytest.approx(0.4, abs=0.02)
    assert calibrated[True].calibration_["axis"] == pytest.approx(0.3, abs=0.03)


def test_without_calibration_the_spectra_give_micrometres():
    maps, truth = photographed(10, seed=6)
    with pytest.warns(UserWarning, match="Uncalibrated"):
        estimator = AstigmaticDepthEstimator(axis=0.3).fit(maps)
    depth = estimator.predict(maps)
    assert np.nanmean(np.abs(depth - truth)) < 0.06 * np.ptp(truth)
    assert estimator.calibration_["axis"] == 0.3  # a known axis is kept


def test_a_wild_reading_is_outvoted():
    depth = make_depth(n=1)
    maps = make_maps(depth, noise=0.01)
    estimator = AstigmaticDepthEstimator().fit(maps, depth)
    wild = maps.parameters.copy()
    wild[0, 3, 4, 0] = 1.4
    z = estimator.predict(replace(maps, parameters=wild))
    assert np.abs(z - depth).max() < 1.5


def test_edges_stay_steep():
    depth = np.where(np.arange(12) < 6, -6.0, 6.0) * np.ones((1, 8, 1))
    plane = make_depth(n=2)
    fit = {k: AstigmaticDepthEstimator(smoothing=k) for k in ("edges", "surface")}
    noisy = make_maps(depth, noise=0.03)
    jump = {}
    for kind, estimator in fit.items():
        z = estimator.fit(make_maps(plane), plane).predict(noisy)
        jump[kind] = np.mean(z[0, :, 6] - z[0, :, 5])
        assert np.abs(z - depth).mean() < 2.5
    assert jump["edges"] > 10


# ---- Pixels, points ----


def test_dense_depth_is_linear_through_focus():
    depth = make_depth(n=1)
    maps = make_maps(depth)
    estimator = AstigmaticDepthEstimator().fit(maps, depth)
    dense = estimator.predict_dense(maps)
    assert dense.shape == maps.shape
    inside = (slice(None), slice(32, -32), slice(32, -32))
    np.testing.assert_allclose(dense[inside], pixel_depth(depth, maps)[inside], atol=0.1)


def test_points_are_in_micrometres():
    depth = make_depth(n=2)
    maps = make_maps(depth)
    maps.invalid[1, 0, 0] = 1
    estimator = AstigmaticDepthEstimator().fit(maps, depth)
    with pytest.warns(UserWarning, match="1 of 126 windows have no depth: 1 invalid"):
        points = estimator.points(maps)
    assert points.shape == (2 * 63 - 1, 3)
    np.testing.assert_allclose(points[1], [63.5 * 0.325, 31.5 * 0.325, depth[0, 0, 1]], atol=0.05)
    assert estimator.points(maps[0], dense=True).shape == (maps.images[0].size, 3)
    with pytest.raises(ValueError, match="points need maps with optics"):
        estimator.points(replace(maps, optics=None))


# ---- In company ----


class FocusReader(BaseEstimator):
    """Stands for a fitted regressor: the mean grey value of a patch is its signed focus."""

    psf_model_, patch_size_ = FAMILY, 32

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X, return_std=False):
        s = OPTICS.waves_to_micrometres(np.mean(X, (1, 2), dtype=float))
        p = depth_to_parameters(s, optics=OPTICS, axis=0.7)
        return (p, np.full(p.shape, 0.02)) if return_std else p

    def predict_invalid(self, X):
        return np.zeros(len(X))


def test_pipeline_search_clone_and_files(tmp_path):
    levels = np.linspace(-0.7, 0.7, 9)
    X = levels[:, None, None] + 0.2 * np.linspace(-1, 1, 96) * np.ones((9, 96, 1))
    y = OPTICS.waves_to_micrometres(X)
    mapper = SpatialPSFMapper(FrozenEstimator(FocusReader().fit(None)), stride=32, smoothing=0)
    pipeline = Pipeline([("psf", mapper), ("depth", AstigmaticDepthEstimator())])
    grid = {"psf__stride": [16, 32], "depth__curve": ["linear", "cubic"]}
    search = GridSearchCV(pipeline, grid, cv=[(np.arange(0, 9, 2), np.arange(1, 8, 2))])
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all() and search.best_score_ > 0.99
    best = search.best_estimator_
    expected = best.predict(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(best)).predict(X), expected)
    assert not hasattr(clone(best)["depth"], "calibration_")
    persistence.save(best["depth"], tmp_path / "depth.safetensors")
    loaded = persistence.load(tmp_path / "depth.safetensors")
    np.testing.assert_array_equal(loaded.predict(best[:-1].transform(X)), expected)


# ---- Bad input ----

DEPTH = make_depth()


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"method": "triangulation"}, "method must be one of"),
        ({"curve": "quintic"}, "curve must be one of"),
        ({"smoothing": "much"}, "smoothing must be one of"),
        ({"axis": np.nan}, "axis must be finite"),
        ({"margin": -1}, r"margin must be in \[0"),
        ({"invalid_threshold": 2}, r"invalid_threshold must be in \[0"),
    ],
)
def test_bad_parameters(parameters, match):
    with pytest.raises(ValueError, match=match):
        AstigmaticDepthEstimator(**parameters).fit(make_maps(DEPTH), DEPTH)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (DEPTH[:1], r"y must have shape \(2, 7, 9\) .* got \(1, 7, 9\)"),
        (np.zeros(DEPTH.shape), "y must vary to calibrate on, got 0.0"),
        (np.full(DEPTH.shape, np.nan), "all 126 are invalid or unknown"),
        (np.where(DEPTH > 8, np.inf, DEPTH), "y contains infinity"),
        (DEPTH.astype(str), "y must hold real numbers"),
    ],
)
def test_bad_depths(y, match):
    with pytest.raises(ValueError, match=match):
        AstigmaticDepthEstimator().fit(make_maps(DEPTH), y)


@pytest.mark.parametrize(("name", "n"), [("zernike-1", 1), ("gaussian-1", 1), ("zernike-2", 2)])
def test_families_that_do_not_tell_the_side(name, n):
    maps = make_maps(DEPTH)
    maps = replace(
        maps, parameters=maps.parameters[..., :n], std=maps.std[..., :n], model={"name": name}
    )
    with pytest.raises(ValueError, match=f"needs maps of zernike-3 or gaussian-2.*'{name}'"):
        AstigmaticDepthEstimator().fit(maps, DEPTH)


def test_other_maps_than_calibrated():
    estimator = AstigmaticDepthEstimator().fit(make_maps(DEPTH), DEPTH)
    maps = make_maps(DEPTH)
    widths = replace(
        maps,
        parameters=1 + maps.parameters[..., :2],
        std=maps.std[..., :2],
        model={"name": "gaussian-2"},
    )
    with pytest.raises(ValueError, match="calibration is of maps of 'zernike-3', got 'gaussian-2'"):
        estimator.predict(widths)
    with pytest.raises(TypeError, match="X must be a PSFMap, got ndarray"):
        estimator.predict(maps.images)
    with pytest.raises(NotFittedError):
        AstigmaticDepthEstimator().predict(maps)
    with pytest.raises(ValueError, match="Without known depths y, maps need optics"):
        AstigmaticDepthEstimator().fit(replace(maps, optics=None))


def test_windows_without_texture_are_nan_and_counted():
    maps = make_maps(DEPTH)
    estimator = AstigmaticDepthEstimator().fit(maps, DEPTH)
    maps.invalid[0] = 1
    maps.parameters[0] = np.nan
    with pytest.warns(UserWarning, match="63 of 126 windows have no depth: 63 invalid, 0 out"):
        depth, std = estimator.predict(maps, return_std=True)
    assert np.isnan(depth[0]).all() and np.isnan(std[0]).all() and np.isfinite(depth[1]).all()
    maps.invalid[:] = 1
    with pytest.raises(ValueError, match="all 126 are invalid"):
        clone(estimator).fit(maps, DEPTH)
    with pytest.raises(ValueError, match="at least two valid windows, got 0"):
        estimator.score(maps, DEPTH)


def test_beyond_the_calibrated_range():
    estimator = AstigmaticDepthEstimator(smoothing=None).fit(make_maps(DEPTH / 2), DEPTH / 2)
    maps = make_maps(DEPTH)
    slack = 0.1 * np.ptp(DEPTH / 2)
    out = np.abs(DEPTH) > np.abs(DEPTH / 2).max() + slack
    with pytest.warns(UserWarning, match=f"0 invalid, {out.sum()} out of range"):
        depth = estimator.predict(maps)
    np.testing.assert_array_equal(np.isnan(depth), out)
    assert estimator.score(maps, DEPTH) > 0.9  # what is left out of predict still counts


def test_no_lens_is_said():
    with pytest.warns(UserWarning, match="cylinder of 0.010 waves RMS"):
        AstigmaticDepthEstimator().fit(make_maps(DEPTH, cylinder=0.01), DEPTH)


def test_one_window_and_one_row():
    depth = np.linspace(-5, 5, 6).reshape(6, 1, 1)
    estimator = AstigmaticDepthEstimator().fit(make_maps(depth), depth)
    np.testing.assert_allclose(estimator.predict(make_maps(depth)), depth, atol=0.05)
    row = np.linspace(-5, 5, 9).reshape(1, 1, 9)
    np.testing.assert_allclose(estimator.predict(make_maps(row)), row, atol=0.1)


def test_many_windows_are_averaged_in_blocks():
    depth = make_depth(n=1, grid=(36, 40))
    maps = make_maps(depth, noise=0.05)
    z = AstigmaticDepthEstimator().fit(maps, depth).predict(maps)
    assert np.nanmean(np.abs(z - depth)) < 0.3


@pytest.mark.parametrize("shape", ["sphere", "waves"])
def test_curved_samples_do_not_come_out_flat(calibrated, shape):
    texture = make_textures(1, 384, kind="dead-leaves", random_state=8)[0]
    image, depth = make_surface(
        texture,
        optics=OPTICS,
        shape=shape,
        height=12.0,
        cylinder=0.4,
        axis=0.3,
        random_state=0,
    )
    maps, truth = mapped_badly(image, depth, seed=1)
    errors = {}
    for spectra, estimator in calibrated.items():
        estimator.set_params(smoothing="surface")
        errors[spectra] = np.abs(estimator.predict(maps) - truth).mean() / np.ptp(truth)
    assert errors[True] < 1.1 * errors[False]
