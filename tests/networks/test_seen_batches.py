"""Tests of batches of what was seen before."""

from itertools import islice

import numpy as np
import torch

from sklearn_psf.networks.seen_batches import SeenBatches
from sklearn_psf.optics import make_psf_model

MOTION = make_psf_model("motion", size=31)


class Parts:
    """Batches of 4 patches; the first part of each holds its number, the second is empty."""

    def __init__(self):
        self.drawn = 0

    def __iter__(self):
        while True:
            X, y = torch.zeros(4, 4, 64, 64), torch.full((4, 2, 4), torch.nan)
            X[:, 2] = 1
            for k in range(4):
                generator = torch.Generator().manual_seed(self.drawn)
                X[k, 0] = torch.randn(64, 64, generator=generator)
                y[k, 0] = torch.tensor([3.0, 4.0, 0.5, self.drawn / 1000])
                self.drawn += 1
            yield X, y


def batches(model=MOTION, seed=0, **options):
    options = {"batch_size": 8, "pool_size": 40, "reuse": 4} | options
    source = Parts()
    rng = np.random.RandomState(seed)
    return source, SeenBatches(source, model, random_state=rng, **options)


def test_parts_come_several_times_and_the_oldest_go():
    source, stream = batches()
    numbers = [(y[:, 3] * 1000).round().int().tolist() for _, y in islice(iter(stream), 100)]
    assert source.drawn == 32 + 200  # 4 batches at first, then a quarter of what is given out
    assert max(numbers[0]) < 36 and min(numbers[-1]) >= source.drawn - 40
    assert min(numbers[60]) > 60


def test_every_time_they_are_turned():
    _, stream = batches()
    seen, encoded = next(iter(stream))
    motion = MOTION.decode(encoded)
    torch.testing.assert_close(motion[:, :2].norm(dim=1), torch.full((8,), 5.0))
    assert motion[:, 0].unique().numel() > 5
    assert seen.shape[0] == 8 and seen.dtype == torch.float32


def test_some_parts_are_given_out_without_pixels():
    _, stream = batches()
    hidden = [~seen[:, -32 * 32 :].any(1) for seen, _ in islice(iter(stream), 40)]
    assert 0.08 < torch.cat(hidden).float().mean() < 0.22


def test_a_lens_with_an_axis_is_not_turned():
    lens = make_psf_model("motion", size=31, cylinder=0.3)
    _, stream = batches(lens)
    motion = lens.decode(next(iter(stream))[1])
    torch.testing.assert_close(motion[:, :2], torch.tensor([[3.0, 4.0]]).expand(8, 2))


def test_seeded():
    first, again, other = (next(iter(batches(seed=seed)[1])) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first[0], other[0])


def test_without_parameters_of_the_second_part_it_is_left_out():
    """Also where it is there to compare the first one with."""

    def source():
        for X, y in Parts():
            X[:, 1] = X[:, 0].flip(-1)
            yield X, y[:, :1]

    options = {"batch_size": 8, "pool_size": 40, "reuse": 4}
    stream = SeenBatches(source(), MOTION, random_state=np.random.RandomState(0), **options)
    encoded = torch.cat([y for _, y in islice(iter(stream), 20)])
    assert torch.isfinite(encoded).all()
