"""Seconds and peak memory of a restoration, against other packages in the same run.

    python benchmarks/speed_deconvolution.py [--sizes 256 1024] [--grids 1 13] [--quick]

"rows": every method runs `--iterations` iterations on the same image, blurred by the PSFs and
photographed, in a process of its own, whose peak memory above that of an idle one is counted.
Seconds are processor time, which other programs on the machine lengthen least, the minimum of
`--repeats` rounds through all methods; "decibel" is the SNR of the result against the truth. Sizes
and numbers of PSFs (grid x grid, of a focus that grows along the columns, or obliquely) are varied;
per tile, the other packages restore each cell with a margin of half a PSF. "over_bare_ffts" is an
iteration over the transforms that it needs, as torch does them, timed by themselves in the same
process. Ours minimises the total variation besides, and estimates the light from beyond the frame.
Of its memory, "spectra_times_image" is what the spectra of PSFs or modes take. "used_times_image"
is the peak of a second process, whose allocator gives freed arrays back at once: what is in use,
without the holes that the C library keeps between arrays by default. "RedLionfish, one
plane" is its fastest call, which leaves the PSF uncentred and restores nothing, see `baselines`.

"same_quality": the seconds of scikit-image for as few iterations as come within 0.1 dB of the best
that it reaches in 100, and those of ours for as few as come as far; a different question.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import baselines
import numpy as np
import torch
from record import describe_run

from sklearn_psf.metrics import snr
from sklearn_psf.operators import LocalPSFs, split_blocks
from sklearn_psf.optics import make_psf_model
from sklearn_psf.richardson_lucy import richardson_lucy
from sklearn_psf.simulation import make_textures

FOCUS = (0.2, 1.0)
RTOL = 1e-3
LAMBDA = 4e-3
EXTRA = ("used_times_image", "spectra_times_image", "iteration", "over_bare_ffts")
MOST_ITERATIONS, TOLERANCE = 100, 0.1


def main(arguments=None):
    args = parse_arguments(arguments)
    record = describe_run("speed_deconvolution.py") | {"rows": [], "same_quality": []}
    print("   size  PSFs  tilt     method                 seconds   times ours   peak MB", end="")
    print("   times image   decibel")
    for size in args.sizes:
        for grid in args.grids:
            for tilt in args.tilts if grid > 1 else ["none"]:
                with tempfile.TemporaryDirectory() as folder:
                    case = {"size": size, "psfs": grid**2, "tilt": tilt}
                    path = save_problem(Path(folder) / "problem.npz", size, grid, tilt)
                    record["rows"] += compare(case, path, args)
                    record["same_quality"].append(case | same_quality(path, args))
    if args.output is not None:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--grids", type=int, nargs="+", default=[1, 2, 5, 13])
    parser.add_argument("--tilts", nargs="+", default=["columns", "oblique"])
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
    args.most = MOST_ITERATIONS
    if args.quick:
        args.sizes, args.grids = [256, 512], [1, 5]
    if args.smoke:
        args.sizes, args.grids, args.iterations, args.most = [128], [1, 2], 1, 2
    return args


def compare(case, path, args):
    """Run every method on one image; seconds, peak memory and ratios to ours."""
    best = {}
    for _ in range(1 if args.smoke else args.repeats):
        for name in OBLIQUE if case["tilt"] == "oblique" else METHODS:
            if name in best and best[name] is None:
                continue
            best[name] = merge(best.get(name), attempt(name, path, args.iterations, args))
    rows = []
    for name, figures in best.items():
        if figures is None:
            continue
        with giving_memory_back():
            few = attempt(name, path, min(2, args.iterations), args)
        if few is not None:
            figures["used_times_image"] = few["times_image"]
        rows.append(case | {"method": name} | figures)
        rows[-1]["ratio"] = figures["seconds"] / rows[0]["seconds"]
        print(
            f"{case['size']:7d} {case['psfs']:5d}  {case['tilt']:8} {name:22} "
            f"{figures['seconds']:7.2f} {rows[-1]['ratio']:11.1f}x {figures['megabytes']:9.0f} "
            f"{figures['times_image']:13.1f} {figures['decibel']:9.2f}",
            *(f"  {key} {figures[key]:.3f}" for key in EXTRA if key in figures),
            flush=True,
        )
    return rows


def attempt(name, path, n_iter, args):
    """Figures of one method, or None, saying why."""
    if name.startswith("RedLionfish") and not baselines.has_redlionfish():
        print(f"{name} is not installed")
        return None
    task = (name, path, n_iter, args.threads)
    figures = run(*task) if args.smoke else in_process(run, args.limit, *task)
    if figures is None:
        print(f"{name} not within {args.limit:.0f} s", flush=True)
    return figures


@contextmanager
def giving_memory_back():
    """Start processes whose C library (glibc) returns arrays as soon as they are freed."""
    name = "MALLOC_MMAP_THRESHOLD_"
    before = os.environ.get(name)
    os.environ[name] = str(2**17)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def merge(before, figures):
    """Least seconds and most memory of the rounds."""
    if before is None or figures is None:
        return figures
    return {
        key: (max if key.endswith(("bytes", "image")) else min)(before[key], figures[key])
        for key in figures
    }


def same_quality(path, args):
    """Iterations and seconds until results are as good as the best of scikit-image, but 0.1 dB."""

    def theirs(n):
        return attempt("scikit-image", path, n, args)

    tried = {n: theirs(n) for n in sorted({-(-args.most * k // 5) for k in range(1, 6)})}
    if None in tried.values():
        return {}
    target = max(figures["decibel"] for figures in tried.values()) - TOLERANCE
    high = min(n for n in tried if tried[n]["decibel"] >= target)
    low = max((n for n in tried if n < high), default=0)
    while high - low > 1:  # the SNR rises up to its best
        middle = (low + high) // 2
        tried[middle] = theirs(middle)
        low, high = (low, middle) if tried[middle]["decibel"] >= target else (middle, high)
    task = (path, target, args.most, args.threads)
    n_iter = (count_ours if args.smoke else in_process_unlimited)(*task)
    result = {"decibel_to_reach": target, "scikit-image": {"iterations": high} | tried[high]}
    if n_iter is not None:
        rounds = [attempt("sklearn_psf", path, n_iter, args) for _ in range(args.repeats)]
        ours = min(rounds, key=lambda figures: figures["seconds"])
        result["sklearn_psf"] = {"iterations": n_iter} | ours
        result["ratio"] = tried[high]["seconds"] / ours["seconds"]
    print("same quality:", json.dumps(result), flush=True)
    return result


def count_ours(path, target, most, threads):
    """Fewest accelerated iterations that reach an SNR, or None."""
    torch.set_num_threads(threads)
    image, psfs, sharp = load_problem(path)
    reached = []

    def check(i, field):
        if not reached and decibel(sharp, operator.crop(field).numpy()) >= target:
            reached.append(i + 1)

    operator = make_operator(image, psfs)
    options = {"lambda_tv": LAMBDA, "accelerate": True, "callback": check}
    richardson_lucy(image, operator, n_iter=most, **options)
    return reached[0] if reached else None


def run(name, path, n_iter, threads):
    """Seconds, megabytes and further figures of one method; in a fresh process."""
    torch.set_num_threads(threads)
    image, psfs, sharp = load_problem(path)
    np.ones(2**21)  # once freed, the C library keeps memory instead of asking anew each time
    METHODS[name](image[:256, :256].copy(), psfs[:2, :2].copy(), 1)  # imports and plans
    before = reset_peak()
    start = time.process_time()
    restored, operator = METHODS[name](image, psfs, n_iter)
    figures = {"seconds": time.process_time() - start}
    memory = max(peak_bytes() - before, 0)
    figures |= {"megabytes": memory / 2**20, "times_image": memory / image.nbytes}
    figures["decibel"] = decibel(sharp, restored)
    if operator is None:
        return figures
    figures["spectra_times_image"] = operator.spectra_bytes / image.nbytes
    return figures | compare_to_ffts(operator, image, n_iter, name)


def decibel(sharp, restored):
    return snr(sharp[np.newaxis], np.asarray(restored, np.float32)[np.newaxis])


def save_problem(path, size, grid, tilt):
    """Write an image of Poisson counts, its PSFs of 127 x 127, and the sharp image."""
    along = np.linspace(0, 1, grid) if grid > 1 else np.array([0.5])
    share = (along[:, np.newaxis] + along) / 2 if tilt == "oblique" else np.tile(along, (grid, 1))
    focus = FOCUS[0] + (FOCUS[1] - FOCUS[0]) * share.reshape(-1, 1)
    psfs = make_psf_model("zernike-1").psf(focus.astype(np.float32))
    psfs = psfs.reshape(grid, grid, *psfs.shape[1:])
    local = LocalPSFs.on_cells(psfs, (size, size))
    block = split_blocks((size, size), psfs.shape[2:])[0]
    blur = local.operator(block, method="tiles", dtype=torch.float32)  # exact
    piece = make_textures(1, size=512, kind="cells", random_state=0)[0]
    repeats = -(-blur.field_shape[0] // len(piece))
    field = 1e3 * np.tile(piece, (repeats, repeats))[: blur.field_shape[0], : blur.field_shape[1]]
    field = torch.as_tensor(field + 10, dtype=torch.float32)
    image = np.random.default_rng(0).poisson(blur.forward(field).clamp_(min=0).numpy())
    sharp = blur.crop(field).numpy()
    np.savez(path, image=image.astype(np.float32), psfs=psfs, sharp=sharp)
    return path


def load_problem(path):
    with np.load(path) as arrays:
        return arrays["image"], arrays["psfs"], arrays["sharp"]


def make_operator(image, psfs):
    block = split_blocks(image.shape, psfs.shape[2:])[0]
    local = LocalPSFs.on_cells(psfs, image.shape).crop(RTOL)
    return local.operator(block, rtol=RTOL, dtype=torch.float32)


def ours(image, psfs, n_iter, accelerate=True):
    operator = make_operator(image, psfs)
    options = {"lambda_tv": LAMBDA, "accelerate": accelerate}
    return operator.crop(richardson_lucy(image, operator, n_iter=n_iter, **options)), operator


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
    return sum(
        time_transforms(shape, count, *pair)
        for sizes, *pair in (
            (operator.fft_sizes, torch.fft.rfft2, lambda f, s: torch.fft.irfft2(f, s=s)),
            (operator.real_line_ffts, rfft_columns, irfft_columns),
            (operator.complex_line_ffts, torch.fft.fft, lambda f, s: torch.fft.ifft(f)),
        )
        for shape, count in sizes.items()
    )


def time_transforms(shape, count, transform, inverse):
    """Seconds of as many transforms there and back."""
    dtype = torch.complex64 if transform is torch.fft.fft else torch.float32
    fields = torch.rand(count, *shape, dtype=dtype)

    def there_and_back():
        for field in fields:
            inverse(transform(field), shape)

    return shortest(there_and_back, 5)


def rfft_columns(field):
    return torch.fft.rfft(field, dim=-2)


def irfft_columns(field, shape):
    return torch.fft.irfft(field, n=shape[0], dim=-2)


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
            return method(image, psfs[0, 0], **options), None
        return baselines.per_tile(method, image, psfs, **options), None

    return restore


METHODS = {
    "sklearn_psf": ours,
    "plain": plain,
    "scikit-image": others(baselines.richardson_lucy),
    "RedLionfish": others(baselines.redlionfish),
    "RedLionfish, one plane": others(baselines.redlionfish, planes=1),
    "unsupervised Wiener": others(baselines.unsupervised_wiener, n_iter=False),
}


# The others take as long for any PSFs.
OBLIQUE = ("sklearn_psf", "plain", "scikit-image")


def reset_peak():
    """Give free memory back and forget the peak so far, where the system can; return what is."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        pass
    return peak_bytes()


def peak_bytes():
    """Peak memory of this process, since `reset_peak` where the system counts anew."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
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


def in_process_unlimited(*args):
    return in_process(count_ours, None, *args)


if __name__ == "__main__":
    main()
