"""Save and load estimators and PSF maps: JSON and arrays in one safetensors file, never pickle.

The file's header holds a JSON document: a tree of tagged values in which every array is a
reference to a tensor. Loading builds only the classes of an explicit registry, by calling their
constructor with the stored parameters and setting their fitted attributes, so that a file from a
stranger can be wrong but cannot run anything.
"""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from ._files import check_new_file, write_atomically
from ._psf_map import PSFMap
from .autofocus import DeepFocusAutofocus
from .deconvolution import TVRLDeconvolver
from .depth import AstigmaticDepthEstimator
from .flow import BlurFlowEstimator
from .optics import Camera, Optics, PSFModel, make_psf_model
from .psf_mapper import SpatialPSFMapper
from .psf_regressor import PSFParameterRegressor

__all__ = ["load", "save"]

_FORMAT = "sklearn_psf"
_VERSION = 1
_ESTIMATORS = {
    cls.__name__: cls
    for cls in (
        AstigmaticDepthEstimator,
        BlurFlowEstimator,
        DeepFocusAutofocus,
        FrozenEstimator,
        PSFParameterRegressor,
        Pipeline,
        SpatialPSFMapper,
        TVRLDeconvolver,
    )
}
_RECORDS = {cls.__name__: cls for cls in (Camera, Optics, PSFMap)}


def save(obj, path, *, overwrite=False):
    """Save an estimator of this package, a Pipeline of them, or a `PSFMap`.

    Parameters
    ----------
    obj : estimator, Pipeline, FrozenEstimator or PSFMap
        What to save. Of an estimator, the constructor parameters and the fitted attributes (those
        that end in ``_``), nested estimators included.
    path : str or os.PathLike
        A file ending in ``.safetensors``; it appears complete or not at all.
    overwrite : bool, default=False
        Whether a file there may be replaced.

    Raises
    ------
    TypeError
        If something in `obj` is none of the kinds that the format knows; the message says where.
    FileExistsError
        If the file exists and `overwrite` is False.
    ValueError, FileNotFoundError
        If the path has another suffix or no folder.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn_psf import TVRLDeconvolver
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "deconvolver.safetensors")
    ...     save(TVRLDeconvolver(n_iter=7), path)
    ...     load(path)
    TVRLDeconvolver(n_iter=7)
    """
    path = check_new_file(path, suffixes=(".safetensors",), overwrite=overwrite)
    if not isinstance(obj, (*_ESTIMATORS.values(), PSFMap)):
        known = ", ".join([*_ESTIMATORS, "PSFMap"])
        raise TypeError(f"obj must be one of {known}; got {type(obj).__name__}.")
    arrays = {}
    document = json.dumps(_encode(obj, "obj", arrays), allow_nan=False)
    metadata = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "document": document,
        "sha256": _digest(document, arrays.items()),
    }
    with write_atomically(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)


def load(path):
    """Load what `save` wrote.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    estimator, Pipeline, FrozenEstimator or PSFMap
        As it was saved: fitted if it was fitted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not of this format or of a later version, is corrupt, or names a class that is
        not in the registry.

    See Also
    --------
    save : Write such a file.

    Examples
    --------
    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
    ...
    FileNotFoundError: path 'nowhere.safetensors' is not a file.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, got {path!r}.")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path {str(path)!r} is not a file.")
    try:
        document, arrays = _read(path)
        obj = _decode(json.loads(document), arrays)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise ValueError(f"path {str(path)!r} cannot be loaded as a {_FORMAT} file: {e}") from e
    if not isinstance(obj, (*_ESTIMATORS.values(), PSFMap)):
        raise ValueError(f"path {str(path)!r} holds no estimator and no PSFMap.")
    return obj


def _read(path):
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}")
        if metadata.get("version") != str(_VERSION):
            raise ValueError(
                f"its format version is {metadata.get('version')!r}, this package reads {_VERSION}"
            )
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    document = metadata["document"]
    if _digest(document, arrays.items()) != metadata["sha256"]:
        raise ValueError("its content does not match its checksum")
    return document, arrays


def _digest(document, items):
    digest = hashlib.sha256(document.encode())
    for key, array in sorted(items):
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _encode(value, where, arrays):
    """Return the JSON form of `value`; arrays go into `arrays`, a dict that is filled."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"type": "float", "value": repr(value)}
    if isinstance(value, torch.Tensor):
        return _encode_array(value.detach().cpu().numpy(), where, arrays) | {"type": "tensor"}
    if isinstance(value, (np.ndarray, np.generic)):
        return _encode_array(value, where, arrays)
    if type(value) in (list, tuple):
        items = [_encode(item, f"{where}[{i}]", arrays) for i, item in enumerate(value)]
        return {"type": type(value).__name__, "items": items}
    if type(value) is dict:
        pairs = [
            [_encode(key, where, arrays), _encode(item, f"{where}[{key!r}]", arrays)]
            for key, item in value.items()
        ]
        return {"type": "dict", "items": pairs}
    if isinstance(value, (Path, torch.device)):
        kind = "path" if isinstance(value, Path) else "device"
        return {"type": kind, "value": str(value)}
    return _encode_object(value, where, arrays)


