"""Weight of the total variation and number of iterations, chosen without a sharp image."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_random_state

from ._regularisation import held_out_likelihood, simulated_snr
from .operators import LinearOperator

__all__ = [
    "LAMBDAS",
    "Choice",
    "Photograph",
    "choose_lambda",
    "choose_regularisation",
    "choose_setting",
]

LAMBDAS = 5e-4 * 2.0 ** np.arange(8)  # weights of the total variation that are tried
_START = 4e-3  # with which the first image to simulate is restored
_MOST_ITERATIONS = 60
# An iteration is saved where it would gain less than this, dB.
_NEGLIGIBLE = 0.02
# dB of simulated SNR that a nat of the likelihood of photons held out is worth ...
_DB_PER_NAT = 0.1
# ... up to this size, pixels; a larger image has no more nats to give. The likelihood grows with
# the image, but the simulated sample stays smoother than the real one by as much, and a blurred
# image asks for too little smoothing whatever its size: neither must decide alone.
_MOST_PIXELS = 192**2


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image to choose by, with what blurred it.

    Attributes
    ----------
    image : ndarray of shape (H, W)
        Grey values above the offset, non-negative.
    operator : LinearOperator
        The blur that is inverted.
    possible : sequence of LinearOperator or None
        Blurs of as many simulations; None is `operator`.
    gain : float
        Grey values per photo-electron.
    read_noise : float
        Electrons.
    background : float
        Grey values that are not blurred.
    """

    image: np.ndarray
    operator: LinearOperator
    possible: Sequence[LinearOperator | None]
    gain: float
    read_noise: float
    background: float


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and by what.

    Attributes
    ----------
    lambda_tv : float
        Weight of the total variation.
    n_iter : int
        Number of iterations.
    lambdas : ndarray of shape (n_lambdas,)
        Weights tried.
    simulated_snr : ndarray of shape (n_lambdas, n_iter)
        SNR of simulated images, dB.
    held_out_likelihood : ndarray of shape (n_lambdas,) or None
        Nats per pixel; None if the simulated images decided alone.
    criterion : ndarray of shape (n_lambdas,) or None
        What the weight was chosen to maximise, dB; None if the simulated images decided alone.
    """

    lambda_tv: float
    n_iter: int
    lambdas: np.ndarray
    simulated_snr: np.ndarray
    held_out_likelihood: np.ndarray | None = None
    criterion: np.ndarray | None = None


def choose_regularisation(
    photographs: Callable[[np.random.RandomState], Iterable[Photograph]],
    *,
    lambda_tv: float | None,
    n_iter: int | None,
    accelerate: bool,
    random_state,
) -> Choice | None:
    """Choose weight, number of iterations, or both, for images like some.

    Where the PSFs are known, the weight is chosen for the most iterations, not together with their
    number: simulated images are smoother than real ones, which is why they ask for too few; and
    where weight and PSFs fit, further iterations do no harm. Where the PSFs are uncertain, the
    simulated images choose both, and alone: only they hold PSFs that are wrong. Photons held out
    are predicted best by whatever fits the image, a wrong PSF included, with too little smoothing.

    Parameters
    ----------
    photographs : callable
        Returns an iterable of the images, given what to draw possible blurs with; called once for
        each pass over them.
    lambda_tv : float or None
        Weight of the total variation; None chooses it.
    n_iter : int or None
        Number of iterations; None chooses it.
    accelerate : bool
        See `richardson_lucy`.
    random_state : int, RandomState or None
        Seed of every pass: possible blurs, noise of the simulated images, photons held out.

    Returns
    -------
    Choice or None
        None if there are no images.
    """
    lambdas = LAMBDAS.copy() if lambda_tv is None else np.array([float(lambda_tv)])
    n_tried = _MOST_ITERATIONS if n_iter is None else n_iter
    options = {"accelerate": accelerate, "random_state": check_random_state(random_state)}
    tables, likelihoods, known = [], [], lambda_tv is None
    for photograph in photographs(options["random_state"]):
        tables += _simulate(photograph, lambdas, n_tried, _START, options)
        known = known and list(photograph.possible) == [None]
        if known:
            likelihoods.append(_hold_out(photograph, lambdas, n_tried, options))
    if not tables:
        return None
    n_pixels = photograph.image.size
    likelihood = np.mean(likelihoods, 0) if known else None
    choice = _decide(lambdas, np.mean(tables, 0), likelihood, n_iter, n_pixels)
    if lambda_tv is None and not _START / 3 < choice.lambda_tv < 3 * _START:
        # The simulated sample resembles the real one more if it was restored better.
        options["random_state"] = check_random_state(random_state)
        tables = []
        for photograph in photographs(options["random_state"]):
            tables += _simulate(photograph, lambdas, n_tried, choice.lambda_tv, options)
        choice = _decide(lambdas, np.mean(tables, 0), likelihood, n_iter, n_pixels)
    return choice


def choose_lambda(snr, likelihood, n_pixels):
    """Choose the weight of the total variation for the last number of iterations.

    Parameters
    ----------
    snr : ndarray of shape (n_lambdas, n_iter)
        Of simulated images after each iteration, dB.
    likelihood : ndarray of shape (n_lambdas,)
        Of photons held out, after the last iteration, nats per pixel.
    n_pixels : int
        Size of an image.

    Returns
    -------
    row : int
        Index of the weight.
    criterion : ndarray of shape (n_lambdas,)
        The SNR, less what the photons held out say against each weight, dB.

    Examples
    --------
    >>> snr = np.array([[9.0, 7.0], [7.0, 8.0]])
    >>> row, criterion = choose_lambda(snr, likelihood=np.zeros(2), n_pixels=1000)
    >>> row, criterion.tolist()
    (1, [7.0, 8.0])
    """
    nats = (likelihood - likelihood.max()) * min(n_pixels, _MOST_PIXELS)
    criterion = snr[:, -1] + _DB_PER_NAT * nats
    return int(np.argmax(criterion)), criterion


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


def _decide(lambdas, snr, likelihood, n_iter, n_pixels):
    """Choose by the SNR of simulated images and, if there is one, by a likelihood."""
    if likelihood is None:
        row, fewest = choose_setting(snr if n_iter is None else snr[:, -1:])
        return Choice(float(lambdas[row]), fewest if n_iter is None else n_iter, lambdas, snr)
    row, criterion = choose_lambda(snr, likelihood, n_pixels)
    return Choice(float(lambdas[row]), snr.shape[1], lambdas, snr, likelihood, criterion)


def _simulate(photograph, lambdas, n_iter, start, options):
    """Tables of simulated SNR of one image, one for each blur that is possible."""
    return [
        simulated_snr(
            photograph.image,
            photograph.operator,
            lambdas,
            n_iter,
            gain=photograph.gain,
            read_noise=photograph.read_noise,
            background=photograph.background,
            start=start,
            truth_operator=operator,
            **options,
        )
        for operator in photograph.possible
    ]


def _hold_out(photograph, lambdas, n_iter, options):
    """Likelihood of photons of one image held out, for each weight."""
    return held_out_likelihood(
        photograph.image,
        photograph.operator,
        lambdas,
        n_iter,
        gain=photograph.gain,
        background=photograph.background,
        **options,
    )
