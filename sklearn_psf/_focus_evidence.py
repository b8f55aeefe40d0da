"""The posterior over focus: scores against the calibration curve, and the spectra together."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline

from ._focus_spectra import CrossSpectra, make_rings, ring_products, wishart_log_likelihood
from .optics import defocus_transfer

__all__ = [
    "Evidence",
    "FocusModel",
    "crop_images",
    "find_posterior",
    "summarize",
]

_OUTLIER = 1e-3  # chance that a score says nothing
_SHARED = 0.9  # of what a scorer errs by: common to all images of a sample
_PRUNE = 20.0  # nats below the best at which scores alone rule a position out
_FLOOR = 0.02  # of the coarse step: a thousandth of a wave, which the model is never better than
_TABLE_STEP = 0.01  # waves RMS
_TABLE_HEIGHT = 801  # steps: more defocus than eight waves is as much
_TABLE_SIDE, _TABLE_WIDTH = 2048, 1280  # steps per cycle per pixel, and steps
_STEP_WAVES = 0.05  # coarse grid: a third of the depth of field, waves RMS
_DEPTH_OF_FIELD = 1 / 48**0.5  # waves RMS: the defocus of n wavelength / NA^2


def crop_images(images, roi):
    """Return the region of interest of images.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        The images.
    roi : (int, int, int, int) or None
        Top, left, height and width; None is all.

    Returns
    -------
    ndarray of shape (n, height, width)
        A view.

    Raises
    ------
    ValueError
        If the region does not lie within the images.
    """
    if roi is None:
        return images
    top, left, height, width = roi
    if top + height > images.shape[1] or left + width > images.shape[2]:
        raise ValueError(f"roi={tuple(roi)} does not lie within images of {images.shape[1:]}.")
    return images[:, top : top + height, left : left + width]


@dataclass(frozen=True, slots=True, eq=False)
class FocusModel:
    """What a calibration knows.

    Parameters
    ----------
    offsets, curve, curve_std : ndarray of shape (n,)
        Score and its spread by distance ``z - z_focus``, micrometres.
    fwhm : float
        Width of Moffat's curve, micrometres.
    upward : bool
        Whether the score is highest in focus.
    free_gain : bool
        Whether the height of the curve depends on the sample.
    cutoff, rate : float or None
        Cycles per pixel, and waves RMS of defocus per micrometre; None: spectra say nothing.
    aberration : float
        What images show beyond the transfer function, root mean square of it.
    score : callable
        From images (n, H, W) to `Readings`.
    roi : (int, int, int, int) or None
        Top, left, height and width of the part of an image that is looked at.
    regions : (int, int)
        Rows and columns of regions.
    """

    offsets: np.ndarray
    curve: np.ndarray
    curve_std: np.ndarray
    fwhm: float
    upward: bool
    free_gain: bool
    cutoff: float | None
    rate: float | None
    aberration: float
    score: object
    roi: tuple | None = None
    regions: tuple = (1, 1)

    def prepare(self):
        """Compute what decisions look up."""
        if self.rate is not None:
            _transfer_table(self.cutoff)

    def crop(self, images):
        """Return the region of interest of images (n, H, W)."""
        return crop_images(images, self.roi)

    @property
    def step(self):
        """Coarse step of the posterior's grid, micrometres."""
        return self.fwhm / 40 if self.rate is None else _STEP_WAVES / self.rate

    @property
    def depth_of_field(self):
        """``n wavelength / NA^2``, micrometres; a quarter of the curve without optics."""
        return self.fwhm / 4 if self.rate is None else _DEPTH_OF_FIELD / self.rate

    def response(self, distance):
        """Return score and standard deviation at distances from focus."""
        return (
            np.interp(distance, self.offsets, self.curve),
            np.interp(distance, self.offsets, self.curve_std),
        )


