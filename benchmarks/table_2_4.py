"""Trained on one data type, tested on another: R^2 of `gaussian-2`, published figures and ours.

    python benchmarks/table_2_4.py [--data DIR] [--patches 20000] [--quick] [--shipped]

Rows are the types (`data_types`) that a network was trained on, columns those that it is tested on,
always with unseen sources. The last row is the package's own weights, trained on all types at once;
with `--shipped` it is the only one. Rows are added to those that `--output` holds.
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

COLUMNS = (*TEST_TYPES, "mix")
# trained on, tested on; "0 elsewhere" was published of points
PUBLISHED = {("nat", "micr"): 0.96, ("micr", "nat"): 0.99, ("syn", "micr"): 0.76}
PUBLISHED |= {("poi", kind): 0.0 for kind in COLUMNS if kind != "poi"}


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    model = make_psf_model(args.family)
    patches = draw_test_patches(load_test_images(args.data), model, args.test_patches)
    types = [] if args.shipped else args.types
    images = load_training_images(args.data, types)
    print(f"{args.family}: ours (published)\n{'trained on':>12}", end="")
    print("".join(f"{kind:>16}" for kind in COLUMNS), flush=True)
    for kind in types:
        regressor, effort = train(args, args.family, images[kind], args.architecture)
        save(args, kind, effort | {"architecture": args.architecture}, test_on(regressor, patches))
    regressor = shipped(args.family)
    save(args, "shipped", {"weights": regressor.weights_id_}, test_on(regressor, patches))


def parse_arguments(arguments):
    parser = make_parser(__doc__.splitlines()[0], patches=20000, test_patches=1000)
    parser.add_argument("--family", default="gaussian-2", choices=FAMILIES)
    parser.add_argument("--types", nargs="+", default=TRAIN_TYPES, choices=TRAIN_TYPES)
    parser.add_argument("--architecture", default="compact")
    parser.add_argument("--shipped", action="store_true", help="train nothing, test the package's")
    parser.add_argument("--quick", action="store_true", help="two types, few patches")
    args = parser.parse_args(arguments)
    if args.quick:
        args.types = [kind for kind in args.types if kind in ("syn", "nat")]
        args.patches, args.test_patches = min(args.patches, 2000), min(args.test_patches, 200)
    return args


def save(args, kind, about, tested):
    texts = []
    for column in COLUMNS:
        published = PUBLISHED.get((kind, column), None)
        theirs = "" if published is None or args.family != "gaussian-2" else f" ({published:.2f})"
        texts.append(f"{tested[column]['r2_mean']:9.3f}{theirs:7}")
    print(f"{kind:>12}" + "".join(texts), flush=True)
    results = {f"{args.family}, {kind}": about | {"types": tested}}
    write_results(args.output, "table_2_4.py", results)


if __name__ == "__main__":
    main()
