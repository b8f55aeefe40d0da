import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_psf._signed_focus import (
    fit_lens_axis,
    lens_cylinder,
    published_product,
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
