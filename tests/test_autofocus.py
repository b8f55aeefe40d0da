import pickle

import joblib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sklearn_psf import DeepFocusAutofocus, PSFParameterRegressor, persistence
from sklearn_psf.metrics import FOCUS_MEASURES
from sklearn_psf.optics import Camera, Optics
from sklearn_psf.simulation import make_focal_stack, make_textures

OPTICS = Optics(na=0.3, wavelength=0.522, pixel_size=0.435)
CAMERA = Camera(peak_photons=8000, offset=100.0, bits=16)
MARGIN = 32
SIZE = 256 + 2 * MARGIN
Z = np.r_[-110:-50:12.0, -48:49:6.0, 58:111:12.0]


@pytest.fixture(scope="module")
def stack():
    texture = make_textures(1, size=SIZE, kind="dead-leaves", random_state=1)[0]
    grey = make_focal_stack(
        texture, Z, optics=OPTICS, z_focus=2.0, margin=MARGIN, camera=CAMERA, random_state=0
    )
    return grey.astype(np.uint16)


@pytest.fixture(scope="module")
def autofocus(stack):
    return DeepFocusAutofocus(optics=OPTICS).fit(stack, Z)


@pytest.fixture(scope="module")
def learnt(stack):
    return DeepFocusAutofocus().fit(stack, Z)


@pytest.fixture(scope="module")
def texture():
    return make_textures(1, size=SIZE, kind="cells", random_state=3)[0]


class Scope:
    """Takes images of a texture that is sharp at `focus`, and remembers where."""

    def __init__(self, texture, focus, tilt=(0.0, 0.0)):
        self.texture, self.focus, self.tilt, self.visited = texture, focus, tilt, []
        peak = make_focal_stack(texture, [0.0], optics=OPTICS, margin=MARGIN).max()
        self.gain = CAMERA.peak_photons / peak

    def __call__(self, z):
        self.visited.append(z)
        photons = make_focal_stack(
            self.texture,
            [z],
            optics=OPTICS,
            z_focus=self.focus,
            margin=MARGIN,
            tilt=self.tilt,
        )
        return CAMERA.expose(photons * self.gain, len(self.visited))[0].astype(np.uint16)


# ---- Calibration ----


def test_calibration_curve(autofocus, stack):
    assert autofocus.z_focus_ == pytest.approx(2.0, abs=0.3)
    assert autofocus.moffat_[0] == pytest.approx(2.0, abs=2.0)
    assert autofocus.moffat_.shape == (5,) and autofocus.fwhm_ > 20
    assert autofocus.range_ > 20 * 5.8 * 0.9  # depths of field n lambda / NA^2
    assert autofocus.curve_.shape == autofocus.curve_std_.shape == autofocus.z_calibration_.shape
    assert (autofocus.curve_std_ > 0).all()


def test_order_of_planes_and_origin_of_the_stage_do_not_matter(stack):
    order = np.random.default_rng(0).permutation(len(Z))
    a = DeepFocusAutofocus("tenengrad", spectra=False).fit(stack, Z)
    b = DeepFocusAutofocus("tenengrad", spectra=False).fit(stack[order], Z[order] - 5000)
    assert b.z_focus_ == pytest.approx(a.z_focus_ - 5000, abs=1e-2)
    np.testing.assert_allclose(a.curve_, b.curve_, rtol=1e-6)


def test_optics_are_learnt(learnt):
    assert learnt.rate_ / learnt.cutoff_ == pytest.approx(
        OPTICS.waves_per_micrometre / OPTICS.cutoff, rel=0.05
    )
    assert learnt.z_focus_ == pytest.approx(2.0, abs=0.3)


def test_a_stack_that_does_not_tell_the_optics():
    """A faint one: sharpness has a top, and planes differ too little to learn a pupil from."""
    rng = np.random.default_rng(0)
    sample = 1e-3 * rng.standard_normal((64, 64))
    z = np.linspace(-20, 20, 9)
    stack = [1 + gaussian_filter(sample, 0.02 * abs(v)) + 1e-3 * rng.random((64, 64)) for v in z]
    with pytest.warns(UserWarning, match="does not tell the optics"):
        af = DeepFocusAutofocus("tenengrad").fit(np.stack(stack), z)
    assert np.isnan(af.rate_) and af.z_focus_ == pytest.approx(0, abs=5)


