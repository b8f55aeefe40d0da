"""What holds of the depth from astigmatism on measured point-spread functions.

    python benchmarks/depth_on_stacks.py [--stacks DIR] [--output FILE]

Every plane of a measured PSF stack (folders `psf_*` with a meta.json) blurs the same textures,
which are photographed and read by `zernike-3`. None of these microscopes has a cylindrical lens:
what is tested is whether the focus that is read grows away from focus on both sides, which is what
a depth needs, and whether the side can be told, which it should not be without a lens. As a check
of the test itself a defocused PSF with a lens is computed at the same depths.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from scipy.signal import fftconvolve
from scipy.stats import spearmanr
from skimage.io import imread

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import make_textures

N_TEXTURES = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stacks", type=Path, help="folder of stacks with a meta.json each")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stacks = {"computed, with a lens": computed_stack()}
    if args.stacks is not None:
        for folder in sorted(args.stacks.glob("psf_*")):
            stacks[folder.name] = measured_stack(folder)
    else:
        print("No --stacks given: only the computed stack is read.")
    textures = make_textures(N_TEXTURES, 256, kind="dead-leaves", random_state=0)
    regressor = PSFParameterRegressor(pretrained="zernike-3").fit(textures)
    rows = {}
    for name, (z, psfs) in stacks.items():
        rows[name] = read(regressor, textures, z, psfs)
        figures = {k: v for k, v in rows[name].items() if k != "planes"}
        print(f"{name}: {figures}")
        for plane in rows[name]["planes"]:
            print("  z {:6.2f}  focus {:5.2f}  cylinder {:5.2f}  signed {:5.2f}".format(*plane))
    if args.output is not None:
        record = describe_run("depth_on_stacks.py")
        record |= {"weights": regressor.weights_id_, "stacks": rows}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def computed_stack():
    focus = np.linspace(-1, 1, 11)
    axis = np.where(focus < 0, 0.3 + np.pi / 2, 0.3)
    parameters = np.stack([abs(focus), np.full(11, 0.4), axis], -1)
    return focus, make_psf_model("zernike-3").psf(parameters)


def measured_stack(folder, largest=25):
    """Depths relative to the sharpest plane and normalised PSFs, centred on their mass."""
    meta = json.loads((folder / "meta.json").read_text())
    planes = np.stack([imread(folder / name).astype(float) for name in meta["planes"]])
    planes = np.clip(planes - np.median(planes, (1, 2), keepdims=True), 0, None)
    centre = np.unravel_index(planes.sum(0).argmax(), planes.shape[1:])
    half = min(*centre, *(n - 1 - c for n, c in zip(planes.shape[1:], centre, strict=True)), 60)
    crop = tuple(slice(c - half, c + half + 1) for c in centre)
    psfs = planes[(slice(None), *crop)]
    psfs = psfs / psfs.sum((1, 2), keepdims=True)
    sharpest = int((psfs**2).sum((1, 2)).argmax())
    step = -(-len(psfs) // largest)
    chosen = np.arange(sharpest % step, len(psfs), step)
    return (chosen - sharpest) * meta["z_step_um"], psfs[chosen]


def read(regressor, textures, z, psfs):
    camera, rows = Camera(peak_photons=1e4, read_noise=2.0), []
    for k, psf in enumerate(psfs):
        blurred = [fftconvolve(t, psf, mode="same").clip(0)[64:192, 64:192] for t in textures]
        patches = np.stack(
            [camera.expose(1e4 * b / b.max(), generator=generator(k)) for b in blurred]
        )
        rows.append(regressor.predict(patches))
    rows = np.array(rows)  # (planes, textures, 3)
    focus, cylinder, axis = np.median(rows[..., 0], 1), np.median(rows[..., 1], 1), rows[..., 2]
    products = rows[..., 0] * rows[..., 1] * np.exp(2j * axis)
    direction = np.angle((products * z[:, None]).sum())
    signed = np.median(rows[..., 0] * np.cos(2 * axis - direction), 1)
    figures = {}
    for side, mask in (("behind", z <= 0), ("before", z >= 0)):
        if mask.sum() > 3:
            figures[f"rank correlation of focus with |z|, {side}"] = round(
                float(spearmanr(abs(z[mask]), focus[mask])[0]), 2
            )
    away = np.abs(z) > 0.2 * np.abs(z).max()
    figures["sides told apart"] = round(
        float(np.mean(np.sign(signed) == np.sign(z), where=away)), 2
    )
    figures["planes"] = np.stack([z, focus, cylinder, signed], -1).round(3).tolist()
    return figures


def generator(seed):
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
