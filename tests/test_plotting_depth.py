import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklearn_psf import AstigmaticDepthEstimator, PSFMap
from sklearn_psf.optics import Optics
from sklearn_psf.plotting import DepthMapDisplay
from sklearn_psf.simulation import depth_to_parameters

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
ROWS, COLUMNS = 64.0 + 32 * np.arange(5), 64.0 + 32 * np.arange(7)
DEPTH = 0.05 * (COLUMNS - 160) + 0.02 * (ROWS[:, None] - 128) + np.zeros((2, 1, 1))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_maps(optics=OPTICS):
    parameters = depth_to_parameters(DEPTH, optics=OPTICS)
    return PSFMap(
        images=np.ones((2, 256, 320), "float32"),
        parameters=parameters,
        std=np.full(parameters.shape, 0.01),
        invalid=np.zeros(DEPTH.shape),
        rows=ROWS,
        columns=COLUMNS,
        model={"name": "zernike-3", "size": 31},
        optics=optics,
    )


@pytest.mark.parametrize("kind", ["map", "profile", "surface"])
def test_from_estimator(kind):
    maps = make_maps()
    estimator = AstigmaticDepthEstimator().fit(maps, DEPTH)
    display = DepthMapDisplay.from_estimator(estimator, maps, DEPTH, index=1, kind=kind)
    assert display.figure_ is display.ax_.figure
    np.testing.assert_allclose(display.depth, DEPTH, atol=0.05)
    assert "um" in display.ax_.get_xlabel()
    display.figure_.canvas.draw()


def test_map_shows_the_depth_where_it_is():
    depth = DEPTH.copy()
    depth[0, 1, 2] = np.nan
    display = DepthMapDisplay(depth, ROWS, COLUMNS, pixel_size=0.5).plot()
    (mesh,) = display.im_
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), np.nan).reshape(5, 7), depth[0])
    assert mesh.colorbar.ax.get_ylabel() == "um"
    cross = display.ax_.lines[0]
    assert (cross.get_xdata(), cross.get_ydata()) == ([COLUMNS[2] * 0.5], [ROWS[1] * 0.5])
    bottom, top = display.ax_.get_ylim()
    assert bottom > top  # rows go down


@pytest.mark.parametrize("per_pixel", [False, True])
def test_profile_runs_along_the_slope_of_the_truth(per_pixel):
    truth = DEPTH
    if per_pixel:
        y, x = np.mgrid[:256, :320]
        truth = np.stack([0.05 * (x - 160.0) + 0.02 * (y - 128)] * 2)
    noisy = DEPTH + np.random.RandomState(0).normal(0, 0.3, DEPTH.shape)
    display = DepthMapDisplay(noisy, ROWS, COLUMNS, std=np.full(DEPTH.shape, 0.3), truth=truth)
    display.plot("profile")
    lines = {line.get_label(): line for line in display.ax_.lines}
    x, y = lines["truth"].get_data()
    np.testing.assert_allclose(np.polyfit(x, y, 1), [np.hypot(0.05, 0.02), 0], atol=1e-9)
    assert np.abs(lines["mean"].get_ydata() - np.interp(lines["mean"].get_xdata(), x, y)).max() < 1
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()]


def test_profile_of_a_bent_surface_is_its_middle_row():
    bent = (COLUMNS - 160.0) ** 2 * 1e-3 + (ROWS[:, None] - 128.0) ** 2 * 1e-3 + np.zeros((1, 1, 1))
    display = DepthMapDisplay(bent, ROWS, COLUMNS, truth=bent).plot("profile")
    truth = next(line for line in display.ax_.lines if line.get_label() == "truth")
    np.testing.assert_allclose(truth.get_data(), [COLUMNS, bent[0, 2]])
    assert display.ax_.get_xlabel() == "x, middle row (pixels)"


def test_surface_needs_axes_in_space():
    display = DepthMapDisplay(DEPTH, ROWS, COLUMNS)
    axes = plt.figure().add_subplot(projection="3d")
    assert display.plot("surface", ax=axes).ax_ is axes
    with pytest.raises(ValueError, match="needs 3-D axes"):
        display.plot("surface", ax=plt.figure().add_subplot())
    with pytest.raises(ValueError, match="at least 2 x 2 windows"):
        DepthMapDisplay(DEPTH[:, :1], ROWS[:1], COLUMNS).plot("surface")


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({}, "film", "kind must be one of"),
        ({"index": 2}, "map", r"index must be in \[0, 1\]"),
        ({"truth": DEPTH[:1]}, "profile", r"truth must be of shape \(2, 5, 7\)"),
    ],
)
def test_bad_arguments(arguments, kind, match):
    with pytest.raises(ValueError, match=match):
        DepthMapDisplay(DEPTH, ROWS, COLUMNS, **arguments).plot(kind)
