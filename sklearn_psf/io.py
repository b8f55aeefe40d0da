"""Read images with what the file knows of the optics; write restored images back."""

import os
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import tifffile
from skimage import io as skimage_io

from ._files import check_new_file, write_atomically
from ._validation import check_images, check_number
from .optics import Optics

__all__ = ["read_images", "write_images"]

_TIFF = (".tif", ".tiff")
_OTHER = (".png", ".jpg", ".jpeg", ".bmp")
# Luminance of linear light, ITU-R BT.709
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
_MICROMETRES = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6}
_IMMERSION = {"Oil": 1.515, "Water": 1.333, "WaterDipping": 1.333, "Glycerol": 1.47}
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"


def read_images(path, channel=None):
    """Read a TIFF, OME-TIFF, ImageJ TIFF, PNG, JPEG or BMP file.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    channel : int or None
        Which channel to take; needed if there are several, other than red, green and blue.
        Colour without a choice becomes luminance, ``0.2126 R + 0.7152 G + 0.0722 B`` in float32
        in the units of the file; an alpha channel is dropped.

    Returns
    -------
    images : ndarray of shape (n, H, W)
        Grey values as stored, in the type of the file. Times and planes are images.
    optics : Optics or None
        From OME metadata, if numerical aperture, emission wavelength and pixel size are all there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the format is unknown, the file cannot be read, or `channel` is missing or wrong.

    Warns
    -----
    UserWarning
        If the file holds more than one series of images (the first is read), or optics that
        cannot be.

    References
    ----------
    ITU-R BT.709-6 for the luminance. I. G. Goldberg et al., "The Open Microscopy Environment
    (OME) data model and XML file", Genome Biol. 6 (2005).

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from sklearn_psf.optics import Optics
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "cells.ome.tif")
    ...     write_images(path, np.ones((2, 32, 48)), Optics(0.5, 0.52, 0.2))
    ...     images, optics = read_images(path)
    >>> images.shape, str(images.dtype), optics
    ((2, 32, 48), 'float32', Optics(na=0.5, wavelength=0.52, pixel_size=0.2, \
refractive_index=1.0, magnification=1.0))
    """
    path = _check_readable(path)
    if channel is not None:
        check_number("channel", channel, low=0, integer=True)
    try:
        if path.suffix.lower() in _TIFF:
            data, axes, colour, xml = _read_tiff(path)
        else:
            data, axes, colour, xml = _read_other(path)
    except (OSError, ValueError, KeyError, IndexError, SyntaxError, RuntimeError) as error:
        raise ValueError(f"path {str(path)!r} cannot be read as an image: {error}") from error
    data = _select(data, axes, colour, channel, path)
    return data, _optics_of(xml, channel or 0, path)


def write_images(path, images, optics=None):
    """Write images as an OME-TIFF in float32, which `read_images` and Fiji read back.

    Parameters
    ----------
    path : str or os.PathLike
        A new file ending in ``.tif`` or ``.tiff``; best ``.ome.tif``. It appears complete or
        not at all.
    images : array-like of shape (n, H, W)
        Any real dtype; written as a time series.
    optics : Optics or None
        Stored as object pixel size, numerical aperture, emission wavelength and refractive index
        (`read_images` returns them with magnification 1).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind; other formats would quantise or clip.
    FileExistsError
        If the file exists: nothing is overwritten.
    FileNotFoundError
        If the folder does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> write_images("restored.png", np.ones((1, 32, 48)))
    Traceback (most recent call last):
    ...
    ValueError: path must end in .tif or .tiff, got 'restored.png'.
    """
    path = check_new_file(path, suffixes=_TIFF)
    images = check_images(images, name="images")
    if optics is not None and not isinstance(optics, Optics):
        raise TypeError(f"optics must be an Optics or None, got {optics!r}.")
    xml = _ome_xml(images.shape, optics)
    with write_atomically(path) as temporary:
        tifffile.imwrite(
            temporary,
            shape=images.shape,
            dtype=np.float32,
            data=(np.asarray(image, dtype=np.float32) for image in images),
            photometric="minisblack",
            description=xml,
            metadata=None,
        )


def _check_readable(path):
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, got {path!r}.")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path {str(path)!r} is not a file.")
    if path.suffix.lower() not in _TIFF + _OTHER:
        known = ", ".join(_TIFF + _OTHER)
        raise ValueError(f"path must end in one of {known}; got {str(path)!r}.")
    return path


def _read_tiff(path):
    """Return pixels, their axes, whether S is colour, and the OME-XML or None."""
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.series) > 1:
            _warn(f"{path.name} holds {len(tiff.series)} series of images; the first is read.")
        series = tiff.series[0]
        photometric = series.keyframe.photometric
        colour = photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
        return series.asarray(), series.axes, colour, tiff.ome_metadata


def _read_other(path):
    data = skimage_io.imread(path)
    axes = "YX" if data.ndim == 2 else "YXS"
    if data.ndim == 3 and data.shape[2] == 2:  # grey and alpha
        data, axes = data[..., 0], "YX"
    return data, axes, True, None


