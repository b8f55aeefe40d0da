import builtins

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklearn_psf import DeepFocusAutofocus, PSFMap, TVRLDeconvolver
from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.plotting import (
    FocusCurveDisplay,
    PSFMapDisplay,
    RegularisationDisplay,
    RestorationDisplay,
)
from sklearn_psf.simulation import make_focal_stack, make_textures

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_map(name="zernike-3", grid=(3, 4), n=2, optics=None):
    model = make_psf_model(name, size=31)
    gy, gx = grid
    parameters = model.sample(n * gy * gx, random_state=0).reshape(n, gy, gx, -1)
    return PSFMap(
        images=np.ones((n, 100, 140), "float32"),
        parameters=parameters,
        std=0.1 * np.abs(parameters),
        invalid=np.zeros((n, gy, gx)),
        rows=np.linspace(20, 80, gy) if gy > 1 else np.array([50.0]),
        columns=np.linspace(20, 120, gx) if gx > 1 else np.array([70.0]),
        model=model.settings,
        optics=optics,
    )


def colour_bar_labels(display):
    return [im.colorbar.ax.get_ylabel() for im in display.im_]


def test_one_panel_per_parameter_with_units():
    maps = make_map()
    display = PSFMapDisplay.from_map(maps, index=1)
    assert [ax.get_title() for ax in display.ax_] == ["focus", "cylinder", "axis"]
    assert colour_bar_labels(display) == ["waves RMS", "waves RMS", "rad"]
    assert display.figure_ is display.ax_[0].figure
    for k, mesh in enumerate(display.im_):
        np.testing.assert_allclose(mesh.get_array().reshape(3, 4), maps.parameters[1, ..., k])


def test_windows_stand_where_they_are_in_the_image():
    display = PSFMapDisplay.from_map(make_map())
    corners = display.im_[0].get_coordinates()
    np.testing.assert_allclose(corners[0, 0], [20 - 100 / 6, 5])  # half a window before the centre
    assert display.ax_[0].get_xlim() == (-0.5, 139.5)
    assert display.ax_[0].get_ylim() == (99.5, -0.5)  # rows go down


@pytest.mark.parametrize(("name", "period"), [("zernike-3", np.pi), ("zernike-2", np.pi / 2)])
def test_angles_are_cyclic(name, period):
    display = PSFMapDisplay.from_map(make_map(name), cmap="cividis")
    axis, cylinder = display.im_[-1], display.im_[-2]
    assert axis.get_cmap().name == "twilight" and axis.get_clim() == pytest.approx((0, period))
    assert cylinder.get_cmap().name == "cividis"


def test_noise_of_a_flat_map_is_not_blown_up():
    maps = make_map("zernike-1")
    maps.parameters[:] = 0.5 + 1e-4 * maps.parameters
    low, high = PSFMapDisplay.from_map(maps).im_[0].get_clim()
    assert high - low == pytest.approx(0.15) and low < 0.5 < high
    maps.parameters[:] = 0.0
    assert PSFMapDisplay.from_map(maps).im_[0].get_clim() == pytest.approx((0, 0.15))


def test_std_starts_at_zero():
    maps = make_map("gaussian-2")
    display = PSFMapDisplay.from_map(maps, kind="std")
    assert [ax.get_title() for ax in display.ax_] == ["std of width_y", "std of width_x"]
    assert colour_bar_labels(display) == ["px", "px"]
    assert display.im_[0].get_clim() == pytest.approx((0, maps.std[0, ..., 0].max()))


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (1, 25), (20, 19)])
def test_local_psfs_are_a_montage(grid):
    maps = make_map("zernike-1", grid=grid, n=1)
    display = PSFMapDisplay.from_map(maps, kind="psfs")
    shown = [len(display.ax_[0].get_yticks()), len(display.ax_[0].get_xticks())]
    assert all(1 <= s <= 9 for s in shown) and (shown == list(grid) or max(grid) > 9)
    image = display.im_[0].get_array()
    steps = [np.diff(ticks) for ticks in (display.ax_[0].get_yticks(), display.ax_[0].get_xticks())]
    pitch = next((step[0] for step in steps if step.size), 0)
    for step, count, length in zip(steps, shown, image.shape, strict=True):
        assert (step == pitch).all()
        assert length - (count - 1) * pitch == min(image.shape) - (min(shown) - 1) * pitch


