r"""What several images of one sample say together about focus.

Image i, taken at stage position z_i, has the spectrum ``Y_i = H(f, z_i - z_0) X + noise`` with the
same unknown X in all. The covariance of the spectra of windowed images at frequency f is

.. math:: \Sigma_{ij}(f) = \int |W(f-g)|^2 H(g, z_i - z_0) H(g, z_j - z_0) S(g) dg
          + \sigma_i^2 \delta_{ij}

where W is the spectrum of the window and S the power of the sample, which is profiled out ring by
ring. What the rings of the cross spectra say is then a Wishart likelihood of z_0. The window is
part of the model: its leakage, not noise, limits what far images say.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

__all__ = [
    "CrossSpectra",
    "SpectralRings",
    "make_rings",
    "ring_products",
    "wishart_log_likelihood",
]

_KERNEL = 12  # half width of the window's leakage, quarters of a frequency step
_HIGHEST = 0.48  # cycles per pixel
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
    corner : ndarray of bool, same shape as `ring`
        Frequencies beyond what optics pass: noise alone.
    frequency : ndarray of shape (F,)
        Fine radial grid, cycles per pixel.
    leakage : ndarray of shape (K, F)
        Mean over a ring of the window's power spectrum about each of its frequencies.
    """

    window: np.ndarray
    ring: np.ndarray
    multiplicity: np.ndarray
    counts: np.ndarray
    corner: np.ndarray
    frequency: np.ndarray
    leakage: np.ndarray


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
    corner = radius.ravel() > 0.62
    return SpectralRings(
        window.astype(np.float32), ring, twice.ravel(), counts, corner, frequency, leakage
    )


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
    return np.stack(rows).astype(np.float32)


def ring_products(transfers, rings):
    """Window-averaged products of transfer functions, up to the power of the sample.

    Parameters
    ----------
    transfers : ndarray of shape (G, n, F)
        H of each of n images under each of G hypotheses, on the fine radial grid.
    rings : SpectralRings
        The rings.

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
            products[:, :, i, j] = products[:, :, j, i] = mean
    return products


class CrossSpectra:
    """Cross spectra of a growing set of images, ring by ring.

    Attributes
    ----------
    rings : SpectralRings or None
        Known with the first image.
    noise : ndarray of shape (n,)
        Power of each image's noise.
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
        self.noise, self.matrices = np.empty(0), None

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
        spectrum = fft.rfft2(contrast * rings.window).ravel()
        weighted = spectrum.conj() * rings.multiplicity
        row = [self._ring_means((other * weighted).real) for other in (*self._spectra, spectrum)]
        n, n_rings = len(self._spectra), len(rings.counts)
        matrices = np.zeros((n_rings, n + 1, n + 1))
        if n:
            matrices[:, :n, :n] = self.matrices
        for i, values in enumerate(row):
            matrices[:, i, n] = matrices[:, n, i] = values
        corner = spectrum[rings.corner]
        noise = max(float((np.abs(corner) ** 2).mean()), 1e-20) if len(corner) else 1e-20
        self._spectra.append(spectrum.astype(np.complex64))
        self.noise, self.matrices = np.append(self.noise, noise), matrices

    def _ring_means(self, values):
        counts = self.rings.counts
        sums = np.bincount(self.rings.ring, values, len(counts) + 1)[: len(counts)]
        return sums / np.maximum(counts, 1)


def wishart_log_likelihood(matrices, noise, counts, products, n_iter=5):
    r"""Log-likelihood of hypotheses about focus, the power of the sample profiled out.

    .. math:: \log L = -\sum_k \frac{N_k}{2} \min_S \left[ \log |S M_k + D| +
              \mathrm{tr}\,(S M_k + D)^{-1} C_k \right]

    Parameters
    ----------
    matrices : ndarray of shape (K, n, n)
        Cross spectra C_k.
    noise : ndarray of shape (n,)
        Power of the noise; D is this and what the model cannot explain.
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
    diagonal = np.einsum("kii->ki", matrices)
    scale = np.sqrt(noise + _MODEL_ERROR**2 * np.maximum(diagonal - noise, 0))
    outer = scale[:, :, None] * scale[:, None, :]
    gain, axes = np.linalg.eigh(products / outer)
    gain = np.maximum(gain, 1e-12)
    # Spectra along the axes in which hypothesis and noise are both diagonal.
    seen = (np.swapaxes(axes, -1, -2) @ (matrices / outer)) * np.swapaxes(axes, -1, -2)
    seen = seen.sum(-1)
    power = np.maximum((seen[..., -1] - 1) / gain[..., -1], 1e-9)
    for _ in range(n_iter):
        weight = (gain / (power[..., None] * gain + 1)) ** 2
        power = np.maximum((weight * (seen - 1) / gain).sum(-1) / weight.sum(-1), 1e-9)
    total = power[..., None] * gain + 1
    cost = (np.log(total) + seen / total).sum(-1)
    return -(counts / 2 * cost).sum(-1), power
