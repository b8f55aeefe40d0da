import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.ndimage import map_coordinates
from scipy.special import j0

from sklearn_psf.optics import PSF_MODELS, Optics, make_psf_model, pupil_psf, zernike_basis
from sklearn_psf.optics.quadrature import chord_nodes, default_nodes

FEW = settings(max_examples=12)
SIZE = 31
OPTICS = Optics(na=0.3, wavelength=0.5, pixel_size=4.0, magnification=10)
MODELS = {name: make_psf_model(name, size=SIZE, optics=OPTICS) for name in PSF_MODELS}
families = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)

focus = st.floats(0, 1.5)
cylinder = st.floats(0, 0.75)
axis = st.floats(0, math.pi)


def psf(name, *parameters, size=SIZE, cutoff=0.25):
    return make_psf_model(name, cutoff, size, OPTICS).psf([parameters])[0]


def same(a, b, atol=1e-9):
    """Compare PSFs, in units of the peak."""
    assert_allclose(a, b, atol=atol * np.max(b), rtol=0)


def moments(h):
    """Return the variances along y and x and the covariance, pixels squared."""
    pixels = np.arange(len(h)) - len(h) // 2
    y, x = np.meshgrid(pixels, pixels, indexing="ij")
    return (h * y**2).sum(), (h * x**2).sum(), (h * y * x).sum()


# ------------------------------------------------------------------- what every family holds


def test_the_families_and_their_parameters():
    assert {name: model.parameter_names for name, model in MODELS.items()} == {
        "zernike-1": ("focus",),
        "zernike-2": ("cylinder", "axis"),
        "zernike-3": ("focus", "cylinder", "axis"),
        "gaussian-1": ("width",),
        "gaussian-2": ("width_y", "width_x"),
        "diffraction": (*(f"z{j}" for j in range(4, 12)), "cutoff"),
        "born-wolf": ("depth",),
        "motion": ("v_y", "v_x", "v_z", "z0"),
    }
    assert_allclose(MODELS["zernike-3"].bounds, [[0, 1.5], [0, 0.75], [0, math.pi]])
    assert_allclose(MODELS["zernike-2"].bounds, [[0, 0.75], [0, math.pi / 2]])
    assert_allclose(MODELS["gaussian-2"].bounds, [[0.5, 10]] * 2)
    assert_allclose(MODELS["motion"].bounds, [[-20, 20], [-20, 20], [0, 1], [0, 1]])
    assert_allclose(MODELS["diffraction"].bounds[-1], [0.125, 0.25])
    assert make_psf_model("zernike-1").size == 127


@families
def test_lengths_agree(model):
    n = len(model.parameter_names)
    assert len(model.units) == len(model.periods) == n and model.bounds.shape == (n, 2)
    assert model.encode(model.sample(2, 0)).shape == (2, model.n_encoded)
    for period, (low, high) in zip(model.periods, model.bounds, strict=True):
        assert period is None or high - low == pytest.approx(period)


@families
def test_psfs_are_non_negative_centred_and_of_sum_one(model):
    h = model.psf(model.sample(4, random_state=0))
    assert h.shape == (4, SIZE, SIZE)
    assert h.min() >= 0
    assert_allclose(h.sum((1, 2)), 1, atol=1e-12)
    otf = np.abs(np.fft.fft2(h))
    assert otf.max() <= 1 + 1e-12
    assert otf[:, 0, 1].max() < 1 - 1e-4


@families
def test_numpy_and_torch_in_both_precisions(model):
    p = model.sample(2, random_state=1)
    double, single = model.psf(p), model.psf(p.astype(np.float32))
    assert isinstance(double, np.ndarray) and double.dtype == np.float64
    assert isinstance(single, np.ndarray) and single.dtype == np.float32
    same(single, double, 1e-4)
    for dtype, expected in ((torch.float32, single), (torch.float64, double)):
        h = model.psf(torch.from_numpy(p).to(dtype))
        assert h.dtype == dtype
        assert_array_equal(h.numpy(), expected)
    assert_array_equal(model.psf(p.tolist()), double)
    for method in (model.encode, lambda p: model.decode(model.encode(p))):
        assert method(p).dtype == np.float64 and method(p.astype(np.float32)).dtype == np.float32
        assert method(torch.from_numpy(p)).dtype == torch.float64


