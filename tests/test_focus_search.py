import numpy as np
import pytest

from sklearn_psf._focus_evidence import Evidence, FocusModel, expected_error, find_posterior
from sklearn_psf._focus_search import FocusSearch, GoldenSearch, split_regions

OFFSETS = np.linspace(-60, 60, 121)


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
        score=lambda images: np.abs(images[:, 0, 0] - focus) / 40,
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


def test_a_lost_search_looks_elsewhere():
    """Scores that read far wherever they are taken near the start, and do not agree."""
    search = FocusSearch(make_model(), 50.0, (-60.0, 60.0), 5)
    for z, level in ((50.0, 50.0), (40.0, 58.0)):
        search.tell(z, np.full((2, 2), 7.0 + level))
    assert search._is_lost()
    assert search.suggest() == -10.0  # the middle of the widest stretch


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