@lru_cache(maxsize=4)
def _transfer_table(cutoff):
    """H at multiples of `_TABLE_STEP` and of ``1 / _TABLE_SIDE``: it serves images of any shape."""
    frequency = np.arange(_TABLE_WIDTH) / _TABLE_SIDE
    passed = frequency < 2 * cutoff
    steps = np.arange(_TABLE_HEIGHT)
    exact = defocus_transfer(frequency[passed], steps[::2] * _TABLE_STEP, cutoff)
    table = np.zeros((_TABLE_HEIGHT, _TABLE_WIDTH), dtype=np.float32)
    table[:, passed] = CubicSpline(steps[::2], exact)(steps)
    return table


@lru_cache(maxsize=8)
def _transfer_table_of_shape(shape, cutoff):
    place = np.minimum(make_rings(shape).frequency * _TABLE_SIDE, _TABLE_WIDTH - 1)
    first = np.clip(place.astype(int) - 1, 0, _TABLE_WIDTH - 4)
    t = place - first - 1  # Lagrange's cubic through four neighbours
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    table = _transfer_table(cutoff)
    return sum(table[:, first + k] * w.astype(np.float32) for k, w in enumerate(weights))


class Evidence:
    """Images told so far: positions, scores, cross spectra.

    Attributes
    ----------
    z, scores : list of float
        Per image; a score is NaN where there is no texture.
    levels, errors : list of float
        What is read nevertheless, and the standard deviation that the scorer states.
    spectra : CrossSpectra
        Of all images.
    """

    def __init__(self, model):
        self.model, self.z, self.scores = model, [], []
        self.levels, self.errors = [], []
        self.spectra, self.use_spectra = CrossSpectra(), model.rate is not None
        self.shape = None

    def __len__(self):
        return len(self.z)

    @property
    def has_texture(self):
        """Whether any image showed structure."""
        return bool(np.isfinite(self.scores).any())

    def add(self, z, image):
        """Take in one image (H, W)."""
        image = self.model.crop(np.asarray(image)[np.newaxis])[0]
        if self.shape not in (None, image.shape):
            raise ValueError(
                f"image has shape {image.shape}, the first one of this search {self.shape}."
            )
        reading = self.model.score(image[np.newaxis])
        self.shape = image.shape
        if self.use_spectra:
            self.spectra.add(image)
        self.z.append(float(z))
        self.scores.append(float(reading.scores[0]))
        self.levels.append(float(reading.level[0]))
        self.errors.append(float(reading.std[0]))

    def transfers(self, positions, centres, at=slice(None)):
        """H of images at positions (n,) if focus is at centres (G,): (G, n, F), or some of F."""
        focus = np.abs(np.subtract.outer(centres, positions)) * self.model.rate / _TABLE_STEP
        table = _transfer_table_of_shape(self.shape, self.model.cutoff)[:, at]
        low = np.minimum(focus.astype(int), _TABLE_HEIGHT - 2)
        part = np.clip(focus - low, 0, 1).astype(np.float32)[..., np.newaxis]
        return table[low] * (1 - part) + table[low + 1] * part

    def score_log_likelihood(self, centres):
        """Return what the scores alone say of focus at centres (G,), nats."""
        # An image that shows nothing, of a sample that others show, is far from focus.
        known = np.isfinite(self.levels)
        levels, errors, z = (np.array(v)[known] for v in (self.levels, self.errors, self.z))
        expected, std = self.model.response(z - np.asarray(centres)[:, np.newaxis])
        if not self.model.free_gain:
            return _shared_log_likelihood(levels - expected, std, errors)
        # The height is the sample's: fit it for each hypothesis, from the images themselves.
        gain = (expected * levels).sum(1) / np.maximum((expected**2).sum(1), 1e-300)
        residual = levels - np.maximum(gain, 0)[:, np.newaxis] * expected
        noise = np.maximum(gain, 1e-12)[:, np.newaxis] * std
        return -(0.5 * (residual / noise) ** 2 + np.log(noise)).sum(1)

    def log_likelihood(self, centres):
        """Return what scores and spectra say of focus at centres (G,), nats."""
        total = self.score_log_likelihood(centres)
        if not self.use_spectra or len(self) < 2:
            return total
        if self.model.free_gain:  # height and shape are the sample's: the spectra know better
            total = np.zeros(len(total))
        keep = total > total.max() - _PRUNE
        products = ring_products(
            self.transfers(self.z, centres[keep]), self.spectra.rings, self.model.aberration
        )
        spectral = wishart_log_likelihood(
            self.spectra.matrices, self.spectra.noise, self.spectra.rings.counts, products
        )[0]
        total[keep] += spectral
        total[~keep] = -np.inf
        return total


