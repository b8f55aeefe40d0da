import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from sklearn_psf import PSFMap, TVRLDeconvolver
from sklearn_psf.metrics import snr
from sklearn_psf.operators import Convolution, LocalPSFs, split_blocks
from sklearn_psf.optics import make_psf_model

SIZE = 64
MODEL = make_psf_model("zernike-1", size=31)


def sharp_images(n=1, size=SIZE, photons=5e3, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.random((n, size // 4, size // 4)) ** 3
    return photons * np.kron(coarse, np.ones((1, 4, 4)))


def focus_map(images, focus, std=0.0):
    """A PSFMap of a 2 x 2 grid whose focus is the same in all images."""
    n, height, width = images.shape
    rows, columns = (np.array([0.25, 0.75]) * size - 0.5 for size in (height, width))
    parameters = np.broadcast_to(np.reshape(focus, (2, 2, 1)), (n, 2, 2, 1)).astype(float)
    return PSFMap(
        images=images,
        parameters=parameters,
        std=np.full_like(parameters, std),
        invalid=np.zeros((n, 2, 2)),
        rows=rows,
        columns=columns,
        model=MODEL.settings,
    )


@pytest.fixture(scope="module")
def blurred_map():
    """Images blurred by a focus that differs from corner to corner, and their sharp truth."""
    sharp = sharp_images(2)
    maps = focus_map(sharp, [[0.2, 0.5], [0.6, 0.9]])
    local = LocalPSFs(maps.psfs(0).astype(float), maps.rows, maps.columns)
    (block,) = split_blocks(sharp.shape[1:], (31, 31))
    operator = local.operator(block, rtol=1e-6)
    field = np.pad(sharp, ((0, 0), (15, 15), (15, 15)), mode="reflect")
    mean = operator.forward(torch.from_numpy(field)).numpy().clip(0)
    images = np.random.default_rng(0).poisson(mean).astype(np.uint16)
    return focus_map(images, [[0.2, 0.5], [0.6, 0.9]], std=0.1), sharp


def test_restores_a_varying_blur(blurred_map):
    maps, sharp = blurred_map
    before = maps.images.copy()
    deconv = TVRLDeconvolver().fit(maps)
    restored = deconv.transform(maps)
    assert restored.shape == sharp.shape and restored.dtype == np.float32
    assert np.isfinite(restored).all() and (restored >= 0).all()
    assert snr(sharp, restored) > snr(sharp, maps.images) + 1
    assert deconv.score(maps, sharp) == pytest.approx(snr(sharp, restored))
    np.testing.assert_array_equal(maps.images, before)
    assert deconv.image_shape_ == (SIZE, SIZE) and deconv.psf_ is None
    assert not hasattr(deconv, "restored_std_")


def test_the_local_psfs_beat_their_mean(blurred_map):
    maps, sharp = blurred_map
    mean = maps.psfs(0).mean((0, 1))
    one = TVRLDeconvolver(psf=mean).fit(maps)
    assert TVRLDeconvolver().fit(maps).score(maps, sharp) > one.score(maps, sharp) + 0.5
    # a PSF that is set wins over the map's
    np.testing.assert_array_equal(one.transform(maps), one.transform(maps.images))


def test_plain_images_with_a_psf(blurred_map):
    maps, _ = blurred_map
    psfs = maps.psfs(0)  # whose centres are those of the cells
    by_map = TVRLDeconvolver().fit(maps).transform(maps)
    by_array = TVRLDeconvolver(psf=7 * psfs).fit(maps.images).transform(maps.images)
    assert abs(by_array - by_map).mean() < 1e-3 * by_map.mean()


def test_methods_and_windows_agree(blurred_map):
    maps, _ = blurred_map
    results = {}
    for method in ("tiles", "modes"):
        for window in ("bilinear", "hann"):
            deconv = TVRLDeconvolver(method=method, window=window, n_iter=10)
            results[method, window] = deconv.fit_transform(maps[0])
    scale = results["tiles", "hann"].mean()
    np.testing.assert_allclose(
        results["tiles", "hann"], results["modes", "hann"], atol=0.05 * scale
    )
    assert abs(results["tiles", "hann"] - results["tiles", "bilinear"]).max() > 1e-3 * scale


def test_same_input_same_output_and_no_trace(blurred_map):
    maps, _ = blurred_map
    deconv = TVRLDeconvolver(n_iter=5).fit(maps)
    before = joblib.hash(deconv)
    first = deconv.transform(maps)
    np.testing.assert_array_equal(first, deconv.transform(maps))
    assert joblib.hash(deconv) == before
    np.testing.assert_array_equal(first[1:], clone(deconv).fit_transform(maps[1]))


def test_in_a_pipeline(blurred_map):
    maps, sharp = blurred_map
    pipeline = make_pipeline(TVRLDeconvolver(n_iter=5))
    assert pipeline.fit(maps, sharp).score(maps, sharp) > snr(sharp, maps.images)
    tags = TVRLDeconvolver().__sklearn_tags__()
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array
    assert tags.transformer_tags.preserves_dtype == []


def test_camera_units_drop_out():
    image = np.random.default_rng(0).poisson(50, (1, 24, 24)).astype(float)
    psf = MODEL.psf(np.array([[0.4]]))[0]
    plain = TVRLDeconvolver(psf=psf, read_noise=3, background=10).fit_transform(image)
    grey = TVRLDeconvolver(psf=psf, read_noise=3, background=20, gain=2, offset=100)
    np.testing.assert_allclose(grey.fit_transform(2 * image + 100), 2 * plain + 100, rtol=1e-3)


def test_background_is_removed():
    image = np.full((1, 24, 24), 30.0)
    psf = MODEL.psf(np.array([[0.4]]))[0]
    restored = TVRLDeconvolver(psf=psf, background=20).fit_transform(image)
    np.testing.assert_allclose(restored, 10, rtol=0.02)


def test_read_noise_calms_dark_regions():
    """With strong read noise, knowing of it makes the restoration better."""
    sharp = sharp_images(photons=100)
    psf = MODEL.psf(np.array([[0.6]]))[0]
    operator = Convolution(psf, sharp.shape[1:])
    field = np.pad(sharp, ((0, 0), (15, 15), (15, 15)), mode="reflect")
    rng = np.random.default_rng(0)
    image = rng.poisson(operator.forward(torch.from_numpy(field)).clip(0))
    image = image + rng.normal(0, 10, image.shape)  # negative values too
    scores = [
        TVRLDeconvolver(psf=psf, read_noise=r, n_iter=40).fit(image).score(image, sharp)
        for r in (None, 10)
    ]
    assert scores[1] > scores[0] + 1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 20, 21)),
        np.full((1, 20, 21), 5, np.uint8),
        np.full((1, 20, 21), -5.0),
        np.ones((2, 1, 1)),
        np.ones((1, 3, 70), np.uint16),
        np.random.default_rng(0).integers(-300, 300, (1, 20, 21), dtype=np.int16),
        np.full((1, 9, 9), 60000, np.uint16),
        np.eye(20)[np.newaxis].astype(bool),
    ],
    ids=["zero", "constant", "negative", "one-pixel", "thin", "int16", "uint16", "bool"],
)
def test_hard_images_give_finite_results(image):
    psf = MODEL.psf(np.array([[0.3], [0.9]])).reshape(2, 1, 31, 31)  # larger than some images
    restored = TVRLDeconvolver(psf=psf, n_iter=10).fit_transform(image)
    assert restored.shape == image.shape and restored.dtype == np.float32
    assert np.isfinite(restored).all() and (restored >= 0).all()