@families
def test_round_trip_of_the_encoding_keeps_the_psf(model):
    p = model.sample(6, random_state=2)
    same(model.psf(model.decode(model.encode(p))), model.psf(p), 1e-6)


@families
def test_inputs_are_not_modified(model):
    p = model.sample(2, random_state=3)
    kept = p.copy()
    e = model.encode(p)
    kept_e = e.copy()
    model.decode(e)
    model.psf(p)
    model.psf(torch.from_numpy(p))
    assert_array_equal(p, kept)
    assert_array_equal(e, kept_e)
    model.encode(p)[:] = 0  # what is returned is not a view of what was given
    model.decode(e)[:] = 0
    assert_array_equal(p, kept)
    assert_array_equal(e, kept_e)


@families
def test_any_memory_layout_is_taken(model):
    p = model.sample(3, random_state=3)
    expected = model.psf(p)
    frozen = p.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(model.psf(frozen), expected)
        assert_array_equal(model.psf(np.asfortranarray(p)), expected)
        same(model.psf(p[::-1])[::-1], expected)


@families
def test_sample_is_seeded_and_fills_the_bounds(model):
    p = model.sample(400, random_state=0)
    low, high = model.bounds.T
    assert p.shape == (400, len(low)) and p.dtype == np.float64
    assert (p >= low).all() and (p <= high).all()
    assert (p.min(0) < low + 0.05 * (high - low)).all()
    assert (p.max(0) > high - 0.05 * (high - low)).all()
    assert_array_equal(p, model.sample(400, random_state=0))
    assert_array_equal(p, model.sample(400, random_state=np.random.RandomState(0)))
    assert (p != model.sample(400, random_state=1)).all()


@families
def test_settings_rebuild_the_family(model):
    again = make_psf_model(**model.settings, optics=model.optics)
    assert again.settings == model.settings and repr(again) == repr(model)
    assert again.parameter_names == model.parameter_names
    p = model.sample(1, random_state=0)
    assert_array_equal(again.psf(p), model.psf(p))
    assert_array_equal(pickle.loads(pickle.dumps(model)).psf(p), model.psf(p))


def test_repr_is_the_call():
    assert repr(MODELS["zernike-1"]) == "make_psf_model('zernike-1', cutoff=0.25, size=31)"
    assert "n_coefficients=8" in repr(MODELS["diffraction"])


@families
def test_no_parameters_no_psfs(model):
    empty = np.zeros((0, len(model.parameter_names)), np.float32)
    assert model.psf(empty).shape == (0, SIZE, SIZE) and model.psf(empty).dtype == np.float32
    assert model.encode(empty).shape == (0, model.n_encoded)


@families
def test_a_psf_does_not_depend_on_its_batch(model):
    p = model.sample(3, random_state=4)
    together = model.psf(p)
    same(np.concatenate([model.psf(row[None]) for row in p]), together, 1e-9)


def test_large_batches_are_computed_in_pieces():
    model = make_psf_model("zernike-1", size=7)
    p = model.sample(130, random_state=0)
    assert_allclose(model.psf(p)[[0, 63, 64, 129]], model.psf(p[[0, 63, 64, 129]]), atol=1e-14)


@families
def test_nan_parameters_stay_nan_in_the_encoding(model):
    p = model.sample(2, random_state=0)
    p[0] = np.nan
    back = model.decode(model.encode(p))
    assert np.isnan(back[0]).all() and np.isfinite(back[1]).all()


# --------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("name", "p"),
    [
        ("zernike-1", [0.4]),
        ("zernike-2", [0.3, 0.5]),
        ("zernike-3", [0.4, 0.3, 0.5]),
        ("gaussian-1", [1.3]),
        ("gaussian-2", [1.3, 0.8]),
        ("diffraction", [0.1, 0.05, -0.1, 0.2]),
        ("born-wolf", [12.0]),
        ("motion", [1.5, -0.7, 0.3, 0.2]),
    ],
)
def test_gradients_match_finite_differences(name, p):
    extra = {"n_coefficients": 3} if name == "diffraction" else {}
    model = make_psf_model(name, size=5, optics=OPTICS, **extra)
    p = torch.tensor([p], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.psf, (p,))


