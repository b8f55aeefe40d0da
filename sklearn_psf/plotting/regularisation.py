"""Pictures of how a restoration chose its regularisation."""

import numpy as np

from .panels import import_pyplot, make_panels

__all__ = ["RegularisationDisplay"]


class RegularisationDisplay:
    """Expected quality of a restoration against the weight of the total variation.

    One line per number of iterations, and one for what decides: the SNR after the last iteration,
    less what photons held out say against each weight. Where the weight was given, the line goes
    along the iterations. The choice is marked.

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
    criterion : array-like of shape (n_lambdas,) or None
        What the weight was chosen to maximise, dB; None if that is the SNR.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : matplotlib.axes.Axes
        The axes.
    lines_ : list of matplotlib.lines.Line2D
        The curves; the last is that of the criterion, if there is one.

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

    def __init__(self, lambdas, snr, lambda_tv, n_iter, *, criterion=None):
        self.lambdas, self.snr = lambdas, snr
        self.lambda_tv, self.n_iter = lambda_tv, n_iter
        self.criterion = criterion

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
        return cls(
            estimator.lambdas_,
            estimator.simulated_snr_,
            estimator.lambda_,
            estimator.n_iter_,
            criterion=getattr(estimator, "criterion_", None),
        ).plot(ax=ax)

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
        self.figure_, (self.ax_,) = make_panels(1, ax, panel_size=(5.5, 3.8))
        lambdas, snr = np.asarray(self.lambdas, float), np.asarray(self.snr, float)
        if len(lambdas) == 1:
            self._plot_iterations(snr[0])
        else:
            self._plot_weights(lambdas, snr)
        self.ax_.legend(fontsize="small")
        return self

    def _plot_iterations(self, snr):
        label = f"weight {self.lambda_tv:.3g}"
        self.lines_ = self.ax_.plot(np.arange(1, len(snr) + 1), snr, color="C0", label=label)
        self._mark(self.n_iter, snr[self.n_iter - 1])
        self.ax_.set(xlabel="iterations", ylabel="SNR of simulated images, dB")

    def _plot_weights(self, lambdas, snr):
        steps = np.unique([n for n in (5, 10, 20, 40, self.n_iter) if n <= snr.shape[1]])
        colours = import_pyplot().get_cmap("viridis")(np.linspace(0.85, 0, len(steps)))
        self.lines_ = []
        for n, colour in zip(steps, colours, strict=True):
            style = {"ms": 3, "color": colour, "label": f"{n} iterations"}
            self.lines_ += self.ax_.plot(lambdas, snr[:, n - 1], "o-", **style)
        curve = snr[:, self.n_iter - 1]
        if self.criterion is not None:
            # It falls by tens of dB where a weight does not fit, and would flatten the others.
            self.ax_.set_ylim(self.ax_.get_ylim())
            curve = np.asarray(self.criterion, float)
            style = {"ms": 3, "color": "tab:red", "label": "with photons held out"}
            self.lines_ += self.ax_.plot(lambdas, curve, "o--", **style)
        row = int(np.argmin(abs(lambdas - self.lambda_tv)))
        self._mark(lambdas[row], curve[row])
        if (lambdas > 0).all():
            self.ax_.set_xscale("log")
        self.ax_.set_xlabel("weight of the total variation")
        self.ax_.set_ylabel("SNR of simulated images, dB")

    def _mark(self, x, y):
        self.ax_.plot(x, y, "*", ms=13, color="tab:red", label="chosen")