def test_a_constant_image_stays():
    # of one PSF: where the PSF varies, an even field does not make an even image
    psf = MODEL.psf(np.array([[0.6]]))[0]
    for value in (0, 7, 60000):
        image = np.full((1, 20, 23), value, np.uint16)
        restored = TVRLDeconvolver(psf=psf).fit_transform(image)
        np.testing.assert_allclose(restored, image, rtol=0.01, atol=1e-6)


def test_gather_restores_what_is_put_together_of_evenly_blurred_parts():
    sharp = sharp_images(1, 96, seed=3)
    psfs = make_psf_model("gaussian-1", size=13).psf([[0.6], [2.0]])
    parts = [Convolution(psf, (84, 84)).forward(torch.as_tensor(sharp[0]).float()) for psf in psfs]
    blurred = np.hstack([parts[0][:, :42], parts[1][:, 42:]])[np.newaxis]
    rows = np.array([psfs[0]] * 21 + [psfs[1]] * 21).reshape(1, 42, 13, 13)  # steps of two pixels
    scores = [
        TVRLDeconvolver(psf=rows, order=order).fit(blurred).score(blurred, sharp[:, 6:-6, 6:-6])
        for order in ("gather", "scatter")
    ]
    assert scores[0] > scores[1] + 1


def test_images_of_one_psf_share_its_operator(monkeypatch):
    images = sharp_images(3, 40)
    psfs = MODEL.psf([[0.2], [0.4]]).reshape(1, 2, 31, 31)
    built, build = [], LocalPSFs.operator

    def count(self, block, **options):
        built.append(block)
        return build(self, block, **options)

    monkeypatch.setattr(LocalPSFs, "operator", count)
    deconv = TVRLDeconvolver(psf=psfs, n_iter=3).fit(images)
    together = deconv.transform(images)
    assert len(built) == 1
    for image, restored in zip(images, together, strict=True):
        np.testing.assert_array_equal(deconv.transform(image[np.newaxis])[0], restored)


