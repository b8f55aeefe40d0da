"""Richardson-Lucy restoration with total variation, over any linear operator."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .operators import LinearOperator, strips, tv_curvature

__all__ = ["poisson_log_likelihood", "richardson_lucy"]

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
# Field pixels that send less of their light than this into the frame are left out of the model:
# the image knows nothing of them, and dividing by so little multiplies rounding errors.
_MIN_SENSITIVITY = 1e-3
# Floor of A x + b, relative to the mean: truncated modes and FFT rounding may go below zero.
_FLOOR = 1e-4
# The total-variation term may at most multiply a step by 1 / _MIN_DENOMINATOR ...
_MIN_DENOMINATOR = 0.1
# ... and no step takes a pixel all the way to zero, from where it could not return.
_MIN_FACTOR = 1e-3
# Weight of the last step beside that of the last change in an extrapolation.
_STEP_WEIGHT = 1 / 3
# An extrapolation keeps at least this share of a pixel, for the same reason.
_MIN_EXTRAPOLATED = 0.1


def poisson_log_likelihood(counts: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    r"""Log-likelihood of independent Poisson counts.

    .. math:: \sum_p y_p \log m_p - m_p - \log\Gamma(y_p + 1)

    Parameters
    ----------
    counts : Tensor of shape (..., H, W)
        Counts y (photo-electrons); need not be integers.
    mean : Tensor of shape (..., H, W)
        Their expected values m, non-negative.

    Returns
    -------
    Tensor of shape (...)
        Sum over pixels, nats; minus infinity where a positive count was impossible.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> counts = torch.full((2, 2), 3.0)
    >>> bool(poisson_log_likelihood(counts, counts) > poisson_log_likelihood(counts, 2 * counts))
    True
    """
    if counts.shape != mean.shape:
        raise ValueError(
            f"counts and mean must have one shape, got {tuple(counts.shape)} and "
            f"{tuple(mean.shape)}."
        )
    return (torch.xlogy(counts, mean) - mean - torch.lgamma(counts + 1)).sum((-2, -1))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The image, the model and the scales of one restoration; the parts of one step of it.

    Arrays of the size of the image are written in place, strip by strip: a fresh one costs more
    than the arithmetic on it.
    """

    image: torch.Tensor  # (..., H, W)
    operator: LinearOperator
    background: torch.Tensor
    lambda_tv: float
    scale: torch.Tensor  # (..., 1, 1), the intensity that floors and eps are relative to
    eps: torch.Tensor  # (..., 1, 1)
    sensitivity: torch.Tensor  # A^T 1 on the field, _MIN_SENSITIVITY where left out

    def compare(self, x, ratio) -> None:
        """Write ``y / (A x + b)``."""
        self.operator.forward(x, out=ratio)
        background = self.background.expand(ratio.shape)
        floor = _FLOOR * self.scale
        for rows in strips(ratio):
            part = ratio[..., rows, :]
            expected = torch.maximum(part + background[..., rows, :], floor)
            torch.div(self.image[..., rows, :], expected, out=part)

    def step(self, x, ratio, out) -> None:
        """Write the next iterate after x."""
        self.operator.adjoint(ratio, out=out)
        for rows in strips(out):
            above = x[..., max(rows.start - 1, 0) : rows.start, :]
            self._factor(rows, x, above, out[..., rows, :]).mul_(x[..., rows, :])

    def step_ahead(self, z, ratio, out, last, momentum):
        """Write the next iterate after z, and what is extrapolated from it in the place of z.

        Returns the slope of what is lowered along the last change, shape (..., 1, 1).
        """
        self.operator.adjoint(ratio, out=out)
        slope = torch.zeros_like(self.scale)
        above = z[..., :0, :]
        for rows in strips(out):
            here, new = z[..., rows, :], out[..., rows, :]
            bottom = here[..., -1:, :].clone()  # the next strip needs it as it is
            relative = self._factor(rows, z, above, new) - 1
            above = bottom
            new *= here
            change = new - last[..., rows, :]
            here *= relative  # the step
            relative *= self.sensitivity[..., rows, :]  # minus the gradient, up to the regulariser
            slope -= torch.linalg.vecdot(relative.flatten(-2), change.flatten(-2))[..., None, None]
            torch.add(change, here, alpha=_STEP_WEIGHT, out=here)
            torch.addcmul(new, here, momentum, out=here)
            torch.maximum(here, torch.mul(new, _MIN_EXTRAPOLATED, out=relative), out=here)
        return slope

    def _factor(self, rows, x, above, back):
        """Return what a step multiplies rows of x by, of `back` = A^T ratio; in its place.

        `above` is the row of x before them, if there is one.
        """
        denominator = self.sensitivity[..., rows, :]
        if self.lambda_tv > 0:
            below = x[..., rows.start : rows.stop + 1, :]
            part = torch.cat([above, below], -2) if above.shape[-2] else below
            curvature = tv_curvature(part, self.eps)[..., above.shape[-2] :, :]
            curvature = curvature[..., : back.shape[-2], :]
            regulariser = torch.rsub(curvature, 1, alpha=self.lambda_tv)
            denominator = regulariser.clamp_(min=_MIN_DENOMINATOR).mul_(denominator)
        return back.div_(denominator).clamp_(min=_MIN_FACTOR)