@families
def test_gradients_are_finite_at_the_origin(model):
    p = torch.zeros(1, len(model.parameter_names), dtype=torch.float64)
    if model.name == "diffraction":
        p[0, -1] = 0.2
    p.requires_grad_()
    h = model.psf(p)
    assert torch.isfinite(h).all()
    weights = torch.linspace(0, 1, SIZE**2, dtype=torch.float64).reshape(SIZE, SIZE)
    (gradient,) = torch.autograd.grad((h * weights**2).sum(), p)
    assert torch.isfinite(gradient).all()


# ----------------------------------------------------------------------------------- zernike


@FEW
@given(focus, cylinder, axis)
def test_mirrored_defocus_turns_the_axis(f, c, a):
    same(psf("zernike-3", -f, c, a), psf("zernike-3", f, c, a + math.pi / 2))
    same(psf("zernike-3", f, -c, a), psf("zernike-3", f, c, a + math.pi / 2))
    same(psf("zernike-3", f, c, a + math.pi), psf("zernike-3", f, c, a))


@FEW
@given(focus, cylinder, axis)
def test_a_quarter_turn_of_the_axis_turns_the_psf(f, c, a):
    same(psf("zernike-3", f, c, a + math.pi / 2), np.rot90(psf("zernike-3", f, c, a)))