def _shared_log_likelihood(residual, std, errors):
    """Log-likelihood of residuals (G, n): what a scorer errs by, it errs in all images of a sample.

    Of the stated errors (n,) the part `_SHARED` is one number of standard deviations for all.
    """
    noise = np.hypot(std, np.sqrt(1 - _SHARED**2) * errors)
    terms = []
    for common in np.linspace(-2, 2, 9):
        density = np.exp(-0.5 * ((residual - _SHARED * common * errors) / noise) ** 2) / noise
        terms.append(
            np.log((1 - _OUTLIER) * density + _OUTLIER / noise.mean()).sum(1) - common**2 / 2
        )
    return np.logaddexp.reduce(terms)


def find_posterior(evidence, low, high):
    """Posterior of focus on a grid that is fine where it matters.

    Parameters
    ----------
    evidence : Evidence
        The images.
    low, high : float
        Where focus may be, micrometres.

    Returns
    -------
    grid, density : ndarray of shape (G,)
        Sorted positions, and density per micrometre.
    """
    step = min(evidence.model.step, (high - low) / 16)
    grid = np.linspace(low, high, int(np.ceil((high - low) / step)) + 1)
    if not np.isfinite(evidence.levels).any():
        return grid, np.full(len(grid), 1 / max(high - low, 1e-9))
    value = evidence.log_likelihood(grid)
    for n_peaks in (3, 2, 1):
        fine = np.concatenate([peak + step * _FINE for peak in _peaks(grid, value, n_peaks)])
        fine = np.setdiff1d(fine[(fine >= low) & (fine <= high)], grid)
        if len(fine) == 0:
            break
        grid, value = np.append(grid, fine), np.append(value, evidence.log_likelihood(fine))
        order = np.argsort(grid)
        grid, value, step = grid[order], value[order], step / 6
    density = np.exp(value - value.max())
    return grid, density / np.trapezoid(density, grid)


_FINE = np.linspace(-1, 1, 13)[1:-1]


def _peaks(grid, value, n_peaks):
    inner = np.r_[-np.inf, value, -np.inf]
    tops = np.flatnonzero((inner[1:-1] >= inner[:-2]) & (inner[1:-1] >= inner[2:]))
    tops = tops[np.argsort(value[tops])[::-1]][:n_peaks]
    return grid[tops[value[tops] > value.max() - _PRUNE]]


def summarize(grid, density, step):
    """Position and standard deviation of a posterior.

    Parameters
    ----------
    grid, density : ndarray of shape (G,)
        The posterior.
    step : float
        The mean is taken within two steps of the highest density; micrometres.

    Returns
    -------
    z, std : float
        Mean of the highest mode, and the root mean square distance of all modes from it.

    Examples
    --------
    >>> import numpy as np
    >>> summarize(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]), 1.0)
    (1.0, 0.02)
    """
    mass = density * np.gradient(grid)
    mass = mass / mass.sum()
    near = mass * (np.abs(grid - grid[density.argmax()]) <= 2 * step)
    z = float((near * grid).sum() / near.sum())
    variance = float((mass * (grid - z) ** 2).sum())
    return z, float(np.hypot(np.sqrt(variance), _FLOOR * step))
