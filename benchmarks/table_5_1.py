"""How sharply and how far focus scores tell the distance: spread, entropy, range.

    python benchmarks/table_5_1.py [--textures 1000] [--planes 132] [--quick] [--output JSON]

Textures are seen from -120 to 120 um by a 10x / 0.3 objective on 0.65 um pixels, at 8000 peak
photons in focus. Scores are taken of the image divided by its mean and scaled to [0, 1] by the
smallest and largest of all; the spread is the standard deviation over textures, averaged over
|z| <= 50 um; the entropy has 100 bins for every score. As a sum over planes it grows with their
number, which the mean per plane does not; a score that is the same on both sides of focus has
ln 2 per plane at best. A plane in which our score sees no texture takes the mean of its
neighbours; how many these are is told.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from record import describe_run

from sklearn_psf import DeepFocusAutofocus
from sklearn_psf.metrics import FOCUS_MEASURES, conditional_entropy, useful_range
from sklearn_psf.optics import Camera, Optics
from sklearn_psf.simulation import make_focal_stack, make_textures

PUBLISHED = {"sigma": 0.03, "entropy": 1.59, "entropy, classical": "3.5 to 44", "range, DOF": 11}
PUBLISHED_DOF = 10.7  # um, as published; n lambda / NA^2 is 5.8 um
CAMERA = Camera(peak_photons=8000, read_noise=2.0, offset=0.0)
SIZE, MARGIN, BINS = 256, 64, 100


def make_optics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.65 um undersamples an aperture of 0.3, as it did there
        return Optics(na=0.3, wavelength=0.522, pixel_size=0.65)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--textures", type=int, default=1000)
    parser.add_argument("--planes", type=int, default=132)
    parser.add_argument("--quick", action="store_true", help="16 textures, 25 planes")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        args.textures, args.planes = 16, 25
    z = np.linspace(-120, 120, args.planes)
    scores, n_filled, seconds = score_textures(args.textures, z)
    rows = {name: summarize(np.array(values), z) for name, values in scores.items()}
    report(rows)
    print(f"planes without texture: {n_filled} of {args.textures * args.planes}")
    if args.output is not None:
        record = describe_run("table_5_1.py") | {"textures": args.textures}
        record |= {"planes": args.planes, "bins": BINS, "published": PUBLISHED, "ours": rows}
        record |= {"planes_filled_in": n_filled, "score_seconds_per_image": seconds}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def score_textures(n, z):
    """Scores (n, n_z) of every measure; planes filled in and seconds per image of ours."""
    optics = make_optics()
    af = DeepFocusAutofocus(optics=optics).fit(None)
    measures = {
        name: DeepFocusAutofocus(name, spectra=False).fit(*calibration(optics))
        for name in FOCUS_MEASURES
    }
    scores = {name: [] for name in ("ours", *measures)}
    n_filled, seconds = 0, 0.0
    for i in range(n):
        sharp = make_textures(1, size=SIZE + 2 * MARGIN, random_state=1000 + i)[0]
        stack = make_focal_stack(
            sharp, z, optics=optics, margin=MARGIN, camera=CAMERA, random_state=i
        ).clip(min=0)
        begin = time.perf_counter()
        ours = af.score_images(stack)
        seconds += time.perf_counter() - begin
        if np.isnan(ours).any():  # a plane without readable texture has no score
            known = ~np.isnan(ours)
            n_filled += int((~known).sum())
            ours = np.interp(z, z[known], ours[known])
        scores["ours"].append(ours)
        for name, measure in measures.items():
            scores[name].append(measure.score_images(stack))
    return scores, n_filled, round(seconds / (n * len(z)), 4)


def calibration(optics):
    """A small stack: scores do not depend on it, but an estimator is fitted."""
    sharp = make_textures(1, size=96, kind="dead-leaves", random_state=0)[0]
    z = np.linspace(-40, 40, 9)
    return make_focal_stack(sharp, z, optics=optics), z


def summarize(scores, z):
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    width = useful_range(z, scaled)
    entropy = conditional_entropy(scores, z, bins=BINS)
    return {
        "sigma": round(float(scaled.std(0)[abs(z) <= 50].mean()), 4),
        "entropy": round(entropy, 2),
        "entropy_per_plane": round(entropy / len(z), 3),
        "range_um": round(width, 1),
        "range_dof_published": round(width / PUBLISHED_DOF, 1),
        "range_dof": round(width / 5.8, 1),
    }


def report(rows):
    columns = ("sigma", "entropy", "/plane", "range um", "/10.7", "/5.8")
    print(f"{'score':24s}" + "".join(f"{column:>10s}" for column in columns))
    for name, row in rows.items():
        print(f"{name:24s}" + "".join(f"{value:10.3f}" for value in row.values()))
    print(f"published: {PUBLISHED}")


if __name__ == "__main__":
    main()