@FEW
@given(focus, cylinder, axis, st.floats(-math.pi, math.pi))
def test_the_axis_turns_the_psf_from_x_towards_y(f, c, a, turn):
    cutoff = 0.06  # fine sampling, for the interpolation
    before = psf("zernike-3", f, c, a, cutoff=cutoff)
    after = psf("zernike-3", f, c, a + turn, cutoff=cutoff)
    pixels = np.arange(SIZE) - SIZE // 2
    y, x = np.meshgrid(pixels, pixels, indexing="ij")
    source_x = math.cos(turn) * x + math.sin(turn) * y
    source_y = math.cos(turn) * y - math.sin(turn) * x
    turned = map_coordinates(before, [source_y + SIZE // 2, source_x + SIZE // 2], order=3)
    inside = np.hypot(y, x) < SIZE // 2 - 2
    # the energy of the corners differs, and with it the normalisation
    scale = after[inside].sum() / turned[inside].sum()
    assert_allclose(scale * turned[inside], after[inside], atol=0.01 * after.max())


@FEW
@given(cylinder, st.floats(0, math.pi / 2))
def test_without_focus_a_quarter_turn_changes_nothing(c, a):
    same(psf("zernike-2", c, a), psf("zernike-2", c, a + math.pi / 2))
    same(psf("zernike-2", c, a), psf("zernike-3", 0.0, c, a))


@FEW
@given(st.floats(-1.5, 1.5), axis)
def test_without_cylinder_the_axis_means_nothing(f, a):
    same(psf("zernike-1", f), psf("zernike-3", f, 0.0, a))
    same(psf("zernike-1", f), psf("zernike-1", -f))


@pytest.mark.parametrize("a", [0.0, math.pi / 2])
def test_line_focus_along_the_axis(a):
    """At focus = cylinder / sqrt 2 the wavefront is flat across the axis: a line along it."""
    c = 0.6
    var_y, var_x, _ = moments(psf("zernike-3", c / math.sqrt(2), c, a, size=63))
    along, across = (var_x, var_y) if a == 0 else (var_y, var_x)
    assert along > 5 * across
    # beyond it the spot is longer along the axis all the same, at focus 0 it is square
    var_y, var_x, _ = moments(psf("zernike-3", 1.2, 0.3, a, size=63))
    assert (var_x > 1.2 * var_y) if a == 0 else (var_y > 1.2 * var_x)
    var_y, var_x, _ = moments(psf("zernike-3", 0.0, c, a, size=63))
    assert var_y == pytest.approx(var_x, rel=1e-6)


def test_equal_encodings_are_equal_psfs_and_unequal_ones_are_not():
    model = MODELS["zernike-3"]
    p = np.array([[0.6, 0.4, 0.3], [-0.6, 0.4, 0.3 + math.pi / 2], [0.6, 0.4, 0.3 + math.pi / 2]])
    e, h = model.encode(p), model.psf(p)
    assert_allclose(e[0], e[1], atol=1e-12)
    same(h[0], h[1])
    assert np.abs(e[0] - e[2]).max() > 0.1 and np.abs(h[0] - h[2]).max() > 0.1 * h[0].max()


@FEW
@given(focus, cylinder, axis)
def test_averages_of_equivalent_parameters_give_the_psf_back(f, c, a):
    model = MODELS["zernike-3"]
    equivalent = [[f, c, a], [-f, c, a + math.pi / 2], [f, c, a + math.pi]]
    mean = model.decode(model.encode(equivalent).mean(0, keepdims=True))
    same(model.psf(mean)[0], psf("zernike-3", f, c, a), 1e-5)


# ---------------------------------------------------------------------------------- gaussian


@FEW
@given(st.floats(0.5, 4), st.floats(0.5, 4))
def test_gaussian_closed_form(width_y, width_x):
    h = psf("gaussian-2", width_y, width_x)
    pixels = np.arange(SIZE) - SIZE // 2
    expected = np.exp(-(pixels[:, None] ** 2) / (2 * width_y**2) - pixels**2 / (2 * width_x**2))
    same(h, expected / expected.sum())


@FEW
@given(st.floats(1, 4), st.floats(1, 4))
def test_widths_are_standard_deviations(width_y, width_x):
    var_y, var_x, covariance = moments(psf("gaussian-2", width_y, width_x, size=63))
    assert math.sqrt(var_y) == pytest.approx(width_y, rel=1e-6)
    assert math.sqrt(var_x) == pytest.approx(width_x, rel=1e-6)
    assert covariance == pytest.approx(0, abs=1e-9)


def test_gaussian_limits():
    same(psf("gaussian-1", 2.5), psf("gaussian-2", 2.5, 2.5), 1e-14)
    same(psf("gaussian-1", -2.5), psf("gaussian-1", 2.5), 1e-14)
    delta = np.zeros((SIZE, SIZE))
    delta[SIZE // 2, SIZE // 2] = 1
    assert_array_equal(psf("gaussian-1", 0.0), delta)
    assert_array_equal(MODELS["gaussian-1"].psf(np.zeros((1, 1), np.float32))[0], delta)


# --------------------------------------------------------------------------------- born-wolf


@pytest.mark.parametrize("depth", [0.0, 8.0, 20.0])
def test_born_wolf_is_the_debye_integral(depth):
    """Ratios to the central pixel, so that the normalisation plays no part."""

    def amplitude(r, depth):
        edge = depth * OPTICS.na**2 / (2 * OPTICS.wavelength)

        def part(wave):
            def integrand(rho):
                kernel = j0(2 * np.pi * OPTICS.cutoff * r * rho)
                return kernel * wave(2 * np.pi * edge * rho**2) * 2 * rho

            return quad(integrand, 0, 1, epsabs=1e-11, limit=200)[0]

        return complex(part(np.cos), part(np.sin))

    h = psf("born-wolf", depth)
    centre = SIZE // 2
    on_axis = abs(amplitude(0, depth)) ** 2
    for dy, dx in ((0, 1), (2, 1), (3, 4), (0, 15), (9, 12)):
        expected = abs(amplitude(math.hypot(dy, dx), depth)) ** 2 / on_axis
        assert h[centre + dy, centre - dx] / h[centre, centre] == pytest.approx(expected, rel=1e-6)


def test_born_wolf_on_the_axis():
    """sinc^2 of the depth, with zeros at multiples of 2 n lambda / NA^2."""
    period = 2 * OPTICS.wavelength / OPTICS.na**2
    model = make_psf_model("born-wolf", size=127, optics=OPTICS)
    waves = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
    axis = model.psf(period * waves[:, None])[:, 63, 63]
    # cropping to 127 pixels loses up to 1 % of the energy
    assert_allclose(axis / axis[0], np.sinc(waves) ** 2, atol=0.004)
    assert axis[4:].max() < 1e-12
    assert_allclose(model.bounds, [[0, 1.5 / OPTICS.waves_per_micrometre]])


def test_born_wolf_is_zernike_1_in_micrometres():
    depth = 9.0
    h = make_psf_model("zernike-1", cutoff=OPTICS.cutoff, size=SIZE).psf(
        [[OPTICS.micrometres_to_waves(depth)]]
    )
    same(psf("born-wolf", depth), h[0], 1e-12)
    same(psf("born-wolf", -depth), h[0], 1e-12)


# ------------------------------------------------------------------------------- diffraction


def test_diffraction_is_the_sum_of_its_terms():
    model = make_psf_model("diffraction", size=SIZE, n_coefficients=3)
    f, c, a = 0.5, 0.3, 0.4
    p = [[f, c * math.sin(2 * a), c * math.cos(2 * a), 0.25]]
    same(model.psf(p)[0], psf("zernike-3", f, c, a), 1e-9)
    # the cut-off is a parameter of its own
    p[0][3] = 0.2
    same(model.psf(p)[0], psf("zernike-3", f, c, a, cutoff=0.2), 1e-6)


def test_diffraction_settings():
    model = make_psf_model("diffraction", size=9, n_coefficients=2, max_coefficient=0.1)
    assert model.parameter_names == ("z4", "z5", "cutoff")
    assert_allclose(model.bounds, [[-0.1, 0.1], [-0.1, 0.1], [0.125, 0.25]])
    assert model.settings["max_coefficient"] == 0.1


# ------------------------------------------------------------------------------------ motion


def simpson(n):
    """Return times in [-1/2, 1/2] and the weights of Simpson's rule, n odd."""
    weights = np.full(n, 2.0)
    weights[1::2] = 4
    weights[[0, -1]] = 1
    return np.linspace(-0.5, 0.5, n), weights / weights.sum()


def motion_as_a_sum(p, size, cutoff=0.25, n_times=241):
    """Average PSFs of tilted and defocused pupils over the exposure: no transform, no frame."""
    v_y, v_x, v_z, z0 = p
    n = default_nodes(size, cutoff) + math.ceil(math.hypot(v_y, v_x) * cutoff) + 16
    y, x, _ = chord_nodes(n)
    y = y[:, None].expand_as(x)
    defocus = zernike_basis((4,), y, x)[0]
    total = torch.zeros(size, size, dtype=torch.float64)
    for s, weight in zip(*simpson(n_times), strict=True):
        w = (z0 + v_z * s) * defocus + cutoff * s * (v_y * y + v_x * x)
        total += weight * pupil_psf(w[None], cutoff, size, normalize=False)[0]
    return (total / total.sum()).numpy()


@pytest.mark.parametrize(
    "p",
    [
        (6.0, -9.0, 0.6, 0.4),
        (0.0, 0.0, 1.0, 1.0),  # the disk of geometrical optics is larger than the array
        (20.0, -20.0, 0.0, 0.0),
        (20.0, 10.0, 1.0, 1.0),
        (70.0, 20.0, 0.2, 0.3),  # beyond the bounds: several times the array
    ],
)
def test_motion_is_a_fine_sum_of_shifted_psfs(p):
    same(psf("motion", *p, size=21), motion_as_a_sum(p, 21), 4e-5)


@pytest.mark.parametrize("p", [(5.0, 3.0, 0.7, 0.5), (-4.0, 6.0, 0.3, 0.9)])
def test_equivalent_motions(p):
    v_y, v_x, v_z, z0 = p
    h = psf("motion", *p)
    same(h, psf("motion", -v_y, -v_x, -v_z, z0))
    same(h, psf("motion", v_y, v_x, -v_z, -z0))
    # the sense of the motion shows: it points to the blurred end
    other = psf("motion", -v_y, -v_x, v_z, z0)
    assert np.abs(h - other).max() > 0.05 * h.max()
    same(np.rot90(h, 2), other)


def test_sense_points_to_the_blurred_end():
    h = psf("motion", 0.0, 12.0, 0.8, 0.4)  # sharp at the start, on the left
    peak = np.unravel_index(h.argmax(), h.shape)
    assert peak[0] == SIZE // 2 and peak[1] < SIZE // 2 - 3


def test_sense_is_lost_without_axial_motion_or_mean_defocus():
    for v_z, z0 in ((0.0, 0.5), (0.7, 0.0)):
        same(psf("motion", 4.0, -6.0, v_z, z0), psf("motion", -4.0, 6.0, v_z, z0))


def test_no_motion_is_defocus():
    # radial profiles are interpolated between 32 samples per pixel
    same(psf("motion", 0.0, 0.0, 0.0, 0.5), psf("zernike-1", 0.5), 2e-6)


def astigmatic(*parameters, cylinder=0.3, axis=0.4, size=SIZE):
    model = make_psf_model("motion", size=size, cylinder=cylinder, axis=axis)
    return model.psf(np.array([parameters]))[0]


def test_little_astigmatism_changes_little():
    p = (6.0, -3.0, 0.4, 0.3)
    same(astigmatic(*p, cylinder=1e-9), psf("motion", *p), 1e-5)


@pytest.mark.parametrize("z0", [0.5, -0.5])
def test_an_astigmatic_lens_without_motion_is_zernike_3(z0):
    turned = 0.4 if z0 > 0 else 0.4 + math.pi / 2
    same(astigmatic(0.0, 0.0, 0.0, z0), psf("zernike-3", abs(z0), 0.3, turned))


def test_lateral_motion_behind_an_astigmatic_lens_is_a_box():
    """Moving an image sharpens nothing: its spectrum is multiplied by that of the path."""
    still, moved = (astigmatic(0.0, v, 0.0, 0.4, size=127) for v in (0.0, 9.0))
    f = np.fft.fftfreq(127)
    box = np.fft.fft2(still) * np.sinc(9 * f)
    # still light that moves over the border of the array falls out of one of the two
    same(moved, np.fft.ifft2(box).real, 2e-4)


def test_an_astigmatic_lens_shows_the_sign_of_focus_but_not_of_time():
    p = np.array([5.0, -7.0, 0.6, 0.4])
    h = astigmatic(*p)
    same(h, astigmatic(*(p * [-1, -1, -1, 1])))
    for signs in ([1, 1, -1, -1], [1, 1, 1, -1], [-1, -1, 1, 1]):
        assert np.abs(h - astigmatic(*(p * signs))).max() > 0.05 * h.max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"cylinder": -0.1}, "cylinder must be .* got -0.1"), ({"axis": math.inf}, "axis .* got inf")],
)
def test_motion_checks_its_lens(settings, message):
    with pytest.raises(ValueError, match=message):
        make_psf_model("motion", **settings)


