import numpy as np
import pytest
from sklearn.metrics import r2_score

from sklearn_psf.metrics import parameter_r2


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 1, (50, 3))
    return y, y + rng.normal(0, [0.05, 0.2, 0.5], (50, 3))


def test_plain_parameters_score_as_in_scikit_learn(pair):
    expected = r2_score(*pair, multioutput="raw_values")
    np.testing.assert_allclose(parameter_r2(*pair, multioutput="raw_values"), expected)
    assert parameter_r2(*pair) == pytest.approx(expected.mean())
    assert parameter_r2(pair[0][:, 0], pair[1][:, 0]) == pytest.approx(expected[0])


def test_rows_with_nan_are_left_out(pair):
    y, p = pair[0].copy(), pair[1].copy()
    y[::5] = np.nan
    y[3, 1] = np.nan
    p[0] = np.nan  # a prediction of what is left out may be anything
    keep = np.isfinite(y).all(1)
    assert parameter_r2(y, p) == pytest.approx(parameter_r2(y[keep], p[keep]))


def test_maps_score_as_their_rows(pair):
    y, p = (a[:48].reshape(2, 4, 6, 3) for a in pair)
    assert parameter_r2(y, p) == pytest.approx(parameter_r2(pair[0][:48], pair[1][:48]))


@pytest.mark.parametrize("period", [np.pi, np.pi / 2])
def test_an_angle_is_a_point_on_a_circle(period):
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, period, (80, 1))
    error = rng.normal(0, 0.05 * period, angle.shape)
    score = parameter_r2(angle, angle + error, periods=[period])
    # turns by whole periods do not count
    turned = (angle + error) % period + 3 * period
    assert parameter_r2(angle, turned, periods=[period]) == pytest.approx(score)
    # 1 - mean squared chord over the variance of points on the circle
    e = np.exp(2j * np.pi * angle / period)
    p = np.exp(2j * np.pi * (angle + error) / period)
    expected = 1 - (abs(e - p) ** 2).mean() / (abs(e - e.mean()) ** 2).mean()
    assert score == pytest.approx(expected)
    assert parameter_r2(angle, angle + period / 2, periods=[period]) < -2


def test_both_components_are_pooled():
    # angles that vary in the sine alone: per component the cosine would weigh as much
    angle = np.array([0.1, -0.1, 0.05, -0.05])[:, None]
    assert parameter_r2(angle, angle * 0.9, periods=[np.pi]) > 0.95


@pytest.mark.parametrize(("shift", "score"), [(0.0, 1.0), (0.1, 0.0)])
def test_a_constant_parameter(shift, score):
    assert parameter_r2(np.ones(5), np.ones(5) + shift) == score


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_pred": np.ones((4, 3))}, "one shape"),
        ({"y_true": np.float64(1), "y_pred": np.float64(1)}, "one shape"),
        ({"periods": [None]}, "periods must have length 2"),
        ({"periods": [None, 0.0]}, "periods must be positive"),
        ({"multioutput": "sum"}, "multioutput"),
        ({"y_pred": np.full((4, 2), np.nan)}, "finite"),
        ({"y_true": np.full((4, 2), np.inf)}, "finite"),
        ({"y_true": np.full((4, 2), np.nan)}, "at least 2 rows"),
    ],
)
def test_bad_input(change, message):
    arguments = {"y_true": np.eye(4, 2), "y_pred": np.eye(4, 2)} | change
    with pytest.raises(ValueError, match=message):
        parameter_r2(**arguments)
