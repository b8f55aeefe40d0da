import numpy as np
import pytest
import torch

from sklearn_psf.networks.modules import (
    ARCHITECTURES,
    PSFNetwork,
    build_network,
    load_initial_weights,
)


def batch_norm(name, n):
    shapes = {f"{name}.{key}": (n,) for key in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.num_batches_tracked": ()}


def published_shapes(bottleneck):
    """Names and shapes of torchvision's resnet34 and resnext50_32x4d, from the papers."""
    shapes = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    n_in = 64
    for stage, n_blocks in enumerate((3, 4, 6, 3), start=1):
        width = 64 * 2 ** (stage - 1)
        inner, n_out = (2 * width, 4 * width) if bottleneck else (width, width)
        for block in range(n_blocks):
            first = n_in if block == 0 else n_out
            if bottleneck:  # 32 groups: each filter sees inner / 32 channels
                convs = [(inner, first, 1, 1), (inner, inner // 32, 3, 3), (n_out, inner, 1, 1)]
            else:
                convs = [(n_out, first, 3, 3), (n_out, n_out, 3, 3)]
            at = f"layer{stage}.{block}"
            for i, shape in enumerate(convs, start=1):
                shapes[f"{at}.conv{i}.weight"] = shape
                shapes |= batch_norm(f"{at}.bn{i}", shape[0])
            if block == 0 and n_in != n_out:
                shapes[f"{at}.downsample.0.weight"] = (n_out, n_in, 1, 1)
                shapes |= batch_norm(f"{at}.downsample.1", n_out)
        n_in = n_out
    return shapes | {"fc.weight": (1000, n_in), "fc.bias": (1000,)}


def published_state(bottleneck, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes(bottleneck).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[name] = torch.randn(shape, generator=generator) / 30
    return state


@pytest.fixture(scope="module", params=["resnet34", "resnext50"])
def published(request):
    return request.param, published_state(request.param == "resnext50")


def test_published_parameter_counts():
    # 21 797 672 and 25 028 904 parameters on 1000 classes, as the papers' tables say (21.8e6, 25e6)
    for bottleneck, count in ((False, 21_797_672), (True, 25_028_904)):
        shapes = published_shapes(bottleneck)
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        assert count == sum(np.prod(s) for n, s in shapes.items() if not n.endswith(buffers))


def test_torchvision_weights_load_strictly(published):
    name, state = published
    network = build_network(name, 3, seed=0)
    head = network.backbone.fc.weight.detach().clone()
    load_initial_weights(network, state)
    own = network.backbone.state_dict()
    assert set(own) == set(state)
    for key, value in own.items():
        if key == "conv1.weight":
            assert value.shape == (64, 1, 7, 7)
        elif not key.startswith("fc."):
            assert torch.equal(value, state[key].to(value.dtype)), key
    assert torch.equal(own["fc.weight"], head)  # 1000 classes are no PSF parameters


def test_a_grey_image_is_three_equal_colours(published):
    name, state = published
    network = build_network(name, 3, seed=0)
    load_initial_weights(network, state)
    colour = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    colour.weight.data = state["conv1.weight"]
    grey = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = colour(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(network.backbone.conv1(grey), expected, rtol=1e-4, atol=1e-5)


def test_arrays_and_whole_networks_are_weights_too(published):
    name, state = published
    arrays = {key: value.numpy() for key, value in state.items() if not key.startswith("fc.")}
    network = build_network(name, 3, seed=0)
    load_initial_weights(network, arrays)
    again = build_network(name, 3, seed=1)
    load_initial_weights(again, network.state_dict())
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, again.backbone.state_dict()[key]), key


def drop(state):
    return {k: v for k, v in state.items() if k != "layer3.2.bn1.running_mean"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop, "layer3.2.bn1.running_mean"),
        (lambda s: s | {"layer5.0.conv1.weight": torch.zeros(1)}, "layer5.0.conv1.weight"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, "conv1.weight"),
        (lambda s: {}, "bn1.weight"),
    ],
)
def test_other_weights_are_refused(published, change, match):
    name, state = published
    with pytest.raises(ValueError, match=f"(?s)initial_weights do not fit.*{match}"):
        load_initial_weights(build_network(name, 3, seed=0), change(state))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_outputs(name, size):
    network = build_network(name, 4, seed=0).eval()
    patches = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    network.target_mean += 2.0
    network.target_scale *= 0.1
    with torch.inference_mode():
        raw = network(patches)
        encoding, variance, invalid = network.read(patches)
    assert raw.shape == (3, 9) and raw.dtype == torch.float32
    torch.testing.assert_close(encoding, raw[:, :4] * 0.1 + 2)
    torch.testing.assert_close(variance, raw[:, 4:8].exp() * 0.01)
    torch.testing.assert_close(invalid, raw[:, 8].sigmoid())
    patches[1] = 0.3
    with torch.inference_mode():
        assert network.read(patches)[2][1] == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_is_trained(name):
    network = build_network(name, 2, seed=0).train()
    patches = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
    network(patches).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_state_round_trip_and_seed():
    before = torch.get_rng_state()
    network = build_network("compact", 2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    again = build_network("compact", 2, state, seed=9)
    assert not again.training
    other = build_network("compact", 2, seed=4)
    assert not torch.equal(network.backbone.fc.weight, other.backbone.fc.weight)
    for key, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])
        assert value.data_ptr() != network.state_dict()[key].data_ptr()


def test_errors_of_build_network():
    with pytest.raises(ValueError, match="architecture must be one of compact, .*got 'vgg'"):
        build_network("vgg", 2)
    state = {k: v.numpy() for k, v in build_network("compact", 2).state_dict().items()}
    with pytest.raises(ValueError, match="weights do not fit architecture 'compact'"):
        build_network("compact", 3, state)


def test_mixed_precision_is_for_training_alone():
    network = PSFNetwork("compact", 2, mixed_precision=True)
    patches = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = PSFNetwork("compact", 2)
    exact.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert not torch.equal(network.train()(patches), exact.train()(patches))
        exact.load_state_dict(network.state_dict())
        assert torch.equal(network.eval()(patches), exact.eval()(patches))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_reach_the_patches_after_a_prediction(name):
    # the wavefront of a scene may be fitted through a network that has predicted before
    network = build_network(name, 1, seed=0).eval()
    patches = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        network.read(patches)
    patches.requires_grad_(True)
    network(patches).sum().backward()
    assert torch.isfinite(patches.grad).all() and patches.grad.any()
