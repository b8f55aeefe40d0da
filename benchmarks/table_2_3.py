"""R^2 of PSF parameters by family, data type and network: published figures and ours.

    python benchmarks/table_2_3.py [--shipped] [--data DIR] [--patches 20000] [--quick]

A network is trained on one data type (`data_types`) and tested on unseen sources of the same. With
`--shipped` nothing is trained: the weights that come with the package, which were trained on all
types at once, are tested on each. The published figures are of a ResNet-34 that was fine-tuned from
ImageNet weights, on 10 000 patches; there the axis of astigmatism took two values, here it takes
all. `--initial FILE` is such a set of weights with torchvision's names (.pth or .safetensors).

The defaults take more than an hour on one core and are far from a full training, for which
`--patches 1000000 --architectures resnet34 resnext50 compact` is meant, on a GPU. Cells are added
to those that `--output` holds.
"""

import torch
from data_types import (
    TEST_TYPES,
    TRAIN_TYPES,
    draw_test_patches,
    load_test_images,
    load_training_images,
    make_parser,
    shipped,
    test_on,
    train,
    write_results,
)
from weights_accuracy import FAMILIES

from sklearn_psf.optics import make_psf_model

ARCHITECTURES = ("compact", "resnet34", "resnext50")
FINE_TUNED = "resnet34 from ImageNet"
SHIPPED_TYPES = (*TEST_TYPES, "micr native")
PUBLISHED = {  # syn, poi, micr, micrsm, nat, mix
    ("zernike-1", FINE_TUNED): (0.99, 0.99, 0.99, 0.89, 0.99, 0.81),
    ("zernike-2", FINE_TUNED): (0.93, 0.97, 0.92, 0.81, 0.94, 0.90),
    ("zernike-3", FINE_TUNED): (0.97, 0.89, 0.95, 0.77, 0.80, 0.89),
    ("gaussian-1", FINE_TUNED): (0.94, 0.99, 0.98, 0.99, 0.94, 0.99),
    ("gaussian-2", FINE_TUNED): (0.99, 0.99, 0.99, 0.98, 0.95, 0.99),
    ("zernike-3", "resnet34"): (0.95, 0.98, 0.78, 0.58, 0.84, 0.88),
    ("zernike-3", "resnext50"): (0.64, 0.94, 0.90, 0.72, 0.61, 0.85),
}


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    test_images = load_test_images(args.data)
    images = {} if args.shipped else load_training_images(args.data, args.types)
    for family in args.families:
        types = SHIPPED_TYPES if args.shipped else needed_types(args.types)
        patches = draw_test_patches(
            test_images, make_psf_model(family), args.test_patches, types=types
        )
        if args.shipped:
            cells = test_shipped(family, patches)
        else:
            cells = train_all(family, images, patches, args)
        print_cells(family, cells)
        results = {", ".join((family, *place)): cell for place, cell in cells.items()}
        write_results(args.output, "table_2_3.py", results)


def parse_arguments(arguments):
    parser = make_parser(__doc__.splitlines()[0], patches=20000, test_patches=2000)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--types", nargs="+", default=TRAIN_TYPES, choices=TRAIN_TYPES)
    parser.add_argument("--architectures", nargs="+", default=["compact"], choices=ARCHITECTURES)
    parser.add_argument("--initial", help="ImageNet weights: a ResNet-34 starts from them, too")
    parser.add_argument("--shipped", action="store_true", help="train nothing, test the package's")
    parser.add_argument("--quick", action="store_true", help="2 families, 2 types, few patches")
    args = parser.parse_args(arguments)
    if args.quick:
        args.families = [f for f in args.families if f in ("zernike-1", "gaussian-1")]
        args.types = [kind for kind in args.types if kind in ("syn", "poi")]
        args.patches, args.test_patches = min(args.patches, 2000), min(args.test_patches, 200)
    return args


def needed_types(types):
    """Types of test patches that the training types ask for."""
    wanted = {"micr" if kind == "micrsm" else kind for kind in types}
    return [kind for kind in TEST_TYPES if kind in wanted or ("mix" in wanted and kind != "nat")]


def test_shipped(family, patches):
    """Figures by network and data type."""
    regressor = shipped(family)
    about = {"weights": regressor.weights_id_}
    rows = test_on(regressor, patches)
    return {("shipped", kind): about | row for kind, row in rows.items()}


def train_all(family, images, patches, args):
    """Train each network on each data type and test it on the same; figures as `test_shipped`."""
    networks = [(name, name, None) for name in args.architectures]
    if args.initial is not None:
        networks.append((FINE_TUNED, "resnet34", args.initial))
    cells = {}
    for network, architecture, initial in networks:
        for kind in args.types:
            regressor, effort = train(args, family, images[kind], architecture, initial)
            tested = "micr" if kind == "micrsm" else kind
            some = {k: v for k, v in patches.items() if tested in (k, "mix")}
            cell = effort | test_on(regressor, some)[tested]
            print(f"{family}, {network}, {kind}: {cell['r2_mean']:.3f}", effort, flush=True)
            cells[network, kind] = cell
    return cells


def print_cells(family, cells):
    columns = list(dict.fromkeys([*TRAIN_TYPES, *SHIPPED_TYPES]))
    print(f"\n{family + ', mean R^2':34}" + "".join(f"{kind:>12}" for kind in columns))
    for (of, network), values in PUBLISHED.items():
        if of == family:
            name = f"published, {network}"
            print(f"{name:34}" + "".join(f"{value:12.2f}" for value in values))
    for network in dict.fromkeys(network for network, _ in cells):
        row = [cells.get((network, kind)) for kind in columns]
        texts = [f"{cell['r2_mean']:12.3f}" if cell else f"{'-':>12}" for cell in row]
        print(f"{'ours, ' + network:34}" + "".join(texts), flush=True)


if __name__ == "__main__":
    main()
