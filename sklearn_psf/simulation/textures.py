"""Procedural textures, sharp at the pixel: what there is to blur when no images are at hand."""

from collections.abc import Callable

import numpy as np
from sklearn.utils import check_random_state

from .._validation import check_choice, check_number

__all__ = ["TEXTURE_KINDS", "make_textures"]


def make_textures(n, size=256, kind="mix", random_state=None):
    """Draw sharp random textures.

    * "points": emitters at sub-pixel positions, sparse to dense, each the area of one pixel.
    * "cells": blobs with membrane, nucleus and inner texture.
    * "filaments": curved, crossing, beaded lines of varied width and brightness.
    * "dead-leaves": discs that cover one another, radii drawn from the power law ``r^-3``.
    * "fractal": Gaussian noise of power spectrum ``f^-b``, b in [0.5, 2.5], plain or stretched
      into bright tails; or b in [1, 4], cut into grey levels or folded into creases.

    Each image has its own density, contrast, background and polarity.

    Parameters
    ----------
    n : int
        Number of images.
    size : int or (int, int), default=256
        Height and width, pixels; at least 16.
    kind : {"mix", "points", "cells", "filaments", "dead-leaves", "fractal"}
        Kind of texture; "mix" draws one for each image.
    random_state : int, RandomState or None
        Seed. Image i is the same for every `n`.

    Returns
    -------
    ndarray of shape (n, H, W)
        Non-negative, largest value 1, float32.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    References
    ----------
    A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images: a statistical study of
    a scale-invariant dead leaves model", Int. J. Comput. Vis. 41 (2001).

    Examples
    --------
    >>> X = make_textures(2, size=(64, 48), kind="cells", random_state=0)
    >>> X.shape, float(X.max())
    ((2, 64, 48), 1.0)
    """
    check_number("n", n, low=1, integer=True)
    check_choice("kind", kind, ("mix", *TEXTURE_KINDS))
    shape = _check_size(size)
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    images = np.empty((n, *shape), dtype=np.float32)
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        name = TEXTURE_KINDS[rng.integers(len(TEXTURE_KINDS))] if kind == "mix" else kind
        images[i] = _develop(_DRAW[name](shape, rng), rng)
    return images


def _check_size(size):
    pair = (size, size) if np.ndim(size) == 0 else tuple(size)
    if len(pair) != 2:
        raise ValueError(f"size must be an integer or (height, width), got {size!r}.")
    for value in pair:
        check_number("size", value, low=16, integer=True)
    return pair


def _develop(image, rng):
    """Give a texture a random tone curve, background, contrast and polarity; peak 1."""
    image = image - image.min()
    image = (image / max(image.max(), 1e-12)) ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.3:
        image = 1 - image
    if rng.random() < 0.5:
        image = image + 10 ** rng.uniform(-1.5, 0.3) * _shading(image.shape, rng)
    return image / image.max()


