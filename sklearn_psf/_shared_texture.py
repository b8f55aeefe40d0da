"""The blur of windows that show one texture, from their power spectra together.

The power spectrum of a window is that of its texture times the squared modulus of its OTF. One
window alone leaves open what is texture and what is blur; windows of one image that are blurred
differently do not, because the texture is the same.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

__all__ = ["SharedTexture", "compare_windows"]

_LEAKAGE = 1e-4  # of the power without blur: what a zero of the OTF still shows
_GLINT = 8.0  # times the expected power: no line of a spectrum counts for more
_OVERLAP = 8.0  # windows that show the same pixels, at the stride that maps usually have
_N_KNOTS, _N_TURNED = 14, 5  # of the texture: along the radius, and of what is not isotropic
_BEND, _TURN = 0.5, 0.5  # of the logarithm of the texture: what its knots are expected to differ by
_OWN = (3.0, 0.7, 0.5, 0.5, 0.5)  # of a window: brightness, slope, bend and direction of its own
_SHRINK = 30.0  # cells' worth of doubt against lines of the texture that are not smooth
_TEMPER = (0.03, 0.03, 0.05, 0.1, 0.2, 0.2)  # share of the likelihood that counts, in turn
_SLOPE_REACH = 0.4  # sizes of a window: distance within which a slope is taken, at least
_SPREADS = 7  # ranges of blur within a window that are told apart
_SPREAD = 0.04  # of the grid: their distance, in half ranges


class SharedTexture:
    r"""Power spectrum of the texture that windows share, given how each is blurred.

    The power :math:`I_w(f)` of window w is taken as exponentially distributed about

    .. math:: P_w(f) = S(f)\, e^{b_w \cdot \phi(f)}\, (|H_w(f)|^2 + \epsilon) + N_w

    (Whittle's likelihood), with the texture S: a smooth function of radius and direction times
    lines that all windows show, and with the few b_w by which a window's texture differs from it in
    brightness, slope, bend and direction.

    Parameters
    ----------
    power : Tensor of shape (n, F)
        Of `window_powers`.
    noise : Tensor of shape (n,)
        N_w.
    band : Band
        The frequencies.
    weights : Tensor of shape (n,)
        1, or 0 for windows without texture, which say nothing.

    References
    ----------
    P. Whittle, "Estimation and information in stationary time series", Ark. Mat. 2 (1953).
    """

    def __init__(self, power, noise, band, weights):
        self.power, self.noise, self.band = power, noise[:, None], band
        self.weights = weights[:, None]
        turned = band.hats(_N_TURNED)
        parts = [band.hats(_N_KNOTS)] + [turned * t[:, None] for t in band.turns((2, 4))]
        self.basis = torch.cat(parts, 1)
        bends = torch.diff(torch.eye(_N_KNOTS), n=2, dim=0)
        n_turned = self.basis.shape[1] - _N_KNOTS
        self.prior = torch.block_diag(
            bends.T @ bends / _BEND**2 + 1e-3 * torch.eye(_N_KNOTS),
            torch.eye(n_turned) / _TURN**2,
        )
        slope = band.log_radius - band.log_radius.mean()
        own = [torch.ones_like(slope), slope, slope**2 - (slope**2).mean(), *band.turns((2,))]
        self.own_basis = torch.stack(own, 1)
        self.own_products = (self.own_basis[:, :, None] * self.own_basis[:, None, :]).flatten(1)
        self.own_prior = torch.tensor(_OWN) ** -2
        self.smooth = torch.zeros(self.basis.shape[1])
        self.own = torch.zeros(len(power), len(own))
        self.lines = torch.zeros(len(slope))

    def fit(self, transfer, n_steps):
        """Fit texture and windows' own parts to transfer functions (n, F), by Fisher's scoring."""
        for _ in range(n_steps):
            ratio, share = self._residual(transfer)
            self.own = self.own + self._own_step(ratio, share)
            ratio, share = self._residual(transfer)
            part = self.weights / _OVERLAP
            count = (part * share.square()).sum(0)
            pull = self.basis.T @ (part * share * ratio).sum(0) - self.prior @ self.smooth
            curvature = self.basis.T @ (count[:, None] * self.basis) + self.prior
            self.smooth = self.smooth + torch.linalg.solve(curvature, pull).clamp(-1, 1)
        self._fit_lines(transfer)

    def log_likelihoods(self, tables, spreads):
        """Log-likelihood (n, G) of each window under every blur of its table.

        The windows' own parts are fitted to each blur, by one step of Fisher's scoring.
        """
        texture = self._texture()
        values = []
        for g in range(tables.shape[1]):
            light = (tables[:, g][spreads] + _LEAKAGE) * texture
            mean = light + self.noise
            ratio, share = (self.power / mean).clamp(max=_GLINT) - 1, light / mean
            step = self._own_step(ratio, share)
            mean = light * torch.exp(step @ self.own_basis.T) + self.noise
            fit = torch.log(mean) + (self.power / mean).clamp(max=1.5 * _GLINT)
            values.append(-fit.sum(1) - ((self.own + step) ** 2 @ self.own_prior) / 2)
        return self.weights * torch.stack(values, 1)

    def dispersion(self, transfer):
        """Variance of the power about its expectation, 1 where the model holds."""
        ratio, share = self._residual(transfer, clip=False)
        share = self.weights * share
        return float((share * ratio.square()).sum() / share.sum().clamp(min=1e-9))

    def _texture(self):
        return torch.exp(self.basis @ self.smooth + self.own @ self.own_basis.T + self.lines)

    def _residual(self, transfer, clip=True):
        """Relative residual of the power, and the share of light in what is expected."""
        light = (transfer + _LEAKAGE) * self._texture()
        mean = light + self.noise
        ratio = self.power / mean
        return (ratio.clamp(max=_GLINT) if clip else ratio) - 1, light / mean

    def _own_step(self, ratio, share):
        curvature = (share.square() @ self.own_products).unflatten(1, (len(self.own_prior),) * 2)
        curvature = curvature + torch.diag(self.own_prior)
        pull = (share * ratio) @ self.own_basis - self.own * self.own_prior
        return torch.linalg.solve(curvature, pull).clamp(-1, 1)

    def _fit_lines(self, transfer):
        """What all windows show beyond the smooth texture, averaged over neighbouring cells."""
        ratio, share = self._residual(transfer)
        seen, expected = (
            _neighbours((self.weights / _OVERLAP * part).sum(0), self.band)
            for part in (share * (ratio + 1), share)
        )
        self.lines = self.lines + torch.log((seen + _SHRINK) / (expected + _SHRINK))


def _neighbours(values, band):
    """Sums over 3 x 3 frequencies with binomial weights, for (F,) values of a band."""
    plane = torch.zeros(band.inside.shape)
    plane[band.inside] = values
    plane = torch.nn.functional.pad(torch.cat([plane[-1:], plane, plane[:1]])[None, None], (1, 1))
    weights = torch.tensor([0.5, 1.0, 0.5])
    return torch.nn.functional.conv2d(plane, torch.outer(weights, weights)[None, None])[0, 0][
        band.inside
    ]


def compare_windows(texture, table, grid, reading, std, shape, pitch, smooth):
    """Posterior of the blur of windows on a grid, along a family with one parameter.

    Texture and blur are estimated in turn. Ever more of the likelihood counts, at last a fifth:
    windows overlap, and a texture is never quite the same everywhere.

    Parameters
    ----------
    texture : SharedTexture
        A fresh one; it is fitted.
    table : Tensor of shape (G, F)
        `transfer_powers` of the family.
    grid : ndarray of shape (G,)
        Its parameter, in equal steps.
    reading, std : ndarray of shape (n,)
        What is known of the parameter beforehand; NaN where nothing is.
    shape : (int, int)
        Windows along rows and columns.
    pitch : (float, float)
        Distance of the windows, in sizes of a window.
    smooth : float
        Distance within which blur is taken to change linearly while the texture is learnt, in sizes
        of a window; 0 takes every window for itself. Too far, and a curved sample looks flat, as
        which it may then remain.

    Returns
    -------
    mean, deviation : ndarray of shape (n,)
        Of the posterior.
    evidence : float
        Expectation of the log-likelihood, summed over the windows.
    """
    values = torch.as_tensor(grid, dtype=torch.float32)
    prior = _log_prior(values, reading, std)
    tables, step = _averaged_tables(table), float(grid[1] - grid[0])
    mean = np.where(np.isfinite(reading), reading, 0.0)
    deviation = np.where(np.isfinite(reading), std, np.ptp(grid))
    for turn, temper in enumerate(_TEMPER):
        level, spread = _local_planes(mean, deviation, shape, pitch, smooth or _SLOPE_REACH)
        level = level if smooth else mean
        index = np.clip(np.rint((level - grid[0]) / step), 0, len(grid) - 1).astype(int)
        spreads = np.clip(np.rint(spread / (2 * _SPREAD * np.ptp(grid))), 0, _SPREADS - 1)
        spreads = torch.as_tensor(spreads.astype(int))
        transfer = tables[spreads, torch.as_tensor(index)]
        texture.fit(transfer, n_steps=4 if turn else 10)
        temper = temper / max(1.0, texture.dispersion(transfer))
        likelihood = texture.log_likelihoods(tables, spreads)
        posterior = torch.softmax((temper * likelihood + prior).double(), 1)
        mean = posterior @ values.double()
        deviation = (posterior @ values.double().square() - mean**2).clamp(min=0).sqrt()
        mean, deviation = mean.numpy(), np.maximum(deviation.numpy(), step / 4)
    return mean, deviation, float((posterior * likelihood).sum())


def _log_prior(values, reading, std):
    known = torch.as_tensor(np.isfinite(reading))
    reading = torch.as_tensor(np.where(np.isfinite(reading), reading, 0), dtype=torch.float32)
    std = torch.as_tensor(np.where(np.isfinite(std), std, 1), dtype=torch.float32)
    prior = -(((values - reading[:, None]) / std[:, None]) ** 2) / 2
    prior = torch.where(known[:, None], prior, torch.zeros(()))
    return prior - torch.logsumexp(prior, 1, keepdim=True)


def _averaged_tables(table):
    """Transfer functions of windows across which blur varies, by ever wider triangles."""
    tables = [table]
    for k in range(1, _SPREADS):
        half = max(1, int(round(k * _SPREAD * len(table))))
        weights = 1 - np.abs(np.arange(-half, half + 1)) / (half + 1)
        padded = torch.cat([table[:1].expand(half, -1), table, table[-1:].expand(half, -1)])
        parts = [w * padded[i : i + len(table)] for i, w in enumerate(weights / weights.sum())]
        tables.append(torch.stack(parts).sum(0))
    return torch.stack(tables)


def _local_planes(values, std, shape, pitch, reach):
    """Values of local planes through a grid of readings, and their range across a window."""
    weights = (1 / (std**2 + np.median(std) ** 2)).reshape(shape)
    weights = weights / weights.max()
    axes = np.meshgrid(
        *(p * np.arange(n) for p, n in zip(pitch, shape, strict=True)), indexing="ij"
    )
    terms = [np.ones(shape), *axes]
    sigma = [reach / p for p in pitch]

    def local(field):
        return gaussian_filter(weights * field, sigma, mode="constant")

    moments = np.empty((*shape, 3, 3))
    for i in range(3):
        for j in range(3):
            moments[..., i, j] = local(terms[i] * terms[j])
    pull = np.stack([local(t * values.reshape(shape)) for t in terms], -1)
    moments += 1e-6 * np.eye(3) * np.maximum(moments[..., :1, :1], 1e-12)
    planes = np.linalg.solve(moments, pull[..., None])[..., 0]
    smooth = planes[..., 0] + planes[..., 1] * axes[0] + planes[..., 2] * axes[1]
    return smooth.ravel(), (np.abs(planes[..., 1]) + np.abs(planes[..., 2])).ravel()
