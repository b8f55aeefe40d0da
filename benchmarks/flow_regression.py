"""Flow from motion blur: R^2 on two-motion images and on pipe flow, theirs and ours.

    python benchmarks/flow_regression.py [--data DIR] [--images 40] [--quick]

Textures are images of repositories that no weights were trained on (--data), or scikit-image's, and
particles; scenes come from `make_scene`, not from the training's own stream. Two-motion images are
scored 24 pixels and more from the border of the regions, pipes inside. The classical baseline reads
the streak of each window of 64 pixels off the cepstrum, where its two ends leave a dip.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from scipy.ndimage import distance_transform_edt, gaussian_laplace
from weights_accuracy import held_out_images

from sklearn_psf import BlurFlowEstimator
from sklearn_psf.metrics import align_sense, flow_r2, sense_accuracy
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import make_motion_scene, make_particles, make_pipe_flow

PUBLISHED = {"two motions": 0.92, "pipe": 0.91}  # mean R^2 of component magnitudes
NAMES = ("v_y", "v_x", "v_z", "z0")
CAMERA = Camera(peak_photons=1e4, read_noise=2.0)
MARGIN = 24  # pixels from the border of regions, as published
SIZE = 256
FAMILY = make_psf_model("motion")


def main():
    args = parse_arguments()
    torch.set_num_threads(1)
    textures = held_out_images(args.data, min_size=SIZE)
    flow = BlurFlowEstimator(pretrained=args.weights).fit(textures)
    n = 3 if args.quick else args.images
    scenes = [two_motions(textures, seed) for seed in range(n)]
    figures = {
        "two motions": evaluate(flow, scenes),
        "two motions, z0 below 1/3": evaluate(flow, near_focus(scenes), baseline=False),
        "pipe": evaluate(flow, [pipe(seed) for seed in range(max(2, n // 2))]),
    }
    for peak in (10**2.5, 1e3, 1e4, 10**4.5)[:: 3 if args.quick else 1]:
        camera = Camera(peak_photons=peak, read_noise=2.0)
        scenes = [two_motions(textures, seed, camera) for seed in range(max(2, n // 2))]
        figures[f"two motions, {peak:.0f} photons"] = evaluate(flow, scenes, baseline=False)
    for density in (0.002, 0.005, 0.01, 0.02, 0.05)[:: 4 if args.quick else 1]:
        scenes = [pipe(seed, density) for seed in range(max(2, n // 4))]
        figures[f"pipe, {density:g} particles per pixel"] = evaluate(flow, scenes, baseline=False)
    print_table(figures)
    if args.output is not None:
        record = describe_run("flow_regression.py") | {"weights": flow.weights_id_}
        record |= {"published": PUBLISHED, "figures": figures}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--weights", default="motion")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


def two_motions(textures, seed, camera=CAMERA, family=FAMILY, lens=None):
    """An image with two motions of a family, and its truth with NaN near their border."""
    rng = np.random.RandomState(seed)
    if rng.rand() < 0.25:
        density = 10 ** rng.uniform(-2.3, -1.3)
        sharp = make_particles((SIZE, SIZE), density=density, random_state=rng)
    else:
        image = np.asarray(textures[rng.randint(len(textures))], dtype=float)
        top, left = (rng.randint(0, n - SIZE + 1) for n in image.shape)
        sharp = image[top : top + SIZE, left : left + SIZE]
        sharp = sharp - sharp.min()
    y, x = np.arange(SIZE)[:, None] - SIZE / 2, np.arange(SIZE) - SIZE / 2
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-40, 40)
    regions = (y * np.sin(angle) + x * np.cos(angle) > offset).astype(int)
    blurred, _, motion = make_motion_scene(
        sharp, family.sample(2, rng), regions=regions, psf_model=lens or family, camera=camera,
        random_state=rng,
    )  # fmt: skip
    inside = np.where(regions, distance_transform_edt(regions), distance_transform_edt(1 - regions))
    motion[:, inside < MARGIN] = np.nan
    return blurred, motion


def near_focus(scenes):
    """The same with the truth of those pixels alone that lie less than 1/3 wave from focus."""
    return [(image, np.where(motion[3] < 1 / 3, motion, np.nan)) for image, motion in scenes]


def pipe(seed, density=None):
    """The image of a pipe, and its truth."""
    rng = np.random.RandomState(1000 + seed)
    draw = {
        "speed": rng.uniform(5, 20),
        "axial_speed": rng.uniform(0, 1),
        "depth": rng.uniform(0, 1),
        "profile": ("poiseuille", "plug")[rng.randint(2)],
        "radius": rng.uniform(50, 110),
        "direction": rng.uniform(0, 2 * np.pi),
        "density": 10 ** rng.uniform(-2.3, -1.3),
    }
    if density is not None:
        draw["density"] = density
    blurred, _, motion = make_pipe_flow(
        shape=(SIZE, SIZE), camera=CAMERA, random_state=rng, spacing=16, **draw
    )
    return blurred, motion


def evaluate(flow, scenes, baseline=True):
    """R^2 of each component aligned and by magnitude, accuracy of the sense, coverage of std."""
    X, y = (np.stack(part) for part in zip(*scenes, strict=True))
    predicted, std = flow.predict(X, return_std=True)
    aligned = flow_r2(y, predicted, multioutput="raw_values")
    valid = ~np.isnan(y).any(1)
    ratio = np.moveaxis(np.abs(align_sense(predicted, y) - y) / std, 1, -1)[valid]
    figures = {
        "r2": dict(zip(NAMES, aligned.round(3).tolist(), strict=True)),
        "r2_mean": round(float(aligned.mean()), 3),
        "r2_magnitudes": round(flow_r2(y, predicted, kind="magnitude"), 3),
        "sense": round(sense_accuracy(y, predicted), 3),
        "predicted_sense": round(float(np.median(flow.predict_sense(X)[valid])), 3),
        "coverage": {str(k): (ratio < k).mean(0).round(3).tolist() for k in (1, 2)},
        "invalid": round(float((flow.predict_invalid(X)[valid] > 0.5).mean()), 4),
        "images": len(X),
    }
    if baseline:
        streaks = np.stack([cepstrum_streaks(image) for image in X])
        both = flow_r2(y, np.concatenate([streaks, y[:, 2:]], 1), multioutput="raw_values")
        figures["cepstrum_r2"] = dict(zip(NAMES[:2], both[:2].round(3).tolist(), strict=True))
    return figures


def cepstrum_streaks(image, window=64, step=16):
    """Lateral motion (2, H, W) without its sense, from the dip that a streak leaves."""
    white = gaussian_laplace(np.asarray(image, dtype=float), 1.0)
    taper = np.hanning(window)
    y, x = (np.fft.fftfreq(window, 1 / window)[:, None], np.fft.fftfreq(window, 1 / window))
    reach = np.hypot(y, x)
    allowed = (reach >= 3) & (reach <= 28.5)
    starts = [np.arange(0, n - window + 1, step) for n in image.shape]
    field = np.empty((2, len(starts[0]), len(starts[1])))
    for i, top in enumerate(starts[0]):
        for j, left in enumerate(starts[1]):
            part = white[top : top + window, left : left + window] * np.outer(taper, taper)
            power = np.abs(np.fft.fft2(part)) ** 2
            cepstrum = np.fft.ifft2(np.log(power + 1e-6 * power.mean() + 1e-20)).real
            at = np.argmin(np.where(allowed, cepstrum, np.inf))
            dy, dx = (
                int(axis[k]) for axis, k in zip((y[:, 0], x), divmod(at, window), strict=True)
            )
            field[:, i, j] = (dy, dx) if (dx, dy) > (0, 0) else (-dy, -dx)
    margin = (window - step) // 2
    enlarged = field.repeat(step, 1).repeat(step, 2)
    missing = [n - m - margin for n, m in zip(image.shape, enlarged.shape[1:], strict=True)]
    return np.pad(enlarged, [(0, 0), *((margin, m) for m in missing)], mode="edge")


def print_table(figures):
    print(f"{'':38}{'v_y':>7}{'v_x':>7}{'v_z':>7}{'z0':>7}{'mean':>7}{'|.|':>7}{'sense':>7}")
    for name, row in figures.items():
        cells = [*row["r2"].values(), row["r2_mean"], row["r2_magnitudes"], row["sense"]]
        print(f"{name:38}" + "".join(f"{cell:7.3f}" for cell in cells))
        if "cepstrum_r2" in row:
            cells = row["cepstrum_r2"].values()
            print(f"{'  cepstrum':38}" + "".join(f"{cell:7.3f}" for cell in cells))
        if name in PUBLISHED:
            print(f"{'  published':66}{'':7}{PUBLISHED[name]:7.2f}")


if __name__ == "__main__":
    main()