def test_memmap_and_read_only_input(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, sharp_images(2, 32).astype(np.uint16))
    X = np.load(path, mmap_mode="r")
    deconv = TVRLDeconvolver(psf=np.ones((3, 3)), n_iter=3).fit(X)
    np.testing.assert_array_equal(deconv.transform(X), deconv.transform(np.array(X)))
    np.testing.assert_array_equal(deconv.transform(X), deconv.transform(X.tolist()))


def test_without_a_valid_window_the_image_comes_back(blurred_map):
    maps, _ = blurred_map
    parameters = maps.parameters.copy()
    parameters[0] = np.nan
    partly = PSFMap(
        maps.images, parameters, maps.std, maps.invalid, maps.rows, maps.columns, maps.model
    )
    deconv = TVRLDeconvolver(n_iter=5, n_samples=2, random_state=0)
    with pytest.warns(UserWarning, match="No window of image 0"):
        restored = deconv.fit_transform(partly)
    np.testing.assert_array_equal(restored[0], maps.images[0].astype(np.float32))
    assert (restored[1] != maps.images[1]).any()
    assert (deconv.restored_std_[0] == 0).all()
    with pytest.warns(UserWarning, match="No window of image 0"):
        assert np.isfinite(deconv.score(partly))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deconv.fit_transform(maps)


def test_std_of_the_map_propagates(blurred_map):
    maps, _ = blurred_map
    one = maps[0]
    small, large = (
        focus_map(one.images, 0.5 * np.ones(4), 0.02),
        focus_map(one.images, 0.5 * np.ones(4), 0.2),
    )
    deconv = TVRLDeconvolver(n_iter=10, n_samples=4, random_state=0)
    restored = deconv.fit_transform(small)
    std = deconv.restored_std_
    assert std.shape == restored.shape and std.dtype == np.float32
    assert 0 < std.mean() < restored.mean()
    deconv.transform(large)
    assert deconv.restored_std_.mean() > 2 * std.mean()
    deconv.transform(small)
    np.testing.assert_array_equal(deconv.restored_std_, std)
    # the restored image is that of the map's own parameters
    np.testing.assert_array_equal(restored, TVRLDeconvolver(n_iter=10).fit_transform(small))
    deconv.transform(focus_map(one.images, 0.5 * np.ones(4), 0.0))
    assert (deconv.restored_std_ == 0).all()


def test_angles_are_drawn_through_their_period():
    model = make_psf_model("zernike-3", size=31)
    image = sharp_images(1, 32)
    parameters = np.full((1, 1, 1, 3), [0.5, 0.4, 0.0])
    maps = PSFMap(
        image,
        parameters,
        np.full_like(parameters, [0.0, 0.0, 0.3]),
        np.zeros((1, 1, 1)),
        np.array([15.5]),
        np.array([15.5]),
        model.settings,
    )
    deconv = TVRLDeconvolver(n_iter=3, n_samples=3, random_state=0).fit(maps)
    deconv.transform(maps)
    assert deconv.restored_std_.max() > 0


@pytest.mark.parametrize("accelerate", [False, True])
def test_blocks_agree_with_the_whole(accelerate):
    images = sharp_images(1, 160, seed=2)
    psfs = make_psf_model("gaussian-1", size=13).psf([[0.9], [1.2], [1.4], [1.6]])
    psfs = psfs.reshape(2, 2, 13, 13)
    whole = TVRLDeconvolver(psf=psfs, n_iter=40, accelerate=accelerate).fit(images)
    limit = 2_500_000
    kernel = LocalPSFs.on_cells(psfs, (160, 160)).crop(1e-3).psfs.shape[2:]
    assert len(split_blocks((160, 160), kernel, 4, limit)) >= 3
    blocks = clone(whole).set_params(max_memory=limit).fit(images)
    a, b = whole.transform(images), blocks.transform(images)
    assert 0 < np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(a)
    with pytest.raises(ValueError, match="max_memory=1000 bytes is too little"):
        clone(whole).set_params(max_memory=1000).fit(images).transform(images)


