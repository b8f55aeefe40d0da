"""Depth of tilted planes from one astigmatic image: published figures and ours.

    python benchmarks/table_3_1.py [--quick] [--data DIR] [--output FILE]

Textures (a printed grid, procedural ones, micrographs of `--data` that no weights were trained on,
else scikit-image's images) are tilted about the diagonal, seen through a cylindrical lens at 10^4
peak photons. The estimator is calibrated on one plane of 12 degrees with a texture of its own, and
tested on 3, 6 and 10 degrees: neither texture nor tilt were seen. Errors are means of absolute
errors in % of the depth range of the plane, without any rescaling to the known range. The floor is
an oracle that knows the sharp texture and the lens, and fits the defocus of each window alone.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from record import describe_run
from scipy.ndimage import uniform_filter
from weights_accuracy import held_out_images

from sklearn_psf import (
    AstigmaticDepthEstimator,
    PSFParameterRegressor,
    SpatialPSFMapper,
)
from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.simulation import depth_to_parameters, make_textures, make_tilted_plane

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
CYLINDER, AXIS = 0.4, 0.3
SIZE, CALIBRATION_TILT = 512, 12
TILTS = (3, 6, 10)
PUBLISHED = {  # R^2, absolute error (um), relative error (% of range)
    3: (0.989, 0.61, 1.26),
    6: (0.988, 1.31, 1.38),
    10: (0.967, 3.50, 2.18),
}
VARIANTS = {
    "windows compared": {},
    "compared, not smoothed": {"smoothing": None},
    "read one by one": {"spectra": False},
    "one by one, not smoothed": {"spectra": False, "smoothing": None},
    "published product": {"method": "product"},
}
OURS = "windows compared"
FIGURES = ("window", "profile", "dense", "um", "r2", "sign", "within_1_std", "within_2_std")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three textures, no sweeps")
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--textures", type=int, default=30, help="at most so many")
    parser.add_argument("--stride", type=int, default=32)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    start = time.perf_counter()
    textures = dict(
        list(make_all_textures(args.data).items())[: 3 if args.quick else args.textures]
    )
    bench = Bench(args.stride)
    table = bench.tilts(textures)
    print_table(table)
    record = describe_run("table_3_1.py")
    record |= {"table": table, "coverage": coverage(table), "strides": bench.strides(textures)}
    if not args.quick:
        record["sweeps"] = bench.sweeps(textures)
    record |= {
        "weights": bench.regressor.weights_id_,
        "textures": list(textures),
        "seconds": round(time.perf_counter() - start),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(record, indent=1) + "\n")


def make_all_textures(data):
    """Sharp textures by name, in an order in which the first few are of different kinds."""
    textures = {"printed grid": printed_grid()}
    real = [image[:SIZE, :SIZE] for image in held_out_images(data, min_size=SIZE)][:9]
    kinds = ("cells", "dead-leaves", "fractal", "filaments", "points")
    for seed in range(4):
        for kind in kinds:
            textures[f"{kind} {seed}"] = make_textures(1, SIZE, kind=kind, random_state=100 + seed)[
                0
            ]
            if real:
                textures[f"image {len([n for n in textures if 'image' in n])}"] = real.pop(0)
    return {name: np.clip(texture, 0, None) for name, texture in textures.items()}


def printed_grid():
    """Ruled lines on rough paper."""
    y, x = np.mgrid[:SIZE, :SIZE]
    ruled = (y % 78 < 5) | (x % 78 < 5)
    paper = make_textures(1, SIZE, kind="fractal", random_state=5)[0]
    return np.clip(0.9 - 0.7 * ruled + 0.15 * (paper - 0.5), 0.02, 1)


def calibration_texture():
    """A texture that no test sees."""
    return make_textures(1, SIZE, kind="dead-leaves", random_state=11)[0]


class Bench:
    """Calibrated estimators, and planes to try them on."""

    def __init__(self, stride):
        self.regressor = PSFParameterRegressor(pretrained="zernike-3")
        self.stride = stride
        image, depth = photograph(calibration_texture(), CALIBRATION_TILT)
        self.regressor.fit(image[np.newaxis])
        maps = self.map(image)
        self.estimators = {
            name: AstigmaticDepthEstimator(**parameters).fit(maps, depth[np.newaxis])
            for name, parameters in VARIANTS.items()
        }

    def map(self, image, stride=None):
        """PSF map of one image; all smoothing is left to the depth."""
        mapper = SpatialPSFMapper(
            self.regressor, stride=stride or self.stride, smoothing=0, optics=OPTICS
        )
        return mapper.fit_transform(image[np.newaxis])

    def figures(self, name, maps, depth):
        """Errors of one estimator on one plane, in % of range, and what else is judged."""
        estimator = self.estimators[name]
        truth = depth[np.ix_(np.rint(maps.rows).astype(int), np.rint(maps.columns).astype(int))]
        z, std = (values[0] for values in estimator.predict(maps, return_std=True))
        valid, span = np.isfinite(z), np.ptp(depth)
        if not valid.any():
            return dict.fromkeys(FIGURES, np.nan) | {"valid": 0.0}
        errors = np.abs(z - truth)[valid]
        clear = valid & (np.abs(OPTICS.micrometres_to_waves(truth)) > 0.1)
        dense = estimator.predict_dense(maps)[0]
        figures = {
            "window": 100 * np.mean(errors) / span,
            "profile": 100 * profile_error(z, truth) / span,
            "dense": 100 * np.nanmean(np.abs(dense - depth)) / span,
            "um": np.mean(errors),
            "r2": estimator.score(maps, truth[np.newaxis]),
            "sign": np.mean(np.sign(z) == np.sign(truth), where=clear),
            "within_1_std": np.mean(errors < std[valid]),
            "within_2_std": np.mean(errors < 2 * std[valid]),
            "valid": valid.mean(),
        }
        return {key: round(float(value), 4) for key, value in figures.items()}

    def tilts(self, textures):
        """Figures of all variants on all textures and tilts."""
        rows = []
        for name, texture in textures.items():
            for tilt in TILTS:
                image, depth = photograph(texture, tilt)
                maps = self.map(image)
                row = {
                    "texture": name,
                    "tilt": tilt,
                    "floor": oracle_floor(texture, image, depth, maps),
                }
                for variant in VARIANTS:
                    row[variant] = self.figures(variant, maps, depth)
                rows.append(row)
                ours = row[OURS]
                print(
                    f"{name:14} {tilt:3} deg  window {ours['window']:6.2f} %  profile "
                    f"{ours['profile']:6.2f} %  R2 {ours['r2']:6.3f}  sign {ours['sign']:.2f}  "
                    f"floor {row['floor']:.2f} %",
                    flush=True,
                )
        return rows

    def strides(self, textures):
        """Grids of windows from coarse to fine, at 6 degrees; windows are of 128 pixels."""
        rows = {}
        for stride in (128, 64, 32):
            errors = []
            for texture in list(textures.values())[:3]:
                image, depth = photograph(texture, 6)
                errors.append(self.figures(OURS, self.map(image, stride), depth))
            rows[stride] = {key: median(errors, key) for key in ("window", "profile", "dense")}
            print(f"stride {stride:4}: {rows[stride]}", flush=True)
        return rows

    def sweeps(self, textures):
        """Error per window at 6 degrees against photons, contrast, and a turned lens."""
        some = list(textures.values())[:4]
        cases = {f"10^{p} photons": {"photons": 10**p} for p in (2.5, 3, 3.5, 4, 4.5)}
        cases |= {f"contrast {c}": {"contrast": c} for c in (0.1, 0.3, 1.0)}
        cases |= {"axis off by 10 degrees": {"axis": AXIS + np.pi / 18}}
        result = {}
        for case, options in cases.items():
            errors = []
            for texture in some:
                image, depth = photograph(texture, 6, **options)
                errors.append(self.figures(OURS, self.map(image), depth))
            result[case] = {key: median(errors, key) for key in ("window", "profile", "sign")}
            print(f"{case:24} {result[case]}", flush=True)
        return result


def photograph(texture, tilt, photons=1e4, contrast=1.0, axis=AXIS):
    texture = texture.mean() + contrast * (texture - texture.mean())
    return make_tilted_plane(
        texture,
        optics=OPTICS,
        tilt=tilt,
        cylinder=CYLINDER,
        axis=axis,
        camera=Camera(peak_photons=photons, read_noise=2.0),
        random_state=tilt,
    )


def profile_error(z, truth):
    """Mean absolute error of the profile: windows of equal true depth are averaged."""
    levels, index = np.unique(truth.round(6), return_inverse=True)
    index = index.reshape(truth.shape)
    means = [z[(index == k) & np.isfinite(z)] for k in range(len(levels))]
    return np.mean(
        [abs(m.mean() - level) for m, level in zip(means, levels, strict=True) if m.size]
    )


def oracle_floor(texture, image, depth, maps):
    """Error per window (% of range) of a fit of the known texture by the known lens."""
    waves = np.linspace(-1.3, 1.3, 105) * np.abs(OPTICS.micrometres_to_waves(depth)).max()
    model = make_psf_model("zernike-3", cutoff=OPTICS.cutoff)
    z = OPTICS.waves_to_micrometres(waves)
    parameters = depth_to_parameters(z, optics=OPTICS, cylinder=CYLINDER, axis=AXIS)
    half = model.size // 2
    field = np.pad(texture * (1e4 / texture.max()), half, mode="symmetric")
    spectrum = np.fft.rfft2(field)
    places = np.ix_(np.rint(maps.rows).astype(int), np.rint(maps.columns).astype(int))
    misfit = []
    for psf in model.psf(parameters):
        blurred = np.fft.irfft2(spectrum * np.fft.rfft2(psf, field.shape), field.shape)
        blurred = blurred[2 * half :, 2 * half :]
        misfit.append(uniform_filter((blurred - image) ** 2 / (blurred + 4), 128)[places])
    best = z[np.argmin(misfit, 0)]
    return round(float(100 * np.abs(best - depth[places]).mean() / np.ptp(depth)), 3)


def coverage(rows):
    """Share of the windows of all planes whose error is within one and two standard deviations."""
    shares = {}
    for variant in VARIANTS:
        figures = [row[variant] for row in rows if row[variant]["valid"]]
        weights = [figure["valid"] for figure in figures]
        shares[variant] = {
            key: round(float(np.average([figure[key] for figure in figures], weights=weights)), 3)
            for key in ("within_1_std", "within_2_std")
        }
    return shares


def median(rows, key):
    return round(float(np.nanmedian([row[key] for row in rows])), 3)


def print_table(rows):
    print(
        "\nmedian over textures    tilt window %  profile %  error um    R2    sign  valid floor %"
    )
    for tilt, (r2, um, percent) in PUBLISHED.items():
        here = [row for row in rows if row["tilt"] == tilt]
        print(f"{'published (printed grid)':24}{tilt:3}{'':10}{percent:11.2f}{um:10.2f}{r2:8.3f}")
        for variant in VARIANTS:
            m = {key: median([row[variant] for row in here], key) for key in here[0][variant]}
            print(
                f"{variant:28.28}{m['window']:9.2f}{m['profile']:11.2f}{m['um']:10.2f}"
                f"{m['r2']:8.3f}{m['sign']:7.2f}{m['valid']:7.2f}{median(here, 'floor'):8.2f}"
            )
    print("\nerrors of windows within 1 and 2 of their standard deviations, all planes together")
    for variant, shares in coverage(rows).items():
        print(f"{variant:28.28}" + "".join(f"{share:9.1%}" for share in shares.values()))
    print()


if __name__ == "__main__":
    main()