def richardson_lucy(
    image,
    operator: LinearOperator,
    *,
    n_iter: int = 40,
    lambda_tv: float = 0.0,
    background=0.0,
    accelerate: bool = False,
    x0: torch.Tensor | None = None,
    scale: float | None = None,
    eps: float = 0.1,
    callback: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    r"""Restore an image whose counts are Poisson distributed about ``A x + b``.

    .. math:: x \leftarrow \frac{x}{A^T 1 \,
        \max(1 - \lambda \, \mathrm{div}(\nabla x / |\nabla x|_\epsilon), 0.1)}
        \; A^T \frac{y}{A x + b}

    Parameters
    ----------
    image : array-like or Tensor of shape (..., H, W)
        Counts y, or values proportional to them; non-negative.
    operator : LinearOperator
        The blur A.
    n_iter : int, default=40
        Number of iterations; each applies A and its adjoint once.
    lambda_tv : float, default=0.0
        Weight of the total variation, dimensionless; 0 is plain Richardson-Lucy.
    background : float or Tensor broadcastable to (..., H, W), default=0.0
        Background b that is not blurred, in units of the image.
    accelerate : bool, default=False
        Whether to extrapolate along successive iterates, after k extrapolations by
        ``m = k / (k + 2)`` of the last change [3]_ and ``m / 3`` of the last step [4]_. One where
        the last change leads uphill is dropped for the plain step, and k starts again from 0 [5]_.
        The weights do not depend on the image, so that parts of an image move as the whole does.
    x0 : Tensor of shape (..., Hf, Wf) or None
        Start on the padded field, positive. None is the constant `scale`.
    scale : float or None
        Intensity that the start, the floors and `eps` are relative to. None is the mean of
        ``max(y - b, 0)`` of each image.
    eps : float, default=0.1
        Smoothing of the total variation, relative to `scale`.
    callback : callable or None
        Called as ``callback(i, x)`` after iteration i = 0, 1, ...; x is overwritten later.

    Returns
    -------
    Tensor of shape (..., H + kh - 1, W + kw - 1)
        The restored padded field, non-negative and finite; ``operator.crop`` cuts the frame out.
        Pixels that send less than 0.1 % of their light into the frame are 0.

    Raises
    ------
    ValueError
        If the image is negative or not finite, shapes do not fit, or a parameter is out of range.

    Notes
    -----
    With ``lambda_tv=0`` the plain iteration is expectation maximisation, hence the likelihood
    never decreases. Every iterate then satisfies ``sum(A x) = sum(y (A x') / (A x' + b))``, x'
    being the one before: with b = 0 the light of the image is kept exactly,
    ``sum(A x) = sum(y)``; with b > 0, ``sum(A x + b) = sum(y)`` holds up to the fit's residual
    and approaches it as the iteration converges. ``A^T 1`` is that of the operator, so both hold
    with unknown light from beyond the frame. Scaling the image and b scales the result.

    References
    ----------
    .. [1] L. A. Shepp and Y. Vardi, "Maximum likelihood reconstruction for emission tomography",
       IEEE Trans. Med. Imaging 1, 113-122 (1982).
    .. [2] N. Dey et al., "Richardson-Lucy algorithm with total variation regularization for 3D
       confocal microscope deconvolution", Microsc. Res. Tech. 69, 260-266 (2006).
    .. [3] Y. Nesterov, "A method for solving the convex programming problem with convergence rate
       O(1/k^2)", Dokl. Akad. Nauk SSSR 269, 543-547 (1983); on Richardson-Lucy iterations also
       D. S. C. Biggs and M. Andrews, Appl. Opt. 36, 1766-1775 (1997).
    .. [4] D. Kim and J. A. Fessler, "Optimized first-order methods for smooth convex
       minimization", Math. Program. 159, 81-107 (2016); there the weight is larger.
    .. [5] B. O'Donoghue and E. Candes, "Adaptive restart for accelerated gradient schemes",
       Found. Comput. Math. 15, 715-732 (2015).
    .. [6] M. Bertero and P. Boccacci, "A simple method for the reduction of boundary effects in
       the Richardson-Lucy approach to image deconvolution", Astron. Astrophys. 437, 369 (2005).

    Examples
    --------
    >>> from sklearn_psf.operators import Convolution
    >>> operator = Convolution(torch.full((3, 3), 1 / 9), shape=(9, 9))
    >>> image = torch.ones(9, 9)
    >>> image[3:6, 3:6] = 10.0
    >>> restored = operator.crop(richardson_lucy(image, operator, n_iter=50))
    >>> restored.shape
    torch.Size([9, 9])
    >>> bool(restored[4, 4] > 30)
    True
    """
    problem = _pose(image, operator, background, lambda_tv, scale, eps)
    if n_iter < 0:
        raise ValueError(f"n_iter must not be negative, got {n_iter}.")
    x = _start(problem) if x0 is None else _check_start(x0, problem)
    if n_iter == 0:
        return x
    return (_iterate_accelerated if accelerate else _iterate)(problem, x, n_iter, callback)


def _pose(image, operator, background, lambda_tv, scale, eps) -> _Problem:
    """Check the arguments and compute what stays the same over the iterations."""
    like = {"dtype": operator.dtype, "device": operator.device}
    if not isinstance(image, torch.Tensor):
        image = torch.from_numpy(np.require(image, _NUMPY[operator.dtype], ["C", "W"]))
    image = image.to(**like)
    background = torch.as_tensor(background, **like)
    if tuple(image.shape[-2:]) != operator.shape:
        raise ValueError(
            f"image must have shape (..., {operator.shape[0]}, {operator.shape[1]}), got "
            f"{tuple(image.shape)}."
        )
    for name, value in (("image", image), ("background", background)):
        low, high = torch.aminmax(value)
        if not (low >= 0 and high < torch.inf):
            raise ValueError(f"{name} must be finite and not negative.")
    if not lambda_tv >= 0:
        raise ValueError(f"lambda_tv must not be negative, got {lambda_tv}.")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}.")
    if scale is None:
        level = (image - background).clamp_(min=0).mean((-2, -1), keepdim=True)
    else:
        level = torch.as_tensor(scale, **like).expand(*image.shape[:-2], 1, 1)
    # a black image has no scale; any positive one gives a finite result, and a zero start stays 0
    level = level.clamp(min=math.sqrt(torch.finfo(operator.dtype).tiny) / _FLOOR / eps)
    sensitivity = operator.adjoint(torch.ones(operator.shape, **like))
    sensitivity.clamp_(min=_MIN_SENSITIVITY)
    return _Problem(image, operator, background, lambda_tv, level, eps * level, sensitivity)


