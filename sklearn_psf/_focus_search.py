"""Ask and tell: which image of a sample teaches most about where its focus is."""

from dataclasses import dataclass, field, replace

import numpy as np

from ._focus_choice import expected_error
from ._focus_evidence import Evidence, find_posterior, summarize

__all__ = ["FocusResult", "FocusSearch", "GoldenSearch", "add_regions", "split_regions"]

_GOLDEN = (np.sqrt(5) - 1) / 2
_N_HYPOTHESES = 24
_N_CANDIDATES = 48


@dataclass(frozen=True, slots=True, eq=False)
class FocusResult:
    """Where focus is, and how it was found.

    Parameters
    ----------
    z : float
        Stage position of focus, micrometres; where the search began if nothing was found.
    std : float
        Standard deviation, micrometres; infinite if nothing was found.
    n_images : int
        Images taken.
    history : tuple of (float, float)
        Position and score of each image, in order; a score of NaN means textureless.
    reason : str
        Why the search ended: "max_images", "tol", "located"; or what is wrong with it:
        "uncertain" (the images leave more than a depth of field open), "limit" (focus seems to lie
        at or beyond a limit), "textureless" (no image showed structure) or, from a microscope,
        "error".
    grid, density : ndarray of shape (G,)
        Posterior of the position of focus, per micrometre.
    regions_z, regions_std : ndarray of shape (gy, gx) or None
        The same for each region of the image, where there are several.
    plane : ndarray of shape (3,) or None
        Focus at the centre of the image and its change over the whole height and width,
        micrometres, from a fit over the regions.
    """

    z: float
    std: float
    n_images: int
    history: tuple
    reason: str
    grid: np.ndarray = field(repr=False, default=None)
    density: np.ndarray = field(repr=False, default=None)
    regions_z: np.ndarray = None
    regions_std: np.ndarray = None
    plane: np.ndarray = None


