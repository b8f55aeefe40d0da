"""How well PSF parameters are predicted, angles included."""

import numpy as np

__all__ = ["parameter_r2"]


def parameter_r2(y_true, y_pred, *, periods=None, multioutput="uniform_average"):
    r"""Coefficient of determination of PSF parameters, with angles as points on a circle.

    .. math:: R^2 = 1 - \frac{\sum_i |e(y_i) - e(\hat y_i)|^2}{\sum_i |e(y_i) - \bar e|^2}

    where e(a) is the parameter itself, or ``(cos, sin)(2 pi a / period)`` of an angle, both
    components pooled into one R^2.

    Parameters
    ----------
    y_true : array-like of shape (..., P) or (n,)
        True parameters. A row with a NaN is left out.
    y_pred : array-like of the same shape
        Predicted parameters.
    periods : sequence of (float or None) of length P, optional
        Period of each parameter that is an angle, None for the others.
    multioutput : {"uniform_average", "raw_values"}
        Mean over parameters, or one value for each.

    Returns
    -------
    float or ndarray of shape (P,)
        R^2; a parameter that is constant scores 1 if it is met exactly, else 0.

    Raises
    ------
    ValueError
        If shapes or `periods` do not fit, fewer than two rows are without NaN, or a prediction
        that counts is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([[0.1, 0.0], [0.6, 1.0], [1.1, 2.0], [np.nan, np.nan]])
    >>> parameter_r2(y, y + [0.0, np.pi], periods=[None, np.pi])
    1.0
    """
    if multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(
            f"multioutput must be 'uniform_average' or 'raw_values', got {multioutput!r}."
        )
    y_true, y_pred = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    if y_true.shape != y_pred.shape or y_true.ndim == 0:
        raise ValueError(
            f"y_true and y_pred must have one shape, got {y_true.shape} and {y_pred.shape}."
        )
    n_parameters = 1 if y_true.ndim == 1 else y_true.shape[-1]
    y_true, y_pred = y_true.reshape(-1, n_parameters), y_pred.reshape(-1, n_parameters)
    periods = _check_periods(periods, n_parameters)
    rows = ~np.isnan(y_true).any(axis=1)
    if rows.sum() < 2:
        raise ValueError(f"y_true must have at least 2 rows without NaN, got {rows.sum()}.")
    if not (np.isfinite(y_pred[rows]).all() and np.isfinite(y_true[rows]).all()):
        raise ValueError("y_true and y_pred must be finite where y_true is not NaN.")
    scores = np.array(
        [
            _pooled_r2(_on_circle(t, period), _on_circle(p, period))
            for t, p, period in zip(y_true[rows].T, y_pred[rows].T, periods, strict=True)
        ]
    )
    return scores if multioutput == "raw_values" else float(scores.mean())


def _check_periods(periods, n_parameters):
    periods = (None,) * n_parameters if periods is None else tuple(periods)
    if len(periods) != n_parameters:
        raise ValueError(f"periods must have length {n_parameters}, got {len(periods)}.")
    for period in periods:
        if period is not None and not (np.isfinite(period) and period > 0):
            raise ValueError(f"periods must be positive or None, got {period!r}.")
    return periods


def _on_circle(values, period):
    """Coordinates (n, 1) of a number or (n, 2) of an angle."""
    if period is None:
        return values[:, None]
    phase = 2 * np.pi * values / period
    return np.stack([np.cos(phase), np.sin(phase)], axis=1)


def _pooled_r2(truth, prediction):
    residual = ((truth - prediction) ** 2).sum()
    total = ((truth - truth.mean(axis=0)) ** 2).sum()
    if total == 0:
        return float(residual == 0)
    return 1 - residual / total
