"""The most probable surface through noisy depths of windows."""

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import spsolve

from .operators import windows

__all__ = ["edge_aware_surface", "interleaved_surface", "interpolate_grid", "smooth_surface"]

_MOST = 900  # depths that a surface is fitted to; more are averaged in blocks first
_FLAT = 0.4  # probability of a plane, before anything is seen
_LENGTHS = {0.17: 0.2, 0.35: 0.4, 0.8: 0.4}  # of the larger side of the frame: probability
_RATIOS = (0.3, 1.2, 5.0, 20.0, 80.0, 300.0)  # surface to noise, variances
_NUGGET = 0.2  # part of a reading's variance that no neighbour shares
_STUDENT = 4.0  # degrees of freedom of the noise
_N_ROUNDS = 5
_APART = 1.0  # of a window: distance from which errors of compared windows are taken as separate


def smooth_surface(depth, std, positions, window):
    r"""Smooth surface through depths whose errors overlap, by universal kriging.

    .. math:: z(r) = b_0 + b_1^T r + u(r), \qquad d_i = z(r_i) + e_i

    u is a Gaussian field of unknown variance and range (squared-exponential covariance) about a
    plane that costs nothing. The errors e_i have the given standard deviations up to an unknown
    factor, and those of windows that overlap are correlated by the area they share, since they see
    the same texture. The factor maximises the restricted likelihood, by which surfaces of several
    ranges and variances are averaged; depths far off the surface are given less weight (Student's
    t).

    Parameters
    ----------
    depth, std : ndarray of shape (m,)
        Depths and standard deviations; NaN where there is none.
    positions : ndarray of shape (m, 2)
        Where they are, pixels.
    window : (float, float)
        Height and width of the windows, pixels.

    Returns
    -------
    mean, deviation : ndarray of shape (m,)
        The surface and its standard deviation at every position; as given where fewer than six
        depths are known.

    References
    ----------
    M. L. Stein, "Interpolation of Spatial Data: Some Theory for Kriging", Springer (1999).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.RandomState(0)
    >>> positions = np.argwhere(np.ones((8, 8))) * 32.0
    >>> plane = positions @ [0.02, 0.01]
    >>> noisy = plane + rng.normal(0, 1, 64)
    >>> mean, deviation = smooth_surface(noisy, np.ones(64), positions, window=(1, 1))
    >>> bool(np.abs(mean - plane).mean() < 0.5)
    True
    """
    known = np.isfinite(depth) & np.isfinite(std)
    if known.sum() < 6:
        return depth.copy(), std.copy()
    data = depth[known], np.maximum(std[known], _least(std[known])), positions[known]
    values, sigma, places = _averaged(*data) if known.sum() > _MOST else data
    extent = max(np.ptp(positions, 0).max(), 1.0)
    middle = positions.mean(0)
    fit = _Kriging((places - middle) / extent, np.asarray(window) / extent)
    inflation = np.ones(len(values))
    for _ in range(_N_ROUNDS):
        fit.solve(values, sigma * inflation)
        residual = fit.residual(values) / (np.sqrt(fit.noise) * sigma)
        inflation = np.sqrt(np.maximum((_STUDENT + residual**2) / (_STUDENT + 1), 1))
    parts = np.array_split((positions - middle) / extent, max(1, len(positions) // 4096))
    return tuple(np.concatenate(part) for part in zip(*map(fit.predict, parts), strict=True))


def interleaved_surface(depth, std, rows, columns, window):
    """Smooth surface through a grid of depths whose errors are smooth themselves.

    Windows that were compared with one another err alike far beyond the pixels that they share, and
    `smooth_surface` would take that for the shape of the sample. It is therefore given one of
    several coarser grids at a time; the result is their mean.

    Parameters
    ----------
    depth, std : ndarray of shape (gy, gx)
        Depths and standard deviations; NaN where there is none.
    rows, columns : ndarray of shape (gy,) and (gx,)
        Where they are, pixels.
    window : (float, float)
        Height and width of the windows, pixels.

    Returns
    -------
    mean, deviation : ndarray of shape (gy, gx)
        Of the mixture of the surfaces; as given where no grid has six known depths.

    Examples
    --------
    >>> import numpy as np
    >>> grid = np.arange(8) * 32.0
    >>> plane = np.add.outer(0.02 * grid, 0.01 * grid)
    >>> mean, _ = interleaved_surface(plane, np.ones((8, 8)), grid, grid, (64, 64))
    >>> bool(np.allclose(mean, plane, atol=1e-3))
    True
    """
    positions = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    steps = [
        max(1, min(int(np.ceil(_APART * size / np.diff(at).mean())), len(at) // 3))
        if len(at) > 1
        else 1
        for at, size in zip((rows, columns), window, strict=True)
    ]
    surfaces = []
    for offset in np.ndindex(*steps):
        part = tuple(slice(o, None, step) for o, step in zip(offset, steps, strict=True))
        chosen = np.full(depth.shape, np.nan)
        chosen[part] = depth[part]
        if np.isfinite(chosen).sum() >= 6:
            surfaces.append(smooth_surface(chosen.ravel(), std.ravel(), positions, window))
    if not surfaces:
        return depth.copy(), std.copy()
    means, deviations = np.stack(surfaces, 1).reshape(2, len(surfaces), *depth.shape)
    return means.mean(0), np.sqrt((deviations**2).mean(0) + means.var(0))


def _least(std):
    """No reading is so sure that it rules alone."""
    return max(0.3 * float(np.median(std)), 1e-9)


def _averaged(depth, std, positions):
    """Depths, standard deviations and positions averaged in square blocks."""
    low, high = positions.min(0), positions.max(0)
    side = np.sqrt(np.prod(np.maximum(high - low, 1)) / (0.7 * _MOST))
    blocks = np.floor((positions - low) / max(side, 1e-9)).astype(int)
    _, inverse, count = np.unique(blocks, axis=0, return_inverse=True, return_counts=True)
    weights = std**-2
    total = np.bincount(inverse.ravel(), weights)

    def mean(values):
        return np.bincount(inverse.ravel(), weights * values) / total

    places = np.stack([mean(column) for column in positions.T], -1)
    # Neighbours see the same texture: averaging does not make them surer.
    return mean(depth), np.sqrt(count / total), places


class _Kriging:
    """Average over ranges and ratios of variances, by their restricted likelihood."""

    def __init__(self, places, window):
        self.places = places
        distance = np.abs(places[:, None] - places[None])
        shared = np.clip(1 - distance / np.maximum(window, 1e-9), 0, None).prod(-1)
        self.shared = (1 - _NUGGET) * shared + _NUGGET * np.eye(len(places))
        # A single row or column of windows has no slope across.
        self.columns = np.r_[True, np.ptp(places, 0) > 1e-6]
        self.fields = {length: _field(places, places, length) for length in _LENGTHS}

    def _basis(self, at):
        return np.column_stack([np.ones(len(at)), at])[:, self.columns]

    def solve(self, values, sigma):
        """Fit every candidate, and keep those that count."""
        unit = float(np.median(sigma)) ** 2
        noise = self.shared * np.outer(sigma, sigma) + 1e-9 * unit * np.eye(len(values))
        flat = (0.0, 0.8, _FLAT)
        curved = [(r, k, (1 - _FLAT) * p) for r in _RATIOS for k, p in _LENGTHS.items()]
        fits = []
        for ratio, length, prior in [flat, *((r, k, p / len(_RATIOS)) for r, k, p in curved)]:
            fit = self._solve_one(values, noise, ratio * unit, length)
            fits.append((fit["score"] / 2 + np.log(prior), fit))
        best = max(score for score, _ in fits)
        fits = [(np.exp(score - best), fit) for score, fit in fits if score - best > -6]
        total = sum(weight for weight, _ in fits)
        self.fits = [(weight / total, fit) for weight, fit in fits]
        self.noise = sum(weight * fit["noise"] for weight, fit in self.fits)

    def _solve_one(self, values, noise, variance, length):
        basis = self._basis(self.places)
        factor = cho_factor(noise + variance * self.fields[length], lower=True)
        plain = cho_solve(factor, basis)
        normal = basis.T @ plain
        plane = np.linalg.solve(normal, plain.T @ values)
        dual = cho_solve(factor, values - basis @ plane)
        free = len(values) - basis.shape[1]
        scale = max((values @ dual) / free, 1e-18)
        score = -free * np.log(scale) - 2 * np.log(np.diag(factor[0])).sum()
        return {
            "score": score - np.linalg.slogdet(normal)[1],
            "noise": scale,
            "variance": variance,
            "length": length,
            "plane": plane,
            "dual": dual,
            "factor": factor,
            "plain": plain,
            "normal": normal,
        }

    def residual(self, values):
        """What is left of the values after the surface."""
        return values - self.predict(self.places)[0]

    def predict(self, at):
        """Surface and its standard deviation at some places."""
        parts = [(weight, *self._predict_one(at, fit)) for weight, fit in self.fits]
        mean = sum(weight * m for weight, m, _ in parts)
        return mean, np.sqrt(sum(weight * (v + (m - mean) ** 2) for weight, m, v in parts))

    def _predict_one(self, at, fit):
        across = fit["variance"] * _field(at, self.places, fit["length"])
        basis = self._basis(at)
        mean = basis @ fit["plane"] + across @ fit["dual"]
        left = basis - across @ fit["plain"]
        variance = fit["variance"] - np.einsum(
            "ij,ji->i", across, cho_solve(fit["factor"], across.T)
        )
        variance += np.einsum("ij,ji->i", left, np.linalg.solve(fit["normal"], left.T))
        return mean, fit["noise"] * np.maximum(variance, 0)


def _field(a, b, length):
    """Correlation of a smooth Gaussian field."""
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.exp(-squared / (2 * length**2))


def edge_aware_surface(depth, std, n_iter=30):
    r"""Surface of few jumps through a grid of depths, by a penalty on its total variation.

    .. math:: \min_z \sum_i \frac{(z_i - d_i)^2}{2 \sigma_i^2} + \frac{1}{b} \sum |\nabla z|

    b, the mean difference between neighbours, is re-estimated from the surface as it forms.

    Parameters
    ----------
    depth, std : ndarray of shape (gy, gx)
        Depths and standard deviations; NaN where there is none.
    n_iter : int, default=30
        Steps of iterative reweighting.

    Returns
    -------
    ndarray of shape (gy, gx)
        The surface; as given where nothing is known.

    References
    ----------
    L. I. Rudin, S. Osher, E. Fatemi, "Nonlinear total variation based noise removal algorithms",
    Physica D 60 (1992) 259-268.

    Examples
    --------
    >>> import numpy as np
    >>> step = np.where(np.arange(8) < 4, 0.0, 9.0) * np.ones((8, 1))
    >>> noisy = step + np.random.RandomState(0).normal(0, 1, (8, 8))
    >>> smooth = edge_aware_surface(noisy, np.ones((8, 8)))
    >>> bool(np.abs(smooth - step).mean() < 0.5)
    True
    """
    known = np.isfinite(depth) & np.isfinite(std)
    if not known.any():
        return depth.copy()
    least = _least(std[known])
    precision = np.where(known, 1 / np.maximum(np.where(known, std, 1), least) ** 2, 0).ravel()
    values = np.where(known, depth, 0).ravel()
    gy, gx = depth.shape
    steps = [
        sparse.kron(_difference(gy), sparse.identity(gx)),
        sparse.kron(sparse.identity(gy), _difference(gx)),
    ]
    operator = sparse.vstack(steps).tocsr()
    if operator.shape[0] == 0:
        return depth.copy()
    surface = np.where(known, depth, np.nanmedian(depth[known])).ravel()
    for _ in range(n_iter):
        jump = np.abs(operator @ surface)
        scale = max(jump.mean(), 0.05 * least)
        weights = 1 / (scale * np.maximum(jump, 0.01 * scale))
        system = sparse.diags(precision) + operator.T @ sparse.diags(weights) @ operator
        surface = spsolve(system.tocsc(), precision * values)
    return surface.reshape(depth.shape)


def _difference(n):
    return sparse.diags([-np.ones(n), np.ones(n - 1)], [0, 1], shape=(n - 1, n))


def interpolate_grid(values, rows, columns, shape):
    """Interpolate values on a grid of windows to every pixel, bilinearly, passing over NaN.

    Parameters
    ----------
    values : ndarray of shape (n, gy, gx)
        Values; NaN where there is none.
    rows, columns : ndarray of shape (gy,) and (gx,)
        Window centres, pixels.
    shape : (int, int)
        Height and width.

    Returns
    -------
    ndarray of shape (n, height, width)
        Constant beyond the outermost centres; NaN where all neighbours are.

    Examples
    --------
    >>> import numpy as np
    >>> interpolate_grid(np.array([[[1.0, 3.0]]]), [0], [0, 2], (1, 4))
    array([[[1., 2., 3., 3.]]])
    """
    down, across = windows("bilinear", rows, columns, shape)
    known = np.isfinite(values)
    total, weight = (
        np.einsum("iy,nij,jx->nyx", down, v, across, optimize=True)
        for v in (np.where(known, values, 0), known.astype(float))
    )
    enough = weight > 1e-9
    return np.where(enough, total / np.where(enough, weight, 1), np.nan)