class FocusSearch:
    """Search for focus, one image at a time, by the expected error of the posterior.

    Made by `DeepFocusAutofocus.start`. Call `suggest`, go there, take an image, `tell` it, until
    `done`; then read `result`.

    Parameters
    ----------
    model : FocusModel
        What the calibration knows.
    z0 : float
        Where the stage is, micrometres.
    limits : (float, float)
        Positions that are never left.
    max_images : int
        Most images to take.
    tol : float or None
        Standard deviation at which to stop early, micrometres.
    """

    def __init__(self, model, z0, limits, max_images, tol=None):
        self.model, self.z0, self.limits = model, float(z0), tuple(map(float, limits))
        self.max_images, self.tol = max_images, tol
        self.evidence = Evidence(model)
        self.images, self._posterior = [], None

    @property
    def history(self):
        """Position and score of each image told."""
        return tuple(zip(self.evidence.z, self.evidence.scores, strict=True))

    @property
    def reason(self):
        """Why the search ended; "" while it goes on."""
        if len(self.evidence) >= self.max_images:
            return "max_images"
        if self.tol is not None and len(self.evidence) >= 2 and self._summary()[1] <= self.tol:
            return "tol"
        return ""

    @property
    def done(self):
        """Whether the search has ended."""
        return self.reason != ""

    def suggest(self):
        """Return where to take the next image.

        Returns
        -------
        float
            Stage position within the limits, micrometres.

        Raises
        ------
        RuntimeError
            If the search has ended.
        """
        if self.done:
            raise RuntimeError(f"The search has ended ({self.reason}); read its result.")
        if len(self.evidence) == 0:
            return float(np.clip(self.z0, *self.limits))
        return float(np.clip(self._next(), *self.limits))

    def tell(self, z, image):
        """Take in an image.

        Parameters
        ----------
        z : float
            Where it was taken, as the stage says, micrometres.
        image : array-like of shape (H, W)
            The image; all of one search must share one shape.

        Raises
        ------
        ValueError
            If the image does not fit or is taken beyond the limits.
        """
        slack = 1e-6 + 0.05 * self.model.step  # an encoder's reading differs from the order
        if not self.limits[0] - slack <= z <= self.limits[1] + slack:
            raise ValueError(f"z must be within limits={self.limits}, got {z!r}.")
        self.evidence.add(z, image)
        self._posterior = None
        if self.model.regions != (1, 1):
            self.images.append(self.model.crop(np.asarray(image)[np.newaxis])[0])

    @property
    def posterior(self):
        """Grid of positions (G,) and density of focus (G,), per micrometre."""
        if self._posterior is None:
            self._posterior = find_posterior(self.evidence, *self.limits)
        return self._posterior

    @property
    def result(self):
        """What is known by now, as a `FocusResult`."""
        reason, (z, std) = self.reason, self._summary()
        if not self.evidence.has_texture:
            reason = "textureless" if reason else reason
        elif min(z - self.limits[0], self.limits[1] - z) < self.model.step / 4 and reason:
            reason = "limit"
        elif std > self.model.depth_of_field and reason:
            reason = "uncertain"
        grid, density = self.posterior
        found = FocusResult(z, std, len(self.evidence), self.history, reason, grid, density)
        return add_regions(found, self.model, self.images, self.limits)

    def _summary(self):
        """Position and standard deviation."""
        if not self.evidence.has_texture:
            return self.z0, np.inf
        return summarize(*self.posterior, self.model.step)

    def _next(self):
        if not np.isfinite(self.evidence.levels).any():  # nothing known: elsewhere
            n, (low, high) = len(self.evidence), self.limits
            return low + (high - low) * ((0.5 + n * _GOLDEN) % 1)
        grid, density = self.posterior
        mass = np.cumsum(density * np.gradient(grid))
        quantiles = (np.arange(_N_HYPOTHESES) + 0.5) / _N_HYPOTHESES
        hypotheses = np.interp(quantiles, mass / mass[-1], grid)
        centre = self._summary()[0]
        near = centre + self.model.step * np.linspace(-6, 6, 25)
        far = np.linspace(*self.limits, _N_CANDIDATES)
        candidates = np.clip(np.r_[near, far, hypotheses[::4]], *self.limits)
        z, std = np.array(self.evidence.z), self._summary()[1]
        if std > 4 * self.model.depth_of_field:  # focus is open: never twice at one place
            new = np.abs(candidates[:, np.newaxis] - z).min(1) > 2 * self.model.depth_of_field
            candidates = candidates[new] if new.any() else candidates
        error = expected_error(self.evidence, candidates, hypotheses)
        # Where candidates are equal, the shorter way.
        way = np.abs(candidates - self.evidence.z[-1]) / (self.limits[1] - self.limits[0] + 1e-9)
        return candidates[np.argmin(error * (1 + 0.02 * way))]


class GoldenSearch(FocusSearch):
    """The published rule: golden section of the score, then the curve shifted by least squares.

    The bracket is ``z0 +- 2 FWHM`` of the calibration. Once a parabola fits the scores better than
    a line and opens the right way, the scores lie around focus, and the position of focus is that
    of the calibration curve shifted to fit them.

    References
    ----------
    A. Shajkofci and M. Liebling, "DeepFocus: a few-shot microscope slide auto-focus using a sample
    invariant CNN-based sharpness function", IEEE ISBI (2020).
    """

    def __init__(self, model, z0, limits, max_images, tol=None):
        super().__init__(model, z0, limits, max_images, tol)
        self.evidence.use_spectra = False
        reach = 2 * model.fwhm
        self.bracket = (max(limits[0], z0 - reach), min(limits[1], z0 + reach))

    def is_convex(self):
        """Whether a parabola of the right sign fits better than a line, per degree of freedom."""
        z, scores = np.array(self.evidence.z), np.array(self.evidence.scores)
        z, scores = z[np.isfinite(scores)], scores[np.isfinite(scores)]
        if len(z) < 4 or np.ptp(z) == 0:
            return len(z) == 3 and self._bends(z, scores) > 0
        errors = [
            ((np.polyval(np.polyfit(z, scores, k), z) - scores) ** 2).sum() / (len(z) - k - 1)
            for k in (1, 2)
        ]
        return bool(errors[1] < errors[0] and self._bends(z, scores) > 0)

    def _bends(self, z, scores):
        return np.polyfit(z, scores, 2)[0] * (-1 if self.model.upward else 1)

    def _next(self):
        if len(self.evidence) >= 3 and self.is_convex():
            return self._summary()[0]
        z, scores = np.array(self.evidence.z), np.array(self.evidence.scores, dtype=float)
        cost = np.where(np.isfinite(scores), -scores if self.model.upward else scores, np.inf)
        low, high = self.bracket
        inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
        for _ in range(len(z)):
            told = [np.abs(z - x).min() < 1e-3 * (high - low) for x in inner]
            if not all(told):
                break
            values = [cost[np.abs(z - x).argmin()] for x in inner]
            if values[0] <= values[1]:
                high = inner[1]
            else:
                low = inner[0]
            inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
        return next((x for x in inner if np.abs(z - x).min() >= 1e-3 * (high - low)), inner[0])


