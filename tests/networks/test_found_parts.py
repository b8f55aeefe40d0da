"""Tests of parts of images as a network tells them apart."""

from itertools import islice

import numpy as np
import pytest
import torch

from sklearn_psf.networks import build_network
from sklearn_psf.networks.found_parts import FoundParts


@pytest.fixture(scope="module")
def network():
    return build_network("unet-directed", 6, seed=0).eval()


def scenes():
    """Batches of images; squares of two say where they are, but for those at ends."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    truth = torch.stack([y, x, y, x]).expand(2, -1, -1, -1).clone()
    truth[1] += 100
    truth[:, :, :16] = torch.nan
    truth[..., 28:, :] = truth[..., :4] = truth[..., 28:] = torch.nan  # masks fade there
    truth = torch.cat([truth, torch.full_like(truth[:1], torch.nan)])
    while True:
        yield torch.rand(3, 128, 128, generator=rng), truth


def test_each_part_comes_with_what_is_said_of_its_place(network):
    found = FoundParts(scenes(), network, n_places=8, random_state=np.random.RandomState(0))
    for parts, y in islice(iter(found), 3):
        assert parts.shape == (16, 5, 256, 256) and y.shape == (16, 1, 4)
        place = y[:, 0, :2] % 100
        assert (place[:, 0] >= 16).all()  # no place without texture
        own = parts[:, 2, :128, :128]
        at = own[range(16), *(4 * place.T.int() + 2)]
        assert at.min() > 0.5
        assert not parts[:, :4, 128:].any() and not parts[:, :4, :, 128:].any()
        closest = parts[:, 4].flatten(1).argmax(1)
        for k, best in enumerate((closest // 256, closest % 256)):
            assert ((best // 4) == place[:, k]).all()


def test_parts_are_those_that_the_network_reads_again(network):
    """Around the same places, of the same images."""
    images = next(scenes())[0][:2]
    seen = []
    handle = network.backbone.again.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.no_grad():
        network(images)
        parts = network.find_parts(images, [(8, 8), (8, 24)])
    handle.remove()
    again = torch.cat([inputs[0] for inputs in seen])
    assert len(again) == 8
    torch.testing.assert_close(again[:4, 2:], parts[:, 2:], atol=1e-3, rtol=0)
    deviation = parts[:, 0].std((1, 2), correction=0)[:, None, None]
    torch.testing.assert_close(again[:4, 0], parts[:, 0] / deviation, atol=1e-2, rtol=0)


def test_seeded(network):
    first, again, other = (
        next(iter(FoundParts(scenes(), network, n_places=3, random_state=np.random.RandomState(k))))
        for k in (0, 0, 1)
    )
    torch.testing.assert_close(first, again)
    assert first[1].shape != other[1].shape or not torch.allclose(first[1], other[1])