def test_settings_rebuild_an_astigmatic_lens():
    model = make_psf_model("motion", cylinder=0.2, axis=0.1)
    assert make_psf_model(**model.settings).settings == model.settings
    assert model.bounds[3].tolist() == [-1, 1] and model.n_encoded == 7


def test_lateral_motion_adds_the_variance_of_a_box():
    """Uniform motion over v pixels convolves with a box, whose variance is v^2 / 12."""
    h = psf("motion", 0.0, 12.0, 0.0, 0.0, size=63)
    line = h.sum(0)
    still = psf("zernike-1", 0.0, size=63).sum(0)
    width = (np.arange(63) - 31) ** 2
    # the tails of Airy's pattern beyond the array fall out of both
    assert (line * width).sum() - (still * width).sum() == pytest.approx(12**2 / 12, rel=0.1)
    assert (line > 0.5 * line.max()).sum() in (11, 12, 13)


# ------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("name", ["zernike-4", "", None, ["zernike-1"], 3])
def test_unknown_family(name):
    with pytest.raises(ValueError, match="psf_model must be one of zernike-1, .*motion"):
        make_psf_model(name)


@pytest.mark.parametrize("size", [2, 1, -5, 30, 31.5, math.nan, math.inf, None, "31"])
def test_size_must_be_odd(size):
    with pytest.raises(ValueError, match="size must be an odd integer") as error:
        make_psf_model("zernike-1", size=size)
    assert repr(size) in str(error.value)


