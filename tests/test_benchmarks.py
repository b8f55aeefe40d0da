"""Benchmarks run from their command line; what they measure is not judged here."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.signal import fftconvolve
from skimage.io import imsave

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.metrics import snr
from sklearn_psf.networks import build_network
from sklearn_psf.networks.spectra import normalize_patches, polar_spectrum
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import PatchStream, make_textures

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # processes and threads that a benchmark starts look their functions up by this name
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_table_4_1(tmp_path, capsys):
    load("table_4_1").main(["--smoke", "--output", str(tmp_path / "table.json")])
    printed = capsys.readouterr().out
    for name in ("true PSFs", "blind, zernike-1", "sharpening", "PSF by gaussian-1", "+2.14"):
        assert name in printed
    record = json.loads((tmp_path / "table.json").read_text())
    assert set(record["results"]) == {"pasted, zernike-1", "pasted, gaussian-1"}
    # with the true PSFs few iterations raise the SNR
    assert record["results"]["pasted, gaussian-1"]["true PSFs"]["mean"][0] > 0


def test_speed(tmp_path, capsys):
    load("speed_deconvolution").main(["--smoke", "--output", str(tmp_path / "speed.json")])
    record = json.loads((tmp_path / "speed.json").read_text())
    assert {(row["size"], row["psfs"], row["tilt"]) for row in record["rows"]} == {
        (128, 1, "none"),
        (128, 4, "columns"),
        (128, 4, "oblique"),
    }
    assert all(row["seconds"] > 0 and np.isfinite(row["decibel"]) for row in record["rows"])
    assert [same["psfs"] for same in record["same_quality"]] == [1, 4, 4]
    for same in record["same_quality"]:
        for name in {"scikit-image", "sklearn_psf"} & set(same):
            assert same[name]["decibel"] >= same["decibel_to_reach"]
            assert same[name]["iterations"] in (1, 2)
    assert "scikit-image" in capsys.readouterr().out


def test_a_method_that_takes_too_long_is_given_up():
    in_process = load("speed_deconvolution").in_process
    assert in_process(time.sleep, 0.2, 60) is None


def test_real_pair(tmp_path, capsys):
    sharp = (4e3 * make_textures(1, size=160, kind="cells", random_state=0)[0]).astype(np.uint16)
    psf = make_psf_model("gaussian-1", size=21).psf(np.array([[2.0]]))[0]
    blurred = fftconvolve(sharp, psf, mode="same").clip(0).astype(np.uint16)
    folder = tmp_path / "pairs" / "simulated"
    folder.mkdir(parents=True)
    imsave(folder / "sharp_0.png", sharp, check_contrast=False)
    imsave(folder / "blurred_0.png", blurred, check_contrast=False)
    output, picture = tmp_path / "pair.json", tmp_path / "pair.png"
    arguments = ["--data", str(folder.parent), "--binning", "1", "--smoke", "--families"]
    load("real_pair").main(
        [*arguments, "gaussian-1", "--output", str(output), "--picture", str(picture)]
    )
    rows = json.loads(output.read_text())["results"]["simulated"]
    assert rows["blind, gaussian-1"]["snr"] > rows["blurred"]["snr"]
    assert picture.stat().st_size > 10_000
    assert "against the plane in focus" in capsys.readouterr().out


def test_restored_std(tmp_path, capsys):
    load("restored_std").main(["--smoke", "--output", str(tmp_path / "std.json")])
    right, wrong = json.loads((tmp_path / "std.json").read_text())["rows"]
    printed = capsys.readouterr().out
    assert right["family"] in printed and wrong["family"] in printed
    for row in (right, wrong):
        assert 0 < row["within_1_std"] < row["within_2_std"] < 1
    assert right["of_true_psfs"] and "of_true_psfs" not in wrong


def test_coverage():
    shares = load("restored_std").coverage(np.array([0.5, 1.5, 2.5, 3.0]), np.ones(4))
    assert shares == {"within_1_std": 0.25, "within_2_std": 0.5}
    row = {"valid": 1.0, "within_1_std": 0.2, "within_2_std": 0.4}
    half = {"valid": 0.5, "within_1_std": 0.8, "within_2_std": 1.0}
    none = {"valid": 0.0, "within_1_std": np.nan, "within_2_std": np.nan}
    table_3_1 = load("table_3_1")
    rows = [dict.fromkeys(table_3_1.VARIANTS, figures) for figures in (row, half, none)]
    # a plane counts by its windows that have a depth
    assert table_3_1.coverage(rows)[table_3_1.OURS] == {"within_1_std": 0.4, "within_2_std": 0.6}


def test_held_out_images(tmp_path):
    weights_accuracy = load("weights_accuracy")
    (tmp_path / "sharp").mkdir()
    lines = ["file,repo,licence"]
    for name, repository, size in (
        ("micr_small", "NEUBIAS/training-resources", 60),
        ("micr_large", "NEUBIAS/training-resources", 200),
        ("nat_large", "NEUBIAS/training-resources", 200),
        ("micr_trained", "CellProfiler/examples", 200),
    ):
        image = 255 * make_textures(1, size=size, kind="points", random_state=0)[0]
        imsave(tmp_path / "sharp" / f"{name}.png", image.astype(np.uint8), check_contrast=False)
        lines.append(f"sharp/{name}.png,{repository},CC0")
    (tmp_path / "SOURCES.csv").write_text("\n".join(lines))
    shapes = [image.shape for image in weights_accuracy.held_out_images(tmp_path)]
    assert sorted(shapes) == [(60, 60), (200, 200)]
    (image,) = weights_accuracy.held_out_images(tmp_path, min_size=90)
    assert 90 <= min(image.shape) <= 200
    assert len(weights_accuracy.held_out_images(min_size=256)) >= 10


def test_a_record_names_no_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x.py", "--images", "3", "--output", "results/here.json"])
    record = load("record").describe_run("table.py")
    assert record["command"] == "python benchmarks/table.py --images 3 --output PATH"
    assert record["threads"] == torch.get_num_threads()


def test_large_image(tmp_path, capsys):
    load("large_image").main(["--smoke", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "peak memory" in printed and "restored" in printed


@pytest.fixture(scope="module")
def problem():
    """An asymmetric PSF, the blurred image and the sharp one."""
    sharp = 100 + 1e3 * make_textures(1, size=120, kind="dead-leaves", random_state=1)[0]
    psf = np.zeros((9, 9))
    psf[3:7, 4:8] = np.arange(1, 17).reshape(4, 4)
    psf /= psf.sum()
    blurred = fftconvolve(np.pad(sharp, 4, mode="symmetric"), psf, mode="valid")
    return psf, blurred, sharp


@pytest.mark.parametrize("method", ["richardson_lucy", "unsupervised_wiener"])
def test_baselines_restore(problem, method):
    baselines = load("baselines")
    psf, blurred, sharp = problem
    restored = getattr(baselines, method)(blurred, psf)
    assert snr(sharp, restored) > snr(sharp, blurred) + 2
    tiles = baselines.per_tile(getattr(baselines, method), blurred, np.tile(psf, (2, 3, 1, 1)))
    assert snr(sharp, tiles) > snr(sharp, blurred) + 0.5


def test_redlionfish_restores(problem):
    baselines = load("baselines")
    # one of the packages compared with, of the extra `bench` alone: it needs an OpenCL runtime
    if not baselines.has_redlionfish():
        pytest.skip("RedLionfish is not installed")
    psf, blurred, sharp = problem
    restored = baselines.redlionfish(blurred, psf, n_iter=3)
    assert restored.sum() == pytest.approx(blurred.sum())
    assert np.corrcoef(restored.ravel(), sharp.ravel())[0, 1] > 0.9


def test_blind_richardson_lucy_finds_the_psf_of_a_known_image(problem):
    update_psf = load("baselines").update_psf
    psf, blurred, sharp = problem
    estimate = np.full(psf.shape, 1 / psf.size)
    for _ in range(200):
        estimate = update_psf(estimate, np.pad(sharp, 4, mode="symmetric"), blurred)
    assert np.corrcoef(estimate.ravel(), psf.ravel())[0, 1] > 0.8
    assert np.corrcoef(estimate.ravel(), psf[::-1, ::-1].ravel())[0, 1] < 0.3


def test_blind_richardson_lucy_sharpens():
    baselines = load("baselines")
    sharp = 100 + 1e3 * make_textures(1, size=128, kind="dead-leaves", random_state=1)[0]
    psf = make_psf_model("gaussian-1", size=21).psf(np.array([[2.0]]))[0]
    blurred = fftconvolve(np.pad(sharp, 10, mode="symmetric"), psf, mode="valid")
    restored = baselines.blind_richardson_lucy(blurred, size=21, n_iter=3)
    assert snr(sharp, restored) > snr(sharp, blurred) + 1


# ---- Benchmarks of the regression ----


@pytest.fixture
def little_data(monkeypatch):
    """Few images of the generators, PSFs and validation patches."""
    monkeypatch.setitem(PatchStream.__init__.__kwdefaults__, "pool_size", 16)
    monkeypatch.setattr("sklearn_psf.psf_regressor._N_VALIDATION", 16)
    data_types = load("data_types")
    monkeypatch.setattr(data_types, "_DRAWN", 2)
    return data_types


def test_data_types_keep_sources_apart(little_data, tmp_path):
    repositories = ["a/b", "NEUBIAS/training-resources", "stardist/stardist"]
    lines, images = ["file,repo,licence"], make_textures(6, size=40, random_state=0)
    for i, image in enumerate(images):
        name = f"sharp/{'nat' if i < 3 else 'micr_em'}/{i}.png"
        lines.append(f"{name},{repositories[i % 3]},CC0")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        imsave(tmp_path / name, (65535 * image).astype(np.uint16), check_contrast=False)
    (tmp_path / "SOURCES.csv").write_text("\n".join(lines))
    train = little_data.load_training_images(tmp_path)
    test = little_data.load_test_images(tmp_path)
    for kind, i in (("nat", 0), ("micr", 3)):  # those of the calibration are in neither
        np.testing.assert_allclose(train[kind], images[[i]], atol=1e-4)
        np.testing.assert_allclose(test[kind], images[[i + 1]], atol=1e-4)
    assert len(train["mix"]) == 5 and len(train["micrsm"]) == 1
    for kind in ("syn", "poi"):
        assert not any(np.array_equal(a, b) for a in train[kind] for b in test[kind])


def test_points_are_sharp_and_on_black(little_data):
    images = little_data.points_on_black(3, 64, seed=0)
    assert all(image.max() == 1 and (image == 0).mean() > 0.5 for image in images)
    assert not np.array_equal(images[0], images[1])


def test_bundled_images_are_trained_or_tested_on(little_data):
    for train, test in little_data._BUNDLED.values():
        assert not set(train) & set(test)


def test_table_2_3(little_data, tmp_path, capsys):
    main, output = load("table_2_3").main, tmp_path / "table.json"
    sliders = ["--families", "gaussian-1", "--patches", "64", "--test-patches", "8"]
    sliders += ["--types", "syn", "--quick", "--output", str(output)]
    main(sliders)
    main([*sliders, "--shipped"])
    cells = json.loads(output.read_text())["results"]
    kinds = {"syn", "poi", "micr", "nat", "mix", "micr native"}
    assert set(cells) == {f"gaussian-1, shipped, {kind}" for kind in kinds} | {
        "gaussian-1, compact, syn"
    }
    assert cells["gaussian-1, compact, syn"]["patches"] == 64
    assert cells["gaussian-1, shipped, mix"]["r2_mean"] > 0.5
    assert "published, resnet34 from ImageNet" in capsys.readouterr().out


def test_a_network_starts_from_weights_with_torchvisions_names(little_data, tmp_path):
    state = build_network("resnet34", 1, seed=3).backbone.state_dict()
    state["conv1.weight"] = state["conv1.weight"].expand(-1, 3, -1, -1) / 3
    state.pop("fc.weight"), state.pop("fc.bias")
    paths = tmp_path / "resnet34.pth", tmp_path / "resnet34.safetensors"
    torch.save(state, paths[0])
    save_file({k: v.contiguous() for k, v in state.items()}, paths[1])
    assert [little_data.load_initial(path)["conv1.weight"].shape[1] for path in paths] == [3, 3]
    regressor = PSFParameterRegressor(
        architecture="resnet34", initial_weights=little_data.load_initial(paths[1]), max_epochs=1,
        n_patches=2, batch_size=2, patch_size=32, learning_rate=1e-9,
    ).fit(make_textures(1, size=96, random_state=0))  # fmt: skip
    np.testing.assert_allclose(
        regressor.state_["backbone.conv1.weight"], state["conv1.weight"].sum(1, True), atol=1e-3
    )


def test_table_2_4(little_data, tmp_path, capsys):
    output = tmp_path / "table.json"
    sliders = ["--patches", "64", "--test-patches", "8", "--types", "nat", "--quick"]
    load("table_2_4").main([*sliders, "--output", str(output)])
    rows = json.loads(output.read_text())["results"]
    assert set(rows) == {"gaussian-2, nat", "gaussian-2, shipped"}
    shipped = {kind: row["r2_mean"] for kind, row in rows["gaussian-2, shipped"]["types"].items()}
    assert set(shipped) == {"syn", "poi", "micr", "nat", "mix"} and min(shipped.values()) > 0.3
    assert "(0.96)" in capsys.readouterr().out


def test_figure_2_6(little_data, tmp_path):
    output, figure = tmp_path / "figure.json", tmp_path / "figure.png"
    sliders = ["--families", "gaussian-1", "--patches", "64", "--test-patches", "4", "--quick"]
    load("figure_2_6").main([*sliders, "--output", str(output), "--figure", str(figure)])
    rows = json.loads(output.read_text())["results"]
    assert set(rows) == {f"gaussian-1, {n}" for n in ("shipped", "noisy", "noiseless")}
    assert all(len(curve) == 2 for curve in rows["gaussian-1, shipped"]["r2"].values())
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize(
    "kind", ["illumination", "vignetting", "gaussian", "poisson", "mixed", "exposure"]
)
def test_degradations_have_the_strength_that_they_say(kind):
    ramp = np.linspace(200, 1000, 256).reshape(16, 16)
    images = load("figure_2_6").degrade(np.broadcast_to(ramp, (2000, 16, 16)), kind, 0.5)
    t = np.linspace(-1, 1, 16)
    light = ramp * {"illumination": 0.5, "mixed": 0.5, "exposure": 100}.get(kind, 1)
    if kind in ("vignetting", "mixed"):
        light = light * (1 - 0.5 * (t[:, None] ** 2 + t**2) / 2)
    variance = light + 2**2
    if kind in ("poisson", "mixed"):  # 40 photons in the brightest pixel
        variance = light * light.max() / 40 + 2**2
    if kind in ("gaussian", "mixed"):
        variance = variance + (0.1 * np.ptp(light)) ** 2
    np.testing.assert_allclose(images.mean(0), light, atol=6 * np.sqrt(variance.max() / 2000))
    assert images.var(0).mean() == pytest.approx(variance.mean(), rel=0.05)


@pytest.mark.parametrize("family", ["zernike-3", "gaussian-2"])
def test_the_oracle_finds_the_parameters(little_data, family):
    oracle_regression = load("oracle_regression")
    model = make_psf_model(family)
    images = make_textures(2, size=280, kind="dead-leaves", random_state=0)
    fields, patches, truth = oracle_regression.draw(list(images), model, 2)
    oracle = oracle_regression.Oracle(model)
    read = np.array([oracle.fit(f, x) for f, x in zip(fields, patches, strict=True)])
    np.testing.assert_allclose(model.encode(read), model.encode(truth), atol=0.05)


def test_oracle_regression(little_data, tmp_path, capsys):
    sliders = ["--families", "gaussian-1", "--patches", "3", "--quick"]
    load("oracle_regression").main([*sliders, "--output", str(tmp_path / "oracle.json")])
    row = json.loads((tmp_path / "oracle.json").read_text())["results"]["gaussian-1"]
    assert row["oracle"]["rms_error"]["width"] < 0.1
    assert "width" in capsys.readouterr().out


def test_ablation_regression(little_data, tmp_path):
    output = tmp_path / "ablation.json"
    sliders = ["--patches", "128", "--test-patches", "4", "--family", "gaussian-1"]
    load("ablation_regression").main([*sliders, "--quick", "--output", str(output)])
    rows = json.loads(output.read_text())["results"]
    names = {"all", "last-weights", "no-polar-spectrum", "no-whitening"}
    assert set(rows) == {f"gaussian-1, seed 0, {name}" for name in names}
    assert {row["patches"] for row in rows.values()} == {128}


def test_the_whole_variant_is_the_package_s():
    ablation = load("ablation_regression")
    patches = torch.as_tensor(make_textures(3, size=128, random_state=0))
    x = normalize_patches(patches)
    torch.testing.assert_close(ablation.polar_spectrum(x[:, 0]), polar_spectrum(x[:, 0]))
    state = build_network("compact", 2, seed=0).backbone.state_dict()
    whole = ablation.Ablated(5).eval()
    whole.load_state_dict(state)
    network = build_network("compact", 2, seed=0).backbone.eval()
    torch.testing.assert_close(whole(x), network(x))
    for name, (parts, _) in ablation.VARIANTS.items():
        output = ablation.Ablated(5, **parts)(x)
        assert output.shape == (3, 5) and output.isfinite().all(), name


def test_speed_regression(little_data, tmp_path, capsys):
    output = tmp_path / "speed.json"
    load("speed_regression").main(["--quick", "--size", "256", "--output", str(output)])
    rows = {row["task"]: row for row in json.loads(output.read_text())["rows"]}
    assert {"peak", "read 64 patches", "draw 64 patches", "train on 64 patches"} < set(rows)
    assert rows["peak"]["fraction_of_peak"] == pytest.approx(1)
    assert all(row["gigaflops"] > 0 and row["ms"] > 0 for row in rows.values())
    assert "GTX 1080" in capsys.readouterr().out


def test_dense_maps(tmp_path):
    output = tmp_path / "dense.json"
    load("dense_maps").main(["--quick", "--output", str(output)])
    record = json.loads(output.read_text())
    assert set(record["r2"]) == {"dense", "sliding"} and record["seconds"]["windows"] == 81
    assert 0 < record["r2"]["dense"]["valid"] <= 1


def test_the_side_of_focus_is_scored():
    benchmark = load("flow_astigmatic")
    family = make_psf_model("motion", cylinder=benchmark.CYLINDER, axis=benchmark.AXIS)
    textures = list(make_textures(2, size=256, random_state=0))
    pairs = [
        [benchmark.two_motions(textures, seed, family=family, lens=lens) for seed in range(2)]
        for lens in (None, benchmark.FAMILY)
    ]
    # The same motions, seen through the lens and without it.
    np.testing.assert_array_equal(pairs[0][0][1], pairs[1][0][1])
    assert not np.allclose(pairs[0][0][0], pairs[1][0][0])

    class Known:
        def __init__(self, turned):
            self.turned = turned

        def predict(self, X):
            truth = np.nan_to_num(np.stack([motion for _, motion in pairs[0]]))
            return truth * np.reshape(self.turned, (1, 4, 1, 1))

    right = benchmark.evaluate(Known([1, 1, 1, 1]), pairs[0])
    assert right["side"] == right["sense"] == right["r2"]["z0"] == 1
    wrong = benchmark.evaluate(Known([-1, -1, 1, -1]), pairs[0])
    assert wrong["side"] == wrong["sense"] == 0 and wrong["r2"]["v_y"] == 1


def test_flow_is_not_trained_from_what_another_training_left(tmp_path, monkeypatch):
    """Of any course, and before images are drawn."""
    training = load("train_flow")
    monkeypatch.setattr(training, "load_images", None)
    left = tmp_path / "motion-parts-1.checkpoint"
    left.touch()
    command = ["train_flow.py", "--output", str(tmp_path), "--courses"]
    monkeypatch.setattr(sys, "argv", [*command, "2"])
    with pytest.raises(SystemExit, match=left.name):
        training.main()
    monkeypatch.setattr(sys, "argv", [*command, "0"])
    with pytest.raises(SystemExit, match="2"):
        training.main()
