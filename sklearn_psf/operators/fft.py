"""Real FFTs of parts of an image, laid into a buffer of zeros that serves again and again.

A fresh array of some megabytes costs more than the arithmetic on it, because the system hands its
pages out one by one; and an FFT that fits the cache costs less per point than one that does not.
So the operators work on patches of a few hundred pixels and keep their buffers.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch

__all__ = [
    "PaddedFFT",
    "add_inverse_columns",
    "fast_length",
    "fft_cost",
    "multiply_conjugate",
    "transform_columns",
    "transform_cost",
]

# Lengths are multiples of this: what is left over by wider vector instructions is slow.
_GRAIN = 16
# Nanoseconds per point of one real FFT and the products that go with it, by log2 of the points,
# and nanoseconds of starting one; measured on one core whose caches hold 2^18 and 2^22 points.
_LOG_POINTS = (14.0, 16.0, 17.2, 18.0, 18.6, 19.2, 20.2, 21.0, 22.3)
_NS_PER_POINT = (1.7, 1.6, 1.8, 1.8, 2.1, 2.2, 2.6, 3.0, 3.9)
_NS_PER_TRANSFORM = 1.3e4
# Columns that are transformed at a time, in the cache.
_COLUMNS = 128


def fast_length(n: int) -> int:
    """Return the smallest length of at least `n` whose FFT is fast.

    Parameters
    ----------
    n : int
        Number of points.

    Returns
    -------
    int
        A product of small primes; from 64 on a multiple of 16.

    Examples
    --------
    >>> fast_length(7), fast_length(1125)
    (8, 1152)
    """
    if n < 4 * _GRAIN:
        return scipy.fft.next_fast_len(n, real=True)
    return _GRAIN * scipy.fft.next_fast_len(-(-n // _GRAIN), real=True)


def fft_cost(n_points: float) -> float:
    """Return the cost of one FFT, ``n log2(n)``: the unit in which FFTs are counted.

    Parameters
    ----------
    n_points : float
        Number of points.

    Returns
    -------
    float
        Cost in points.

    Examples
    --------
    >>> fft_cost(256)
    2048.0
    """
    return float(n_points * math.log2(max(n_points, 2)))


def transform_cost(n_points: float) -> float:
    """Return what one real FFT and the products that go with it take, by measured constants.

    Parameters
    ----------
    n_points : float
        Number of points.

    Returns
    -------
    float
        Nanoseconds on the machine of the measurement; only ratios matter.

    Examples
    --------
    >>> 4 * transform_cost(640 * 640) < transform_cost(1152 * 1152)
    True
    """
    per_point = np.interp(math.log2(max(n_points, 2)), _LOG_POINTS, _NS_PER_POINT)
    return float(n_points * per_point + _NS_PER_TRANSFORM)


class PaddedFFT:
    """Real FFTs of one size, of what is written into a buffer of zeros.

    Parameters
    ----------
    shape : (int, int)
        Size of the transforms.
    like : Tensor of shape (..., height, width)
        Batch axes, dtype and device of what will be transformed.

    Examples
    --------
    >>> fft = PaddedFFT((8, 8), torch.zeros(3, 3))
    >>> fft.room(2, 2, top=1, left=1).fill_(1.0).sum()
    tensor(4.)
    >>> fft.inverse(fft.spectrum(), slice(1, 3), slice(1, 4)).round()
    tensor([[1., 1., 0.],
            [1., 1., 0.]])
    """

    def __init__(self, shape: Sequence[int], like: torch.Tensor) -> None:
        self._buffer = like.new_zeros((*like.shape[:-2], *shape))
        self._taken = (0, 0, 0, 0)

    def room(self, height: int, width: int, top: int = 0, left: int = 0) -> torch.Tensor:
        """Return the part of the buffer to write into; all around it is zero."""
        if self._taken != (height, width, top, left):
            self._buffer.zero_()
            self._taken = (height, width, top, left)
        return self._buffer[..., top : top + height, left : left + width]

    def spectrum(self) -> torch.Tensor:
        """Return the spectrum of the buffer, a new tensor."""
        return _transform_columns(torch.fft.rfft(self._buffer), inverse=False)

    def inverse(self, spectrum: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
        """Return a part of the inverse transform; `spectrum` is used up."""
        wanted = _transform_columns(spectrum, inverse=True)[..., rows, :]
        return torch.fft.irfft(wanted, n=self._buffer.shape[-1])[..., columns]


def transform_columns(
    x: torch.Tensor, n: int, skip: int = 0, width: int | None = None
) -> torch.Tensor:
    """Return the spectra of the columns of an image, some columns at a time.

    Parameters
    ----------
    x : Tensor of shape (h, w)
        The image.
    n : int
        Length of the transforms, at least ``skip + h``.
    skip : int, default=0
        Zeros above the image; those below it fill the length.
    width : int or None, default=None
        Columns of the result; what is right of the spectra is not set. None is w.

    Returns
    -------
    Tensor of shape (n // 2 + 1, width)
        The spectra.

    Examples
    --------
    >>> transform_columns(torch.ones(2, 1), 4, skip=2).real.T
    tensor([[ 2., -1.,  0.]])
    """
    height, n_columns = x.shape
    room = x.new_zeros(n, min(_COLUMNS, n_columns))
    shape = n // 2 + 1, n_columns if width is None else width
    out = x.new_empty(shape, dtype=x.dtype.to_complex())
    for left in range(0, n_columns, _COLUMNS):
        part = x[:, left : left + _COLUMNS]
        some = room[:, : part.shape[1]]
        some[skip : skip + height] = part
        out[:, left : left + part.shape[1]] = _transform_real(some)
    return out


def add_inverse_columns(
    spectrum: torch.Tensor, n: int, rows: slice, out: torch.Tensor, alone: bool = False
) -> None:
    """Add what `transform_columns` was given to an array.

    Parameters
    ----------
    spectrum : Tensor of shape (n // 2 + 1, w)
        The spectra.
    n : int
        Length of the transforms.
    rows : slice
        Wanted rows of their inverse.
    out : Tensor of shape (h, w)
        Where to add them.
    alone : bool, default=False
        Whether they replace what is there.
    """
    for left in range(0, spectrum.shape[1], _COLUMNS):
        some = slice(left, left + _COLUMNS)
        part = _transform_real(spectrum[:, some], n)[rows]
        if alone:
            out[:, some] = part
        else:
            out[:, some] += part


def _transform_real(x: torch.Tensor, n: int | None = None) -> torch.Tensor:
    # SciPy's transforms of few columns are faster than those of torch.
    inverse = x.is_complex()
    if x.device.type != "cpu":
        return torch.fft.irfft(x, n=n, dim=-2) if inverse else torch.fft.rfft(x, dim=-2)
    transform = scipy.fft.irfft if inverse else scipy.fft.rfft
    return torch.from_numpy(transform(x.numpy(), n=n, axis=-2, workers=torch.get_num_threads()))


def multiply_conjugate(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``a * conj(b)`` in the place of a, without a conjugate copy of b."""
    return a.conj_physical_().mul_(b).conj_physical_()


def _transform_columns(spectrum: torch.Tensor, inverse: bool) -> torch.Tensor:
    # SciPy's transform along columns works in place, which that of torch never does.
    if spectrum.device.type != "cpu":
        return (torch.fft.ifft if inverse else torch.fft.fft)(spectrum, dim=-2)
    transform = scipy.fft.ifft if inverse else scipy.fft.fft
    options = {"overwrite_x": True, "workers": torch.get_num_threads()}
    return torch.from_numpy(transform(spectrum.numpy(), axis=-2, **options))