def _start(problem: _Problem) -> torch.Tensor:
    x = problem.scale.expand(*problem.scale.shape[:-2], *problem.operator.field_shape)
    return x * (problem.sensitivity > _MIN_SENSITIVITY)  # what starts at 0 stays there


def _check_start(x0: torch.Tensor, problem: _Problem) -> torch.Tensor:
    x = torch.as_tensor(x0, dtype=problem.image.dtype, device=problem.image.device)
    if tuple(x.shape[-2:]) != problem.operator.field_shape:
        raise ValueError(
            f"x0 must have shape (..., {problem.operator.field_shape[0]}, "
            f"{problem.operator.field_shape[1]}), got {tuple(x.shape)}."
        )
    if not torch.isfinite(x).all() or (x < 0).any():
        raise ValueError("x0 must be finite and not negative.")
    x = x.expand(*problem.image.shape[:-2], -1, -1)
    return x * (problem.sensitivity > _MIN_SENSITIVITY)


def _iterate(problem: _Problem, x, n_iter: int, callback) -> torch.Tensor:
    ratio, spare = torch.empty_like(problem.image), torch.empty_like(x)
    for i in range(n_iter):
        problem.compare(x, ratio)
        problem.step(x, ratio, out=spare)
        x, spare = spare, x
        if callback is not None:
            callback(i, x)
    return x


def _iterate_accelerated(problem: _Problem, z, n_iter: int, callback) -> torch.Tensor:
    """Extrapolate along successive iterates, starting anew where that leads uphill.

    z is where a step starts and x where it ends.
    """
    ratio, x, last = torch.empty_like(problem.image), torch.empty_like(z), torch.zeros_like(z)
    age = torch.zeros_like(problem.scale)
    for i in range(n_iter):
        problem.compare(z, ratio)
        slope = problem.step_ahead(z, ratio, x, last, momentum=age / (age + 2))
        if callback is not None:
            callback(i, x)
        worse = (slope > 0) & (age > 0)
        if worse.any():
            for rows in strips(z):
                z[..., rows, :] = torch.where(worse, x[..., rows, :], z[..., rows, :])
        age = torch.where(worse, 0.0, age + 1)
        x, last = last, x
    return last
