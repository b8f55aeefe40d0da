"""The response of a focus score to defocus: Moffat's curve, and optics learnt from a stack."""

import numpy as np
from scipy.optimize import least_squares, minimize
from sklearn.isotonic import IsotonicRegression

from ._focus_spectra import CrossSpectra, ring_products, wishart_log_likelihood
from .optics import defocus_transfer

__all__ = [
    "fit_moffat",
    "guess_rates",
    "learn_optics",
    "moffat",
    "moffat_fwhm",
    "pick_planes",
    "read_distance",
    "respond",
    "smooth_curve",
]

_BLUR_SPREAD = 0.1  # what one stack does not tell of other samples, part of the blur itself
_LEARN_WAVES = (-0.9, -0.35, -0.12, 0.05, 0.2, 0.5)  # defocus of the planes that teach the optics
_LEAST_GAIN = 30.0  # nats by which a stack must say that its planes differ in defocus
_CUTOFFS = (0.12, 0.18, 0.25, 0.35)  # starts, cycles per pixel
_ANY_CUTOFF = (0.03, 0.6)
_ABERRATIONS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)


def moffat(z, centre, width, power, height, base):
    r"""Moffat's curve.

    .. math:: s(z) = b + A \left[ 1 + \left( \frac{z - \mu}{\alpha} \right)^2 \right]^{-\beta}

    Parameters
    ----------
    z : ndarray
        Positions, micrometres.
    centre, width : float
        mu and alpha, micrometres.
    power, height, base : float
        beta, A and b; A is negative for a score that grows with blur.

    Returns
    -------
    ndarray
        Scores.

    References
    ----------
    A. F. J. Moffat, "A theoretical investigation of focal stellar images in the photographic
    emulsion", Astron. Astrophys. 3 (1969).

    Examples
    --------
    >>> float(moffat(10.0, 0.0, 10.0, 1.0, 1.0, 0.0))
    0.5
    """
    return base + height * (1 + ((np.asarray(z) - centre) / width) ** 2) ** -power


def moffat_fwhm(width, power):
    r"""Full width at half maximum, ``2 alpha sqrt(2^(1/beta) - 1)``.

    Parameters
    ----------
    width, power : float
        alpha and beta.

    Returns
    -------
    float
        Micrometres.

    Examples
    --------
    >>> moffat_fwhm(10.0, 1.0)
    20.0
    """
    return float(2 * width * np.sqrt(2 ** (1 / power) - 1))