@pytest.fixture(scope="module")
def noisy_gaussian():
    """Blurred images of few photons, sharp ones, and the PSF."""
    sharp = np.stack([sharp_images(1, 96, seed=k)[0] for k in range(2)])
    sharp = 100 * sharp / sharp.mean()
    psf = make_psf_model("gaussian-1", size=13).psf([[1.5]])[0]
    operator = Convolution(psf, (84, 84))
    light = operator.forward(torch.as_tensor(sharp, dtype=torch.float32)).clamp(min=0).numpy()
    return np.random.RandomState(0).poisson(light).astype(np.float32), sharp[:, 6:-6, 6:-6], psf


def test_auto_finds_a_weight_nearly_as_good_as_the_best(noisy_gaussian):
    blurred, sharp, psf = noisy_gaussian
    auto = TVRLDeconvolver(psf=psf, lambda_tv="auto", gain=1, random_state=0).fit(blurred)
    assert auto.lambda_ in auto.lambdas_ and auto.n_iter_ == 40
    assert auto.simulated_snr_.shape == (len(auto.lambdas_), 40)
    assert auto.held_out_likelihood_.shape == auto.criterion_.shape == auto.lambdas_.shape
    assert auto.lambda_ == auto.lambdas_[np.argmax(auto.criterion_)]
    scores = [
        TVRLDeconvolver(psf=psf, lambda_tv=weight).fit(blurred).score(blurred, sharp)
        for weight in auto.lambdas_
    ]
    assert max(scores) - min(scores) > 0.6  # it matters
    assert auto.score(blurred, sharp) > max(scores) - 0.3
    assert not hasattr(clone(auto), "held_out_likelihood_")
    assert joblib.hash(clone(auto).fit(blurred)) == joblib.hash(auto)
    other = clone(auto).set_params(random_state=1).fit(blurred)
    assert (other.held_out_likelihood_ != auto.held_out_likelihood_).all()
    # fit chooses, transform only uses
    np.testing.assert_array_equal(
        auto.transform(blurred[:1]),
        TVRLDeconvolver(psf=psf, lambda_tv=auto.lambda_).fit_transform(blurred[:1]),
    )


def test_auto_iterates_its_own_weight_longest(noisy_gaussian):
    blurred, sharp, psf = noisy_gaussian
    auto = TVRLDeconvolver(psf=psf, lambda_tv="auto", n_iter="auto", gain=1, random_state=0)
    auto.fit(blurred)
    assert auto.n_iter_ == 60 and auto.simulated_snr_.shape == (len(auto.lambdas_), 60)
    shorter = TVRLDeconvolver(psf=psf, lambda_tv=auto.lambda_, n_iter=20).fit(blurred)
    assert auto.score(blurred, sharp) > shorter.score(blurred, sharp) - 0.1


def test_auto_stops_before_the_noise_is_restored(noisy_gaussian):
    blurred, sharp, psf = noisy_gaussian
    auto = TVRLDeconvolver(psf=psf, lambda_tv=0.0, n_iter="auto", gain=1, random_state=0)
    auto.fit(blurred)
    assert auto.lambda_ == 0 and auto.simulated_snr_.shape == (1, 60)
    assert not hasattr(auto, "held_out_likelihood_") and not hasattr(auto, "criterion_")
    scores = {
        n: TVRLDeconvolver(psf=psf, lambda_tv=0.0, n_iter=n).fit(blurred).score(blurred, sharp)
        for n in (3, 6, 9, 12, 16, 20, 60)
    }
    best = max(scores.values())
    assert scores[60] < best - 1
    assert auto.score(blurred, sharp) > best - 0.3


def test_auto_regularises_more_where_the_psf_is_uncertain(blurred_map):
    maps, _ = blurred_map
    one = maps[0]
    known, uncertain = (
        TVRLDeconvolver(lambda_tv="auto", gain=1, n_iter=20, random_state=0).fit(
            focus_map(one.images, 0.5 * np.ones(4), std)
        )
        for std in (0.0, 0.4)
    )
    assert uncertain.lambda_ > 2 * known.lambda_
    # photons are predicted best by whatever fits them, so they have a say on known PSFs only
    assert hasattr(known, "held_out_likelihood_")
    assert not hasattr(uncertain, "held_out_likelihood_")


