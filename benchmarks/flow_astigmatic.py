"""The side of focus from motion blur, with an astigmatic lens and without one.

    python benchmarks/flow_astigmatic.py --minutes 25 10 [--data DIR] [--resume]

With a weak cylindrical lens of known strength and axis a blur tells on which side of focus the
sample was: z0 has a sign. A reader of patches is trained for that lens, from the weights
"zernike-3", then the flow estimator around it, on the same images as the shipped weights. Scenes
have two motions on textures that no weights were trained on. Without the lens the shipped weights
read the same motions: they say how far from focus the sample was, not where.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from flow_regression import FAMILY, NAMES, SIZE, two_motions
from record import describe_run
from train_flow import check_checkpoint, draw_particles, endless
from train_weights import load_images
from weights_accuracy import held_out_images

from sklearn_psf import BlurFlowEstimator, PSFParameterRegressor
from sklearn_psf.metrics import flow_r2
from sklearn_psf.networks import load_pretrained
from sklearn_psf.optics import make_psf_model

CYLINDER, AXIS = 0.3, 0.3  # waves RMS, radians
FAR = 0.2  # waves RMS: nearer to focus the side is not asked for


def main():
    args = parse_arguments()
    torch.set_num_threads(1)
    family = make_psf_model("motion", cylinder=CYLINDER, axis=AXIS)
    with_lens = train(args, family)
    textures = held_out_images(args.data, min_size=SIZE)
    without = BlurFlowEstimator(pretrained="motion").fit(textures)
    seeds = range(args.images)
    figures = {
        name: evaluate(flow, [two_motions(textures, k, family=family, lens=lens) for k in seeds])
        for name, flow, lens in (
            ("with the lens", with_lens, family),
            ("without it", without, FAMILY),
        )
    }
    for name, row in figures.items():
        print(f"{name:14} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    if args.output is not None:
        record = describe_run("flow_astigmatic.py")
        record |= {"cylinder": CYLINDER, "axis": AXIS, "minutes": args.minutes, "figures": figures}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def train(args, family):
    """A flow estimator for the lens; both trainings go on from checkpoints."""
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    paths = [args.checkpoints / f"astigmatic-{stage}.checkpoint" for stage in ("patches", "scenes")]
    for path in paths:
        check_checkpoint(path, args.resume)
    patches, scenes = (
        endless(family, minutes, path, args.seed)
        for minutes, path in zip(args.minutes, paths, strict=True)
    )
    images, _, _, _ = load_images(args.data, args.seed)
    images = [*draw_particles(300, args.seed), *images]
    reader = PSFParameterRegressor(
        architecture="compact-directed", initial_weights=load_pretrained("zernike-3")[0],
        n_patches=19200, **patches,
    ).fit(images)  # fmt: skip
    return BlurFlowEstimator(initial_weights=reader.state_, n_images=1200, **scenes).fit(images)


def evaluate(flow, scenes):
    """R^2, and how often the side of focus and the sense of the lateral motion are right."""
    X, y = (np.stack(part) for part in zip(*scenes, strict=True))
    predicted = flow.predict(X)
    valid = ~np.isnan(y).any(1)
    r2 = flow_r2(y, predicted, multioutput="raw_values")
    y, predicted = (np.moveaxis(part, 1, -1)[valid] for part in (y, predicted))
    far = np.abs(y[:, 3]) > FAR
    moving = (np.hypot(y[:, 0], y[:, 1]) > 5) & (y[:, 2] > 0.3)
    return {
        "side": round(float((y[far, 3] * predicted[far, 3] > 0).mean()), 3),
        "sense": round(float(((y[:, :2] * predicted[:, :2]).sum(1) > 0)[moving].mean()), 3),
        "r2": dict(zip(NAMES, r2.round(3).tolist(), strict=True)),
        "images": len(X),
    }


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--minutes", type=float, nargs=2, default=[25.0, 10.0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
