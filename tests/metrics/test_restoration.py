import numpy as np
import pytest
from skimage.metrics import structural_similarity

from sklearn_psf.metrics import snr, ssim


@pytest.fixture
def truth():
    return np.random.default_rng(0).uniform(1, 9, (3, 24, 30))


def test_snr_of_a_known_error():
    truth = np.full((4, 5), 3.0)
    assert snr(truth, truth - 0.3) == pytest.approx(20.0)
    assert snr(truth, truth) == np.inf
    assert snr(truth, 0 * truth) == pytest.approx(0.0)


def test_snr_is_the_mean_of_decibels(truth):
    estimate = truth + np.array([0.1, 1.0, 3.0])[:, None, None]
    each = [snr(t, e) for t, e in zip(truth, estimate, strict=True)]
    assert snr(truth, estimate) == pytest.approx(np.mean(each))
    assert max(each) - min(each) > 10


def test_integers_do_not_wrap():
    truth = np.full((12, 12), 10, dtype=np.uint8)
    assert snr(truth, truth + np.uint8(1)) == pytest.approx(20.0)
    assert snr(truth + np.uint8(1), truth) == pytest.approx(20 * np.log10(11))


def test_ssim_is_that_of_wang(truth):
    estimate = truth + np.random.default_rng(1).normal(0, 0.5, truth.shape)
    expected = [
        structural_similarity(
            t,
            e,
            data_range=np.ptp(t),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for t, e in zip(truth, estimate, strict=True)
    ]
    assert ssim(truth, estimate) == pytest.approx(np.mean(expected))
    assert ssim(truth[0], estimate[0]) == pytest.approx(expected[0])
    assert ssim(100 * truth, 100 * estimate) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("metric", [snr, ssim])
@pytest.mark.parametrize(
    ("truth", "estimate", "message"),
    [
        (np.ones((20, 20)), np.ones((20, 21)), "one shape"),
        (np.ones(20), np.ones(20), "truth must be images"),
        (np.ones((2, 2, 20, 20)), np.ones((2, 2, 20, 20)), "truth must be images"),
        (np.full((20, 20), np.nan), np.ones((20, 20)), "truth contains NaN"),
        (np.eye(20), np.full((20, 20), np.inf), "estimate contains NaN or infinity"),
        (np.eye(20), np.ones((20, 20), complex), "estimate must hold real"),
        (np.zeros((20, 20)), np.ones((20, 20)), "truth must not be"),
        (np.empty((0, 20, 20)), np.empty((0, 20, 20)), "truth must be images"),
    ],
)
def test_bad_pairs_are_refused(metric, truth, estimate, message):
    with pytest.raises(ValueError, match=message):
        metric(truth, estimate)


def test_ssim_refuses_images_below_its_window():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(np.eye(10), np.eye(10))
