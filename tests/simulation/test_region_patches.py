"""Tests of the stream of patches with two regions."""

import numpy as np
import pytest
import torch

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import RegionPatchStream, make_textures

SHARP = np.random.RandomState(0).rand(2, 260, 260)
OPTIONS = {"patch_size": 64, "batch_size": 48, "pool_size": 33, "random_state": 3}
PLAIN = {"aside": 0.0, "cut": 0.0, "varying": 0.0, "continued": 0.0, "textureless": 0.0}
CAMERA = Camera(peak_photons=1e5, read_noise=1.0)


def stream(family="gaussian-1", **options):
    return RegionPatchStream(SHARP, psf_model=make_psf_model(family), **(OPTIONS | options))


@pytest.fixture
def plain(monkeypatch):
    for name, value in PLAIN.items():
        monkeypatch.setattr(RegionPatchStream, name, value)
    return monkeypatch


def test_shapes_and_seed():
    first, again, other = (stream(random_state=seed).draw() for seed in (0, 0, 1))
    assert first[0].shape == (48, 4, 64, 64) and first[1].shape == (48, 2, 1)
    torch.testing.assert_close(first, again, equal_nan=True)
    assert not torch.allclose(first[0], other[0])
    assert torch.isfinite(first[0]).all()


def test_parts_that_are_not_there_have_no_parameters(plain):
    plain.setattr(RegionPatchStream, "whole", 1.0)
    X, y = stream(camera=CAMERA).draw()
    assert (X[:, 1] == 0).all() and torch.isnan(y[:, 1]).all()
    assert torch.isfinite(y[:, 0]).all()
    plain.setattr(RegionPatchStream, "whole", 0.0)
    X, y = stream(camera=CAMERA).draw()
    there = X[:, :2].flatten(2).any(-1)
    assert there.float().mean() > 0.7
    assert torch.isnan(y[~there]).all() and torch.isfinite(y[there]).float().mean() > 0.95


def test_each_part_has_the_blur_that_is_said(plain):
    """As a network reads it that has never seen a mask."""
    plain.setattr(RegionPatchStream, "whole", 0.0)
    reader = PSFParameterRegressor(pretrained="gaussian-1").fit(SHARP)
    images = make_textures(12, size=300, random_state=0)
    options = OPTIONS | {"patch_size": 128, "batch_size": 64, "pool_size": 99, "camera": CAMERA}
    draws = RegionPatchStream(images, psf_model=make_psf_model("gaussian-1"), **options)
    X, y = (torch.cat(part).numpy() for part in zip(draws.draw(), draws.draw(), strict=True))
    known = ~np.isnan(y[..., 0]).any(1)
    for k in range(2):
        width = reader.predict(X[known, k])[:, 0]
        own, other = (np.corrcoef(width, y[known, j, 0])[0, 1] for j in (k, 1 - k))
        assert own > 0.5 and own > other + 0.2


def test_a_blur_that_varies_has_its_mean(plain):
    plain.setattr(RegionPatchStream, "whole", 1.0)
    plain.setattr(RegionPatchStream, "varying", 1.0)
    model = make_psf_model("gaussian-1")
    own = stream(camera=CAMERA)
    _, y = own.draw()
    paths = own._parameters.reshape(-1, 3)
    assert paths.diff(dim=1).abs().max() > 0.3
    low, high = paths.min(1).values, paths.max(1).values
    inside = ((y[:, 0] >= low - 1e-3) & (y[:, 0] <= high + 1e-3)).any(1)
    assert inside.all()
    ends = (y[:, 0] - own._parameters.reshape(1, -1)).abs().min(1).values
    assert (ends > 1e-3).float().mean() > 0.5  # between the PSFs of its path
    assert (y[:, 0] >= model.bounds[0, 0]).all()


def test_parts_are_cut_where_an_image_ends(plain):
    plain.setattr(RegionPatchStream, "whole", 1.0)
    plain.setattr(RegionPatchStream, "cut", 1.0)
    X, _ = stream(camera=CAMERA).draw()
    short = (X[:, 0, -1] == 0).all(-1) | (X[:, 0, :, -1] == 0).all(-1)
    assert 0.7 < short.float().mean() <= 1
    assert (X[:, 0, 0] != 0).any(-1).all()
