"""Blind restoration: degradations by two PSF families, read by networks of either.

    python benchmarks/table_4_1.py [--data DIR] [--images 350] [--quick] [--output FILE]

Sharp images that the shipped weights were not trained on (the test repositories of
`weights_accuracy` in `--data`, else scikit-image's own) are cut into pieces of 256 x 256 pixels,
blurred, and photographed at 10^4 peak photons and 2 electrons of read noise:

* "pasted", as published: the piece is blurred by four PSFs and a quadrant of each is kept. Light
  does not cross the seams, which is the "gather" order of the blur, and the one restored with.
* "smooth": a PSF that varies smoothly, by the physics of "scatter".
* "quadrants": one PSF in each quadrant by the physics, so that light of a sharp quadrant lies over
  its blurred neighbours. Not in the default run: no window sees one PSF there.

What the PSFs of the published table were drawn from is not known here: ours are uniform over
`RANGES`. Our restorations are the default `TVRLDeconvolver` with the PSFs that the networks read,
and with the true ones. Where there are quadrants, both know where they are: the networks read each
as one window. Where the PSF varies smoothly, the networks read the default grid, and the true ones
are given at 8 x 8 places. The other packages are given the true PSFs: their mean, and that of the
middle of each quadrant.
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import baselines
import numpy as np
import torch
from joblib import Parallel, delayed
from record import describe_run
from weights_accuracy import CAMERA, held_out_images

from sklearn_psf import PSFMap, PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.metrics import snr, ssim
from sklearn_psf.operators import make_operator
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import make_scene

SIZE = 256
FAMILIES = ("zernike-1", "gaussian-1")
VARIANTS = ("pasted", "smooth", "quadrants")
RANGES = {"zernike-1": (0.2, 1.0), "gaussian-1": (1.0, 4.0)}
TRUTH_GRID = 8
# Gains published for 20 iterations with lambda 0.1: SNR in dB, SSIM
PUBLISHED = {
    ("zernike-1", "true PSFs"): "+2.14",
    ("gaussian-1", "true PSFs"): "+2.24",
    ("zernike-1", "blind, zernike-1"): "+1.65, SSIM +0.10",
    ("gaussian-1", "blind, gaussian-1"): "+2.11, SSIM +0.08",
    ("zernike-1", "blind Richardson-Lucy"): "-1.25 to +1.78 (invariant blind methods)",
    ("gaussian-1", "blind Richardson-Lucy"): "-1.25 to +1.78 (invariant blind methods)",
    ("zernike-1", "PSF"): "13 noiseless, 8 noisy (elsewhere)",
    ("gaussian-1", "PSF"): "13 noiseless, 8 noisy (elsewhere)",
}


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    pieces = sharp_pieces(args.data, args.images)
    start = time.perf_counter()
    tasks = [
        delayed(restore_piece)(piece, i, variant, degradation, args)
        for variant in args.variants
        for degradation in args.degradations
        for i, piece in enumerate(pieces)
    ]
    rows = Parallel(n_jobs=args.jobs, verbose=5 if args.verbose else 0)(tasks)
    results = {}
    for variant in args.variants:
        for degradation in args.degradations:
            chosen = [r for v, d, r in rows if (v, d) == (variant, degradation)]
            results[f"{variant}, {degradation}"] = summarise(chosen)
            print_table(variant, degradation, chosen)
    print(f"{len(pieces)} images, {time.perf_counter() - start:.0f} s")
    if args.output is not None:
        write(args.output, results, len(pieces))


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--images", type=int, default=350, help="at most so many pieces")
    parser.add_argument("--variants", nargs="+", default=VARIANTS[:2], choices=VARIANTS)
    parser.add_argument("--degradations", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--detections", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--auto", action="store_true", help="choose weight and iterations")
    parser.add_argument("--n-iter", type=int, default=20, help="iterations of the other packages")
    parser.add_argument("--no-baselines", action="store_true", help="restore by this package alone")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="six images")
    parser.add_argument("--smoke", action="store_true", help="one image, few iterations")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    if args.quick:
        args.images = min(args.images, 6)
    if args.smoke:
        args.images, args.n_iter, args.variants = 1, 2, args.variants[:1]
    return args


def sharp_pieces(folder, n):
    """Pieces of 256 x 256 pixels, as many from each image in turn."""
    queues = []
    for image in held_out_images(folder, min_size=SIZE):
        corners = [
            (r, c)
            for r in range(0, image.shape[0] - SIZE + 1, SIZE)
            for c in range(0, image.shape[1] - SIZE + 1, SIZE)
        ]
        pieces = [image[r : r + SIZE, c : c + SIZE] for r, c in corners]
        # a black piece has nothing to restore
        queues.append([piece for piece in pieces if piece.std() > 0.02 * piece.max() > 0])
    pieces = []
    while len(pieces) < n and any(queues):
        pieces += [queue.pop(0) for queue in queues if queue]
    return pieces[:n]


def restore_piece(sharp, seed, variant, degradation, args):
    """Every method's gains in SNR and SSIM, and the SNR of the PSFs read, for one image."""
    torch.set_num_threads(1)
    field = parameter_field(variant, degradation, seed)
    blurred, sharp = photograph(sharp, field, variant, degradation, seed)
    before = snr(sharp, blurred), ssim(sharp, blurred)
    deconvolver = deconvolver_for(variant)
    if args.auto:
        deconvolver.set_params(lambda_tv="auto", n_iter="auto")
    elif args.smoke:
        deconvolver.set_params(n_iter=12)
    images, psf_snr = {}, {}
    truth = true_map(blurred, field, degradation, variant)
    images["true PSFs"] = deconvolver.fit_transform(truth)[0]
    images["true PSFs, 100 plain iterations"] = deconvolver_for(
        variant, accelerate=False, n_iter=2 if args.smoke else 100
    ).fit_transform(truth)[0]
    for family in args.detections:
        maps = read_map(family, variant, blurred[np.newaxis])
        images[f"blind, {family}"] = deconvolver.fit_transform(maps)[0]
        psf_snr[f"PSF by {family}"] = recovered_psf_snr(maps, field, degradation)
    if not args.no_baselines:
        images |= restore_by_others(blurred, field, degradation, args.n_iter)
    gains = {
        name: (snr(sharp, image) - before[0], ssim(sharp, image) - before[1])
        for name, image in images.items()
    }
    return variant, degradation, {"before": before, "gains": gains, "psf": psf_snr}


