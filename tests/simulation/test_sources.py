import socket

import numpy as np
import pytest
import skimage.data
import tifffile
from scipy.ndimage import gaussian_filter, zoom
from skimage import io as skimage_io

from sklearn_psf.simulation import (
    SKIMAGE_IMAGES,
    bin_to_pixel_limit,
    find_binning,
    load_folder,
    load_skimage,
    make_textures,
)


def test_bundled_images_load_without_a_network(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    images = load_skimage()
    assert set(images) <= set(SKIMAGE_IMAGES) and len(images) >= 10
    for image in images.values():
        assert image.ndim == 2 and image.dtype == np.float32 and min(image.shape) >= 256
        assert image.min() >= 0 and 0.3 < image.max() <= 1 and image.std() > 0.02


def test_bundled_images_are_those_of_scikit_image():
    images = load_skimage(["camera", "immunohistochemistry"])
    assert list(images) == ["camera", "immunohistochemistry"]
    np.testing.assert_allclose(images["camera"] * 255, skimage.data.camera(), atol=1e-4)
    colour = skimage.data.immunohistochemistry() / 255
    expected = colour @ [0.2126, 0.7152, 0.0722]
    np.testing.assert_allclose(images["immunohistochemistry"], expected, atol=1e-5)


@pytest.mark.parametrize("names", [["lena"], "camera"])
def test_unknown_names(names):
    with pytest.raises(ValueError, match="names must be"):
        load_skimage(names)


def test_an_image_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(SKIMAGE_IMAGES, "lost", "lost.png")
    with pytest.raises(FileNotFoundError, match="does not hold 'lost'"):
        load_skimage(["lost"])
    assert "lost" not in load_skimage()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    (tmp_path / "sub").mkdir()
    skimage_io.imsave(tmp_path / "grey.png", grey, check_contrast=False)
    colour = np.stack([grey, 0 * grey, 0 * grey], -1)
    skimage_io.imsave(tmp_path / "colour.PNG", colour, check_contrast=False)
    tifffile.imwrite(tmp_path / "sub" / "deep.tif", grey.astype(np.uint16) * 257)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([grey, 255 - grey]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "signed.tif", grey.astype(np.int16) - 100)
    tifffile.imwrite(tmp_path / "unit.tif", (grey / 510).astype(np.float32))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path, grey / np.float32(255)


def test_a_folder_of_mixed_files(folder):
    path, grey = folder
    images = load_folder(path)
    names = ["colour.PNG", "grey.png", "signed.tif", "stack.tif[0]", "stack.tif[1]"]
    assert list(images) == [*names, "sub/deep.tif", "unit.tif"]
    assert all(image.dtype == np.float32 and image.ndim == 2 for image in images.values())
    span = (grey - grey.min()) / np.ptp(grey)
    for name, expected in {
        "grey.png": grey,
        "colour.PNG": 0.2126 * grey,
        "sub/deep.tif": grey,
        "stack.tif[1]": 1 - grey,
        "signed.tif": span,
        "unit.tif": grey / 2,
    }.items():
        np.testing.assert_allclose(images[name], expected, atol=1e-5, err_msg=name)


def test_a_pattern_chooses(folder):
    assert list(load_folder(folder[0], pattern="*.png")) == ["grey.png"]
    assert list(load_folder(str(folder[0]), pattern="sub/*")) == ["sub/deep.tif"]


def test_alpha_is_dropped(tmp_path):
    rgba = np.full((20, 30, 4), 200, np.uint8)
    rgba[..., 3] = 10
    skimage_io.imsave(tmp_path / "a.png", rgba, check_contrast=False)
    np.testing.assert_allclose(load_folder(tmp_path)["a.png"], 200 / 255, rtol=1e-5)


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no image"):
        load_folder(tmp_path)
    with pytest.raises(TypeError, match="path must be"):
        load_folder(3)


@pytest.mark.parametrize("content", ["text", "nan", "complex"])
def test_a_bad_file_is_named(tmp_path, content):
    file = tmp_path / "bad.tif"
    if content == "text":
        file.write_text("not an image")
    elif content == "nan":
        tifffile.imwrite(file, np.full((8, 8), np.nan, np.float32))
    else:
        tifffile.imwrite(file, np.ones((8, 8), np.complex64))
    with pytest.raises(ValueError, match=r"bad\.tif"):
        load_folder(tmp_path)


# The criterion allows a Gaussian of about 0.6 pixels, after binning.
@pytest.mark.parametrize(("sigma", "factors"), [(0, {1}), (1, {2, 3}), (2, {3, 4})])
@pytest.mark.parametrize("kind", ["cells", "filaments", "dead-leaves", "fractal"])
@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_binning_undoes_a_known_blur(kind, sigma, factors, noise):
    rng = np.random.default_rng(0)
    for sharp in make_textures(2, size=400, kind=kind, random_state=1):
        image = (gaussian_filter(sharp, sigma) if sigma else sharp).astype(float)
        image += noise * rng.standard_normal(image.shape)
        assert find_binning(image, min_size=64) in factors


def test_interpolated_images_are_binned():
    sharp = make_textures(1, size=200, kind="dead-leaves", random_state=0)[0]
    assert find_binning(zoom(sharp, 2, order=1), min_size=64) in (2, 3)


def test_binning_averages_blocks():
    sharp = np.random.default_rng(0).uniform(size=(299, 303))
    image = gaussian_filter(sharp, 1)
    binned = bin_to_pixel_limit(image)
    assert binned.shape == (149, 151) and binned.dtype == np.float32
    assert binned[3, 5] == pytest.approx(image[6:8, 10:12].mean(), rel=1e-5)
    same = bin_to_pixel_limit(sharp)
    np.testing.assert_array_equal(same, sharp.astype(np.float32))


@pytest.mark.parametrize(
    ("size", "min_size", "max_factor", "limit"),
    [(300, 128, 4, 2), (255, 128, 4, 1), (60, 128, 4, 1), (300, 20, 3, 3), (300, 20, 1, 1)],
)
def test_binning_has_limits(size, min_size, max_factor, limit):
    image = gaussian_filter(np.random.default_rng(0).uniform(size=(size, size + 7)), 5)
    assert find_binning(image, max_factor, min_size) == limit
    result = bin_to_pixel_limit(image, max_factor, min_size)
    assert result.shape == (size // limit, (size + 7) // limit)


@pytest.mark.parametrize("image", [np.zeros((300, 300)), np.full((300, 300), 7, np.uint16)])
def test_a_constant_image_is_left_alone(image):
    np.testing.assert_array_equal(bin_to_pixel_limit(image), image)


@pytest.mark.parametrize("read", [find_binning, bin_to_pixel_limit])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones((3, 300, 300)),), ValueError, "image"),
        ((np.full((300, 300), np.nan),), ValueError, "NaN"),
        ((np.ones((300, 300)), 0), ValueError, "max_factor"),
        ((np.ones((300, 300)), 2.5), TypeError, "max_factor"),
        ((np.ones((300, 300)), 4, 0), ValueError, "min_size"),
    ],
)
def test_bad_arguments(read, arguments, error, message):
    with pytest.raises(error, match=message):
        read(*arguments)
