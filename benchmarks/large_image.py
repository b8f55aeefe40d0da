"""Map and restore an image that need not fit into memory, with the memory it takes.

    python benchmarks/large_image.py [--size 16384] [--workers 2] [--quick]

A uint16 image (size x size) of procedural texture is blurred strip by strip by a focus that grows
along the rows and written to a zarr array; then mapped, restored and written block by block. The
peak memory is that of the processes that work on the blocks, above what they need to start.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr
from distributed import Client, LocalCluster
from record import describe_run

from sklearn_psf import PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.integrations.dask import map_psfs, restore, write_zarr
from sklearn_psf.optics import Camera
from sklearn_psf.simulation import make_scene, make_textures

FOCUS = (0.2, 0.8)
STRIP = 512


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source = make_image(Path(folder) / "blurred.zarr", args.size)
        if args.workers == 0:
            record = measure(source, Path(folder), args, own_peak)
        else:
            cluster = LocalCluster(
                n_workers=args.workers, threads_per_worker=1, dashboard_address=":0"
            )
            with cluster, Client(cluster) as client:
                record = measure(source, Path(folder), args, lambda: workers_peak(client))
    print(json.dumps(record, indent=1))
    print(
        f"{args.size} x {args.size} restored in {record['restore_seconds']:.0f} s after "
        f"{record['map_seconds']:.0f} s of reading; peak memory {record['peak_megabytes']:.0f} MB, "
        f"{record['times_image']:.1f} times the image as float32"
    )
    if args.output is not None:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, help="16384 takes an hour")
    parser.add_argument("--chunk-size", type=int, default=1024)
    parser.add_argument("--n-iter", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="processes; 0: threads of this one")
    parser.add_argument("--folder", type=Path, help="where the arrays are kept meanwhile")
    parser.add_argument("--quick", action="store_true", help="1536 pixels, ten iterations")
    parser.add_argument("--smoke", action="store_true", help="512 pixels, one iteration")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    if args.quick:
        args.size, args.chunk_size, args.n_iter = 1536, 512, 10
    if args.smoke:
        args.size, args.chunk_size, args.n_iter, args.workers = 512, 256, 1, 0
    return args


def make_image(path, size):
    """Write the photograph, (1, size, size) uint16, strip by strip."""
    target = zarr.create_array(path, shape=(1, size, size), chunks=(1, STRIP, STRIP), dtype="u2")
    tiles = make_textures(8, size=STRIP, kind="dead-leaves", random_state=0)
    camera = Camera(peak_photons=1e4, read_noise=2.0, offset=100.0, bits=16)
    for top in range(0, size, STRIP):
        focus = FOCUS[0] + (FOCUS[1] - FOCUS[0]) * (top + np.arange(STRIP)) / size
        field = np.broadcast_to(focus[:, np.newaxis, np.newaxis], (STRIP, STRIP, 1))
        for left in range(0, size, STRIP):
            tile = tiles[(7 * top + left) // STRIP % len(tiles)]
            part = make_scene(
                tile, field, psf_model="zernike-1", camera=camera, random_state=top + left
            )[0]
            bottom, right = min(top + STRIP, size), min(left + STRIP, size)
            target[0, top:bottom, left:right] = part[: bottom - top, : right - left].astype("u2")
    return target


def measure(source, folder, args, peak):
    """Seconds of mapping and restoring, and the peak memory of the processes that did it."""
    before = peak()
    start = time.perf_counter()
    mapper = SpatialPSFMapper(PSFParameterRegressor(pretrained="zernike-1"))
    maps = map_psfs(source, mapper, chunk_size=args.chunk_size, verbose=1)
    mapped = time.perf_counter()
    deconvolver = TVRLDeconvolver(n_iter=args.n_iter, offset=100.0)
    lazy = restore(maps, deconvolver, chunk_size=args.chunk_size)
    write_zarr(lazy, folder / "restored.zarr", verbose=1)
    done = time.perf_counter()
    megabytes = (peak() - before) / 2**20
    return describe_run("large_image.py") | {
        "size": args.size,
        "blocks": int(np.prod(lazy.numblocks)),
        "workers": args.workers,
        "n_iter": args.n_iter,
        "windows": int(maps.invalid.size),
        "map_seconds": mapped - start,
        "restore_seconds": done - mapped,
        "peak_megabytes": megabytes,
        "times_image": megabytes * 2**20 / (4 * args.size**2),
    }


def own_peak():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def workers_peak(client):
    """Sum over the workers and this process, bytes."""
    return own_peak() + sum(client.run(own_peak).values())


if __name__ == "__main__":
    main()
