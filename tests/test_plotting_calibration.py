import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm

from sklearn_psf.plotting import ReliabilityDisplay


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def predictions():
    """Normal errors of two parameters, the second an angle; error bars 1 and 0.5 times as long."""
    rng = np.random.RandomState(0)
    truth = np.column_stack([rng.uniform(0, 1, 20000), rng.uniform(0, np.pi, 20000)])
    std = rng.uniform(0.05, 0.15, truth.shape)
    predicted = truth + std * rng.standard_normal(truth.shape)
    predicted[:, 1] %= np.pi
    return truth, predicted, std * [1, 0.5]


def test_curves_are_those_of_normal_errors(predictions):
    display = ReliabilityDisplay.from_predictions(
        *predictions, periods=[None, np.pi], names=["focus", "axis"]
    )
    np.testing.assert_allclose(display.observed[0], display.expected, atol=0.015)
    halved = 2 * norm.cdf(norm.ppf((1 + display.expected) / 2) / 2) - 1
    np.testing.assert_allclose(display.observed[1], halved, atol=0.015)
    for line, observed in zip(display.lines_, display.observed, strict=True):
        np.testing.assert_array_equal(line.get_data(), [display.expected, observed])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["calibrated", "focus", "axis"]


def test_without_its_period_an_angle_errs_by_half_turns(predictions):
    display = ReliabilityDisplay.from_predictions(*predictions)
    with_period = ReliabilityDisplay.from_predictions(*predictions, periods=[None, np.pi])
    assert (display.observed[1] < with_period.observed[1]).any()
    assert display.names == ["parameter 0", "parameter 1"]


def test_textureless_rows_are_left_out(predictions):
    truth, predicted, std = (a.copy() for a in predictions)
    expected = ReliabilityDisplay.from_predictions(truth[100:], predicted[100:], std[100:])
    truth[:100, 1] = np.nan
    predicted[:100], std[:100] = 1e9, 0
    display = ReliabilityDisplay.from_predictions(truth, predicted, std)
    np.testing.assert_array_equal(display.observed, expected.observed)


def test_from_estimator(tiny_regressor, tiny_patches):
    X, y = tiny_patches
    _, ax = plt.subplots()
    display = ReliabilityDisplay.from_estimator(tiny_regressor, X, y, ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    predicted, std = tiny_regressor.predict(X, return_std=True)
    valid = ~np.isnan(y[:, 0])
    within = np.abs(predicted - y)[valid] <= norm.ppf(0.75) * std[valid]  # half of normal errors
    half = np.argmin(abs(display.expected - 0.5))
    assert display.observed[0, half] == pytest.approx(within.mean())
    assert display.names == ["width"]


def test_bad_arguments(predictions):
    truth, predicted, std = predictions
    plot = ReliabilityDisplay.from_predictions
    with pytest.raises(ValueError, match=r"one shape .*\(20000, 2\), \(20000, 2\) and \(20000, 1"):
        plot(truth, predicted, std[:, :1])
    with pytest.raises(ValueError, match=r"one shape .*\(20000,\)"):
        plot(truth[:, 0], predicted[:, 0], std[:, 0])
    with pytest.raises(ValueError, match="periods must have length 2, got 1"):
        plot(truth, predicted, std, periods=[None])
    with pytest.raises(ValueError, match="names must have length 2, got 3"):
        plot(truth, predicted, std, names=["a", "b", "c"])
    with pytest.raises(ValueError, match="y_true must have a row without NaN"):
        plot(truth * np.nan, predicted, std)
    with pytest.raises(ValueError, match="std must be positive"):
        plot(truth, predicted, 0 * std)
    with pytest.raises(ValueError, match="ax must hold 1 axes"):
        plot(truth, predicted, std, ax=plt.subplots(1, 2)[1])
