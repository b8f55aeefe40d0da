"""Tests of the stream of images with a smoothly varying blur."""

import numpy as np
import pytest
import torch

from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import VaryingBlurStream, make_textures

FAMILY = make_psf_model("zernike-3", size=63)


@pytest.fixture(scope="module")
def sharp():
    return make_textures(3, size=220, random_state=0)


def stream(images, **options):
    options = {"psf_model": FAMILY, "image_size": 64, "batch_size": 4, "pool_size": 3} | options
    return VaryingBlurStream(images, random_state=options.pop("random_state", 0), **options)


def test_shapes_bounds_and_seeds(sharp):
    X, y = stream(sharp, label_stride=8).draw()
    assert X.shape == (4, 64, 64) and y.shape == (4, 3, 8, 8)
    valid = y.movedim(1, -1)[~torch.isnan(y).any(1)].numpy()
    assert len(valid)
    low, high = FAMILY.bounds.T
    assert (valid >= low - 1e-4).all() and (valid <= high + 1e-4).all()
    torch.testing.assert_close(stream(sharp).draw()[0], X)
    assert not torch.allclose(stream(sharp, random_state=1).draw()[0], X)


def test_parameters_change_smoothly_over_most_images(sharp):
    source = stream(sharp, batch_size=24, pool_size=24, camera=Camera(peak_photons=1e5))
    encoded = FAMILY.encode(source.draw()[1].movedim(1, -1).double())
    inside = encoded[~torch.isnan(encoded).flatten(1).any(1)].numpy()
    assert len(inside) > 6
    spread = np.ptp(inside, (1, 2)).max(1)
    assert 0.3 < (spread > 0.02).mean() < 1  # in others they are the same everywhere
    steps = np.abs(np.diff(inside, axis=1)).max((1, 2, 3))
    assert np.median(steps[spread > 0.02] / spread[spread > 0.02]) < 0.3


def test_images_are_blurred_by_the_psfs_that_are_stated(sharp, monkeypatch):
    """A point at one place of a path draws the PSF of the parameters that its pixel has."""
    source = stream(sharp, pool_size=1)
    monkeypatch.setattr(source, "_places", lambda: torch.full((source.size, source.size), 2.5))
    point, middle = torch.zeros(source.size, source.size), source.size // 2
    point[middle, middle] = 1
    monkeypatch.setattr(source, "field", lambda: point)
    for _ in range(6):
        blurred, _, parameters = source._scene()
        centre = tuple(int(i) for i in torch.nonzero(source._central(point))[0])
        stated = FAMILY.psf(parameters[:, centre[0], centre[1]].numpy()[np.newaxis])[0]
        spot = blurred[centre[0] - 15 : centre[0] + 16, centre[1] - 15 : centre[1] + 16].numpy()
        error = np.linalg.norm(spot - stated[16:47, 16:47]) / np.linalg.norm(stated)
        assert error < 0.1  # between two nodes PSFs are mixed