def fit_moffat(z, scores):
    """Fit Moffat's curve by robust least squares from several starts.

    Parameters
    ----------
    z, scores : ndarray of shape (n,)
        Positions and scores.

    Returns
    -------
    ndarray of shape (5,)
        Centre, width, power, height, base.
    """
    low, high = np.quantile(scores, (0.05, 0.95))
    span = max(high - low, 1e-12 * max(1.0, abs(high)))
    reach = max(np.ptp(z), 1e-9)
    # A wide V, upright or hanging, is what a score looks like: the extreme that the ends lack.
    order = np.argsort(z)
    ends = np.r_[scores[order[: max(1, len(z) // 8)]], scores[order[-max(1, len(z) // 8) :]]]
    upward = np.median(ends) < (low + high) / 2
    best = None
    for fraction in (0.05, 0.15, 0.4):
        for power in (0.7, 2.0):
            peak = z[scores.argmax() if upward else scores.argmin()]
            start = [(peak - z.mean()) / reach, fraction, power, 1.0 if upward else -1.0]
            start += [0.0 if upward else 1.0]

            def residual(p):
                return moffat((z - z.mean()) / reach, *p) - (scores - low) / span

            fit = least_squares(
                residual,
                start,
                loss="soft_l1",
                f_scale=0.1,
                bounds=([-0.6, 1e-3, 0.25, -1.6, -0.4], [0.6, 5, 20, 1.6, 1.4]),
                max_nfev=300,
            )
            if best is None or fit.cost < best.cost:
                best = fit
    centre, width, power, height, base = best.x
    return np.array(
        [centre * reach + z.mean(), width * reach, power, height * span, base * span + low]
    )


def smooth_curve(z, values, width):
    """Mean of values over a Gaussian neighbourhood, local straight lines at uneven steps.

    Parameters
    ----------
    z, values : ndarray of shape (n,)
        Sorted positions, and what to smooth.
    width : float
        Standard deviation of the neighbourhood, micrometres.

    Returns
    -------
    ndarray of shape (n,)
        Smoothed values.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.arange(5.0)
    >>> bool(np.allclose(smooth_curve(z, 2 * z, 1.0), 2 * z))  # a line stays one
    True
    """
    offset = z[None, :] - z[:, None]
    weight = np.exp(-0.5 * (offset / width) ** 2)
    m0, m1, m2 = (weight.sum(1), (weight * offset).sum(1), (weight * offset**2).sum(1))
    line = (m2[:, None] - m1[:, None] * offset) * weight
    return (line @ values) / np.maximum(m0 * m2 - m1**2, 1e-12 * m2 * m0 + 1e-300)


def respond(z, scores, spread, part):
    """Return the response of a score to the stage, from a stack.

    Parameters
    ----------
    z, scores, spread : ndarray of shape (n,)
        Positions in any order, scores, and their spread within an image.
    part : float
        Of the span of the curve: by how much other samples may differ.

    Returns
    -------
    places, curve, std : ndarray of shape (m,)
        Different positions, sorted; the curve and its standard deviation.
    shape : ndarray of shape (5,)
        Moffat's curve.
    """
    order = np.argsort(z)
    z, scores, spread = z[order], scores[order], spread[order]
    shape = fit_moffat(z, scores)
    places, where = np.unique(z, return_inverse=True)
    share = 1 / np.bincount(where)
    scores, spread = (np.bincount(where, v) * share for v in (scores, spread))
    step = np.median(np.diff(places))
    curve = smooth_curve(places, scores, step)
    variance = smooth_curve(places, spread**2, 4 * step).clip(min=0)
    blur = _BLUR_SPREAD * (curve - curve[np.abs(places - shape[0]).argmin()])
    fixed = part * max(np.ptp(curve), 1e-12)
    return places, curve, np.sqrt(variance + fixed**2 + blur**2), shape


def read_distance(scores, offset, curve, upward):
    """Return the unsigned distances from focus at which a curve has some scores.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Scores, NaN where there are none.
    offset, curve : ndarray of shape (m,)
        The curve by signed distance from focus, micrometres.
    upward : bool
        Whether the score is highest in focus.

    Returns
    -------
    ndarray of shape (n,)
        Micrometres.

    Examples
    --------
    >>> import numpy as np
    >>> offset = np.arange(-3.0, 4.0)
    >>> read_distance(np.array([1.5]), offset, np.abs(offset), False).tolist()
    [1.5]
    """
    distance = np.sort(np.abs(offset))
    steady = IsotonicRegression(increasing=not upward).fit(np.abs(offset), curve)
    curve = steady.predict(distance)
    # Where the curve is flat, the middle of the distances that share a score.
    level, first = np.unique(curve, return_inverse=True)
    middle = np.bincount(first, distance) / np.bincount(first)
    return np.where(np.isnan(scores), np.nan, np.interp(scores, level, middle))


def guess_rates(places, curve, is_measure):
    """Return defocus per micrometre over cut-off to start from, waves per (um * cycles per pixel).

    Parameters
    ----------
    places, curve : ndarray of shape (n,)
        The response curve.
    is_measure : bool
        Whether it is that of a classical measure, whose slope does not tell the blur.

    Returns
    -------
    likely : float
        The likeliest.
    rates : ndarray
        Guesses.
    """
    wide = np.geomspace(0.2, 20, 12) / max(np.ptp(places), 1e-9) / 0.25
    slope = np.quantile(np.abs(np.diff(curve) / np.diff(places)), 0.7) / 0.25
    if is_measure or not slope > 0:
        return float(np.median(wide)), wide
    return float(slope), slope * np.array([0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0])


def pick_planes(offset, rate):
    """Return indices of planes that teach the optics, by defocus on both sides.

    Parameters
    ----------
    offset : ndarray of shape (n,)
        Distances from focus, micrometres.
    rate : float
        Waves RMS per micrometre, as far as it is known.

    Returns
    -------
    list of int
        Sorted.
    """
    picks = {int(np.abs(offset * rate - waves).argmin()) for waves in _LEARN_WAVES}
    if len(picks) < len(_LEARN_WAVES):  # the stack is short, or the rate misjudged
        even = np.linspace(0, len(offset) - 1, len(_LEARN_WAVES)).round().astype(int)
        picks |= set(np.argsort(offset)[even].tolist())
    return sorted(picks)


def learn_optics(images, z, z_focus, rates, cutoff=None):
    """Learn cut-off and defocus per micrometre from images of one sample in a stack.

    The likelihood of the cross spectra is maximised over cut-off, rate and the position of focus.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        A few planes, on both sides of focus.
    z : ndarray of shape (n,)
        Their positions, micrometres.
    z_focus : float
        Where to start, micrometres.
    rates : ndarray
        Defocus per micrometre over cut-off to start from, waves RMS per (um * cycles per pixel).
    cutoff : float or None
        Where the optics are known, their cut-off; `rates` then holds their defocus per micrometre
        and the position of focus alone is fitted.

    Returns
    -------
    cutoff : float
        Cycles per pixel.
    rate : float
        Noll coefficient 4, waves RMS, per micrometre. None is returned instead of all where the
        images do not tell it.
    z_focus : float
        Micrometres.
    aberration : float
        What the images show beyond the transfer function, root mean square of it.
    """
    spectra = CrossSpectra()
    for image in images:
        spectra.add(image)
    rings = spectra.rings

    def cost(log_cutoff, log_rate, centre, aberration=_ABERRATIONS[2]):
        pupil = np.clip(np.exp(log_cutoff), *_ANY_CUTOFF)
        focus = np.abs(z - centre) * np.exp(log_rate)
        transfers = defocus_transfer(rings.frequency, np.minimum(focus, 6.0), pupil)
        products = ring_products(transfers[np.newaxis], rings, aberration)
        return -wishart_log_likelihood(spectra.matrices, spectra.noise, rings.counts, products)[0][
            0
        ]

    if cutoff is not None:
        offsets = np.linspace(-0.3, 0.3, 61) / rates[0]
        known = np.log(cutoff), np.log(rates[0])
        costs = [cost(*known, z_focus + d) for d in offsets]
        best = (*known, z_focus + offsets[np.argmin(costs)])
    else:
        best = _fit_optics(cost, z_focus, rates)
        if cost(best[0], -np.inf, z_focus) - cost(*best) < _LEAST_GAIN:
            return None
    aberration = min(_ABERRATIONS, key=lambda level: cost(*best, level))
    return (*np.exp(best[:2]), best[2], aberration)


def _fit_optics(cost, z_focus, rates):
    """Logarithms of cut-off and rate, and position of focus, from the best of several starts."""
    starts = [
        (np.log(start), np.log(rate * start), z_focus) for start in _CUTOFFS for rate in rates
    ]
    best = np.array(min(starts, key=lambda start: cost(*start)))
    step = 0.05 / np.exp(best[1])  # a twentieth of a wave
    simplex = np.vstack([best, best + np.diag([0.15, 0.15, step])])
    fit = minimize(
        lambda p: cost(*p),
        best,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 160, "xatol": 1e-4, "fatol": 0.1},
    )
    return np.r_[np.log(np.clip(np.exp(fit.x[0]), *_ANY_CUTOFF)), fit.x[1:]]