def test_local_psfs_stand_at_their_ticks():
    maps = make_map("zernike-1", n=1)
    display = PSFMapDisplay.from_map(maps, kind="psfs")
    image = display.im_[0].get_array()
    psfs = np.sqrt(maps.psfs(0))
    assert [t.get_text() for t in display.ax_[0].get_xticklabels()] == ["20", "53", "87", "120"]
    for i, y in enumerate(display.ax_[0].get_yticks().astype(int)):
        for j, x in enumerate(display.ax_[0].get_xticks().astype(int)):
            around = np.s_[y - 2 : y + 3, x - 2 : x + 3]
            expected = psfs[i, j, 13:18, 13:18] / psfs[i, j].max()
            np.testing.assert_allclose(image[around], expected, rtol=1e-4)


def test_invalid_windows_are_crossed():
    maps = make_map("zernike-1")
    maps.invalid[0, 1, 2] = 0.9
    display = PSFMapDisplay.from_map(maps)
    (crosses,) = display.ax_[0].get_lines()
    np.testing.assert_allclose(crosses.get_xydata(), [[maps.columns[2], maps.rows[1]]])
    display = PSFMapDisplay.from_map(maps, kind="invalid")
    assert display.im_[0].get_clim() == (0, 1)
    assert display.im_[0].get_array().max() == pytest.approx(0.9)


@pytest.mark.parametrize("kind", ["parameters", "std", "psfs"])
def test_map_without_valid_windows_can_be_drawn(kind):
    maps = make_map()
    maps.parameters[:], maps.std[:], maps.invalid[:] = np.nan, np.nan, 1
    display = PSFMapDisplay.from_map(maps, kind=kind)
    display.figure_.canvas.draw()
    assert np.isfinite(display.im_[0].get_clim()).all()


def test_defocus_in_micrometres():
    optics = Optics(0.5, 0.52, 0.2)
    maps = make_map("zernike-1", optics=optics)
    display = PSFMapDisplay.from_map(maps, kind="defocus")
    assert colour_bar_labels(display) == ["um"]
    expected = maps.parameters[0, ..., 0] / optics.waves_per_micrometre
    np.testing.assert_allclose(display.im_[0].get_array().reshape(3, 4), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="optics"):
        PSFMapDisplay.from_map(make_map("zernike-1"), kind="defocus")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"kind": "colour"}, "kind must be one of"),
        ({"index": 2}, "index must be in"),
        ({"index": -1}, "index must be in"),
        ({"ax": "one"}, "ax must hold 3 axes"),
    ],
)
def test_bad_arguments_of_map_displays(arguments, match):
    if "ax" in arguments:
        arguments = {"ax": plt.figure().subplots()}
    with pytest.raises(ValueError, match=match):
        PSFMapDisplay.from_map(make_map(), **arguments)


def test_given_axes_are_drawn_in():
    figure, axes = plt.subplots(1, 3)
    display = PSFMapDisplay.from_map(make_map(), ax=axes)
    assert display.figure_ is figure and list(display.ax_) == list(axes)


@pytest.mark.parametrize("shape", [(2, 30, 40), (30, 40)])
def test_restorations_share_one_scale(shape):
    blurred, restored, sharp = (RNG.poisson(level, shape) for level in (50, 100, 200))
    display = RestorationDisplay.from_images(blurred, restored, sharp, index=len(shape) - 2)
    assert [ax.get_title() for ax in display.ax_] == ["blurred", "restored", "sharp"]
    last = sharp[1] if len(shape) == 3 else sharp
    expected = tuple(np.percentile(last, (0.1, 99.9)))
    assert [im.get_clim() for im in display.im_] == [pytest.approx(expected)] * 3
    np.testing.assert_array_equal(display.im_[2].get_array(), last)
    assert display.im_[-1].colorbar.ax.get_ylabel() == "grey value"


def test_constant_images_can_be_drawn():
    image = np.zeros((1, 8, 8))
    display = RestorationDisplay.from_images(image, image)
    display.figure_.canvas.draw()
    assert len(display.im_) == 2


@pytest.mark.parametrize(
    ("images", "arguments", "match"),
    [
        ([np.ones((1, 8, 8)), np.ones((1, 8, 9))], {}, "share one shape"),
        ([np.ones((1, 8, 8)), np.ones(8)], {}, "restored must be of shape"),
        ([np.ones((1, 8, 8))] * 2, {"index": 1}, "index must be in"),
    ],
)
def test_bad_images(images, arguments, match):
    with pytest.raises(ValueError, match=match):
        RestorationDisplay.from_images(*images, **arguments)


