"""Picture of how well standard deviations hold."""

import numpy as np
from scipy.special import erfinv

from .panels import make_panels

__all__ = ["ReliabilityDisplay"]

_SHARES = np.linspace(0, 1, 21)[1:-1]


class ReliabilityDisplay:
    """Share of errors that lie within error bars, against the share that should.

    Error bars of all lengths are judged at once: if errors are normal with the standard deviations
    stated, a share p of them is smaller than ``sqrt(2) erfinv(p)`` standard deviations. A curve
    below the diagonal tells of error bars that are too short, one above it of too long ones.

    Parameters
    ----------
    expected : ndarray of shape (n_levels,)
        Shares of normal errors within error bars, between 0 and 1.
    observed : ndarray of shape (n_parameters, n_levels)
        Shares of the errors.
    names : sequence of str of length n_parameters
        Names of the parameters.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : matplotlib.axes.Axes
        The panel.
    lines_ : list of matplotlib.lines.Line2D
        A curve for each parameter.

    See Also
    --------
    ReliabilityDisplay.from_estimator : Predict and plot in one call.
    ReliabilityDisplay.from_predictions : Plot predictions that are at hand.
    sklearn.calibration.CalibrationDisplay : The same for classifiers.

    References
    ----------
    V. Kuleshov, N. Fenner, S. Ermon, "Accurate uncertainties for deep learning using calibrated
    regression", ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.plotting import ReliabilityDisplay
    >>> error = np.random.RandomState(0).standard_normal((1000, 1))
    >>> display = ReliabilityDisplay.from_predictions(error, 0 * error, 0 * error + 2)
    >>> bool((display.observed > display.expected).all())  # bars of twice the error are too long
    True
    """

    def __init__(self, expected, observed, names):
        self.expected, self.observed, self.names = expected, observed, names

    @classmethod
    def from_predictions(cls, y_true, y_pred, std, *, periods=None, names=None, ax=None):
        """Plot predictions and their standard deviations against the truth.

        Parameters
        ----------
        y_true, y_pred, std : array-like of shape (n, n_parameters)
            True and predicted parameters and standard deviations. Rows of `y_true` with a NaN are
            left out.
        periods : sequence of (float or None), optional
            Period of each parameter that is an angle, None for the others.
        names : sequence of str, optional
            Names of the parameters; by default they are numbered.
        ax : matplotlib.axes.Axes, optional
            Where to plot; None makes a figure.

        Returns
        -------
        ReliabilityDisplay
            The plotted display.

        Raises
        ------
        ValueError
            If shapes do not agree, no row is left, or a standard deviation is not positive.
        ImportError
            If matplotlib is not installed.
        """
        y_true, y_pred, std = (np.asarray(a, dtype=float) for a in (y_true, y_pred, std))
        if y_true.ndim != 2 or y_true.shape != y_pred.shape or y_true.shape != std.shape:
            raise ValueError(
                "y_true, y_pred and std must have one shape (n, n_parameters), got "
                f"{y_true.shape}, {y_pred.shape} and {std.shape}."
            )
        n = y_true.shape[1]
        periods = (None,) * n if periods is None else tuple(periods)
        names = [f"parameter {i}" for i in range(n)] if names is None else list(names)
        for name, values in (("periods", periods), ("names", names)):
            if len(values) != n:
                raise ValueError(f"{name} must have length {n}, got {len(values)}.")
        valid = ~np.isnan(y_true).any(1)
        if not valid.any():
            raise ValueError("y_true must have a row without NaN, got none.")
        if not (std[valid] > 0).all():
            raise ValueError("std must be positive where y_true is not NaN.")
        error = y_pred[valid] - y_true[valid]
        for i, period in enumerate(periods):
            if period is not None:  # the shorter way round
                error[:, i] -= period * np.round(error[:, i] / period)
        ratio = np.abs(error) / std[valid]
        limits = np.sqrt(2) * erfinv(_SHARES)
        observed = (ratio[:, :, np.newaxis] <= limits).mean(0)
        return cls(_SHARES, observed, names).plot(ax=ax)

    @classmethod
    def from_estimator(cls, estimator, X, y, *, ax=None):
        """Predict labelled patches and plot.

        Parameters
        ----------
        estimator : PSFParameterRegressor
            Fitted.
        X : array-like of shape (n, patch_size, patch_size)
            Patches that were not trained on.
        y : array-like of shape (n, n_parameters)
            Parameters; rows with a NaN are left out.
        ax : matplotlib.axes.Axes, optional
            Where to plot; None makes a figure.

        Returns
        -------
        ReliabilityDisplay
            The plotted display.

        Raises
        ------
        ValueError, NotFittedError
            As of `from_predictions` and the estimator's `predict`.
        """
        y_pred, std = estimator.predict(X, return_std=True)
        model = estimator.psf_model_
        return cls.from_predictions(
            y, y_pred, std, periods=model.periods, names=model.parameter_names, ax=ax
        )

    def plot(self, *, ax=None):
        """Plot the curves and the diagonal.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to plot; None makes a figure.

        Returns
        -------
        ReliabilityDisplay
            The display itself.
        """
        self.figure_, (self.ax_,) = make_panels(1, ax)
        self.ax_.plot([0, 1], [0, 1], "k:", label="calibrated")
        self.lines_ = [
            self.ax_.plot(self.expected, observed, "o-", markersize=3, label=name)[0]
            for name, observed in zip(self.names, self.observed, strict=True)
        ]
        self.ax_.set(
            xlabel="expected share within the error bars",
            ylabel="observed share",
            xlim=(0, 1),
            ylim=(0, 1),
        )
        self.ax_.legend(fontsize="small")
        return self
