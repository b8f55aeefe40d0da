"""
A real micrograph, and what can be known without the truth
==========================================================

A histological section as the microscope saw it: nothing is simulated, and there is no sharp image
to compare with. What can still be asked is whether the PSF that was read and the image that was
restored agree with the data and with each other:

* Is the blur that was read larger than its own uncertainty?
* Does the restored image, blurred again, give the photograph?
* Does it predict photons that were kept from the restoration, better than without any PSF?
* Is less blur read from the restored image than from the photograph?

Where a second plane of the same field was in focus there is a truth after all, and the restored
image can be put next to it. Such a pair is not shipped; the script takes one as two files::

    python plot_real_defocus.py --pair out_of_focus.png in_focus.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.data import immunohistochemistry

from sklearn_psf import SpatialPSFMapper, TVRLDeconvolver, metrics
from sklearn_psf.io import read_images
from sklearn_psf.operators import Block, LocalPSFs
from sklearn_psf.plotting import PSFMapDisplay, RestorationDisplay

# %%
# The image and its PSFs
# ----------------------
# One colour of the section: every colour has its own wavelength, hence its own PSF.


def load_micrograph(size):
    """Return the green channel, (1, size, size)."""
    image = immunohistochemistry()[:size, :size, 1]
    return image[np.newaxis].astype(np.float32)


def restore(X):
    """Return the map, the restored images and the fitted deconvolver."""
    maps = SpatialPSFMapper(verbose=1).fit(X).transform(X)
    deconvolver = TVRLDeconvolver(random_state=0, verbose=1).fit(maps)
    return maps, deconvolver.transform(maps), deconvolver


# %%
# Four questions
# --------------


def blur_again(maps, restored):
    """Blur a restored image (H, W) by the PSFs of its map; beyond the frame it is reflected."""
    local = LocalPSFs(maps.psfs(0), maps.rows, maps.columns)
    frame = tuple(slice(0, n) for n in restored.shape)
    operator = local.operator(Block(frame, frame))
    light = np.pad(restored, [(n // 2, n // 2) for n in operator.kernel_shape], mode="symmetric")
    return operator.forward(torch.from_numpy(light)).numpy()


def ask(X, maps, restored, deconvolver):
    """Print what the data say of the restoration."""
    focus, std = np.median(maps.parameters), np.median(maps.std)
    print(f"\nRead from the photograph: focus {focus:.3f} +- {std:.3f} waves RMS (medians)")
    inner = (slice(32, -32),) * 2  # what lies beyond the frame is not known
    residual = (X[0] - blur_again(maps, restored[0]))[inner]
    share = residual.std() / X[0][inner].std()
    print(f"Blurred again, it differs from the photograph by {share:.1%} of its contrast, RMS")
    without = TVRLDeconvolver(psf=np.ones((1, 1)), random_state=0).fit(X)
    scores = deconvolver.score(maps), without.score(X)
    print(f"Photons held out: {scores[0]:.4f} nats per pixel, {scores[1]:.4f} without a PSF")
    again = SpatialPSFMapper().fit(restored).transform(restored)
    print(f"Read from the restored image: focus {np.median(again.parameters):.3f} waves RMS")


# %%
# The picture
# -----------


def most_varied(image):
    """Return the slices of the sixteenth of an image that varies most."""
    height, width = (n // 4 for n in image.shape)
    parts = [
        (slice(r * height, (r + 1) * height), slice(c * width, (c + 1) * width))
        for r in range(4)
        for c in range(4)
    ]
    return max(parts, key=lambda part: image[part].std())


def plot(X, restored, maps, sharp=None):
    """Images above, a detail of them and the map below."""
    n_images = 2 if sharp is None else 3
    figure = plt.figure(figsize=(15, 11), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    RestorationDisplay.from_images(X, restored, sharp, ax=upper.subplots(1, n_images))
    axes = lower.subplots(1, 3)
    detail = (0, *most_varied(X[0]))
    low, high = np.quantile(X[detail], [0.001, 0.999])
    for ax, image, name in zip(axes, (X, restored), ("photograph", "restored"), strict=False):
        ax.imshow(image[detail], cmap="gray", vmin=low, vmax=high)
        ax.set(title=f"{name}, detail", xticks=[], yticks=[])
    PSFMapDisplay.from_map(maps, kind="parameters", ax=axes[2])
    return figure


# %%
# Where there is a plane in focus
# -------------------------------
# The two exposures differ in brightness, so the line that fits best brings both to one scale.


def judge(sharp, images):
    """Print SNR and SSIM of images by name against the plane in focus."""
    print(f"\n{'against the plane in focus':30}{'SNR (dB)':>10}{'SSIM':>8}")
    for name, image in images.items():
        slope, intercept = np.polyfit(image.ravel().astype(float), sharp.ravel().astype(float), 1)
        fitted = slope * image + intercept
        print(f"{name:30}{metrics.snr(sharp, fitted):10.2f}{metrics.ssim(sharp, fitted):8.3f}")


# %%
# All together
# ------------


def main(arguments=None):
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Restoration of a real micrograph")
    parser.add_argument("--pair", type=Path, nargs=2, metavar=("BLURRED", "SHARP"))
    parser.add_argument("--size", type=int, default=512, help="crop of the micrograph, pixels")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for results")
    options = parser.parse_args(arguments)
    sharp = None
    if options.pair is None:
        X = load_micrograph(options.size)
    else:
        X, sharp = (read_images(path)[0][:1].astype(np.float32) for path in options.pair)
        offset = min(X.min(), sharp.min())  # the camera's value without light
        X, sharp = X - offset, sharp - offset
    maps, restored, deconvolver = restore(X)
    ask(X, maps, restored, deconvolver)
    if sharp is not None:
        judge(sharp, {"out of focus": X, "restored": restored})
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "real_defocus.png"
    plot(X, restored, maps, sharp).savefig(path, dpi=80)
    print(f"The picture is in {path}")


if __name__ == "__main__":
    main()
