"""Checks of user input and the two conversions every estimator needs.

Everything here runs before any long work, so that bad input costs a sentence and not an hour.
"""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = [
    "check_bool",
    "check_choice",
    "check_device",
    "check_generator",
    "check_image_list",
    "check_images",
    "check_number",
]

# Finiteness of a memmap is checked in blocks, so that the whole file never enters memory.
_BLOCK_BYTES = 2**26


def check_number(name, value, *, low=None, high=None, integer=False, open_low=False):
    """Raise if `value` is not a finite real number within ``[low, high]``.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : object
        The value to check.
    low, high : float or None
        Bounds, included; None leaves that side open.
    integer : bool
        Whether only integers are accepted.
    open_low : bool
        Whether `low` itself is excluded.

    Raises
    ------
    TypeError
        If `value` is not a number of the asked kind.
    ValueError
        If it is not finite or out of range.
    """
    kind = Integral if integer else Real
    if not isinstance(value, kind) or isinstance(value, (bool, np.bool_)):
        wanted = "an integer" if integer else "a real number"
        raise TypeError(f"{name} must be {wanted}, got {value!r}.")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}.")
    too_low = low is not None and (value <= low if open_low else value < low)
    if too_low or (high is not None and value > high):
        left = "(" if open_low or low is None else "["
        right = ")" if high is None else "]"
        low_text = "-inf" if low is None else low
        high_text = "inf" if high is None else high
        raise ValueError(f"{name} must be in {left}{low_text}, {high_text}{right}, got {value!r}.")


