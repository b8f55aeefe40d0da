"""Measure the shipped weights on images that they were not trained on.

    python benchmarks/weights_accuracy.py [--data DIR] [--families zernike-1 ...] [--output FILE]

`--data` names a folder of sharp images with a SOURCES.csv (columns file, repo, licence); the
repositories in `TEST_REPOSITORIES` were kept out of all training. Without it, the photographs and
micrographs that come with scikit-image serve, which were kept out as well.
"""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from record import describe_run

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.metrics import parameter_r2
from sklearn_psf.networks.reading import angular_difference
from sklearn_psf.optics import Camera
from sklearn_psf.simulation import (
    bin_to_pixel_limit,
    load_folder,
    load_skimage,
    make_blurred_patches,
)

TEST_REPOSITORIES = ("NEUBIAS/training-resources", "scikit-image/scikit-image")
CALIBRATION_REPOSITORIES = ("google/microscopeimagequality", "stardist/stardist")
CAMERA = Camera(peak_photons=1e4, read_noise=2.0)
FAMILIES = ("zernike-1", "zernike-2", "zernike-3", "gaussian-1", "gaussian-2")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--patch-size", type=int, help="pixels; that of the weights, or larger")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = held_out_images(args.data)
    figures = {}
    for family in args.families:
        regressor = PSFParameterRegressor(pretrained=family, patch_size=args.patch_size)
        regressor.fit(images)
        figures[family] = evaluate(regressor, images, args.patches)
        for variant, row in figures[family].items():
            print(f"{family:11} {variant:11} R2 {row['r2_mean']:.3f}  {row['r2']}", flush=True)
    if args.output is not None:
        record = describe_run("weights_accuracy.py")
        record |= {"images": len(images), "patches": args.patches, "patch_size": args.patch_size}
        record |= {"families": figures}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def held_out_images(data=None, min_size=None):
    """Sharp images that no shipped weights were trained on.

    Those of the test repositories in the folder `data`, or else scikit-image's own. With a
    `min_size` in pixels they are binned until they are sharp at the pixel, as far as that leaves
    them so large, and smaller ones are left out.
    """
    images = list(load_skimage().values()) if data is None else split_by_repository(data)[2]
    if min_size is None:
        return images
    images = [bin_to_pixel_limit(image, min_size=min_size) for image in images]
    return [image for image in images if min(image.shape) >= min_size]


def split_by_repository(folder):
    """Training, calibration and test images (micrographs alone) and the count of the sources."""
    train, calibration, test, used = [], [], [], Counter()
    with open(folder / "SOURCES.csv", newline="") as file:
        rows = {row["file"].removeprefix("sharp/"): row for row in csv.DictReader(file)}
    for name, image in load_folder(folder / "sharp").items():
        repository = rows[name]["repo"]
        if repository in TEST_REPOSITORIES:
            if name.startswith("micr_"):
                test.append(image)
        elif repository in CALIBRATION_REPOSITORIES:
            calibration.append(image)
        else:
            train.append(image)
            used[repository, rows[name]["licence"]] += 1
    return train, calibration, test, used


def evaluate(regressor, images, n_patches=2000):
    """R^2, errors and coverage on sharp images, as they are and binned to the pixel limit."""
    figures = {}
    variants = {
        "native": images,
        "pixel-sharp": [bin_to_pixel_limit(image) for image in images],
    }
    for name, sharp in variants.items():
        X, y = make_blurred_patches(
            sharp,
            n_patches,
            psf_model=regressor.psf_model_,
            camera=CAMERA,
            patch_size=regressor.patch_size_,
            random_state=2,
        )
        p, std, invalid = regressor.predict_all(X)[:3]
        valid = ~np.isnan(y).any(1)
        periods = regressor.psf_model_.periods
        each = parameter_r2(y, p, periods=periods, multioutput="raw_values")
        names = regressor.psf_model_.parameter_names
        figures[name] = {
            "r2": dict(zip(names, np.round(each, 4).tolist(), strict=True)),
            "r2_mean": round(float(np.mean(each)), 4),
            "n_valid": int(valid.sum()),
            "false_alarms": round(float((invalid[valid] > 0.5).mean()), 3),
        }
        if not valid.all():
            figures[name]["invalid_found"] = round(float((invalid[~valid] > 0.5).mean()), 3)
        figures[name] |= clear_axis(y[valid], p[valid], names, periods)
        figures[name]["rms_error"] = rms_error(y[valid], p[valid], names, periods)
        figures[name]["coverage"] = coverage(y[valid], p[valid], std[valid], periods)
    return figures


def clear_axis(y, p, names, periods):
    """R^2 of the axis alone where the astigmatism shows."""
    if "axis" not in names:
        return {}
    clear = y[:, names.index("cylinder")] > 0.05
    if "focus" in names:
        clear &= y[:, names.index("focus")] > 0.1
    each = parameter_r2(y[clear], p[clear], periods=periods, multioutput="raw_values")
    return {"r2_clear_axis": round(float(each[names.index("axis")]), 4)}


def rms_error(y, p, names, periods):
    error = np.sqrt((angular_difference(p, y, periods) ** 2).mean(0))
    return dict(zip(names, np.round(error, 4).tolist(), strict=True))


def coverage(y, p, std, periods):
    """Share of errors within one and two standard deviations, per parameter."""
    ratio = np.abs(angular_difference(p, y, periods)) / std
    return {str(k): np.round((ratio < k).mean(0), 3).tolist() for k in (1, 2)}


if __name__ == "__main__":
    main()
