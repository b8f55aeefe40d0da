import numpy as np
import pytest

from sklearn_psf._depth_curve import apply_curve, fit_curve, scale_by_optics


@pytest.mark.parametrize("kind", ["linear", "cubic", "isotonic"])
@pytest.mark.parametrize("sign", [1, -1])
def test_curve_and_its_inverse(kind, sign):
    y = np.linspace(-5, 15, 200)
    signed = sign * (0.05 * y + 0.3)
    signed[7] = 40.0  # an outlier, unsure of itself
    std = np.full(200, 0.02)
    std[7] = 30.0
    knots = fit_curve(y, signed, std, kind)
    z, z_std = apply_curve(*knots, sign * (0.05 * np.array([-8.0, 0.0, 9.0, 20.0]) + 0.3), std[:4])
    np.testing.assert_allclose(z, [-8, 0, 9, 20], atol=0.3)
    np.testing.assert_allclose(z_std, 0.4, rtol=0.2)


def test_curve_that_would_turn_back_is_taken_of_lower_degree():
    y = np.linspace(-1, 1, 50)
    _, reading = fit_curve(y, y - 0.9 * y**3, np.full(50, 0.1))
    assert (np.diff(reading) > 0).all()


def test_readings_that_do_not_change():
    with pytest.raises(ValueError, match="do not change with y"):
        fit_curve(np.linspace(0, 1, 9), np.zeros(9), np.ones(9))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_optics_correct_a_scale_but_do_not_replace_it(sign):
    theory = np.linspace(-1.2, 0.9, 9)
    slopes = {}
    for n in (1, 4, 400):
        reading = 0.9 * theory + 0.1
        factor = scale_by_optics(sign * reading, theory, n_images=n)
        slopes[n] = 0.9 * factor
    assert 0.92 < slopes[1] < 0.98 and 0.9 < slopes[400] < 0.901
    assert slopes[400] < slopes[4] < slopes[1]
    assert scale_by_optics(sign * 0.6 * theory, theory, n_images=1) == 1  # not these optics
