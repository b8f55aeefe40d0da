"""Pictures of how a restoration chose its regularisation."""

import numpy as np

__all__ = ["RegularisationDisplay"]


class RegularisationDisplay:
    """Expected quality of a restoration against the weight of the total variation.

    One line per number of iterations; the choice is marked.

    Parameters
    ----------
    lambdas : array-like of shape (n_lambdas,)
        Weights tried.
    snr : array-like of shape (n_lambdas, n_iter)
        SNR of simulated images after each iteration, dB.
    lambda_tv : float
        The weight chosen.
    n_iter : int
        The number of iterations chosen.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : matplotlib.axes.Axes
        The axes.
    lines_ : list of matplotlib.lines.Line2D
        The curves.

    See Also
    --------
    RegularisationDisplay.from_estimator : Plot a fitted `TVRLDeconvolver` in one call.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.plotting import RegularisationDisplay
    >>> snr = np.array([[8.0, 9.0], [9.0, 11.0], [8.0, 10.0]])
    >>> display = RegularisationDisplay([0.001, 0.002, 0.004], snr, 0.002, 2).plot()
    >>> len(display.lines_)
    1
    """

    def __init__(self, lambdas, snr, lambda_tv, n_iter):
        self.lambdas, self.snr = lambdas, snr
        self.lambda_tv, self.n_iter = lambda_tv, n_iter

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Plot what a deconvolver fitted with "auto" expected.

        Parameters
        ----------
        estimator : TVRLDeconvolver
            Fitted with ``lambda_tv="auto"`` or ``n_iter="auto"``.
        ax : matplotlib.axes.Axes, optional
            Where to plot.

        Returns
        -------
        RegularisationDisplay
            The plotted display.

        Raises
        ------
        ValueError
            If nothing was chosen.
        """
        if not hasattr(estimator, "simulated_snr_"):
            raise ValueError(
                f'estimator must have been fitted with lambda_tv="auto" or n_iter="auto"; '
                f"{estimator!r} has chosen nothing."
            )
        display = cls(
            estimator.lambdas_, estimator.simulated_snr_, estimator.lambda_, estimator.n_iter_
        )
        return display.plot(ax=ax)

    def plot(self, *, ax=None):
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to plot; None makes a figure.

        Returns
        -------
        RegularisationDisplay
            The display itself.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
        lambdas, snr = np.asarray(self.lambdas, float), np.asarray(self.snr, float)
        steps = np.unique([n for n in (5, 10, 20, 40, self.n_iter) if n <= snr.shape[1]])
        self.lines_ = []
        for k, n in enumerate(steps):
            colour = plt.get_cmap("viridis")(0.85 * (1 - k / max(len(steps) - 1, 1)))
            (line,) = ax.plot(
                lambdas, snr[:, n - 1], "o-", ms=3, color=colour, label=f"{n} iterations"
            )
            self.lines_.append(line)
        row = int(np.argmin(abs(lambdas - self.lambda_tv)))
        ax.plot(
            lambdas[row], snr[row, self.n_iter - 1], "*", ms=13, color="tab:red", label="chosen"
        )
        if (lambdas > 0).all():
            ax.set_xscale("log")
        ax.set_xlabel("weight of the total variation")
        ax.set_ylabel("SNR of simulated images, dB")
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
