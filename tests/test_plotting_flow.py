from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import clone

from sklearn_psf import BlurFlowEstimator
from sklearn_psf.optics import Optics
from sklearn_psf.plotting import FlowFieldDisplay

SHAPE = (64, 96)
IMAGE = np.random.default_rng(0).poisson(100.0, SHAPE)
MOTION = np.ones((4, *SHAPE)) * np.reshape([3.0, -4.0, 0.4, 0.6], (4, 1, 1))
MOTION[:, :, 48:] = np.reshape([-6.0, 8.0, 0.2, 0.1], (4, 1, 1))
KINDS = ("arrows", "wheel", "rgb", "axial", "std")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).rand(2, 96, 128)


@pytest.fixture(scope="module")
def truth():
    return np.random.RandomState(1).rand(2, 4, 96, 128)


@pytest.fixture(scope="module")
def fitted(images, truth):
    """An estimator that has seen next to nothing, which is enough to be drawn."""
    return BlurFlowEstimator(max_epochs=1, batch_size=2, random_state=0).fit(images, truth)


@pytest.mark.parametrize(("kind", "n"), list(zip(KINDS, (1, 1, 1, 2, 4), strict=True)))
def test_every_kind_from_an_estimator(fitted, images, kind, n):
    display = FlowFieldDisplay.from_estimator(fitted, images, index=1, kind=kind)
    assert len(display.ax_) == len(display.im_) == n
    motion, std = fitted.predict(images, return_std=True)
    np.testing.assert_allclose(display.motion, motion[1], atol=1e-6)
    np.testing.assert_allclose(display.std, std[1], atol=1e-6)
    np.testing.assert_allclose(display.invalid, fitted.predict_invalid(images)[1], atol=1e-6)
    np.testing.assert_allclose(display.sense, fitted.predict_sense(images)[1], atol=1e-6)
    display.figure_.canvas.draw()


def test_units_and_bounds_are_those_of_the_predictions(fitted, images, truth):
    pixels = fitted.predict(images)
    estimator = clone(fitted).set_params(optics=Optics(na=0.4, wavelength=0.52, pixel_size=0.325))
    for exposure, unit in ((None, "um/exposure"), (0.02, "um/s")):
        estimator.set_params(exposure=exposure).fit(
            images, truth
        )  # the same seed: the same network
        display = FlowFieldDisplay.from_estimator(estimator, images)
        assert display.units == (unit, unit, "um")
        scale = np.median(display.motion / pixels[0], axis=(1, 2))
        np.testing.assert_allclose(display.bounds, scale * [20, 20, 1, 1], rtol=1e-4)
        assert display.pixel_size == 0.325
        assert display.ax_[0].get_xlabel() == "x (um)"
    # What can be read is a matter of the lens and not of the camera behind it.
    estimator.set_params(optics=Optics(na=0.4, wavelength=0.52, pixel_size=0.26))
    finer = FlowFieldDisplay.from_estimator(estimator.fit(images, truth), images)
    np.testing.assert_allclose(finer.bounds, display.bounds)
    assert finer.pixel_size == 0.26


def test_arrows_point_where_the_motion_goes_and_stand_on_its_pixels():
    display = FlowFieldDisplay.from_predictions(IMAGE, MOTION)
    headed, headless = display.quiver_
    assert headless.N == 0
    at = headed.get_offsets().astype(int)
    np.testing.assert_array_equal([headed.V, headed.U], MOTION[:2, at[:, 1], at[:, 0]])
    assert headed.angles == headed.scale_units == "xy"
    assert headed.pivot == "middle"
    bottom, top = display.ax_[0].get_ylim()
    assert bottom > top  # rows go down, and so does a positive v_y
    spacing = np.diff(np.unique(at[:, 0])).min()
    assert np.hypot(headed.U, headed.V).max() / headed.scale == pytest.approx(0.95 * spacing)


def test_scale_arrow_is_a_round_length_of_the_same_scale():
    display = FlowFieldDisplay.from_predictions(IMAGE, MOTION)
    (key,) = [c for c in display.ax_[0].get_children() if type(c).__name__ == "QuiverKey"]
    assert key.Q is display.quiver_[0]
    assert (key.U, key.text.get_text()) == (10.0, "10 px/exposure")


