"""Dense maps against the sliding window: accuracy on the same scenes, and time.

    python benchmarks/dense_maps.py [--data DIR] [--scenes 24] [--quick] [--output FILE]

Scenes are textures that no weights were trained on, blurred by `make_scene` with parameters that go
along a plane or around a point from one end of a random path to the other. Both methods read them
at the same places, every 16 pixels, one by windows of 128 pixels, the other by `predict_map`. R^2
is that of single readings (no smoothing) of places with texture. Seconds are processor time of one
thread for an image of 1024 x 1024 pixels, least of `--repeats` rounds of both in turn.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from weights_accuracy import held_out_images

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.metrics import parameter_r2
from sklearn_psf.optics import Camera
from sklearn_psf.simulation import make_scene

CAMERA = Camera(peak_photons=1e4, read_noise=2.0)
SIZE, STRIDE, PATCH = 320, 16, 128


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    textures = held_out_images(args.data, min_size=SIZE)
    dense, sliding = (
        PSFParameterRegressor(pretrained=args.family + suffix).fit(textures)
        for suffix in (args.suffix, "")
    )
    model = sliding.psf_model_
    scenes = [draw_scene(textures, model, seed) for seed in range(args.scenes)]
    figures = compare(dense, sliding, scenes, model)
    for name, row in figures.items():
        print(f"{name:8}", {k: round(v, 3) for k, v in row.items()})
    seconds = time_both(dense, sliding, textures, args.size, args.repeats)
    print({k: round(v, 3) for k, v in seconds.items()})
    if args.output is not None:
        record = describe_run("dense_maps.py") | {"weights": dense.weights_id_}
        record |= {"scenes": args.scenes, "r2": figures, "seconds": seconds}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--family", default="zernike-3")
    parser.add_argument("--suffix", default="-dense", help="of the dense weights")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--size", type=int, default=1024, help="of the image that is timed, pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two scenes, 256 pixels")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    if args.quick:
        args.scenes, args.size, args.repeats = 2, 256, 1
    return args


def draw_scene(textures, model, seed):
    """A blurred image and the parameters of its pixels."""
    rng = np.random.RandomState(seed)
    image = np.asarray(textures[rng.randint(len(textures))], dtype=float)
    top, left = (rng.randint(0, n - SIZE + 1) for n in image.shape)
    sharp = image[top : top + SIZE, left : left + SIZE]
    y, x = np.arange(SIZE)[:, None] / SIZE - 0.5, np.arange(SIZE) / SIZE - 0.5
    if rng.rand() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        t = 0.5 + (y * np.sin(angle) + x * np.cos(angle)) / np.sqrt(2)
    else:
        t = (np.hypot(y, x) / np.hypot(0.5, 0.5)) ** 2
    ends = model.encode(model.sample(2, rng))
    share = rng.uniform(0, 0.7) * t[..., None]
    parameters = model.decode(model.coherent((1 - share) * ends[0] + share * ends[1]))
    blurred = make_scene(
        sharp - sharp.min(), parameters, psf_model=model, camera=CAMERA, random_state=rng
    )[0]
    return blurred, parameters


def compare(dense, sliding, scenes, model):
    """R^2 of each parameter and their mean, by both methods at the same places."""
    starts = np.arange(0, SIZE - PATCH + 1, STRIDE)
    centres = starts + (PATCH - 1) / 2
    at = np.rint(centres).astype(int)
    truth, readings, valid = [], {"dense": [], "sliding": []}, []
    for image, parameters in scenes:
        truth.append(parameters[np.ix_(at, at)].reshape(-1, parameters.shape[-1]))
        patches = [image[r : r + PATCH, c : c + PATCH] for r in starts for c in starts]
        one, _, invalid = sliding.predict_all(np.stack(patches))[:3]
        other = dense.predict_map(image[np.newaxis], centres, centres)
        readings["sliding"].append(one)
        readings["dense"].append(other[0].reshape(one.shape))
        valid.append((invalid < 0.5) & (other[2].ravel() < 0.5))
    valid, truth = np.concatenate(valid), np.concatenate(truth)
    figures = {}
    for name, parts in readings.items():
        each = parameter_r2(
            truth[valid],
            np.concatenate(parts)[valid],
            periods=model.periods,
            multioutput="raw_values",
        )
        figures[name] = dict(zip(model.parameter_names, map(float, each), strict=True))
        figures[name] |= {"mean": float(each.mean()), "valid": float(valid.mean())}
    return figures


def time_both(dense, sliding, textures, size, repeats):
    """Seconds of a map of a whole image, every 16 pixels."""
    rng = np.random.RandomState(0)
    image = np.resize(np.asarray(textures[0], np.float32), (size, size))
    image = rng.poisson(100 * (image - image.min() + 1))[np.newaxis].astype(np.float32)
    starts = np.arange(0, size - PATCH + 1, STRIDE)
    centres = starts + (PATCH - 1) / 2
    corners = [(r, c) for r in starts for c in starts]
    least = {"sliding": np.inf, "dense": np.inf}
    for _ in range(repeats):
        start = time.process_time()
        for k in range(0, len(corners), 64):
            block = corners[k : k + 64]
            sliding.predict_all(
                np.stack([image[0, r : r + PATCH, c : c + PATCH] for r, c in block])
            )
        middle = time.process_time()
        dense.predict_map(image, centres, centres)
        end = time.process_time()
        least["sliding"] = min(least["sliding"], middle - start)
        least["dense"] = min(least["dense"], end - middle)
    return least | {"ratio": least["sliding"] / least["dense"], "windows": len(corners)}


if __name__ == "__main__":
    main()