def test_predict_gives_unsigned_distance(autofocus, texture):
    z = np.array([-60.0, -25.0, 0.0, 25.0, 60.0])
    images = make_focal_stack(
        texture, z, optics=OPTICS, margin=MARGIN, camera=CAMERA, random_state=1
    )
    np.testing.assert_allclose(autofocus.predict(images), abs(z), atol=6)
    assert autofocus.score(images, z + autofocus.z_focus_) > 0.95
    assert np.isnan(autofocus.predict(np.ones((1, 256, 256)))).all()


def test_scores_are_the_same_for_signed_and_unsigned_grey_values(autofocus, stack):
    large = (stack[:2].astype(float) * 6).astype(np.uint16)  # above 2^15
    assert large.max() > 2**15
    np.testing.assert_allclose(
        autofocus.score_images(large), autofocus.score_images(stack[:2]), atol=0.03
    )


# ---- Search ----


@pytest.mark.parametrize(("focus", "start"), [(10.0, 75.0), (-12.0, -60.0)])
@pytest.mark.parametrize("which", ["autofocus", "learnt"])
def test_focus_in_four_images(which, focus, start, texture, request):
    scope = Scope(texture, focus)
    result = request.getfixturevalue(which).focus(scope, start, (-95.0, 95.0))
    assert result.z == pytest.approx(focus, abs=0.3)
    assert result.std < 1 and result.n_images == 4 and result.reason == "max_images"
    assert [z for z, _ in result.history] == scope.visited
    assert all(-95 <= z <= 95 for z in scope.visited)


def test_three_images_are_nearly_enough(autofocus, texture):
    result = autofocus.focus(Scope(texture, 20.0), -30.0, (-95.0, 95.0), max_images=3)
    assert result.z == pytest.approx(20.0, abs=0.8)


def test_stops_early_at_tol(autofocus, texture):
    result = autofocus.focus(Scope(texture, 0.0), 12.0, (-90, 90), max_images=8, tol=0.5)
    assert result.reason == "tol" and result.n_images < 5 and result.std <= 0.5


def test_ask_and_tell_is_what_focus_does(autofocus, texture):
    a, b = Scope(texture, 5.0), Scope(texture, 5.0)
    search = autofocus.start(40.0, (-90.0, 90.0))
    assert search.suggest() == 40.0
    while not search.done:
        z = search.suggest()
        search.tell(z, a(z))
    result = autofocus.focus(b, 40.0, (-90.0, 90.0))
    assert search.result.z == result.z and a.visited == b.visited
    with pytest.raises(RuntimeError, match="ended"):
        search.suggest()


def test_focus_beyond_the_limits_is_said(autofocus, texture):
    scope = Scope(texture, 60.0)
    result = autofocus.focus(scope, 0.0, (-30.0, 30.0))
    assert result.reason == "limit" and result.z == pytest.approx(30, abs=1)
    assert max(scope.visited) <= 30


def test_a_blank_sample_is_said(autofocus):
    rng = np.random.default_rng(0)
    visited = []

    def acquire(z):
        visited.append(z)
        return rng.poisson(100, (256, 256))

    result = autofocus.focus(acquire, 10.0, (-90.0, 90.0))
    assert result.reason == "textureless" and result.z == 10.0 and np.isinf(result.std)
    assert np.isnan([score for _, score in result.history]).all()
    assert len(set(visited)) == 4


def test_a_faint_sample_is_uncertain(autofocus):
    """Few dim points on much light: beyond some micrometres there is nothing to see."""
    rng = np.random.default_rng(3)
    field = np.full((SIZE, SIZE), 1.0)
    field[tuple(rng.integers(0, SIZE, (2, 12)))] += 2.0
    result = autofocus.focus(Scope(field, 60.0), -60.0, (-95.0, 95.0), max_images=2)
    assert result.reason in ("uncertain", "textureless") and result.std > 5.8
    images = [Scope(field, 60.0)(z) for z in (-60.0, -50.0)]
    assert autofocus.locate(images, [-60.0, -50.0]).reason in ("uncertain", "textureless")


