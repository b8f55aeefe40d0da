"""Where the next image of a search teaches most."""

import numpy as np

from ._focus_spectra import TEMPER

__all__ = ["expected_error"]


def expected_error(evidence, candidates, hypotheses):
    """Error of focus to expect after one more image, for each place to take it.

    If focus is at hypothesis m, the new image speaks against hypothesis m' by their divergence;
    what remains of the other hypotheses is the expected error. The error within a hypothesis
    comes from the divergence of close neighbours, which is Fisher's information.

    Parameters
    ----------
    evidence : Evidence
        The images so far.
    candidates : ndarray of shape (C,)
        Where the next image may be taken, micrometres.
    hypotheses : ndarray of shape (M,)
        Equally likely positions of focus, micrometres.

    Returns
    -------
    ndarray of shape (C,)
        Mean absolute error, micrometres.
    """
    shift = 0.2 * evidence.model.step
    both = np.r_[hypotheses, hypotheses + shift]
    divergence = _score_divergence(evidence, candidates, both)
    if evidence.use_spectra:
        divergence = divergence + TEMPER * _spectral_divergence(evidence, candidates, both)
    n = len(hypotheses)
    between = divergence[:, :n, :n]
    weight = np.exp(-np.minimum(between, 500))
    distance = np.abs(np.subtract.outer(hypotheses, hypotheses))
    confusion = ((weight * distance).sum(2) / weight.sum(2)).mean(1)
    index = np.arange(n)
    information = 2 * divergence[:, index, n + index] / shift**2
    spacing = np.gradient(hypotheses) if n > 1 else np.ones(1)
    prior = 1 / np.maximum(spacing, 1e-6) ** 2
    return confusion + (1 / np.sqrt(information + prior)).mean(1)


def _score_divergence(evidence, candidates, hypotheses):
    distance = candidates[:, None] - hypotheses
    expected, std = evidence.model.response(distance)
    if evidence.model.free_gain:  # heights differ among samples: scores say little
        std = 2 * std
    std = np.hypot(std, _predict_errors(evidence, np.abs(distance), hypotheses))
    difference = expected[:, :, None] - expected[:, None, :]
    return 0.5 * difference**2 / (std[:, :, None] * std[:, None, :])


def _predict_errors(evidence, distance, hypotheses):
    """Standard deviation to expect of a score at distances (C, M) from the hypotheses (M,).

    A sample whose far images say little shows more, the nearer to focus it is.
    """
    known = np.isfinite(evidence.levels)
    z, errors = np.array(evidence.z)[known], np.array(evidence.errors)[known]
    if len(z) == 0:
        return 0.0
    seen_at = np.maximum(np.abs(z[:, None] - hypotheses), evidence.model.step)
    slope = (errors[:, None] / seen_at).min(0)
    return np.minimum(slope * distance, errors.max())


def _spectral_divergence(evidence, candidates, hypotheses):
    """Squared distance between the new spectra that two hypotheses predict, over their variance.

    Given the images so far, hypothesis m says that the sample is ``a_m^T Y`` up to a variance, and
    that the new image is H times that.
    """
    spectra = evidence.spectra
    rings, noise = spectra.rings, spectra.noise.diagonal().mean()
    centre = (rings.leakage @ rings.frequency) / rings.leakage.sum(1)
    pick = np.abs(np.subtract.outer(centre, rings.frequency)).argmin(1)
    known = evidence.transfers(evidence.z, hypotheses, pick).transpose(0, 2, 1)  # M, K, n
    signal = np.maximum(np.einsum("kii->ki", spectra.matrices) - spectra.noise.diagonal(), 0)
    error = noise + 0.01 * signal.mean(1)  # K; model error included
    square = (known**2).sum(-1)  # M, K
    power = np.maximum((signal.mean(1) / np.maximum(square / len(evidence), 1e-3)), 1e-12)
    precision = square / error + 1 / power
    filters = known / error[:, None] / precision[..., None]  # sample = filters . Y
    new = evidence.transfers(candidates, hypotheses, pick).transpose(1, 0, 2)  # C, M, K
    variance = new**2 / precision + 2 * error
    values, vectors = np.linalg.eigh(spectra.matrices)
    root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]  # C_k = root root^T
    estimate = np.einsum("mkn,kni->mki", filters, root)
    scaled = new[..., None] * estimate * np.sqrt(rings.counts / 2 / variance)[..., None]
    flat = scaled.reshape(len(candidates), len(hypotheses), -1)
    gram = flat @ flat.transpose(0, 2, 1)
    norm = np.einsum("cmm->cm", gram)
    return np.maximum(norm[:, :, None] + norm[:, None, :] - 2 * gram, 0) / 2
