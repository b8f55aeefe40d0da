"""The PSF families: parameters in, centred non-negative PSFs of sum 1 out.

Wavefronts are in waves, Zernike coefficients in waves RMS (Noll), widths and displacements in
pixels, angles in radians from the column (x) axis towards the row (y) axis.
"""

import math

import torch

from .encodings import (
    coherent_astigmatism,
    coherent_cylinder,
    decode_astigmatism,
    decode_cylinder,
    encode_astigmatism,
    encode_cylinder,
)
from .motion import Motion
from .psf_model import PSFModel
from .pupil import Optics, is_number, pupil_psf, radial_psf
from .quadrature import chord_nodes, default_nodes, radial_nodes
from .zernike import zernike_basis

__all__ = ["PSF_MODELS", "PSFModel", "make_psf_model"]

_FOCUS = (0.0, 1.5)
_CYLINDER = (0.0, 0.75)
_WIDTH = (0.5, 10.0)
_NARROWEST = 1e-3  # width of a Gaussian that is a delta on the grid, pixels


class _Zernike(PSFModel):
    """Pupils of unit amplitude whose wavefront is a sum of Zernike polynomials."""

    def _wavefront(self, coefficients: torch.Tensor, indices: tuple[int, ...]) -> torch.Tensor:
        y, x, _ = chord_nodes(default_nodes(self.size, self.cutoff))
        basis = zernike_basis(indices, y[:, None].expand_as(x), x).to(coefficients)
        return torch.einsum("nj,jyx->nyx", coefficients, basis)


class _Zernike1(PSFModel):
    name = "zernike-1"
    parameter_names, units, periods, n_encoded = ("focus",), ("waves RMS",), (None,), 1

    def _bounds(self) -> list[tuple[float, float]]:
        return [_FOCUS]

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        s = radial_nodes(default_nodes(self.size, self.cutoff))[0].to(p)
        return radial_psf(p * (math.sqrt(3) * (2 * s - 1)), self.cutoff, self.size)

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return p.abs()

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return e.clamp(min=0)


class _Zernike2(_Zernike):
    name = "zernike-2"
    parameter_names, units = ("cylinder", "axis"), ("waves RMS", "rad")
    periods, n_encoded = (None, math.pi / 2), 3

    def _bounds(self) -> list[tuple[float, float]]:
        return [_CYLINDER, (0.0, math.pi / 2)]

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        c, axis = p.unbind(-1)
        z = torch.stack([c * torch.sin(2 * axis), c * torch.cos(2 * axis)], -1)
        return pupil_psf(self._wavefront(z, (5, 6)), self.cutoff, self.size)

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return encode_cylinder(p)

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return decode_cylinder(e)

    def _coherent(self, e: torch.Tensor) -> torch.Tensor:
        return coherent_cylinder(e)


class _Zernike3(_Zernike):
    name = "zernike-3"
    parameter_names = ("focus", "cylinder", "axis")
    units, periods, n_encoded = ("waves RMS", "waves RMS", "rad"), (None, None, math.pi), 6

    def _bounds(self) -> list[tuple[float, float]]:
        return [_FOCUS, _CYLINDER, (0.0, math.pi)]

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        f, c, axis = p.unbind(-1)
        z = torch.stack([f, c * torch.sin(2 * axis), c * torch.cos(2 * axis)], -1)
        return pupil_psf(self._wavefront(z, (4, 5, 6)), self.cutoff, self.size)

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return encode_astigmatism(p)

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return decode_astigmatism(e)

    def _coherent(self, e: torch.Tensor) -> torch.Tensor:
        return coherent_astigmatism(e)


