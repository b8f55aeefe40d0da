"""Figures with panels in a row, and matplotlib itself, imported when something is drawn."""

import numpy as np

from .._validation import check_number

__all__ = ["add_colour_bar", "check_index", "import_pyplot", "make_panels"]


def import_pyplot():
    """Return `matplotlib.pyplot`, or raise an ImportError that says how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError(
            "Displays need matplotlib, which is not installed: pip install sklearn_psf[plot]"
        ) from None
    return plt


def make_panels(n_panels, ax, panel_size=(4.2, 3.6)):
    """Return a figure and its panels, new or as given.

    Parameters
    ----------
    n_panels : int
        How many.
    ax : matplotlib Axes, sequence of them, or None
        Panels to draw in; None makes a row of them.
    panel_size : tuple of float
        Width and height of a new panel, inches.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure.
    axes : ndarray of matplotlib.axes.Axes of shape (n_panels,)
        The panels.

    Raises
    ------
    ValueError
        If `ax` does not hold `n_panels` axes.

    Examples
    --------
    >>> figure, axes = make_panels(2, None)
    >>> len(axes)
    2
    """
    if ax is None:
        figure, axes = import_pyplot().subplots(
            1,
            n_panels,
            figsize=(panel_size[0] * n_panels, panel_size[1]),
            squeeze=False,
            layout="constrained",
        )
        return figure, axes[0]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != n_panels:
        raise ValueError(f"ax must hold {n_panels} axes, one per panel, got {len(axes)}.")
    return axes[0].figure, axes


def check_index(index, n):
    """Raise if `index` is not one of `n` images."""
    check_number("index", index, low=0, high=n - 1, integer=True)


def add_colour_bar(axes, artist, label):
    """Put a colour bar with its unit beside a panel, as tall as the panel is drawn."""
    # An inset follows the panel's box, which an equal aspect makes smaller than its grid cell.
    bar = axes.inset_axes([1.04, 0.0, 0.05, 1.0])
    axes.figure.colorbar(artist, cax=bar, label=label)
