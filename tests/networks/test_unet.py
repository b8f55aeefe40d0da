"""Tests of the networks that map whole images."""

import numpy as np
import pytest
import torch

from sklearn_psf.networks import READERS, build_network, load_pretrained, read_image
from sklearn_psf.networks.dense import DENSE_ARCHITECTURES
from sklearn_psf.networks.modules import load_initial_weights
from sklearn_psf.networks.reading import read_patches, sample_grid
from sklearn_psf.networks.regions import RegionUNet
from sklearn_psf.networks.training import PSFLoss
from sklearn_psf.networks.unet import ResidualUNet, normalize_locally
from sklearn_psf.simulation import make_pipe_flow


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=DENSE_ARCHITECTURES)
def network(request):
    network = build_network(request.param, 3, seed=0)
    with torch.no_grad():  # a fresh one only passes on what windows say
        network.backbone.fc.weight.normal_(generator=torch.Generator().manual_seed(1))
    return network.eval()


# -------------------------------------------------------------------------------- normalising


def test_local_normalisation_does_not_know_brightness():
    x = noise(2, 1, 96, 96)
    gradient = 1 + torch.linspace(0, 3, 96)
    y = normalize_locally(x)
    torch.testing.assert_close(normalize_locally(7 * x + 300), y, atol=2e-3, rtol=0)
    assert abs(float(y.std()) - 1) < 0.1
    # uneven light within a neighbourhood changes little
    assert (normalize_locally(gradient * x) - y).abs().mean() < 0.25


def test_a_constant_image_has_no_texture():
    assert normalize_locally(torch.full((1, 1, 70, 70), 5e4)).abs().max() == 0


# -------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("shape", [(64, 64), (65, 97), (128, 80)])
def test_one_reading_for_each_square(network, shape):
    with torch.inference_mode():
        encoding, variance, invalid = network.read(noise(2, *shape))
    squares = tuple(-(-n // network.stride) for n in shape)
    assert encoding.shape == variance.shape == (2, *squares, 3)
    assert invalid.shape == (2, *squares)
    assert (variance > 0).all() and (invalid >= 0).all() and (invalid <= 1).all()


def test_a_reading_belongs_to_its_place(network):
    x = noise(1, 384, 384)
    y = x.clone()
    y[:, 300:, 300:] = noise(1, 84, 84, seed=1)
    with torch.inference_mode():
        change = (network.read(x)[0] - network.read(y)[0])[0].abs().amax(-1)
    n = len(change)
    assert change[-n // 5 :, -n // 5 :].mean() > 20 * change[: n // 8, : n // 8].mean()


@pytest.mark.parametrize("shape", [(400, 150), (257, 330)])
def test_tiles_equal_the_whole(shape):
    network = build_network("unet-directed", 6, load_pretrained("motion")[0])
    image = make_pipe_flow(shape=shape, radius=60, spacing=32, random_state=0)[0]
    whole = read_image(network, image, tile=1024)
    tiled = read_image(network, image, tile=192)
    spread = whole[0].std((0, 1))
    assert (np.abs(whole[0] - tiled[0]).max((0, 1)) < 0.1 * spread).all()
    assert np.abs(whole[2] - tiled[2]).max() < 0.02


@pytest.mark.parametrize("architecture", DENSE_ARCHITECTURES)
def test_a_training_starts_from_what_its_reader_says_of_windows(architecture, monkeypatch):
    monkeypatch.setattr(RegionUNet, "forward", ResidualUNet.forward)  # the first reading
    reader = build_network(READERS[architecture], 3, seed=5).eval()
    dense = build_network(architecture, 3, seed=0)
    load_initial_weights(dense, reader.state_dict())
    dense.eval()
    x = noise(4, 128, 128)
    expected, found = read_patches(reader, x.numpy()), read_patches(dense, x.numpy())
    for i in (0, 2):
        np.testing.assert_allclose(found[i], expected[i], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=0.1)  # a plane may be tilted


def test_a_reader_that_was_given_is_frozen_and_another_learns():
    given, fresh = (build_network("unet", 3, seed=0) for _ in range(2))
    load_initial_weights(given, build_network("compact", 3, seed=5).state_dict())
    for network, moves in ((given, False), (fresh, True)):
        network.train()
        before = {k: v.clone() for k, v in network.backbone.windows.state_dict().items()}
        with torch.no_grad():
            network.backbone.fc.weight.fill_(0.1)
        network(noise(2, 192, 192)).square().sum().backward()
        learns = [p.grad is not None and bool(p.grad.abs().sum() > 0)
                  for p in network.backbone.windows.parameters()]  # fmt: skip
        assert any(learns) == moves and all(
            p.grad is not None for p in network.backbone.fc.parameters()
        )
        after = network.backbone.windows.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) != moves  # batch statistics


def test_weights_of_another_family_are_no_reader():
    with pytest.raises(ValueError, match="do not fit the architecture"):
        load_initial_weights(build_network("unet", 3), build_network("compact", 4).state_dict())


def test_what_pads_odd_sizes_is_not_read(network):
    """The last windows end at the border of the image, not of what it is padded to."""
    x = noise(1, 201, 171)
    seen = []
    handle = network.backbone.windows.register_forward_hook(lambda *parts: seen.append(parts[1]))
    with torch.inference_mode():
        network(x)
    handle.remove()
    images, cells = seen[0]
    assert tuple(images.shape) == (1, 1, 201, 171)
    assert all(
        n * network.backbone.windows.cell >= m for n, m in zip(cells, (201, 171), strict=True)
    )


def test_large_offsets_do_not_round_texture_away(network):
    image = noise(96, 96).double().numpy()
    for ours, expected in zip(
        read_image(network, image + 1e6), read_image(network, image), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-2)


def test_loss_of_maps_is_that_of_their_pixels():
    outputs, targets = noise(2, 7, 4, 5), noise(2, 4, 5, 3, seed=1)
    targets[0, 1, 2] = torch.nan
    loss = PSFLoss()
    flat = loss(outputs.movedim(1, -1).reshape(-1, 7), targets.reshape(-1, 3))
    torch.testing.assert_close(loss(outputs, targets), flat)
    everywhere = targets[:, 3, 3]
    spread = everywhere[:, None, None].expand(-1, 4, 5, -1)
    torch.testing.assert_close(loss(outputs, everywhere), loss(outputs, spread))


def test_sampling_of_a_grid():
    values = np.arange(12.0).reshape(3, 4)
    places = ([0, 10, 20], [5, 6, 7, 8])
    np.testing.assert_allclose(sample_grid(values, places, places), values)
    np.testing.assert_allclose(sample_grid(values, places, ([5], [6.5, 99])), [[3.5, 5.0]])
    np.testing.assert_allclose(
        sample_grid(np.stack([values, -values], -1), places, ([0], [5.25])), [[[0.25, -0.25]]]
    )
