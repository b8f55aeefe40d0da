"""What each part of the default network and its training adds, at equal small budgets.

    python benchmarks/ablation_regression.py [--data DIR] [--family zernike-3] [--patches 25600]
                                             [--variants ...] [--quick] [--output FILE]

Every variant sees the same training patches in the same order, from the same seed, once; and is
tested on the same patches of unseen sources (`data_types`, "mix" and "nat"). Variants are built
here, from the parts of the package:

* polar spectrum: the patch branch alone;
* whitening: the spectrum of the patch as it is (its periodic part, borders faded);
* padding: the spectrum at the resolution that the size of a patch gives, in half as many rings;
* patch branch: the polar spectrum alone;
* harmonics: the sectors themselves are read out instead of their angular harmonics, or their mean;
* heteroscedastic loss: the published squared error;
* averaged weights: the last ones of the same training.

Differences between seeds are the yardstick: `--seeds 0 1` trains everything twice.
"""

from itertools import cycle

import numpy as np
import torch
from data_types import (
    draw_test_patches,
    figures,
    load_test_images,
    load_training_images,
    make_parser,
    write_results,
)
from torch import nn
from weights_accuracy import FAMILIES

from sklearn_psf.networks import build_network, spectra, train_network
from sklearn_psf.networks.compact import Compact
from sklearn_psf.networks.polar import PolarNetwork
from sklearn_psf.networks.reading import read_patches
from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import PatchStream

BATCH = 64
BANDS = (spectra.Band(1.5, 1 / 256, 1 / 256, 64, 256), spectra.Band(0.7, 17 / 64, 1 / 64, 18, 128))
UNPADDED = (spectra.Band(1.5, 1 / 128, 1 / 128, 32, 128), BANDS[1])


def polar_spectrum(x, bands=BANDS, whiten=True):
    """As the package's, with its bands and its whitening left to choose."""
    periodic, rows = spectra.periodic_spectrum(x), []
    for band in bands:
        white = periodic * spectra.whitening(band, x) if whiten else periodic
        white = torch.fft.irfft2(white, s=x.shape[-2:])
        fade = spectra._fade(x.shape[-1], x.device)
        size = max(band.least_size, x.shape[-1])
        cells, n_columns = spectra.polar_cells(band, size, x.device)
        padded = torch.fft.rfft2(white * fade[:, None] * fade, s=(size, size))[..., :n_columns]
        power = padded.abs().square().flatten(1) / x.shape[-1] ** 2
        rows.append((cells @ power.T.contiguous()).T.reshape(len(x), band.n_rings, -1))
    return torch.log10(torch.cat(rows, 1) + 1e-9)


class Sectors(PolarNetwork):
    """Reads the sectors out as they are, or only their mean."""

    def __init__(self, only_mean, **settings):
        super().__init__(**settings)
        width = self.norms[-1].num_features
        waves = torch.eye(spectra.SECTORS)
        self.harmonics = waves.mean(1, keepdim=True) if only_mean else waves
        self.n_features = self.harmonics.shape[1] * width


class Ablated(nn.Module):
    """The compact network without some of its parts."""

    def __init__(self, n_outputs, patch=True, polar=True, bands=BANDS, whiten=True, readout=None):
        super().__init__()
        self.bands, self.whiten = bands, whiten
        whole = Compact(n_outputs)
        n_patch, n_polar = 0, 0
        if patch:
            self.patch, n_patch = whole.patch, 128
        if polar:
            n_rings = sum(band.n_rings for band in bands)
            build = PolarNetwork if readout is None else Sectors
            options = {} if readout is None else {"only_mean": readout == "mean"}
            self.polar = build(n_rings=n_rings, **options)
            n_polar = self.polar.n_features
        self.hidden = nn.Sequential(nn.Linear(n_patch + n_polar, 192), *list(whole.hidden)[1:])
        self.fc = nn.Linear(192 + n_polar, n_outputs)

    def forward(self, x):
        """Map (n, 1, H, W) to (n, n_outputs)."""
        parts = [self.patch(x).flatten(1)] if hasattr(self, "patch") else []
        polar = []
        if hasattr(self, "polar"):
            with torch.autocast(x.device.type, enabled=False):
                spectrum = polar_spectrum(x[:, 0].float(), self.bands, self.whiten)
            polar = [self.polar(spectrum)]
        return self.fc(torch.cat([self.hidden(torch.cat(parts + polar, 1)), *polar], 1))


