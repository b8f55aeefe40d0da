"""Error of autofocus against the number of images: ours, golden section, Brent.

    python benchmarks/figure_5_4.py [--textures 1000] [--trials 100] [--quick] [--data DIR]
                                    [--output JSON] [--figure PNG]

One stack of one texture calibrates; other textures are focused from within +-80 um of focus, by a
10x / 0.3 objective on 0.65 um pixels that average two fine pixels per axis, at 8000 peak photons
in focus. Trials through pymmcore-plus begin 80 um away from a tilted, drifting sample under a
stage with a slack of 1 um.

Real stacks are searched plane by plane: an image is that of the plane nearest to where the search
wants one, four in all. Of a textured stack each half calibrates for the other one, searches begin
at every plane, and focus is the top of Tenengrad over all planes of the half. The planes of a
measured PSF blur textures, one of which calibrates; focus is the plane of the most compact PSF.

A decision is timed by what it takes of one core, which other work on the machine does not lengthen.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile
import torch
from record import describe_run
from scipy.optimize import minimize_scalar
from scipy.signal import fftconvolve
from skimage.io import imread

from sklearn_psf import DeepFocusAutofocus
from sklearn_psf.metrics import high_pass, tenengrad
from sklearn_psf.optics import Camera, Optics
from sklearn_psf.simulation import make_focal_stack, make_textures

PUBLISHED = {"4 images": "0.27 +- 0.18 um", "others": "8 images and more"}
CAMERA = Camera(peak_photons=8000, read_noise=2.0, offset=100.0, bits=16)
SIZE, MARGIN, FINE = 256, 64, 2
REACH, N_OURS, N_OTHERS, DEPTH_OF_FIELD = 80.0, 4, 10, 5.8
LOST = ("uncertain", "limit", "textureless")  # reasons that say so
N_BLURRED, LARGEST_PSF = 20, 121  # textures per measured PSF, and its pixels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--textures", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=100, help="through pymmcore-plus")
    parser.add_argument("--quick", action="store_true", help="8 textures, 3 trials")
    parser.add_argument("--data", type=Path, help="folder of real stacks")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--figure", type=Path, help="picture to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # 0.65 um undersamples, as it did there
    if args.quick:
        args.textures, args.trials = 8, 3
    optics = Optics(na=0.3, wavelength=0.522, pixel_size=0.65)
    methods = calibrate(optics)
    errors, seconds = focus_textures(methods, optics, args.textures)
    rows = {name: tabulate(np.array(values)) for name, values in errors.items()}
    report(rows, seconds)
    record = describe_run("figure_5_4.py") | {"published": PUBLISHED}
    record |= {"textures": args.textures, "errors_um": rows, "decision_cpu_seconds": seconds}
    record["first_decision_cpu_seconds"] = decide_first(methods["known optics"])
    if args.trials:
        record["trials"] = run_trials(methods["learnt optics"], optics, args.trials)
    if args.data is not None:
        record["real_stacks"] = {
            p.parent.name: real_stack(p.parent) for p in find_stacks(args.data)
        }
        print(json.dumps(record["real_stacks"], indent=1))
    if args.output is not None:
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    if args.figure is not None:
        draw(rows, args.figure)


class Scope:
    """Takes images of a texture; a position costs one image."""

    def __init__(self, seed, optics, z_focus):
        size = (SIZE + 2 * MARGIN) * FINE
        self.texture = make_textures(1, size=size, random_state=seed)[0]
        self.optics, self.z_focus = optics, z_focus
        self.rng = np.random.RandomState(seed)
        self.gain = CAMERA.peak_photons / self.blur(z_focus).max()

    def blur(self, z):
        """Expected light at a stage position, in the units of the texture."""
        options = {"optics": self.optics, "margin": MARGIN, "oversampling": FINE}
        return make_focal_stack(self.texture, [z], z_focus=self.z_focus, **options)[0]

    def __call__(self, z):
        """Take an image, uint16."""
        seed = int(self.rng.randint(2**31 - 1))
        return CAMERA.expose(self.blur(z) * self.gain, generator=seed).astype(np.uint16)


def calibrate(optics):
    """Calibrated estimators by name, all on one stack."""
    z = np.linspace(-120, 120, 41)
    scope = Scope(1, optics, 0.0)
    stack = np.stack([scope(position) for position in z])
    return {
        "known optics": DeepFocusAutofocus(optics=optics).fit(stack, z),
        "learnt optics": DeepFocusAutofocus().fit(stack, z),
        "scores alone": DeepFocusAutofocus(spectra=False).fit(stack, z),
        "golden section": DeepFocusAutofocus(spectra=False, strategy="golden").fit(stack, z),
    }


def focus_textures(methods, optics, n):
    """Errors (n, images) by method, um, and median CPU seconds of a decision."""
    brent = {"Brent, Tenengrad": tenengrad, "Brent, high-pass": high_pass}
    errors = {name: [] for name in (*methods, *brent)}
    seconds = []
    for i in range(n):
        rng = np.random.default_rng(i)
        focus = rng.uniform(-20, 20)
        start = focus + rng.uniform(-REACH, REACH)
        scope = Scope(5000 + i, optics, focus)
        limits = (start - 120, start + 120)
        for name, af in methods.items():
            count = N_OTHERS if name == "golden section" else N_OURS
            errors[name].append(follow(af, scope, start, limits, count, seconds))
        for name, measure in brent.items():
            errors[name].append(follow_brent(measure, scope, start, limits))
    return errors, round(float(np.median(seconds)), 4)


def follow(af, scope, start, limits, count, seconds):
    """Error after each image of one search."""
    search, errors = af.start(start, limits, max_images=count), []
    while not search.done:
        begin = time.process_time()
        z = search.suggest()
        deciding = time.process_time() - begin
        image = scope(z)
        begin = time.process_time()
        search.tell(z, image)
        errors.append(abs(search.result.z - scope.z_focus))
        seconds.append(deciding + time.process_time() - begin)
    return errors


def decide_first(af):
    """CPU seconds of the first two decisions about images of a shape that was never seen before."""
    sharp = make_textures(1, size=(512, 460), random_state=0)[0]
    search, seconds = af.start(20.0, (-100.0, 140.0)), []
    for z in (20.0, 40.0):
        begin = time.process_time()
        search.tell(z, CAMERA.expose(8000 * sharp, generator=0))
        search.suggest()
        seconds.append(round(time.process_time() - begin, 4))
    return seconds


def follow_brent(measure, scope, start, limits):
    """Error of the sharpest image so far, after each of Brent's."""
    told = []

    def cost(z):
        image = scope(z).astype(float) - CAMERA.offset
        told.append((-measure(image[np.newaxis])[0], z))
        return told[-1][0]

    cost(start)
    options = {"maxiter": N_OTHERS - 1, "xatol": 1e-3}
    minimize_scalar(cost, bounds=limits, method="bounded", options=options)
    told = (told + [told[-1]] * N_OTHERS)[:N_OTHERS]
    return [abs(min(told[: k + 1])[1] - scope.z_focus) for k in range(N_OTHERS)]


