"""Tests of the stream of moving scenes: geometry, truth, seeds, texture."""

import numpy as np
import pytest
import torch

from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import MotionStream, make_textures

FAMILY = make_psf_model("motion", size=31)
BRIGHT = Camera(peak_photons=1e6, read_noise=0.0)


@pytest.fixture(scope="module")
def sharp():
    return make_textures(3, size=220, random_state=0)


def stream(images, **options):
    options = {"psf_model": FAMILY, "image_size": 64, "batch_size": 4, "pool_size": 3} | options
    return MotionStream(images, random_state=options.pop("random_state", 0), **options)


def test_shapes_bounds_and_seeds(sharp):
    X, y = stream(sharp).draw()
    assert X.shape == (4, 64, 64) and y.shape == (4, 4, 16, 16)
    assert stream(sharp, label_stride=1).draw()[1].shape == (4, 4, 64, 64)
    valid = y.movedim(1, -1)[~torch.isnan(y).any(1)]
    assert (valid[:, 2:] >= 0).all() and (valid[:, 2:] <= 1).all()
    assert (valid[:, :2].abs() <= 20).all()
    again, other = stream(sharp).draw(), stream(sharp, random_state=1).draw()
    torch.testing.assert_close(again[0], X)
    assert not torch.allclose(other[0], X)
    source = stream(sharp)
    source.draw()
    assert not torch.allclose(source.draw()[0], X)


def test_paths_are_renewed(sharp):
    source = stream(sharp, batch_size=16)
    before = source._paths.clone()
    source.draw()
    assert (source._paths != before).flatten(1).any(1).sum() == 1


def test_scenes_are_blurred_by_the_motion_that_they_state(sharp, monkeypatch):
    """One region at one place of a path: the image is a plain convolution with that PSF."""
    source = stream(sharp, image_size=64, pool_size=1)
    ends = np.array([[3.0, -9.0, 0.2, 0.1], [-5.0, 4.0, 0.6, 0.4]])
    t = np.linspace(0, 1, source.nodes)[:, None]
    monkeypatch.setattr(source, "_path", lambda: ends[0] + t * (ends[1] - ends[0]))
    source._renew()
    psfs = source._psfs[0].numpy()
    monkeypatch.setattr(source, "_regions", lambda n: torch.zeros(source.size, source.size))
    monkeypatch.setattr(source, "_places", lambda: torch.full((source.size, source.size), 2.5))
    monkeypatch.setattr(source, "_turn", lambda *parts: parts)
    point = torch.zeros(source.size, source.size)
    middle = source.size // 2
    point[middle, middle] = 1
    monkeypatch.setattr(source, "field", lambda: point)
    place, blurred, motion = set(), None, None
    while len(place) < 2:  # both a region that moves as a whole and one along its path
        blurred, _, motion = source._scene()
        k = float((motion[1, 0, 0] + 9) / 13 * 7)
        place.add(round(k, 3) == 2.5)
        start = (source.size - 64) // 2
        spot = blurred[middle - start - 15 : middle - start + 16, middle - start - 15 :][:, :31]
        lower = min(int(k + 1e-3), source.nodes - 2)
        expected = psfs[lower] + (k - lower) * (psfs[lower + 1] - psfs[lower])
        np.testing.assert_allclose(spot.numpy(), expected, atol=2e-3 * expected.max())


def test_turning_turns_the_motion_too(sharp):
    """An arrow drawn along the motion lies along the motion after every turn."""
    source = stream(sharp)
    for _ in range(12):
        image = torch.zeros(64, 64)
        image[20, 10:31] = 1  # a line along x from (20, 10) to (20, 30)
        image[20, 30] = 2  # its head
        motion = torch.zeros(4, 64, 64)
        motion[1] = 20
        turned, _, motion = source._turn(image, image, motion)
        head = torch.nonzero(turned == 2)[0]
        line = torch.nonzero(turned).float()
        tail = line[(line - head).norm(dim=1).argmax()]
        torch.testing.assert_close(motion[:2, 0, 0], head - tail)


def test_dark_regions_are_invalid():
    half = np.zeros((300, 300), np.float32)
    half[:, 150:] = np.random.RandomState(0).rand(300, 150)
    source = stream([half], batch_size=8, camera=BRIGHT, image_size=128)
    _, y = source.draw()
    assert 0.05 < torch.isnan(y).any(1).float().mean() < 0.9
    flat = stream([np.full((200, 200), 3.0)], camera=BRIGHT, batch_size=16)
    # all but the borders between bright and dark regions
    assert torch.isnan(flat.draw()[1]).float().mean() > 0.5
