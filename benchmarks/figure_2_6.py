"""Robustness of the reading to degraded images, with and without noise in training.

    python benchmarks/figure_2_6.py [--shipped] [--data DIR] [--patches 20000] [--quick]
                                    [--figure FILE] [--output FILE]

Patches of unseen sources (`data_types`, "mix") are blurred without noise, degraded with strength s,
and photographed by the usual camera: 10^4 photons in the brightest pixel of the sharp image, 2
electrons of read noise. What the published strengths stand for is not known here; ours are:

* illumination: the light is multiplied by 1 - s;
* vignetting: the light falls with the square of the radius, to 1 - s at the corners of a patch;
* gaussian: white noise of standard deviation s / 5 of the range of the blurred patch is added;
* poisson: the brightest pixel of the blurred patch receives no more than 10 / s^2 photons, and the
  read noise goes down with them;
* mixed: all of these;
* exposure, which was not published: the light is multiplied by 10^(4 s), so that there is less
  noise than the networks were trained with.

Three networks for each family: the one that comes with the package, and two of equal training, on
noisy patches (as the package's) and on noiseless ones (10^9 photons, no read noise). With
`--shipped` nothing is trained. Rows are added to those that `--output` holds.
"""

import json
from pathlib import Path

import numpy as np
import torch
from data_types import (
    draw_test_patches,
    figures,
    load_test_images,
    load_training_images,
    make_parser,
    shipped,
    train,
    write_results,
)
from weights_accuracy import CAMERA, FAMILIES

from sklearn_psf.optics import Camera, make_psf_model

TYPES = ("syn", "poi", "micr")  # those that make up "mix"
KINDS = ("illumination", "vignetting", "gaussian", "poisson", "mixed", "exposure")
NOISELESS = Camera(peak_photons=1e9, read_noise=0.0)
NETWORKS = {"shipped": None, "noisy": None, "noiseless": NOISELESS}  # and their cameras
# R^2 without degradation and at the strongest one (0.5), trained with noise; without, 0 was left
PUBLISHED = {"zernike-1": (0.95, 0.85), "gaussian-1": (0.99, 0.60)}


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    test_images = load_test_images(args.data)
    trained = args.networks != ["shipped"]
    images = load_training_images(args.data, ["mix"])["mix"] if trained else []
    for family in args.families:
        light, y = draw_light(test_images, family, args.test_patches)
        for network in args.networks:
            if network == "shipped":
                regressor = shipped(family)
                about = {"weights": regressor.weights_id_}
            else:
                regressor, about = train(args, family, images, camera=NETWORKS[network])
            curves = degrade_and_read(regressor, light, y, args.strengths)
            print_curves(family, network, args.strengths, curves)
            row = about | {"strengths": args.strengths, "n_patches": len(y)} | curves
            write_results(args.output, "figure_2_6.py", {f"{family}, {network}": row})
    if args.figure is not None:
        draw_figure(json.loads(args.output.read_text())["results"], args.figure)


def parse_arguments(arguments):
    parser = make_parser(__doc__.splitlines()[0], patches=20000, test_patches=700)
    parser.add_argument("--families", nargs="+", default=["zernike-1", "gaussian-1"])
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--shipped", action="store_true", help="the same as --networks shipped")
    parser.add_argument("--figure", type=Path, help="picture of all that --output holds")
    parser.add_argument("--quick", action="store_true", help="few patches and strengths")
    args = parser.parse_args(arguments)
    for family in args.families:
        if family not in FAMILIES:
            parser.error(f"unknown family {family}")
    if args.figure is not None and args.output is None:
        parser.error("--figure draws what --output holds: give both")
    if args.shipped:
        args.networks = ["shipped"]
    if args.quick:
        args.patches, args.test_patches = min(args.patches, 2000), min(args.test_patches, 60)
        args.strengths = [0.0, 0.5]
    return args


def draw_light(images, family, n):
    """Photons expected in blurred patches, `n` of each type that makes up "mix"; and parameters."""
    model = make_psf_model(family)
    clean = draw_test_patches(images, model, n, TYPES, camera=NOISELESS)
    # What has no texture above the usual noise is no test; the same seeds draw the same patches.
    usual = draw_test_patches(images, model, n, TYPES, camera=CAMERA)
    X = np.concatenate([clean[kind][0] for kind in TYPES])
    y = np.concatenate([usual[kind][1] for kind in TYPES])
    return X.clip(0) * (CAMERA.peak_photons / NOISELESS.peak_photons), y


