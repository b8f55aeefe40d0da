"""Tests of the stream of masked patches."""

import numpy as np
import pytest
import torch

from sklearn_psf.optics import make_psf_model
from sklearn_psf.simulation import MaskedPatchStream, PatchStream

SHARP = np.random.RandomState(0).rand(2, 220, 220)
OPTIONS = {"patch_size": 64, "batch_size": 48, "pool_size": 32, "random_state": 3}


def stream(kind=MaskedPatchStream, **options):
    return kind(SHARP, psf_model=make_psf_model("gaussian-1"), **(OPTIONS | options))


def test_seeded():
    first, again, other = (stream(random_state=seed).draw()[0] for seed in (0, 0, 1))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("whole", [0.0, 0.3, 1.0])
def test_a_share_of_the_patches_stays_whole(whole, monkeypatch):
    monkeypatch.setattr(MaskedPatchStream, "whole", whole)
    ours, plain = stream(), stream(PatchStream)
    X, y = ours.draw()
    expected, same = plain.draw()
    assert torch.equal(torch.isnan(y), torch.isnan(same))
    valid = ~torch.isnan(y[:, 0])
    kept = (X == expected).flatten(1).all(1)
    assert kept[~valid].all()  # what has no texture is not given any
    assert abs(float(kept[valid].float().mean()) - whole) < 0.2


def test_masks_hide_a_part_and_leave_the_patch_itself(monkeypatch):
    monkeypatch.setattr(MaskedPatchStream, "whole", 0.0)
    monkeypatch.setattr(MaskedPatchStream, "aside", 0.0)
    X, y = stream().draw()
    plain = stream(PatchStream).draw()[0]
    masked = ~torch.isnan(y[:, 0])
    X, plain = X[masked], plain[masked]
    torch.testing.assert_close(X.mean((1, 2)), torch.zeros(len(X)), atol=1e-2, rtol=0)
    middle = slice(28, 36)
    strength, there = (part.diff(dim=1).abs() for part in (X, plain))
    alike = [
        np.corrcoef(a, b)[0, 1]
        for a, b in zip(
            X[:, middle, middle].flatten(1), plain[:, middle, middle].flatten(1), strict=True
        )
    ]
    assert np.median(alike) > 0.9
    hidden = (strength / there.mean((1, 2), keepdim=True) < 0.02).float().mean((1, 2))
    assert 0.05 < hidden.mean() < 0.7
