"""How strongly to regularise a restoration, told from the image alone."""

import numpy as np
import torch

from .operators import LinearOperator
from .richardson_lucy import poisson_log_likelihood, richardson_lucy

__all__ = ["held_out_likelihood", "hold_out", "prediction_likelihood", "simulated_snr"]

_ITERATIONS_OF_TRUTH = 40
# Share of the photons that is restored from; the rest are held out to be predicted.
_TRAINING_SHARE = 0.9


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


def held_out_likelihood(
    image,
    operator: LinearOperator,
    lambdas,
    n_iter: int,
    *,
    gain: float,
    background: float = 0.0,
    accelerate: bool = True,
    random_state: np.random.RandomState,
):
    """How well restorations from nine tenths of the photons predict the others.

    It judges by the image itself, not by one that resembles it; but what it judges is blurred.

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
    background : float
        Grey values that are not blurred.
    accelerate : bool
        See `richardson_lucy`.
    random_state : numpy.random.RandomState
        Picks the photons that are held out.

    Returns
    -------
    ndarray of shape (len(lambdas),)
        Mean Poisson log-likelihood per pixel of the photons held out, nats.

    Examples
    --------
    >>> import torch
    >>> from sklearn_psf.operators import Convolution
    >>> rng = np.random.RandomState(0)
    >>> image = rng.poisson(np.kron(rng.rand(8, 8), np.full((8, 8), 50.0))).astype(np.float32)
    >>> operator = Convolution(torch.full((3, 3), 1 / 9), shape=(64, 64))
    >>> nats = held_out_likelihood(image, operator, [0, 0.01], 20, gain=1, random_state=rng)
    >>> bool(nats[1] > nats[0])
    True
    """
    kept, held_out = hold_out(image, gain, random_state)
    nats = []
    for lambda_tv in lambdas:
        x = richardson_lucy(
            kept,
            operator,
            n_iter=n_iter,
            lambda_tv=float(lambda_tv),
            background=background,
            accelerate=accelerate,
        )
        expected = (operator.forward(x) + background).cpu().numpy()
        nats.append(prediction_likelihood(held_out, expected, gain))
    return np.array(nats)


def hold_out(image, gain, rng):
    """Set a tenth of the photons of an image aside, picked at random.

    Parameters
    ----------
    image : ndarray of shape (H, W)
        Grey values above the offset, non-negative.
    gain : float
        Grey values per photo-electron.
    rng : numpy.random.RandomState
        Picks them.

    Returns
    -------
    kept : ndarray of shape (H, W)
        The image of the others, as bright as that of all; float32.
    held_out : ndarray of shape (H, W)
        Counts.
    """
    counts = np.rint(image / gain).astype(np.int64)
    kept = rng.binomial(counts, _TRAINING_SHARE)
    return (kept * (gain / _TRAINING_SHARE)).astype(np.float32), counts - kept


def prediction_likelihood(held_out, expected, gain):
    """Mean Poisson log-likelihood per pixel of counts held out, nats.

    Parameters
    ----------
    held_out : ndarray of shape (H, W)
        Counts that `hold_out` set aside.
    expected : ndarray of shape (H, W)
        Expected grey values of the image of all photons.
    gain : float
        Grey values per photo-electron.

    Returns
    -------
    float
        The likelihood.
    """
    # a pixel whose every photon was held out must not cost infinitely much
    mean = np.maximum(expected / gain, 0.5) * (1 - _TRAINING_SHARE)
    counts = torch.from_numpy(held_out.astype(np.float64))
    return float(poisson_log_likelihood(counts, torch.from_numpy(mean).double())) / counts.numel()