def photograph(sharp, field, variant, family, seed):
    """Blurred and sharp image in photo-electrons."""
    if variant != "pasted":
        spacing = 1 if variant == "quadrants" else 8
        return make_scene(
            sharp, field, psf_model=family, camera=CAMERA, random_state=seed, spacing=spacing
        )[:2]
    photons = (sharp * (CAMERA.peak_photons / sharp.max())).astype(np.float32)
    places = true_places(variant).astype(int)
    psfs = make_psf_model(family).psf(field[np.ix_(places, places)].reshape(-1, 1))
    psfs = psfs.reshape(2, 2, *psfs.shape[1:]).astype(np.float32)
    operator = make_operator(psfs, places, places, sharp.shape, order="gather", method="tiles")
    light = np.pad(photons, psfs.shape[-1] // 2, mode="symmetric")
    blurred = operator.forward(torch.from_numpy(light)).numpy().clip(0)
    return CAMERA.expose(blurred, generator=seed), CAMERA.to_grey(photons)


def deconvolver_for(variant, **settings):
    """The default deconvolver, with the order of the blur that the data have."""
    order = "gather" if variant == "pasted" else "scatter"
    return TVRLDeconvolver(order=order, random_state=0, **settings)


def parameter_field(variant, family, seed):
    """One parameter for every pixel (256, 256, 1): constant in quadrants, or between corners."""
    rng = np.random.default_rng([seed, variant == "smooth", FAMILIES.index(family)])
    low, high = RANGES[family]
    if variant != "smooth":
        return np.kron(rng.uniform(low, high, (2, 2)), np.ones((SIZE // 2, SIZE // 2)))[..., None]
    corners = rng.uniform(low, high, (2, 2))
    t = np.linspace(0, 1, SIZE)
    down = np.stack([1 - t, t], 1)
    return (down @ corners @ down.T)[..., None]


def read_map(family, variant, X):
    """Read a window for each quadrant as it is, or the default grid, smoothed."""
    regressor = PSFParameterRegressor(pretrained=family)
    if variant == "smooth":
        return SpatialPSFMapper(regressor).fit_transform(X)
    maps = SpatialPSFMapper(regressor, stride=SIZE // 2, smoothing=0).fit_transform(X)
    places = true_places(variant)
    return replace(maps, rows=places, columns=places)


def true_places(variant):
    """Where PSFs are put; on both sides of the middle, they jump there and nowhere else."""
    if variant != "smooth":
        return np.array([SIZE // 2 - 1.0, SIZE // 2])
    return np.floor((np.arange(TRUTH_GRID) + 0.5) * SIZE / TRUTH_GRID)


def true_map(blurred, field, family, variant):
    centres = true_places(variant)
    places = centres.astype(int)
    parameters = field[np.ix_(places, places)][np.newaxis]
    return PSFMap(
        images=blurred[np.newaxis],
        parameters=parameters,
        std=np.zeros_like(parameters),
        invalid=np.zeros(parameters.shape[:3]),
        rows=centres,
        columns=centres,
        model=make_psf_model(family).settings,
    )


def recovered_psf_snr(maps, field, family):
    """Mean over windows of the SNR of the PSF read against the true one at the same place."""
    if not np.isfinite(maps.parameters).all():
        return float("nan")
    places = [np.floor(centres).astype(int) for centres in (maps.rows, maps.columns)]
    true = make_psf_model(family).psf(field[np.ix_(*places)].reshape(-1, 1))
    read = maps.psfs(0).reshape(true.shape)
    return float(np.mean([snr(a, b) for a, b in zip(true, read, strict=True)]))


def restore_by_others(blurred, field, family, n_iter):
    places = [SIZE // 4, SIZE * 3 // 4]
    psfs = make_psf_model(family).psf(field[np.ix_(places, places)].reshape(-1, 1))
    psfs = psfs.reshape(2, 2, *psfs.shape[1:]).astype(float)
    mean = psfs.mean((0, 1))
    image = blurred.astype(float).clip(min=0)
    rl, wiener = baselines.richardson_lucy, baselines.unsupervised_wiener
    images = {
        "scikit-image RL, mean PSF": rl(image, mean, n_iter),
        "scikit-image RL, per tile": baselines.per_tile(rl, image, psfs, n_iter=n_iter),
        "unsupervised Wiener, mean PSF": wiener(image, mean),
        "unsupervised Wiener, per tile": baselines.per_tile(wiener, image, psfs),
    }
    if baselines.has_redlionfish():
        fish = baselines.redlionfish
        images["RedLionfish, mean PSF"] = fish(image, mean, n_iter)
        images["RedLionfish, per tile"] = baselines.per_tile(fish, image, psfs, n_iter=n_iter)
    images["blind Richardson-Lucy"] = baselines.blind_richardson_lucy(
        image, n_iter=max(n_iter // 2, 1)
    )
    images["sharpening"] = baselines.sharpening(image)
    return images


def summarise(rows):
    """Mean and standard deviation over images of every figure."""
    figures = {"n": len(rows), "blurred": mean_sd([row["before"] for row in rows])}
    for name in rows[0]["gains"]:
        figures[name] = mean_sd([row["gains"][name] for row in rows])
    for name in rows[0]["psf"]:
        figures[name] = mean_sd([row["psf"][name] for row in rows])
    true = figures["true PSFs"]["mean"][0]
    for name in [name for name in figures if name.startswith("blind, ")]:
        figures[name]["share"] = figures[name]["mean"][0] / true
    return figures


def mean_sd(values):
    with warnings.catch_warnings():  # an image whose every window is invalid has no PSF
        warnings.simplefilter("ignore", RuntimeWarning)
        return {
            "mean": np.nanmean(values, 0).tolist(),
            "sd": np.nanstd(values, 0).tolist(),
        }


def print_table(variant, degradation, rows):
    figures = summarise(rows)
    blurred = figures["blurred"]["mean"]
    print(f"\n{variant}, blurred by {degradation}: {len(rows)} images, ", end="")
    print(f"blurred SNR {blurred[0]:.2f} dB, SSIM {blurred[1]:.3f}")
    print(f"{'':34}{'SNR gain, dB':>16}{'SSIM gain':>18}   published, dB")
    for name in rows[0]["gains"]:
        (gain, more), (gain_sd, more_sd) = figures[name]["mean"], figures[name]["sd"]
        published = PUBLISHED.get((degradation, name), "-")
        share = f" ({figures[name]['share']:.0%})" if "share" in figures[name] else ""
        print(
            f"{name + share:34}{gain:+8.2f} +- {gain_sd:4.2f}{more:+10.3f} +- {more_sd:.3f}"
            f"   {published}"
        )
    for name in rows[0]["psf"]:
        print(
            f"{name + ', SNR':34}{figures[name]['mean']:+8.2f} +- {figures[name]['sd']:4.2f}"
            f"{'':20}{PUBLISHED[degradation, 'PSF']}"
        )
    sys.stdout.flush()


def write(path, results, n_images):
    record = describe_run("table_4_1.py") | {"images": n_images, "results": results}
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
