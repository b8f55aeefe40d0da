"""Train, evaluate and export the weights of one PSF family.

    python benchmarks/train_weights.py --family zernike-3 --minutes 40 --data DIR [--resume]

`--data` names a folder of sharp images with a SOURCES.csv (columns file, repo, licence). Images
are split by source repository, never by image: test and calibration repositories are named below
and in the card. Without it, procedural textures and scikit-image's bundled images are used. A
training that was interrupted goes on from its checkpoint with `--resume`.
"""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.metrics import parameter_r2
from sklearn_psf.networks import save_weights
from sklearn_psf.optics import Camera
from sklearn_psf.simulation import (
    bin_to_pixel_limit,
    load_folder,
    load_skimage,
    make_blurred_patches,
    make_textures,
)

TEST_REPOSITORIES = ("NEUBIAS/training-resources", "scikit-image/scikit-image")
CALIBRATION_REPOSITORIES = ("google/microscopeimagequality", "stardist/stardist")
CAMERA = Camera(peak_photons=1e4, read_noise=2.0)


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    train, calibration, test, sources = load_images(args.data, args.seed)
    print(f"{len(train)} training, {len(calibration)} calibration, {len(test)} test images")
    checkpoint = args.output / f"{args.family}.checkpoint"
    if checkpoint.exists() and not args.resume:
        raise SystemExit(f"{checkpoint} exists: pass --resume to go on, or remove it.")
    args.output.mkdir(parents=True, exist_ok=True)
    regressor = PSFParameterRegressor(
        psf_model=args.family,
        architecture=args.architecture,
        n_patches=args.patches_per_epoch,
        max_epochs=args.max_epochs,
        max_minutes=args.minutes,
        learning_rate=args.learning_rate,
        validation_fraction=0.0,
        initial_weights=args.initial,
        checkpoint=checkpoint,
        device=args.device,
        random_state=args.seed,
        verbose=1,
    ).fit(train)
    (args.output / f"{args.family}.history.json").write_text(json.dumps(regressor.history_))
    calibrate(regressor, calibration or test)
    figures = evaluate(regressor, test)
    print(json.dumps(figures, indent=1))
    card = make_card(args, regressor, sources, figures)
    path = args.output / f"{args.family}{args.suffix}.safetensors"
    save_weights(regressor.state_, card, path)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", required=True)
    parser.add_argument("--architecture", default="compact")
    parser.add_argument("--suffix", default="", help="of the weights' name, such as -large")
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--initial", help="weights to start from, by name or path")
    parser.add_argument("--output", type=Path, default=Path("checkpoints"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--max-epochs", type=int, default=100000)
    parser.add_argument("--patches-per-epoch", type=int, default=19200)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def load_images(folder, seed):
    """Training, calibration and test images, and what is known of the training sources."""
    textures = list(make_textures(240, size=384, random_state=seed))
    if folder is None:
        images = list(load_skimage().values())
        return textures + images, [], images, [{"source": "scikit-image", "images": len(images)}]
    groups = {"train": [], "calibration": [], "test": []}
    used = Counter()
    with open(folder / "SOURCES.csv", newline="") as file:
        rows = {row["file"].removeprefix("sharp/"): row for row in csv.DictReader(file)}
    for name, image in load_folder(folder / "sharp").items():
        repository = rows[name]["repo"]
        if repository in TEST_REPOSITORIES:
            if name.startswith("micr_"):
                groups["test"].append(image)
        elif repository in CALIBRATION_REPOSITORIES:
            groups["calibration"].append(image)
        else:
            groups["train"].append(image)
            used[repository, rows[name]["licence"]] += 1
    sources = [{"source": r, "licence": li, "images": n} for (r, li), n in sorted(used.items())]
    sources.append({"source": "procedural textures", "images": len(textures)})
    # Both as they are and binned to the pixel limit: the texture must be sharp to teach its blur.
    sharp = [bin_to_pixel_limit(image) for image in groups["train"]]
    train = textures + sharp + groups["train"]
    return train, groups["calibration"], groups["test"], sources


def calibrate(regressor, images):
    """Scale the standard deviation on sources that were not trained on."""
    X, y = make_blurred_patches(
        [bin_to_pixel_limit(image) for image in images],
        2000,
        psf_model=regressor.psf_model_,
        camera=CAMERA,
        random_state=1,
    )
    regressor.calibrate(X, y)


def evaluate(regressor, images):
    """R^2 and coverage on test sources, as they are and binned to the pixel limit."""
    figures = {}
    variants = {
        "native": images,
        "pixel-sharp": [bin_to_pixel_limit(image) for image in images],
    }
    for name, sharp in variants.items():
        X, y = make_blurred_patches(
            sharp, 2000, psf_model=regressor.psf_model_, camera=CAMERA, random_state=2
        )
        p, std, invalid = regressor.predict_all(X)
        valid = ~np.isnan(y).any(1)
        periods = regressor.psf_model_.periods
        each = parameter_r2(y, p, periods=periods, multioutput="raw_values")
        names = regressor.psf_model_.parameter_names
        figures[name] = {
            "r2": dict(zip(names, np.round(each, 4).tolist(), strict=True)),
            "r2_mean": round(float(np.mean(each)), 4),
            "n_valid": int(valid.sum()),
            "invalid_found": round(float((invalid[~valid] > 0.5).mean()), 3),
            "false_alarms": round(float((invalid[valid] > 0.5).mean()), 3),
        }
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


def wrapped(error, periods):
    for i, period in enumerate(periods):
        if period is not None:
            error[:, i] -= period * np.round(error[:, i] / period)
    return error


def rms_error(y, p, names, periods):
    error = np.sqrt((wrapped(p - y, periods) ** 2).mean(0))
    return dict(zip(names, np.round(error, 4).tolist(), strict=True))


def coverage(y, p, std, periods):
    """Share of errors within one and two standard deviations, per parameter."""
    ratio = np.abs(wrapped(p - y, periods)) / std
    return {str(k): np.round((ratio < k).mean(0), 3).tolist() for k in (1, 2)}


def make_card(args, regressor, sources, figures):
    command = (
        f"python benchmarks/train_weights.py --family {args.family} --architecture "
        f"{args.architecture} --minutes {args.minutes:g} --seed {args.seed} --data DIR"
    ) + (f" --initial {Path(args.initial).stem}" if args.initial else "")
    return {
        "weight_version": 1,
        "name": f"{args.family}{args.suffix}",
        "psf_model": regressor.psf_model_.settings,
        "architecture": regressor.architecture_,
        "patch_size": regressor.patch_size_,
        "normalisation": "mean 0 and standard deviation 1 per patch",
        "std_scale": regressor.std_scale_.tolist(),
        "training": {
            "command": command,
            "seed": args.seed,
            "minutes": regressor.history_[-1]["minutes"],
            "steps": regressor.history_[-1]["batches"],
            "patches": regressor.history_[-1]["batches"] * regressor.batch_size,
            "sources": sources,
            "calibration_sources": list(CALIBRATION_REPOSITORIES),
        },
        "test": {
            "sources": list(TEST_REPOSITORIES),
            "camera": "10^4 peak photons, 2 electrons read noise",
            "patches": "2000 drawn with seed 2, those with texture above the noise",
            "figures": figures,
        },
        "licence": "BSD-3-Clause",
    }


if __name__ == "__main__":
    main()
