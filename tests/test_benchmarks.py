"""Benchmarks run from their command line; what they measure is not judged here."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve
from skimage.io import imsave

from sklearn_psf.metrics import snr
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import make_textures

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
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert {(row["size"], row["psfs"]) for row in rows} == {(128, 1), (128, 4)}
    assert all(row["seconds"] > 0 for row in rows)
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
