"""What windows on a grid know of each other: filling of gaps and smoothing of readings."""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

__all__ = ["fill_invalid", "smooth_grid"]

# Standard deviation of the second difference between neighbouring windows that the smoothness
# prior allows, in standard deviations of the parameter over its whole range.
_CURVATURE = 0.1
# Gaps filled at a time: the map of a large image has too many windows for all distances at once.
_CHUNK = 256


def fill_invalid(values, invalid, positions):
    """Fill rows of values by the inverse-square-distance average of the valid rows.

    Parameters
    ----------
    values : ndarray of shape (m, E)
        Encoded parameters of windows.
    invalid : ndarray of shape (m,), bool
        Which rows to fill; at least one must be valid.
    positions : ndarray of shape (m, 2)
        Where the windows are, pixels.

    Returns
    -------
    filled : ndarray of shape (m, E)
        The values with gaps filled.
    spread : ndarray of shape (m,)
        RMS deviation, over the E columns, of the rows that were averaged; 0 for valid rows.

    References
    ----------
    D. Shepard, "A two-dimensional interpolation function for irregularly-spaced data", Proc. 23rd
    ACM National Conference (1968).

    Examples
    --------
    >>> import numpy as np
    >>> values, gap = np.array([[1.0], [9.0], [3.0]]), np.array([False, True, False])
    >>> fill_invalid(values, gap, np.array([[0, 0], [0, 1], [0, 2]]))[0].ravel()
    array([1., 2., 3.])
    """
    filled, spread = values.copy(), np.zeros(len(values))
    known, gaps = values[~invalid], np.flatnonzero(invalid)
    for start in range(0, len(gaps), _CHUNK):
        some = gaps[start : start + _CHUNK]
        weights = _inverse_square_distances(positions[some], positions[~invalid])
        mean = weights @ known
        filled[some] = mean
        variance = (weights @ known**2 - mean**2).clip(0)
        spread[some] = np.sqrt(variance.mean(1))
    return filled, spread


def _inverse_square_distances(to, of):
    """Weights (len(to), len(of)) that sum to 1 along rows."""
    squared = ((to[:, np.newaxis] - of[np.newaxis]) ** 2).sum(-1, dtype=np.float64)
    weights = 1 / squared
    return weights / weights.sum(1, keepdims=True)


def smooth_grid(values, variance, prior_mean, prior_variance, strength=1.0):
    r"""Combine a grid of readings into the most probable smooth map.

    Each reading v with variance sigma^2 is the posterior mean of a network that saw one window, so
    the prior N(m, tau^2) of the training is in every one of them and draws them towards m. It must
    count once for the map, not once for each of its n windows. What a window itself says is the
    Gaussian quotient, of precision :math:`1/\sigma^2 - 1/\tau^2`; the map minimises, for each
    column,

    .. math:: \sum_i \frac{(x_i - v_i)^2}{\sigma_i^2}
              - \left(1 - \frac1n\right) \frac{(x_i - m)^2}{\tau^2}
              + \frac{s}{(\kappa \tau)^2} \sum
              (\partial_{yy} x)^2 + 2 (\partial_{xy} x)^2 + (\partial_{xx} x)^2

    with differences between neighbouring windows and kappa = 0.1: planes cost nothing, and readings
    without uncertainty stay as they are.

    Parameters
    ----------
    values : ndarray of shape (gy, gx, E)
        Readings.
    variance : ndarray of shape (gy, gx, E)
        Their variances; at most 0.99 of the prior's is taken, so that each says something.
    prior_mean, prior_variance : ndarray of shape (E,)
        The prior m, tau^2.
    strength : float
        s; 0 changes nothing.

    Returns
    -------
    ndarray of shape (gy, gx, E)
        The most probable map.

    References
    ----------
    G. Wahba, "Spline Models for Observational Data", SIAM (1990), for the thin-plate energy.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.random.RandomState(0).normal(0.8, 0.2, (6, 6, 1))
    >>> smooth = smooth_grid(values, np.full((6, 6, 1), 0.04), np.zeros(1), np.ones(1))
    >>> bool(smooth.std() < values.std() / 2)
    True
    """
    grid_y, grid_x, n_columns = values.shape
    n_windows = grid_y * grid_x
    if strength == 0 or n_windows < 3:
        return values
    bending = _bending_energy(grid_y, grid_x) * (strength / _CURVATURE**2)
    share = 1 - 1 / n_windows
    smooth = np.empty((n_windows, n_columns))
    for k, (m, tau2) in enumerate(zip(prior_mean, prior_variance, strict=True)):
        # In units of the prior's standard deviation, about its mean.
        v = (values[..., k].ravel() - m) / np.sqrt(tau2)
        reading = 1 / np.clip(variance[..., k].ravel() / tau2, 1e-12, 0.99)
        system = sparse.diags(reading - share) + bending
        smooth[:, k] = m + np.sqrt(tau2) * spsolve(system.tocsc(), reading * v)
    return smooth.reshape(values.shape)


def _bending_energy(grid_y, grid_x):
    """Matrix of the thin-plate energy of a grid, without the energy of planes."""
    rows, columns = ([_differences(n, k) for k in range(3)] for n in (grid_y, grid_x))
    energy = sparse.csr_matrix((grid_y * grid_x,) * 2)
    for weight, d_y, d_x in ((1, 2, 0), (2, 1, 1), (1, 0, 2)):
        operator = sparse.kron(rows[d_y], columns[d_x])
        energy = energy + weight * (operator.T @ operator)
    return energy


def _differences(n, order):
    """Matrix of differences of some order between neighbours; no rows where there are too few."""
    matrix = sparse.identity(n, format="csr")
    for _ in range(order):
        matrix = matrix[1:] - matrix[:-1]
    return matrix
