"""
Blind restoration of a tilted sample
====================================

One blurred image and nothing else: no bead, no lens data. A network reads the local point-spread
function (PSF) off the texture of the image, and the map of PSFs drives the deconvolution.

The truth is known here, because the blur is simulated: a histological section that scikit-image
ships is tilted, so that the focus runs away across the field, and seen by a noisy camera. The
script prints how much of the possible gain was reached: the same deconvolution is also given the
true PSFs.

It runs on a file of your own as well, then without a truth to compare with::

    python plot_blind_restoration.py --image my.tif --output results
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage
from sklearn.pipeline import Pipeline

from sklearn_psf import SpatialPSFMapper, TVRLDeconvolver, metrics, simulation
from sklearn_psf.io import read_images, write_images
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.plotting import PSFMapDisplay, RestorationDisplay

# Defocus at the left and at the right border, in waves RMS
FOCUS = (0.2, 1.0)
CAMERA = Camera(peak_photons=1e4, read_noise=2.0)

# %%
# The sample
# ----------
# The focus grows linearly from the left border to the right one. Photon noise and read noise
# follow from the camera.


def simulate(size):
    """Return blurred and sharp image (1, H, W) and the true focus (H, W, 1)."""
    image = skimage.color.rgb2gray(skimage.data.immunohistochemistry())
    top, left = ((length - size) // 2 for length in image.shape)
    image = image[top : top + size, left : left + size]
    blurred, sharp, parameters = simulation.make_tilted_scene(
        image, psf_model="zernike-1", low=FOCUS[0], high=FOCUS[1], camera=CAMERA, random_state=0
    )
    return blurred[np.newaxis], sharp[np.newaxis], parameters


# %%
# The restoration
# ---------------
# Three lines. The mapper brings its own trained network; nothing is calibrated.


def restore(X, optics=None, offset=0.0):
    """Return the restored images and the map of PSFs of images (n, H, W)."""
    mapper = SpatialPSFMapper(optics=optics, verbose=1)
    deconvolver = TVRLDeconvolver(offset=offset, verbose=1)
    pipeline = Pipeline([("psf", mapper), ("deconv", deconvolver)])
    restored = pipeline.fit(X).transform(X)
    return restored, pipeline[:-1].transform(X), pipeline


# %%
# What the true PSFs would give
# -----------------------------
# The same deconvolver, on the same grid of windows, with the PSFs that blurred the image.


def true_map(maps, parameters):
    """Put the true parameters (H, W, 1) at the centres of the windows of `maps`."""
    rows, columns = (np.rint(centres).astype(int) for centres in (maps.rows, maps.columns))
    truth = parameters[np.ix_(rows, columns)][np.newaxis]
    return replace(
        maps,
        parameters=truth,
        std=np.zeros_like(truth),
        invalid=np.zeros_like(maps.invalid),
        model=make_psf_model("zernike-1").settings,
    )


def print_table(sharp, images):
    """Print SNR and SSIM of images by name, and the gain over the first of them."""
    snr = {name: metrics.snr(sharp, image) for name, image in images.items()}
    print(f"\n{'':22}{'SNR (dB)':>10}{'SSIM':>8}{'gain (dB)':>11}")
    before = snr["blurred"]
    for name, image in images.items():
        ssim = metrics.ssim(sharp, image)
        print(f"{name:22}{snr[name]:10.2f}{ssim:8.3f}{snr[name] - before:11.2f}")
    blind, best = (snr[name] - before for name in ("restored, blind", "restored, true PSFs"))
    share = f"{blind / best:.0%}" if best > 0 else "no part"
    print(f"\nBlind restoration reaches {share} of the gain that the true PSFs give.")


# %%
# The picture
# -----------


def plot(blurred, restored, sharp, maps, unit="grey value"):
    """Draw images above; map of parameters, its standard deviations and local PSFs below."""
    n_parameters = len(maps.psf_model.parameter_names)
    n_images = 2 if sharp is None else 3
    ratio = min(max(blurred.shape[1] / blurred.shape[2], 0.3), 2.0)
    heights = np.array([14 / n_images, *[11 / (n_parameters + 1)] * 2]) * ratio + (0.5, 1, 1)
    figure = plt.figure(figsize=(15, heights.sum()), layout="constrained")
    upper, middle, lower = figure.subfigures(3, 1, height_ratios=heights)
    RestorationDisplay.from_images(
        blurred, restored, sharp, unit=unit, ax=upper.subplots(1, n_images, squeeze=False)[0]
    )
    fields = middle.subplots(1, n_parameters + 1, squeeze=False)[0]
    PSFMapDisplay.from_map(maps, kind="parameters", ax=fields[:-1])
    PSFMapDisplay.from_map(maps, kind="psfs", ax=fields[-1])
    fields = lower.subplots(1, n_parameters + 1, squeeze=False)[0]
    PSFMapDisplay.from_map(maps, kind="std", ax=fields[:-1])
    PSFMapDisplay.from_map(maps, kind="invalid", ax=fields[-1])
    return figure


def free_path(folder, stem, suffix):
    """Return the first path that is not taken: stem, stem_1, stem_2, ..."""
    path, count = folder / f"{stem}{suffix}", 0
    while path.exists():
        count += 1
        path = folder / f"{stem}_{count}{suffix}"
    return path


# %%
# All together
# ------------


def run_simulated(size, output):
    """Restore the simulated section, print the figures and draw the picture."""
    blurred, sharp, parameters = simulate(size)
    restored, maps, pipeline = restore(blurred)
    best = pipeline.named_steps["deconv"].transform(true_map(maps, parameters))
    images = {"blurred": blurred, "restored, blind": restored, "restored, true PSFs": best}
    print_table(sharp, images)
    save(plot(blurred, restored, sharp, maps), output, "blind_restoration")


def run_file(path, channel, offset, output):
    """Restore the first image of a file; there is no truth to compare with."""
    images, optics = read_images(path, channel=channel)
    if len(images) > 1:
        print(f"{path} holds {len(images)} images; the first one is restored.")
    X = images[:1]
    print(f"{path}: {X.shape[1]} x {X.shape[2]} pixels, {X.dtype}.")
    restored, maps, _ = restore(X, optics, offset)
    name = Path(path).name.partition(".")[0]
    output.mkdir(parents=True, exist_ok=True)
    target = free_path(output, f"{name}_restored", ".ome.tif")
    write_images(target, restored, optics)
    print(f"\nThe restored image is in {target}")
    save(plot(X, restored, None, maps), output, f"{name}_restored")


def save(figure, output, stem):
    """Write the figure under a name that is not taken."""
    output.mkdir(parents=True, exist_ok=True)
    path = free_path(output, stem, ".png")
    figure.savefig(path, dpi=110)
    print(f"The picture is in {path}")


def main(arguments=None):
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Blind restoration of a tilted sample")
    parser.add_argument("--image", help="an image of your own: TIFF, PNG or JPEG")
    parser.add_argument("--channel", type=int, help="which channel of it, from 0")
    parser.add_argument("--offset", type=float, default=0.0, help="its grey value without light")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for results")
    parser.add_argument(
        "--size", type=int, default=512, help="crop of the simulated sample, pixels"
    )
    options = parser.parse_args(arguments)
    if not 128 <= options.size <= 512:
        parser.error(f"--size must be from 128 to 512, got {options.size}.")
    start = time.perf_counter()
    if options.image is None:
        run_simulated(options.size, options.output)
    else:
        try:
            run_file(options.image, options.channel, options.offset, options.output)
        except (OSError, ValueError) as error:
            sys.exit(f"{options.image} cannot be restored: {error}")
    print(f"Done in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
