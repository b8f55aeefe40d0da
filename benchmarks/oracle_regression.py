"""What could be read at best: a fit that knows the sharp patch, beside the shipped weights.

    python benchmarks/oracle_regression.py [--data DIR] [--patches 150] [--quick] [--output FILE]

Micrographs that no training saw (`data_types`, binned until sharp at the pixel) are blurred by PSFs
of each family and photographed at 10^4 peak photons and 2 electrons of read noise. The oracle knows
the sharp field in photons and the noise, and finds the parameters of greatest likelihood: the best
of a dictionary of PSFs and, from the best few of it, least squares of the residuals over the
standard deviation that the model expects. Where the truth itself is more likely than what it found,
it missed; how often is in the record. The networks see the blurred patch alone.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from data_types import figures, load_test_images, shipped, write_results
from scipy.optimize import least_squares
from weights_accuracy import CAMERA, FAMILIES

from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation.patches import MIN_CONTRAST, texture_contrast

PATCH, FFT = 128, 256
_CLEAR = 5.0  # nats by which another PSF must be more likely
_DICTIONARY, _STARTS = 256, 5  # PSFs for one parameter, twice as many with each more; fits


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(1)
    images = load_test_images(args.data)["micr"]
    print(
        f"{'':12}{'parameter':>12}{'R^2 oracle':>12}{'network':>9}{'RMS oracle':>12}{'network':>9}"
    )
    for family in args.families:
        row = compare(family, images, args)
        print_row(family, row)
        write_results(args.output, "oracle_regression.py", {family: row})


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of sharp images with a SOURCES.csv")
    parser.add_argument("--patches", type=int, default=150, help="of each family")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--quick", action="store_true", help="12 patches")
    parser.add_argument("--output", type=Path, help="JSON file to write, or to add families to")
    args = parser.parse_args(arguments)
    if args.quick:
        args.patches = min(args.patches, 12)
    return args


def compare(family, images, args):
    """Figures of the oracle and of the shipped network on the same patches."""
    model, regressor = make_psf_model(family), shipped(family)
    fields, patches, truth = draw(images, model, args.patches)
    oracle = Oracle(model)
    read, missed = [], 0
    for field, patch, true in zip(fields, patches, truth, strict=True):
        read.append(oracle.fit(field, patch))
        found, best = (oracle.cost(p, field, patch) for p in (read[-1], true))
        missed += found > best + _CLEAR
    never = np.zeros(len(truth))
    p, _, invalid = regressor.predict_all(patches)[:3]
    return {
        "n_patches": len(truth),
        "weights": regressor.weights_id_,
        "oracle": figures(model, truth, np.array(read), never),
        "oracle_missed": round(missed / len(truth), 3),
        "network": figures(model, truth, p, invalid),
    }


def draw(images, model, n, seed=0):
    """Sharp fields (n, s, s) in photons, blurred patches (n, 128, 128) and parameters (n, P)."""
    rng = np.random.RandomState(seed)
    size = PATCH + model.size - 1
    images = [image for image in images if min(image.shape) >= size]
    scaled = [(image - image.min()) / np.ptp(image) * CAMERA.peak_photons for image in images]
    areas = np.array([image.size for image in images], float)
    truth, fields, patches = model.sample(n, rng), [], []
    while len(fields) < n:
        image = scaled[rng.choice(len(scaled), p=areas / areas.sum())]
        top, left = (rng.randint(0, m - size + 1) for m in image.shape)
        field = image[top : top + size, left : left + size]
        half = model.size // 2
        middle = torch.as_tensor(field[half:-half, half:-half]).float()[None]
        if texture_contrast(middle, CAMERA.read_noise)[0] < MIN_CONTRAST:
            continue
        psf = model.psf(truth[len(fields)][None])
        patches.append(CAMERA.expose(blur(field, psf)[0], generator=seed + len(fields)))
        fields.append(field)
    return np.stack(fields), np.stack(patches), truth


def blur(field, psfs):
    """The patches (m, 128, 128) that PSFs (m, k, k) make of one field around them."""
    spectrum = np.fft.rfft2(field, s=(FFT, FFT))
    return _inverse(spectrum * np.fft.rfft2(psfs, s=(FFT, FFT)), psfs.shape[-1])


def _inverse(spectra, k):
    blurred = np.fft.irfft2(spectra, s=(FFT, FFT))
    return blurred[..., k - 1 : k - 1 + PATCH, k - 1 : k - 1 + PATCH].clip(min=0)


class Oracle:
    """Fit of the PSF parameters of a family to a patch whose sharp field is known."""

    def __init__(self, model):
        self.model = model
        n = _DICTIONARY * 2 ** (len(model.parameter_names) - 1)
        self.dictionary = model.sample(n, np.random.RandomState(1))
        psfs = model.psf(self.dictionary).astype(np.float32)
        self.transfer = np.fft.rfft2(psfs, s=(FFT, FFT)).astype(np.complex64)
        low, high = model.bounds.T
        angles = np.array([period is not None for period in model.periods])
        self.scale = high - low
        # an axis goes round; other parameters may be found a little beyond what was drawn
        self.bounds = (
            np.where(angles, -np.inf, np.maximum(low - 0.1 * self.scale, 0)),
            np.where(angles, np.inf, high + 0.1 * self.scale),
        )

    def fit(self, field, patch):
        """Parameters of greatest likelihood."""
        spectrum = np.fft.rfft2(field, s=(FFT, FFT)).astype(np.complex64)
        costs = []
        for transfer in np.array_split(self.transfer, 8):
            blurred = _inverse(spectrum * transfer, self.model.size)
            costs += [0.5 * (r**2).sum() + c for r, c in self._misfit(blurred, patch)]
        best = []
        for start in self.dictionary[np.argsort(costs)[:_STARTS]]:
            found = least_squares(
                lambda p: self._misfit(blur(field, self.model.psf(p[None])), patch)[0][0].ravel(),
                start,
                bounds=self.bounds,
                x_scale=self.scale,
                diff_step=1e-3,
                max_nfev=20,
            )
            best.append((self.cost(found.x, field, patch), *found.x))
        # what lies a little outside of the domain is the same PSF as something within
        return self.model.decode(self.model.encode(np.array(min(best)[1:])[None]))[0]

    def cost(self, parameters, field, patch):
        """Negative logarithm of the likelihood, up to a constant."""
        blurred = blur(field, self.model.psf(parameters[None]))
        ((residuals, normal),) = self._misfit(blurred, patch)
        return 0.5 * (residuals**2).sum() + normal

    def _misfit(self, blurred, patch):
        """Standardised residuals of each prediction, and the logarithm of their scales."""
        variance = blurred + CAMERA.read_noise**2
        residuals = (patch - blurred) / np.sqrt(variance)
        return [(r, 0.5 * np.log(v).sum()) for r, v in zip(residuals, variance, strict=True)]


def print_row(family, row):
    oracle, network = row["oracle"], row["network"]
    for i, name in enumerate(oracle["r2"]):
        print(
            f"{family if i == 0 else '':12}{name:>12}{oracle['r2'][name]:12.4f}"
            f"{network['r2'][name]:9.3f}{oracle['rms_error'][name]:12.4f}"
            f"{network['rms_error'][name]:9.3f}",
            flush=True,
        )
    print(f"{'':12}the oracle missed {row['oracle_missed']:.1%}", flush=True)


if __name__ == "__main__":
    main()
