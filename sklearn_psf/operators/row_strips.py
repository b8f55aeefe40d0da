"""Strips of rows that fit the cache, for arithmetic that passes over an image many times."""

from collections.abc import Iterator

import torch

__all__ = ["strips"]

_STRIP_POINTS = 2**17


def strips(x: torch.Tensor) -> Iterator[slice]:
    """Yield slices of rows that cover an image, each short enough to stay in the cache.

    Parameters
    ----------
    x : Tensor of shape (..., H, W)
        The image; other devices than the CPU get it in one strip.

    Yields
    ------
    slice
        Rows.

    Examples
    --------
    >>> list(strips(torch.zeros(200, 1000)))
    [slice(0, 100, None), slice(100, 200, None)]
    """
    height = x.shape[-2]
    # rounded, so that a strip with a row more on each side is not cut again
    count = round(x.numel() / _STRIP_POINTS) if x.device.type == "cpu" else 1
    step = max(-(-height // max(count, 1)), 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
