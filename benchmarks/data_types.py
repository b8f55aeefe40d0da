"""The data types of the published tables, and what the benchmarks of the regression share.

syn = synthetic cells; poi = points on black; micr = micrographs; micrsm = a tenth of micr;
nat = photographs; mix = micr + syn + poi. Tested is always on sources that no training sees: other
draws of the two generators, and the test repositories of `weights_accuracy` (without a folder of
images: some of those that come with scikit-image; the others are trained on). Micrographs and
photographs are binned until they are sharp at the pixel; "micr native" are left as they are.
"""

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from safetensors.torch import load_file
from weights_accuracy import (
    CALIBRATION_REPOSITORIES,
    CAMERA,
    TEST_REPOSITORIES,
    rms_error,
)

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.metrics import parameter_r2
from sklearn_psf.simulation import (
    bin_to_pixel_limit,
    load_folder,
    load_skimage,
    make_blurred_patches,
    make_textures,
)

__all__ = [
    "TEST_TYPES",
    "TRAIN_TYPES",
    "draw_test_patches",
    "figures",
    "load_initial",
    "load_test_images",
    "load_training_images",
    "make_parser",
    "points_on_black",
    "shipped",
    "test_on",
    "train",
    "write_results",
]

TRAIN_TYPES = ("syn", "poi", "micr", "micrsm", "nat", "mix")
TEST_TYPES = ("syn", "poi", "micr", "nat")
_MIXED = ("syn", "poi", "micr")
_DRAWN, _SIZE = 60, 384  # images of each generator
_TRAIN_SEED, _TEST_SEED = 11, 12
_BUNDLED = {  # of scikit-image: images to train and to test on
    "micr": (["immunohistochemistry"], ["cell", "retina"]),
    "nat": (
        ["astronaut", "camera", "chelsea", "coffee", "rocket", "stereo_motorcycle"],
        ["brick", "coins", "grass", "gravel", "moon"],
    ),
}
_PATCH_SEEDS = {"syn": 100, "poi": 101, "micr": 102, "nat": 103, "micr native": 104}
_EPOCH = 3200  # patches between two looks at the clock


def points_on_black(n, size, seed):
    """Emitters of random brightness on black, ten to a thousand in 256 x 256 pixels."""
    images = np.zeros((n, size, size), np.float32)
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        count = max(1, int(10 ** rng.uniform(1, 3) * size**2 / 256**2))
        y, x = rng.uniform(0, size - 1, (2, count))
        brightness = 10 ** rng.uniform(-1, 0, count)
        row, column = y.astype(int), x.astype(int)
        v, u = y - row, x - column
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            share = abs(1 - dy - v) * abs(1 - dx - u)
            np.add.at(images[i], (row + dy, column + dx), brightness * share)
        images[i] /= images[i].max()
    return list(images)


def load_training_images(folder, types=TRAIN_TYPES):
    """Sharp images to train on, by data type."""
    real = _real_images(folder, test=False)
    images = {
        "syn": list(make_textures(_DRAWN, _SIZE, kind="cells", random_state=_TRAIN_SEED)),
        "poi": points_on_black(_DRAWN, _SIZE, _TRAIN_SEED),
    }
    images |= {kind: [bin_to_pixel_limit(image) for image in real[kind]] for kind in real}
    images["micrsm"] = images["micr"][::10]
    images["mix"] = images["micr"] + images["syn"] + images["poi"]
    return {kind: images[kind] for kind in types}


def load_test_images(folder):
    """Sharp images that no training sees, by data type; micrographs also as they are."""
    real = _real_images(folder, test=True)
    images = {
        "syn": list(make_textures(_DRAWN, _SIZE, kind="cells", random_state=_TEST_SEED)),
        "poi": points_on_black(_DRAWN, _SIZE, _TEST_SEED),
    }
    images |= {kind: [bin_to_pixel_limit(image) for image in real[kind]] for kind in real}
    return images | {"micr native": real["micr"]}


