"""Tests of the reader of parts of patches: what it sees, how that turns, what it is blind to."""

import pytest
import torch

from sklearn_psf.networks import build_network
from sklearn_psf.networks.odd_spectra import ODD_CHANNELS
from sklearn_psf.networks.polar_reader import PolarReader, hide_pixels, see_both, turn_seen
from sklearn_psf.networks.spectra import RINGS, SECTORS, normalize_parts
from sklearn_psf.operators import keep_apart

N_SPECTRA = (2 * RINGS + ODD_CHANNELS) * SECTORS


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    return PolarReader(13).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def parts():
    """Skewed texture, sampled as that of a microscope is, blurred along the rows at the left."""
    images = torch.nn.functional.avg_pool2d(noise(3, 130, 130).exp(), 3, 1)
    images[..., :64] = torch.nn.functional.avg_pool2d(images, (1, 9), 1, (0, 4))[..., :64]
    own = torch.zeros(3, 128, 128)
    own[..., :60] = 1
    rest = torch.zeros(3, 128, 128)
    rest[..., 68:] = 1
    return keep_apart(images, own, rest)


def test_both_parts_are_seen_as_one_after_the_other(reader, parts):
    seen, there = see_both(parts)
    assert there.all() and seen.shape[0] == 6
    each = [reader.see(normalize_parts(p)) for p in (parts, parts[:, [1, 0, 3, 2]])]
    # but for a few frequencies without any light, where the floor of the logarithm counts
    assert ((seen - torch.cat(each)).abs() < 2e-3).float().mean() > 0.999
    torch.testing.assert_close(reader(normalize_parts(parts)), reader.read_seen(each[0]))


def test_an_empty_part_is_not_there(reader, parts):
    alone = parts.clone()
    alone[1, 1] = 0
    seen, there = see_both(alone)
    assert there.tolist() == [True] * 4 + [False, True]
    single = reader.see(normalize_parts(alone[1:2]))
    assert ((seen[1:2] - single).abs() < 2e-3).float().mean() > 0.999
    other = reader.read_seen(see_both(parts)[0])
    assert not torch.allclose(reader.read_seen(seen)[1], other[1], atol=1e-3)


def test_brightness_does_not_matter(reader, parts):
    brighter = parts.clone()
    brighter[:, :2] *= 700
    seen, brighter = (see_both(part)[0] for part in (parts, brighter))
    torch.testing.assert_close(brighter, seen, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("quarters", "mirrored"), [(1, False), (2, False), (0, True), (3, True)])
