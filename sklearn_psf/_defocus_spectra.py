"""Signed defocus of windows that look through one astigmatic lens, from their spectra together."""

import numpy as np

from ._shared_texture import SharedTexture, compare_windows
from ._window_depths import window_size
from ._window_powers import Band, transfer_powers, window_powers

__all__ = ["SURELY_FLAT", "measure_lens", "refine_defocus"]

_SMALLEST = 48  # pixels of a window: less has too few frequencies
_LEAST_POINTS = 200  # frequencies of a window, for the same reason
_MOST_COMPARED = 2500  # windows of an image: more would take gigabytes
_N_GRID = 61  # values of defocus that are compared
_N_COARSE = 31  # the same, while the lens is measured
_WIDEN = 3.0  # a network is not as sure of unknown textures as it says
_LEAST_STD = 0.05  # waves RMS, of a reading, beforehand
_MOST_FOCUS = 1.6  # waves RMS
_MOST_IMAGES = 3  # that the lens is measured on
_MOST_WINDOWS = 64  # of each of them
_SMOOTH = (1.2, 0.8, 0.35)  # sizes of a window within which depth changes linearly; in turn
SURELY_FLAT = 0.8  # of these: from here on the windows of an image lie on a plane, nearly
_DOUBT = 15.0  # nats for each window by which the evidence may speak against that
_STEPS = ((0.15, 0.1), (0.05, 0.04))  # relative of the cylinder, radians of the axis; in turn


def refine_defocus(maps, signed, std, known, lens):
    """Compare the windows of each image with one another, starting from single readings.

    Parameters
    ----------
    maps : PSFMap
        Of "zernike-3".
    signed, std : ndarray of shape (n, gy, gx)
        Readings of signed defocus and their standard deviations, waves RMS.
    known : ndarray of bool of shape (n, gy, gx)
        Windows whose reading counts.
    lens : (float, float)
        Cylinder, waves RMS, and axis, radians.

    Returns
    -------
    signed, std : ndarray of shape (n, gy, gx)
        Posterior mean and standard deviation. What is not known stays as it is, and so do images
        with less than nine windows to compare or more than 2500, or windows below 48 pixels.
    reach : ndarray of shape (n,)
        Distance within which the depth of each image changes linearly, as the evidence tells, in
        sizes of a window: 1.2 is a plane, 0 anything; NaN of images that were not compared.
    """
    signed, std, reach = signed.copy(), std.copy(), np.full(len(maps), np.nan)
    for i in range(len(maps)):
        windows = _Windows(maps, i, signed[i], std[i], known[i])
        if windows.comparable:
            mean, deviation, reach[i] = windows.compare_smoothest(*windows.tabulate(lens))
            use = windows.textured
            if reach[i] < SURELY_FLAT:  # both readings err, by about as much as they differ
                deviation = np.hypot(deviation, np.abs(mean - signed[i]) / 2)
            signed[i][use], std[i][use] = mean[use], deviation[use]
    return signed, std, reach


def measure_lens(maps, signed, std, known, lens):
    """Find the lens under which the windows of images show most nearly one texture.

    Parameters
    ----------
    maps, signed, std, known
        As of `refine_defocus`.
    lens : (float, float)
        Where to begin.

    Returns
    -------
    (float, float)
        Cylinder, waves RMS, and axis, radians; as given where no image can be compared.
    """
    spread = [np.ptp(s[k]) if k.any() else 0.0 for s, k in zip(signed, known, strict=True)]
    best = [int(i) for i in np.argsort(spread)[::-1][:_MOST_IMAGES]]
    sets = [_Windows(maps, i, signed[i], std[i], known[i], _MOST_WINDOWS) for i in best]
    sets = [windows for windows in sets if windows.comparable]
    lens = np.array(lens, dtype=float)
    if not sets:
        return tuple(lens)

    def evidence(trial):
        return sum(w.compare(*w.tabulate(trial, _N_COARSE))[2] for w in sets)

    for relative, turn in _STEPS:
        for k, step in enumerate((relative * lens[0], turn)):
            trials = lens + step * np.array([-1, 0, 1])[:, None] * np.eye(2)[k]
            lens[k] += step * _peak([evidence(trial) for trial in trials])
    return tuple(lens)


def _peak(values):
    """Place of the maximum of the parabola through values at -1, 0 and 1, within [-1.5, 1.5]."""
    bend = values[0] - 2 * values[1] + values[2]
    slope = (values[2] - values[0]) / 2
    if bend >= 0:
        return float(np.sign(slope))
    return float(np.clip(-slope / bend, -1.5, 1.5))


class _Windows:
    """The windows of one image, with what single readings say of them."""

    def __init__(self, maps, i, signed, std, known, most=None):
        thin = 1 if most is None else max(1, int(np.ceil(np.sqrt(known.size / most))))
        every = (slice(None, None, thin),) * 2
        self.model, rows, columns = maps.psf_model, maps.rows[::thin], maps.columns[::thin]
        self.shape, known = (len(rows), len(columns)), known[every]
        self.reading = np.where(known, signed[every], np.nan).ravel()
        self.std = np.maximum(_WIDEN * std[every].ravel(), _LEAST_STD)
        size = int(round(min(window_size(maps))))
        fits = (
            _SMALLEST <= size <= min(maps.shape[1:])
            and min(self.shape) > 1
            and known.size <= _MOST_COMPARED
        )
        self.band = Band(size, self.model.cutoff) if fits and known.sum() >= 9 else None
        self.comparable = self.band is not None and self.band.inside.sum() >= _LEAST_POINTS
        self.textured = known
        if not self.comparable:
            return
        self.power, self.noise, varied = window_powers(maps.images[i], rows, columns, self.band)
        self.textured = known & varied.numpy().reshape(self.shape)
        self.comparable = self.textured.sum() >= 9
        self.pitch = tuple(float(np.diff(c).mean()) / size for c in (rows, columns))

    def tabulate(self, lens, n_grid=_N_GRID):
        """Values of defocus, and what the lens lets through at each of them."""
        reach = np.nanmax(np.abs(self.reading) + 0.7 * self.std)
        grid = np.linspace(-1, 1, n_grid) * min(reach, _MOST_FOCUS)
        # A negative focus turns the axis of the encoded wavefront: the pupil takes it as it is.
        parameters = np.column_stack([grid, *np.broadcast_arrays(*lens, grid)[:2]])
        return grid, transfer_powers(self.model, parameters, self.band)

    def compare_smoothest(self, grid, table):
        """Posterior of the smoothest depth that the evidence allows, and how smooth it is."""
        free = self.compare(grid, table, smooth=0.0)
        for smooth in _SMOOTH:
            mean, deviation, evidence = self.compare(grid, table, smooth)
            if evidence > free[2] - _DOUBT * self.textured.sum():
                return mean, deviation, smooth
        return *free[:2], 0.0

    def compare(self, grid, table, smooth=_SMOOTH[0]):
        """Posterior mean and deviation, of the shape of the grid, and the evidence."""
        weights = self.noise.new_tensor(self.textured.ravel(), dtype=self.noise.dtype)
        texture = SharedTexture(self.power, self.noise, self.band, weights)
        mean, deviation, evidence = compare_windows(
            texture, table, grid, self.reading, self.std, self.shape, self.pitch, smooth
        )
        return mean.reshape(self.shape), deviation.reshape(self.shape), evidence