@pytest.mark.parametrize("sure", [0.0, 0.5, 1.0])
def test_arrows_lose_their_heads_with_the_sense(sure):
    sense = np.where(np.arange(SHAPE[1]) < 96 * sure, 0.97, 0.6) * np.ones(SHAPE)
    headed, headless = FlowFieldDisplay.from_predictions(IMAGE, MOTION, sense=sense).quiver_
    assert headless.headlength == 0 and headed.headlength > 0
    share = headed.N / (headed.N + headless.N)
    assert share == pytest.approx(sure, abs=0.1)
    headed.figure.canvas.draw()


def test_nothing_is_drawn_where_nothing_can_be_read():
    invalid = np.zeros(SHAPE)
    invalid[:32] = 0.9
    motion = MOTION.copy()
    motion[2, :, :24] = np.nan  # one component is enough
    arrows = FlowFieldDisplay.from_predictions(IMAGE, motion, invalid).quiver_[0]
    at = arrows.get_offsets()
    assert len(at) and (at[:, 0] >= 24).all() and (at[:, 1] >= 32).all()
    for kind in ("wheel", "rgb"):
        colours = FlowFieldDisplay.from_predictions(IMAGE, motion, invalid, kind=kind).im_[0]
        grey = (np.abs(colours.get_array() - 0.6) < 1e-9).all(-1)
        assert grey[:32].all() and grey[:, :24].all() and not grey[32:, 24:].any()
    for kind in ("axial", "std"):
        display = FlowFieldDisplay.from_predictions(IMAGE, motion, invalid, MOTION, kind=kind)
        for image in display.im_:
            hidden = np.ma.getmaskarray(image.get_array())
            assert hidden[:32].all() and hidden[:, :24].all() and not hidden[32:, 24:].any()
    assert (invalid[:32] == 0.9).all() and not np.isnan(motion[0]).any()  # inputs are kept


def test_hue_is_the_direction_and_brightness_the_speed():
    angles = np.radians([0, 90, 180, 270])
    motion = np.zeros((4, 4, 4))
    for k, angle in enumerate(angles):
        motion[:2, k] = np.outer([np.sin(angle), np.cos(angle)], [10.0, 10.0, 10.0, 5.0])
    display = FlowFieldDisplay.from_predictions(np.ones((4, 4)), motion, kind="wheel")
    colours = display.im_[0].get_array()
    full = [[1, 0, 0], [0.5, 1, 0], [0, 1, 1], [0.5, 0, 1]]  # right, down, left, up
    np.testing.assert_allclose(colours[:, 0], full, atol=1e-9)
    np.testing.assert_allclose(colours[:, 3], np.array(full) / 2, atol=1e-9)


def test_wheel_explains_the_colours_of_the_panel():
    display = FlowFieldDisplay.from_predictions(IMAGE, MOTION, kind="wheel")
    (wheel,) = display.ax_[0].child_axes
    assert "rim: 10\npx/exposure" in [text.get_text() for text in wheel.texts]
    picture = wheel.images[0]
    left, right, bottom, top = picture.get_extent()
    colours, n = picture.get_array(), len(picture.get_array())
    for column in (10, 70):  # the colour of a motion stands in its direction
        v_y, v_x = MOTION[:2, 20, column] / 10.0
        row = round((v_y - top) / (bottom - top) * (n - 1))
        place = round((v_x - left) / (right - left) * (n - 1))
        expected = display.im_[0].get_array()[20, column]
        np.testing.assert_allclose(colours[row, place, :3], expected, atol=0.05)


