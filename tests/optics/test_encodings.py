"""The coordinates of regression: one to one with the blur, continuous, and safe to average."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_psf.optics import make_psf_model
from sklearn_psf.optics.encodings import (
    decode_astigmatism,
    decode_cylinder,
    encode_astigmatism,
    encode_cylinder,
)
from sklearn_psf.optics.motion_encodings import (
    decode_astigmatic_motion,
    decode_motion,
    encode_astigmatic_motion,
    encode_motion,
    nearest_motion,
)

FEW = settings(max_examples=15)
CODECS = {
    "cylinder": (encode_cylinder, decode_cylinder, 2),
    "astigmatism": (encode_astigmatism, decode_astigmatism, 3),
    "motion": (encode_motion, decode_motion, 4),
    "astigmatic motion": (encode_astigmatic_motion, decode_astigmatic_motion, 4),
}
codecs = pytest.mark.parametrize(("encode", "decode", "n"), CODECS.values(), ids=CODECS)

focus = st.floats(0, 1.5)
cylinder = st.floats(0, 0.75)
axis = st.floats(0, math.pi)
speed = st.floats(-20, 20)
waves = st.floats(0, 1)
step = st.floats(-1, 1)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def same(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def astigmatism(v):
    """Return (focus, cylinder, axis) of the wavefront v = (Z4, Z6, Z5), focus made positive."""
    v = np.where(v[0] < 0, -v, v)
    return row(v[0], math.hypot(v[1], v[2]), math.atan2(v[2], v[1]) / 2 % math.pi)


# ------------------------------------------------------------- equal where the blurs are equal


@FEW
@given(cylinder, axis)
def test_cylinder_has_a_quarter_turn_as_period(c, a):
    e = encode_cylinder(row(c, a))
    same(e, encode_cylinder(row(c, a + math.pi / 2)))
    same(e, encode_cylinder(row(-c, a)))


@FEW
@given(focus, cylinder, axis)
def test_mirrored_defocus_is_a_quarter_turn(f, c, a):
    e = encode_astigmatism(row(f, c, a))
    same(e, encode_astigmatism(row(-f, c, a + math.pi / 2)))
    same(e, encode_astigmatism(row(f, c, a + math.pi)))
    same(e, encode_astigmatism(row(-f, -c, a)))


@FEW
@given(speed, speed, waves, waves)
def test_reversed_time_and_mirrored_defocus_are_one_motion(vy, vx, vz, z0):
    e = encode_motion(row(vy, vx, vz, z0))
    same(e, encode_motion(row(-vy, -vx, -vz, z0)))
    same(e, encode_motion(row(vy, vx, -vz, -z0)))
    same(e, encode_motion(row(-vy, -vx, vz, -z0)))


@FEW
@given(speed, speed, waves, step)
def test_reversed_time_is_one_motion_behind_an_astigmatic_lens(vy, vx, vz, z0):
    e = encode_astigmatic_motion(row(vy, vx, vz, z0))
    same(e, encode_astigmatic_motion(row(-vy, -vx, -vz, z0)))
    p = decode_astigmatic_motion(e)
    same(encode_astigmatic_motion(p), e, 2e-5)
    assert p[0, 2] >= 0 and float(p[0, 3]) == z0


def test_an_astigmatic_lens_tells_the_sides_of_focus_apart():
    e = encode_astigmatic_motion(row(3.0, -4.0, 0.5, 0.5))
    for other in (row(3.0, -4.0, 0.5, -0.5), row(-3.0, 4.0, 0.5, 0.5)):
        assert (encode_astigmatic_motion(other) - e).abs().max() > 0.5


def test_different_blurs_differ():
    assert (encode_cylinder(row(0.5, 0.2)) - encode_cylinder(row(0.5, 0.9))).abs().max() > 0.1
    turned = encode_astigmatism(row(0.5, 0.3, 0.2 + math.pi / 2))
    assert (encode_astigmatism(row(0.5, 0.3, 0.2)) - turned).abs().max() > 0.1
    reversed_sense = encode_motion(row(-3.0, 4.0, 0.5, 0.5))
    assert (encode_motion(row(3.0, -4.0, 0.5, 0.5)) - reversed_sense).abs().max() > 1


def test_what_means_nothing_is_not_encoded():
    same(encode_cylinder(row(0, 0.3)), encode_cylinder(row(0, 1.2)))
    same(encode_astigmatism(row(0.7, 0, 0.3)), encode_astigmatism(row(0.7, 0, 2.0)))
    # without focus a quarter turn is a period, with it a half turn
    same(encode_astigmatism(row(0, 0.4, 0.3)), encode_astigmatism(row(0, 0.4, 0.3 + math.pi / 2)))
    for vz, z0 in ((0.0, 0.6), (0.6, 0.0)):  # the sense is lost
        same(encode_motion(row(3, 5, vz, z0)), encode_motion(row(-3, -5, vz, z0)))


# ------------------------------------------------------------------------------ there and back


@FEW
@given(st.floats(0.01, 0.75), st.floats(0, math.pi / 2, exclude_max=True))
def test_cylinder_round_trip(c, a):
    p = decode_cylinder(encode_cylinder(row(c, a)))
    same(encode_cylinder(p), encode_cylinder(row(c, a)))
    assert 0 <= p[0, 1] < math.pi / 2


@FEW
@given(focus, cylinder, axis)
def test_astigmatism_round_trip(f, c, a):
    p = decode_astigmatism(encode_astigmatism(row(f, c, a)))
    same(p[:, :2], row(f, c))
    same(encode_astigmatism(p), encode_astigmatism(row(f, c, a)), 1e-6)
    assert 0 <= p[0, 2] < math.pi
    if f > 0.05 and c > 0.05:
        turn = float(p[0, 2]) - a
        assert abs(math.remainder(turn, math.pi)) < 1e-6


@FEW
@given(speed, speed, waves, waves)
def test_motion_round_trip(vy, vx, vz, z0):
    e = encode_motion(row(vy, vx, vz, z0))
    p = decode_motion(e)
    same(encode_motion(p), e, 2e-6)
    if min(vz, z0) > 0.01:
        same(p, row(vy, vx, vz, z0), 2e-6)


@codecs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_and_leading_axes_are_kept(encode, decode, n, dtype):
    p = torch.rand(2, 5, n, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 0.1
    e = encode(p)
    assert e.dtype == dtype and e.shape[:-1] == (2, 5)
    back = decode(e)
    assert back.dtype == dtype and back.shape == p.shape
    torch.testing.assert_close(back, p, atol=1e-5 if dtype == torch.float32 else 1e-9, rtol=0)


def test_axis_never_reaches_its_period():
    """In float32 the remainder of a tiny negative angle rounds to the period itself."""
    tiny = torch.tensor([[0.5, 0.5, -1e-9]])
    assert float(decode_cylinder(tiny)[0, 1]) == 0.0
    e = encode_astigmatism(torch.tensor([[0.5, 0.5, -1e-9]]))
    assert 0 <= float(decode_astigmatism(e)[0, 2]) < math.pi


# ---------------------------------------------------------------------- continuity and averages


@FEW
@given(
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    st.tuples(step, step, step),
)
def test_astigmatism_is_continuous_through_no_focus_and_no_cylinder(v, d):
    """A small step of the wavefront is a small step of the code, also where the axis jumps."""
    v, d = np.array(v), 1e-3 * np.array(d)
    change = encode_astigmatism(astigmatism(v + d)) - encode_astigmatism(astigmatism(v))
    assert float(change.abs().max()) <= 3 * np.linalg.norm(d) + 2e-6


@FEW
@given(
    st.tuples(speed, speed, st.floats(-0.05, 0.05), st.floats(-0.05, 0.05)),
    st.tuples(step, step, step, step),
)
def test_motion_is_continuous_where_the_sense_is_lost(p, d):
    p, d = row(*p), 1e-3 * row(*d)
    change = encode_motion(p + d) - encode_motion(p)
    assert float(change.abs().max()) <= (4 + 2 * p.norm()) * float(d.norm()) + 2e-6


@codecs
def test_small_steps_across_zero(encode, decode, n):
    for i in range(n):
        p = torch.full((1, n), 0.4, dtype=torch.float64)
        below, above = p.clone(), p.clone()
        below[0, i], above[0, i] = -1e-6, 1e-6
        same(encode(below), encode(above), 5e-5)  # slopes reach 20 per wave


@FEW
@given(focus, cylinder, axis)
def test_average_of_equivalent_wavefronts_is_the_same_wavefront(f, c, a):
    e = encode_astigmatism(row(f, c, a))
    mean = (e + encode_astigmatism(row(-f, c, a + math.pi / 2))) / 2
    same(encode_astigmatism(decode_astigmatism(mean)), e, 1e-6)


@FEW
@given(speed, speed, waves, waves)
def test_average_of_equivalent_motions_is_the_same_motion(vy, vx, vz, z0):
    e = encode_motion(row(vy, vx, vz, z0))
    mean = (e + encode_motion(row(-vy, -vx, -vz, z0))) / 2
    same(encode_motion(decode_motion(mean)), e, 2e-6)


def test_average_across_the_wrap_of_the_axis():
    """Axes just below and just above the seam average to the seam, not to its opposite."""
    below, above = row(0.6, 0.4, math.pi - 0.1), row(0.6, 0.4, 0.1)
    mean = decode_astigmatism((encode_astigmatism(below) + encode_astigmatism(above)) / 2)
    assert abs(math.remainder(float(mean[0, 2]), math.pi)) < 1e-9
    mean = decode_cylinder(
        (encode_cylinder(row(0.4, math.pi / 2 - 0.1)) + encode_cylinder(row(0.4, 0.1))) / 2
    )
    assert abs(math.remainder(float(mean[0, 1]), math.pi / 2)) < 1e-9


def test_decoded_axis_is_the_nearest_of_all():
    """For coordinates off the surface the axis maximises v^T M v, compared with a fine grid."""
    generator = torch.Generator().manual_seed(0)
    e = torch.rand(300, 6, dtype=torch.float64, generator=generator) - 0.5
    e[:, :2] = e[:, :2].abs() + 0.05
    f, c, p1, p2, q1, q2 = (column[:, None] for column in e.unbind(-1))

    def value(phi):
        once = p1 * torch.cos(phi) + p2 * torch.sin(phi)
        twice = q1 * torch.cos(2 * phi) + q2 * torch.sin(2 * phi)
        return 4 * f * once + c * twice

    best = value(torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)[None]).amax(1)
    found = value(2 * decode_astigmatism(e)[:, 2:])[:, 0]
    assert float((best - found).max()) < 1e-9


# -------------------------------------------------------------------------------- hard values


@codecs
def test_gradients_are_finite_at_the_origin(encode, decode, n):
    p = torch.zeros(1, n, dtype=torch.float64, requires_grad=True)
    e = encode(p)
    (gradient,) = torch.autograd.grad(e.sum(), p)
    assert torch.isfinite(gradient).all()
    e = e.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(decode(e).sum(), e)
    assert torch.isfinite(gradient).all()


@codecs
def test_gradients_match_finite_differences(encode, decode, n):
    p = torch.linspace(0.3, 0.6, n, dtype=torch.float64)[None].requires_grad_()
    assert torch.autograd.gradcheck(encode, (p,))


@codecs
def test_nan_stays_nan(encode, decode, n):
    p = torch.full((2, n), 0.4, dtype=torch.float64)
    p[0] = math.nan
    back = decode(encode(p))
    assert back[0].isnan().all() and back[1].isfinite().all()


def test_amplitudes_are_clipped_at_zero():
    assert float(decode_cylinder(row(-0.1, 0.2, 0.1))[0, 0]) == 0
    assert (decode_astigmatism(row(-0.1, -0.1, 0, 0, 0, 0))[0, :2] == 0).all()
    assert (decode_motion(row(1, 0, -0.1, -0.2, 0, 0))[0, 2:] == 0).all()


@pytest.mark.parametrize("family", ["zernike-2", "zernike-3"])
def test_coherent_keeps_one_psf_and_shrinks_a_contradiction(family):
    model = make_psf_model(family, size=31)
    encoded = model.encode(model.sample(20, random_state=0))
    np.testing.assert_allclose(model.coherent(encoded), encoded, atol=1e-6)
    column = model.parameter_names.index("cylinder")
    axes = np.linspace(0, np.pi, 8, endpoint=False)
    parameters = np.full((8, len(model.parameter_names)), 0.5)
    parameters[:, -1] = axes
    mean = model.encode(parameters).mean(0)
    assert model.decode(mean)[column] == pytest.approx(0.5)
    assert model.decode(model.coherent(mean))[column] < 1e-6


@pytest.mark.parametrize("family", ["zernike-1", "gaussian-2", "motion"])
def test_coherent_leaves_families_without_an_amplitude_alone(family):
    model = make_psf_model(family, size=31)
    encoded = model.encode(model.sample(5, random_state=0))
    np.testing.assert_array_equal(model.coherent(encoded), encoded)


# ------------------------------------------------------------- what is nearest to uncertain motions


@pytest.mark.parametrize("spread", [0.05, 0.4, 0.8, 3.0])
@pytest.mark.parametrize("wide", [0.0, 0.3])
def test_the_nearest_motion_has_the_least_error_up_to_sense(spread, wide):
    """Of vectors along the mean axis, to directions that spread by so many radians."""
    rng = np.random.RandomState(0)
    angle = 0.7 + spread * rng.randn(40000)
    speed = 10 * np.exp(wide * rng.randn(40000) - wide**2 / 2)
    v = np.stack([speed * np.sin(angle), speed * np.cos(angle)], -1)
    rest = np.full((len(v), 2), 0.5)
    e = encode_motion(torch.as_tensor(np.concatenate([v, rest], -1)))
    nearest = decode_motion(nearest_motion(e.mean(0), e.var(0)))[:2].numpy()

    def error(vector):
        return np.mean(np.minimum(((v - vector) ** 2).sum(1), ((v + vector) ** 2).sum(1)))

    axis = nearest / np.linalg.norm(nearest)
    best = min(error(length * axis) for length in np.linspace(0.1, 12, 60))
    assert error(nearest) < 1.05 * best + 0.05
    plain = decode_motion(e.mean(0))[:2].numpy()
    if spread > 0.3:
        assert error(nearest) < 0.95 * error(plain)


def test_a_sure_motion_is_its_own_nearest():
    p = torch.tensor([[3.0, -4.0, 0.5, 0.25], [0.0, 0.0, 0.1, 0.2]], dtype=torch.float64)
    e = encode_motion(p)
    same(nearest_motion(e, torch.zeros_like(e)), e, atol=1e-6)
    model = make_psf_model("motion", cylinder=0.3)
    seven = model.encode(p)
    same(torch.as_tensor(model.nearest(seven.numpy(), np.ones((2, 7)))), seven)
