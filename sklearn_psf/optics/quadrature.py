"""Gaussian quadrature on the pupil: nodes and weights on the unit disk and along its radius."""

from functools import lru_cache
from math import ceil

import numpy as np
import torch

__all__ = ["chord_nodes", "default_nodes", "radial_nodes"]


def default_nodes(size: int, cutoff: float) -> int:
    """Return the nodes per axis that integrate up to about 2.5 waves RMS of defocus.

    Parameters
    ----------
    size : int
        Height and width of the PSF, pixels.
    cutoff : float
        Pupil cut-off, cycles per pixel.

    Returns
    -------
    int
        Argument of `chord_nodes` and `radial_nodes`.

    Examples
    --------
    >>> default_nodes(127, 0.25)
    112
    """
    return 48 + ceil(2 * size * cutoff)


@lru_cache(maxsize=16)
def chord_nodes(n_nodes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return quadrature nodes and weights on the unit disk.

    Parameters
    ----------
    n_nodes : int
        Number of chords, and of nodes on each chord.

    Returns
    -------
    y : Tensor of shape (n_nodes,)
        Height of the chords.
    x : Tensor of shape (n_nodes, n_nodes)
        Nodes on the chords, ``x[i]`` at height ``y[i]``.
    weights : Tensor of shape (n_nodes, n_nodes)
        They sum to pi.

    References
    ----------
    A. H. Stroud, "Approximate Calculation of Multiple Integrals", 1971.

    Examples
    --------
    >>> round(float(chord_nodes(8)[2].sum()), 6)
    3.141593
    """
    k = np.arange(1, n_nodes + 1) * np.pi / (n_nodes + 1)
    y, across = np.cos(k), np.pi / (n_nodes + 1) * np.sin(k) ** 2
    nodes, along = np.polynomial.legendre.leggauss(n_nodes)
    x = np.sin(k)[:, None] * nodes
    return torch.from_numpy(y), torch.from_numpy(x), torch.from_numpy(across[:, None] * along)


@lru_cache(maxsize=16)
def radial_nodes(n_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return quadrature nodes and weights of a pupil without angular structure.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.

    Returns
    -------
    squares : Tensor of shape (n_nodes,)
        Gauss-Legendre nodes: the square of the pupil radius, in (0, 1).
    weights : Tensor of shape (n_nodes,)
        They sum to 1.

    Examples
    --------
    >>> squares, weights = radial_nodes(8)
    >>> round(float(weights @ squares), 6)
    0.5
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
