"""Weights on disk: one safetensors file and one JSON card each, checked before use."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as format_safetensors

__all__ = [
    "FORMAT_VERSION",
    "load_pretrained",
    "pretrained_names",
    "save_weights",
    "scale_of_context",
]

FORMAT_VERSION = 1
_FOLDER = Path(__file__).parent / "pretrained"
_REQUIRED = ("format_version", "weight_version", "psf_model", "architecture", "patch_size",
             "sha256")  # fmt: skip


def pretrained_names():
    """Return the names of the weights shipped with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def save_weights(state, card, path):
    """Write weights as half-precision safetensors with their card beside them.

    Parameters
    ----------
    state : dict of str to ndarray
        Network state. Weight matrices and filters are stored in 16 bits, vectors in 32.
    card : dict
        What the weights are: at least weight_version, psf_model (settings), architecture and
        patch_size. The format version and the sha256 of the weights are added.
    path : str or Path
        The .safetensors file; the card takes the suffix .json. Both are replaced if they exist.

    Returns
    -------
    dict
        The whole card.
    """
    path = Path(path)
    small = {name: _half(np.asarray(value)) for name, value in state.items()}
    data = format_safetensors(small)
    card = {"format_version": FORMAT_VERSION, **card, "sha256": hashlib.sha256(data).hexdigest()}
    path.with_suffix(".safetensors").write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def scale_of_context(card, patch_size):
    """Return what calibrates the standard deviations of readings of patches of a size.

    Parameters
    ----------
    card : dict
        "std_scale" is for patches of its own "patch_size", "std_scales" holds those of larger
        ones by their size, as a string.
    patch_size : int
        Pixels.

    Returns
    -------
    list of float or float
        Factors of the parameters, for the nearest size; 1 if the card has none.

    Examples
    --------
    >>> card = {"patch_size": 128, "std_scale": [1.1], "std_scales": {"256": [0.7]}}
    >>> scale_of_context(card, 320)
    [0.7]
    """
    scales = {int(card["patch_size"]): card.get("std_scale", 1.0)}
    scales |= {int(size): scale for size, scale in card.get("std_scales", {}).items()}
    return scales[min(scales, key=lambda size: abs(size - patch_size))]


def _half(value):
    if value.dtype.kind != "f" or value.ndim < 2:
        return np.asarray(value, order="C")  # unlike ascontiguousarray, 0-d stays 0-d
    return np.asarray(value, dtype=np.float16, order="C")


def load_pretrained(name):
    """Load weights by their shipped name or from a file.

    Parameters
    ----------
    name : str or Path
        One of `pretrained_names`, or the path of a .safetensors file with its card beside it.

    Returns
    -------
    state : dict of str to ndarray
        Network state, float32. The arrays are read-only and shared between calls.
    card : dict
        The card.

    Raises
    ------
    ValueError
        If the name is unknown, the file or card is missing, corrupt, of an unknown format, or the
        weights do not have the hash that the card states.
    """
    if not isinstance(name, (str, Path)):
        raise ValueError(f"pretrained must be a name or a path, got {name!r}.")
    path = Path(name)
    if str(name) in pretrained_names():
        path = _FOLDER / f"{name}.safetensors"
    elif path.suffix != ".safetensors":
        raise ValueError(
            f"pretrained={str(name)!r} is neither a shipped name ({', '.join(pretrained_names())}) "
            "nor the path of a .safetensors file."
        )
    for part in (path, path.with_suffix(".json")):
        if not part.is_file():
            raise ValueError(f"pretrained={str(name)!r}: there is no file {part.name}.")
    return _load(path, path.stat().st_mtime_ns, path.with_suffix(".json").stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _load(path, *stamps):
    """Read and check one file; the time stamps are in the key so that a new file is read anew."""
    card = _read_card(path.with_suffix(".json"))
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise ValueError(
            f"pretrained weights {path.name} are corrupt or foreign: their sha256 is "
            f"{digest[:12]}..., the card says {str(card['sha256'])[:12]}..."
        )
    try:
        tensors = parse_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"pretrained weights {path.name} are not safetensors: {error}") from None
    state = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in tensors.items()}
    for value in state.values():
        value.flags.writeable = False
    return state, card


def _read_card(path):
    try:
        card = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"The card {path.name} is not JSON: {error}") from None
    version = card.get("format_version") if isinstance(card, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"The card {path.name} has format_version {version!r}; this version reads "
            f"{FORMAT_VERSION}."
        )
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise ValueError(f"The card {path.name} lacks {', '.join(missing)}.")
    return card
