"""Power spectra of the windows of an image, and of the PSFs that may have blurred them."""

import math

import numpy as np
import torch

from .networks.spectra import periodic_spectrum

__all__ = ["Band", "transfer_powers", "window_powers"]

_REACH = 1.2  # of the pupil's cut-off: frequencies that are looked at


class Band:
    """The frequencies of windows that tell their blur.

    Parameters
    ----------
    size : int
        Height and width of the windows, pixels.
    cutoff : float
        Cut-off of the pupil, cycles per pixel.
    """

    def __init__(self, size, cutoff):
        self.size = size
        f_y = torch.fft.fftfreq(size)[:, None]
        f_x = torch.fft.rfftfreq(size).expand(size, -1)
        radius = torch.hypot(f_y.expand_as(f_x), f_x)
        twice = (f_x == 0) & (f_y < 0)  # the other half of this column holds the same
        high = min(_REACH * cutoff, 0.45)
        self.inside = (radius > 2.5 / size) & (radius < high) & ~twice
        self.beyond = radius > min(0.5, 2 * cutoff)  # no light comes through any pupil
        self.log_radius = torch.log(radius[self.inside])
        self.angle = torch.atan2(f_y.expand_as(f_x)[self.inside], f_x[self.inside])
        # Where only noise is left a texture cannot be learnt: the last knot speaks for it.
        self.log_radius = self.log_radius.clamp(max=math.log(0.87 * high))

    def hats(self, n):
        """Piecewise linear functions of the logarithm of the frequency, (F, n)."""
        knots = torch.linspace(float(self.log_radius.min()), float(self.log_radius.max()), n)
        distance = (self.log_radius[:, None] - knots).abs() / (knots[1] - knots[0])
        return (1 - distance).clamp(min=0)

    def turns(self, orders):
        """Harmonics of the direction, a list of (F,)."""
        return [f(k * self.angle) for k in orders for f in (torch.cos, torch.sin)]


def window_powers(image, rows, columns, band):
    """Power spectra of the windows of an image, each normalised to variance 1.

    Parameters
    ----------
    image : array of shape (H, W)
        Of any real dtype; one that stays on disk is read a row of windows at a time.
    rows, columns : ndarray of shape (gy,) and (gx,)
        Centres of the windows.
    band : Band
        Which frequencies.

    Returns
    -------
    power : Tensor of shape (gy * gx, F)
        Power at the frequencies of the band.
    noise : Tensor of shape (gy * gx,)
        Mean power at frequencies where there is no light.
    textured : Tensor of shape (gy * gx,)
        Whether a window varies at all.
    """
    size = band.size
    starts = [
        np.clip(np.rint(centres - (size - 1) / 2).astype(int), 0, n - size)
        for centres, n in zip((rows, columns), image.shape, strict=True)
    ]
    powers, noises, textured = [], [], []
    for r in starts[0]:
        row = np.asarray(image[r : r + size])  # of a file, read once
        block = np.stack([row[:, c : c + size] for c in starts[1]])
        block = block - block.mean((1, 2), keepdims=True, dtype=np.float64)
        scale = block.std((1, 2))
        textured.append(torch.as_tensor(scale > 0))
        scale = np.where(scale > 0, scale, 1)
        x = torch.as_tensor(block / scale[:, None, None], dtype=torch.float32)
        power = periodic_spectrum(x).abs().square() / size**2
        powers.append(power[:, band.inside])
        noises.append(power[:, band.beyond].mean(1).clamp(min=1e-9))
    return torch.cat(powers), torch.cat(noises), torch.cat(textured)


def transfer_powers(model, parameters, band):
    """Squared modulus of the OTF of PSFs at the frequencies of a band.

    Parameters
    ----------
    model : PSFModel
        Family.
    parameters : ndarray of shape (G, P)
        Parameters.
    band : Band
        Which frequencies.

    Returns
    -------
    Tensor of shape (G, F)
        In [0, 1].
    """
    powers, n = [], band.size
    for part in np.array_split(parameters, max(1, len(parameters) // 16)):
        psfs = model.psf(torch.as_tensor(part, dtype=torch.float32))
        missing = -psfs.shape[-1] % n
        psfs = torch.nn.functional.pad(psfs, (0, missing, 0, missing))
        # A PSF wider than the window is folded: its OTF is wanted at the window's frequencies.
        folded = psfs.unflatten(1, (-1, n)).sum(1).unflatten(2, (-1, n)).sum(2)
        powers.append(torch.fft.rfft2(folded).abs().square()[:, band.inside])
    return torch.cat(powers)
