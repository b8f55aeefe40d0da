import numpy as np
import pytest
from skimage.data import immunohistochemistry
from skimage.io import imsave

from sklearn_psf.simulation import make_tilted_scene


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("restoration/plot_real_defocus.py")


def test_micrograph(example, tmp_path, capsys):
    example.main(["--size", "160", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    for answer in ("from the photograph", "Blurred again", "held out", "the restored image: focus"):
        assert answer in printed
    assert (tmp_path / "real_defocus.png").stat().st_size > 10_000


def test_pair(example, tmp_path, capsys):
    image = immunohistochemistry()[200:360, 200:360, 1].astype(float)
    blurred, sharp, _ = make_tilted_scene(image, psf_model="zernike-1", low=0.4, high=0.5)
    paths = [tmp_path / "blurred.png", tmp_path / "sharp.png"]
    for path, picture in zip(paths, (blurred, sharp), strict=True):
        imsave(path, (100 * picture + 50).astype(np.uint16), check_contrast=False)
    example.main(["--pair", *map(str, paths), "--output", str(tmp_path)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    before, after = (
        next(float(row[-2]) for row in rows if row[:1] == [word]) for word in ("out", "restored")
    )
    assert after > before


def test_blurring_again_keeps_a_constant(example):
    X = np.full((1, 160, 160), 7.0, np.float32)
    X[0, 60:100, 60:100] += np.random.RandomState(0).rand(40, 40).astype(np.float32)
    maps, restored, _ = example.restore(X)
    np.testing.assert_allclose(example.blur_again(maps, X[0])[:8, :8], 7, rtol=0.01)
