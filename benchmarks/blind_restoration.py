"""Blind restoration of tilted samples against restoration by the true PSFs, image by image.

    python benchmarks/blind_restoration.py [--data DIR] [--images N] [--regressor zernike-1]
                                           [--output JSON]
    python benchmarks/blind_restoration.py --picture doc/_static/before_after.png

Sharp images that the shipped weights were not trained on (the test repositories of
`weights_accuracy` in `--data`, else scikit-image's own) are tilted from 0.2 to 1 wave RMS of
defocus, photographed at 10^4 peak photons, restored by the default Pipeline, and again with the
true PSFs on the same grid. `--picture` draws the simulated section of `make demo` instead, as the
README shows it.
"""

import argparse
import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from weights_accuracy import CAMERA, held_out_images

from sklearn_psf import PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.metrics import snr, ssim
from sklearn_psf.optics import make_psf_model
from sklearn_psf.plotting import RestorationDisplay
from sklearn_psf.simulation import make_tilted_scene

FOCUS = (0.2, 1.0)
SIZE = 384
DEMO = Path(__file__).parents[1] / "examples" / "restoration" / "plot_blind_restoration.py"
COLUMNS = ("blurred dB", "blind gain dB", "true gain dB", "share", "focus RMS error", "SSIM gain")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--images", type=int, default=8, help="at most so many")
    parser.add_argument("--regressor", default="zernike-1", help="pretrained weights")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help="PNG file to draw; nothing else is done")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.picture is not None:
        return draw_demo(args.picture)
    images = held_out_images(args.data, min_size=256)[: args.images]
    rows = []
    print("   ".join(COLUMNS))
    for i, image in enumerate(images):
        rows.append(restore(image, i, args.regressor))
        print("{:10.2f} {:15.2f} {:14.2f} {:7.0%} {:17.3f} {:11.3f}".format(*rows[-1]), flush=True)
    blind, true = np.mean(rows, 0)[1:3]
    print(f"mean gain: blind {blind:.2f} dB, true PSFs {true:.2f} dB, share {blind / true:.0%}")
    if args.output is not None:
        record = describe_run("blind_restoration.py")
        record |= {"blind": blind, "true": true, "columns": COLUMNS, "rows": rows}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def restore(image, seed, weights):
    top, left = (max(0, (n - SIZE) // 2) for n in image.shape)
    image = image[top : top + SIZE, left : left + SIZE]
    blurred, sharp, parameters = make_tilted_scene(
        image, psf_model="zernike-1", low=FOCUS[0], high=FOCUS[1], camera=CAMERA, random_state=seed
    )
    mapper = SpatialPSFMapper(PSFParameterRegressor(pretrained=weights))
    maps = mapper.fit_transform(blurred[np.newaxis])
    truth = true_map(maps, parameters)
    deconvolver = TVRLDeconvolver().fit(maps)
    blind, best = (deconvolver.transform(m)[0] for m in (maps, truth))
    before = snr(sharp, blurred)
    gains = [snr(sharp, restored) - before for restored in (blind, best)]
    error = maps.parameters[..., 0] - truth.parameters[..., 0]
    similarity = ssim(sharp, blind) - ssim(sharp, blurred)
    figures = [before, *gains, gains[0] / gains[1], np.sqrt((error**2).mean()), similarity]
    return [float(figure) for figure in figures]


def draw_demo(path):
    """Blurred section of the demo, the blind restoration, and the truth."""
    demo = runpy.run_path(str(DEMO))
    blurred, sharp, _ = demo["simulate"](512)
    restored = demo["restore"](blurred)[0]
    images = {f"blurred and noisy: {snr(sharp, blurred):.1f} dB": blurred[0]}
    images |= {f"restored, blind: {snr(sharp, restored):.1f} dB": restored[0], "truth": sharp[0]}
    display = RestorationDisplay(images, unit="photo-electrons").plot()
    display.figure_.set_size_inches(12.6, 4.2)
    display.figure_.savefig(path, dpi=80)


def true_map(maps, parameters):
    rows, columns = (np.rint(centres).astype(int) for centres in (maps.rows, maps.columns))
    focus = parameters[np.ix_(rows, columns)][np.newaxis]
    settings = make_psf_model("zernike-1").settings
    return replace(maps, parameters=focus, std=np.zeros_like(focus), model=settings)


if __name__ == "__main__":
    main()
