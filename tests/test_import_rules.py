"""Imports go down only: the table below is the architecture, and every module is held to it."""

import ast
import sys
from pathlib import Path

import pytest

import sklearn_psf

PACKAGE = Path(sklearn_psf.__file__).parent
NAME = "sklearn_psf"

# Each part of the package and the parts it may import. A part is a module or a sub-package; within
# a sub-package the modules are free. "" is the package's own __init__.
PHYSICS = {"_validation", "optics", "operators", "metrics"}
FLOW = {"_psf_map", "richardson_lucy", "simulation", "networks"}
ESTIMATORS = {"psf_regressor", "psf_mapper", "autofocus", "deconvolution", "depth", "flow"}
FOCUS = {"_focus_choice", "_focus_curve", "_focus_evidence", "_focus_scores", "_focus_search"}
DEPTH = {"_defocus_spectra", "_depth_curve", "_signed_focus", "_surface", "_window_depths"}
ARROWS = {
    "_files": set(),
    "_validation": set(),
    "optics": set(),
    "metrics": set(),
    "operators": {"_validation"},
    "_psf_grid": set(),
    "_depth_curve": set(),
    "_signed_focus": {"_depth_curve"},
    "_surface": {"operators"},
    "_window_depths": set(),
    "_window_powers": {"networks"},
    "_shared_texture": set(),
    "_defocus_spectra": {"_shared_texture", "_window_depths", "_window_powers"},
    "_psf_map": {"optics", "_validation"},
    "richardson_lucy": {"operators", "_validation"},
    "simulation": {"optics", "operators", "_validation"},
    "networks": {"_validation", "_files", "operators"},
    "_held_network": {"_validation", "networks", "optics"},
    "_blurred_batches": {"networks", "simulation"},
    "psf_regressor": PHYSICS | FLOW | {"_blurred_batches", "_held_network"},
    "psf_mapper": PHYSICS | FLOW | {"_psf_grid", "psf_regressor"},
    "_focus_spectra": set(),
    "_focus_curve": {"_focus_spectra", "optics"},
    "_focus_scores": {"metrics"},
    "_focus_evidence": {"_focus_spectra", "optics"},
    "_focus_choice": {"_focus_spectra"},
    "_focus_search": {"_focus_choice", "_focus_evidence"},
    "autofocus": PHYSICS | FLOW | FOCUS | {"psf_regressor"},
    "_regularisation": {"operators", "richardson_lucy"},
    "_regularisation_choice": {"_regularisation", "operators"},
    "_image_psfs": {"operators"},
    "deconvolution": PHYSICS | FLOW | {"_image_psfs", "_regularisation", "_regularisation_choice"},
    "depth": PHYSICS | FLOW | DEPTH,
    "flow": PHYSICS | FLOW | {"_held_network"},
    "io": PHYSICS | FLOW | ESTIMATORS | {"_files"},
    "persistence": PHYSICS | FLOW | ESTIMATORS | {"_files"},
    "plotting": {"_validation"},
    "integrations": PHYSICS | FLOW | ESTIMATORS | {"_image_psfs", "io", "persistence", "plotting"},
    "": PHYSICS | FLOW | ESTIMATORS | {"io", "persistence", "plotting"},
}

REQUIRED = {
    "joblib",
    "numpy",
    "safetensors",
    "scipy",
    "skimage",
    "sklearn",
    "skorch",
    "tifffile",
    "torch",
    "tqdm",
}
# Third-party packages that only some parts may import: physics knows no estimators.
ONLY_IN = {
    "skorch": lambda module: module == "networks.training",
    "safetensors": lambda module: part_of(module) in {"networks", "persistence"},
    "tifffile": lambda module: part_of(module) in {"io", "simulation"},
}
STANDARD = set(sys.stdlib_module_names)


def part_of(module):
    return module.partition(".")[0]


def imported_modules(node, module, is_package):
    """Absolute names that an import statement of `module` (without the package's name) loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level == 0:
        base = node.module
    else:
        here = [NAME, *(module.split(".") if module else [])]
        parent = here[: len(here) - node.level + is_package]
        base = ".".join(parent + ([node.module] if node.module else []))
    # `from . import x` may load the module x; `from .x import y` loads x.
    if base == NAME:
        return [f"{base}.{alias.name}" for alias in node.names]
    if base.split(".")[0] == "sklearn":
        return [f"{base}.{alias.name}" for alias in node.names]
    return [base]


def check_source(source, module, is_package=False):
    """Return what is wrong with the imports of one module, as sentences."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported_modules(node, module, is_package):
                faults += check_import(name, module, id(node) in inside)
    if not any(isinstance(n, ast.Assign) and names(n) == {"__all__"} for n in tree.body):
        faults.append("has no __all__")
    return [f"{module or '__init__'}: {fault}" for fault in faults]