def tabulate(errors):
    return {
        str(k + 1): {
            "median": round(float(np.median(errors[:, k])), 3),
            "mean": round(float(errors[:, k].mean()), 3),
            "std": round(float(errors[:, k].std()), 3),
            "p95": round(float(np.quantile(errors[:, k], 0.95)), 3),
        }
        for k in range(errors.shape[1])
    }


def report(rows, seconds):
    print("median (95 %) of the error in um after so many images")
    print(f"{'':20s}" + "".join(f"{k + 1:>15d}" for k in range(N_OTHERS)))
    for name, row in rows.items():
        cells = [f"{v['median']:8.3f} ({v['p95']:.1f})" for v in row.values()]
        print(f"{name:20s}" + "".join(f"{cell:>15s}" for cell in cells))
    print(f"published: {PUBLISHED}; a decision takes {1000 * seconds:.0f} ms of a core (median)")


def run_trials(af, optics, n):
    """Runs through pymmcore-plus, 80 um away, slack of 1 um, tilt and drift, at most 5 images."""
    from sklearn_psf.integrations.micromanager import focus_core
    from sklearn_psf.integrations.simulated_microscope import (
        SimulatedMicroscope,
        make_simulated_core,
    )

    errors, lost = [], []
    for i in range(n):
        texture = make_textures(1, size=SIZE + 2 * MARGIN, random_state=40000 + i)[0]
        scope = SimulatedMicroscope(
            texture,
            optics,
            z_focus=float(np.random.default_rng(i).uniform(-10, 10)),
            tilt=(3.0, 2.0),
            drift=0.05,
            backlash=1.0,
            margin=MARGIN,
            random_state=i,
        )
        core = make_simulated_core(scope)
        start = scope.z_focus + 80.0 * (1 if i % 2 else -1)
        core.setPosition(start)
        limits = (start - 120, start + 120)
        result = focus_core(core, af, limits=limits, max_images=5, backlash=2.0)
        errors.append(abs(scope.sample_position - scope.z_focus))
        lost.append(result.reason in LOST)
    errors, lost = np.array(errors), np.array(lost)
    found = errors <= DEPTH_OF_FIELD
    row = {
        "trials": n,
        "within_5.8_um": int(found.sum()),
        "missed_and_said": int((~found & lost).sum()),
        "found_and_doubted": int((found & lost).sum()),
        "median_um": round(float(np.median(errors)), 3),
        "largest_um": round(float(errors.max()), 3),
    }
    print("through pymmcore-plus:", row)
    return row


