import numpy as np
import pytest

from sklearn_psf import _focus_evidence
from sklearn_psf._focus_choice import expected_error
from sklearn_psf._focus_evidence import Evidence, FocusModel, find_posterior
from sklearn_psf._focus_scores import Readings
from sklearn_psf._focus_search import FocusSearch, GoldenSearch, split_regions

OFFSETS = np.linspace(-60, 60, 121)


def sure(levels, std=0.0, textured=True):
    """Readings of one image each, as sure as is said."""
    one = np.ones(len(levels))
    return Readings(levels, std * one, 0 * one, np.full(len(levels), textured))


def make_model(focus=7.0, **changes):
    """A model without spectra whose images are single numbers: their position."""
    settings = dict(
        offsets=OFFSETS,
        curve=np.abs(OFFSETS) / 40,
        curve_std=np.full(121, 0.03),
        fwhm=40.0,
        upward=False,
        free_gain=False,
        cutoff=None,
        rate=None,
        aberration=0.0,
        score=lambda images: sure(np.abs(images[:, 0, 0] - focus) / 40),
    )
    return FocusModel(**(settings | changes))


def run(search):
    while not search.done:
        z = search.suggest()
        search.tell(z, np.full((2, 2), z))
    return search.result


def test_posterior_of_one_image_has_two_sides():
    evidence = Evidence(make_model())
    evidence.add(27.0, np.full((2, 2), 27.0))
    grid, density = find_posterior(evidence, -60.0, 100.0)
    assert np.trapezoid(density, grid) == pytest.approx(1)
    for side in (7.0, 47.0):
        assert density[np.abs(grid - side) < 1].max() > 0.5 * density.max()
    assert density[np.abs(grid - 27) < 5].max() < 0.1 * density.max()


def test_the_best_second_image_tells_the_sides_apart():
    evidence = Evidence(make_model())
    evidence.add(27.0, np.full((2, 2), 27.0))
    error = expected_error(evidence, np.array([27.0, 12.0]), np.array([6.0, 7.0, 47.0, 48.0]))
    assert error[1] < 0.3 * error[0]


@pytest.mark.parametrize("kind", [FocusSearch, GoldenSearch])
@pytest.mark.parametrize("z0", [27.0, -20.0])
def test_search_by_scores(kind, z0):
    result = run(kind(make_model(), z0, (-40.0, 60.0), 6))
    assert result.z == pytest.approx(7.0, abs=1.5)
    assert result.n_images == 6 and result.reason == "max_images"
    assert all(-40 <= z <= 60 for z, _ in result.history)


def far_is_unsure(images):
    """Readings of a faint sample: beyond 25 um it seems far, and how far is not known."""
    distance = np.abs(images[:, 0, 0] - 7.0)
    if distance > 25:
        return sure(np.array([1.6]), std=0.8, textured=False)
    return sure(distance / 40, std=0.1)


def test_a_faint_sample_is_looked_for_all_over():
    result = run(FocusSearch(make_model(score=far_is_unsure), 90.0, (-60.0, 120.0), 8))
    assert result.z == pytest.approx(7.0, abs=5)
    visited = [z for z, _ in result.history]
    assert np.isnan([score for _, score in result.history]).any() and min(visited) < 20


def test_what_is_left_open_is_said():
    def unsure(images):
        return sure(np.array([1.4]), std=0.8)

    result = run(FocusSearch(make_model(score=unsure), 0.0, (-60.0, 60.0), 3))
    assert result.reason == "uncertain" and result.std > make_model().depth_of_field
    assert run(FocusSearch(make_model(), 20.0, (-40.0, 60.0), 5)).reason == "max_images"


def test_an_error_that_images_share_counts_once():
    """Two images read one and the same too much; were errors independent, truth would be ruled out
    twice over."""
    model = make_model(score=lambda images: sure(images[:, 0, 0] / 40 + 1.0, std=0.5))
    one, two = Evidence(model), Evidence(model)
    for evidence, positions in ((one, [10.0]), (two, [10.0, 12.0, 11.0, 9.0])):
        for z in positions:
            evidence.add(z, np.full((2, 2), z))
    truth = np.array([0.0, -40.0])  # where it is, and where one too much would come from
    lost = [np.subtract(*evidence.score_log_likelihood(truth)[::-1]) for evidence in (one, two)]
    assert 0 < lost[1] < 2.5 * lost[0]


def test_an_image_without_texture_is_far_once_others_have_some():
    model = make_model(score=far_is_unsure)
    evidence = Evidence(model)
    for z in (60.0, 12.0):
        evidence.add(z, np.full((2, 2), z))
    assert np.isnan(evidence.scores[0]) and evidence.has_texture
    near, away = evidence.score_log_likelihood(np.array([17.0, 7.0]))
    assert away > near


OPTICAL = dict(cutoff=0.3, rate=0.02, aberration=0.01, score=lambda images: sure(np.ones(1)))


@pytest.mark.parametrize("shape", [(64, 64), (80, 70), (200, 128)])
def test_table_of_the_transfer_function(shape):
    evidence = Evidence(make_model(**OPTICAL))
    evidence.shape = shape
    waves = np.array([0.0, 0.123, 0.5, 1.777, 3.1])
    table = evidence.transfers([0.0], waves / 0.02)[:, 0]
    frequency = _focus_evidence.make_rings(shape).frequency
    exact = _focus_evidence.defocus_transfer(frequency, waves, 0.3)
    inside = frequency < 0.6
    np.testing.assert_allclose(table[:, inside], exact[:, inside], atol=2e-3)


def test_a_prepared_model_computes_nothing_when_it_decides(monkeypatch):
    model = make_model(**OPTICAL)
    model.prepare()
    monkeypatch.setattr(_focus_evidence, "defocus_transfer", None)
    search = FocusSearch(model, 0.0, (-50.0, 50.0), 4)
    images = np.random.default_rng(0).poisson(100, (2, 48, 48))
    for z, image in zip((0.0, 10.0), images, strict=True):
        search.tell(z, image)
    assert -50 <= search.suggest() <= 50


def test_convexity():
    search = GoldenSearch(make_model(), 0.0, (-40.0, 60.0), 8)
    for z in (40.0, 50.0, 30.0, 20.0):
        search.tell(z, np.full((2, 2), z))
    assert not search.is_convex()
    for z in (0.0, -20.0):
        search.tell(z, np.full((2, 2), z))
    assert search.is_convex()


def test_regions_cover_the_image():
    image = np.zeros((7, 10))
    for row in split_regions(image.shape, (2, 3)):
        for where in row:
            image[where] += 1
    assert (image == 1).all()
