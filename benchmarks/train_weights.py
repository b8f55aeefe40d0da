"""Train, evaluate and export the weights of one PSF family.

    python benchmarks/train_weights.py --family zernike-3 --minutes 40 --data DIR [--resume]

`--data` names a folder of sharp images with a SOURCES.csv (columns file, repo, licence). Images
are split by source repository, never by image: test and calibration repositories are named below
and in the card. Without it, procedural textures and scikit-image's bundled images are used. A
training that was interrupted goes on from its checkpoint with `--resume`. `--calibrate-only` keeps
the weights named by `--initial`, and scales their standard deviations and evaluates them anew.
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from weights_accuracy import (
    CALIBRATION_REPOSITORIES,
    CAMERA,
    TEST_REPOSITORIES,
    evaluate,
    split_by_repository,
)

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.networks import load_pretrained, save_weights
from sklearn_psf.simulation import (
    bin_to_pixel_limit,
    load_skimage,
    make_blurred_patches,
    make_textures,
)

CONTEXTS = (192, 256)  # pixels of larger patches, which are read in windows
CALIBRATED_ON = ["those of the training", *CALIBRATION_REPOSITORIES]


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    train, calibration, test, sources = load_images(args.data, args.seed)
    print(f"{len(train)} training, {len(calibration)} calibration, {len(test)} test images")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.calibrate_only:
        regressor = PSFParameterRegressor(pretrained=args.initial).fit(test)
    else:
        regressor = train_regressor(args, train)
        if args.keep_initial:
            regressor = mix_with_initial(regressor, args)
    calibrate(regressor, calibration, train)
    figures, scales = evaluate(regressor, test), {}
    for size in CONTEXTS if regressor.architecture_ == "compact" else ():
        wide = copy.copy(regressor)
        wide.patch_size_ = size
        calibrate(wide, calibration, train)
        scales[str(size)] = wide.std_scale_.tolist()
        for name, rows in evaluate(wide, test).items():
            figures[f"{name}, patches of {size} pixels"] = rows
    print(json.dumps(figures, indent=1))
    if args.calibrate_only:
        card = load_pretrained(args.initial)[1] | {"std_scale": regressor.std_scale_.tolist()}
        card["weight_version"] += 1
        card["std_scales"] = scales
        card["training"] = card["training"] | {"calibration_sources": CALIBRATED_ON}
        card["test"] = card["test"] | {"figures": figures}
    else:
        card = make_card(args, regressor, sources, figures) | {"std_scales": scales}
    path = args.output / f"{args.family}{args.suffix}.safetensors"
    save_weights(regressor.state_, card, path)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def train_regressor(args, images):
    """Train, or go on training, from the checkpoint in the output folder."""
    checkpoint = args.output / f"{args.family}.checkpoint"
    if checkpoint.exists() and not args.resume:
        raise SystemExit(f"{checkpoint} exists: pass --resume to go on, or remove it.")
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
    ).fit(images)
    history = args.output / f"{args.family}.history.json"
    history.write_text(json.dumps(regressor.history_))
    return regressor


def mix_with_initial(regressor, args):
    """Take the weights between those that the training began with and those that it ended with.

    A training on other data forgets some of what the first weights could do; in between both are
    kept (M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
    """
    start, mixed = load_pretrained(args.initial)[0], copy.copy(regressor)
    mixed.state_ = {
        name: (args.keep_initial * start[name] + (1 - args.keep_initial) * end).astype(end.dtype)
        if end.dtype.kind == "f"
        else end
        for name, end in regressor.state_.items()
    }
    return mixed


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", required=True)
    parser.add_argument("--architecture", default="compact")
    parser.add_argument("--suffix", default="", help="of the weights' name, such as -large")
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--initial", help="weights to start from, by name or path")
    parser.add_argument("--keep-initial", type=float, default=0.0, help="share of those weights")
    parser.add_argument("--output", type=Path, default=Path("checkpoints"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--max-epochs", type=int, default=100000)
    parser.add_argument("--patches-per-epoch", type=int, default=19200)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--calibrate-only", action="store_true", help="of --initial; no training")
    args = parser.parse_args()
    for name in ("calibrate_only", "keep_initial"):
        if getattr(args, name) and args.initial is None:
            parser.error(f"--{name.replace('_', '-')} needs --initial: the weights that are meant.")
    return args


def load_images(folder, seed):
    """Training, calibration and test images, and what is known of the training sources."""
    textures = list(make_textures(240, size=384, random_state=seed))
    procedural = {"source": "procedural textures", "images": len(textures)}
    if folder is None:
        images = list(load_skimage().values())
        bundled = {"source": "scikit-image", "images": len(images)}
        return textures + images, [], images, [bundled, procedural]
    train, calibration, test, used = split_by_repository(folder)
    sources = [{"source": r, "licence": li, "images": n} for (r, li), n in sorted(used.items())]
    # Both as they are and binned to the pixel limit: the texture must be sharp to teach its blur.
    sharp = [bin_to_pixel_limit(image) for image in train]
    return textures + sharp + train, calibration, test, [*sources, procedural]


def calibrate(regressor, unseen, seen, n_seen=128):
    """Scale the standard deviation on all kinds of images but those of the test.

    Those that were trained on serve as well: no patch is drawn twice, and errors on their patches
    are no smaller than on others.
    """
    rng = np.random.RandomState(1)
    images = unseen + [seen[i] for i in rng.permutation(len(seen))[:n_seen]]
    X, y = make_blurred_patches(
        [bin_to_pixel_limit(image) for image in images],
        2000,
        psf_model=regressor.psf_model_,
        camera=CAMERA,
        patch_size=regressor.patch_size_,
        random_state=1,
    )
    regressor.calibrate(X, y)


def make_card(args, regressor, sources, figures):
    command = (
        f"python benchmarks/train_weights.py --family {args.family} --architecture "
        f"{args.architecture} --minutes {args.minutes:g} --learning-rate {args.learning_rate:g} "
        f"--seed {args.seed} --data DIR"
    ) + (f" --initial {Path(args.initial).stem}" if args.initial else "")
    if args.keep_initial:
        command += f" --keep-initial {args.keep_initial:g}"
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
            "calibration_sources": CALIBRATED_ON,
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
