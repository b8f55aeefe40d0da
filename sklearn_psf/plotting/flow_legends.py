"""Colours of directions and magnitudes, and the legends that explain them."""

import numpy as np

__all__ = ["add_channel_bars", "add_colour_wheel", "direction_colours"]


def direction_colours(v_y, v_x, top, nothing="0.6"):
    """Direction as hue, speed as brightness.

    Parameters
    ----------
    v_y, v_x : ndarray of shape (H, W)
        Motion; NaN where there is none.
    top : float
        Speed of full brightness.
    nothing : matplotlib colour
        Where there is none.

    Returns
    -------
    ndarray of shape (H, W, 3)
        Red, green and blue between 0 and 1. Red is along x, and the hue turns towards y.

    Examples
    --------
    >>> import numpy as np
    >>> direction_colours(np.array([[0.0, 0.0]]), np.array([[4.0, -2.0]]), 4.0).tolist()
    [[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]]
    """
    from matplotlib.colors import hsv_to_rgb, to_rgb

    known = np.isfinite(v_y) & np.isfinite(v_x)
    v_y, v_x = np.where(known, v_y, 0.0), np.where(known, v_x, 0.0)
    hue = (np.arctan2(v_y, v_x) / (2 * np.pi)) % 1.0
    value = np.clip(np.hypot(v_y, v_x) / top, 0, 1)
    colours = hsv_to_rgb(np.stack([hue, np.ones_like(hue), value], -1))
    return np.where(known[..., None], colours, to_rgb(nothing))


def add_colour_wheel(axes, top, unit, n=129):
    """Put a wheel of directions beside a panel; y points down, as in the panel.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The panel.
    top : float
        Speed at the rim.
    unit : str
        Its unit.
    n : int
        Pixels across.
    """
    wheel = axes.inset_axes([1.08, 0.38, 0.28, 0.28])
    y, x = np.meshgrid(*(np.linspace(-1, 1, n),) * 2, indexing="ij")
    outside = np.hypot(y, x) > 1
    colours = direction_colours(np.where(outside, np.nan, y), x, 1.0, "white")
    wheel.imshow(np.dstack([colours, ~outside]), extent=(-1, 1, 1, -1))
    wheel.set_axis_off()
    wheel.set_title("direction", fontsize="small")
    label = f"rim: {_short(top)}\n{unit}"
    wheel.text(0, 1.15, label, ha="center", va="top", fontsize="small")


def add_channel_bars(axes, names, bounds, units):
    """Put a bar from 0 to its bound beside a panel for each of red, green and blue.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        The panel.
    names, units : sequence of str
        What the channels are, and in what.
    bounds : sequence of float
        Value of the full colour.
    """
    ramp = np.linspace(0, 1, 64)[:, None, None]
    rows = zip(names, bounds, units, np.eye(3), strict=True)
    for k, (name, bound, unit, colour) in enumerate(rows):
        bar = axes.inset_axes([1.04, 0.74 - 0.37 * k, 0.05, 0.26])
        bar.imshow(ramp * colour, origin="lower", extent=(0, 1, 0, bound), aspect="auto")
        bar.set_xticks([])
        bar.set_yticks(
            [0, bound / 2, bound], ["0", name, f"{_short(bound)} {unit}"], fontsize="small"
        )
        bar.yaxis.tick_right()
        bar.tick_params(length=0)


def _short(value):
    """Three digits, and no powers of ten for what is read at a glance."""
    return f"{value:.0f}" if 1e3 <= value < 1e5 else f"{value:.3g}"
