r"""What several images of one sample say together about focus.

Image i, taken at stage position z_i, has the spectrum ``Y_i = H(f, z_i - z_0) X + noise`` with the
same unknown X in all. The covariance of the spectra of windowed images at frequency f is

.. math:: \Sigma_{ij}(f) = \int |W(f-g)|^2 H(g, z_i - z_0) H(g, z_j - z_0) S(g) dg
          + \sigma_i^2 \delta_{ij}

where W is the spectrum of the window and S the power of the sample, which is profiled out ring by
ring. What the rings of the cross spectra say is then a Wishart likelihood of z_0. The window is
part of the model: its leakage, not noise, limits what far images say. As the power of most samples
falls steeply, a ring holds more of what leaks from within, where blurred images still show light:
within the reach of the window, S is taken to fall with the square of the frequency [1].

References
----------
.. [1] D. J. Field, "Relations between the statistics of natural images and the response properties
   of cortical cells", J. Opt. Soc. Am. A 4 (1987).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

__all__ = [
    "TEMPER",
    "CrossSpectra",
    "SpectralRings",
    "make_rings",
    "ring_products",
    "wishart_log_likelihood",
]

_KERNEL = 12  # half width of the window's leakage, quarters of a frequency step
_SLOPE = 2  # power of the frequency with which the spectra of samples fall
_HIGHEST = 0.48  # cycles per pixel
_OUTER = (0.12, 0.2, 0.3, 0.4, 0.5)  # cycles per pixel, radii of the noise's power
_MOST_PATTERN = 0.2  # of the noise's power, that a camera repeats in every image
TEMPER = 0.25  # exponent of the likelihood: rings are not independent, nor is the model exact
_SHOWS = 0.1  # chance that a ring shows the sample
_MODEL_ERROR = 0.1  # part of an image's amplitude that the model does not explain


@dataclass(frozen=True, slots=True, eq=False)
class SpectralRings:
    """Rings of the frequency plane for images of one shape.

    Parameters
    ----------
    window : ndarray of shape (H, W)
        Hann window of mean square 1 / (H W).
    ring : ndarray of shape (H * (W // 2 + 1),)
        Ring of each frequency of a real transform; K where it belongs to none.
    multiplicity : ndarray of the same shape
        How often a frequency occurs in the whole plane.
    counts : ndarray of shape (K,)
        Frequencies per ring in the whole plane.
    outer : ndarray of int, same shape as `ring`
        How many of the radii beyond which there may be noise alone a frequency is beyond.
    outer_counts : ndarray of shape (len(_OUTER),)
        Frequencies beyond each of these radii.
    frequency : ndarray of shape (F,)
        Fine radial grid, cycles per pixel.
    leakage : ndarray of shape (K, F)
        Mean over a ring of the window's power spectrum about each of its frequencies, weighted by
        the power of a usual sample there.
    shading : (ndarray of shape (H, 3), ndarray of shape (W, 3))
        Orthonormal windowed parabolas along either axis: what changes so slowly is lamp and
        vignette, is the same at any focus, and would call every image equally sharp.
    """

    window: np.ndarray
    ring: np.ndarray
    multiplicity: np.ndarray
    counts: np.ndarray
    outer: np.ndarray
    outer_counts: np.ndarray
    frequency: np.ndarray
    leakage: np.ndarray
    shading: tuple


@lru_cache(maxsize=16)
def make_rings(shape, n_rings=56):
    """Return the rings for images of a shape.

    Parameters
    ----------
    shape : (int, int)
        Height and width, pixels.
    n_rings : int
        K.

    Returns
    -------
    SpectralRings
        The rings.

    Examples
    --------
    >>> make_rings((64, 64), 8).leakage.shape[0]
    8
    """
    side = min(shape)
    radius = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1]))
    twice = np.full(radius.shape, 2.0)
    twice[:, 0] = 1
    if shape[1] % 2 == 0:
        twice[:, -1] = 1
    # Narrow rings at low frequencies, where the transfer function of a far image oscillates.
    low = 2.0 / side
    edges = low + (_HIGHEST - low) * np.linspace(0, 1, n_rings + 1) ** 1.3
    ring = np.digitize(radius.ravel(), edges) - 1
    ring[(ring < 0) | (ring >= n_rings)] = n_rings
    counts = np.bincount(ring, twice.ravel(), n_rings + 1)[:n_rings]
    windows = [np.hanning(n + 2)[1:-1] for n in shape]
    window = np.outer(*windows)
    window /= np.sqrt((window**2).sum())
    fine = 4 * side
    frequency = (np.arange(int(_HIGHEST * fine) + 3 * _KERNEL) + 0.5) / fine
    leakage = _leakage(frequency, edges, np.hanning(side + 2)[1:-1], fine)
    outer = np.digitize(radius.ravel(), _OUTER)
    return SpectralRings(
        window.astype(np.float32),
        ring,
        twice.ravel(),
        counts,
        outer,
        _sum_beyond(twice.ravel(), outer),
        frequency,
        leakage,
        tuple(_parabolas(w).astype(np.float32) for w in windows),
    )


def _sum_beyond(values, outer):
    """Sums of values beyond each radius of `_OUTER`."""
    return np.bincount(outer, values, len(_OUTER) + 1)[:0:-1].cumsum()[::-1]


def _parabolas(window):
    place = np.linspace(-1, 1, len(window))
    return np.linalg.qr(window[:, np.newaxis] * np.vander(place, 3))[0]


def _leakage(frequency, edges, window, fine):
    power = np.abs(np.fft.fftshift(np.fft.fft(window, fine))) ** 2
    kernel = power[fine // 2 - _KERNEL : fine // 2 + _KERNEL + 1]
    kernel = kernel / kernel.sum()
    place = np.digitize(frequency, edges) - 1
    rows = []
    for k in range(len(edges) - 1):
        row = np.where(place == k, frequency, 0.0)  # a ring's circumference grows with f
        if not row.any():
            row[np.abs(frequency - edges[k : k + 2].mean()).argmin()] = 1.0
        rows.append(np.convolve(row / row.sum(), kernel, "same"))
    rows = np.stack(rows)
    steep = rows * np.maximum(frequency, 4 / fine) ** -_SLOPE  # flat below a whole period
    return (steep * (rows.sum(1) / steep.sum(1))[:, np.newaxis]).astype(np.float32)


def ring_products(transfers, rings, aberration=0.0):
    """Window-averaged products of transfer functions, up to the power of the sample.

    Parameters
    ----------
    transfers : ndarray of shape (G, n, F)
        H of each of n images under each of G hypotheses, on the fine radial grid.
    rings : SpectralRings
        The rings.
    aberration : float
        What an image may show of the sample beyond H, root mean square: without it, a position so
        far off that H is next to nothing would explain anything, by a sample of enormous power.

    Returns
    -------
    ndarray of shape (G, K, n, n)
        Covariance of the spectra of a white sample.
    """
    n_images = transfers.shape[1]
    products = np.empty((len(transfers), len(rings.counts), n_images, n_images))
    for i in range(n_images):
        for j in range(i, n_images):
            mean = (transfers[:, i] * transfers[:, j]).astype(np.float32) @ rings.leakage.T
            products[:, :, i, j] = products[:, :, j, i] = mean + (i == j) * aberration**2
    return products


class CrossSpectra:
    """Cross spectra of a growing set of images, ring by ring.

    Attributes
    ----------
    rings : SpectralRings or None
        Known with the first image.
    noise : ndarray of shape (n, n)
        The same of the noise: its power, and what of it is the same pattern in both images.
    matrices : ndarray of shape (K, n, n)
        Mean over each ring of ``Re(Y_i conj(Y_j))``.

    Examples
    --------
    >>> import numpy as np
    >>> spectra = CrossSpectra()
    >>> spectra.add(np.random.default_rng(0).poisson(100, (64, 64)))
    >>> spectra.matrices.shape
    (56, 1, 1)
    """

    def __init__(self):
        self.rings, self._spectra = None, []
        self._dark, self._shared = [], []
        self.noise, self.matrices = np.zeros((0, 0)), None

    def __len__(self):
        return len(self._spectra)

    def add(self, image):
        """Take in one image (H, W); all must share one shape.

        Parameters
        ----------
        image : ndarray of shape (H, W)
            Grey values with a positive mean, which is divided out.
        """
        image = np.asarray(image, dtype=np.float32)
        mean = float(image.mean(dtype=np.float64))
        if self.rings is None:
            self.rings = make_rings(image.shape)
        rings = self.rings
        contrast = image / max(abs(mean), np.finfo(np.float32).tiny) - 1
        seen = contrast * rings.window
        rows, columns = rings.shading
        seen -= rows @ (rows.T @ seen @ columns) @ columns.T
        spectrum = fft.rfft2(seen).ravel()
        self._spectra.append(spectrum.astype(np.complex64))
        weighted = spectrum.conj() * rings.multiplicity
        products = [(other * weighted).real for other in self._spectra]
        self.matrices = _append(self.matrices, np.stack([self._ring_means(p) for p in products]))
        self.noise = self._noise_covariance(products)

    def _ring_means(self, values):
        counts = self.rings.counts
        sums = np.bincount(self.rings.ring, values, len(counts) + 1)[: len(counts)]
        return sums / np.maximum(counts, 1)

    def _noise_covariance(self, products):
        """Covariance of the noise of all images, from the products of the last with all.

        A blurred image holds noise alone from small radii on, and what it shares with a sharper one
        there is a pattern of the camera. Were noise known to some percent only, as from the few
        frequencies beyond all light, the many rings of noise would seem to hold light.
        """
        counts = np.maximum(self.rings.outer_counts, 1)
        # A spectrum has each frequency twice, and the window makes neighbours alike.
        error = np.sqrt(4.5 / counts)
        means = _sum_beyond(products[-1], self.rings.outer) / counts
        first = 0
        for k in np.flatnonzero(self.rings.outer_counts):
            if means[k] < means[first] * (1 - 3 * error[k]):
                first = k
        self._dark.append(first)
        power = max(means[first], 1e-20)
        for i, product in enumerate(products[:-1]):
            k = min(first, self._dark[i])
            shared = _sum_beyond(product, self.rings.outer)[k] / counts[k]
            ratio = shared / np.sqrt(self.noise[i, i] * power)
            self._shared.append(ratio if ratio > 2 * error[k] else 0.0)
        # Sharp images share light, too, as far out as they go: what most pairs share is the camera.
        pattern = min(np.median(self._shared), _MOST_PATTERN) if self._shared else 0.0
        levels = np.sqrt(np.append(self.noise.diagonal(), power))
        noise = pattern * np.outer(levels, levels)
        np.fill_diagonal(noise, levels**2)
        return noise


def _append(matrices, row):
    """Symmetric matrices (..., n, n) with one more row and column, (n + 1, ...)."""
    row = np.moveaxis(row, 0, -1)
    n = row.shape[-1]
    larger = np.zeros((*row.shape[:-1], n, n))
    if n > 1:
        larger[..., :-1, :-1] = matrices
    larger[..., -1, :] = larger[..., :, -1] = row
    return larger


def wishart_log_likelihood(matrices, noise, counts, products, n_iter=5):
    r"""Log-likelihood of hypotheses about focus, the power of the sample profiled out.

    .. math:: \log L = \sum_k \log\left[ 1 - a + a\, e^{t g_k} \right], \qquad
              g_k = \frac{N_k}{2} \max_S \left[ \mathrm{tr}\, D^{-1} C_k + \log |D| -
              \mathrm{tr}\,(S M_k + D)^{-1} C_k - \log |S M_k + D| \right]

    A ring shows the sample with chance a, and noise alone otherwise: what many rings of noise gain
    by chance does not add up. Neighbouring rings are not independent, and the model is not exact,
    hence the exponent t.

    Parameters
    ----------
    matrices : ndarray of shape (K, n, n)
        Cross spectra C_k.
    noise : ndarray of shape (n, n)
        Covariance of the noise; D is this and what the model cannot explain.
    counts : ndarray of shape (K,)
        Frequencies N_k per ring.
    products : ndarray of shape (G, K, n, n)
        M_k of each hypothesis.
    n_iter : int
        Fixed-point steps for the power S of the sample.

    Returns
    -------
    log_likelihood : ndarray of shape (G,)
        Nats, up to a constant.
    power : ndarray of shape (G, K)
        The power S of the sample.
    """
    signal = np.maximum(np.einsum("kii->ki", matrices) - noise.diagonal(), 0)
    unexplained = _MODEL_ERROR**2 * signal[..., np.newaxis] * np.eye(len(noise))
    whiten = np.linalg.inv(np.linalg.cholesky(noise + unexplained))
    unwhiten = np.swapaxes(whiten, -1, -2)
    gain, axes = np.linalg.eigh(whiten @ products @ unwhiten)
    gain = np.maximum(gain, 1e-12)
    # Spectra along the axes in which hypothesis and noise are both diagonal.
    seen = np.swapaxes(axes, -1, -2) @ (whiten @ matrices @ unwhiten)
    seen = (seen * np.swapaxes(axes, -1, -2)).sum(-1)
    power = np.maximum((seen[..., -1] - 1) / gain[..., -1], 1e-9)
    for _ in range(n_iter):
        weight = (gain / (power[..., None] * gain + 1)) ** 2
        power = np.maximum((weight * (seen - 1) / gain).sum(-1) / weight.sum(-1), 1e-9)
    total = power[..., None] * gain + 1
    gain = TEMPER * counts / 2 * (seen - np.log(total) - seen / total).sum(-1)
    return np.logaddexp(np.log1p(-_SHOWS), np.log(_SHOWS) + gain).sum(-1), power
