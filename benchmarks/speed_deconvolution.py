"""Seconds and peak memory of a restoration, against other packages in the same run.

    python benchmarks/speed_deconvolution.py [--sizes 256 1024] [--grids 1 13] [--quick]

Every method runs `--iterations` iterations on the same image, in a process of its own, whose peak
memory above that of an idle one is counted. Seconds are processor time, which other programs on
the machine lengthen least, the minimum of `--repeats` rounds through all methods. Sizes and numbers
of PSFs (grid x grid, of a tilted focus) are varied; per tile, the other packages restore each cell
with a margin of half a PSF. "over_bare_ffts" is an iteration over the transforms that it needs, as
torch does them, timed by themselves in the same process. Ours minimises the total variation
besides, and estimates the light from beyond the frame. Of its memory, "spectra_times_image" is what
the spectra of PSFs or modes take.
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
EXTRA = ("spectra_times_image", "iteration", "over_bare_ffts")


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
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the least counts")
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
    best = {}
    for _ in range(1 if args.smoke else args.repeats):
        for name in [name for name in METHODS if name not in best or best[name] is not None]:
            best[name] = merge(best.get(name), attempt(name, size, grid, args))
    rows = []
    for name, figures in best.items():
        if figures is None:
            continue
        rows.append({"size": size, "psfs": grid**2, "method": name} | figures)
        rows[-1]["ratio"] = figures["seconds"] / rows[0]["seconds"]
        print(
            f"{size:7d} {grid**2:5d}  {name:20} {figures['seconds']:8.2f} "
            f"{rows[-1]['ratio']:11.1f}x {figures['megabytes']:9.0f} "
            f"{figures['times_image']:13.1f}",
            *(f"  {key} {figures[key]:.3f}" for key in EXTRA if key in figures),
            flush=True,
        )
    return rows


def attempt(name, size, grid, args):
    """Figures of one method, or None, saying why."""
    if name == "RedLionfish" and not baselines.has_redlionfish():
        print(f"{size:7d} {grid**2:5d}  {name:20} is not installed")
        return None
    task = (name, size, grid, args.iterations, args.threads)
    figures = run(*task) if args.smoke else in_process(run, args.limit, *task)
    if figures is None:
        print(f"{size:7d} {grid**2:5d}  {name:20} not within {args.limit:.0f} s", flush=True)
    return figures


def merge(before, figures):
    """Least seconds and most memory of the rounds."""
    if before is None or figures is None:
        return figures
    return {
        key: (max if key.endswith(("bytes", "image")) else min)(before[key], figures[key])
        for key in figures
    }


def run(name, size, grid, n_iter, threads):
    """Seconds, megabytes and further figures of one method; in a fresh process."""
    torch.set_num_threads(threads)
    image, psfs = problem(size, grid)
    METHODS[name](*problem(64, 1), 1)  # imports and plans are not the iteration's
    before = peak_bytes()
    start = time.process_time()
    operator = METHODS[name](image, psfs, n_iter)
    figures = {"seconds": time.process_time() - start}
    memory = max(peak_bytes() - before, 0)
    figures |= {"megabytes": memory / 2**20, "times_image": memory / image.nbytes}
    if operator is None:
        return figures
    figures["spectra_times_image"] = operator.spectra_bytes / image.nbytes
    return figures | compare_to_ffts(operator, image, n_iter, name)


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
    block = split_blocks(image.shape, psfs.shape[2:])[0]
    local = LocalPSFs.on_cells(psfs, image.shape).crop(RTOL)
    operator = local.operator(block, rtol=RTOL, dtype=torch.float32)
    del local  # what comes with the image is not counted
    richardson_lucy(image, operator, n_iter=n_iter, lambda_tv=LAMBDA, accelerate=accelerate)
    return operator


def compare_to_ffts(operator, image, n_iter, name):
    """Seconds of an iteration, and over those of the FFTs it needs."""
    options = {"lambda_tv": LAMBDA, "accelerate": name == "sklearn_psf"}
    seconds = [
        # the difference is the iterations, without what is done once
        shortest(lambda n=n: richardson_lucy(image, operator, n_iter=n, **options))
        for n in (1, 1 + n_iter)
    ]
    iteration = (seconds[1] - seconds[0]) / n_iter
    return {"iteration": iteration, "over_bare_ffts": iteration / bare_ffts(operator)}


def bare_ffts(operator):
    """Seconds of the FFTs of one forward and one adjoint, each of an array of its own."""
    total = 0.0
    for shape, count in operator.fft_sizes.items():
        fields = torch.rand(count, *shape)

        def transform(fields=fields, shape=shape):
            for field in fields:
                torch.fft.irfft2(torch.fft.rfft2(field), s=shape)

        total += shortest(transform, 5)
    return total


def shortest(function, n=3):
    """Least seconds of `n` calls."""
    times = []
    for _ in range(n):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def plain(image, psfs, n_iter):
    return ours(image, psfs, n_iter, accelerate=False)


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