def find_stacks(data):
    """Descriptions of the stacks in a folder of data, or of stacks."""
    return sorted(p for p in data.rglob("meta.json") if "pairs" not in p.parts)


def real_stack(folder):
    """Searches over the planes of one stack."""
    meta = json.loads((folder / "meta.json").read_text())
    files = [folder / name for name in meta["planes"]]
    read = tifffile.imread if files[0].suffix.startswith(".tif") else imread
    stack = np.stack([read(file) for file in files]).astype(np.float32)
    step = meta.get("z_step_um") or 1.0
    z = np.array(meta.get("z_um") or np.arange(len(stack)) * step, dtype=float)
    row = {"planes": len(z), "plane_step_um": round(float(np.median(abs(np.diff(z)))), 3)}
    if folder.name.startswith("psf_"):
        return row | search_blurred(stack, z)
    if min(stack.shape[1:]) < 256:
        return {"skipped": f"half of {stack.shape[2]} x {stack.shape[1]} pixels is below a patch"}
    return row | search_halves(stack, z)


def search_halves(stack, z):
    """Each half calibrates for the opposite one."""
    middle = [n // 2 for n in stack.shape[1:]]
    top, bottom = stack[:, : middle[0]], stack[:, middle[0] :]
    left, right = stack[:, :, : middle[1]], stack[:, :, middle[1] :]
    pairs = {"top to bottom": (top, bottom), "left to right": (left, right)}
    pairs |= {"bottom to top": (bottom, top), "right to left": (right, left)}
    rows = {}
    for name, (known, new) in pairs.items():
        focus = z[tenengrad(new).argmax()]
        searches = [(new, focus, k) for k in range(len(z))]
        rows[name] = {"focus_um": float(focus)} | search_planes(known, z, searches)
    return rows


def search_blurred(stack, z):
    """Textures through every plane of a measured PSF."""
    stack = np.clip(stack - np.median(stack, (1, 2), keepdims=True), 0, None)
    centre = np.unravel_index(stack.sum(0).argmax(), stack.shape[1:])
    half = min(*centre, *(n - 1 - c for n, c in zip(stack.shape[1:], centre, strict=True)))
    half = min(half, LARGEST_PSF // 2)
    psfs = stack[(slice(None), *(slice(c - half, c + half + 1) for c in centre))]
    psfs = psfs / psfs.sum((1, 2), keepdims=True)
    focus = z[(psfs**2).sum((1, 2)).argmax()]
    searches = []
    for i in range(N_BLURRED):
        start = np.random.default_rng(i).integers(len(z))
        searches.append((photograph(psfs, 41000 + i), focus, start))
    return {"focus_um": float(focus)} | search_planes(photograph(psfs, 1), z, searches)


def photograph(psfs, seed):
    """A texture through many PSFs, on the same lamp."""
    sharp = make_textures(1, size=SIZE + 2 * MARGIN, random_state=seed)[0]
    planes = np.stack([fftconvolve(sharp, psf, mode="same") for psf in psfs])
    planes = planes.clip(min=0)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return CAMERA.expose(planes * (CAMERA.peak_photons / planes.max()), generator=seed)


def search_planes(known, z, searches):
    """Errors of searches (images, focus, first plane) after a calibration, by scorer."""
    rows = {}
    for name, scorer in (("network", None), ("tenengrad", "tenengrad")):
        af = DeepFocusAutofocus(scorer).fit(known, z)
        errors, stds, lost = [], [], []
        for images, focus, plane in searches:
            search = af.start(z[plane], (z.min(), z.max()), max_images=N_OURS)
            while not search.done:
                plane = np.abs(z - search.suggest()).argmin()
                search.tell(z[plane], images[plane])
            errors.append(abs(search.result.z - focus))
            stds.append(search.result.std)
            lost.append(search.result.reason in LOST)
        errors, lost = np.array(errors), np.array(lost)
        rows[name] = {
            "defocus_waves_per_um": round(af.rate_, 3) if np.isfinite(af.rate_) else None,
            "median_um": round(float(np.median(errors)), 3),
            "largest_um": round(float(errors.max()), 3),
            "within_0.5_um": f"{(errors <= 0.5).sum()} of {len(errors)}",
            "farther_and_said": f"{(lost & (errors > 0.5)).sum()} of {(errors > 0.5).sum()}",
            "median_std_um": round(float(np.median(stds)), 3),
        }
    return rows


def draw(rows, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, row in rows.items():
        axes.semilogy([int(k) for k in row], [v["median"] for v in row.values()], "o-", label=name)
    axes.axhline(0.27, color="0.5", ls="--", label="published, 4 images")
    axes.set(xlabel="images", ylabel="median error (um)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
