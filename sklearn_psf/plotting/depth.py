"""Pictures of a depth map."""

import numpy as np

from .._validation import check_choice
from .panels import add_colour_bar, check_index, import_pyplot, make_panels

__all__ = ["DepthMapDisplay"]

KINDS = ("map", "profile", "surface")
_N_BINS = 40  # of the profile
_FLAT = 0.2  # part of the variance that a plane may leave


class DepthMapDisplay:
    """Picture of a depth map: from above, along a line, or in space.

    Parameters
    ----------
    depth : ndarray of shape (n, gy, gx)
        Depths of windows, micrometres; NaN where there is none.
    rows, columns : ndarray of shape (gy,) and (gx,)
        Window centres, pixels.
    std : ndarray of shape (n, gy, gx), optional
        Standard deviations, for the profile.
    truth : ndarray of shape (n, gy, gx) or (n, H, W), optional
        True depths, of windows or of pixels.
    pixel_size : float, optional
        Size of a pixel in the object, micrometres. None draws in pixels.
    index : int, default=0
        Which image.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : matplotlib.axes.Axes
        The panel.

    See Also
    --------
    DepthMapDisplay.from_estimator : Predict and plot in one call.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.plotting import DepthMapDisplay
    >>> depth = np.linspace(-5, 5, 24).reshape(1, 4, 6)
    >>> display = DepthMapDisplay(depth, np.arange(4) * 32, np.arange(6) * 32).plot()
    >>> display.ax_.get_title()
    'depth'
    """

    def __init__(self, depth, rows, columns, *, std=None, truth=None, pixel_size=None, index=0):
        self.depth = depth
        self.rows = rows
        self.columns = columns
        self.std = std
        self.truth = truth
        self.pixel_size = pixel_size
        self.index = index

    @classmethod
    def from_estimator(cls, estimator, maps, truth=None, *, index=0, kind="map", ax=None):
        """Predict the depth of one image of a map, and plot it.

        Parameters
        ----------
        estimator : AstigmaticDepthEstimator
            Fitted.
        maps : PSFMap
            The map; with optics, distances are in micrometres.
        truth : ndarray of shape (n, gy, gx) or (n, H, W), optional
            True depths.
        index : int, default=0
            Which image.
        kind : {"map", "profile", "surface"}, default="map"
            What to draw; see `plot`.
        ax : matplotlib Axes or None
            Where to draw; None makes a figure. "surface" needs a 3-D one.

        Returns
        -------
        DepthMapDisplay
            The display.

        Raises
        ------
        ValueError
            If `kind` is unknown, `index` out of range, or the truth of another shape.
        ImportError
            If matplotlib is not installed.
        """
        depth, std = estimator.predict(maps, return_std=True)
        display = cls(
            depth,
            maps.rows,
            maps.columns,
            std=std,
            truth=truth,
            pixel_size=None if maps.optics is None else maps.optics.object_pixel,
            index=index,
        )
        return display.plot(kind, ax=ax)

    def plot(self, kind="map", *, ax=None, cmap="viridis"):
        """Draw the depth.

        Parameters
        ----------
        kind : {"map", "profile", "surface"}, default="map"
            From above, windows without a depth crossed out; depth with error bars along the
            direction in which the truth (else the depth itself) rises, or in the middle row of a
            surface that is no plane, with the truth if there is one; or a surface in space.
        ax : matplotlib Axes or None
            Where to draw; None makes a figure. "surface" needs a 3-D one.
        cmap : str or Colormap, default="viridis"
            Colour map.

        Returns
        -------
        DepthMapDisplay
            The display itself.
        """
        check_choice("kind", kind, KINDS)
        check_index(self.index, len(self.depth))
        truth = self._truth()
        if kind == "surface":
            self._plot_surface(ax, cmap)
        else:
            self.figure_, (self.ax_,) = make_panels(1, ax)
            if kind == "map":
                self._plot_map(cmap)
            else:
                self._plot_profile(truth)
        return self

    def _truth(self):
        """True depth at the window centres (gy, gx), or None."""
        if self.truth is None:
            return None
        truth, grid = np.asarray(self.truth), np.shape(self.depth)
        if truth.shape == grid:
            return truth[self.index]
        fits = truth.ndim == 3 and len(truth) == grid[0]
        if not fits or truth.shape[1] <= self.rows[-1] or truth.shape[2] <= self.columns[-1]:
            raise ValueError(
                f"truth must be of shape {grid} (windows) or (n, H, W) (pixels), got {truth.shape}."
            )
        nearest = (np.rint(centres).astype(int) for centres in (self.rows, self.columns))
        return truth[self.index][np.ix_(*nearest)]

    def _places(self):
        """Rows and columns of the centres, the unit, and the depth (gy, gx)."""
        pixel = 1.0 if self.pixel_size is None else self.pixel_size
        unit = "pixels" if self.pixel_size is None else "um"
        rows, columns = (np.asarray(c, float) * pixel for c in (self.rows, self.columns))
        return rows, columns, unit, np.asarray(self.depth[self.index], float)

    def _plot_map(self, cmap):
        rows, columns, unit, depth = self._places()
        mesh = self.ax_.pcolormesh(
            columns, rows, np.ma.masked_invalid(depth), shading="nearest", cmap=cmap
        )
        y, x = np.nonzero(~np.isfinite(depth))
        self.ax_.plot(columns[x], rows[y], "x", color="0.5", markersize=4)
        self.ax_.set(title="depth", xlabel=f"x ({unit})", ylabel=f"y ({unit})", aspect="equal")
        self.ax_.invert_yaxis()
        add_colour_bar(self.ax_, mesh, "um")
        self.im_ = [mesh]

    def _plot_profile(self, truth):
        rows, columns, unit, depth = self._places()
        y, x = np.meshgrid(rows, columns, indexing="ij")
        along, used = _line(y, x, depth if truth is None else truth)
        known = used & np.isfinite(depth)
        std = None if self.std is None else np.asarray(self.std[self.index])[known]
        self.ax_.errorbar(
            along[known], depth[known], std, fmt=".", alpha=0.35, label="windows", zorder=1
        )
        if known.any():
            self.ax_.plot(*_binned(along[known], depth[known]), color="C1", label="mean", zorder=3)
        if truth is not None:
            profile = _binned(along[used], truth[used])
            self.ax_.plot(*profile, "k--", label="truth", zorder=2)
        self.ax_.legend()
        name = "along the slope" if used.all() else "x, middle row"
        self.ax_.set(title="profile", xlabel=f"{name} ({unit})", ylabel="depth (um)")

    def _plot_surface(self, ax, cmap):
        if ax is None:
            figure = import_pyplot().figure(figsize=(5.2, 4.4), layout="constrained")
            ax = figure.add_subplot(projection="3d")
        if not hasattr(ax, "plot_surface"):
            raise ValueError('kind="surface" needs 3-D axes: add_subplot(projection="3d").')
        self.figure_, self.ax_ = ax.figure, ax
        rows, columns, unit, depth = self._places()
        if min(depth.shape) < 2:
            raise ValueError(f"A surface needs at least 2 x 2 windows, got {depth.shape}.")
        x, y = np.meshgrid(columns, rows)
        ax.plot_surface(x, y, depth, cmap=cmap, linewidth=0.2, edgecolor="0.3")
        ax.set(title="surface", xlabel=f"x ({unit})", ylabel=f"y ({unit})", zlabel="depth (um)")
        ax.invert_yaxis()


def _line(y, x, depth):
    """Where windows lie on a line, and which of them belong to it.

    All do if the surface is about a plane, on the line in which it rises; of any other surface the
    middle row of windows.
    """
    known = np.isfinite(depth)
    middle = np.zeros(depth.shape, bool)
    middle[len(depth) // 2] = True
    if known.sum() < 3:
        return x, middle
    basis = np.stack([np.ones(known.sum()), y[known], x[known]], -1)
    plane = np.linalg.lstsq(basis, depth[known], rcond=None)[0]
    length, left = np.hypot(*plane[1:]), (depth[known] - basis @ plane).var()
    if length == 0 or left > _FLAT * depth[known].var():
        return x, middle
    along = ((y - y.mean()) * plane[1] + (x - x.mean()) * plane[2]) / length
    return along, np.ones(depth.shape, bool)


def _binned(along, depth):
    """Mean positions and depths in bins along the slope."""
    edges = np.linspace(along.min(), along.max() + 1e-9, min(_N_BINS, len(along)) + 1)
    index = np.digitize(along, edges)
    filled = np.unique(index)
    return tuple(np.array([v[index == i].mean() for i in filled]) for v in (along, depth))
