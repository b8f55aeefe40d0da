"""Seconds and peak memory of a restoration, against other packages in the same run.

    python benchmarks/speed_deconvolution.py [--sizes 256 1024] [--grids 1 13] [--quick]

Every method runs `--iterations` iterations on the same image, in a process of its own, whose peak
memory above that of an idle one is counted. Sizes and numbers of PSFs (grid x grid, of a tilted
focus) are varied; per tile, the other packages restore each cell with a margin of half a PSF.
"bare FFTs" is what the transforms of one iteration cost by themselves, timed in the same process.
Ours minimises the total variation besides, and estimates the light from beyond the frame.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import baselines
import numpy as np
import torch
from record import describe_run

from sklearn_psf.operators import LocalPSFs, split_blocks
from sklearn_psf.optics import make_psf_model
from sklearn_psf.richardson_lucy import richardson_lucy
from sklearn_psf.simulation import make_textures

FOCUS = (0.2, 1.0)
RTOL = 1e-3
LAMBDA = 4e-3


def main(arguments=None):
    args = parse_arguments(arguments)
    rows = []
    print("   size  PSFs  method               seconds   times ours   peak MB   times image")
    for size in args.sizes:
        for grid in args.grids:
            rows += compare(size, grid, args)
    if args.output is not None:
        record = describe_run("speed_deconvolution.py") | {"rows": rows}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--grids", type=int, nargs="+", default=[1, 2, 5, 13])
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds until one is given up")
    parser.add_argument("--quick", action="store_true", help="256 and 512 pixels, 1 and 25 PSFs")
    parser.add_argument(
        "--smoke", action="store_true", help="128 pixels, one iteration, in this process"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    if args.quick:
        args.sizes, args.grids = [256, 512], [1, 5]
    if args.smoke:
        args.sizes, args.grids, args.iterations = [128], [1, 2], 1
    return args


def compare(size, grid, args):
    """Run every method on one image; seconds, peak memory and ratios to ours."""
    rows, ours = [], None
    for name in METHODS:
        if name == "RedLionfish" and not baselines.has_redlionfish():
            print(f"{size:7d} {grid**2:5d}  {name:20} is not installed")
            continue
        task = (name, size, grid, args.iterations, args.threads)
        measured = run(*task) if args.smoke else in_process(run, args.limit, *task)
        if measured is None:
            print(f"{size:7d} {grid**2:5d}  {name:20} not within {args.limit:.0f} s", flush=True)
            continue
        seconds, memory, more = measured
        ours = seconds if ours is None else ours
        row = {"size": size, "psfs": grid**2, "method": name, "seconds": seconds}
        row |= {"ratio": seconds / ours, "megabytes": memory / 2**20} | more
        row["times_image"] = memory / (4 * size**2)
        rows.append(row)
        print(
            f"{size:7d} {grid**2:5d}  {name:20} {seconds:8.2f} {row['ratio']:11.1f}x "
            f"{row['megabytes']:9.0f} {row['times_image']:13.1f}",
            *(f"  {key} {value:.3f}" for key, value in more.items()),
            flush=True,
        )
    return rows


def run(name, size, grid, n_iter, threads):
    """Seconds, bytes and further figures of one method; in a fresh process."""
    torch.set_num_threads(threads)
    image, psfs = problem(size, grid)
    METHODS[name](*problem(64, 1), 1)  # imports and plans are not the iteration's
    before = peak_bytes()
    start = time.perf_counter()
    operator = METHODS[name](image, psfs, n_iter)
    seconds = time.perf_counter() - start
    memory = max(peak_bytes() - before, 0)
    more = {} if operator is None else compare_to_ffts(operator, image, n_iter)
    return seconds, memory, more


def problem(size, grid):
    """An image of Poisson counts and PSFs of 127 x 127 whose focus grows along the columns."""
    piece = make_textures(1, size=min(size, 512), kind="cells", random_state=0)[0]
    repeats = -(-size // len(piece))
    mean = 1e3 * np.tile(piece, (repeats, repeats))[:size, :size] + 10
    image = np.random.default_rng(0).poisson(mean).astype(np.float32)
    focus = np.linspace(*FOCUS, grid) if grid > 1 else np.array([np.mean(FOCUS)])
    psfs = make_psf_model("zernike-1").psf(focus[:, np.newaxis].astype(np.float32))
    return image, np.broadcast_to(psfs, (grid, *psfs.shape))


def ours(image, psfs, n_iter, accelerate=True):
    local = LocalPSFs.on_cells(psfs, image.shape).crop(RTOL)
    block = split_blocks(image.shape, local.psfs.shape[2:])[0]
    operator = local.operator(block, rtol=RTOL, dtype=torch.float32)
    richardson_lucy(image, operator, n_iter=n_iter, lambda_tv=LAMBDA, accelerate=accelerate)
    return operator


def compare_to_ffts(operator, image, n_iter):
    """Seconds of an accelerated iteration, and over those of the FFTs it needs."""
    seconds = []
    for n in (1, 1 + n_iter):  # the difference is the iterations, without what is done once
        start = time.perf_counter()
        richardson_lucy(image, operator, n_iter=n, lambda_tv=LAMBDA, accelerate=True)
        seconds.append(time.perf_counter() - start)
    iteration = (seconds[1] - seconds[0]) / n_iter
    bare = 2 * operator.n_ffts * seconds_per_fft(operator)
    return {"iteration": iteration, "over_bare_ffts": iteration / bare}


def plain(image, psfs, n_iter):
    return ours(image, psfs, n_iter, accelerate=False)


def seconds_per_fft(operator, n=5):
    """Median over `n` pairs of a real FFT and its inverse, of the size that the operator uses."""
    shape = operator._fft_shape
    field = torch.rand(shape)
    times = []
    for _ in range(n):
        start = time.perf_counter()
        torch.fft.irfft2(torch.fft.rfft2(field), s=shape)
        times.append((time.perf_counter() - start) / 2)
    return float(np.median(times))


def others(method, **settings):
    """A method of another package, on the one PSF or per tile."""

    def restore(image, psfs, n_iter):
        options = settings | ({"n_iter": n_iter} if settings.get("n_iter", True) else {})
        options = {key: value for key, value in options.items() if value is not False}
        if psfs.shape[:2] == (1, 1):
            method(image, psfs[0, 0], **options)
        else:
            baselines.per_tile(method, image, psfs, **options)

    return restore


METHODS = {
    "sklearn_psf": ours,
    "plain": plain,
    "scikit-image": others(baselines.richardson_lucy),
    "RedLionfish": others(baselines.redlionfish, planes=1),
    "unsupervised Wiener": others(baselines.unsupervised_wiener, n_iter=False),
}


def peak_bytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def in_process(function, limit, *args):
    """Call a function in a fresh process; None if it takes longer than the limit."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:  # leaving the block ends the process
        try:
            return pool.apply_async(function, args).get(timeout=limit)
        except multiprocessing.TimeoutError:
            return None


if __name__ == "__main__":
    main()
