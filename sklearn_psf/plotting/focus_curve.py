"""Picture of a focus search."""

import numpy as np

from .panels import make_panels

__all__ = ["FocusCurveDisplay"]


class FocusCurveDisplay:
    """Calibration curve with its spread and Moffat's fit, the images taken, and the posterior.

    Parameters
    ----------
    distance, curve, curve_std : ndarray of shape (n,)
        Response curve by distance from focus, micrometres, and its spread.
    moffat : ndarray of shape (n,)
        Moffat's curve at the same distances.
    result : FocusResult or None
        A search: its images and its posterior are drawn.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : ndarray of matplotlib.axes.Axes of shape (1,) or (2,)
        Curve and, with a result, posterior.

    See Also
    --------
    FocusCurveDisplay.from_estimator : Plot a fitted autofocus in one call.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.plotting import FocusCurveDisplay
    >>> z = np.linspace(-10, 10, 21)
    >>> display = FocusCurveDisplay(z, abs(z), 0.1 + 0 * z, abs(z)).plot()
    >>> display.ax_[0].get_xlabel()
    'distance from focus (um)'
    """

    def __init__(self, distance, curve, curve_std, moffat, *, result=None):
        self.distance, self.curve, self.curve_std = distance, curve, curve_std
        self.moffat, self.result = moffat, result

    @classmethod
    def from_estimator(cls, estimator, result=None, *, ax=None):
        """Plot a fitted autofocus, and perhaps a search.

        Parameters
        ----------
        estimator : DeepFocusAutofocus
            Fitted.
        result : FocusResult or None
            What `focus`, `locate` or a search's `result` returned.
        ax : sequence of matplotlib Axes, Axes or None
            One, or two with a result; None makes a figure.

        Returns
        -------
        FocusCurveDisplay
            The display.

        Raises
        ------
        ValueError
            If the estimator is not fitted, or `ax` does not fit.
        ImportError
            If matplotlib is not installed.
        """
        if not hasattr(estimator, "curve_"):
            raise ValueError(f"estimator must be fitted on a focal stack, got {estimator!r}.")
        distance = estimator.z_calibration_ - estimator.z_focus_
        centre, width, power, height, base = estimator.moffat_
        offset = estimator.z_calibration_ - centre
        moffat = base + height * (1 + (offset / width) ** 2) ** -power
        display = cls(distance, estimator.curve_, estimator.curve_std_, moffat, result=result)
        return display.plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw the curve and, with a result, its images and posterior.

        Parameters
        ----------
        ax : sequence of matplotlib Axes, Axes or None
            Where to draw; None makes a figure.

        Returns
        -------
        FocusCurveDisplay
            The display itself.
        """
        self.figure_, self.ax_ = make_panels(1 if self.result is None else 2, ax)
        self._plot_curve(self.ax_[0])
        if self.result is not None:
            self._plot_posterior(self.ax_[1])
        return self

    def _plot_curve(self, axes):
        low, high = self.curve - self.curve_std, self.curve + self.curve_std
        axes.fill_between(self.distance, low, high, color="C0", alpha=0.25, lw=0, label="spread")
        axes.plot(self.distance, self.curve, color="C0", label="calibration")
        axes.plot(self.distance, self.moffat, "--", color="0.4", lw=1, label="Moffat")
        if self.result is not None and np.isfinite(self.result.std):
            for i, (z, score) in enumerate(self.result.history):
                label = "images" if i == 0 else None
                axes.plot(z - self.result.z, score, "o", color="C3", label=label)
                axes.annotate(
                    str(i + 1),
                    (z - self.result.z, score),
                    textcoords="offset points",
                    xytext=(6, 4),
                    color="C3",
                )
        axes.set(xlabel="distance from focus (um)", ylabel="score")
        axes.legend(fontsize="small")

    def _plot_posterior(self, axes):
        result = self.result
        density = result.density / max(result.density.max(), np.finfo(float).tiny)
        axes.semilogy(result.grid, np.maximum(density, 1e-8), color="C0")
        for i, (z, _) in enumerate(result.history):
            axes.axvline(z, color="C3", lw=1, ls=":")
            axes.annotate(
                str(i + 1),
                (z, 1.3e-8 * 3**i),
                textcoords="offset points",
                xytext=(2, 0),
                color="C3",
            )
        found = np.isfinite(result.std)
        title = f"focus at {result.z:.2f} +- {result.std:.2f} um" if found else result.reason
        axes.set(
            xlabel="stage position (um)", ylabel="posterior / maximum", ylim=(1e-8, 3), title=title
        )