def test_the_choice_of_the_regularisation_is_marked():
    image = np.random.default_rng(0).poisson(50, (1, 64, 64))
    deconv = TVRLDeconvolver(psf=np.ones((3, 3)), lambda_tv="auto", n_iter=6, random_state=0)
    display = RegularisationDisplay.from_estimator(deconv.fit(image))
    labels = [line.get_label() for line in display.lines_]
    assert labels == ["5 iterations", "6 iterations", "with photons held out"]
    np.testing.assert_allclose(display.lines_[1].get_ydata(), deconv.simulated_snr_[:, 5])
    np.testing.assert_allclose(display.lines_[2].get_ydata(), deconv.criterion_)
    (star,) = [line for line in display.ax_.lines if line.get_label() == "chosen"]
    assert star.get_xdata() == [deconv.lambda_]
    # in view, on top of the curve that decides
    assert star.get_ydata() == [deconv.criterion_.max()]
    low, high = display.ax_.get_ylim()
    assert low < deconv.criterion_.max() < high
    with pytest.raises(ValueError, match="must have been fitted with lambda_tv=.auto."):
        RegularisationDisplay.from_estimator(TVRLDeconvolver(psf=np.ones((3, 3))).fit(image))


def test_the_choice_of_the_iterations_is_marked():
    image = np.random.default_rng(0).poisson(50, (1, 64, 64))
    deconv = TVRLDeconvolver(psf=np.ones((3, 3)), lambda_tv=0.0, n_iter="auto", random_state=0)
    display = RegularisationDisplay.from_estimator(deconv.fit(image))
    (line,) = display.lines_
    np.testing.assert_allclose(line.get_ydata(), deconv.simulated_snr_[0])
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 61))
    (star,) = [line for line in display.ax_.lines if line.get_label() == "chosen"]
    assert star.get_xdata() == [deconv.n_iter_]
    assert display.ax_.get_xlabel() == "iterations"


def test_missing_matplotlib_is_named(monkeypatch):
    real_import = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"pip install sklearn_psf\[plot\]"):
        RestorationDisplay.from_images(np.ones((1, 8, 8)), np.ones((1, 8, 8)))


# ---- A focus search ----


@pytest.fixture(scope="module")
def focus_search():
    """A calibrated autofocus, and a search that found focus at 5 um."""
    optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.43)
    sharp = make_textures(2, size=160, kind="dead-leaves", random_state=0)
    z = np.linspace(-60, 60, 25)
    options = {"optics": optics, "camera": Camera(), "random_state": 0}
    af = DeepFocusAutofocus("tenengrad", optics=optics)
    af.fit(make_focal_stack(sharp[0], z, **options), z)
    images = make_focal_stack(sharp[1], [20.0, 9.0, 1.0], z_focus=5.0, **options)
    return af, af.locate(images, [20.0, 9.0, 1.0])


def test_focus_curve_alone(focus_search):
    af, _ = focus_search
    display = FocusCurveDisplay.from_estimator(af)
    (axes,) = display.ax_
    curve = next(line for line in axes.lines if line.get_label() == "calibration")
    np.testing.assert_array_equal(curve.get_ydata(), af.curve_)
    assert axes.get_ylabel() == "score" and "um" in axes.get_xlabel()
    # Moffat's curve is as the fit says: half its height at half its width
    half = np.interp(af.moffat_[0] - af.z_focus_ + af.fwhm_ / 2, display.distance, display.moffat)
    assert half == pytest.approx(af.moffat_[4] + af.moffat_[3] / 2, rel=0.1)


def test_focus_curve_with_images_and_posterior(focus_search):
    af, result = focus_search
    display = FocusCurveDisplay.from_estimator(af, result)
    curve, posterior = display.ax_
    dots = [line for line in curve.lines if line.get_marker() == "o"]
    places = [float(line.get_xdata()[0]) for line in dots]
    np.testing.assert_allclose(places, np.array([20.0, 9.0, 1.0]) - result.z)
    assert posterior.lines[0].get_ydata().max() == 1
    assert f"{result.z:.2f}" in posterior.get_title()


def test_focus_curve_refusals(focus_search):
    af, result = focus_search
    with pytest.raises(ValueError, match="fitted"):
        FocusCurveDisplay.from_estimator(DeepFocusAutofocus())
    with pytest.raises(ValueError, match="2 axes"):
        FocusCurveDisplay.from_estimator(af, result, ax=plt.subplots()[1])
