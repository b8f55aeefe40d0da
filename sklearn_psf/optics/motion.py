"""The family of motions: one exposure while the sample moves along a straight path."""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from scipy.special import j0

from .motion_encodings import (
    decode_astigmatic_motion,
    decode_motion,
    encode_astigmatic_motion,
    encode_motion,
    nearest_motion,
)
from .psf_model import PSFModel
from .pupil import Optics, is_number, pupil_psf
from .quadrature import chord_nodes, default_nodes, radial_nodes
from .zernike import zernike_basis

__all__ = ["Motion"]

_STEPS_PER_PIXEL = 32  # of radial profiles: 64 per period of the highest frequency of a PSF
_TINY = 1e-12


class Motion(PSFModel):
    r"""Time average over the exposure of a defocused PSF that moves along a straight path.

    At time s in [-1/2, 1/2] the PSF stands at v s with defocus z0 + v_z s:

    .. math:: h(r) = \int h_{z_0 + v_z s}(r - v s)\, ds

    by Gauss-Legendre quadrature. Each PSF is a radial profile, or, for a lens with astigmatism, the
    PSF of a pupil whose tilt is the displacement.

    Parameters
    ----------
    cutoff, size, optics
        As of `PSFModel`.
    cylinder : float, default=0.0
        Known astigmatism of the lens, waves RMS. Without it the blur does not tell the two sides of
        focus apart: v_z and z0 are then at least 0. With it z0 has a sign, and v_z is at least 0.
    axis : float, default=0.0
        Axis of that astigmatism, radians.
    """

    name = "motion"
    parameter_names = ("v_y", "v_x", "v_z", "z0")
    units, periods = ("px", "px", "waves RMS", "waves RMS"), (None,) * 4
    renewal = 32  # these PSFs take ten times as long as others

    def __init__(
        self,
        cutoff: float = 0.25,
        size: int = 127,
        optics: Optics | None = None,
        cylinder: float = 0.0,
        axis: float = 0.0,
    ):
        super().__init__(cutoff, size, optics)
        if not (is_number(cylinder) and 0 <= cylinder < math.inf):
            raise ValueError(f"cylinder must be a number of at least 0, got {cylinder!r}.")
        if not (is_number(axis) and math.isfinite(axis)):
            raise ValueError(f"axis must be a finite number, got {axis!r}.")
        self.cylinder, self.axis = float(cylinder), float(axis)
        self.n_encoded = 7 if self.cylinder else 6
        self.turns = not self.cylinder  # a lens with astigmatism has an axis

    @property
    def settings(self) -> dict:
        """Arguments of `make_psf_model` that rebuild this family."""
        extra = {"cylinder": self.cylinder, "axis": self.axis} if self.cylinder else {}
        return super().settings | extra

    def nearest(self, encoded: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Return coordinates of the motion that is nearest to uncertain ones, up to its sense.

        Parameters
        ----------
        encoded, variance : ndarray of shape (..., n_encoded)
            Means of coordinates and their variances.

        Returns
        -------
        ndarray of shape (..., n_encoded)
            To decode. With astigmatism they are as they were.
        """
        if self.cylinder:
            return encoded
        return nearest_motion(torch.as_tensor(encoded), torch.as_tensor(variance)).numpy()

    def _turned(self, parameters, angle, mirrored):
        v_y, v_x, *rest = parameters.unbind(1)
        v_y = torch.where(mirrored, -v_y, v_y)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        return torch.stack([sine * v_x + cosine * v_y, cosine * v_x - sine * v_y, *rest], 1)

    def _bounds(self) -> list[tuple[float, float]]:
        lowest = -1.0 if self.cylinder else 0.0
        return [(-20.0, 20.0), (-20.0, 20.0), (0.0, 1.0), (lowest, 1.0)]

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        n_times = self._n_times(p.detach().abs().amax(0).tolist())
        nodes, weights = (torch.from_numpy(a / 2).to(p) for a in leggauss(n_times))
        one = self._astigmatic if self.cylinder else self._radial
        psfs = torch.stack([one(row, nodes, weights) for row in p])
        # Not normalised one by one: light that has left the array is lost, not brought back.
        return psfs / psfs.sum((-2, -1), keepdim=True)

    def _n_times(self, largest: list[float]) -> int:
        """Return the times that integrate the fastest of some motions."""
        v_y, v_x, v_z, _ = largest
        # Gauss-Legendre needs somewhat more nodes than half the largest phase in radians.
        phase = 2 * math.pi * (self.cutoff * math.hypot(v_y, v_x) + math.sqrt(3) * v_z)
        return max(48, 16 + math.ceil(0.55 * phase))

    def _radial(self, p: torch.Tensor, nodes: torch.Tensor, weights: torch.Tensor):
        half = self.size // 2
        reach = math.sqrt(2) * half + float(p[:2].detach().norm()) / 2
        n_radii = 64 * math.ceil((reach * _STEPS_PER_PIXEL + 3) / 64)  # few sizes: cached
        squares, kernel = _hankel_kernel(n_radii, self.cutoff, p.dtype, p.device)
        phase = 2 * math.pi * math.sqrt(3) * (p[3] + p[2] * nodes)[:, None] * (2 * squares - 1)
        mass = radial_nodes(len(squares))[1].to(p)
        profiles = ((mass * torch.cos(phase)) @ kernel) ** 2
        profiles = profiles + ((mass * torch.sin(phase)) @ kernel) ** 2
        at = torch.arange(-half, half + 1, dtype=p.dtype, device=p.device)
        squared_y, squared_x = ((at - v * nodes[:, None]) ** 2 for v in (p[0], p[1]))
        radius = torch.sqrt(squared_y[:, :, None] + squared_x[:, None, :] + _TINY)
        shifted = _interpolate(profiles, radius.flatten(1) * _STEPS_PER_PIXEL)
        # Between its samples a cubic can dip below zero by rounding alone.
        return (weights @ shifted).clamp(min=0).reshape(self.size, self.size)

    def _astigmatic(self, p: torch.Tensor, nodes: torch.Tensor, weights: torch.Tensor):
        n_nodes = default_nodes(self.size, self.cutoff)
        n_nodes += math.ceil(float(p[:2].detach().norm()) * self.cutoff)
        y, x, _ = chord_nodes(n_nodes)
        y = y[:, None].expand_as(x)
        defocus, oblique, straight = zernike_basis((4, 5, 6), y, x).to(p)
        double = 2 * self.axis
        lens = self.cylinder * (math.cos(double) * straight + math.sin(double) * oblique)
        tilt = self.cutoff * (p[0] * y.to(p) + p[1] * x.to(p))
        s = nodes[:, None, None]
        wavefront = lens + (p[3] + p[2] * s) * defocus + s * tilt
        psfs = pupil_psf(wavefront, self.cutoff, self.size, normalize=False)
        return (weights[:, None, None] * psfs).sum(0)

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return encode_astigmatic_motion(p) if self.cylinder else encode_motion(p)

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return decode_astigmatic_motion(e) if self.cylinder else decode_motion(e)


@lru_cache(maxsize=8)
def _hankel_kernel(
    n_radii: int, cutoff: float, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared pupil radii (nodes,) and the Hankel kernel to n_radii radii of a fine grid."""
    radii = np.arange(n_radii) / _STEPS_PER_PIXEL
    squares = radial_nodes(default_nodes(2 * math.ceil(radii[-1]), cutoff))[0].numpy()
    kernel = j0(2 * np.pi * cutoff * np.outer(np.sqrt(squares), radii))
    return (
        torch.from_numpy(squares.copy()).to(device, dtype),
        torch.from_numpy(kernel).to(device, dtype),
    )


def _interpolate(profiles: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Cubic interpolation (Catmull-Rom) of even profiles (k, m) at places (k, n), in steps."""
    lower = places.detach().floor().long()
    t = places - lower
    mirrored = torch.cat([profiles[:, 1:2], profiles], 1)  # what lies before the centre
    before, at, after, beyond = (torch.gather(mirrored, 1, lower + k) for k in range(4))
    slope, slope_after = (after - before) / 2, (beyond - at) / 2
    rise = after - at
    return at + t * (
        slope + t * (3 * rise - 2 * slope - slope_after + t * (slope + slope_after - 2 * rise))
    )