def test_auto_counts_a_known_read_noise_once(noisy_gaussian, monkeypatch):
    blurred, _, psf = noisy_gaussian
    seen = []

    def note(shape):
        def note(image, operator, lambdas, n_iter, **settings):
            seen.append((image, settings))
            return np.zeros((len(lambdas), n_iter)[:shape])

        return note

    choice = "sklearn_psf._regularisation_choice"
    monkeypatch.setattr(f"{choice}.simulated_snr", note(2))
    monkeypatch.setattr(f"{choice}.held_out_likelihood", note(1))
    options = {"psf": psf, "lambda_tv": "auto", "gain": 2.0}
    TVRLDeconvolver(read_noise=3.0, **options).fit(blurred[:1])
    # in the background, as Poisson noise: 3^2 electrons are 18 grey values
    (image, simulated), (same, held_out) = seen[:2]
    assert (simulated["background"], simulated["read_noise"]) == (18.0, 0.0)
    assert (held_out["background"], held_out["gain"]) == (18.0, 2.0)
    np.testing.assert_array_equal(image, blurred[0] + 18)
    np.testing.assert_array_equal(same, image)
    TVRLDeconvolver(**options).fit(blurred[:1])
    assert seen[-1][1]["background"] == 0


def test_auto_predicts_photons_as_score_does(noisy_gaussian):
    blurred, _, psf = noisy_gaussian
    options = {"psf": psf, "gain": 2.0, "offset": 30.0, "background": 5.0, "read_noise": 2.0}
    X = 2 * blurred + 35
    auto = TVRLDeconvolver(lambda_tv="auto", n_iter=20, random_state=0, **options).fit(X)
    for weight, nats in list(zip(auto.lambdas_, auto.held_out_likelihood_, strict=True))[::3]:
        by_score = [
            TVRLDeconvolver(lambda_tv=weight, n_iter=20, random_state=k, **options).fit(X).score(X)
            for k in range(3)
        ]
        # other photons were held out, and not more of them
        assert nats == pytest.approx(np.mean(by_score), abs=0.03)


def test_auto_without_a_psf_to_choose_by(blurred_map):
    maps, _ = blurred_map
    parameters = np.full_like(maps.parameters, np.nan)
    unknown = PSFMap(
        maps.images, parameters, maps.std, maps.invalid, maps.rows, maps.columns, maps.model
    )
    with pytest.warns(UserWarning, match="No window of image"):
        deconv = TVRLDeconvolver(lambda_tv="auto", n_iter="auto")
        restored = deconv.fit_transform(unknown)
    # other images may follow: nothing was learnt, so the defaults serve
    assert (deconv.lambda_, deconv.n_iter_) == (0.004, 40)
    for name in ("lambdas_", "simulated_snr_", "held_out_likelihood_", "criterion_"):
        assert not hasattr(deconv, name)
    np.testing.assert_array_equal(restored, maps.images.astype(np.float32))


def test_nothing_of_an_earlier_choice_remains(noisy_gaussian):
    blurred, _, psf = noisy_gaussian
    deconv = TVRLDeconvolver(psf=psf, lambda_tv="auto", n_iter=3, gain=1, random_state=0)
    deconv.fit(blurred[:1, :40, :40])
    assert deconv.simulated_snr_.shape == (len(deconv.lambdas_), 3)
    names = ("lambdas_", "simulated_snr_", "held_out_likelihood_", "criterion_")
    assert all(hasattr(deconv, name) for name in names)
    deconv.set_params(lambda_tv=0.01).fit(blurred[:1])
    assert not any(hasattr(deconv, name) for name in names)


def test_held_out_score_prefers_the_right_psf(blurred_map):
    maps, _ = blurred_map
    right = TVRLDeconvolver(random_state=0, gain=1).fit(maps)
    value = right.score(maps)
    assert value == right.score(maps)
    assert value != TVRLDeconvolver(random_state=1, gain=1).fit(maps).score(maps)
    # a gain that is not given is read off the image
    assert value == pytest.approx(TVRLDeconvolver(random_state=0).fit(maps).score(maps), abs=0.3)
    too_wide = focus_map(maps.images, 1.2 * np.ones(4))
    assert value > right.score(too_wide) + 0.05
    # in other units the photons are the same
    grey = focus_map(2.0 * maps.images + 100, maps.parameters[0])
    in_grey = TVRLDeconvolver(random_state=0, gain=2, offset=100).fit(grey).score(grey)
    assert in_grey == pytest.approx(value, abs=1e-3)