def _encode_array(value, where, arrays):
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise TypeError(f"{where} has dtype {value.dtype}, which cannot be saved.")
    key = f"a{len(arrays)}"
    # The format is little-endian and contiguous; a 0-d array has to stay one.
    arrays[key] = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
    return {"type": "scalar" if isinstance(value, np.generic) else "array", "key": key}


def _encode_object(value, where, arrays):
    name = type(value).__name__

    def encode_all(members):
        return {k: _encode(v, f"{where}.{k}", arrays) for k, v in members.items()}

    if type(value) is _ESTIMATORS.get(name):
        fitted = {k: v for k, v in vars(value).items() if _is_fitted_name(k)}
        return {
            "type": "estimator",
            "class": name,
            "params": encode_all(value.get_params(deep=False)),
            "fitted": encode_all(fitted),
        }
    if type(value) is _RECORDS.get(name):
        fields = {k: getattr(value, k) for k in value.__dataclass_fields__}
        return {"type": "record", "class": name, "fields": encode_all(fields)}
    if isinstance(value, PSFModel):
        members = {"settings": value.settings, "optics": value.optics}
        return {"type": "psf_model"} | encode_all(members)
    hint = "; pass an int as seed" if isinstance(value, np.random.RandomState) else ""
    raise TypeError(f"{where} is a {name}, which cannot be saved{hint}.")


def _is_fitted_name(name):
    return name.endswith("_") and not name.startswith("_") and name.isidentifier()


def _decode(node, arrays):
    if isinstance(node, (list, dict)) and not (isinstance(node, dict) and "type" in node):
        raise ValueError("its document holds an untagged container")
    if not isinstance(node, dict):
        return node
    if node["type"] not in _DECODERS:
        raise ValueError(f"it holds the unknown kind {node['type']!r}")
    return _DECODERS[node["type"]](node, arrays)


def _decode_all(members, arrays):
    return {key: _decode(value, arrays) for key, value in members.items()}


def _decode_items(node, arrays):
    return [_decode(item, arrays) for item in node["items"]]


def _decode_dict(node, arrays):
    return {_decode(key, arrays): _decode(value, arrays) for key, value in node["items"]}


def _registered(registry, node):
    if node["class"] not in registry:
        raise ValueError(f"it names the unknown class {node['class']!r}")
    return registry[node["class"]]


def _decode_estimator(node, arrays):
    estimator = _registered(_ESTIMATORS, node)(**_decode_all(node["params"], arrays))
    for name, value in _decode_all(node["fitted"], arrays).items():
        if not _is_fitted_name(name):
            raise ValueError(f"{name!r} is no fitted attribute")
        setattr(estimator, name, value)
    return estimator


def _decode_record(node, arrays):
    return _registered(_RECORDS, node)(**_decode_all(node["fields"], arrays))


def _decode_psf_model(node, arrays):
    settings = _decode(node["settings"], arrays)
    return make_psf_model(**settings, optics=_decode(node["optics"], arrays))


_DECODERS = {
    "array": lambda node, arrays: arrays[node["key"]],
    "device": lambda node, arrays: torch.device(node["value"]),
    "dict": _decode_dict,
    "estimator": _decode_estimator,
    "float": lambda node, arrays: float(node["value"]),
    "list": _decode_items,
    "path": lambda node, arrays: Path(node["value"]),
    "psf_model": _decode_psf_model,
    "record": _decode_record,
    "scalar": lambda node, arrays: arrays[node["key"]][()],
    "tensor": lambda node, arrays: torch.from_numpy(arrays[node["key"]]),
    "tuple": lambda node, arrays: tuple(_decode_items(node, arrays)),
}