def check_bool(name, value):
    """Raise a TypeError if a value is neither True nor False.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : object
        The value to check.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_choice(name, value, choices):
    """Raise a ValueError that lists the `choices` if `value` is not one of them.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : object
        The value to check.
    choices : iterable of str
        What is accepted.

    Raises
    ------
    ValueError
        If `value` is none of the choices.
    """
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def _check_dtype(array, name):
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}.")
    if array.dtype.kind not in "uifb":
        raise ValueError(
            f"{name} must hold real numbers, got dtype {array.dtype}. Unable to convert it to "
            "numeric images."
        )


def _check_finite(array, name):
    if array.dtype.kind != "f":
        return
    flat = array if array.ndim == 2 else array.reshape(-1, array.shape[-1])
    step = max(1, _BLOCK_BYTES // max(1, flat.shape[-1] * flat.itemsize))
    for start in range(0, flat.shape[0], step):
        block = np.asarray(flat[start : start + step])
        if not np.isfinite(block).all():
            raise ValueError(f"Input {name} contains NaN or infinity; images must be finite.")


def _check_size(shape, name, min_size):
    height, width = shape
    if min(height, width) < min_size:
        raise ValueError(
            f"Images of {name} are {height} x {width} pixels, smaller than the minimum of "
            f"{min_size} x {min_size} required."
        )


def _as_array(X, name):
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(
            f"A sparse {name} was passed, but dense images (n, H, W) are required. Use "
            f"{name}.toarray() to convert it."
        )
    if isinstance(X, np.ndarray):  # np.memmap included: it stays on disk
        return X
    try:
        return np.asarray(X)
    except ValueError:
        raise ValueError(
            f"{name} is a ragged list of images of different sizes; images (n, H, W) must share "
            "one size. Pass one image per call, as image[np.newaxis]."
        ) from None


def check_images(X, *, name="X", min_size=1):
    """Check a batch of images and return it as an array, neither cast nor copied.

    Parameters
    ----------
    X : array-like of shape (n, H, W)
        Images of any real dtype. A `numpy.memmap` stays one.
    name : str
        Name of the argument, for messages.
    min_size : int
        Smallest accepted height and width, in pixels.

    Returns
    -------
    ndarray of shape (n, H, W)
        The same data.

    Raises
    ------
    ValueError
        If the array is not three-dimensional, has a colour axis, is empty, smaller than
        `min_size`, ragged, not numeric, complex, or not finite.
    TypeError
        If it is a sparse matrix.

    Examples
    --------
    >>> import numpy as np
    >>> check_images(np.zeros((2, 8, 9), dtype=np.uint16)).shape
    (2, 8, 9)
    """
    if isinstance(X, (list, tuple)) and all(isinstance(x, np.ndarray) for x in X):
        shapes = sorted({x.shape for x in X})
        if len(shapes) > 1:
            raise ValueError(
                f"{name} is a ragged list of images of shapes {shapes[:3]}; images (n, H, W) must "
                "share one size. Pass one image per call, as image[np.newaxis]."
            )
    array = _as_array(X, name)
    if array.ndim == 2:
        raise ValueError(
            f"Expected 3D images (n, H, W) for {name}, got 2D array of shape {array.shape} "
            f"instead. Reshape your data: for one image use {name}[np.newaxis]."
        )
    if array.ndim != 3:
        hint = ""
        if array.ndim == 4 and array.shape[-1] in (3, 4):
            hint = " The last axis looks like colour: take one channel or the luminance."
        raise ValueError(
            f"Expected 3D images (n, H, W) for {name}, got {array.ndim}D array of shape "
            f"{array.shape} instead. Reshape your data.{hint}"
        )
    _check_dtype(array, name)
    if array.size == 0:
        raise ValueError(
            f"Found array with {array.shape[0]} sample(s) (shape={array.shape}) for {name} "
            "while a minimum of 1 image of 1 x 1 pixels is required."
        )
    if array.shape[-1] in (3, 4) and min(array.shape[:2]) > 4:
        raise ValueError(
            f"{name} has shape {array.shape}: the last axis of {array.shape[-1]} looks like "
            f"colour. Take one channel or the luminance and pass it as image[np.newaxis]."
        )
    _check_size(array.shape[1:], name, min_size)
    _check_finite(array, name)
    return array


def check_image_list(X, *, name="X", min_size=1):
    """Check images that are only drawn from: an array (n, H, W) or a list of 2-D arrays.

    Parameters
    ----------
    X : array-like of shape (n, H, W) or list of array-like of shape (H_i, W_i)
        The images, of any sizes.
    name : str
        Name of the argument, for messages.
    min_size : int
        Smallest accepted height and width, in pixels.

    Returns
    -------
    list of ndarray of shape (H_i, W_i)
        The same images.

    Raises
    ------
    ValueError, TypeError
        As `check_images`, for each image.

    Examples
    --------
    >>> import numpy as np
    >>> [image.shape for image in check_image_list([np.ones((4, 5)), np.ones((7, 6))])]
    [(4, 5), (7, 6)]
    """
    if not isinstance(X, (list, tuple)):
        return list(check_images(X, name=name, min_size=min_size))
    if len(X) == 0:
        raise ValueError(f"Found 0 sample(s) for {name} while a minimum of 1 image is required.")
    arrays = [_as_array(image, f"{name}[{i}]") for i, image in enumerate(X)]
    if all(array.ndim < 2 for array in arrays):  # rows of one image: let the array check speak
        return list(check_images(X, name=name, min_size=min_size))
    images = []
    for i, array in enumerate(arrays):
        image_name = f"{name}[{i}]"
        if array.ndim != 2:
            hint = ""
            if array.ndim == 3 and array.shape[-1] in (3, 4):
                hint = " The last axis looks like colour: take one channel or the luminance."
            raise ValueError(
                f"Expected a list of 2D images, got {image_name} of shape {array.shape}.{hint}"
            )
        images.extend(check_images(array[np.newaxis], name=image_name, min_size=min_size))
    return images


def check_device(device):
    """Return the torch device to work on.

    Parameters
    ----------
    device : str, torch.device or None
        None takes CUDA where it is available, else the CPU.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If torch does not know the device or cannot use it here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {error}") from None
    return device


def check_generator(random_state, device="cpu"):
    """Turn a scikit-learn `random_state` into a torch generator.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None
        The seed, as everywhere in scikit-learn.
    device : str or torch.device
        Where the generator draws.

    Returns
    -------
    torch.Generator
        Same seed, same numbers; no global state is touched.

    Raises
    ------
    ValueError
        If `random_state` cannot be used to seed.
    """
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return torch.Generator(device=device).manual_seed(int(seed))
