"""A real defocused plane, restored blindly, next to the plane of the same field that was in focus.

    python benchmarks/real_pair.py --data DIR [--output FILE] [--picture FILE.png]

`--data` names a folder of pairs, each a folder with one `blurred_*` and one `sharp_*` picture, such
as two planes of a focus series of BBBC006 (Broad Bioimage Benchmark Collection, CC0). The planes
differ in more than blur: in drift, bleaching, and light from elsewhere. So the shift between the
planes, at most `MAX_SHIFT` pixels, is undone, and every picture is brought to the grey values of
the sharp one by the line that fits best.
"""

import argparse
import json
from pathlib import Path

import baselines
import numpy as np
import torch
from record import describe_run
from skimage.io import imread
from skimage.registration import phase_cross_correlation

from sklearn_psf import PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.metrics import snr, ssim

MAX_SHIFT = 8
# iterations that are not accelerated, and weight; the second is the setting of the published table
PLAIN = ((20, 0.004), (20, 0.1), (100, 0.004))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of pairs")
    parser.add_argument("--families", nargs="+", default=["zernike-1", "gaussian-1"])
    parser.add_argument("--binning", type=int, default=2, help="pixels binned to one, each way")
    parser.add_argument("--auto", action="store_true", help="choose weight and iterations")
    parser.add_argument("--smoke", action="store_true", help="few iterations")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help="PNG file to draw")
    args = parser.parse_args(arguments)
    if args.data is None:
        print("real_pair.py needs --data, a folder of pairs; nothing was done.")
        return
    torch.set_num_threads(1)
    results = {}
    for folder in sorted(path for path in args.data.iterdir() if path.is_dir()):
        blurred, sharp = load_pair(folder, args.binning)
        images = restore(blurred, args)
        shift = find_shift(sharp, blurred)
        results[folder.name] = {
            name: judge(sharp, image, shift)
            for name, image in ({"blurred": blurred} | images).items()
        }
        print_table(folder.name, sharp.shape, results[folder.name])
        if args.picture is not None:
            draw(args.picture, {"out of focus": blurred} | images | {"in focus": sharp})
    if not results:
        raise SystemExit(f"{args.data} holds no folder of a pair.")
    if args.output is not None:
        record = describe_run("real_pair.py") | {"results": results}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def load_pair(folder, binning):
    """Both planes, binned, above the camera's offset: the darkest pixel of either."""
    pair = []
    for pattern in ("blurred_*", "sharp_*"):
        image = imread(next(folder.glob(pattern))).astype(np.float32)
        height, width = (n // binning * binning for n in image.shape)
        parts = image[:height, :width].reshape(height // binning, binning, -1, binning)
        pair.append(parts.sum((1, 3)))
    offset = min(image.min() for image in pair)
    return [image - offset for image in pair]


def restore(blurred, args):
    X, images = blurred[np.newaxis], {}
    settings = {"lambda_tv": "auto", "n_iter": "auto"} if args.auto else {}
    if args.smoke:
        settings = {"n_iter": 12}
    for family in args.families:
        maps = SpatialPSFMapper(PSFParameterRegressor(pretrained=family)).fit_transform(X)
        values = maps.parameters[..., 0]
        print(f"{family}: read {values.min():.2f} to {values.max():.2f}, ", end="")
        print(f"{(maps.invalid > 0.5).mean():.0%} of the windows without texture")
        images[f"blind, {family}"] = TVRLDeconvolver(**settings).fit_transform(maps)[0]
        for n_iter, weight in PLAIN:
            plain = TVRLDeconvolver(n_iter=n_iter, lambda_tv=weight, accelerate=False)
            if args.smoke:
                plain.set_params(n_iter=5)
            name = f"blind, {family}, {n_iter} plain, lambda {weight}"
            images[name] = plain.fit_transform(maps)[0]
        psf = maps.psfs(0).mean((0, 1), dtype=float)
        n_iter = 5 if args.smoke else 20
        images[f"scikit-image RL, mean PSF of {family}"] = baselines.richardson_lucy(
            blurred.astype(float), psf, n_iter
        )
    images["blind Richardson-Lucy"] = baselines.blind_richardson_lucy(
        blurred, n_iter=1 if args.smoke else 10
    )
    images["sharpening"] = baselines.sharpening(blurred)
    return images


def find_shift(sharp, blurred):
    shift = phase_cross_correlation(sharp, blurred, normalization=None)[0]
    return np.clip(shift, -MAX_SHIFT, MAX_SHIFT).astype(int)


def judge(sharp, image, shift):
    """SNR in dB, SSIM and correlation after the shift and by the line that fits best."""
    moved = np.roll(image, shift, (0, 1))
    inner = (slice(MAX_SHIFT, -MAX_SHIFT),) * 2  # what the roll brought round is left out
    x, y = sharp[inner].astype(float), moved[inner].astype(float)
    slope, intercept = np.polyfit(y.ravel(), x.ravel(), 1)
    fitted = slope * y + intercept
    return {
        "snr": snr(x, fitted),
        "ssim": ssim(x, fitted),
        "correlation": float(np.corrcoef(x.ravel(), y.ravel())[0, 1]),
    }


def print_table(name, shape, rows):
    print(f"\n{name}, {shape[0]} x {shape[1]} pixels, against the plane in focus")
    print(f"{'':42}{'SNR, dB':>9}{'gain':>7}{'SSIM':>8}{'correlation':>13}")
    for method, row in rows.items():
        gain = row["snr"] - rows["blurred"]["snr"]
        print(
            f"{method:42}{row['snr']:9.2f}{gain:+7.2f}{row['ssim']:8.3f}{row['correlation']:13.3f}"
        )


def draw(path, images):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, -(-len(images) // 3), figsize=(18, 11), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, (name, image) in zip(axes.flat, images.items(), strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=np.quantile(image, 0.998))
        ax.set_title(name)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
