"""How fast the PSF is read, and how much of the machine that takes.

    python benchmarks/speed_regression.py [--threads 2] [--repeats 5] [--quick] [--output FILE]

Times are the least of `--repeats`, all tasks and the peak taken in turns, on the CPU and on a GPU
where there is one:

* an image of 1024 x 1024 pixels through `SpatialPSFMapper`, 64 PSFs (8 x 8) and 169 (13 x 13);
* reading 64 patches, drawing 64 of a training (`PatchStream`), and a training step on 64.

"CPU" is processor time: on one thread, about what the same task takes when the machine has nothing
else to do; on several it also counts their waiting for each other.

The peak is what a product of two square matrices reaches in the same run. Work is counted in
floating-point operations: those of matrix products and convolutions as torch counts them, and
2.5 n log2 n for the real FFT of n points. The fraction of the peak says how much a faster
implementation could gain at most; memory, sparse products and FFTs never reach it. It is the peak
of 32 bits, while a training step computes partly in 16.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from record import describe_run
from torch.utils.flop_counter import FlopCounterMode
from weights_accuracy import FAMILIES

from sklearn_psf import PSFParameterRegressor, SpatialPSFMapper
from sklearn_psf.networks import build_network
from sklearn_psf.networks.training import PSFLoss
from sklearn_psf.simulation import PatchStream, make_textures

PUBLISHED = "5.9 ms for 64 PSFs of a 1024 x 1024 image on a GTX 1080"
TARGET = 150.0  # ms for 64 PSFs on two CPU cores
STRIDES = {64: 128, 169: 74}  # number of PSFs of 1024 x 1024 pixels: stride of the windows
BATCH, MATRIX = 64, 1024


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    rows = []
    for device in devices:
        rows += measure(device, args)
        print_rows(rows[-1]["device"], [row for row in rows if row["device"] == device])
    if args.output is not None:
        record = describe_run("speed_regression.py") | {"published": PUBLISHED, "rows": rows}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="zernike-1", choices=FAMILIES)
    parser.add_argument("--size", type=int, default=1024, help="height and width of the image")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    if args.quick:
        args.repeats = min(args.repeats, 2)
    return args


def measure(device, args):
    """Least time of every task, taken in turns, and its work."""
    tasks = make_tasks(device, args)
    seconds, busy = (dict.fromkeys(tasks, math.inf) for _ in range(2))
    for task, _, _ in tasks.values():  # plans and caches are not part of it
        task()
    for _ in range(args.repeats):
        for name, (task, _, _) in tasks.items():
            wait(device)
            start, start_busy = time.perf_counter(), time.process_time()
            task()
            wait(device)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            busy[name] = min(busy[name], time.process_time() - start_busy)
    # on a busy machine the processor's time says more; of several threads it counts their waiting
    used = busy if device == "cpu" and args.threads == 1 else seconds
    peak = tasks["peak"][2] / used["peak"]
    return [
        {
            "device": device,
            "task": name,
            "ms": 1e3 * seconds[name],
            "cpu_ms": 1e3 * busy[name],
            "patches_per_second": n / seconds[name] if n else None,
            "gigaflops": work / 1e9,
            "fraction_of_peak": work / used[name] / peak,
        }
        for name, (_, n, work) in tasks.items()
    ]


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def make_tasks(device, args):
    """Name: function to time, patches that it handles, floating-point operations."""
    image = make_textures(1, size=args.size, kind="cells", random_state=0)
    regressor = PSFParameterRegressor(pretrained=args.family, device=device).fit(image)
    model, patch_size = regressor.psf_model_, regressor.patch_size_
    stream = PatchStream(
        list(make_textures(8, size=384, random_state=0)),
        psf_model=model,
        batch_size=BATCH,
        device=device,
        random_state=0,
    )
    X, y = stream.draw()
    network = build_network("compact", model.n_encoded, seed=0, mixed_precision=True)
    step = TrainingStep(network.to(device), X, model.encode(y))
    a = torch.rand(MATRIX, MATRIX, device=device)
    patches = X.cpu().numpy()
    spectra = BATCH * spectrum_flops(patch_size)
    reading, training = (
        count_flops(task) + spectra for task in (lambda: regressor.predict_all(patches), step)
    )
    tasks = {"peak": (lambda: a @ a, None, 2 * MATRIX**3)}
    for n, stride in STRIDES.items():
        windows = ((args.size - patch_size) // stride + 1) ** 2
        mapper = SpatialPSFMapper(regressor, stride=stride).fit(image)
        name = f"{windows} PSFs of an image"
        tasks[name] = (lambda m=mapper: m.transform(image), windows, reading * windows / BATCH)
        if args.size == 1024:
            assert windows == n
    return tasks | {
        "read 64 patches": (lambda: regressor.predict_all(patches), BATCH, reading),
        "draw 64 patches": (stream.draw, BATCH, drawing_flops(stream, patch_size, model.size)),
        "train on 64 patches": (step, BATCH, training),
    }


class TrainingStep:
    """One step of AdamW on the same batch."""

    def __init__(self, network, X, targets):
        self.network, self.X, self.targets = network.train(), X, targets
        self.loss, self.optimizer = PSFLoss(), torch.optim.AdamW(network.parameters(), lr=1e-4)

    def __call__(self):
        """Forward, backward, step."""
        self.optimizer.zero_grad()
        self.loss(self.network(self.X), self.targets).backward()
        self.optimizer.step()


def count_flops(task):
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mm: mm_flops}) as counter:
        task()
    return counter.get_total_flops()


def mm_flops(a, b, *_, **__):
    """Of a matrix product, of which the counter takes a sparse factor for a dense one."""
    elements = a.shape[0] * a.shape[1] if a.layout == torch.strided else a._nnz()
    return 2 * elements * b.shape[1]


mm_flops._get_raw = True  # the counter then passes tensors instead of shapes


def fft_flops(size):
    """Of the real FFT of an image of size x size pixels."""
    return 2.5 * size**2 * math.log2(size**2)


def spectrum_flops(patch_size):
    """Of the transforms of a polar spectrum: one, two inverse, and two padded ones."""
    return 3 * fft_flops(patch_size) + fft_flops(2 * patch_size) + fft_flops(patch_size)


def drawing_flops(stream, patch_size, psf_size):
    """Of the transforms of a draw: fields, kernels and products; fresh PSFs are left out."""
    size = max(patch_size + 2 * stream.margin, psf_size)
    return (2 * BATCH + math.ceil(BATCH / stream.reuse)) * fft_flops(size)


def print_rows(device, rows):
    print(f"\n{device}, {torch.get_num_threads()} threads. Published: {PUBLISHED}")
    print(f"{'':24}{'ms':>9}{'CPU ms':>9}{'patches/s':>11}{'GFLOP':>9}{'of the peak':>13}")
    for row in rows:
        rate = "" if row["patches_per_second"] is None else f"{row['patches_per_second']:.0f}"
        print(
            f"{row['task']:24}{row['ms']:9.1f}{row['cpu_ms']:9.1f}{rate:>11}{row['gigaflops']:9.2f}"
            f"{row['fraction_of_peak']:13.1%}"
        )
    if device == "cpu":
        print(f"target on two cores: 64 PSFs within {TARGET:.0f} ms", flush=True)


if __name__ == "__main__":
    main()