def test_what_is_seen_turns_with_the_patch(reader, parts, quarters, mirrored):
    moved = parts.flip(-2) if mirrored else parts
    moved = torch.rot90(moved, -quarters, (-2, -1))  # from the column axis towards the row axis
    n = len(parts)
    seen, expected = (see_both(part)[0][:n, :N_SPECTRA] for part in (parts, moved))
    before = reader.see(normalize_parts(parts))
    steps = torch.full((n,), quarters * SECTORS // 2)
    turned = turn_seen(before, steps, torch.full((n,), mirrored))
    error = (turned[:, :N_SPECTRA] - expected).abs().mean()
    assert error < 2e-3 and error < 0.05 * (seen - expected).abs().mean()


@pytest.mark.parametrize(("quarters", "mirrored"), [(1, False), (2, False), (0, True), (3, True)])
def test_what_is_read_is_that_of_the_turned_patch(reader, parts, quarters, mirrored):
    """Pixels too: they are sampled in another frame instead of being turned."""
    moved = parts.flip(-2) if mirrored else parts
    moved = torch.rot90(moved, -quarters, (-2, -1))
    steps = torch.full((3,), quarters * SECTORS // 2)
    outputs, expected = (reader(normalize_parts(part)) for part in (parts, moved))
    seen = reader.see(normalize_parts(parts))
    turned = reader.read_seen(turn_seen(seen, steps, torch.full((3,), mirrored)))
    error = (turned - expected).abs().mean()
    assert error < 0.02 * expected.abs().mean()
    assert error < 0.2 * (outputs - expected).abs().mean()


def test_pixels_are_looked_at_in_the_frame_of_the_axis(reader, parts):
    """What stays does not change with the direction of the patch, seen at any angle."""
    frames = []
    handle = reader.pixels.register_forward_pre_hook(lambda _, inputs: frames.append(inputs[2]))
    seen = reader.see(normalize_parts(parts))
    for steps in (0, 5):
        turned = turn_seen(seen, torch.full((3,), steps), torch.zeros(3, dtype=torch.bool))
        reader.read_seen(turned)
    handle.remove()
    # An axis has no sense: frames are the same, or half a turn apart.
    agree = (frames[0] * frames[1]).sum((-2, -1)) / 2
    torch.testing.assert_close(agree.abs(), torch.ones(3), atol=1e-4, rtol=0)
    identity = frames[0] @ frames[0].mT
    torch.testing.assert_close(identity, torch.eye(2).expand(3, 2, 2), atol=1e-5, rtol=0)


def test_the_axis_is_that_of_spectra_alone(parts):
    """Hidden pixels add nothing, and the look at the axis is no batch of a training."""
    torch.manual_seed(0)
    reader = PolarReader(13).requires_grad_(False)
    seen = hide_pixels(reader.see(normalize_parts(parts)), torch.tensor([True, False, True]))
    inputs = []
    handle = reader.hidden.register_forward_pre_hook(lambda _, x: inputs.append(x[0][:, -256:]))
    reader.train().read_seen(seen)
    handle.remove()
    look, read = inputs
    assert not look.any() and read.any(1).tolist() == [False, True, False]
    assert reader.hidden.training and int(reader.hidden[1].num_batches_tracked) == 1


def test_turns_add_up(reader, parts):
    seen = reader.see(normalize_parts(parts))
    no, yes = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    steps = torch.tensor([3, 21, 30])
    there_and_back = turn_seen(turn_seen(seen, steps, no), -steps, no)
    torch.testing.assert_close(there_and_back, seen)
    torch.testing.assert_close(turn_seen(turn_seen(seen, steps, yes), steps, yes), seen)


def test_what_does_not_turn_stays_and_the_rest_turns(reader, parts):
    """Outputs of harmonics turn as vectors do, at once and at twice the angle."""
    network = PolarReader(13).eval().requires_grad_(False)
    network.load_state_dict(reader.state_dict())
    rows = {(0, 1): (0, 4 * 48, 6 * 48), (4, 5): (4 * 48, 2 * 48, 6 * 48 + 2)}
    network.fc.weight[[0, 1, 4, 5]] = 0
    for outputs, (start, count, told_by_pixels) in rows.items():
        network.fc.weight[outputs[0], start : start + count : 2] = 1
        network.fc.weight[outputs[1], start + 1 : start + count : 2] = 1
        network.fc.weight[list(outputs), told_by_pixels : told_by_pixels + 2] = torch.eye(2)
    seen = network.see(normalize_parts(parts))
    frames = []
    handle = network.pixels.register_forward_pre_hook(lambda _, inputs: frames.append(inputs[2]))
    before = network.read_seen(seen)
    handle.remove()
    # The angle of the axis must not leave the half plane: the frame would turn by half a turn.
    steps = torch.where(frames[0][:, 1, 0] > 0, -5, 5)
    after = network.read_seen(turn_seen(seen, steps, torch.zeros(3, dtype=torch.bool)))
    for outputs, speed in zip(rows, (2, 1), strict=True):
        angle = speed * steps * torch.pi / SECTORS
        x, y = (before[:, i] - network.fc.bias[i] for i in outputs)
        expected = torch.stack(
            [x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], 1
        )
        result = after[:, list(outputs)] - network.fc.bias[list(outputs)]
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-3)
    still = torch.tensor([6, 7, 9, 12])
    network.fc.weight[still, : 6 * 48 + 4] = 0
    turned = turn_seen(seen, steps, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(
        network.read_seen(turned)[:, still], network.read_seen(seen)[:, still], atol=1e-4, rtol=1e-3
    )


def test_networks_take_patches_parts_and_what_was_seen(parts):
    network = build_network("polar", 6, seed=0).eval()
    with torch.inference_mode():
        outputs = network(parts)
        seen = network.backbone.see(normalize_parts(parts))
        torch.testing.assert_close(network(seen), outputs)
        whole = network(parts[:, 0])
    assert outputs.shape == whole.shape == (3, 13)
    assert not torch.allclose(outputs, whole, atol=1e-3)


def test_a_patch_is_a_part_whose_mask_shows_all(reader, parts):
    whole = torch.cat([parts[:, :1], torch.zeros(3, 1, 128, 128), torch.ones(3, 2, 128, 128)], 1)
    patch, expected = (reader(normalize_parts(x)) for x in (parts[:, :1], whole))
    torch.testing.assert_close(patch, expected)
    masked = whole.clone()
    masked[:, 2] = parts[:, 2]
    assert not torch.allclose(reader(normalize_parts(masked)), expected)
