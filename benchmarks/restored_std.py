"""How much of the error of a restored image its standard deviation covers.

    python benchmarks/restored_std.py [--draws 12] [--quick] [--output JSON]

A histological section of scikit-image, which no weights were trained on, is tilted from 0.2 to 0.8
waves RMS of defocus and photographed at three photon counts. It is restored by the map of the true
family and by that of a wrong one, with `n_samples` draws of the PSF parameters. The errors of the
pixels against the truth are compared with `restored_std_`; with the true family also the
differences from the restoration by the true PSFs, which is all that the draws can know of.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from blind_restoration import true_map
from record import describe_run
from scipy.stats import spearmanr

from sklearn_psf import PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.metrics import snr
from sklearn_psf.optics import Camera
from sklearn_psf.simulation import load_skimage, make_tilted_scene

PEAKS = (1e5, 1e4, 1e3)
FAMILIES = ("zernike-1", "gaussian-1")  # the true one first
FOCUS = (0.2, 0.8)
SECTION = "immunohistochemistry"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--size", type=int, default=256, help="pixels from the middle")
    parser.add_argument("--quick", action="store_true", help="three draws")
    parser.add_argument("--smoke", action="store_true", help="two draws, few pixels and photons")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.quick or args.smoke:
        args.draws = 2 if args.smoke else 3
    peaks, size = (PEAKS[-1:], 160) if args.smoke else (PEAKS, args.size)
    image = load_skimage([SECTION])[SECTION]
    top, left = ((n - size) // 2 for n in image.shape)
    image = image[top : top + size, left : left + size]
    rows = []
    print("photons  family      < 1 std  < 2 std  rank   < 1, < 2 of the true PSFs'  gain dB")
    for peak in peaks:
        for family in FAMILIES:
            rows.append({"peak_photons": peak, "family": family} | judge(image, peak, family, args))
            print_row(rows[-1])
    if args.output is not None:
        record = describe_run("restored_std.py") | {"draws": args.draws, "size": size, "rows": rows}
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def judge(image, peak, family, args):
    """Coverage of `restored_std_` for one exposure, read by one family."""
    blurred, sharp, parameters = make_tilted_scene(
        image,
        psf_model=FAMILIES[0],
        low=FOCUS[0],
        high=FOCUS[1],
        camera=Camera(peak_photons=peak),
        random_state=0,
    )
    maps = SpatialPSFMapper(PSFParameterRegressor(pretrained=family)).fit_transform(blurred[None])
    deconvolver = TVRLDeconvolver(n_samples=args.draws, random_state=0).fit(maps)
    restored, std = deconvolver.transform(maps)[0], deconvolver.restored_std_[0]
    error = np.abs(restored - sharp)
    figures = coverage(error, std) | {
        "rank_correlation": round(float(spearmanr(error, std, axis=None)[0]), 4),
        "median_std_over_median_error": round(float(np.median(std) / np.median(error)), 3),
        "snr_gain_dB": round(snr(sharp, restored) - snr(sharp, blurred), 2),
    }
    if family == FAMILIES[0]:
        best = deconvolver.set_params(n_samples=0).transform(true_map(maps, parameters))[0]
        figures["of_true_psfs"] = coverage(np.abs(restored - best), std)
    return figures


def coverage(error, std):
    """Share of pixels whose error is within one and two standard deviations."""
    return {f"within_{k}_std": round(float((error < k * std).mean()), 3) for k in (1, 2)}


def print_row(row):
    shares = [row["within_1_std"], row["within_2_std"]]
    ours = "{:9.1%}{:9.1%}".format(*shares) + f"{row['rank_correlation']:6.2f}"
    true = "{:13.1%}{:9.1%}".format(*row.get("of_true_psfs", dict.fromkeys("ab", np.nan)).values())
    print(
        f"{row['peak_photons']:7.0f}  {row['family']:10}{ours}{true}{row['snr_gain_dB']:14.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