# Name: parts of the network, settings of the training
VARIANTS = {
    "all": ({}, {}),
    "no-polar-spectrum": ({"polar": False}, {}),
    "no-whitening": ({"whiten": False}, {}),
    "no-padding": ({"bands": UNPADDED}, {}),
    "no-patch-branch": ({"patch": False}, {}),
    "sectors-for-harmonics": ({"readout": "sectors"}, {}),
    "mean-for-harmonics": ({"readout": "mean"}, {}),
    "squared-error": ({}, {"loss": "mse"}),
}
LAST = "last-weights"


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    model = make_psf_model(args.family)
    patches = draw_test_patches(load_test_images(args.data), model, args.test_patches)
    images = load_training_images(args.data, ["mix"])["mix"]
    print(
        f"{args.family}, {args.patches} patches: mean R^2\n{'':28}{'seed':>5}{'mix':>8}{'nat':>8}"
    )
    for seed in args.seeds:
        stream = PatchStream(images, psf_model=model, batch_size=BATCH, random_state=seed)
        # Kept, so that all variants see the same: 64 kB a patch.
        drawn = [stream.draw() for _ in range(max(1, args.patches // BATCH))]
        batches = [(X, model.encode(y)) for X, y in drawn]
        for name in args.variants:
            for label, row in run(name, batches, model, patches, seed).items():
                print(f"{label:28}{seed:5}{row['mix']:8.3f}{row['nat']:8.3f}", flush=True)
                about = {"family": args.family, "patches": len(batches) * BATCH, "seed": seed}
                results = {f"{args.family}, seed {seed}, {label}": about | row}
                write_results(args.output, "ablation_regression.py", results)


def parse_arguments(arguments):
    parser = make_parser(__doc__.splitlines()[0], patches=25600, test_patches=500)
    parser.add_argument("--family", default="zernike-3", choices=FAMILIES)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--quick", action="store_true", help="few patches, three variants")
    args = parser.parse_args(arguments)
    args.seeds = [args.seed] if args.seeds is None else args.seeds
    if args.quick:
        args.variants = args.variants[:3]
        args.patches, args.test_patches = min(args.patches, 1920), min(args.test_patches, 100)
    return args


def run(name, batches, model, patches, seed):
    """Train a variant and test it; the whole one also with its last weights."""
    parts, settings = VARIANTS[name]
    network = build_network("compact", model.n_encoded, seed=seed, mixed_precision=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.backbone = Ablated(2 * model.n_encoded + 1, **parts)
    sample = model.encode(model.sample(4096, random_state=seed))
    state, history = train_network(
        network, cycle(batches), sample, n_batches=len(batches), max_epochs=1, **settings
    )
    states = {name: state}
    if name == "all":
        states[LAST] = {k: v.detach().clone().numpy() for k, v in network.state_dict().items()}
    weights = sum(p.numel() for p in network.parameters())
    rows = {}
    for label, values in states.items():
        network.load_state_dict({k: torch.tensor(v) for k, v in values.items()})
        row = test(network.eval(), model, patches)
        rows[label] = row | {"weights": weights, "minutes": round(history[-1]["minutes"], 2)}
    return rows


def test(network, model, patches):
    """Mean R^2 and the R^2 of each parameter, of "mix" and "nat"."""
    rows = {}
    for label, types in {"mix": ("syn", "poi", "micr"), "nat": ("nat",)}.items():
        X, y = (np.concatenate([patches[kind][i] for kind in types]) for i in (0, 1))
        encoding, _, invalid = read_patches(network, X)
        row = figures(model, y, model.decode(encoding), invalid)
        rows |= {label: row["r2_mean"], f"{label} each": row["r2"]}
    return rows


if __name__ == "__main__":
    main()
