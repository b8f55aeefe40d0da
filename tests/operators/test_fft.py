import pytest
import torch

from sklearn_psf.operators.fft import (
    PaddedFFT,
    add_inverse_columns,
    fast_length,
    multiply_conjugate,
    transform_columns,
    transform_cost,
)


def test_fast_lengths_are_long_enough_and_have_small_factors():
    for n in range(1, 3000, 7):
        length = fast_length(n)
        assert n <= length <= max(1.34 * n, n + 16)
        assert length < 64 or length % 16 == 0
        for factor in (2, 3, 5):
            while length % factor == 0:
                length //= factor
        assert length == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_written_comes_back_and_the_rest_is_zero(dtype):
    like = torch.rand(2, 5, 6, dtype=dtype)
    fft = PaddedFFT((16, 12), like)
    fft.room(5, 6, 2, 3).copy_(like)
    whole = fft.inverse(fft.spectrum(), slice(0, 16), slice(0, 12))
    torch.testing.assert_close(whole[:, 2:7, 3:9], like)
    whole[:, 2:7, 3:9] = 0
    torch.testing.assert_close(whole, torch.zeros_like(whole))
    # another room leaves nothing of the first behind
    fft.room(1, 1).fill_(1.0)
    assert fft.inverse(fft.spectrum(), slice(0, 16), slice(0, 12)).sum() == pytest.approx(2.0)


def test_spectra_are_those_of_torch():
    x = torch.rand(16, 12)
    fft = PaddedFFT(x.shape, x)
    fft.room(*x.shape).copy_(x)
    torch.testing.assert_close(fft.spectrum(), torch.fft.rfft2(x))
    other = torch.fft.rfft2(torch.rand(16, 12))
    expected = fft.spectrum() * other.conj()
    torch.testing.assert_close(multiply_conjugate(fft.spectrum(), other), expected)


@pytest.mark.parametrize("width", [1, 128, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_are_transformed_there_and_back(dtype, width):
    x = torch.rand(13, width, dtype=dtype)
    spectra = transform_columns(x, 20, skip=3, width=width + 2)
    assert spectra.shape == (11, width + 2)
    spectra = spectra[:, :width]
    padded = torch.zeros(20, width, dtype=dtype)
    padded[3:16] = x
    torch.testing.assert_close(spectra, torch.fft.rfft(padded, dim=0))
    out = torch.ones(13, width, dtype=dtype)
    add_inverse_columns(spectra, 20, slice(3, 16), out)
    torch.testing.assert_close(out, x + 1)
    add_inverse_columns(spectra, 20, slice(3, 16), out, alone=True)
    torch.testing.assert_close(out, x)


def test_more_points_cost_more():
    costs = [transform_cost(n * n) for n in (32, 100, 300, 600, 1200, 3000)]
    assert costs == sorted(costs)
    # per point, too, beyond what the start of a transform costs
    assert transform_cost(3000**2) / 3000**2 > transform_cost(300**2) / 300**2
