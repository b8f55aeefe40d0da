"""Pictures of a PSF map."""

from dataclasses import replace

import numpy as np

from .._validation import check_choice
from .panels import add_colour_bar, check_index, make_panels

__all__ = ["PSFMapDisplay"]

KINDS = ("parameters", "std", "psfs", "invalid", "defocus")
_MAX_TILES = 9  # local PSFs drawn along each axis; more would be too small to see
_ENERGY = 0.99  # part of every drawn PSF that lies within its tile


def _edges(centres, length):
    """Borders of windows around centres, in pixels; a single window is the whole image."""
    centres = np.asarray(centres, dtype=float)
    if len(centres) == 1:
        return np.array([-0.5, length - 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _limits(values, span):
    """Colour limits: the data, but at least a tenth of the family's range, so noise stays flat."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, span or 1.0
    low, high = np.percentile(finite, (1, 99))
    width = max(high - low, 0.1 * span, 1e-6 * max(1.0, abs(high)))
    bottom = low - (width - (high - low)) / 2
    # A scale must not promise what cannot be: most parameters do not go below zero.
    bottom = max(0.0, bottom) if low >= 0 else bottom
    return float(bottom), float(bottom + width)


class PSFMapDisplay:
    """Picture of a PSF map: parameters, their standard deviations, or the local PSFs.

    Parameters
    ----------
    maps : PSFMap
        The map, or anything with its attributes.
    index : int, default=0
        Which image of it.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : ndarray of matplotlib.axes.Axes of shape (n_panels,)
        The panels, one per parameter.
    im_ : list of matplotlib artist
        What is drawn in each panel.

    See Also
    --------
    PSFMapDisplay.from_map : Plot a map in one call.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf import PSFMap
    >>> from sklearn_psf.optics import make_psf_model
    >>> from sklearn_psf.plotting import PSFMapDisplay
    >>> focus = np.linspace(0.1, 1.0, 12).reshape(1, 3, 4, 1)
    >>> maps = PSFMap(
    ...     images=np.ones((1, 256, 320)), parameters=focus, std=0.1 * focus,
    ...     invalid=np.zeros((1, 3, 4)), rows=np.array([64, 128, 192]),
    ...     columns=np.array([64, 128, 192, 256]),
    ...     model=make_psf_model("zernike-1", size=31).settings, optics=None)
    >>> display = PSFMapDisplay.from_map(maps, kind="parameters")
    >>> [ax.get_title() for ax in display.ax_]
    ['focus']
    """

    def __init__(self, maps, *, index=0):
        self.maps = maps
        self.index = index

    @classmethod
    def from_map(cls, maps, index=0, *, kind="parameters", ax=None, cmap=None):
        """Plot one image of a PSF map.

        Parameters
        ----------
        maps : PSFMap
            The map.
        index : int, default=0
            Which image of it.
        kind : {"parameters", "std", "psfs", "invalid", "defocus"}, default="parameters"
            What to draw; see `plot`.
        ax : matplotlib Axes, sequence of them, or None
            Where to draw, one per panel; None makes a figure.
        cmap : str, Colormap or None
            Colour map of quantities that are not angles.

        Returns
        -------
        PSFMapDisplay
            The display.

        Raises
        ------
        ValueError
            If `kind` is unknown, `index` is out of range, the number of axes is wrong, or
            `"defocus"` is asked of a map without optics.
        ImportError
            If matplotlib is not installed.
        """
        return cls(maps, index=index).plot(kind=kind, ax=ax, cmap=cmap)

    def plot(self, kind="parameters", *, ax=None, cmap=None):
        """Draw the map.

        Parameters
        ----------
        kind : {"parameters", "std", "psfs", "invalid", "defocus"}, default="parameters"
            One panel per parameter, or per standard deviation; the local PSFs, each scaled to its
            own maximum and drawn as the square root; the probability that a window says nothing;
            the distance from focus in micrometres. A cross marks windows taken as invalid.
        ax : matplotlib Axes, sequence of them, or None
            Where to draw, one per panel; None makes a figure.
        cmap : str, Colormap or None
            Colour map of quantities that are not angles; angles keep a cyclic one.

        Returns
        -------
        PSFMapDisplay
            The display itself.
        """
        check_choice("kind", kind, KINDS)
        check_index(self.index, len(self.maps.parameters))
        panels = self._psf_panel() if kind == "psfs" else self._panels_of(kind)
        self.figure_, self.ax_ = make_panels(len(panels), ax)
        self.im_ = []
        for axes, panel in zip(self.ax_, panels, strict=True):
            if kind == "psfs":
                self.im_.append(self._draw_psfs(axes, panel))
            else:
                self.im_.append(self._draw_field(axes, cmap, **panel))
        return self

    def _panels_of(self, kind):
        """Values, title, unit, limits and period of each panel of a field."""
        maps, i = self.maps, self.index
        if kind == "invalid":
            return [_panel(maps.invalid[i], "invalid", "probability", limits=(0.0, 1.0))]
        if kind == "defocus":
            if maps.optics is None:
                raise ValueError('kind="defocus" needs a PSFMap with optics, got optics=None.')
            return [_panel(maps.defocus()[i].reshape(maps.invalid[i].shape), "defocus", "um")]
        family = maps.psf_model
        described = zip(
            family.parameter_names, family.units, family.periods, family.bounds, strict=True
        )
        panels = []
        for k, (name, unit, period, bounds) in enumerate(described):
            if kind == "std":
                std = maps.std[i, ..., k]
                top = np.max(np.nan_to_num(std)) or 1.0
                panels.append(_panel(std, f"std of {name}", unit, (0.0, top)))
                continue
            values = maps.parameters[i, ..., k]
            limits = _limits(values, float(np.ptp(bounds))) if period is None else (0.0, period)
            panels.append(_panel(values, name, unit, limits, period))
        return panels

    def _draw_field(self, axes, cmap, values, title, unit, limits, period):
        height, width = self.maps.images.shape[1:]
        if period is not None:
            values = np.mod(values, period)
        mesh = axes.pcolormesh(
            _edges(self.maps.columns, width),
            _edges(self.maps.rows, height),
            np.ma.masked_invalid(values),
            cmap="twilight" if period is not None else (cmap or "viridis"),
            vmin=limits[0],
            vmax=limits[1],
        )
        axes.set_facecolor("0.8")
        rows, columns = np.nonzero(self.maps.invalid[self.index] > 0.5)
        axes.plot(self.maps.columns[columns], self.maps.rows[rows], "x", color="white", ms=4)
        axes.set(
            title=title,
            xlabel="column (px)",
            ylabel="row (px)",
            xlim=(-0.5, width - 0.5),
            ylim=(height - 0.5, -0.5),
            aspect="equal",
        )
        add_colour_bar(axes, mesh, unit)
        return mesh

    def _psf_panel(self):
        """Montage of local PSFs and the windows they belong to."""
        steps = [-(-n // _MAX_TILES) for n in self.maps.parameters.shape[1:3]]
        rows, columns = (
            np.arange(0, n, s) + (n - 1) % s // 2
            for n, s in zip(self.maps.parameters.shape[1:3], steps, strict=True)
        )
        psfs = self._local_psfs(rows, columns)
        radius = _radius(psfs)
        centre = psfs.shape[-1] // 2
        crop = slice(centre - radius, centre + radius + 1)
        tiles = psfs[..., crop, crop]
        peak = tiles.max(axis=(-2, -1), keepdims=True)
        tiles = np.sqrt(tiles / np.where(peak > 0, peak, 1))
        side = 2 * radius + 1
        gap = max(1, side // 12)  # wide enough to survive the resampling of a small panel
        tiles = np.pad(tiles, [(0, 0), (0, 0), (0, gap), (0, gap)], constant_values=np.nan)
        montage = tiles.swapaxes(1, 2).reshape(len(rows) * tiles.shape[2], -1)
        return [(montage[:-gap, :-gap], side, side + gap, rows, columns)]

    def _local_psfs(self, rows, columns):
        """PSFs at some windows only: all those of a fine map would fill the memory."""
        maps, i = self.maps, self.index
        if len(rows) * len(columns) == maps.parameters[i, ..., 0].size:
            return np.asarray(maps.psfs(i))
        grid = np.ix_([i], rows, columns)
        part = replace(
            maps,
            images=maps.images[i : i + 1],
            parameters=maps.parameters[grid],
            std=maps.std[grid],
            invalid=maps.invalid[grid],
            rows=maps.rows[rows],
            columns=maps.columns[columns],
        )
        return np.asarray(part.psfs(0))

    def _draw_psfs(self, axes, panel):
        montage, side, pitch, rows, columns = panel
        image = axes.imshow(
            np.ma.masked_invalid(montage), cmap="magma", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set_facecolor("0.5")
        centre = side // 2
        axes.set_xticks(
            centre + pitch * np.arange(len(columns)),
            [f"{self.maps.columns[c]:.0f}" for c in columns],
        )
        axes.set_yticks(
            centre + pitch * np.arange(len(rows)), [f"{self.maps.rows[r]:.0f}" for r in rows]
        )
        axes.set(
            title=f"local PSFs, {side} x {side} px each",
            xlabel="column (px)",
            ylabel="row (px)",
        )
        add_colour_bar(axes, image, "sqrt(intensity / maximum)")
        return image


def _panel(values, title, unit, limits=None, period=None):
    values = np.asarray(values, dtype=float)
    limits = _limits(values, 0.0) if limits is None else limits
    return {
        "values": values,
        "title": title,
        "unit": unit,
        "limits": limits,
        "period": period,
    }


def _radius(psfs):
    """Smallest half-width of a square that holds most of the energy of each PSF."""
    mean = np.nan_to_num(psfs).reshape(-1, *psfs.shape[-2:])
    centre = mean.shape[-1] // 2
    for radius in range(2, centre):
        crop = slice(centre - radius, centre + radius + 1)
        if (mean[:, crop, crop].sum((-2, -1)) >= _ENERGY * mean.sum((-2, -1))).all():
            return radius
    return centre
