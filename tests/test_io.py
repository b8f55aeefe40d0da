import os
import warnings

import numpy as np
import pytest
import tifffile
from skimage import io as skimage_io

from sklearn_psf.io import read_images, write_images
from sklearn_psf.optics import Optics

RNG = np.random.default_rng(0)
OPTICS = Optics(na=0.75, wavelength=0.52, pixel_size=6.5, refractive_index=1.33, magnification=40)


def grey(shape, dtype="uint16"):
    return RNG.integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", ">u2"])
@pytest.mark.parametrize("shape", [(20, 31), (1, 20, 31), (5, 20, 31)])
def test_tiff_keeps_values_and_type(tmp_path, dtype, shape):
    image = grey(shape, dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    images, optics = read_images(tmp_path / "a.tif")
    assert images.dtype == np.dtype(dtype).newbyteorder("=") and optics is None
    np.testing.assert_array_equal(images, image.reshape(-1, 20, 31))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".TIF"])
def test_colour_becomes_luminance_in_units_of_the_file(tmp_path, suffix):
    image = grey((20, 31, 3), "uint8")
    path = tmp_path / f"a{suffix}"
    if suffix == ".TIF":
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        skimage_io.imsave(path, image, check_contrast=False)
    images, _ = read_images(str(path))
    assert images.shape == (1, 20, 31) and images.dtype == np.float32
    expected = image @ np.array([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(images[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(read_images(path, channel=1)[0][0], image[..., 1])


def test_alpha_is_dropped(tmp_path):
    image = grey((20, 31, 4), "uint8")
    skimage_io.imsave(tmp_path / "a.png", image, check_contrast=False)
    skimage_io.imsave(tmp_path / "b.png", image[..., :3], check_contrast=False)
    first, second = (read_images(tmp_path / name)[0] for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(first, second)


def test_jpeg_and_16_bit_png(tmp_path):
    skimage_io.imsave(tmp_path / "a.jpg", np.full((16, 24), 77, "uint8"), check_contrast=False)
    skimage_io.imsave(tmp_path / "b.png", np.full((16, 24), 40000, "uint16"), check_contrast=False)
    jpeg, png = read_images(tmp_path / "a.jpg")[0], read_images(tmp_path / "b.png")[0]
    assert jpeg.shape == png.shape == (1, 16, 24)
    assert jpeg.dtype == np.uint8 and abs(int(jpeg[0, 0, 0]) - 77) <= 2
    assert png.dtype == np.uint16 and png[0, 0, 0] == 40000


@pytest.mark.parametrize("imagej", [True, False])
def test_channels_have_to_be_chosen(tmp_path, imagej):
    path = tmp_path / ("a.tif" if imagej else "a.ome.tif")
    image = grey((2, 3, 20, 31))
    tifffile.imwrite(path, image, imagej=imagej, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match=r"3 channels.*channel=0 ... channel=2"):
        read_images(path)
    np.testing.assert_array_equal(read_images(path, channel=2)[0], image[:, 2])
    with pytest.raises(ValueError, match="channel must be below 3"):
        read_images(path, channel=3)


def test_times_and_planes_become_images(tmp_path):
    image = grey((2, 3, 20, 31))
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "TZYX"})
    np.testing.assert_array_equal(read_images(tmp_path / "a.tif")[0], image.reshape(6, 20, 31))


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", ["r.ome.tif", "r.TIFF"])
def test_written_images_come_back(tmp_path, n, name):
    image = RNG.normal(size=(n, 20, 31))
    image.setflags(write=False)
    write_images(tmp_path / name, image, OPTICS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, optics = read_images(tmp_path / name)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, image.astype(np.float32))
    assert (optics.na, optics.wavelength, optics.refractive_index) == (0.75, 0.52, 1.33)
    assert optics.object_pixel == pytest.approx(OPTICS.object_pixel, rel=1e-12)
    assert optics.cutoff == pytest.approx(OPTICS.cutoff, rel=1e-12)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_without_optics_none_comes_back(tmp_path):
    write_images(tmp_path / "a.tif", np.ones((1, 20, 31)))
    assert read_images(tmp_path / "a.tif")[1] is None


def ome(tmp_path, objective, settings="", pixels="", channels=""):
    xml = f"""<?xml version="1.0"?>
    <OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2013-06"><Instrument ID="I:0">
    {objective}</Instrument><Image ID="Image:0">{settings}<Pixels ID="Pixels:0"
    DimensionOrder="XYZCT" Type="uint16" SizeX="31" SizeY="20" SizeZ="1" SizeC="2" SizeT="1"
    {pixels}>{channels}<TiffData/></Pixels></Image></OME>"""
    path = tmp_path / "a.ome.tif"
    image = grey((2, 20, 31))
    tifffile.imwrite(path, image, description=xml.encode(), metadata=None, photometric="minisblack")
    return path


def channel(index, attributes):
    return f'<Channel ID="Channel:0:{index}" SamplesPerPixel="1" {attributes}/>'


BOTH = channel(0, 'EmissionWavelength="450"') + channel(
    1, 'EmissionWavelength="0.6" EmissionWavelengthUnit="&#181;m"'
)
OIL = '<Objective ID="O:1" LensNA="1.2" Immersion="Oil"/>'


def test_optics_follow_the_channel_and_the_units(tmp_path):
    other = '<Objective ID="O:0" LensNA="0.1"/>'
    pixels = 'PhysicalSizeX="90" PhysicalSizeXUnit="nm" PhysicalSizeY="0.09"'
    path = ome(tmp_path, other + OIL, '<ObjectiveSettings ID="O:1"/>', pixels, BOTH)
    first, second = (read_images(path, channel=i)[1] for i in (0, 1))
    assert (first.na, first.wavelength, first.pixel_size) == pytest.approx((1.2, 0.45, 0.09))
    assert second.wavelength == pytest.approx(0.6)
    assert first.refractive_index == 1.515


@pytest.mark.parametrize(
    "missing",
    [
        {"objective": ""},
        {"pixels": ""},
        {"pixels": 'PhysicalSizeX="1" PhysicalSizeXUnit="pixel"'},
        {"channels": channel(0, "") + channel(1, "")},
        {"objective": OIL + '<Objective ID="O:2" LensNA="0.3"/>'},
    ],
)
def test_incomplete_optics_are_none(tmp_path, missing):
    parts = {"objective": OIL, "pixels": 'PhysicalSizeX="0.09"', "channels": BOTH} | missing
    path = ome(tmp_path, parts["objective"], "", parts["pixels"], parts["channels"])
    assert read_images(path, channel=0)[1] is None


def test_impossible_optics_are_ignored_aloud(tmp_path):
    pixels = 'PhysicalSizeX="0.09" PhysicalSizeY="0.18"'
    path = ome(tmp_path, OIL, "", pixels, BOTH)
    with pytest.warns(UserWarning, match="not square"):
        assert read_images(path, channel=0)[1] is None


def test_second_series_is_not_dropped_in_silence(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(grey((20, 31)))
        tiff.write(grey((10, 12)))
    with pytest.warns(UserWarning, match="2 series"):
        assert read_images(tmp_path / "a.tif")[0].shape == (1, 20, 31)


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("a.czi", b"x", ValueError, "path must end in one of"),
        ("a.tif", b"no TIFF", ValueError, "cannot be read"),
        ("a.png", b"no PNG", ValueError, "cannot be read"),
        ("a.tif", None, FileNotFoundError, "is not a file"),
    ],
)
def test_unreadable_files(tmp_path, name, content, error, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=match):
        read_images(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "images", "optics", "error", "match"),
    [
        ("a.png", np.ones((1, 9, 9)), None, ValueError, "must end in .tif"),
        ("a.tif", np.ones((9, 9)), None, ValueError, "3D"),
        ("a.tif", np.full((1, 9, 9), np.nan), None, ValueError, "NaN"),
        ("a.tif", np.ones((1, 9, 9)), {"na": 1}, TypeError, "optics"),
        ("no/a.tif", np.ones((1, 9, 9)), None, FileNotFoundError, "folder"),
        (3, np.ones((1, 9, 9)), None, TypeError, "path must be"),
    ],
)
def test_nothing_is_written_of_bad_input(tmp_path, name, images, optics, error, match):
    path = tmp_path / name if isinstance(name, str) else name
    with pytest.raises(error, match=match):
        write_images(path, images, optics)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not overwritten"):
        write_images(tmp_path / "a.tif", np.ones((1, 9, 9)))
    assert (tmp_path / "a.tif").read_bytes() == b"precious"


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_images(tmp_path / "a.tif", np.ones((1, 9, 9)))
    assert os.listdir(tmp_path) == []