def degrade(light, kind, s):
    """Photograph patches (n, H, W) of so many photons, degraded with strength `s`."""
    rng = np.random.default_rng(round(1000 * s))
    light, gain = light.astype(np.float64), 1.0
    if kind == "exposure":
        light = light * 10 ** (4 * s)
    if kind in ("illumination", "mixed"):
        light = light * (1 - s)
    if kind in ("vignetting", "mixed"):
        y, x = (np.linspace(-1, 1, n) for n in light.shape[1:])
        light = light * (1 - s * (y[:, None] ** 2 + x**2) / 2)
    if kind in ("poisson", "mixed") and s > 0:
        gain = np.maximum(1, light.max((1, 2), keepdims=True) * s**2 / 10)
    grey = gain * rng.poisson(light / gain) + CAMERA.read_noise * rng.standard_normal(light.shape)
    if kind in ("gaussian", "mixed"):
        span = np.ptp(light, axis=(1, 2))[:, None, None]
        grey = grey + s / 5 * span * rng.standard_normal(grey.shape)
    return grey


def degrade_and_read(regressor, light, y, strengths):
    """By kind and strength: R^2, share called textureless, R^2 of the others, R^2 of each type."""
    names = ("r2", "called_invalid", "r2_others", *(f"r2_{kind}" for kind in TYPES))
    curves, start = {name: {} for name in names}, None
    for kind in KINDS:
        rows = []
        for s in strengths:
            if s > 0 or start is None:  # strength 0 is the same for all kinds
                row = read_figures(regressor, degrade(light, kind, s), y)
                start = row if s == 0 else start
            rows.append(row if s > 0 else start)
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            curves[name][kind] = list(column)
    return curves


def read_figures(regressor, X, y):
    """The figures of `degrade_and_read` of one set of patches."""
    model, (p, _, invalid) = regressor.psf_model_, regressor.predict_all(X)[:3]

    def r2(rows):
        left = (~np.isnan(y[rows]).any(1)).sum()  # of few there is no R^2
        return figures(model, y[rows], p[rows], invalid[rows])["r2_mean"] if left > 1 else np.nan

    everywhere = slice(None)
    alarms = figures(model, y, p, invalid)["false_alarms"]
    types = np.split(np.arange(len(y)), len(TYPES))
    return r2(everywhere), alarms, r2(invalid <= 0.5), *(r2(rows) for rows in types)


def print_curves(family, network, strengths, curves):
    print(f"\n{family}, {network}: R^2 by strength (share called textureless, R^2 of the others)")
    print(f"{'':14}" + "".join(f"{s:22.2f}" for s in strengths))
    for kind in KINDS:
        three = ("r2", "called_invalid", "r2_others")
        cells = zip(*(curves[name][kind] for name in three), strict=True)
        print(f"{kind:14}" + "".join(f"{a:8.3f} ({b:.2f}, {c:5.3f})" for a, b, c in cells))
    if family in PUBLISHED:
        start, end = PUBLISHED[family]
        if network == "noiseless":
            end = 0.0
        print(f"published: {start:.2f} at 0, {'below ' * (end == 0.6)}{end:.2f} at 0.5", flush=True)


def draw_figure(results, path):
    """One panel for each family and kind of degradation."""
    import matplotlib.pyplot as plt

    families = [f for f in FAMILIES if any(name.startswith(f + ",") for name in results)]
    figure, axes = plt.subplots(
        len(families),
        len(KINDS),
        figsize=(2.7 * len(KINDS), 2.6 * len(families)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for family, row in zip(families, axes, strict=True):
        for kind, ax in zip(KINDS, row, strict=True):
            for colour, network in enumerate(NETWORKS):
                cell = results.get(f"{family}, {network}")
                if cell is not None:
                    label = network if network == "shipped" else f"trained on {network} patches"
                    r2 = np.clip(cell["r2"][kind], 0, 1)
                    ax.plot(cell["strengths"], r2, "o-", ms=3, color=f"C{colour}", label=label)
            if family in PUBLISHED and kind != "exposure":
                ax.plot([0, 0.5], PUBLISHED[family], "kx", label="published, trained on noisy ones")
            ax.set(title=f"{family}, {kind}", ylim=(-0.05, 1.05))
            ax.title.set_fontsize("medium")
    for ax in axes[-1]:
        ax.set_xlabel("strength")
    for ax in axes[:, 0]:
        ax.set_ylabel("R^2, not below 0")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