def test_published_colours_are_magnitudes_on_their_bounds():
    display = FlowFieldDisplay.from_predictions(IMAGE, MOTION, kind="rgb", bounds=(12, 16, 0.5, 1))
    colours = display.im_[0].get_array()
    np.testing.assert_allclose(colours[0, 0], [3 / 12, 4 / 16, 0.4 / 0.5])
    np.testing.assert_allclose(colours[0, -1], [6 / 12, 8 / 16, 0.2 / 0.5])
    bars = display.ax_[0].child_axes
    labels = [[label.get_text() for label in bar.get_yticklabels()] for bar in bars]
    assert labels[0] == ["0", "|v_y|", "12 px/exposure"]
    assert labels[2] == ["0", "|v_z|", "0.5 waves RMS/exposure"]
    motion = MOTION * [[[1e3]], [[1e3]], [[1]], [[1]]]
    bounds, units = (2e4, 1234.4, 1, 1), ("um/s", "um/s", "um")
    fast = FlowFieldDisplay.from_predictions(IMAGE, motion, kind="rgb", bounds=bounds, units=units)
    labels = [bar.get_yticklabels()[2].get_text() for bar in fast.ax_[0].child_axes]
    assert labels == ["20000 um/s", "1234 um/s", "1 um/s"]
    for k, bar in enumerate(bars):
        assert bar.images[0].get_array()[-1, 0].tolist() == np.eye(3)[k].tolist()


@pytest.mark.parametrize("signed", [False, True])
def test_axial_maps_have_their_units(signed):
    motion = MOTION.copy()
    motion[3, :10] *= -1 if signed else 1
    units = ("um/s", "um/s", "um")
    display = FlowFieldDisplay.from_predictions(IMAGE, motion, kind="axial", units=units)
    for image, values, unit in zip(display.im_, motion[2:], units[1:], strict=True):
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.colorbar.ax.get_ylabel() == unit
    assert display.im_[0].get_clim() == (0, 0.4)
    # A sign is shown around focus.
    assert display.im_[1].get_clim() == ((-0.6, 0.6) if signed else (0, 0.6))


def test_pixel_size_sets_the_axes():
    display = FlowFieldDisplay.from_predictions(IMAGE, MOTION, pixel_size=0.5)
    assert display.im_[0].get_extent() == [-0.25, 47.75, 31.75, -0.25]
    assert display.quiver_[0].get_offsets().max() < 48
    spacing = np.diff(np.unique(display.quiver_[0].get_offsets()[:, 0])).min()
    longest = np.hypot(display.quiver_[0].U, display.quiver_[0].V).max()
    assert longest / display.quiver_[0].scale == pytest.approx(0.95 * spacing)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_with_nothing_to_read(kind):
    nothing = np.full(MOTION.shape, np.nan)
    display = FlowFieldDisplay.from_predictions(IMAGE, nothing, std=nothing, kind=kind)
    display.figure_.canvas.draw()
    still = np.zeros(MOTION.shape)
    FlowFieldDisplay.from_predictions(IMAGE, still, std=still, kind=kind).figure_.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"image": np.ones((1, 4, 4))}, r"image must be one image \(H, W\), got shape \(1, 4, 4\)"),
        ({"motion": MOTION[:3]}, r"motion must have shape \(4, 64, 96\), got \(3, 64, 96\)"),
        ({"invalid": np.ones(3)}, r"invalid must have shape \(64, 96\), got \(3,\)"),
        ({"std": MOTION[0]}, r"std must have shape \(4, 64, 96\), got \(64, 96\)"),
        ({"sense": MOTION}, r"sense must have shape \(64, 96\)"),
        ({"kind": "film"}, "kind must be one of 'arrows', .*; got 'film'"),
        ({"kind": "std"}, "std=None"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        FlowFieldDisplay.from_predictions(**{"image": IMAGE, "motion": MOTION} | arguments)


def test_bad_axes_and_index(fitted, images):
    axes = plt.figure().subplots(1, 3)
    with pytest.raises(ValueError, match="ax must hold 2 axes, one per panel, got 3"):
        FlowFieldDisplay(IMAGE, MOTION).plot("axial", ax=axes)
    display = FlowFieldDisplay(IMAGE, MOTION).plot("axial", ax=axes[:2])
    assert display.ax_[1] is axes[1]
    with pytest.raises(ValueError, match=r"index must be in \[0, 1\], got 2"):
        FlowFieldDisplay.from_estimator(fitted, images, index=2)
    with pytest.raises(ValueError, match="Expected 3D images"):
        FlowFieldDisplay.from_estimator(fitted, images[0])
    with pytest.raises(ValueError, match="kind must be one of"):
        FlowFieldDisplay.from_estimator(SimpleNamespace(), images, kind="film")  # before any work
