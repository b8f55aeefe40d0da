"""PSFs against two independent libraries, to 1e-3 of the peak.

Both sample the pupil on a Cartesian grid, whose staircase along the rim converges slowly: the grids
here are as fine as their own error needs. Where a library takes the transmission of the pupil from
outside, the rim is given its exact share of each sample instead.
"""

import math

import numpy as np
import pytest
import torch
from prysm.polynomials import noll_to_nm as prysm_noll_to_nm
from prysm.polynomials import zernike_nm
from prysm.propagation import Wavefront
from psf_generator.propagators.scalar_cartesian_propagator import ScalarCartesianPropagator
from psf_generator.propagators.scalar_spherical_propagator import ScalarSphericalPropagator

from sklearn_psf.optics import Optics, make_psf_model, noll_to_nm, radial_psf
from sklearn_psf.optics.quadrature import default_nodes, radial_nodes

SIZE, CUTOFF = 41, 0.25
NA, WAVELENGTH = 0.3, 0.5
TOLERANCE = 1e-3

# Noll coefficients in waves RMS
WAVEFRONTS = {
    "in focus": {4: 0.0},
    "defocus": {4: 0.2},
    "oblique astigmatism": {5: 0.2},
    "defocus and astigmatism": {4: 0.2, 5: -0.1, 6: 0.3},
    "coma and spherical": {7: 0.2, 8: -0.1, 11: 0.1},
    "high orders": {15: 0.1, 18: -0.1, 22: 0.15, 36: 0.1},
}
wavefronts = pytest.mark.parametrize("coefficients", WAVEFRONTS.values(), ids=WAVEFRONTS)


def ours(coefficients):
    """Return the PSF of the diffraction family, which takes any Noll term."""
    model = make_psf_model("diffraction", CUTOFF, SIZE, n_coefficients=max(coefficients) - 3)
    p = np.zeros((1, max(coefficients) - 2))
    for j, value in coefficients.items():
        p[0, j - 4] = value
    p[0, -1] = CUTOFF
    return model.psf(p)[0]


def zernike_3(focus, cylinder, axis):
    return make_psf_model("zernike-3", CUTOFF, SIZE).psf([[focus, cylinder, axis]])[0]


def assert_same_psf(psf, reference):
    error = np.abs(psf - reference / reference.sum()).max() / psf.max()
    assert error < TOLERANCE


# -------------------------------------------------------------------------------------- prysm


def rim_shares(r, dx):
    """Share of each sample within the unit disk, to first order in the spacing."""
    return np.clip((1 - r) / dx + 0.5, 0, 1)


def prysm_psf(coefficients, n=384):
    dx = 2.02 / n  # pupil of radius 1 mm
    axis = (np.arange(n) - n // 2) * dx
    x, y = np.meshgrid(axis, axis)
    r, t = np.hypot(x, y), np.arctan2(y, x)
    waves = sum(c * zernike_nm(*prysm_noll_to_nm(j), r, t) for j, c in coefficients.items())
    # prysm takes nanometres of path, micrometres of wavelength, millimetres of pupil
    pupil = Wavefront.from_amp_and_phase(
        rim_shares(r, dx), 1e3 * WAVELENGTH * waves, WAVELENGTH, dx
    )
    focal_length = 1 / NA  # millimetres
    pixel = CUTOFF * WAVELENGTH / NA
    return np.abs(pupil.focus_fixed_sampling(focal_length, pixel, SIZE).data) ** 2


@wavefronts
def test_prysm(coefficients):
    assert_same_psf(ours(coefficients), prysm_psf(coefficients))


@pytest.mark.parametrize("p", [(1.5, 0.0, 0.0), (0.3, 0.6, 0.4), (1.0, 0.75, 2.5)])
def test_prysm_over_the_bounds_of_zernike_3(p):
    f, c, axis = p
    reference = prysm_psf({4: f, 5: c * math.sin(2 * axis), 6: c * math.cos(2 * axis)}, n=1024)
    assert_same_psf(zernike_3(*p), reference)


# ------------------------------------------------------------------------------ psf-generator


def osa_radians(coefficients):
    """Convert Noll coefficients in waves RMS to OSA order, peak-normalised, in radians."""
    terms = {}
    for j, value in coefficients.items():
        n, m = noll_to_nm(j)
        norm = math.sqrt((n + 1) * (2 if m else 1))
        terms[(n * (n + 2) + m) // 2] = 2 * math.pi * norm * value
    # one more than needed: a single term would lose its axis
    vector = torch.zeros(max(terms) + 2, dtype=torch.float64)
    for index, value in terms.items():
        vector[index] = value
    return vector


def geometry(optics, n_pupil):
    return {
        "n_pix_pupil": n_pupil,
        "n_pix_psf": SIZE,
        "wavelength": 1e3 * optics.wavelength,
        "na": optics.na,
        # its samples are fov / (n - 1) apart
        "pix_size": 1e3 * optics.object_pixel * (SIZE - 1) / SIZE,
        "n_i": optics.refractive_index,
        "n_i0": optics.refractive_index,
    }


OPTICS = Optics(na=NA, wavelength=WAVELENGTH, pixel_size=CUTOFF * WAVELENGTH / NA)


def intensity(propagator):
    return (propagator.compute_focus_field().abs() ** 2).squeeze(1).double().numpy()


@wavefronts
def test_psf_generator_on_a_cartesian_pupil(coefficients):
    propagator = ScalarCartesianPropagator(
        zernike_coefficients=osa_radians(coefficients),
        sz_correction=False,
        **geometry(OPTICS, 513),
    )
    # it transforms with the opposite sign, which mirrors the image through the centre
    assert_same_psf(ours(coefficients), np.rot90(intensity(propagator)[0], 2))


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.5])
def test_psf_generator_on_a_radial_pupil(focus):
    # it takes the angle for the pupil radius, which holds at low aperture
    low = Optics(na=0.02, wavelength=WAVELENGTH, pixel_size=CUTOFF * WAVELENGTH / 0.02)
    propagator = ScalarSphericalPropagator(
        zernike_coefficients=osa_radians({4: focus}), cos_factor=True, **geometry(low, 401)
    )
    psf = make_psf_model("zernike-1", CUTOFF, SIZE).psf([[focus]])[0]
    assert_same_psf(psf, intensity(propagator)[0])


@pytest.mark.parametrize(
    ("optics", "depth"),
    [
        (Optics(na=0.9, wavelength=0.55, pixel_size=0.15), 0.8),
        (Optics(na=1.25, wavelength=0.52, pixel_size=0.1, refractive_index=1.515), 0.6),
    ],
)
def test_psf_generator_at_high_aperture(optics, depth):
    """The exact defocus phase, in micrometres, both sides of focus."""
    propagator = ScalarSphericalPropagator(
        cos_factor=True, defocus_step=1e3 * depth, n_defocus=2, **geometry(optics, 401)
    )
    squares = radial_nodes(default_nodes(SIZE, optics.cutoff))[0]
    for z, reference in zip((-depth, depth), intensity(propagator), strict=True):
        w = optics.defocus_wavefront(z, squares.sqrt())
        psf = radial_psf(w[None], optics.cutoff, SIZE)[0].numpy()
        assert_same_psf(psf, reference)
        # the paraxial phase would not do
        paraxial = optics.defocus_wavefront(z, squares.sqrt(), exact=False)
        other = radial_psf(paraxial[None], optics.cutoff, SIZE)[0].numpy()
        assert np.abs(psf - other).max() > 10 * TOLERANCE * psf.max()
