"""How well lambda and the number of iterations are chosen without the sharp image.

    python benchmarks/regularisation_choice.py [--data DIR] [--images N] [--output JSON]

Sharp images that no shipped weights were trained on are tilted, photographed at 10^4, 10^3 and
10^2.5 peak photons, and restored with their true PSFs by each weight and number of iterations. The
loss of each criterion against the best of all is printed, in dB of SNR: ``lambda_tv="auto"`` and
``n_iter="auto"`` (for known PSFs, that is simulated images and photons held out, at the last of the
iterations), the default weight and 40 iterations, the likelihood of one tenth of the photons held
out, the discrepancy (residuals as large as the noise) and the whiteness of the residuals.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from weights_accuracy import held_out_images

from sklearn_psf import TVRLDeconvolver
from sklearn_psf.metrics import snr
from sklearn_psf.operators import LocalPSFs, split_blocks
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.richardson_lucy import poisson_log_likelihood, richardson_lucy
from sklearn_psf.simulation import make_tilted_scene

PEAKS = (1e4, 1e3, 10**2.5)
READ_NOISE = 2.0
STEPS = (10, 20, 30, 40, 60)
SIZE, SPACING = 192, 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--images", type=int, default=10, help="at most so many")
    parser.add_argument("--quick", action="store_true", help="two images")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = held_out_images(args.data, min_size=SIZE)
    losses = {}
    for i, image in enumerate(images[: 2 if args.quick else args.images]):
        for peak in PEAKS:
            for name, loss in judge(image, peak, i).items():
                losses.setdefault(name, []).append(loss)
    print(f"{'':24s} median loss (dB)   within 0.3 dB   worst (dB)")
    rows = {name: summary(np.array(loss)) for name, loss in losses.items()}
    for name, row in rows.items():
        print(f"{name:24s} {row['median']:16.2f} {row['within_0.3_dB']:15.0%} {row['worst']:12.2f}")
    if args.output is not None:
        record = describe_run("regularisation_choice.py") | {"loss_dB": rows}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def summary(loss):
    return {
        "n": len(loss),
        "median": round(float(np.median(loss)), 3),
        "within_0.3_dB": round(float((loss <= 0.3).mean()), 3),
        "worst": round(float(loss.max()), 3),
    }


def judge(image, peak, seed):
    """Loss of each criterion against the best weight and number of iterations, dB."""
    top, left = ((n - SIZE) // 2 for n in image.shape)
    blurred, sharp, parameters = make_tilted_scene(
        image[top : top + SIZE, left : left + SIZE],
        psf_model="zernike-1",
        low=0.2,
        high=1.0,
        camera=Camera(peak_photons=peak, read_noise=READ_NOISE),
        random_state=seed,
    )
    blurred = np.maximum(blurred, 0).astype(np.float32)
    centres = np.arange(SPACING // 2, SIZE, SPACING)
    focus = parameters[np.ix_(centres, centres)].reshape(-1, 1)
    psfs = make_psf_model("zernike-1").psf(focus)
    psfs = psfs.reshape(len(centres), len(centres), *psfs.shape[1:])
    auto = TVRLDeconvolver(psf=psfs, lambda_tv="auto", n_iter="auto", random_state=0)
    auto.fit(blurred[np.newaxis])
    (block,) = split_blocks(blurred.shape, psfs.shape[2:])
    local = LocalPSFs.on_cells(psfs, blurred.shape).crop(1e-3)
    operator = local.operator(block, dtype=torch.float32)
    tables = tabulate(blurred, sharp, operator, auto.lambdas_, np.random.RandomState(seed))
    best = tables.pop("truth")
    chosen = {name: best.flat[np.argmax(table)] for name, table in tables.items()}
    restored = auto.transform(blurred[np.newaxis])[0]
    chosen = {"auto": snr(sharp, restored), "default": default_snr(best)} | chosen
    top = max(best.max(), chosen["auto"])
    return {name: float(top - value) for name, value in chosen.items()}


def default_snr(best):
    """SNR with the default weight, 0.004, and 40 iterations."""
    return best[3, STEPS.index(40)]


def tabulate(blurred, sharp, operator, lambdas, rng):
    """SNR against the truth and criteria without it, (n_lambdas, n_steps); larger is better."""
    tables = {name: np.zeros((len(lambdas), len(STEPS))) for name in
              ("truth", "held-out likelihood", "discrepancy", "whiteness")}  # fmt: skip
    counts = np.rint(blurred).astype(int)
    kept = rng.binomial(counts, 0.9)
    held_out = torch.from_numpy((counts - kept).astype(float))
    for row, weight in enumerate(lambdas):

        def of_all(i, x, row=row):
            if i + 1 in STEPS:
                column = STEPS.index(i + 1)
                tables["truth"][row, column] = snr(sharp, operator.crop(x).numpy())
                expected = operator.forward(x).numpy().clip(1e-3)
                residual = (blurred - expected) / np.sqrt(expected + READ_NOISE**2)
                tables["discrepancy"][row, column] = -abs((residual**2).mean() - 1)
                power = np.abs(np.fft.fft2(residual - residual.mean())) ** 2
                tables["whiteness"][row, column] = -power.var() / power.mean() ** 2

        def of_kept(i, x, row=row):
            if i + 1 in STEPS:
                mean = operator.forward(x).double().clamp(min=0.5) / 9
                likelihood = float(poisson_log_likelihood(held_out, mean))
                tables["held-out likelihood"][row, STEPS.index(i + 1)] = likelihood

        options = {"n_iter": max(STEPS), "lambda_tv": float(weight), "accelerate": True}
        richardson_lucy(blurred, operator, callback=of_all, **options)
        richardson_lucy(kept, operator, callback=of_kept, **options)
    return tables


if __name__ == "__main__":
    main()
