"""Pictures of a restoration."""

import numpy as np

from .panels import add_colour_bar, check_index, make_panels

__all__ = ["RestorationDisplay"]


class RestorationDisplay:
    """Blurred and restored image side by side on one grey scale, and the truth if there is one.

    Parameters
    ----------
    images : dict of str to ndarray of shape (H, W)
        The panels, by title.
    unit : str, default="grey value"
        What the images are in.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : ndarray of matplotlib.axes.Axes of shape (n_panels,)
        The panels.
    im_ : list of matplotlib.image.AxesImage
        The images drawn.

    See Also
    --------
    RestorationDisplay.from_images : Plot images in one call.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.plotting import RestorationDisplay
    >>> blurred = np.random.default_rng(0).poisson(100, (1, 32, 48))
    >>> display = RestorationDisplay.from_images(blurred, blurred + 1)
    >>> [ax.get_title() for ax in display.ax_]
    ['blurred', 'restored']
    """

    def __init__(self, images, *, unit="grey value"):
        self.images = images
        self.unit = unit

    @classmethod
    def from_images(
        cls, blurred, restored, sharp=None, *, index=0, unit="grey value", ax=None, cmap="gray"
    ):
        """Plot the images before and after.

        Parameters
        ----------
        blurred, restored : array-like of shape (n, H, W) or (H, W)
            Before and after.
        sharp : array-like of the same shape, optional
            The truth.
        index : int, default=0
            Which image, where there are n.
        unit : str, default="grey value"
            What the images are in, for the colour bar.
        ax : sequence of matplotlib Axes or None
            Where to draw, one per image; None makes a figure.
        cmap : str or Colormap, default="gray"
            Colour map.

        Returns
        -------
        RestorationDisplay
            The display.

        Raises
        ------
        ValueError
            If the images differ in shape, are not images, or `index` is out of range.
        ImportError
            If matplotlib is not installed.
        """
        given = {"blurred": blurred, "restored": restored, "sharp": sharp}
        images = {k: _one_image(v, k, index) for k, v in given.items() if v is not None}
        shapes = {k: image.shape for k, image in images.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"The images must share one shape, got {shapes}.")
        return cls(images, unit=unit).plot(ax=ax, cmap=cmap)

    def plot(self, *, ax=None, cmap="gray"):
        """Draw the images.

        Parameters
        ----------
        ax : sequence of matplotlib Axes or None
            Where to draw, one per image; None makes a figure.
        cmap : str or Colormap, default="gray"
            Colour map.

        Returns
        -------
        RestorationDisplay
            The display itself.
        """
        self.figure_, self.ax_ = make_panels(len(self.images), ax)
        # One scale for all, or the eye compares contrasts that are not there. It is set by the
        # last image, truth or restoration, which the blurred one stays within.
        low, high = np.percentile(list(self.images.values())[-1], (0.1, 99.9))
        self.im_ = []
        for axes, (title, image) in zip(self.ax_, self.images.items(), strict=True):
            self.im_.append(axes.imshow(image, cmap=cmap, vmin=low, vmax=max(high, low + 1e-12)))
            axes.set(title=title, xticks=[], yticks=[])
        add_colour_bar(self.ax_[-1], self.im_[-1], self.unit)
        return self


def _one_image(images, name, index):
    images = np.asarray(images)
    if images.ndim == 2:
        return images
    if images.ndim != 3:
        raise ValueError(f"{name} must be of shape (n, H, W) or (H, W), got {images.shape}.")
    check_index(index, len(images))
    return images[index]
