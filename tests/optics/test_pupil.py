import math
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from scipy.special import gamma, j1, jn_zeros, jv

from sklearn_psf.optics import Optics, pupil_psf, radial_psf, zernike_basis
from sklearn_psf.optics.quadrature import chord_nodes, default_nodes, radial_nodes

FEW = settings(max_examples=12)


def disk(n_nodes):
    y, x, _ = chord_nodes(n_nodes)
    return y[:, None].expand_as(x), x


def wavefront(coefficients, n_nodes):
    """Return W of a dict of Noll coefficients, shape (1, n_nodes, n_nodes)."""
    y, x = disk(n_nodes)
    values = torch.tensor(list(coefficients.values()), dtype=torch.float64)
    return torch.einsum("j,jyx->yx", values, zernike_basis(tuple(coefficients), y, x))[None]


def defocus(focus, n_nodes):
    """Return W of a defocus in waves RMS at the radial nodes, shape (1, n_nodes)."""
    return focus * math.sqrt(3) * (2 * radial_nodes(n_nodes)[0] - 1)[None]


def radii(size):
    pixels = np.arange(size) - size // 2
    return np.hypot(pixels[:, None], pixels)


def airy(size, cutoff):
    v = 2 * np.pi * cutoff * radii(size)
    v[size // 2, size // 2] = 1e-9
    return np.pi * cutoff**2 * (2 * j1(v) / v) ** 2


# ---------------------------------------------------------------------------- quadrature


@pytest.mark.parametrize(("p", "q"), [(0, 0), (2, 0), (0, 2), (4, 2), (6, 8), (1, 0), (3, 5)])
def test_chord_nodes_integrate_monomials_over_the_disk(p, q):
    y, x = disk(12)
    integral = float((chord_nodes(12)[2] * x**p * y**q).sum())
    # the closed form by the beta function; odd powers vanish
    expected = 0.0
    if p % 2 == 0 and q % 2 == 0:
        expected = gamma((p + 1) / 2) * gamma((q + 1) / 2) / gamma((p + q) / 2 + 2)
    assert integral == pytest.approx(expected, abs=1e-13)


def test_radial_nodes_integrate_the_square_of_the_radius():
    squares, weights = radial_nodes(6)
    for power in range(8):
        assert float(weights @ squares**power) == pytest.approx(1 / (power + 1), abs=1e-13)


@pytest.mark.parametrize("focus", [0.0, 1.5, 2.5])
def test_default_nodes_are_enough(focus):
    size, cutoff = 63, 0.25
    n = default_nodes(size, cutoff)
    coarse, fine = (pupil_psf(wavefront({4: focus, 5: 0.5}, k), cutoff, size) for k in (n, n + 60))
    assert float((coarse - fine).abs().max() / fine.max()) < 1e-6


# ---------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("cutoff", [0.03, 0.125, 0.25])
def test_airy_pattern(cutoff):
    size, expected = 41, airy(41, cutoff)
    flat = torch.zeros(1, 64, dtype=torch.float64)
    square = torch.zeros(1, 64, 64, dtype=torch.float64)
    for psf in (
        radial_psf(flat, cutoff, size, normalize=False),
        pupil_psf(square, cutoff, size, normalize=False),
    ):
        np.testing.assert_allclose(psf[0].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize(
    "optics",
    [
        Optics(na=0.3, wavelength=0.5, pixel_size=0.02),
        Optics(na=0.75, wavelength=0.65, pixel_size=0.4, magnification=40),
        Optics(na=1.3, wavelength=0.52, pixel_size=0.004, refractive_index=1.515),
    ],
)
def test_airy_zeros_and_width_are_proportional_to_wavelength_over_na(optics):
    size = 2 * math.ceil(1.3 / optics.cutoff) + 1
    psf = radial_psf(torch.zeros(1, 64, dtype=torch.float64), optics.cutoff, size)[0]
    half = psf[size // 2, size // 2 :].numpy()
    micrometres = np.arange(len(half)) * optics.object_pixel
    resolution = optics.wavelength / optics.na
    minima = CubicSpline(micrometres, half).derivative().roots(extrapolate=False)
    for k, zero in enumerate(jn_zeros(1, 2)):
        expected = zero / (2 * np.pi) * resolution
        assert np.abs(minima - expected).min() < 2e-4 * resolution
        assert expected / resolution == pytest.approx([0.60983, 1.11657][k], abs=1e-5)
    (width,) = CubicSpline(micrometres, half / half[0] - 0.5).roots(extrapolate=False)
    assert 2 * width / resolution == pytest.approx(0.51450, abs=1e-4)


@FEW
@given(st.floats(0, 3))
def test_defocus_on_the_axis(edge):
    """The intensity on the axis is sinc^2 of the wavefront at the rim, in waves."""
    squares = radial_nodes(48)[0]
    psf = radial_psf(edge * squares[None], 0.2, 3, normalize=False)
    expected = np.pi * 0.2**2 * np.sinc(edge) ** 2
    assert float(psf[0, 1, 1]) == pytest.approx(expected, abs=1e-13)


@FEW
@given(st.floats(-1.5, 1.5), st.floats(0.1, 0.3))
def test_both_integrals_agree(focus, cutoff):
    size = 31
    n = default_nodes(size, cutoff)
    flat = pupil_psf(wavefront({4: focus}, n), cutoff, size)
    radial = radial_psf(defocus(focus, n), cutoff, size)
    torch.testing.assert_close(flat, radial, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("dy", "dx"), [(3, 0), (0, -5), (-2, 4)])
def test_tilt_moves_the_psf(dy, dx):
    size, cutoff, n = 41, 0.2, 80
    y, x = disk(n)
    centred = wavefront({4: 0.3, 7: 0.2}, n)
    moved = pupil_psf(centred + cutoff * (dy * y + dx * x), cutoff, size, normalize=False)
    still = pupil_psf(centred, cutoff, size, normalize=False)
    inner = slice(8, -8)
    expected = torch.roll(still, (dy, dx), (1, 2))
    torch.testing.assert_close(
        moved[0, inner, inner], expected[0, inner, inner], atol=1e-12, rtol=0
    )


def test_amplitude_of_a_parabolic_pupil():
    """The transform of 1 - rho^2 over the disk is 4 pi J_2(v) / v^2."""
    size, cutoff, n = 31, 0.2, 64
    y, x = disk(n)
    v = 2 * np.pi * cutoff * radii(size)
    v[size // 2, size // 2] = 1e-4
    expected = cutoff**2 / np.pi * (4 * np.pi * jv(2, v) / v**2) ** 2
    amplitude = 1 - x**2 - y**2
    flat = torch.zeros(1, n, n, dtype=torch.float64)
    for a in (amplitude, amplitude[None]):
        psf = pupil_psf(flat, cutoff, size, amplitude=a, normalize=False)
        np.testing.assert_allclose(psf[0].numpy(), expected, atol=1e-8)


# ------------------------------------------------------------------------- energy and band


def test_published_energy_within_127_pixels():
    size, cutoff = 127, 0.25
    n = default_nodes(size, cutoff)
    energy = float(radial_psf(defocus(1.5, n), cutoff, size, normalize=False).sum())
    assert 0.985 < energy < 1


@FEW
@given(st.floats(0, 1.5), st.floats(-0.4, 0.4))
def test_energy_is_conserved(focus, astigmatism):
    """What is within the array grows with it, and is never more than what passed the pupil."""
    cutoff, sizes = 0.25, (31, 63, 95)
    n = default_nodes(sizes[-1], cutoff)
    w = wavefront({4: focus, 5: astigmatism}, n)
    small, medium, large = (
        float(pupil_psf(w, cutoff, size, normalize=False).sum()) for size in sizes
    )
    assert small < medium < large < 1
    # Airy's tail holds about 1 / (pi^2 f_c r); 1.5 waves of defocus spread over 42 pixels
    assert large > 0.97
    assert float(pupil_psf(w, cutoff, 31).sum()) == pytest.approx(1, abs=1e-12)


def test_otf_in_focus_is_the_overlap_of_two_disks():
    size, cutoff = 255, 0.2
    flat = torch.zeros(1, default_nodes(size, cutoff), dtype=torch.float64)
    psf = radial_psf(flat, cutoff, size, normalize=False)[0]
    otf = torch.fft.fft2(torch.fft.ifftshift(psf)).real.numpy()
    frequency = np.fft.fftfreq(size)
    s = np.clip(np.hypot(frequency[:, None], frequency) / (2 * cutoff), 0, 1)
    expected = 2 / np.pi * (np.arccos(s) - s * np.sqrt(1 - s**2))
    # PSFs are non-negative: no frequency can miss more than the energy outside the array
    missing = 1 - float(psf.sum())
    assert missing < 0.01
    assert np.abs(otf - expected).max() <= missing + 1e-9


@pytest.mark.parametrize("coefficients", [{4: 0.0}, {4: 0.8}, {4: 0.4, 5: 0.3}, {7: 0.3, 11: 0.2}])
def test_otf_is_zero_beyond_twice_the_cutoff(coefficients):
    """Cropping spreads the OTF; a smooth window confines the spread to a few frequency steps."""
    size, cutoff = 161, 0.2
    psf = pupil_psf(wavefront(coefficients, default_nodes(size, cutoff)), cutoff, size)[0].numpy()
    window = np.blackman(size)
    otf = np.fft.fft2(psf * window[:, None] * window)
    frequency = np.fft.fftfreq(size)
    beyond = np.hypot(frequency[:, None], frequency) > 2 * cutoff + 6 / size
    assert np.abs(otf[0, 0]) > 0.5 and beyond.any()
    assert np.abs(otf[beyond]).max() < 2e-5
    # the bound is sharp: just within it there is signal
    within = np.abs(frequency - 2 * cutoff * 0.7) < 0.5 / size
    assert np.abs(otf[0, within]).max() > 1e-3


# ---------------------------------------------------------------- derivatives and precision


def test_gradients_of_wavefront_cutoff_and_amplitude():
    n, size = 8, 5
    w = torch.rand(2, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = (0.2 * w).requires_grad_()
    cutoff = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    amplitude = torch.full((n, n), 0.9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *a: pupil_psf(a[0], a[1], size, a[2]), (w, cutoff, amplitude)
    )
    radial = torch.linspace(0, 0.5, n, dtype=torch.float64)[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda r: radial_psf(r, 0.2, size), (radial,))


def test_single_precision():
    size, cutoff, n = 63, 0.25, 96
    w = wavefront({4: 1.0, 6: 0.3}, n)
    double, single = pupil_psf(w, cutoff, size), pupil_psf(w.float(), cutoff, size)
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert float((single - double).abs().max() / double.max()) < 1e-5
    as_tensor = pupil_psf(w.float(), torch.tensor(cutoff), size)
    assert as_tensor.dtype == torch.float32
    torch.testing.assert_close(as_tensor, single, atol=1e-7, rtol=0)
    r = defocus(1.0, n)
    double, single = radial_psf(r, cutoff, size), radial_psf(r.float(), cutoff, size)
    assert single.dtype == torch.float32
    assert float((single - double).abs().max() / double.max()) < 1e-5


def test_arguments_are_not_modified():
    w = wavefront({4: 0.3}, 16)
    kept = w.clone()
    pupil_psf(w, 0.2, 7)
    assert torch.equal(w, kept)


# -------------------------------------------------------------------------------- Optics


def test_optics_units():
    optics = Optics(na=0.3, wavelength=0.5, pixel_size=4.0, magnification=10)
    assert optics.object_pixel == pytest.approx(0.4)
    assert optics.cutoff == pytest.approx(0.3 * 0.4 / 0.5)
    assert optics.waves_per_micrometre == pytest.approx(0.09 / (4 * math.sqrt(3) * 0.5))
    assert optics.waves_to_micrometres(optics.micrometres_to_waves(7.0)) == pytest.approx(7.0)


def test_conversion_is_the_zernike_coefficient_of_the_paraxial_wavefront():
    """Projected on Noll 4, the paraxial wavefront has the coefficient that Optics states."""
    optics = Optics(na=0.8, wavelength=0.6, pixel_size=0.1, refractive_index=1.33)
    squares, weights = radial_nodes(16)
    w = optics.defocus_wavefront(3.0, squares.sqrt(), exact=False)
    coefficient = float(weights @ (w * math.sqrt(3) * (2 * squares - 1)))
    assert coefficient == pytest.approx(optics.micrometres_to_waves(3.0))


def test_exact_defocus_is_the_change_of_the_axial_path():
    optics = Optics(na=1.2, wavelength=0.5, pixel_size=0.05, refractive_index=1.33)
    rho = torch.linspace(0, 1, 5, dtype=torch.float64)
    angle = torch.asin(1.2 / 1.33 * rho)
    expected = 1.33 * 2.0 / 0.5 * (1 - torch.cos(angle))
    torch.testing.assert_close(optics.defocus_wavefront(2.0, rho), expected)


def test_exact_defocus_becomes_paraxial_at_low_aperture():
    rho = torch.linspace(0, 1, 11, dtype=torch.float64)
    relative = []
    for na in (0.05, 0.1, 0.2):
        optics = Optics(na=na, wavelength=0.5, pixel_size=0.1)
        exact = optics.defocus_wavefront(50.0, rho)
        paraxial = optics.defocus_wavefront(50.0, rho, exact=False)
        relative.append(float((exact - paraxial).abs().max() / paraxial.max()))
    # the next term of the series is (na / 2)^2 of the first
    np.testing.assert_allclose(relative, [(na / 2) ** 2 for na in (0.05, 0.1, 0.2)], rtol=0.05)


def test_undersampled_optics_warn_with_the_numbers():
    with pytest.warns(UserWarning, match=r"0\.390.*0\.25.*0\.2083 um.*0\.325 um") as caught:
        Optics(na=0.6, wavelength=0.5, pixel_size=6.5, magnification=20)
    assert caught[0].filename == __file__  # the warning points at the caller's line


def test_nyquist_sampling_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Optics(na=0.5, wavelength=0.5, pixel_size=0.25).cutoff == 0.25


@pytest.mark.parametrize(
    "name", ["na", "wavelength", "pixel_size", "refractive_index", "magnification"]
)
@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, None, "0.5", True, 1 + 0j])
def test_optics_refuses_what_is_no_positive_number(name, value):
    arguments = {"na": 0.3, "wavelength": 0.5, "pixel_size": 0.2} | {name: value}
    with pytest.raises(ValueError, match=name) as error:
        Optics(**arguments)
    assert repr(value) in str(error.value)


def test_optics_refuses_nanometres_and_impossible_apertures():
    with pytest.raises(ValueError, match="wavelength must be in micrometres.*520"):
        Optics(na=0.3, wavelength=520, pixel_size=0.2)
    with pytest.raises(ValueError, match=r"na must not exceed refractive_index=1\.0, got 1\.2"):
        Optics(na=1.2, wavelength=0.5, pixel_size=0.05)


def test_optics_is_immutable_and_compares_by_value():
    optics = Optics(na=0.3, wavelength=0.5, pixel_size=0.2)
    assert optics == Optics(0.3, 0.5, 0.2) and hash(optics) == hash(Optics(0.3, 0.5, 0.2))
    with pytest.raises(FrozenInstanceError):
        optics.na = 0.4
