import numpy as np
import pytest

from sklearn_psf._focus_scores import (
    _without_prior,
    bin_image,
    score_by_measure,
    score_by_regressor,
)
from sklearn_psf.metrics import FOCUS_MEASURES
from sklearn_psf.optics import make_psf_model


class MeanReader:
    """Reads the mean grey value, halved by binning where the test says so."""

    psf_model_, patch_size_ = make_psf_model("zernike-1"), 16

    def predict(self, X):
        return X.mean((1, 2))[:, np.newaxis]

    def predict_invalid(self, X):
        return (X.std((1, 2)) == 0).astype(float)


def test_binning_averages_and_drops_the_rest():
    image = np.arange(15, dtype=np.uint16).reshape(3, 5)
    np.testing.assert_array_equal(bin_image(image, 2), [[3.0, 5.0]])


def test_far_images_are_read_binned():
    rng = np.random.default_rng(0)
    levels = np.array([0.2, 1.4])  # below and beyond what hands over to the binned image
    images = levels[:, None, None] + 1e-3 * rng.standard_normal((2, 32, 32))
    scores = score_by_regressor(images, MeanReader()).scores
    np.testing.assert_allclose(scores, [0.2, 2.8], atol=0.01)


def test_textureless_windows_are_left_out():
    image = np.full((16, 32), 5.0)
    image[:, 16:] = 0.3 + 1e-3 * np.random.default_rng(0).standard_normal((16, 16))
    images = np.stack([image, np.ones((16, 32))])
    readings = score_by_regressor(images, MeanReader())
    assert readings.scores[0] == pytest.approx(0.3, abs=0.01) and np.isnan(readings.scores[1])
    assert readings.spread[0] < 0.01 and readings.std[0] == 0


class UnsureReader(MeanReader):
    """States a large error of dark patches, and then the middle of its range."""

    def predict_all(self, X):
        mean = X.mean((1, 2))
        sure = mean > 0.1
        blur = np.where(sure, mean, 1.1)[:, np.newaxis]
        return blur, np.where(sure, 0.04, 0.25)[:, np.newaxis], np.where(sure, 0.1, 0.45)


def test_windows_count_by_what_the_network_states():
    """In one quarter of the first image there is something to read, in the second nowhere."""
    images = 1e-3 * np.random.default_rng(0).random((2, 32, 32))
    images[0, :16, :16] += 0.2
    readings = score_by_regressor(images, UnsureReader())
    assert readings.textured.all()
    assert readings.level[0] == pytest.approx(0.2, abs=0.1) and readings.std[0] < 0.15
    assert readings.level[1] > 1.1 and readings.std[1] > 0.3


def test_a_posterior_without_its_prior():
    mean, std = _without_prior(np.array([0.3, 1.1, 0.75]), np.array([0.04, 0.3, 0.43]), 0.0, 1.5)
    assert mean[0] == pytest.approx(0.3, abs=0.01) and std[0] == pytest.approx(0.05, rel=0.02)
    assert 1.1 < mean[1] < 1.5 and std[1] > 0.35  # an unsure reading is pulled to the middle
    assert mean[2] == pytest.approx(0.75) and std[2] > 0.8  # that says nothing


@pytest.mark.parametrize("name", FOCUS_MEASURES)
def test_measures_do_not_depend_on_exposure(name):
    image = np.random.default_rng(0).random((1, 32, 32)) + 1
    once, twice = (score_by_measure(k * image, name).scores for k in (1, 2))
    np.testing.assert_allclose(once, twice)
    assert np.isnan(score_by_measure(np.zeros((1, 32, 32)), name).scores[0])
