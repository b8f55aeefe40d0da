"""How strongly to regularise a restoration, told from the image alone."""

import numpy as np

from .operators import LinearOperator
from .richardson_lucy import richardson_lucy

__all__ = ["LAMBDAS", "choose_setting", "simulated_snr"]

LAMBDAS = 5e-4 * 2.0 ** np.arange(8)  # weights of the total variation that are tried

_ITERATIONS_OF_TRUTH = 40
# An iteration is saved where it would gain less than this, dB.
_NEGLIGIBLE = 0.02


def simulated_snr(
    image,
    operator: LinearOperator,
    lambdas,
    n_iter: int,
    *,
    gain: float,
    read_noise: float,
    background: float = 0.0,
    start: float = 4e-3,
    truth_operator: LinearOperator | None = None,
    accelerate: bool = True,
    random_state: np.random.RandomState,
):
    r"""Signal-to-noise ratio that restorations would reach, by a parametric bootstrap.

    The image is restored once, with the weight `start`. What comes out is taken for the truth: it
    is blurred, photographed with the noise of the camera, and restored with every weight; the
    truth being known, the error of every iterate is too. What suits the simulated image suits the
    real one, as far as a restoration resembles its sample.

    Parameters
    ----------
    image : ndarray of shape (H, W)
        Grey values above the offset, non-negative.
    operator : LinearOperator
        The blur that is inverted.
    lambdas : sequence of float
        Weights of the total variation.
    n_iter : int
        Iterations of each restoration.
    gain : float
        Grey values per photo-electron, positive.
    read_noise : float
        Electrons.
    background : float
        Grey values that are not blurred.
    start : float
        Weight of the first restoration.
    truth_operator : LinearOperator or None
        The blur of the simulation; another one than `operator` where the PSFs are uncertain.
    accelerate : bool
        See `richardson_lucy`.
    random_state : numpy.random.RandomState
        Noise.

    Returns
    -------
    ndarray of shape (len(lambdas), n_iter)
        ``10 log10(sum x^2 / sum (x - xhat)^2)`` in dB after each iteration.

    References
    ----------
    B. Efron, "The estimation of prediction error: covariance penalties and cross-validation",
    J. Am. Stat. Assoc. 99 (2004).

    Examples
    --------
    >>> import torch
    >>> from sklearn_psf.operators import Convolution
    >>> rng = np.random.RandomState(0)
    >>> image = rng.poisson(np.kron(rng.rand(8, 8), np.full((8, 8), 50.0))).astype(np.float32)
    >>> operator = Convolution(torch.full((3, 3), 1 / 9), shape=(64, 64))
    >>> snr = simulated_snr(image, operator, [0, 0.01], 20, gain=1, read_noise=0, random_state=rng)
    >>> bool(snr[1, -1] > snr[0, -1])
    True
    """
    options = {"n_iter": n_iter, "background": background, "accelerate": accelerate}
    truth = richardson_lucy(
        image, operator, lambda_tv=start, **options | {"n_iter": _ITERATIONS_OF_TRUTH}
    )
    blurred = (operator if truth_operator is None else truth_operator).forward(truth) + background
    electrons = random_state.poisson(np.maximum(blurred.cpu().numpy(), 0) / gain)
    noise = read_noise * random_state.standard_normal(electrons.shape)
    simulated = np.maximum(gain * (electrons + noise), 0).astype(np.float32)
    sharp = operator.crop(truth)
    power = float(sharp.square().sum())
    snr = np.zeros((len(lambdas), n_iter))
    for row, lambda_tv in zip(snr, lambdas, strict=True):

        def note(i, x, row=row):
            error = float((operator.crop(x) - sharp).square().sum())
            row[i] = 10 * np.log10(max(power, 1e-30) / max(error, 1e-12 * power, 1e-30))

        richardson_lucy(simulated, operator, lambda_tv=float(lambda_tv), callback=note, **options)
    return snr


def choose_setting(snr):
    """Choose weight and number of iterations from a table of expected SNR.

    Parameters
    ----------
    snr : ndarray of shape (n_lambdas, n_iter)
        Mean over images, dB, after each iteration.

    Returns
    -------
    row : int
        Index of the weight.
    n_iter : int
        The smallest number of iterations within 0.02 dB of the best.

    Examples
    --------
    >>> choose_setting(np.array([[1.0, 3.0, 2.0], [1.0, 2.99, 3.0]]))
    (0, 2)
    """
    good = snr >= snr.max() - _NEGLIGIBLE
    column = int(np.argmax(good.any(0)))
    return int(np.argmax(snr[:, column])), column + 1
