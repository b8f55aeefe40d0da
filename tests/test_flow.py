"""Tests of the flow estimator: contract, units, calibration. Accuracy is measured in benchmarks."""

import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter1d
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_psf import BlurFlowEstimator
from sklearn_psf.metrics import flow_r2
from sklearn_psf.networks import build_network, save_weights
from sklearn_psf.optics import Optics, make_psf_model
from sklearn_psf.simulation import make_textures

FAMILY = make_psf_model("motion", size=31)  # small PSFs are quick
OPTICS = Optics(na=0.5, wavelength=0.5, pixel_size=0.25)  # the sampling of the network
SMALL = {
    "psf_model": FAMILY,
    "image_size": 64,
    "n_images": 4,
    "batch_size": 2,
    "max_epochs": 1,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def sharp():
    return make_textures(3, size=200, random_state=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a network that was not trained: their contents do not matter here."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    network = build_network("unet-directed", FAMILY.n_encoded, seed=3)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    state["target_scale"] += 0.2
    state["target_mean"] += 0.5
    state["backbone.alike.weight"] *= 0.01  # else windows would be masked by chance
    card = {
        "weight_version": 1, "name": "untrained", "psf_model": FAMILY.settings,
        "architecture": "unet-directed", "patch_size": 64, "licence": "BSD-3-Clause",
        "std_scale": [1.0, 2.0, 1.0, 1.0],
    }  # fmt: skip
    save_weights(state, card, path)
    return path


@pytest.fixture(scope="module")
def flow(weights, sharp):
    return BlurFlowEstimator(pretrained=weights).fit(sharp)


@pytest.fixture(scope="module")
def trained(sharp):
    return BlurFlowEstimator(**SMALL).fit(sharp)


# ------------------------------------------------------------------------------------ reading


def test_shapes_and_types_for_odd_sizes(flow):
    X = np.random.RandomState(0).randint(0, 60000, (2, 77, 130)).astype(np.uint16)
    before = X.copy()
    motion, std = flow.predict(X, return_std=True)
    assert motion.shape == std.shape == (2, 4, 77, 130)
    assert motion.dtype == std.dtype == np.float32
    assert (std > 0).all() and np.isfinite(motion).all()
    assert (motion[:, 2:] >= 0).all()  # v_z and z0
    np.testing.assert_array_equal(flow.predict(X), motion)
    np.testing.assert_array_equal(X, before)
    for probability in (flow.predict_invalid(X), flow.predict_sense(X)):
        assert probability.shape == (2, 77, 130) and probability.max() <= 1
    assert flow.predict_sense(X).min() >= 0.5


def test_brightness_does_not_matter(flow, sharp):
    X = np.asarray(sharp[:1])
    np.testing.assert_allclose(flow.predict(3000 * X + 500), flow.predict(X), atol=2e-2)


def test_an_image_is_read_as_it_is_in_company(flow, sharp):
    X = np.asarray(sharp)
    np.testing.assert_allclose(flow.predict(X)[1], flow.predict(X[1:2])[0], atol=1e-5)


def test_units(weights, flow, sharp):
    X = np.asarray(sharp[:1])
    pixels = flow.predict(X)
    optics = BlurFlowEstimator(pretrained=weights, optics=OPTICS).fit(X)
    depth = OPTICS.waves_to_micrometres(1.0)
    factors = np.array([0.25, 0.25, depth, depth])[:, None, None]
    np.testing.assert_allclose(optics.predict(X)[0], pixels[0] * factors, rtol=1e-5)
    timed = clone(optics).set_params(exposure=0.1).fit(X)
    factors[:3] *= 10
    np.testing.assert_allclose(timed.predict(X)[0], pixels[0] * factors, rtol=1e-5)
    assert timed.units_ == ("um/s", "um/s", "um/s", "um")
    assert flow.units_[::3] == ("px/exposure", "waves RMS")


def test_other_sampling_is_resampled_for_the_network(weights, sharp):
    """Pixels of half the size: the same sample is read in an image of twice the pixels."""
    X = gaussian_filter(np.asarray(sharp[:1]), (0, 1.5, 1.5))  # no finer than optics let through
    fine = Optics(na=0.5, wavelength=0.5, pixel_size=0.125)
    coarse = BlurFlowEstimator(pretrained=weights, optics=OPTICS).fit(X).predict(X)
    doubled = BlurFlowEstimator(pretrained=weights, optics=fine).fit(X)
    motion = doubled.predict(X.repeat(2, 1).repeat(2, 2))
    assert motion.shape == (1, 4, 400, 400)
    difference = motion[:, 2:, ::2, ::2] - coarse[:, 2:]
    assert np.abs(difference).mean() < 0.3 * coarse[:, 2:].std()


def test_images_that_are_too_small_for_the_network(weights, sharp):
    fine = Optics(na=0.5, wavelength=0.5, pixel_size=0.125)
    flow = BlurFlowEstimator(pretrained=weights, optics=fine).fit(sharp)
    with pytest.raises(ValueError, match="100 x 512 pixels are too small: .* 50 x 256, and 64"):
        flow.predict(np.zeros((1, 100, 512)))


# ----------------------------------------------------------------------------------- training


def test_training_on_sharp_images(trained, sharp):
    assert trained.architecture_ == "unet-directed" and trained.weights_id_ == ""
    assert len(trained.history_) == 1 and np.isfinite(trained.history_[0]["valid_score"])
    assert trained.std_scale_.shape == (4,) and (trained.std_scale_ > 0).all()
    again = BlurFlowEstimator(**SMALL).fit(sharp)
    for name, value in trained.state_.items():
        np.testing.assert_array_equal(again.state_[name], value)
    assert trained.score(sharp) == again.score(sharp) <= 1


def test_training_lowers_the_loss_on_given_scenes():
    rng = np.random.RandomState(0)
    speed = np.array([1, 3, 5, 7, 9, 11, 13, 15])
    noise = rng.rand(8, 64, 80)
    X = np.stack([uniform_filter1d(a, v, axis=1) for a, v in zip(noise, speed, strict=True)])
    y = np.zeros((8, 4, 64, 80))
    y[:, 1] = speed[:, None, None]
    flow = BlurFlowEstimator(batch_size=4, max_epochs=12, validation_fraction=0.0, random_state=0)
    losses = [row["train_loss"] for row in flow.fit(X, y).history_]
    assert losses[-1] < 0.7 * losses[0]


def test_nan_means_nothing_to_read():
    """A network that is shown empty scenes alone, half of each, says so."""
    rng = np.random.RandomState(0)
    X, y = rng.rand(6, 64, 64), np.full((6, 4, 64, 64), 0.5)
    X[:, :, :32], y[..., :32] = 0.01 * X[:, :, :32].mean(), np.nan
    flow = BlurFlowEstimator(batch_size=3, max_epochs=50, random_state=0, learning_rate=5e-3)
    invalid = flow.fit(X, y).predict_invalid(X)
    assert invalid[..., 4:24].mean() > invalid[..., 40:].mean() + 0.5


def test_calibration_makes_a_standard_deviation(flow, weights, sharp):
    X = np.asarray(sharp)
    rng = np.random.RandomState(0)
    y = np.moveaxis(FAMILY.sample(X.size, rng).reshape(*X.shape, 4), -1, 1)
    calibrated = BlurFlowEstimator(pretrained=weights).fit(X).calibrate(X, y)
    assert not np.allclose(calibrated.std_scale_, flow.std_scale_)
    motion, std = calibrated.predict(X, return_std=True)
    error = np.abs(motion - y)[:, 2:]
    assert 0.5 < (error < std[:, 2:]).mean() < 0.85
    np.testing.assert_array_equal(calibrated.predict(X), flow.predict(X))


def test_given_scenes_on_another_sampling(weights, sharp):
    """With pixels of half the size, motions of given scenes are halved for the network."""
    fine = Optics(na=0.5, wavelength=0.5, pixel_size=0.125)
    X = np.asarray(sharp)[:, :160, :192]
    flow = BlurFlowEstimator(pretrained=weights, optics=fine).fit(X)
    y = np.full((3, 4, 160, 192), 0.4)
    y[:, 0] = np.arange(160)[:, None]
    y[0] = np.nan
    squares = flow._squares(y)
    assert squares.shape == (3, 4, 20, 24) and np.isnan(squares[0]).all()
    # square i has its centre between pixels 4 i + 1 and 4 i + 2 of the network, twice that in y
    np.testing.assert_allclose(squares[1, 0, :, 0], (8 * np.arange(20) + 5) / 2)
    np.testing.assert_allclose(squares[1, 1:, 0, 0], [0.2, 0.4, 0.4])
    options = SMALL | {"max_epochs": 1, "psf_model": None}
    again = BlurFlowEstimator(optics=fine, **options).fit(X, y)
    assert np.isfinite(again.history_[0]["valid_score"])
    assert flow.calibrate(X, y).std_scale_.shape == (4,)


def test_score_of_given_motion(flow, sharp):
    X = np.asarray(sharp)
    truth = flow.predict(X)
    truth[:, :2] *= -1  # the other sense: it is aligned
    assert flow.score(X, truth) == pytest.approx(1.0)
    truth[0, 0] = np.nan
    assert flow.score(X, truth) == pytest.approx(1.0)
    assert flow_r2(truth, flow.predict(X), kind="signed") < 0


def test_a_lens_with_astigmatism(sharp):
    model = make_psf_model("motion", cylinder=0.3, size=31)
    flow = BlurFlowEstimator(**SMALL | {"psf_model": model, "n_images": 2})
    motion = flow.fit(sharp).predict(np.asarray(sharp[:1]))
    assert motion.shape == (1, 4, 200, 200) and (motion[:, 2] >= 0).all()


# ----------------------------------------------------------------------------------- contract


def test_clone_pickle_and_weights(flow, sharp):
    X = np.asarray(sharp[:1])
    assert "_network" not in pickle.loads(pickle.dumps(flow)).__dict__
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(flow)).predict(X), flow.predict(X))
    assert flow.weights_id_.startswith("untrained version 1 sha256 ")
    assert flow.history_ == []
    np.testing.assert_array_equal(flow.std_scale_, [1, 2, 1, 1])
    with pytest.raises(NotFittedError):
        clone(flow).predict(X)


