"""Pictures of a flow that was read off motion blur."""

import math

import numpy as np

from .._validation import check_choice
from .flow_legends import add_channel_bars, add_colour_wheel, direction_colours
from .panels import add_colour_bar, check_index, make_panels

__all__ = ["FlowFieldDisplay"]

KINDS = ("arrows", "wheel", "rgb", "axial", "std")
UNITS = ("px/exposure", "waves RMS/exposure", "waves RMS")
BOUNDS = (20.0, 20.0, 1.0, 1.0)
_N_ARROWS = 14  # along the longer side
_SURE = 0.9  # probability of the sense from which an arrow has a head
_NOTHING = "0.6"  # grey where nothing can be read


class FlowFieldDisplay:
    """Picture of the motion of every pixel of one image.

    Parameters
    ----------
    image : ndarray of shape (H, W)
        The blurred image.
    motion : ndarray of shape (4, H, W)
        v_y, v_x, v_z and z0; NaN where there is none.
    invalid : ndarray of shape (H, W), optional
        Probability that there is nothing to read; pixels above 1/2 are left out.
    std : ndarray of shape (4, H, W), optional
        Standard deviations.
    sense : ndarray of shape (H, W), optional
        Probability that the sense of the lateral motion is right. Below 0.9 an arrow has no head.
    units : tuple of str, default=("px/exposure", "waves RMS/exposure", "waves RMS")
        Units of lateral motion, axial motion and depth.
    bounds : tuple of float, default=(20, 20, 1, 1)
        Largest magnitudes of v_y, v_x, v_z and z0 that can be read, for the scale of colours.
    pixel_size : float, optional
        Size of a pixel in the object, micrometres. None draws in pixels.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : ndarray of matplotlib.axes.Axes
        The panels.
    im_ : list of matplotlib.image.AxesImage
        The images drawn, one per panel.
    quiver_ : list of matplotlib.quiver.Quiver
        Arrows with a head and without, of kind "arrows".

    See Also
    --------
    FlowFieldDisplay.from_estimator : Predict and plot in one call.
    FlowFieldDisplay.from_predictions : Plot predictions that are at hand.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.plotting import FlowFieldDisplay
    >>> motion = np.ones((4, 64, 80)) * np.reshape([3.0, 4.0, 0.5, 0.2], (4, 1, 1))
    >>> display = FlowFieldDisplay(np.ones((64, 80)), motion).plot("axial")
    >>> [ax.get_title() for ax in display.ax_]
    ['axial motion v_z', 'depth z0']
    """

    def __init__(
        self,
        image,
        motion,
        *,
        invalid=None,
        std=None,
        sense=None,
        units=UNITS,
        bounds=BOUNDS,
        pixel_size=None,
    ):
        self.image, self.motion = image, motion
        self.invalid, self.std, self.sense = invalid, std, sense
        self.units, self.bounds, self.pixel_size = units, bounds, pixel_size

    @classmethod
    def from_estimator(cls, estimator, X, *, index=0, kind="arrows", ax=None):
        """Predict the motion of one image, and plot it.

        Parameters
        ----------
        estimator : BlurFlowEstimator
            Fitted. With optics, distances are in micrometres.
        X : array-like of shape (n, H, W)
            Blurred images.
        index : int, default=0
            Which image.
        kind : {"arrows", "wheel", "rgb", "axial", "std"}, default="arrows"
            What to draw; see `plot`.
        ax : matplotlib Axes, sequence of them, or None
            Where to draw; None makes a figure.

        Returns
        -------
        FlowFieldDisplay
            The display.

        Raises
        ------
        ValueError
            If `kind` is unknown, `index` out of range, or `X` is not images.
        ImportError
            If matplotlib is not installed.
        """
        check_choice("kind", kind, KINDS)
        X = np.asarray(X)
        if X.ndim == 3:  # anything else the estimator refuses, and says why
            check_index(index, len(X))
            X = X[index : index + 1]
        motion, std = estimator.predict(X, return_std=True)
        invalid, sense = estimator.predict_invalid(X), estimator.predict_sense(X)
        bounds = estimator.scale_ * np.abs(estimator.psf_model_.bounds).max(1)
        display = cls(
            X[0],
            motion[0],
            invalid=invalid[0],
            std=std[0],
            sense=sense[0],
            units=estimator.units_[1:],
            bounds=tuple(bounds.tolist()),
            pixel_size=None if estimator.optics is None else estimator.optics.object_pixel,
        )
        return display.plot(kind, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        image,
        motion,
        invalid=None,
        std=None,
        *,
        sense=None,
        units=UNITS,
        bounds=BOUNDS,
        pixel_size=None,
        kind="arrows",
        ax=None,
    ):
        """Plot a motion that is at hand: a prediction, or the truth of a simulation.

        Parameters
        ----------
        image : array-like of shape (H, W)
            The blurred image.
        motion : array-like of shape (4, H, W)
            v_y, v_x, v_z and z0; NaN where there is none.
        invalid, sense : array-like of shape (H, W), optional
            Probability that there is nothing to read, and that the sense is right.
        std : array-like of shape (4, H, W), optional
            Standard deviations, for kind "std".
        units, bounds, pixel_size
            See the class.
        kind : {"arrows", "wheel", "rgb", "axial", "std"}, default="arrows"
            What to draw; see `plot`.
        ax : matplotlib Axes, sequence of them, or None
            Where to draw; None makes a figure.

        Returns
        -------
        FlowFieldDisplay
            The display.

        Raises
        ------
        ValueError
            If shapes do not agree or `kind` is unknown.
        ImportError
            If matplotlib is not installed.
        """
        image = np.asarray(image)
        if image.ndim != 2:
            raise ValueError(f"image must be one image (H, W), got shape {image.shape}.")
        maps = {"motion": motion, "std": std, "invalid": invalid, "sense": sense}
        for name, values in maps.items():
            shape = (4, *image.shape) if name in ("motion", "std") else image.shape
            if values is not None and np.shape(values) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {np.shape(values)}.")
        display = cls(image, units=units, bounds=bounds, pixel_size=pixel_size, **maps)
        return display.plot(kind, ax=ax)

    def plot(self, kind="arrows", *, ax=None):
        """Draw the motion.

        Parameters
        ----------
        kind : {"arrows", "wheel", "rgb", "axial", "std"}, default="arrows"
            "arrows": lateral motion over the image, each arrow centred on the pixel it belongs to,
            with an arrow of known length above; a line without a head where the sense is not known.
            "wheel": its direction as hue and its speed as brightness; opposite hues side by side
            tell of a lost sense. "rgb": the published picture, ``|v_y|``, ``|v_x|`` and ``|v_z|``
            over their bounds as red, green and blue. "axial": maps of v_z and z0. "std": four maps
            of standard deviations. Grey: nothing to read.
        ax : matplotlib Axes, sequence of them, or None
            Where to draw: one, two for "axial", four for "std"; None makes a figure.

        Returns
        -------
        FlowFieldDisplay
            The display itself.

        Raises
        ------
        ValueError
            If `kind` is unknown, the number of axes is wrong, or "std" is asked without `std`.
        """
        check_choice("kind", kind, KINDS)
        if kind == "std" and self.std is None:
            raise ValueError('kind="std" needs standard deviations, got std=None.')
        motion = np.array(self.motion, dtype=float)
        if self.invalid is not None:
            motion[:, np.asarray(self.invalid) > 0.5] = np.nan
        motion[:, np.isnan(motion).any(0)] = np.nan
        n_panels = {"axial": 2, "std": 4}.get(kind, 1)
        self.figure_, self.ax_ = make_panels(n_panels, ax, panel_size=(4.8, 3.8))
        self.im_, self.quiver_ = [], []
        getattr(self, f"_plot_{kind}")(motion)
        return self

    def _plot_arrows(self, motion):
        low, high = np.percentile(self.image, (0.5, 99.5))
        self._show(self.ax_[0], self.image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12))
        step = max(1, math.ceil(max(motion.shape[1:]) / _N_ARROWS))
        rows, columns = (np.arange(step // 2, n, step) for n in motion.shape[1:])
        y, x = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
        # Single pixels: a mean of motions whose sense is not known would be shorter than they are.
        known = np.isfinite(motion[0, y, x])
        headed = known if self.sense is None else known & (np.asarray(self.sense)[y, x] >= _SURE)
        top = _top(np.hypot(*motion[:2]))
        for chosen, head in ((headed, 4.0), (known & ~headed, 0.0)):
            at = y[chosen], x[chosen]
            self.quiver_.append(self._arrows(at, motion[:2, *at], top / (0.95 * step), head))
        length = _round_below(top)
        self.ax_[0].quiverkey(
            self.quiver_[0], 0.68, 1.04, length, f"{length:g} {self.units[0]}", labelpos="E"
        )
        self.ax_[0].set_title("lateral motion", loc="left")

    def _arrows(self, at, lateral, scale, head):
        pixel = 1.0 if self.pixel_size is None else self.pixel_size
        return self.ax_[0].quiver(
            at[1] * pixel,
            at[0] * pixel,
            lateral[1],
            lateral[0],
            angles="xy",
            scale_units="xy",
            scale=scale / pixel,
            pivot="mid",
            width=0.006,
            headwidth=head or 1.0,
            headlength=1.1 * head,
            headaxislength=head,
            color="gold",
            edgecolor="black",
            linewidth=0.3,
        )

    def _plot_wheel(self, motion):
        top = _top(np.hypot(*motion[:2]))
        self._show(self.ax_[0], direction_colours(*motion[:2], top, _NOTHING))
        self.ax_[0].set_title("lateral motion")
        add_colour_wheel(self.ax_[0], top, self.units[0])

    def _plot_rgb(self, motion):
        from matplotlib.colors import to_rgb

        bounds = np.asarray(self.bounds, dtype=float)[:3]
        colours = np.clip(np.abs(np.moveaxis(motion[:3], 0, -1)) / bounds, 0, 1)
        self._show(self.ax_[0], np.where(np.isnan(colours), to_rgb(_NOTHING), colours))
        self.ax_[0].set_title("magnitudes")
        units = (self.units[0], self.units[0], self.units[1])
        add_channel_bars(self.ax_[0], ("|v_y|", "|v_x|", "|v_z|"), bounds, units)

    def _plot_axial(self, motion):
        lateral, axial, depth = self.units
        named = zip(("axial motion v_z", "depth z0"), (axial, depth), motion[2:], strict=True)
        for axes, (title, unit, values) in zip(self.ax_, named, strict=True):
            low, high = float(np.nanmin(values, initial=0)), float(np.nanmax(values, initial=0))
            if low < 0:  # a depth with a sign: focus is the middle of the colours
                self._map(axes, values, title, unit, -max(-low, high), max(-low, high), "RdBu_r")
            else:
                self._map(axes, values, title, unit, 0.0, high, "viridis")

    def _plot_std(self, motion):
        lateral, axial, depth = self.units
        units = (lateral, lateral, axial, depth)
        names = ("v_y", "v_x", "v_z", "z0")
        for axes, name, unit, std in zip(self.ax_, names, units, self.std, strict=True):
            std = np.where(np.isnan(motion[0]), np.nan, std)
            self._map(axes, std, f"std of {name}", unit, 0.0, _top(std), "viridis")

    def _map(self, axes, values, title, unit, low, high, cmap):
        self._show(axes, values, cmap=cmap, vmin=low, vmax=max(high, low + 1e-12))
        axes.set_title(title)
        add_colour_bar(axes, self.im_[-1], unit)

    def _show(self, axes, values, **style):
        height, width = values.shape[:2]
        pixel, unit = (1.0, "px") if self.pixel_size is None else (self.pixel_size, "um")
        edges = np.array([-0.5, width - 0.5, height - 0.5, -0.5]) * pixel
        if values.ndim == 2:
            values = np.ma.masked_invalid(values)
        self.im_.append(axes.imshow(values, extent=edges, **style))
        axes.set_facecolor(_NOTHING)
        names = ("column", "row") if self.pixel_size is None else ("x", "y")
        axes.set(xlabel=f"{names[0]} ({unit})", ylabel=f"{names[1]} ({unit})")


def _top(values):
    """What nearly all values stay below; 1 where there is nothing."""
    values = values[np.isfinite(values)]
    return float(np.percentile(values, 99.5)) or 1.0 if len(values) else 1.0


def _round_below(value):
    """The largest of 1, 2, 5, 10, ... that is not above a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(k * power for k in (1, 2, 5) if k * power <= value * (1 + 1e-9))