def test_progress_bar(capsys):
    image = sharp_images(1, 16)
    TVRLDeconvolver(psf=np.ones((3, 3)), n_iter=3).fit_transform(image)
    assert capsys.readouterr().err == ""
    TVRLDeconvolver(psf=np.ones((3, 3)), n_iter=3, verbose=1).fit_transform(image)
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"psf": np.ones((4, 3))}, ValueError, "psf must have an odd height and width"),
        ({"psf": np.ones(3)}, ValueError, "psf must have shape"),
        ({"psf": np.ones((2, 3, 3))}, ValueError, "psf must have shape"),
        ({"psf": -np.ones((3, 3))}, ValueError, "psf must not be negative"),
        ({"psf": np.zeros((3, 3))}, ValueError, "psf must not be zero"),
        ({"psf": np.full((3, 3), np.nan)}, ValueError, "psf contains NaN"),
        ({"psf": np.ones((3, 3), complex)}, ValueError, "psf must hold real numbers"),
        ({"psf": "gaussian"}, ValueError, "psf must hold real numbers"),
        ({"lambda_tv": -1}, ValueError, "lambda_tv"),
        ({"lambda_tv": "a"}, TypeError, "lambda_tv"),
        ({"n_iter": 0}, ValueError, "n_iter"),
        ({"n_iter": 2.5}, TypeError, "n_iter"),
        ({"accelerate": 1}, TypeError, "accelerate"),
        ({"window": "box"}, ValueError, "window"),
        ({"method": "fft"}, ValueError, "method"),
        ({"background": -1}, ValueError, "background"),
        ({"gain": 0}, ValueError, "gain"),
        ({"offset": np.inf}, ValueError, "offset"),
        ({"read_noise": -1}, ValueError, "read_noise"),
        ({"rtol": 2}, ValueError, "rtol"),
        ({"n_samples": -1}, ValueError, "n_samples"),
        ({"lambda_tv": "best"}, TypeError, "lambda_tv"),
        ({"order": "spread"}, ValueError, "order"),
        ({"n_iter": "many"}, TypeError, "n_iter"),
        ({"n_samples": 3}, ValueError, "n_samples=3 draws PSFs from the std of a PSFMap"),
        ({"max_memory": 0}, ValueError, "max_memory"),
        ({"device": "tpu9"}, ValueError, "device"),
        ({"random_state": "seed"}, ValueError, "seed"),
    ],
)
def test_bad_parameters(parameters, error, message):
    arguments = {"psf": np.ones((3, 3))} | parameters
    with pytest.raises(error, match=message):
        TVRLDeconvolver(**arguments).fit(np.ones((1, 8, 8)))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((8, 8)), r"X\[np.newaxis\]"),
        (np.ones((2, 8, 8, 3)), "colour"),
        (np.ones((0, 8, 8)), "0 sample"),
        (np.full((1, 8, 8), np.nan), "NaN or infinity"),
        (np.ones((1, 8, 8), complex), "Complex data not supported"),
        (np.array([["a"]])[np.newaxis], "real numbers"),
        ([np.ones((8, 8)), np.ones((8, 9))], "ragged list"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform", "score"])
def test_bad_images(X, message, method):
    deconv = TVRLDeconvolver(psf=np.ones((3, 3))).fit(np.ones((1, 8, 8)))
    with pytest.raises(ValueError, match=message):
        getattr(deconv, method)(X)


def test_plain_images_without_a_psf_are_told_what_to_do(blurred_map):
    with pytest.raises(ValueError, match="Pass a PSFMap .* or set psf="):
        TVRLDeconvolver().fit(np.ones((1, 8, 8)))
    with pytest.raises(ValueError, match="SpatialPSFMapper before"):
        TVRLDeconvolver().fit(blurred_map[0]).transform(np.ones((1, 8, 8)))


def test_unfitted_and_mismatched(blurred_map):
    maps, sharp = blurred_map
    with pytest.raises(NotFittedError):
        TVRLDeconvolver().transform(maps)
    with pytest.raises(NotFittedError):
        TVRLDeconvolver().score(maps)
    deconv = TVRLDeconvolver().fit(maps)
    with pytest.raises(ValueError, match="y must have the shape of X"):
        deconv.score(maps, sharp[:1])
    with pytest.raises(ValueError, match="y contains NaN"):
        deconv.score(maps, sharp * np.nan)
