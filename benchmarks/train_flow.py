"""Train, evaluate and export the weights "motion" of the flow estimator, in four stages.

    python benchmarks/train_flow.py --minutes 75 60 60 60 --data DIR [--resume]

The first stage trains a reader of small patches, or parts of them, of one motion; it starts from
the weights "zernike-3", which know texture from blur. The second trains a reader of wide patches,
which sees a part of them beside the rest. The third trains what finds the borders of motions, on
scenes, around these readers. In the fourth the reader of wide patches goes on with parts of scenes,
as these borders leave them, in one course or in several at once (`--courses`). With `--initial` all
of them go on from other weights of the flow estimator; a stage of 0 minutes is left out then and
keeps what these had. `--data` is as in train_weights.py: images are split by source repository,
never by image. An interrupted training goes on with `--resume`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from flow_regression import CAMERA
from joblib import Parallel, delayed
from train_weights import load_images
from weights_accuracy import CALIBRATION_REPOSITORIES, TEST_REPOSITORIES

from sklearn_psf import BlurFlowEstimator, PSFParameterRegressor
from sklearn_psf._validation import check_device
from sklearn_psf.metrics import align_sense, flow_r2, sense_accuracy
from sklearn_psf.networks import build_network, load_pretrained, save_weights
from sklearn_psf.networks.found_parts import FoundParts
from sklearn_psf.networks.modules import load_initial_weights
from sklearn_psf.networks.regions import WIDE_WINDOW
from sklearn_psf.networks.seen_batches import SeenBatches
from sklearn_psf.networks.training import epochs_done, train_network
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import MotionStream, make_particles

STAGES = ("patches", "regions", "scenes", "parts")
PREFIXES = {"patches": "windows.reader.", "regions": "again."}  # in the network of whole images
N_TEST = 96  # scenes of the training's kind on sources of their own


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        for course in range(args.courses):
            check_checkpoint(checkpoint(args, stage, course), args.resume)
    train, calibration, test, sources = load_images(args.data, args.seed)
    train = [*draw_particles(300, args.seed), *train]
    model = make_psf_model("motion")
    history, flow = run_stages(args, model, train)
    (args.output / "motion.history.json").write_text(json.dumps(history))
    flow.calibrate(*scenes(model, calibration or test, 1, 48))
    figures = evaluate(flow, *scenes(model, test, 2, N_TEST))
    print(json.dumps(figures, indent=1))
    path = args.output / "motion.safetensors"
    save_weights(flow.state_, make_card(args, flow, history, sources, figures), path)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def run_stages(args, model, images):
    """Train what has minutes; return the history of each stage and a fitted flow estimator."""
    minutes = dict(zip(STAGES, args.minutes, strict=True))
    state = {} if args.initial is None else load_pretrained(args.initial)[0]
    history = {}
    if minutes["patches"]:
        # Architectures that grow from a smaller one take its weights where they have them.
        start = readers_of(state).get("patches") or load_pretrained("zernike-3")[0]
        reader = PSFParameterRegressor(
            architecture="compact-directed", initial_weights=start, n_patches=19200,
            **options(args, "patches", model, minutes),
        ).fit(images)  # fmt: skip
        history["patches"] = reader.history_
        state |= named(reader.state_, PREFIXES["patches"])
    if minutes["regions"]:
        readers = readers_of(state)
        wide = PSFParameterRegressor(
            architecture="polar", initial_weights=readers.get("regions"),
            patch_size=256, batch_size=128, n_patches=25600,
            **options(args, "regions", model, minutes),
        ).fit(images)  # fmt: skip
        history["regions"] = wide.history_
        state |= named(wide.state_, PREFIXES["regions"])
    if minutes["scenes"]:
        flow = BlurFlowEstimator(
            initial_weights={k: v for k, v in state.items() if k.startswith("backbone.")},
            image_size=args.image_size, batch_size=args.batch_size, n_images=100 * args.batch_size,
            **options(args, "scenes", model, minutes),
        ).fit(images)  # fmt: skip
        history["scenes"], state = flow.history_, flow.state_
    if minutes["parts"]:
        read, history["parts"] = learn_found_parts(args, model, images, state, minutes["parts"])
        state = state | named(read, PREFIXES["regions"])
    path = args.output / "motion-joined.safetensors"
    save_weights(state, load_pretrained(args.initial or "motion")[1], path)
    return history, BlurFlowEstimator(pretrained=path).fit(images)


def learn_found_parts(args, model, images, state, minutes):
    """Train the reader of wide patches on parts of scenes as these weights tell them apart.

    Courses that begin with the same weights end with others; their mean is better than each.
    """
    reads, histories = zip(
        *Parallel(n_jobs=args.courses)(
            delayed(follow_course)(args, model, images, state, minutes, course)
            for course in range(args.courses)
        ),
        strict=True,
    )
    mean = {name: np.mean([read[name] for read in reads], 0) for name in reads[0]}
    return {name: mean[name].astype(value.dtype) for name, value in reads[0].items()}, histories[0]


def follow_course(args, model, images, state, minutes, course):
    torch.set_num_threads(args.threads)
    path = checkpoint(args, "parts", course)
    rng = np.random.RandomState([args.seed, course, epochs_done(path)])
    device = check_device(args.device)
    drawing = {"psf_model": model, "device": device, "random_state": rng}
    network = build_network("unet-directed", model.n_encoded, state).to(device)
    scenes = MotionStream(images, image_size=WIDE_WINDOW, batch_size=8, **drawing)
    found = FoundParts(scenes, network, n_places=6, random_state=rng)
    batches = SeenBatches(found, model, batch_size=128, random_state=rng)
    reader = build_network("polar", model.n_encoded, seed=args.seed, mixed_precision=True)
    load_initial_weights(reader, readers_of(state)["regions"])
    mean, scale = state["target_mean"], state["target_scale"]
    return train_network(
        reader, batches, np.stack([mean - scale, mean + scale]), n_batches=50, max_epochs=10**6,
        learning_rate=args.learning_rate, max_minutes=minutes, checkpoint=path,
        report=print, device=device,
    )  # fmt: skip


def options(args, stage, model, minutes):
    own = {"learning_rate": args.learning_rate, "device": args.device}
    return own | endless(model, minutes[stage], checkpoint(args, stage), args.seed)


def checkpoint(args, stage, course=0):
    number = f"-{course}" if course else ""
    return args.output / f"motion-{stage}{number}.checkpoint"


def check_checkpoint(path, resume):
    if path.exists() and not resume:
        raise SystemExit(f"{path} exists: pass --resume to go on, or remove it.")


def endless(model, minutes, path, seed):
    """Arguments of a training of that many minutes that can be resumed."""
    return {
        "psf_model": model,
        "validation_fraction": 0.0,
        "max_epochs": 10**6,
        "max_minutes": minutes,
        "checkpoint": path,
        "random_state": seed,
        "verbose": 1,
    }


def named(state, prefix):
    """Weights of a reader under the names that they have in the network of whole images."""
    own = "backbone."
    return {own + prefix + k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}


def readers_of(state):
    """Weights of the readers in a network of whole images, each under its own names."""
    parts = {}
    for stage, prefix in PREFIXES.items():
        whole = "backbone." + prefix
        parts[stage] = {
            "backbone." + k.removeprefix(whole): v for k, v in state.items() if k.startswith(whole)
        }
    return {stage: part for stage, part in parts.items() if part}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--initial", help="weights to start from, by name or path")
    parser.add_argument("--output", type=Path, default=Path("checkpoints"))
    parser.add_argument("--minutes", type=float, nargs=4, default=[75.0, 60.0, 60.0, 60.0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--courses", type=int, default=1, help="of the fourth stage, at once")
    parser.add_argument("--device")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    if args.initial is None and not all(args.minutes):
        parser.error(f"--minutes {args.minutes}: no stage can be left out without --initial.")
    if args.courses < 1:
        parser.error(f"--courses must be at least 1; got {args.courses}.")
    return args


def draw_particles(n, seed):
    """Fields of particles, sparse to dense and of several sizes, for the training alone."""
    rng = np.random.RandomState(seed + 1)
    return [
        make_particles(
            (384, 384),
            density=10 ** rng.uniform(-3, -1.2),
            diameter=rng.uniform(1, 5),
            random_state=rng,
        )
        for _ in range(n)
    ]


def scenes(model, images, seed, n):
    """Scenes (n, 192, 192) of images and of particles, and the motion of every pixel."""
    particles = [make_particles((384, 384), random_state=100 * seed + k) for k in range(8)]
    stream = MotionStream(
        [*images, *particles], psf_model=model, image_size=192, batch_size=12, label_stride=1,
        camera=CAMERA, random_state=seed,
    )  # fmt: skip
    batches = [stream.draw() for _ in range(n // 12)]
    return tuple(torch.cat(part).cpu().numpy() for part in zip(*batches, strict=True))


def evaluate(flow, X, y):
    predicted, std = flow.predict(X, return_std=True)
    valid = ~np.isnan(y).any(1)
    ratio = np.moveaxis(np.abs(align_sense(predicted, y) - y) / std, 1, -1)[valid]
    r2 = flow_r2(y, predicted, multioutput="raw_values")
    return {
        "r2": dict(zip(flow.psf_model_.parameter_names, r2.round(4).tolist(), strict=True)),
        "r2_mean": round(float(r2.mean()), 4),
        "r2_magnitudes": round(flow_r2(y, predicted, kind="magnitude"), 4),
        "sense": round(sense_accuracy(y, predicted), 4),
        "coverage": {str(k): (ratio < k).mean(0).round(3).tolist() for k in (1, 2)},
    }


def make_card(args, flow, history, sources, figures):
    command = (
        f"python benchmarks/train_flow.py --minutes {' '.join(f'{m:g}' for m in args.minutes)} "
        f"--image-size {args.image_size} --batch-size {args.batch_size} --seed {args.seed} "
        f"--courses {args.courses} --data DIR"
    ) + (f" --initial {Path(args.initial).stem}" if args.initial else "")
    return {
        "weight_version": 1,
        "name": "motion",
        "psf_model": flow.psf_model_.settings,
        "architecture": flow.architecture_,
        "patch_size": args.image_size,
        "normalisation": "mean 0 and standard deviation 1 within 65 pixels around each pixel, and "
        "of what is read of each window of 128 or 256 pixels",
        "std_scale": flow.std_scale_.tolist(),
        "training": {
            "command": command,
            "seed": args.seed,
            "minutes": {stage: rows[-1]["minutes"] for stage, rows in history.items() if rows},
            "batches": {stage: rows[-1]["batches"] for stage, rows in history.items() if rows},
            "sources": [*sources, {"source": "procedural particles", "images": 300}],
            "calibration_sources": [*CALIBRATION_REPOSITORIES, "procedural particles"],
        },
        "test": {
            "sources": [*TEST_REPOSITORIES, "procedural particles"],
            "camera": "10^4 peak photons, 2 electrons read noise",
            "scenes": f"{N_TEST} of one to three regions, seed 2, all pixels with texture",
            "figures": figures,
        },
        "licence": "BSD-3-Clause",
    }


if __name__ == "__main__":
    main()