class _Gaussian(PSFModel):
    """Sampled Gaussians; the widths are standard deviations."""

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        x2 = (torch.arange(self.size, dtype=p.dtype, device=p.device) - self.size // 2) ** 2
        variance = (p[..., None] ** 2).clamp(min=_NARROWEST**2)  # width 0 is a delta, not NaN
        profile = torch.softmax(-x2 / (2 * variance), -1)  # (n, P, size), sums to 1
        return profile[:, 0, :, None] * profile[:, -1, None, :]

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return p.abs()

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return e.clamp(min=_NARROWEST)


class _Gaussian1(_Gaussian):
    name = "gaussian-1"
    parameter_names, units, periods, n_encoded = ("width",), ("px",), (None,), 1

    def _bounds(self) -> list[tuple[float, float]]:
        return [_WIDTH]


class _Gaussian2(_Gaussian):
    name = "gaussian-2"
    parameter_names, units = ("width_y", "width_x"), ("px", "px")
    periods, n_encoded = (None, None), 2

    def _bounds(self) -> list[tuple[float, float]]:
        return [_WIDTH, _WIDTH]


class _Diffraction(PSFModel):
    """Noll coefficients from 4 on and the pupil's cut-off itself, which is unknown too."""

    name = "diffraction"

    def __init__(
        self,
        cutoff: float = 0.25,
        size: int = 127,
        optics: Optics | None = None,
        n_coefficients: int = 8,
        max_coefficient: float = 0.3,
    ):
        super().__init__(cutoff, size, optics)
        if not (is_number(n_coefficients) and n_coefficients >= 1 and n_coefficients % 1 == 0):
            raise ValueError(f"n_coefficients must be a positive integer, got {n_coefficients!r}.")
        if not (is_number(max_coefficient) and 0 < max_coefficient < math.inf):
            raise ValueError(f"max_coefficient must be positive, got {max_coefficient!r}.")
        self.n_coefficients, self.max_coefficient = int(n_coefficients), float(max_coefficient)
        self.indices = tuple(range(4, 4 + self.n_coefficients))
        self.parameter_names = (*(f"z{j}" for j in self.indices), "cutoff")
        self.units = ("waves RMS",) * self.n_coefficients + ("1/px",)
        self.periods = (None,) * (self.n_coefficients + 1)
        self.n_encoded = self.n_coefficients + 1

    @property
    def settings(self) -> dict:
        """Arguments of `make_psf_model` that rebuild this family."""
        extra = {"n_coefficients": self.n_coefficients, "max_coefficient": self.max_coefficient}
        return super().settings | extra

    def _bounds(self) -> list[tuple[float, float]]:
        limit = self.max_coefficient
        return [(-limit, limit)] * self.n_coefficients + [(self.cutoff / 2, self.cutoff)]

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        if (p[:, -1] <= 0).any():
            raise ValueError("parameters of diffraction need a positive cutoff in the last column.")
        y, x, _ = chord_nodes(default_nodes(self.size, self.cutoff))
        basis = zernike_basis(self.indices, y[:, None].expand_as(x), x).to(p)
        wavefront = torch.einsum("nj,jyx->nyx", p[:, :-1], basis)
        return torch.cat(
            [pupil_psf(w[None], f_c, self.size) for w, f_c in zip(wavefront, p[:, -1], strict=True)]
        )


class _BornWolf(PSFModel):
    """Scalar Debye integral of a circular aperture in paraxial defocus, depth in micrometres."""

    name = "born-wolf"
    parameter_names, units, periods, n_encoded = ("depth",), ("um",), (None,), 1

    def __init__(self, cutoff: float = 0.25, size: int = 127, optics: Optics | None = None):
        if not isinstance(optics, Optics):
            raise ValueError(f"born-wolf needs optics=Optics(...), got {optics!r}.")
        super().__init__(optics.cutoff, size, optics)
        self.optics: Optics = optics

    def _bounds(self) -> list[tuple[float, float]]:
        return [(0.0, self.optics.waves_to_micrometres(_FOCUS[1]))]

    def _psf(self, p: torch.Tensor) -> torch.Tensor:
        rho = radial_nodes(default_nodes(self.size, self.cutoff))[0].sqrt().to(p)
        wavefront = self.optics.defocus_wavefront(p, rho, exact=False)
        return radial_psf(wavefront, self.cutoff, self.size)

    def _encode(self, p: torch.Tensor) -> torch.Tensor:
        return p.abs()

    def _decode(self, e: torch.Tensor) -> torch.Tensor:
        return e.clamp(min=0)


PSF_MODELS: dict[str, type[PSFModel]] = {
    cls.name: cls
    for cls in (
        _Zernike1, _Zernike2, _Zernike3, _Gaussian1, _Gaussian2, _Diffraction, _BornWolf, Motion,
    )
}  # fmt: skip


def make_psf_model(
    name: str,
    cutoff: float = 0.25,
    size: int = 127,
    optics: Optics | None = None,
    **settings: float,
) -> PSFModel:
    r"""Build a PSF family by its name.

    Parameters
    ----------
    name : str
        "zernike-1" (focus), "zernike-2" (cylinder, axis), "zernike-3" (focus, cylinder, axis),
        "gaussian-1" (width), "gaussian-2" (width_y, width_x), "diffraction" (Noll coefficients
        and cut-off), "born-wolf" (depth) or "motion" (v_y, v_x, v_z, z0).
    cutoff : float, default=0.25
        Pupil cut-off, cycles per pixel; "born-wolf" takes it from the optics.
    size : int, default=127
        Height and width of the PSFs, pixels; odd.
    optics : Optics or None
        Needed by "born-wolf".
    **settings
        Of "diffraction": `n_coefficients` (default 8, from Noll index 4) and `max_coefficient`
        (default 0.3 waves RMS). Of "motion": `cylinder` (waves RMS, default 0) and `axis` of a
        lens of known astigmatism.

    Returns
    -------
    PSFModel
        The family.

    Raises
    ------
    ValueError
        If the name is unknown or an argument is out of range.

    Notes
    -----
    The wavefronts of the Zernike families, in waves, are

    .. math:: W = f Z_4 + c\, (\cos 2\alpha\, Z_6 + \sin 2\alpha\, Z_5)

    with f focus, c cylinder and alpha the axis; "zernike-1" has c = 0, "zernike-2" f = 0.

    References
    ----------
    R. J. Noll, "Zernike polynomials and atmospheric turbulence", J. Opt. Soc. Am. 66 (1976).
    M. Born and E. Wolf, "Principles of Optics", sec. 8.8 and 9.2.

    Examples
    --------
    >>> model = make_psf_model("zernike-3", size=31)
    >>> model.parameter_names
    ('focus', 'cylinder', 'axis')
    >>> model.psf([[0.2, 0.1, 0.0]]).shape
    (1, 31, 31)
    """
    if not isinstance(name, str) or name not in PSF_MODELS:
        raise ValueError(f"psf_model must be one of {', '.join(PSF_MODELS)}; got {name!r}.")
    return PSF_MODELS[name](cutoff=cutoff, size=size, optics=optics, **settings)
