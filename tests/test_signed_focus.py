import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_psf._signed_focus import (
    apply_curve,
    fit_curve,
    fit_lens_axis,
    lens_cylinder,
    published_product,
    scale_by_optics,
    signed_focus,
    signed_widths,
)

ZERO = np.zeros(1)


@given(st.floats(-1.5, 1.5), st.floats(0, 3.1))
def test_signed_focus_inverts_the_family(s, lens_axis):
    axis = (lens_axis + np.pi / 2 * (s < 0)) % np.pi
    signed, _ = signed_focus(np.array([abs(s)]), np.array([axis]), ZERO, ZERO, lens_axis)
    assert signed[0] == pytest.approx(s, abs=1e-9)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4])
@pytest.mark.parametrize("spread", [0.02, 0.5, 3.0])
def test_std_of_signed_focus_is_that_of_a_sample(angle, spread):
    rng = np.random.RandomState(0)
    focus = np.full(200_000, 0.6)
    sample = focus * np.cos(2 * (angle + spread * rng.standard_normal(focus.size)))
    _, std = signed_focus(focus[:1], np.array([angle]), ZERO, np.array([spread]), 0.0)
    assert std[0] == pytest.approx(sample.std(), rel=0.05, abs=1e-3)


def test_lens_axis_withstands_readings_that_do_not_know_it():
    rng = np.random.RandomState(0)
    s = rng.uniform(-1, 1, 300)
    axis = np.where(s < 0, 0.9 + np.pi / 2, 0.9)
    lost = rng.rand(300) < 0.4
    axis = np.where(lost, rng.uniform(0, np.pi, 300), axis) % np.pi
    axis_std = np.where(lost, np.pi / np.sqrt(12), 0.05)
    found = fit_lens_axis(abs(s), np.full(300, 0.4), axis, np.full(300, 0.1), axis_std, y=s)
    assert found == pytest.approx(0.9, abs=0.03)
    unsigned = fit_lens_axis(abs(s), np.full(300, 0.4), axis, np.full(300, 0.1), axis_std)
    assert unsigned == pytest.approx(0.9, abs=0.03)


def test_lens_cylinder_trusts_precise_readings():
    cylinder = np.r_[np.full(10, 0.1), np.full(5, 0.4)]
    assert lens_cylinder(cylinder, np.r_[np.full(10, 0.5), np.full(5, 0.05)]) == 0.4


def test_published_product_and_widths_by_hand():
    signed, std = published_product(
        np.array([0.8]), np.array([np.pi / 4]), np.array([0.1]), np.array([0.05])
    )
    assert signed[0] == pytest.approx(-0.4)
    assert std[0] == pytest.approx(np.hypot(0.05, 0.08 / np.pi))
    signed, std = signed_widths(*(np.array([v]) for v in (2.0, 3.0, 0.1, 0.2)))
    assert (signed[0], std[0]) == pytest.approx((-5.0, 2 * np.hypot(0.2, 0.6)))


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