def _real_images(folder, test):
    """Micrographs and photographs, either those of the test repositories or the others."""
    if folder is None:
        names = {kind: both[test] for kind, both in _BUNDLED.items()}
        return {kind: list(load_skimage(some).values()) for kind, some in names.items()}
    with open(folder / "SOURCES.csv", newline="") as file:
        sources = {row["file"].removeprefix("sharp/"): row["repo"] for row in csv.DictReader(file)}
    images = {"micr": [], "nat": []}
    for name, image in load_folder(folder / "sharp").items():
        kept_out = sources[name] in CALIBRATION_REPOSITORIES
        if not kept_out and (sources[name] in TEST_REPOSITORIES) == test:
            images["nat" if name.startswith("nat") else "micr"].append(image)
    return images


def draw_test_patches(images, psf_model, n, types=TEST_TYPES, camera=CAMERA):
    """`n` seeded patches and their parameters for each data type."""
    return {
        kind: make_blurred_patches(
            images[kind], n, psf_model=psf_model, camera=camera, random_state=_PATCH_SEEDS[kind]
        )
        for kind in types
    }


def shipped(family):
    """The weights that come with the package."""
    return PSFParameterRegressor(pretrained=family).fit(np.zeros((1, 128, 128)))


def train(args, family, images, architecture="compact", initial=None, camera=None):
    """Train on so many patches or minutes, whichever ends first; and how many it saw."""
    epoch = min(args.patches, _EPOCH)
    regressor = PSFParameterRegressor(
        psf_model=family,
        architecture=architecture,
        initial_weights=None if initial is None else load_initial(initial),
        camera=camera,
        n_patches=epoch,
        max_epochs=math.ceil(args.patches / epoch),
        max_minutes=args.minutes,
        validation_fraction=0.0,
        device=args.device,
        random_state=args.seed,
    ).fit(images)
    last = regressor.history_[-1]
    return regressor, {
        "patches": last["batches"] * regressor.batch_size,
        "minutes": round(last["minutes"], 2),
    }


def test_on(regressor, patches):
    """Figures of a regressor on the patches of each data type, "mix" being the three pooled."""
    read = {kind: (y, *regressor.predict_all(X)[:3:2]) for kind, (X, y) in patches.items()}
    if set(_MIXED) <= set(read):
        read["mix"] = [np.concatenate(p) for p in zip(*(read[k] for k in _MIXED), strict=True)]
    return {kind: figures(regressor.psf_model_, *parts) for kind, parts in read.items()}


def load_initial(path):
    """A state dict with torchvision's names, from a .pth or a .safetensors file."""
    if Path(path).suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def figures(model, y, p, invalid):
    """R^2, errors and false alarms of the readings `p` of patches whose truth is `y`."""
    valid = ~np.isnan(y).any(1)
    each = parameter_r2(y, p, periods=model.periods, multioutput="raw_values")
    names = model.parameter_names
    return {
        "r2_mean": round(float(each.mean()), 4),
        "r2": dict(zip(names, np.round(each, 4).tolist(), strict=True)),
        "rms_error": rms_error(y[valid], p[valid], names, model.periods),
        "n_valid": int(valid.sum()),
        "false_alarms": round(float((invalid[valid] > 0.5).mean()), 4),
    }


def make_parser(description, *, patches, test_patches):
    """Sliders that all benchmarks of the regression have, with the defaults of one of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--patches", type=int, default=patches, help="of each training")
    parser.add_argument("--minutes", type=float, help="longest training")
    parser.add_argument("--test-patches", type=int, default=test_patches, help="of each data type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", help="cpu or cuda; by default cuda where there is one")
    parser.add_argument("--output", type=Path, help="JSON file to write, or to add cells to")
    return parser


def write_results(path, script, results):
    """Write cells, keeping those of earlier runs that this run has not measured anew."""
    if path is None:
        return
    run = describe_run(script)
    rows = {name: row | {"run": run} for name, row in results.items()}
    if path.exists():
        rows = json.loads(path.read_text())["results"] | rows
    path.write_text(json.dumps({"results": rows}, indent=1) + "\n")
