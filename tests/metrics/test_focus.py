import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter, laplace, sobel

from sklearn_psf import metrics
from sklearn_psf.metrics import FOCUS_MEASURES, conditional_entropy, useful_range


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0, 200, (40, 37))


def test_there_are_the_six():
    assert len(FOCUS_MEASURES) == 6
    assert all(getattr(metrics, f.__name__) is f for f in FOCUS_MEASURES.values())


@pytest.mark.parametrize("name", FOCUS_MEASURES)
def test_measures_fall_with_blur(name, image):
    stack = np.stack([image if s == 0 else gaussian_filter(image, s) for s in (0, 1, 2, 4)])
    values = FOCUS_MEASURES[name](stack)
    assert values.shape == (4,) and (np.diff(values) < 0).all()
    # one image at a time gives the same
    assert FOCUS_MEASURES[name](stack[2:3])[0] == values[2]


@pytest.mark.parametrize("name", FOCUS_MEASURES)
def test_a_constant_has_no_focus_and_brightness_does_not_count(name, image):
    measure = FOCUS_MEASURES[name]
    assert measure(np.full((1, 9, 9), 7)).tolist() == [0.0]
    assert measure(image[None] + 50)[0] == pytest.approx(measure(image[None])[0])


@pytest.mark.parametrize("name", FOCUS_MEASURES)
def test_integers_do_not_wrap(name, image):
    grey = image.astype(np.uint8)
    assert FOCUS_MEASURES[name](grey[None])[0] == FOCUS_MEASURES[name](grey[None].astype(float))[0]


def test_measures_against_filters_of_scipy(image):
    inner = (slice(1, -1), slice(1, -1))
    x = image[None]
    detail = image - convolve(image, np.full((3, 3), 1 / 9))
    assert metrics.high_pass(x)[0] == pytest.approx((detail[inner] ** 2).mean())
    gradient = sobel(image, 0) ** 2 + sobel(image, 1) ** 2
    assert metrics.tenengrad(x)[0] == pytest.approx(gradient[inner].mean())
    assert metrics.laplacian_variance(x)[0] == pytest.approx(laplace(image)[inner].var())
    second = [convolve(image, k) for k in (np.array([[1, -2, 1]]), np.array([[1], [-2], [1]]))]
    sml = sum(abs(s[inner]) for s in second).mean()
    assert metrics.sum_modified_laplacian(x)[0] == pytest.approx(sml)


def test_haar_bands_keep_the_energy(image):
    even = image[:40, :36]
    means = even.reshape(20, 2, 18, 2).mean((1, 3))
    details = 3 * metrics.wavelet_energy(even[None])[0] * means.size
    assert details + 4 * (means**2).sum() == pytest.approx((even**2).sum())
    # an odd last column is left out
    assert metrics.wavelet_sum(image[None]) == pytest.approx(metrics.wavelet_sum(even[None]))


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((5, 5)),
        np.ones((1, 2, 5)),
        np.ones((0, 5, 5)),
        np.full((1, 5, 5), np.nan),
        np.ones((1, 5, 5), complex),
    ],
)
@pytest.mark.parametrize("name", FOCUS_MEASURES)
def test_bad_images(name, bad):
    with pytest.raises(ValueError, match="images"):
        FOCUS_MEASURES[name](bad)


def test_entropy_of_a_score_that_tells_every_position():
    scores = np.tile([0.0, 0.3, 0.6, 1.0], (5, 1))
    assert conditional_entropy(scores, [-2, -1, 1, 2]) == 0.0


@pytest.mark.parametrize("n_z", [2, 5])
def test_entropy_of_a_score_that_tells_nothing(n_z):
    # every p(b|z) is the same, so every position weighs log n_z
    scores = np.tile([[0.0], [0.5], [1.0]], (1, n_z))
    entropy = conditional_entropy(scores, np.arange(n_z))
    assert entropy == pytest.approx(n_z * np.log(n_z))


def test_entropy_by_hand():
    # z = 0: half in bin 0, half in bin 1; z = 1: all in bin 1
    scores, z = [0.0, 1.0, 0.9, 1.0], [0, 0, 1, 1]
    expected = -(0.5 * np.log(0.5 / 1.5) + 1.0 * np.log(1.0 / 1.5))
    assert conditional_entropy(scores, z, bins=2) == pytest.approx(expected)


def test_entropy_ignores_unit_and_order_and_grows_with_spread():
    rng = np.random.default_rng(0)
    z = np.linspace(0, 1, 20)
    narrow, wide = (z + s * rng.standard_normal((30, 20)) for s in (0.02, 0.2))
    value = conditional_entropy(narrow, z)
    assert conditional_entropy(7 * narrow - 3, 50 * z) == pytest.approx(value)
    order = rng.permutation(narrow.size)
    flat = conditional_entropy(narrow.ravel()[order], np.tile(z, 30)[order])
    assert flat == pytest.approx(value)
    assert value < 0.7 * conditional_entropy(wide, z)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 1.0], [0, 1, 2]), "does not fit"),
        (([], []), "does not fit"),
        (([0.0, np.nan], [0, 1]), "finite"),
        (([0.0, 1.0], [0, np.inf]), "finite"),
    ],
)
def test_bad_scores(arguments, message):
    with pytest.raises(ValueError, match=message):
        conditional_entropy(*arguments)


@pytest.mark.parametrize("bins", [0, 2.5, None])
def test_bad_bins(bins):
    with pytest.raises(ValueError, match="bins"):
        conditional_entropy([0.0, 1.0], [0, 1], bins=bins)


# ---- The useful range ----


@pytest.mark.parametrize("sign", [1, -1])
def test_range_ends_where_the_score_turns_or_saturates(sign):
    z = np.arange(-10.0, 11.0)
    scores = np.minimum(abs(z), 6)  # flat beyond 6 on the right
    scores[z < -4] = 3.0  # turns back beyond 4 on the left
    assert useful_range(z, sign * scores) == 10
    order = np.random.default_rng(0).permutation(len(z))
    assert useful_range(z[order], sign * scores[order]) == 10


def test_range_is_of_the_mean_over_stacks_and_forgives_ripples():
    z = np.linspace(-5, 5, 101)
    ripple = 0.02 * np.sin(40 * z)
    assert useful_range(z, [abs(z) + ripple, abs(z) - ripple]) == pytest.approx(10, abs=0.2)
    assert useful_range(z, abs(z) + ripple) > 9.5


@pytest.mark.parametrize(
    ("z", "scores", "options", "words"),
    [
        ([0, 1], [0, 1, 2], {}, "shape"),
        ([0, np.inf], [0, 1], {}, "finite"),
        ([0, 1], [0, 1], {"tolerance": -1}, "tolerance"),
    ],
)
def test_range_of_bad_input(z, scores, options, words):
    with pytest.raises(ValueError, match=words):
        useful_range(z, scores, **options)
