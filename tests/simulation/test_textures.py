import numpy as np
import pytest

from sklearn_psf.simulation import TEXTURE_KINDS, make_textures, textures
from sklearn_psf.simulation.sources import find_binning


@pytest.mark.parametrize("kind", [*TEXTURE_KINDS, "mix"])
@pytest.mark.parametrize("size", [16, (48, 130)])
def test_shape_range_and_texture(kind, size):
    X = make_textures(6, size=size, kind=kind, random_state=0)
    assert X.shape == (6, *((size, size) if size == 16 else size)) and X.dtype == np.float32
    assert np.isfinite(X).all() and X.min() >= 0
    np.testing.assert_allclose(X.max((1, 2)), 1, rtol=1e-6)
    assert (X.std((1, 2)) > 0).all()


@pytest.mark.parametrize("kind", TEXTURE_KINDS)
def test_textures_are_sharp_at_the_pixel(kind):
    X = make_textures(5, size=256, kind=kind, random_state=3)
    assert [find_binning(x, min_size=64) for x in X] == [1] * 5


@pytest.mark.parametrize("kind", TEXTURE_KINDS)
def test_images_of_a_kind_differ_in_background_and_contrast(kind):
    X = make_textures(12, size=64, kind=kind, random_state=0)
    assert np.ptp(np.median(X, axis=(1, 2))) > 0.2
    assert np.ptp(X.std((1, 2))) > 0.02


def test_same_seed_same_images_whatever_their_number():
    first = make_textures(4, size=32, random_state=5)
    np.testing.assert_array_equal(first, make_textures(4, size=32, random_state=5))
    np.testing.assert_array_equal(first[:2], make_textures(2, size=32, random_state=5))
    same = make_textures(4, size=32, random_state=np.random.RandomState(5))
    np.testing.assert_array_equal(first, same)
    assert (first != make_textures(4, size=32, random_state=6)).any()
    assert len({image.tobytes() for image in first}) == 4


def test_a_mix_holds_every_kind(monkeypatch):
    drawn = []

    def record(name, draw):
        return lambda shape, rng: drawn.append(name) or draw(shape, rng)

    recorders = {name: record(name, draw) for name, draw in textures._DRAW.items()}
    monkeypatch.setattr(textures, "_DRAW", recorders)
    make_textures(40, size=16, kind="mix", random_state=0)
    assert set(drawn) == set(TEXTURE_KINDS) and len(drawn) == 40


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be"),
        ({"n": 1.5}, TypeError, "n must be"),
        ({"n": 1, "size": 8}, ValueError, "size must be"),
        ({"n": 1, "size": (32, 32, 32)}, ValueError, "size must be"),
        ({"n": 1, "size": 32.0}, TypeError, "size must be"),
        ({"n": 1, "kind": "clouds"}, ValueError, "kind must be one of 'mix', 'points'"),
        ({"n": 1, "random_state": "x"}, ValueError, "seed"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        make_textures(**arguments)