def split_regions(shape, regions):
    """Slices of the regions of an image: rows of columns of (slice, slice)."""
    pairs = zip(shape, regions, strict=True)
    rows, columns = (np.linspace(0, n, k + 1).astype(int) for n, k in pairs)
    return [
        [(slice(a, b), slice(c, d)) for c, d in zip(columns[:-1], columns[1:], strict=True)]
        for a, b in zip(rows[:-1], rows[1:], strict=True)
    ]


def add_regions(result, model, images, limits):
    """Return a result with focus per region and the plane through them, where regions are asked.

    Parameters
    ----------
    result : FocusResult
        Of the whole image.
    model : FocusModel
        What the calibration knows.
    images : list of ndarray of shape (H, W)
        Images of the history, cropped.
    limits : (float, float)
        Where focus may be, micrometres.

    Returns
    -------
    FocusResult
        With `z` and `std` of the plane at the centre of the image.
    """
    if model.regions == (1, 1) or len(images) < 2 or not np.isfinite(result.std):
        return result
    z, std = np.full(model.regions, np.nan), np.full(model.regions, np.inf)
    for i, row in enumerate(split_regions(images[0].shape, model.regions)):
        for j, where in enumerate(row):
            evidence = Evidence(replace(model, roi=None))
            for (position, _), image in zip(result.history, images, strict=True):
                evidence.add(position, image[where])
            if evidence.has_texture:
                posterior = find_posterior(evidence, *limits)
                z[i, j], std[i, j] = summarize(*posterior, model.step)
    plane, error = _fit_plane(z, std, model.step)
    if plane is None:
        return replace(result, regions_z=z, regions_std=std)
    return replace(result, z=float(plane[0]), std=error, regions_z=z, regions_std=std, plane=plane)


def _fit_plane(z, std, step):
    """Weighted least squares of a plane; a slope that the regions cannot tell is zero."""
    known = np.isfinite(z) & np.isfinite(std)
    if not known.any():
        return None, np.inf
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in z.shape), indexing="ij")
    design = np.stack([np.ones(z.shape), y, x], -1)[known]
    weight = 1 / np.hypot(std[known], 0.02 * step)
    plane = np.zeros(3)
    for _ in range(8):  # a region that reads the other side of focus must not tilt the plane
        plane = np.linalg.lstsq(design * weight[:, None], z[known] * weight, rcond=1e-6)[0]
        residual = np.abs(design @ plane - z[known])
        spread = max(np.median(residual), 0.05 * step)
        weight = 1 / np.hypot(std[known], 0.02 * step) / (1 + (residual / (3 * spread)) ** 2)
    covariance = np.linalg.pinv((design * weight[:, None] ** 2).T @ design)
    return plane, float(np.sqrt(max(covariance[0, 0], 0)))