def test_backlash_approaches_from_one_side(autofocus, texture):
    scope, moves = Scope(texture, 0.0), []

    def acquire(z):
        moves.append(z)
        return scope(z)

    autofocus.focus(acquire, 50.0, (-90, 90), backlash=2.0, move=moves.append)
    for before, after in zip(moves, moves[1:], strict=False):
        if after in scope.visited:
            assert after - before >= 2 - 1e-9


def test_golden_section_finds_focus(stack, texture):
    af = DeepFocusAutofocus(strategy="golden", spectra=False).fit(stack, Z)
    result = af.focus(Scope(texture, 8.0), -20.0, (-95, 95), max_images=8)
    assert result.z == pytest.approx(8.0, abs=4)
    first = result.history[1][0]
    low, high = max(-95, -20 - 2 * af.fwhm_), min(95, -20 + 2 * af.fwhm_)
    assert min(abs((first - low) / (high - low) - g) for g in (0.381966, 0.618034)) < 1e-3


@pytest.mark.parametrize("name", FOCUS_MEASURES)
def test_classical_measures_are_drop_in(name, stack, texture):
    af = DeepFocusAutofocus(name, optics=OPTICS).fit(stack, Z)
    assert af.z_focus_ == pytest.approx(2.0, abs=1.0)
    result = af.focus(Scope(texture, 6.0), 16.0, (-40, 50))
    assert result.z == pytest.approx(6.0, abs=0.5)


# ---- Images already taken ----


def test_locate(autofocus, texture):
    scope = Scope(texture, 1007.0)
    z = [1040.0, 1030.0, 1000.0]
    result = autofocus.locate([scope(v) for v in z], z)
    assert result.z == pytest.approx(1007.0, abs=0.3) and result.reason == "located"
    assert np.trapezoid(result.density, result.grid) == pytest.approx(1, rel=1e-3)


def test_sides_are_told_apart_by_two_images(autofocus, texture):
    scope = Scope(texture, 0.0)
    for side in (-1, 1):
        z = [side * 40.0, side * 30.0]
        assert autofocus.locate([scope(v) for v in z], z).z == pytest.approx(0, abs=2)


def test_tilt_is_found_by_regions(stack, texture):
    af = DeepFocusAutofocus(optics=OPTICS, regions=(2, 2)).fit(stack, Z)
    scope = Scope(texture, 5.0, tilt=(0.0, 12.0))
    z = [20.0, 10.0, -5.0]
    result = af.locate([scope(v) for v in z], z)
    assert result.regions_z.shape == result.regions_std.shape == (2, 2)
    np.testing.assert_allclose(result.plane, [5.0, 0.0, 12.0], atol=2.5)
    assert result.z == result.plane[0]


def test_region_of_interest(stack, texture):
    af = DeepFocusAutofocus(optics=OPTICS, roi=(64, 0, 128, 160)).fit(stack, Z)
    scope = Scope(texture, 5.0)

    def acquire(z):
        image = scope(z)
        image[:64] = 7  # nothing outside counts
        image[192:] = 60000
        return image

    assert af.focus(acquire, 30.0, (-40, 60)).z == pytest.approx(5.0, abs=0.6)
    with pytest.raises(ValueError, match="roi="):
        af.score_images(np.ones((1, 150, 256)))


def test_without_calibration(texture):
    af = DeepFocusAutofocus(optics=OPTICS).fit(None)
    assert af.z_focus_ == 0
    np.testing.assert_allclose(af.curve_, af.curve_[::-1])
    assert af.focus(Scope(texture, -6.0), 30.0, (-60, 60)).z == pytest.approx(-6.0, abs=0.5)
    alone = DeepFocusAutofocus(optics=OPTICS, spectra=False).fit(None)
    assert af.rate_ == OPTICS.waves_per_micrometre and np.isnan([alone.rate_, alone.cutoff_]).all()
    with pytest.raises(ValueError, match="optics"):
        DeepFocusAutofocus().fit(None)
    with pytest.raises(ValueError, match="tenengrad"):
        DeepFocusAutofocus("tenengrad", optics=OPTICS).fit(None)