def _shading(shape, rng):
    """Return a gently sloping background, mean about 1."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    slope_y, slope_x = rng.uniform(-0.15, 0.15, 2)
    return 1 + slope_y * y[:, None] + slope_x * x


def _splat(shape, y, x, brightness):
    """Add unit squares centred at (y, x): each pixel gets the area that a square covers."""
    height, width = shape
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    keep = (i >= 0) & (j >= 0) & (i < height - 1) & (j < width - 1)
    i, j, y, x, brightness = i[keep], j[keep], y[keep], x[keep], brightness[keep]
    v, u = y - i, x - j
    flat = i * width + j
    image = np.zeros(height * width)
    corners = ((0, (1 - v) * (1 - u)), (1, (1 - v) * u), (width, v * (1 - u)), (width + 1, v * u))
    for step, weight in corners:
        image += np.bincount(flat + step, weight * brightness, minlength=height * width)
    return image.reshape(shape)


def _noise(shape, exponent, rng):
    """Gaussian noise of amplitude spectrum ``f^-exponent``, mean 0 and variance 1."""
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    f[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * f**-exponent
    noise = np.fft.irfft2(spectrum, s=shape)
    return noise / noise.std()


def _points(shape, rng):
    count = max(4, rng.poisson(shape[0] * shape[1] * 10 ** rng.uniform(-3.3, -1.3)))
    y, x = rng.uniform(0, shape[0] - 1, count), rng.uniform(0, shape[1] - 1, count)
    if rng.random() < 0.3:  # in clusters instead of evenly
        n_clusters = max(1, count // 40)
        member = rng.integers(n_clusters, size=count)
        spread = rng.uniform(0.02, 0.15) * min(shape)
        y = y[member] + spread * rng.standard_normal(count)
        x = x[member] + spread * rng.standard_normal(count)
    brightness = rng.lognormal(0, rng.uniform(0.1, 0.8), count)
    image = _splat(shape, y, x, brightness)
    # The few brightest heaps must not push all others into the dark.
    return np.minimum(image, np.quantile(image[image > 0], 0.995)) if image.any() else image


def _filaments(shape, rng):
    count, diagonal = int(10 ** rng.uniform(0.8, 1.8)), np.hypot(*shape)
    steps = int(rng.uniform(0.3, 1.2) * diagonal / 0.5)
    # curvature is a random walk, so that lines bend smoothly
    bend = rng.normal(0, 10 ** rng.uniform(-2.6, -1.6), (count, steps)).cumsum(1) * 0.1
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + bend.cumsum(1)
    y = rng.uniform(0, shape[0], (count, 1)) + 0.5 * np.sin(angle).cumsum(1)
    x = rng.uniform(0, shape[1], (count, 1)) + 0.5 * np.cos(angle).cumsum(1)
    beads = 1 + rng.uniform(0, 0.9) * np.sin(0.5 * rng.uniform(0.1, 1.5) * np.arange(steps))
    brightness = rng.lognormal(0, 0.5, (count, 1)) * beads
    width = rng.uniform(0, rng.uniform(0.5, 4), (count, 1))
    image = np.zeros(shape)
    for offset in np.linspace(-0.5, 0.5, int(2 * width.max()) + 1):
        dy, dx = width * offset * np.cos(angle), -width * offset * np.sin(angle)
        image += _splat(shape, (y + dy).ravel(), (x + dx).ravel(), brightness.ravel())
    return np.minimum(image, np.quantile(image, 0.998)) if image.any() else image


def _cells(shape, rng):
    radius = rng.uniform(0.03, 0.12) * min(shape) + 4
    count = max(3, int(rng.uniform(0.3, 1.5) * shape[0] * shape[1] / (np.pi * radius**2)))
    texture = _noise(shape, rng.uniform(0.2, 1.2), rng)
    grain, rim, core = rng.uniform(0, 0.5), rng.uniform(0, 2), rng.uniform(-0.5, 2)
    image = np.zeros(shape)
    for y, x in rng.uniform(0, shape, (count, 2)):
        r0 = radius * rng.uniform(0.6, 1.4)
        box, dy, dx = _box(shape, y, x, 1.6 * r0)
        distance, r = _distance_to_outline(dy, dx, r0, rng)
        cell = 1 + rim * np.exp(-(distance**2) / rng.uniform(0.3, 2))
        cell += core * np.clip(0.5 + (0.5 * r0 - r), 0, 1)
        cell *= 1 + grain * texture[box]
        inside = np.clip(0.5 - distance, 0, 1) * rng.uniform(0.3, 1)
        image[box] = np.maximum(image[box], cell * inside)
    return image.clip(min=0)


def _box(shape, y, x, radius):
    """Slices of the pixels within `radius` of (y, x), and their offsets from it."""
    (top, bottom), (left, right) = (
        (max(0, int(c - radius)), max(1, min(n, int(c + radius) + 2)))
        for c, n in zip((y, x), shape, strict=True)
    )
    dy, dx = np.arange(top, bottom)[:, None] - y, np.arange(left, right) - x
    return (slice(top, bottom), slice(left, right)), dy, dx


def _distance_to_outline(dy, dx, radius, rng):
    """Signed distance (negative inside) to a wavy ellipse, and the elliptic radius, in pixels."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.6) ** 0.5
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / stretch
    v = (dy * np.cos(turn) - dx * np.sin(turn)) * stretch
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    wave = sum(
        rng.normal(0, 0.12 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)
    )
    return r - radius * (1 + wave), r


def _dead_leaves(shape, rng):
    smallest, largest = rng.uniform(2, 6), 0.25 * min(shape)
    # mean area of a leaf under p(r) = 2 smallest^2 / r^3; three layers leave little bare
    area = 2 * np.pi * smallest**2 * np.log(largest / smallest) if largest > smallest else 40
    count = int(3 * shape[0] * shape[1] / area)
    radii = np.minimum(smallest * rng.uniform(1e-9, 1, count) ** -0.5, max(largest, smallest))
    centres, greys = rng.uniform(0, shape, (count, 2)), rng.random(count)
    grain = rng.uniform(0, 0.15) * (rng.random() < 0.7)
    image = np.full(shape, rng.random())
    for (y, x), radius, grey in zip(centres, radii, greys, strict=True):
        box, dy, dx = _box(shape, y, x, radius + 1)
        cover = np.clip(radius + 0.5 - np.sqrt(dy**2 + dx**2), 0, 1)
        image[box] += cover * (grey - image[box])
    # the grain follows the leaf's grey value, as texture follows a surface
    return image * (1 + grain * _noise(shape, rng.uniform(0, 1), rng)).clip(min=0)


def _fractal(shape, rng):
    style = rng.integers(4)
    # steeper spectra are smooth at the pixel but for the edges that cutting and folding make
    power = rng.uniform(1, 4) if style < 2 else rng.uniform(0.5, 2.5)
    noise = _noise(shape, power / 2, rng)
    if style == 0:  # two to five grey levels with sharp edges
        levels = np.sort(rng.uniform(-1.5, 1.5, rng.integers(1, 5)))
        return np.digitize(noise, levels) + 0.2 * (noise - noise.min())
    if style == 1:  # bright creases where the noise changes sign
        return np.exp(-abs(noise) * rng.uniform(1, 5))
    if style == 2:  # long bright tails
        return np.exp(rng.uniform(0.5, 1.2) * noise.clip(max=3))
    return noise.clip(-3.5, 3.5)


_DRAW: dict[str, Callable] = {
    "points": _points,
    "cells": _cells,
    "filaments": _filaments,
    "dead-leaves": _dead_leaves,
    "fractal": _fractal,
}
TEXTURE_KINDS = tuple(_DRAW)