def names(assignment):
    return {getattr(target, "id", None) for target in assignment.targets}


def check_import(name, module, in_function):
    top, _, rest = name.partition(".")
    if top == NAME:
        return check_arrow(part_of(rest), module, in_function)
    faults = []
    if top == "sklearn" and any(part.startswith("_") for part in rest.split(".")):
        if "__" not in name:
            faults.append(f"imports private {name}")
    if top in ONLY_IN and not ONLY_IN[top](module):
        faults.append(f"must not import {top}")
    optional = top not in REQUIRED and top not in STANDARD
    if optional and not in_function and part_of(module) != "integrations":
        faults.append(f"imports optional {top} outside a function")
    if in_function and not optional:
        faults.append(f"imports {top} inside a function")
    if part_of(module) == "optics" and top in {"sklearn", "skimage"}:
        faults.append(f"physics must not import {top}")
    return faults


def check_arrow(target, module, in_function):
    here = part_of(module)
    faults = []
    if here not in ARROWS:
        faults.append("is not in the table of arrows")
    elif target != here and target not in ARROWS[here]:
        faults.append(f"must not import {target or NAME}")
    if in_function:
        faults.append(f"imports {target} inside a function")
    return faults


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield pytest.param(
            path, ".".join(parts[:-1] if is_package else parts), is_package, id="/".join(parts)
        )


@pytest.mark.parametrize(("path", "module", "is_package"), list(modules()))
def test_imports_go_down_only(path, module, is_package):
    assert check_source(path.read_text(encoding="utf-8"), module, is_package) == []


def test_all_names_what_exists():
    for name in sklearn_psf.__all__:
        assert hasattr(sklearn_psf, name), name


def test_arrows_have_no_cycle():
    remaining = dict(ARROWS)
    while remaining:
        free = [part for part, targets in remaining.items() if not targets & remaining.keys()]
        assert free, f"cycle among {sorted(remaining)}"
        for part in free:
            del remaining[part]


ALL = "__all__ = []\n"


@pytest.mark.parametrize(
    ("source", "module", "fault"),
    [
        ("from .psf_mapper import SpatialPSFMapper", "optics.pupil", None),
        ("from ..psf_mapper import SpatialPSFMapper", "optics.pupil", "import psf_mapper"),
        ("from .. import psf_mapper", "optics.pupil", "import psf_mapper"),
        ("import sklearn_psf.deconvolution", "psf_mapper", "import deconvolution"),
        ("from sklearn_psf import PSFMap", "psf_mapper", "import PSFMap"),
        ("from .psf_mapper import SpatialPSFMapper", "deconvolution", "import psf_mapper"),
        ("from .networks import load", "richardson_lucy", "import networks"),
        ("from .richardson_lucy import richardson_lucy", "deconvolution", None),
        ("from ..operators import gradient", "simulation.scenes", None),
        ("from .optics import Optics", "novelty", "not in the table"),
        ("from sklearn.utils import check_random_state", "optics.pupil", "physics"),
        ("import skorch", "psf_regressor", "must not import skorch"),
        ("from skorch import NeuralNet", "networks.training", None),
        ("import matplotlib.pyplot as plt", "plotting", "optional matplotlib outside"),
        ("def f():\n    import matplotlib.pyplot as plt", "plotting", None),
        ("def f():\n    import torch", "plotting", "inside a function"),
        ("def f():\n    from .optics import Optics", "_psf_map", "inside a function"),
        ("class A:\n    def f(self):\n        import os", "flow", "inside a function"),
        ("from sklearn.utils._param_validation import x", "flow", "private"),
        ("from sklearn.utils import _safe_indexing", "flow", "private"),
        ("from sklearn.utils.validation import check_is_fitted", "flow", None),
    ],
)
def test_the_checker_sees(source, module, fault):
    faults = check_source(ALL + source, module)
    assert (faults == []) if fault is None else (len(faults) == 1 and fault in faults[0]), faults


def test_the_checker_resolves_packages():
    assert check_source(ALL + "from .camera import Camera", "optics", is_package=True) == []
    assert check_source(ALL + "from ..flow import x", "optics", is_package=True) != []
    assert check_source(ALL + "from . import io", "", is_package=True) == []


def test_the_checker_wants_all():
    assert check_source("x = 1", "flow") == ["flow: has no __all__"]