@pytest.mark.parametrize("cutoff", [0, -0.1, 0.51, 5, math.nan, math.inf, None, "0.25", True])
def test_cutoff_must_be_a_frequency(cutoff):
    with pytest.raises(ValueError, match="cutoff must be in") as error:
        make_psf_model("zernike-1", cutoff=cutoff)
    assert repr(cutoff) in str(error.value)


@pytest.mark.parametrize("optics", [None, 0.25, {"na": 0.3}])
def test_born_wolf_needs_optics(optics):
    with pytest.raises(ValueError, match=r"born-wolf needs optics=Optics"):
        make_psf_model("born-wolf", optics=optics)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_coefficients", v) for v in (0, 1.5, math.nan, None, "8")]
    + [("max_coefficient", v) for v in (0, -1, math.nan, math.inf, None)],
)
def test_diffraction_arguments(name, value):
    with pytest.raises(ValueError, match=name) as error:
        make_psf_model("diffraction", **{name: value})
    assert repr(value) in str(error.value)


def test_diffraction_needs_a_positive_cutoff():
    p = MODELS["diffraction"].sample(2, 0)
    p[1, -1] = 0
    with pytest.raises(ValueError, match="positive cutoff"):
        MODELS["diffraction"].psf(p)


@families
def test_parameters_of_the_wrong_shape(model):
    n, m = len(model.parameter_names), model.n_encoded
    for shape in ((n,), (2, n + 1), (2, 2, n)):
        with pytest.raises(ValueError, match=rf"{model.name} must have shape \(n, {n}\)"):
            model.psf(np.ones(shape))
    for shape in ((), (2, n + 1)):
        with pytest.raises(ValueError, match=rf"{model.name} must have shape \(\.\.\., {n}\)"):
            model.encode(np.ones(shape))
    with pytest.raises(ValueError, match=rf"{model.name} must have shape \(\.\.\., {m}\)"):
        model.decode(np.ones((2, m + 1)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_parameters_must_be_finite(bad):
    for values in (np.array([[bad]]), torch.tensor([[bad]])):
        with pytest.raises(ValueError, match="parameters must be finite"):
            MODELS["zernike-1"].psf(values)


@pytest.mark.parametrize(
    "values", [[[1j]], [["a"]], np.array([[None]]), torch.tensor([[1j]])], ids=repr
)
def test_parameters_must_be_real_numbers(values):
    for method in (MODELS["zernike-1"].psf, MODELS["zernike-1"].encode, MODELS["zernike-1"].decode):
        with pytest.raises(TypeError, match="must be real numbers, got dtype"):
            method(values)


@pytest.mark.parametrize("kind", [int, np.float16, bool])
def test_other_real_kinds_become_float64(kind):
    h = MODELS["zernike-1"].psf(np.ones((1, 1), kind))
    assert h.dtype == np.float64
    same(h[0], psf("zernike-1", 1.0))
    assert MODELS["zernike-1"].psf(torch.ones(1, 1, dtype=torch.int32)).dtype == torch.float32
    assert MODELS["zernike-1"].psf(torch.ones(1, 1, dtype=torch.float16)).dtype == torch.float32


@pytest.mark.parametrize("random_state", ["seed", -1, 1.5])
def test_random_state_must_be_a_seed(random_state):
    with pytest.raises(ValueError, match="random_state.*got") as error:
        MODELS["zernike-1"].sample(3, random_state=random_state)
    assert repr(random_state) in str(error.value)


@pytest.mark.parametrize(("quarters", "mirrored"), [(1, False), (2, False), (0, True), (3, True)])
def test_turned_motions_have_turned_psfs(quarters, mirrored):
    model = make_psf_model("motion", size=41)
    motions = torch.tensor([[3.0, 8.0, 0.6, 0.3], [-6.0, 1.0, 0.2, 0.9]], dtype=torch.float64)
    angle = torch.full((2,), quarters * torch.pi / 2, dtype=torch.float64)
    turned = model.turned(motions, angle, torch.full((2,), mirrored))
    expected = model.psf(motions).flip(-2) if mirrored else model.psf(motions)
    # array axes: a quarter from the column axis towards the row axis
    expected = torch.rot90(expected, -quarters, (-2, -1))
    torch.testing.assert_close(model.psf(turned), expected, atol=1e-6, rtol=0)
    assert model.turns and not make_psf_model("motion", cylinder=0.2).turns
    with pytest.raises(ValueError, match="cannot be turned"):
        make_psf_model("motion", cylinder=0.2).turned(motions, angle, torch.full((2,), mirrored))