def test_sharp_images_of_any_sizes(weights):
    ragged = [np.random.rand(80, 90), np.random.rand(120, 70)]
    BlurFlowEstimator(pretrained=weights).fit(ragged)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"image_size": 100}, ValueError, "image_size must be a multiple of 32, got 100"),
        ({"n_images": 0}, ValueError, "n_images"),
        ({"optics": 3}, TypeError, "optics must be an Optics or None, got 3"),
        ({"exposure": 0.1}, ValueError, "exposure=0.1 needs optics"),
        ({"exposure": -1, "optics": OPTICS}, ValueError, "exposure"),
        ({"psf_model": "zernike-1"}, ValueError, "psf_model must be of the family 'motion'"),
        ({"pretrained": "zernike-1"}, ValueError, "architecture='unet-directed' disagrees"),
        ({"camera": 1}, TypeError, "camera"),
    ],
)
def test_parameters_are_checked(parameters, error, message, sharp):
    with pytest.raises(error, match=message):
        BlurFlowEstimator(**parameters).fit(sharp)


def test_data_are_checked(flow, sharp):
    X = np.asarray(sharp)
    with pytest.raises(ValueError, match=r"y must have shape \(3, 4, 200, 200\)"):
        flow.score(X, np.zeros((3, 4, 50, 50)))
    with pytest.raises(ValueError, match="holds no valid pixel"):
        BlurFlowEstimator(**SMALL).fit(X, np.full((3, 4, 200, 200), np.nan))
    with pytest.raises(ValueError, match="infinity"):
        BlurFlowEstimator(**SMALL).fit(X, np.full((3, 4, 200, 200), np.inf))
    with pytest.raises(ValueError, match="Expected 3D images"):
        flow.predict(X[0])
    with pytest.raises(ValueError, match="64"):
        flow.predict(X[:, :40, :40])