def _select(data, axes, colour, channel, path):
    """Take the luminance or one channel, and make all that is left images."""
    source = "S" if "S" in axes else "C"
    n_channels = data.shape[axes.index(source)] if source in axes else 1
    if channel is not None and channel >= n_channels:
        raise ValueError(
            f"channel must be below {n_channels}, the channels of {path.name}; got {channel}."
        )
    if source in axes:
        data = np.moveaxis(data, axes.index(source), -1)
        axes = axes.replace(source, "")
        if channel is not None or n_channels == 1:
            data = data[..., channel or 0]
        elif source == "S" and colour and n_channels >= 3:
            data = data[..., :3].astype(np.float32) @ _LUMINANCE
        else:
            raise ValueError(
                f"{path.name} holds {n_channels} channels; choose one by "
                f"channel=0 ... channel={n_channels - 1}."
            )
    if "C" in axes and data.shape[axes.index("C")] > 1:  # several colour images per plane
        raise ValueError(f"{path.name} holds both channels and colour samples: convert it first.")
    if not {"Y", "X"} <= set(axes):
        raise ValueError(f"{path.name} holds no images: its axes are {axes!r}.")
    data = np.moveaxis(data, (axes.index("Y"), axes.index("X")), (-2, -1))
    return np.ascontiguousarray(data.reshape((-1, *data.shape[-2:])))


def _warn(message):
    warnings.warn(message, UserWarning, stacklevel=4)


def _elements(node, name):
    """Descendants by local name: the OME namespace changes with each release."""
    return [e for e in node.iter() if e.tag.rpartition("}")[2] == name]


def _length(element, key, default_unit):
    """Length attribute in micrometres; None if absent, or in no unit of length."""
    text = element.get(key)
    unit = element.get(key + "Unit", default_unit).replace("\u03bc", "\u00b5")
    if text is None or unit not in _MICROMETRES:
        return None
    return float(text) * _MICROMETRES[unit]


def _optics_of(xml, channel, path):
    """Optics of the first image of an OME-XML document, None where it does not say enough."""
    if xml is None:
        return None
    try:
        values = _ome_values(ET.fromstring(xml), channel)
        return None if None in values.values() else Optics(**values)
    except (ET.ParseError, ValueError, IndexError) as error:
        _warn(f"The optics in {path.name} are ignored: {error}")
        return None


def _ome_values(root, channel):
    image = _elements(root, "Image")[0]
    pixels = _elements(image, "Pixels")[0]
    channels = _elements(pixels, "Channel")
    settings = next(iter(_elements(image, "ObjectiveSettings")), None)
    wanted = None if settings is None else settings.get("ID")
    objectives = [o for o in _elements(root, "Objective") if wanted in (None, o.get("ID"))]
    # Without settings only a single objective is surely the one that took the image.
    objective = objectives[0] if len(objectives) == 1 else ET.Element("Objective")
    na = float(objective.get("LensNA", "nan"))
    index = None if settings is None else settings.get("RefractiveIndex")
    index = _IMMERSION.get(objective.get("Immersion"), 1.0) if index is None else float(index)
    width, height = (_length(pixels, "PhysicalSize" + axis, "µm") for axis in "XY")
    if width and height and abs(height / width - 1) > 0.01:
        raise ValueError(f"pixels are not square, {width:g} x {height:g} um.")
    light = channels[min(channel, len(channels) - 1)] if channels else ET.Element("Channel")
    return {
        "na": None if np.isnan(na) else na,
        "wavelength": _length(light, "EmissionWavelength", "nm"),
        "pixel_size": width,
        "refractive_index": index,
    }


def _ome_xml(shape, optics):
    """OME-XML of a time series; the schema fixes the order of the elements."""
    n, height, width = map(str, shape)
    root = ET.Element("OME", {"xmlns": _OME, "xmlns:xsi": _SCHEMA, "Creator": "sklearn_psf"})
    root.set("xsi:schemaLocation", f"{_OME} {_OME}/ome.xsd")
    if optics is not None:
        instrument = ET.SubElement(root, "Instrument", ID="Instrument:0")
        ET.SubElement(instrument, "Objective", ID="Objective:0", LensNA=_text(optics.na))
    image = ET.SubElement(root, "Image", ID="Image:0", Name="restored")
    if optics is not None:
        ET.SubElement(image, "InstrumentRef", ID="Instrument:0")
        index = _text(optics.refractive_index)
        ET.SubElement(image, "ObjectiveSettings", ID="Objective:0", RefractiveIndex=index)
    pixels = ET.SubElement(image, "Pixels", ID="Pixels:0", DimensionOrder="XYZCT", Type="float")
    sizes = {"SizeX": width, "SizeY": height, "SizeZ": "1", "SizeC": "1", "SizeT": n}
    channel = {"ID": "Channel:0:0", "SamplesPerPixel": "1"}
    if optics is not None:
        pitch = _text(optics.object_pixel)
        sizes |= {"PhysicalSizeX": pitch, "PhysicalSizeXUnit": "µm"}
        sizes |= {"PhysicalSizeY": pitch, "PhysicalSizeYUnit": "µm"}
        wavelength = _text(optics.wavelength * 1000)
        channel |= {"EmissionWavelength": wavelength, "EmissionWavelengthUnit": "nm"}
    pixels.attrib.update(sizes)
    ET.SubElement(pixels, "Channel", channel)
    ET.SubElement(pixels, "TiffData", IFD="0", PlaneCount=n)
    declaration = '<?xml version="1.0" encoding="UTF-8"?>'
    # TIFF descriptions are 7-bit: the micro sign goes in as a character reference.
    return declaration + ET.tostring(root, encoding="us-ascii").decode("ascii")


def _text(value):
    # 15 digits bring back 0.52 from 520 nm, where all 17 would bring back its rounding error.
    return format(float(value), ".15g")
