import numpy as np
import pytest
import tifffile
from skimage.data import immunohistochemistry

from sklearn_psf.io import read_images


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("restoration/plot_blind_restoration.py")


def test_simulated_sample(example, tmp_path, capsys):
    example.main(["--size", "192", "--output", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    for name in ("blurred", "restored, blind", "restored, true PSFs", "of the gain"):
        assert name in printed
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["blind_restoration.png"]


@pytest.mark.parametrize(("kind", "n"), [("uint8 RGB", 1), ("uint16 grey", 3)])
def test_own_file(example, tmp_path, capsys, kind, n):
    colour = immunohistochemistry()[200:333, 100:260]
    if kind == "uint8 RGB":
        tifffile.imwrite(tmp_path / "my.tif", colour, photometric="rgb")
    else:
        stack = np.repeat(colour[None, ..., 1].astype("uint16") * 100, n, axis=0)
        tifffile.imwrite(tmp_path / "my.tif", stack, photometric="minisblack")
    example.main(["--image", str(tmp_path / "my.tif"), "--output", str(tmp_path)])
    assert ("holds 3 images" in capsys.readouterr().out) == (n == 3)
    restored, _ = read_images(tmp_path / "my_restored.ome.tif")
    assert restored.shape == (1, 133, 160) and np.isfinite(restored).all()
    original, _ = read_images(tmp_path / "my.tif")
    assert restored.mean() == pytest.approx(original.mean(), rel=0.1)  # units of the input
    assert (tmp_path / "my_restored.png").stat().st_size > 10_000


def test_names_that_are_taken_are_counted(example, tmp_path):
    assert example.free_path(tmp_path, "a", ".png").name == "a.png"
    (tmp_path / "a.png").touch()
    (tmp_path / "a_1.png").touch()
    assert example.free_path(tmp_path, "a", ".png").name == "a_2.png"


@pytest.mark.parametrize("shape", [(60, 60), None])
def test_what_cannot_be_restored_is_said_in_a_sentence(example, tmp_path, shape):
    path = tmp_path / "my.tif"
    if shape is not None:
        tifffile.imwrite(path, np.ones(shape, "uint8"), photometric="minisblack")
    with pytest.raises(SystemExit, match=r"my\.tif cannot be restored: .*(60|not a file)"):
        example.main(["--image", str(path), "--output", str(tmp_path)])
    assert not list(tmp_path.glob("*restored*"))
