"""Tests of the reader of parts of patches: what it sees, how that turns, what it is blind to."""

import pytest
import torch

from sklearn_psf.networks import build_network
from sklearn_psf.networks.modules import load_initial_weights
from sklearn_psf.networks.polar_reader import PolarReader, see_both, turn_seen
from sklearn_psf.networks.spectra import SECTORS, normalize_parts
from sklearn_psf.operators import keep_apart

N_PIXELS = 128


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    return PolarReader(13).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def parts():
    """Skewed texture, blurred along the rows in its left half."""
    images = noise(3, 128, 128).exp()
    images[..., :64] = torch.nn.functional.avg_pool2d(images, (1, 9), 1, (0, 4))[..., :64]
    own = torch.zeros(3, 128, 128)
    own[..., :60] = 1
    rest = torch.zeros(3, 128, 128)
    rest[..., 68:] = 1
    return keep_apart(images, own, rest)


def test_both_parts_are_seen_as_one_after_the_other(reader, parts):
    seen, there = see_both(reader, parts)
    assert there.all() and seen.shape[0] == 6
    each = [reader.see(normalize_parts(p)) for p in (parts, parts.flip(1))]
    # but for a few frequencies without any light, where the floor of the logarithm counts
    assert ((seen - torch.cat(each)).abs() < 2e-3).float().mean() > 0.999
    torch.testing.assert_close(reader(normalize_parts(parts)), reader.read_seen(each[0]))


def test_an_empty_part_is_not_there(reader, parts):
    alone = parts.clone()
    alone[1, 1] = 0
    seen, there = see_both(reader, alone)
    assert there.tolist() == [True] * 4 + [False, True]
    single = reader.see(normalize_parts(alone[1:2, :1]))
    assert ((seen[1:2] - single).abs() < 2e-3).float().mean() > 0.999
    other = reader.read_seen(see_both(reader, parts)[0])
    assert not torch.allclose(reader.read_seen(seen)[1], other[1], atol=1e-3)


def test_brightness_does_not_matter(reader, parts):
    seen, brighter = (see_both(reader, factor * parts)[0] for factor in (1, 700))
    torch.testing.assert_close(brighter, seen, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("quarters", "mirrored"), [(1, False), (2, False), (0, True), (3, True)])
def test_what_is_seen_turns_with_the_patch(reader, parts, quarters, mirrored):
    moved = parts.flip(-2) if mirrored else parts
    moved = torch.rot90(moved, -quarters, (-2, -1))  # from the column axis towards the row axis
    n = len(parts)
    seen, expected = (see_both(reader, part)[0][:n, :-N_PIXELS] for part in (parts, moved))
    before = reader.see(normalize_parts(parts))
    steps = torch.full((n,), quarters * SECTORS // 2)
    turned = turn_seen(before, steps, torch.full((n,), mirrored))
    torch.testing.assert_close(turned[:, -N_PIXELS:], before[:, -N_PIXELS:])
    error = (turned[:, :-N_PIXELS] - expected).abs().mean()
    assert error < 2e-3 and error < 0.05 * (seen - expected).abs().mean()


def test_turns_add_up(reader, parts):
    seen = reader.see(normalize_parts(parts))
    no, yes = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    steps = torch.tensor([3, 21, 30])
    there_and_back = turn_seen(turn_seen(seen, steps, no), -steps, no)
    torch.testing.assert_close(there_and_back, seen)
    torch.testing.assert_close(turn_seen(turn_seen(seen, steps, yes), steps, yes), seen)


def test_what_does_not_turn_stays_and_the_rest_turns(reader, parts):
    """Outputs of harmonics turn as vectors do, at once and at twice the angle."""
    for outputs, k, speed in (((0, 1), 2, 2), ((4, 5), 1, 1)):
        network = PolarReader(13).eval().requires_grad_(False)
        network.load_state_dict(reader.state_dict())
        network.fc.weight.zero_()
        start, count = (0, 4 * 48) if k == 2 else (4 * 48, 2 * 48)
        network.fc.weight[outputs[0], start : start + count : 2] = 1
        network.fc.weight[outputs[1], start + 1 : start + count : 2] = 1
        seen = network.see(normalize_parts(parts))
        before = network.read_seen(seen)
        steps = torch.full((3,), 5)
        after = network.read_seen(turn_seen(seen, steps, torch.zeros(3, dtype=torch.bool)))
        angle = torch.tensor(speed * 5 * torch.pi / SECTORS)
        x, y = (before[:, i] - network.fc.bias[i] for i in outputs)
        expected = torch.stack(
            [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], 1
        )
        result = after[:, list(outputs)] - network.fc.bias[list(outputs)]
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(after[:, 8], before[:, 8])


def test_networks_take_patches_parts_and_what_was_seen(parts):
    network = build_network("polar", 6, seed=0).eval()
    with torch.inference_mode():
        outputs = network(parts)
        seen = network.backbone.see(normalize_parts(parts))
        torch.testing.assert_close(network(seen), outputs)
        whole = network(parts[:, 0])
    assert outputs.shape == whole.shape == (3, 13)
    assert not torch.allclose(outputs, whole, atol=1e-3)


def test_pixels_are_taken_from_another_reader():
    compact = build_network("compact-directed", 6, seed=1)
    polar = build_network("polar", 6, seed=2)
    before = polar.backbone.first.near.weight.clone()
    load_initial_weights(polar, compact.state_dict())
    for name, value in compact.backbone.patch.state_dict().items():
        assert torch.equal(polar.backbone.patch.state_dict()[name], value)
    assert torch.equal(polar.backbone.first.near.weight, before)
    again = build_network("polar", 6, seed=3)
    load_initial_weights(again, polar.state_dict())
    assert torch.equal(again.backbone.first.near.weight, before)