# ---- An estimator ----


def test_saved_pickled_and_cloned(autofocus, stack, tmp_path):
    persistence.save(autofocus, tmp_path / "af.safetensors")
    expected = autofocus.predict(stack[:3])
    for copy in (
        persistence.load(tmp_path / "af.safetensors"),
        pickle.loads(pickle.dumps(autofocus)),
    ):
        np.testing.assert_allclose(copy.predict(stack[:3]), expected)
    before = joblib.hash(autofocus)
    autofocus.locate(stack[:2], Z[:2])
    assert joblib.hash(autofocus) == before
    with pytest.raises(NotFittedError):
        clone(autofocus).predict(stack)


def test_scorers(stack, tiny_regressor):
    frozen = DeepFocusAutofocus(FrozenEstimator(tiny_regressor), spectra=False).fit(stack, Z)
    assert frozen.score_images(stack[:2]).shape == (2,)
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        DeepFocusAutofocus(PSFParameterRegressor()).fit(stack, Z)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"scorer": "entropy"}, ValueError, "scorer must be one of"),
        ({"scorer": 3}, TypeError, "scorer"),
        ({"optics": 0.3}, TypeError, "optics"),
        ({"strategy": "brent"}, ValueError, "strategy"),
        ({"spectra": 1}, TypeError, "spectra"),
        ({"roi": (0, 0, 10)}, ValueError, "roi"),
        ({"regions": (0, 1)}, ValueError, "regions"),
        ({"regions": (4, 4)}, ValueError, "regions"),
        ({"patches_per_side": 0}, ValueError, "patches_per_side"),
    ],
)
def test_bad_parameters(parameters, error, words, stack):
    with pytest.raises(error, match=words):
        DeepFocusAutofocus(**parameters).fit(stack, Z)


def test_bad_calibrations(stack):
    af = DeepFocusAutofocus()
    with pytest.raises(ValueError, match="y"):
        af.fit(stack)
    with pytest.raises(ValueError, match="5"):
        af.fit(stack[:4], Z[:4])
    with pytest.raises(ValueError, match="one position for each"):
        af.fit(stack, Z[1:])
    with pytest.raises(ValueError, match="y must be finite, got nan"):
        af.fit(stack, np.where(Z > 0, np.nan, Z))
    with pytest.raises(ValueError, match="texture"):
        af.fit(np.ones_like(stack), Z)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(z0=0.0, limits=(5.0, 9.0)), "z0=0.0"),
        (dict(z0=0.0, limits=(9.0, -9.0)), "rise"),
        (dict(z0=0.0, limits=9.0), "low, high"),
        (dict(z0=0.0, limits=(-9.0, 0.0, 9.0)), "low, high"),
        (dict(z0=np.nan), "z0"),
        (dict(z0=0.0, max_images=0), "max_images"),
        (dict(z0=0.0, tol=0.0), "tol"),
    ],
)
def test_bad_searches(arguments, words, autofocus):
    with pytest.raises(ValueError, match=words):
        autofocus.start(**arguments)


def test_bad_images_in_a_search(autofocus, stack):
    search = autofocus.start(0.0, (-50.0, 50.0))
    with pytest.raises(ValueError, match="limits"):
        search.tell(70.0, stack[0])
    search.tell(0.0, stack[0])
    with pytest.raises(ValueError, match="shape"):
        search.tell(0.0, stack[0][:200])
    with pytest.raises(ValueError, match="NaN"):
        search.tell(0.0, np.full((256, 256), np.nan))
    with pytest.raises(ValueError, match="backlash"):
        autofocus.focus(lambda z: stack[0], 0.0, backlash=1.0)
