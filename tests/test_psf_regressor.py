import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.metrics import parameter_r2
from sklearn_psf.networks import build_network, save_weights
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import PatchStream, load_skimage, make_blurred_patches, make_textures

FAMILY = make_psf_model("gaussian-1", size=31)
ASTIGMATISM = make_psf_model("zernike-2", size=31)


def quick(**settings):
    """A regressor whose training takes a moment."""
    options = {"psf_model": FAMILY, "patch_size": 32, "batch_size": 8, "n_patches": 16}
    options |= {"max_epochs": 1, "random_state": 0}
    return PSFParameterRegressor(**options | settings)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Fewer PSFs and patches than a real training draws before its first step."""
    monkeypatch.setitem(PatchStream.__init__.__kwdefaults__, "pool_size", 16)
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_VALIDATION", 32)
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_SCORE", 64)


@pytest.fixture(scope="module")
def sharp():
    return make_textures(4, size=96, kind="dead-leaves", random_state=1)


@pytest.fixture(scope="module")
def patches(sharp):
    return make_blurred_patches(sharp, 24, psf_model=FAMILY, patch_size=32, random_state=5)


@pytest.fixture(scope="module")
def astigmatic(sharp):
    """A barely trained regressor of an angle."""
    X, y = make_blurred_patches(sharp, 48, psf_model=ASTIGMATISM, patch_size=32, random_state=2)
    return quick(psf_model=ASTIGMATISM).fit(X, y), X, y


def test_training_learns_the_width(tiny_regressor, patches):
    X, y = patches
    losses = [figures["train_loss"] for figures in tiny_regressor.history_]
    assert losses[-1] < 0.7 * losses[0]
    assert tiny_regressor.score(X, y) > 0.3
    assert tiny_regressor.history_[-1]["valid_score"] > 0.3


def test_fitted_attributes(tiny_regressor):
    assert tiny_regressor.psf_model_.settings == FAMILY.settings
    assert (tiny_regressor.architecture_, tiny_regressor.patch_size_) == ("compact", 32)
    assert all(type(value) is np.ndarray for value in tiny_regressor.state_.values())
    assert tiny_regressor.std_scale_.shape == (1,) and tiny_regressor.weights_id_ == ""


@pytest.mark.parametrize("as_list", [False, True])
def test_fit_on_sharp_images_draws_patches(sharp, as_list):
    X = [sharp[0], sharp[1, :70], (sharp[2] * 60000).astype("uint16")] if as_list else sharp
    regressor = quick().fit(X)
    assert regressor.history_[0]["batches"] == 2
    assert regressor.predict(np.zeros((3, 32, 32))).shape == (3, 1)


def test_defaults_of_a_training(sharp):
    regressor = PSFParameterRegressor(n_patches=2, batch_size=2, max_epochs=1).fit(sharp)
    assert regressor.psf_model_.name == "zernike-3" and regressor.patch_size_ == 128
    assert regressor.architecture_ == "compact"


@pytest.mark.parametrize("sharp_only", [False, True])
def test_same_seed_same_result(sharp, patches, sharp_only):
    data = (sharp,) if sharp_only else patches
    a, b, c = (quick(random_state=seed).fit(*data) for seed in (0, 0, 1))
    X = patches[0]
    np.testing.assert_array_equal(a.predict(X), b.predict(X))
    assert joblib.hash(a.state_) == joblib.hash(b.state_)
    assert not np.array_equal(a.predict(X), c.predict(X))


def test_a_constant_seed_does_not_touch_the_global_state(patches):
    before = np.random.get_state()[1].copy()
    quick().fit(*patches)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_fit_again_starts_anew(patches):
    regressor = quick().fit(*patches)
    first = regressor.predict(patches[0])
    np.testing.assert_array_equal(regressor.fit(*patches).predict(patches[0]), first)
    regressor.set_params(random_state=1).fit(*patches)  # and not from a stale network
    assert not np.array_equal(regressor.predict(patches[0]), first)


def test_prediction_is_independent_of_the_neighbours(tiny_regressor, patches):
    X = patches[0]
    together = np.hstack(tiny_regressor.predict(X, return_std=True))
    alone = [np.hstack(tiny_regressor.predict(x[None], return_std=True)) for x in X]
    np.testing.assert_allclose(np.vstack(alone), together, rtol=1e-5, atol=1e-5)
    mixed = np.concatenate([X[::-1], 1e5 * np.ones_like(X)])
    assert np.abs(tiny_regressor.predict(mixed)[: len(X)][::-1] - together[:, :1]).max() < 1e-4
    alone = [tiny_regressor.predict_invalid(x[None]) for x in X]
    np.testing.assert_allclose(np.ravel(alone), tiny_regressor.predict_invalid(X), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 0.37, 1e5])
@pytest.mark.parametrize("offset", [0.0, -40.0, 1e4])
def test_prediction_is_independent_of_brightness(tiny_regressor, patches, scale, offset):
    X = patches[0].astype(np.float64)
    expected = tiny_regressor.predict(X)
    changed = (X + offset) * scale
    np.testing.assert_allclose(tiny_regressor.predict(changed), expected, rtol=1e-4)
    invalid = tiny_regressor.predict_invalid(changed)
    np.testing.assert_allclose(invalid, tiny_regressor.predict_invalid(X), atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", "float16", "float32"])
def test_dtypes(tiny_regressor, patches, dtype):
    X = np.rint(patches[0] / patches[0].max() * 255)
    np.testing.assert_allclose(
        tiny_regressor.predict(X.astype(dtype)), tiny_regressor.predict(X), rtol=1e-5
    )


def test_a_large_offset_of_unsigned_integers_costs_nothing(tiny_regressor, patches):
    X = np.rint(patches[0] / patches[0].max() * 500).astype(np.uint16)
    expected = tiny_regressor.predict(X)
    np.testing.assert_allclose(tiny_regressor.predict(X + np.uint16(65000)), expected, rtol=1e-5)
    far = X.astype(np.int64) + 2**40  # its texture would be lost in float32
    np.testing.assert_allclose(tiny_regressor.predict(far), expected, rtol=1e-5)


def test_negative_values_are_no_problem(tiny_regressor, patches):
    X = patches[0] - patches[0].max()
    assert X.max() <= 0 and np.isfinite(tiny_regressor.predict(X)).all()


def test_outputs(tiny_regressor, patches):
    X = patches[0]
    p, std = tiny_regressor.predict(X, return_std=True)
    invalid = tiny_regressor.predict_invalid(X)
    assert p.shape == std.shape == (24, 1) and invalid.shape == (24,)
    assert (std > 0).all() and np.isfinite(std).all()
    assert (0 <= invalid).all() and (invalid <= 1).all()
    np.testing.assert_array_equal(tiny_regressor.predict(X), p)
    *same, encoding, variance = tiny_regressor.predict_all(X)
    for a, b in zip(same, (p, std, invalid), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(tiny_regressor.psf_model_.decode(encoding), p)
    np.testing.assert_allclose(np.sqrt(variance), std, rtol=1e-6)  # a width is its own encoding


def test_std_of_an_angle_is_at_most_that_of_ignorance(astigmatic):
    regressor, X, _ = astigmatic
    free = regressor.predict(X, return_std=True)[1]
    wide = clone_with(regressor, std_scale_=np.full(2, 1e6)).predict(X, return_std=True)[1]
    limit = np.pi / 2 / np.sqrt(12)
    assert (free[:, 1] <= limit + 1e-12).all()
    np.testing.assert_allclose(wide[:, 1], limit)
    assert wide[:, 0].min() > 1e3  # the cylinder is no angle


def clone_with(regressor, **attributes):
    copy = pickle.loads(pickle.dumps(regressor))
    for name, value in attributes.items():
        setattr(copy, name, value)
    return copy


def test_std_follows_the_network_and_the_calibration(tiny_regressor, patches):
    X, y = patches
    std = tiny_regressor.predict(X, return_std=True)[1]
    doubled = clone_with(tiny_regressor, std_scale_=2 * tiny_regressor.std_scale_)
    np.testing.assert_allclose(doubled.predict(X, return_std=True)[1], 2 * std)
    p, std = doubled.calibrate(X, y).predict(X, return_std=True)
    within = (np.abs(p - y) <= std)[~np.isnan(y)]
    assert within.mean() == pytest.approx(0.683, abs=0.06)
    doubled.calibrate(X[:5], y[:5])  # too few to tell
    np.testing.assert_array_equal(doubled.std_scale_, [1.0])


def test_score_is_r2_over_valid_patches(tiny_regressor, patches):
    X, y = patches
    y = y.copy()
    y[::5] = np.nan
    valid = ~np.isnan(y[:, 0])
    residual = ((tiny_regressor.predict(X) - y)[valid] ** 2).sum()
    expected = 1 - residual / ((y[valid] - y[valid].mean()) ** 2).sum()
    assert tiny_regressor.score(X, y) == pytest.approx(expected)
    assert tiny_regressor.score(X, y[:, 0]) == pytest.approx(expected)  # one parameter: also 1-D


def test_score_reads_angles_on_their_circle(astigmatic):
    regressor, X, y = astigmatic
    turned = y + [0, np.pi / 2]
    assert regressor.score(X, turned) == pytest.approx(regressor.score(X, y), abs=1e-9)
    expected = parameter_r2(y, regressor.predict(X), periods=[None, np.pi / 2])
    assert regressor.score(X, y) == pytest.approx(expected)


def test_score_on_sharp_images_is_seeded(tiny_regressor, sharp):
    score = tiny_regressor.score(sharp)
    assert 0.2 < score <= 1 and tiny_regressor.score(sharp) == score
    assert tiny_regressor.score([sharp[0], sharp[1, :80]]) <= 1


def test_inputs_are_not_modified(sharp, patches):
    X, y = (a.copy() for a in patches)
    X.flags.writeable = y.flags.writeable = False
    images = sharp.copy()
    images.flags.writeable = False
    regressor = quick().fit(X, y)
    regressor.predict(X, return_std=True), regressor.score(X, y), regressor.calibrate(X, y)
    quick().fit(images).score(images)
    np.testing.assert_array_equal(X, patches[0])


def test_textureless_rows_are_learned_from(sharp):
    X, y = make_blurred_patches(sharp, 24, psf_model=FAMILY, patch_size=32, random_state=5)
    X = np.concatenate([X, np.random.RandomState(0).poisson(50, (24, 32, 32))])
    y = np.concatenate([y, np.full((24, 1), np.nan)])
    regressor = quick(max_epochs=6).fit(X, y)
    invalid = regressor.predict_invalid(X)
    assert invalid[24:].mean() > invalid[:24][~np.isnan(y[:24, 0])].mean() + 0.3


@pytest.mark.parametrize("loss", ["nll", "mse"])
def test_both_losses_train(patches, loss):
    history = quick(loss=loss, max_epochs=6).fit(*patches).history_
    assert history[-1]["train_loss"] < 0.9 * history[0]["train_loss"]


def test_validation_fraction(sharp, patches):
    for fraction, batches in ((0.0, 3), (0.1, 2), (0.5, 1)):  # of 24 patches, 8 at a time
        regressor = quick(validation_fraction=fraction).fit(*patches)
        assert regressor.history_[0]["batches"] == batches
    quick(validation_fraction=0.5).fit(sharp)
    quick(validation_fraction=0.9).fit(sharp[:1])
    few = quick(batch_size=2).fit(patches[0][:3], patches[1][:3])  # none is left to validate on
    assert np.isfinite(few.predict(patches[0], return_std=True)).all()


def test_patience_stops_early(patches):
    stopped = quick(max_epochs=40, patience=2, learning_rate=1e-12).fit(*patches)
    scores = [figures["valid_score"] for figures in stopped.history_]
    assert len(scores) < 40
    assert len(scores) - 1 - int(np.argmax(scores)) == 2


def test_max_minutes_ends_the_training(patches):
    assert len(quick(max_epochs=10**5, max_minutes=1e-3).fit(*patches).history_) < 1000


def test_training_resumes_from_its_checkpoint(patches, tmp_path, monkeypatch):
    checkpoint = tmp_path / "training.pt"
    validate, calls = PSFParameterRegressor._validate, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(PSFParameterRegressor, "_validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quick(max_epochs=4, checkpoint=str(checkpoint)).fit(*patches)
    regressor = quick(max_epochs=4, checkpoint=checkpoint).fit(*patches)
    assert [f["epoch"] for f in regressor.history_] == [1, 2, 3, 4]
    again = quick(max_epochs=4, checkpoint=checkpoint).fit(*patches)
    np.testing.assert_array_equal(again.predict(patches[0]), regressor.predict(patches[0]))
    assert again.history_ == regressor.history_


def test_camera_is_used(sharp):
    dark = Camera(peak_photons=1e-3, read_noise=1.0)  # nothing to see: every patch is textureless
    with pytest.raises(ValueError, match="at least 2 rows|No valid|no valid"):
        quick(camera=dark).fit(sharp).score(sharp)


def test_verbose_shows_progress(patches, capsys):
    quick(verbose=1, max_epochs=2).fit(*patches)
    assert "training" in capsys.readouterr().err
    quick(max_epochs=2).fit(*patches)
    assert capsys.readouterr() == ("", "")


# ---- Pretrained and initial weights ----


def test_pretrained_never_trains(tiny_weights, tiny_regressor, patches):
    X, y = patches
    regressor = PSFParameterRegressor(pretrained=tiny_weights).fit(X, y)
    assert regressor.history_ == [] and regressor.psf_model_.settings == FAMILY.settings
    assert (regressor.architecture_, regressor.patch_size_) == ("compact", 32)
    assert regressor.weights_id_.startswith("tiny version 1 sha256 ")
    expected = tiny_regressor.predict(X, return_std=True)
    for a, b in zip(regressor.predict(X, return_std=True), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02)  # weights of 16 bits
    np.testing.assert_array_equal(clone(regressor).fit(X).predict(X), regressor.predict(X))


def test_pretrained_accepts_images_of_any_size(tiny_weights):
    regressor = PSFParameterRegressor(pretrained=str(tiny_weights))
    assert regressor.fit([np.ones((50, 60)), np.ones((8, 9))]).patch_size_ == 32


def test_what_agrees_with_the_weights_may_be_said(tiny_weights, patches):
    for family in ("gaussian-1", FAMILY, make_psf_model("gaussian-1", size=63)):
        PSFParameterRegressor(
            pretrained=tiny_weights, psf_model=family, architecture="compact", patch_size=32
        ).fit(*patches)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"psf_model": "gaussian-2"}, "psf_model=.*'gaussian-2'.* disagrees .*'gaussian-1'"),
        (
            {"psf_model": make_psf_model("gaussian-1", cutoff=0.2, size=31)},
            "psf_model=.*0.2.* disagrees with the weights .*tiny.safetensors.*0.25",
        ),
        ({"architecture": "resnet34"}, "architecture='resnet34' disagrees .*'compact'"),
        ({"patch_size": 40}, "patch_size=40 disagrees .*32: larger ones .* a multiple of 16"),
        ({"initial_weights": "gaussian-1"}, "pretrained=.* and initial_weights .*only one"),
        ({"initial_weights": {}}, "only one"),
    ],
)
def test_what_disagrees_with_the_weights_is_refused(tiny_weights, patches, settings, match):
    with pytest.raises(ValueError, match=match):
        PSFParameterRegressor(pretrained=tiny_weights, **settings).fit(*patches)


def test_larger_patches_are_read_in_windows(tiny_weights, tiny_regressor, sharp):
    large = PSFParameterRegressor(pretrained=tiny_weights, patch_size=64).fit(sharp)
    assert (large.patch_size_, large.window_size_) == (64, 32)
    X, y = make_blurred_patches(sharp, 40, psf_model=FAMILY, patch_size=64, random_state=6)
    windows = [X[:, r : r + 32, c : c + 32] for r in (0, 16, 32) for c in (0, 16, 32)]
    read = [tiny_regressor.predict_all(part) for part in windows]
    low, high = (f([part[0] for part in read], 0) for f in (np.min, np.max))
    p = large.predict(X)
    assert ((p >= low - 1e-6) & (p <= high + 1e-6)).all()
    valid = ~np.isnan(y[:, 0])
    alone = np.mean([np.abs(part[0] - y)[valid].mean() for part in read])
    assert np.abs(p - y)[valid].mean() < alone
    constant = np.full((1, 64, 64), 3.0)
    assert large.predict_invalid(constant)[0] > 0.5
    with pytest.raises(ValueError, match="Patches of 64 x 64 pixels"):
        large.predict(windows[0])


def test_windows_without_texture_have_no_say(tiny_weights, sharp):
    large = PSFParameterRegressor(pretrained=tiny_weights, patch_size=48).fit(sharp)
    X, _ = make_blurred_patches(sharp, 8, psf_model=FAMILY, patch_size=48, random_state=6)
    X[:, 16:] = X[:, :16].mean((1, 2), keepdims=True)
    X[:, :, 32:] = X[:, :16].mean((1, 2), keepdims=True)
    small = PSFParameterRegressor(pretrained=tiny_weights).fit(sharp)
    first, last = (small.predict_all(X[:, r : r + 32, c : c + 32]) for r, c in ((0, 0), (16, 16)))
    assert (last[2] == 1).all()
    clear = first[2] < 0.5
    assert clear.any()
    towards = np.abs(large.predict(X) - first[0]) < np.abs(large.predict(X) - last[0])
    assert towards[clear].mean() > 0.5


@pytest.mark.parametrize("argument", ["pretrained", "initial_weights"])
def test_unknown_weights(patches, argument):
    with pytest.raises(ValueError, match="'zernike-7' is neither a shipped name"):
        PSFParameterRegressor(**{argument: "zernike-7"}).fit(*patches)


def test_corrupt_weights(tiny_weights, patches, tmp_path):
    path = tmp_path / "broken.safetensors"
    data = bytearray(tiny_weights.read_bytes())
    data[-9] ^= 255
    path.write_bytes(data)
    path.with_suffix(".json").write_text(tiny_weights.with_suffix(".json").read_text())
    with pytest.raises(ValueError, match="broken.safetensors are corrupt or foreign"):
        PSFParameterRegressor(pretrained=path).fit(*patches)


def test_weights_of_another_network(patches, tmp_path):
    card = {"weight_version": 1, "architecture": "compact", "patch_size": 32}
    card["psf_model"] = FAMILY.settings
    state = build_network("compact", 3, seed=0).state_dict()
    save_weights({k: v.numpy() for k, v in state.items()}, card, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="do not fit architecture 'compact'"):
        regressor = PSFParameterRegressor(pretrained=tmp_path / "a.safetensors")
        regressor.fit(*patches)


def test_training_starts_from_initial_weights(tiny_weights, tiny_regressor, patches):
    still = {"learning_rate": 1e-12, "patch_size": None}
    for weights in (tiny_weights, str(tiny_weights), tiny_regressor.state_):
        regressor = quick(initial_weights=weights, **still).fit(*patches)
        assert len(regressor.history_) == 1 and regressor.weights_id_ == ""
        for name, value in tiny_regressor.state_.items():
            if value.ndim > 1:
                np.testing.assert_allclose(regressor.state_[name], value, atol=1e-3)


def test_training_starts_from_published_weights(patches):
    state = build_network("resnet34", 1, seed=3).backbone.state_dict()
    state["conv1.weight"] = state["conv1.weight"].repeat(1, 3, 1, 1)
    state["fc.weight"], state["fc.bias"] = np.zeros((1000, 512)), np.zeros(1000)
    regressor = quick(
        architecture="resnet34", initial_weights=state, learning_rate=1e-12, batch_size=4
    ).fit(patches[0][:6], patches[1][:6])
    assert regressor.architecture_ == "resnet34"
    np.testing.assert_allclose(
        regressor.state_["backbone.conv1.weight"], state["conv1.weight"].sum(1, True), atol=1e-6
    )
    with pytest.raises(ValueError, match="initial_weights do not fit"):
        quick(architecture="compact", initial_weights=state).fit(*patches)


# ---- Behaviour as an estimator ----


def test_frozen_estimator(tiny_regressor, patches):
    X, y = patches
    frozen = FrozenEstimator(tiny_regressor).fit(X, y)
    assert frozen.estimator is tiny_regressor
    np.testing.assert_array_equal(frozen.predict(X), tiny_regressor.predict(X))
    assert frozen.predict(X, return_std=True)[1].shape == y.shape
    assert frozen.predict_invalid(X).shape == (24,) and frozen.patch_size_ == 32
    assert clone(frozen) is frozen


def test_pickle_and_hash_hold_no_network(tiny_regressor, patches):
    X = patches[0]
    copy = pickle.loads(pickle.dumps(tiny_regressor))
    before = joblib.hash(copy)
    np.testing.assert_array_equal(copy.predict(X), tiny_regressor.predict(X))
    assert joblib.hash(copy) == before == joblib.hash(tiny_regressor)
    assert b"torch" not in pickle.dumps(copy)


def test_unfitted(patches):
    regressor = PSFParameterRegressor()
    for call in (regressor.predict, regressor.predict_invalid, regressor.score):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call(patches[0])
    with pytest.raises(NotFittedError):
        check_is_fitted(regressor)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"n_patches": 0}, ValueError, r"n_patches must be in \[1, inf\), got 0"),
        ({"max_epochs": 1.5}, TypeError, "max_epochs must be an integer, got 1.5"),
        ({"batch_size": 1}, ValueError, r"batch_size must be in \[2, inf\), got 1"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction"),
        ({"loss": "l1"}, ValueError, "loss must be one of 'nll', 'mse'; got 'l1'"),
        ({"architecture": "vgg"}, ValueError, "architecture must be one of 'compact'.*'vgg'"),
        ({"patch_size": 31}, ValueError, r"patch_size must be in \[32, inf\), got 31"),
        ({"patch_size": 64.0}, TypeError, "patch_size"),
        ({"patience": 0}, ValueError, "patience"),
        ({"max_minutes": 0}, ValueError, "max_minutes"),
        ({"camera": "sensor"}, TypeError, "camera must be a Camera or None, got 'sensor'"),
        ({"psf_model": "bessel"}, ValueError, "psf_model must be one of .*'bessel'"),
        ({"psf_model": 3}, TypeError, "psf_model must be a name or a PSFModel, got 3"),
        ({"psf_model": "born-wolf"}, ValueError, "needs optics"),
        ({"pretrained": 3}, ValueError, "pretrained must be a name or a path, got 3"),
        ({"initial_weights": [1]}, ValueError, "must be a name"),
        ({"device": "abacus"}, ValueError, "device 'abacus'"),
        ({"random_state": "monday"}, ValueError, "seed"),
        ({"checkpoint": 3}, TypeError, "checkpoint"),
    ],
)
@pytest.mark.parametrize("sharp_only", [False, True])
def test_bad_parameters(sharp, patches, settings, error, match, sharp_only):
    with pytest.raises(error, match=match):
        quick(**settings).fit(*((sharp,) if sharp_only else patches))


def test_bad_data_of_fit(sharp, patches):
    X, y = patches
    with pytest.raises(ValueError, match=r"y must have shape \(24, 1\).*got \(23, 1\)"):
        quick().fit(X, y[1:])
    with pytest.raises(ValueError, match=r"y must have shape .*\('width',\).*got \(24, 2\)"):
        quick().fit(X, np.hstack([y, y]))
    with pytest.raises(ValueError, match="y contains infinity"):
        quick().fit(X, np.where(np.arange(24)[:, None] == 3, np.inf, y))
    with pytest.raises(ValueError, match="y holds no valid row"):
        quick().fit(X, np.full_like(y, np.nan))
    with pytest.raises(ValueError, match="square, 32 x 32 pixels .*got 40 x 36"):
        quick().fit(np.zeros((24, 40, 36)), y)
    with pytest.raises(ValueError, match="square, 64 x 64 pixels"):
        quick(patch_size=64).fit(X, y)
    with pytest.raises(ValueError, match="16 x 16 pixels, smaller than the minimum of 32 x 32"):
        quick(patch_size=None).fit(X[:, :16, :16], y)
    with pytest.raises(ValueError, match="Found 1 sample.* at least 2 patches"):
        quick().fit(X[:1], y[:1])
    with pytest.raises(ValueError, match="Found 4 sample.*3 to validate on.* at least 2 patches"):
        quick(validation_fraction=0.8).fit(X[:4], y[:4])
    with pytest.raises(ValueError, match="got 2D"):
        quick().fit(sharp[0])
    with pytest.raises(ValueError, match=r"X\[1\] contains NaN"):
        quick().fit([sharp[0], sharp[1] * np.nan])


@pytest.mark.parametrize("method", ["predict", "predict_invalid", "predict_all"])
def test_bad_patches(tiny_regressor, method):
    call = getattr(tiny_regressor, method)
    bad = {
        "got 2D": np.zeros((32, 32)),
        r"Patches of 32 x 32 pixels .*got 32 x 33. Use SpatialPSFMapper": np.zeros((1, 32, 33)),
        "0 sample": np.zeros((0, 32, 32)),
        "NaN": np.full((1, 32, 32), np.nan),
        "Complex": np.zeros((1, 32, 32), complex),
        "real numbers": np.zeros((1, 32, 32), object),
        "colour": np.zeros((1, 32, 32, 3)),
        "ragged": [np.zeros((32, 32)), np.zeros((32, 31))],
    }
    for match, X in bad.items():
        with pytest.raises(ValueError, match=match):
            call(X)


# ---- Shipped weights ----


@pytest.mark.parametrize(
    "family", ["gaussian-1", "gaussian-2", "zernike-1", "zernike-2", "zernike-3"]
)
def test_shipped_weights_read_images_they_never_saw(family):
    images = load_skimage(["grass", "gravel", "coins", "camera"])
    regressor = PSFParameterRegressor(pretrained=family, random_state=0).fit(list(images.values()))
    X, y = make_blurred_patches(
        list(images.values()), 120, psf_model=regressor.psf_model_, random_state=0
    )
    assert regressor.score(X, y) > 0.5
    p, std = regressor.predict(X, return_std=True)
    valid = ~np.isnan(y).any(1)
    not_angles = [period is None for period in regressor.psf_model_.periods]
    ratio = np.abs(p - y)[valid][:, not_angles] / std[valid][:, not_angles]
    assert 0.35 < (ratio < 1).mean() < 0.95  # the error bars are about right
    assert (regressor.predict_invalid(X)[valid] > 0.5).mean() < 0.2


@pytest.mark.parametrize("family", ["gaussian-1", "zernike-3"])
def test_shipped_weights_know_when_there_is_nothing_to_read(family):
    rng = np.random.RandomState(0)
    X = np.stack(
        [
            np.zeros((128, 128)),
            np.full((128, 128), 0.1),
            np.full((128, 128), 40000.0),
            rng.poisson(300, (128, 128)),
            100 + rng.standard_normal((128, 128)),
        ]
    )
    regressor = PSFParameterRegressor(pretrained=family).fit(X)
    invalid = regressor.predict_invalid(X)
    assert (invalid[:3] == 1).all() and (invalid[3:] > 0.5).all()  # constants, and mere noise
    p, std = regressor.predict(X, return_std=True)
    assert np.isfinite(p).all() and np.isfinite(std).all()


def textureless_patches(n, seed=0, size=128):
    """Patches of mere noise, shaded, rounded, with dead pixels, or saturated: by kind."""
    rng = np.random.RandomState(seed)
    level = 10 ** rng.uniform(1.5, 4, (n, 1, 1))
    read_noise = rng.uniform(0.5, 5, (n, 1, 1)) * rng.standard_normal((n, size, size))
    t = np.linspace(-1, 1, size)
    shading = 1 - 0.1 * rng.rand(n, 1, 1) * (t[:, None] ** 2 + t**2) + 0.1 * rng.rand(n, 1, 1) * t
    flat = rng.poisson(np.broadcast_to(level, read_noise.shape)) + read_noise
    dead = np.where(rng.rand(*flat.shape) < 2e-4, 0, flat)
    return {
        "read noise": 100 + read_noise,
        "shot noise": flat,
        "shaded": rng.poisson(level * shading) + read_noise,
        "8 bits": np.round(100 * flat / level),
        "dead pixels": dead,
        "saturated": rng.poisson(6000.0, flat.shape).clip(max=4095),
        "just saturated": rng.poisson(4200.0, flat.shape).clip(max=4095),
    }


@pytest.mark.parametrize(
    ("family", "size", "n"),
    [
        ("gaussian-1", 128, 40),
        ("gaussian-2", 128, 40),
        ("zernike-1", 128, 40),
        ("zernike-2", 128, 40),
        ("zernike-3", 128, 40),
        ("zernike-3", 256, 6),
    ],
)
def test_shipped_weights_tell_texture_from_none(family, size, n):
    textureless = textureless_patches(n, size=size)
    regressor = PSFParameterRegressor(pretrained=family, patch_size=size)
    regressor.fit(textureless["saturated"])
    found = {k: (regressor.predict_invalid(X) > 0.5).mean() for k, X in textureless.items()}
    assert np.mean(list(found.values())) >= 0.95 and min(found.values()) >= 0.8, found
    photographs = list(load_skimage(["brick", "camera", "coins", "grass", "gravel"]).values())
    drawn = list(make_textures(30, size=256, random_state=9))
    alarms = []
    for sharp in (photographs, drawn):
        X, y = make_blurred_patches(
            sharp,
            5 * n // 2,
            psf_model=regressor.psf_model_,
            patch_size=size,
            random_state=0,
        )
        alarms.append(regressor.predict_invalid(X[~np.isnan(y).any(1)]) > 0.5)
    assert np.concatenate(alarms).mean() <= 0.05


def test_focus_beyond_the_bounds_is_read_at_half_the_sampling():
    """Up to the bounds as it is, and binned by two, the reading rises with the focus."""
    size, n = 201, 256  # pixels of a PSF of 2.5 waves, and of the image that is binned
    psfs = make_psf_model("zernike-1", size=size).psf(np.arange(0.25, 2.51, 0.25)[:, None])
    fields = make_textures(16, size=n + size - 1, random_state=8) * 1e4
    spectra = np.fft.rfft2(fields, s=(512, 512))
    regressor = PSFParameterRegressor(pretrained="zernike-1").fit(fields)
    read = {"direct": [], "binned": []}
    for seed, psf in enumerate(psfs):
        blurred = np.fft.irfft2(spectra * np.fft.rfft2(psf, s=(512, 512)), s=(512, 512))
        blurred = blurred[:, size - 1 : size - 1 + n, size - 1 : size - 1 + n].clip(0)
        images = Camera().expose(blurred, generator=seed)
        middle = images[:, n // 4 : -n // 4, n // 4 : -n // 4]
        binned = images.reshape(-1, n // 2, 2, n // 2, 2).mean((2, 4))
        read["direct"].append(np.median(regressor.predict(middle)))
        read["binned"].append(np.median(regressor.predict(binned)))
    assert (np.diff(read["direct"][:5]) > 0.1).all(), read  # to 1.25 waves; it folds back above 1.5
    assert (np.diff(read["binned"]) > 0.02).all(), read
    assert 0.7 < read["binned"][5] < 0.9, read  # 1.5 waves, the bound


@pytest.mark.parametrize("architecture", ["compact-directed", "polar"])
def test_parts_of_images_are_read_as_patches_are(architecture, sharp):
    settings = {"architecture": architecture, "patch_size": 64, "n_patches": 16, "batch_size": 8}
    motion = make_psf_model("motion", size=15)
    first, again = (quick(psf_model=motion, **settings).fit(sharp) for _ in range(2))
    assert len(first.history_) == quick().max_epochs
    assert all(np.isfinite(row["train_loss"]) for row in first.history_)
    for name, value in first.state_.items():
        np.testing.assert_array_equal(again.state_[name], value)
    X, _ = make_blurred_patches(sharp, 3, psf_model=motion, patch_size=64, random_state=0)
    parameters, std = first.predict(X, return_std=True)
    assert parameters.shape == std.shape == (3, 4) and (std > 0).all()
