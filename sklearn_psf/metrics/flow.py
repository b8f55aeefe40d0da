"""How well a motion was read off a blur that may not tell its sense."""

import numpy as np

from .regression import parameter_r2

__all__ = ["align_sense", "flow_r2", "sense_accuracy"]


def align_sense(motion, reference):
    """Turn lateral motions round where they point against a reference.

    Parameters
    ----------
    motion, reference : array-like of shape (n, 4, ...)
        v_y, v_x, v_z and z0.

    Returns
    -------
    ndarray of shape (n, 4, ...)
        `motion`, with (v_y, v_x) negated where its product with the reference is negative.

    Examples
    --------
    >>> align_sense([[3.0, -1.0, 0.5, 0.2]], [[-2.0, 1.0, 0.4, 0.2]]).tolist()
    [[-3.0, 1.0, 0.5, 0.2]]
    """
    motion, reference = _checked(motion, reference)
    against = (motion[:, :2] * reference[:, :2]).sum(1, keepdims=True) < 0
    lateral = np.where(against, -motion[:, :2], motion[:, :2])
    return np.concatenate([lateral, motion[:, 2:]], 1)


def flow_r2(y_true, y_pred, *, kind="aligned", multioutput="uniform_average"):
    """Coefficient of determination of motions, over all valid pixels.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n, 4, ...)
        v_y, v_x, v_z and z0; pixels where the truth has NaN are left out.
    kind : {"aligned", "magnitude", "signed"}
        "aligned" turns the lateral motion into the sense of the truth, pixel by pixel; "magnitude"
        compares the absolute values of all components, as published; "signed" changes nothing.
    multioutput : {"uniform_average", "raw_values"}
        Mean of the four components, or an array of them.

    Returns
    -------
    float or ndarray of shape (4,)
        At most 1.

    Raises
    ------
    ValueError
        If shapes or `kind` are wrong, or fewer than two pixels are valid.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.random.RandomState(0).randn(1, 4, 8, 8)
    >>> flow_r2(truth, truth * [[[[-1]], [[-1]], [[1]], [[1]]]])
    1.0
    """
    y_true, y_pred = _checked(y_true, y_pred)
    if kind not in ("aligned", "magnitude", "signed"):
        raise ValueError(f"kind must be 'aligned', 'magnitude' or 'signed', got {kind!r}.")
    if kind == "aligned":
        y_pred = align_sense(y_pred, y_true)
    if kind == "magnitude":
        y_true, y_pred = np.abs(y_true), np.abs(y_pred)
    y_true, y_pred = np.moveaxis(y_true, 1, -1), np.moveaxis(y_pred, 1, -1)
    return parameter_r2(y_true, y_pred, multioutput=multioutput)


def sense_accuracy(y_true, y_pred, *, least_speed=5.0, least_axial=0.3):
    """Share of pixels whose lateral sense is right, where it can be told.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n, 4, ...)
        v_y, v_x, v_z and z0.
    least_speed : float
        Pixels with a slower true lateral motion are left out, pixels per exposure.
    least_axial : float
        Pixels with a smaller true v_z or z0 are left out: there the sense is lost; waves.

    Returns
    -------
    float
        Between 0 and 1; NaN if no pixel is left.

    Examples
    --------
    >>> sense_accuracy([[0.0, 9.0, 0.5, 0.5]] * 2, [[1.0, 9.0, 0.4, 0.4], [0.0, -8.0, 0.4, 0.4]])
    0.5
    """
    y_true, y_pred = _checked(y_true, y_pred)
    with np.errstate(invalid="ignore"):
        told = np.hypot(y_true[:, 0], y_true[:, 1]) > least_speed
        told &= (y_true[:, 2] > least_axial) & (np.abs(y_true[:, 3]) > least_axial)
        right = (y_true[:, :2] * y_pred[:, :2]).sum(1) > 0
    return float(right[told].mean()) if told.any() else np.nan


def _checked(*arrays):
    arrays = [np.asarray(array, dtype=np.float64) for array in arrays]
    for array in arrays:
        if array.ndim < 2 or array.shape[1] != 4 or array.shape != arrays[0].shape:
            shapes = " and ".join(str(array.shape) for array in arrays)
            raise ValueError(f"motions must have one shape (n, 4, ...), got {shapes}.")
    return arrays
