"""Sharp images from elsewhere: what scikit-image ships, a user's folder; and how sharp they are."""

import os
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from skimage import io as skimage_io
from skimage.transform import downscale_local_mean

from .._validation import check_images, check_number

__all__ = [
    "SKIMAGE_IMAGES",
    "bin_to_pixel_limit",
    "find_binning",
    "load_folder",
    "load_skimage",
]

# Files inside scikit-image's wheel whose pictures are photographs or micrographs in focus; the
# rest are drawings, text, phantoms, blurred, or smaller than a patch.
SKIMAGE_IMAGES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png",
    "moon": "moon.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "stereo_motorcycle": "motorcycle_left.png",
}

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
# Luminance of linear light, ITU-R BT.709
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)

# The criterion of `find_binning`; bands are fractions of the Nyquist frequency after binning.
_HIGH_BAND, _MIDDLE_BAND = (0.7, 0.9), (0.2, 0.35)
_FLOOR_BAND = (1.1, 1.35)  # the corners of the spectrum of the image as it is
_MIN_FALL = 0.01
_MIN_ABOVE_FLOOR = 0.2
_WHITE = 4.0


def load_skimage(names=None):
    """Load the photographs and micrographs that come inside scikit-image; nothing is downloaded.

    Parameters
    ----------
    names : sequence of str or None
        Which ones, from `SKIMAGE_IMAGES`; None takes all that the installed version holds.

    Returns
    -------
    dict of str to ndarray of shape (H, W)
        Luminance in [0, 1], float32.

    Raises
    ------
    ValueError
        If a name is unknown.
    FileNotFoundError
        If the installed scikit-image does not hold an image that was asked for by name.

    Examples
    --------
    >>> images = load_skimage(["camera"])
    >>> images["camera"].shape, images["camera"].dtype
    ((512, 512), dtype('float32'))
    """
    folder = Path(skimage.data.__file__).parent
    if names is None:
        names = [name for name, file in SKIMAGE_IMAGES.items() if (folder / file).is_file()]
    elif isinstance(names, str):
        raise ValueError(f"names must be a sequence of names, got the string {names!r}.")
    images = {}
    for name in names:
        if name not in SKIMAGE_IMAGES:
            raise ValueError(f"names must be among {', '.join(SKIMAGE_IMAGES)}; got {name!r}.")
        if not (folder / SKIMAGE_IMAGES[name]).is_file():
            raise FileNotFoundError(f"The installed scikit-image does not hold {name!r}.")
        (images[name],) = _read_grey(folder / SKIMAGE_IMAGES[name])
    return images


def load_folder(path, pattern="**/*"):
    """Load all TIFF, PNG, JPEG and BMP images of a folder.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.
    pattern : str
        Which files, as in `pathlib.Path.glob`; the default takes all, in sub-folders too. Other
        file types are passed over.

    Returns
    -------
    dict of str to ndarray of shape (H, W)
        Images by path relative to the folder, sorted, float32. Unsigned integers are divided by
        the largest value of their type; other images that leave [0, 1] are scaled to it. Colour
        becomes luminance, ``0.2126 R + 0.7152 G + 0.0722 B``. The pages of a TIFF stack are
        images of their own, "name[page]".

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    FileNotFoundError
        If it holds no image of that pattern.
    ValueError
        If a file cannot be read as an image.

    Examples
    --------
    >>> import tempfile
    >>> from skimage import io
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     io.imsave(f"{folder}/a.png", np.eye(40, dtype=np.uint8) * 255, check_contrast=False)
    ...     images = load_folder(folder)
    >>> images["a.png"].shape, float(images["a.png"].max())
    ((40, 40), 1.0)
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, got {path!r}.")
    folder = Path(path)
    if not folder.is_dir():
        raise NotADirectoryError(f"path: there is no folder {str(path)!r}.")
    files = [f for f in sorted(folder.glob(pattern)) if f.suffix.lower() in _SUFFIXES]
    files = [f for f in files if f.is_file()]
    if not files:
        raise FileNotFoundError(
            f"path: no image ({', '.join(_SUFFIXES)}) in {str(path)!r} matches {pattern!r}."
        )
    images = {}
    for file in files:
        name, pages = file.relative_to(folder).as_posix(), _read_grey(file)
        single = len(pages) == 1
        images |= {name if single else f"{name}[{i}]": page for i, page in enumerate(pages)}
    return images


def _read_grey(file):
    """Read a file as a list of grey images in [0, 1]."""
    try:
        is_tiff = file.suffix.lower() in (".tif", ".tiff")
        array = tifffile.imread(file) if is_tiff else skimage_io.imread(file)
    except Exception as error:  # decoders raise errors of many kinds
        raise ValueError(f"{str(file)!r} cannot be read as an image: {error}") from error
    array = np.asarray(array)
    if array.dtype.kind not in "uifb":
        raise ValueError(f"{str(file)!r} must hold real numbers, got dtype {array.dtype}.")
    top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    grey = array.astype(np.float32) / np.float32(top)
    if grey.ndim > 2 and grey.shape[-1] == 2:  # grey and alpha
        grey = grey[..., 0]
    elif grey.ndim > 2 and grey.shape[-1] in (3, 4):
        grey = grey[..., :3] @ _LUMINANCE
    if grey.ndim < 2:
        raise ValueError(f"{str(file)!r} is no image: its shape is {array.shape}.")
    pages = check_images(grey.reshape(-1, *grey.shape[-2:]), name=str(file))
    return [_into_unit_range(page) for page in pages]


def _into_unit_range(image):
    low, high = image.min(), image.max()
    if low >= 0 and high <= 1:
        return image
    return (image - low) / max(high - low, np.finfo(np.float32).tiny)


def find_binning(image, max_factor=4, min_size=128):
    r"""Find the smallest binning at which the texture of an image is sharp at the pixel.

    With S(f) the power spectrum (median over directions), N its noise floor (the corners beyond
    1.1 times the Nyquist frequency, where blur leaves nothing but noise), and S_h, S_m the medians
    at 0.7 to 0.9 and 0.2 to 0.35 of the Nyquist frequency after binning by b, b suffices if

    .. math:: \frac{S_h - N}{S_m - N} \ge 0.01 \quad\text{and}\quad S_h - N \ge 0.2 N.

    Natural and procedural textures fall by less than that between the bands (power laws up to
    ``f^-4``), a Gaussian blur of more than 0.6 pixels does not. A spectrum that is white (below
    ``4 N`` in every band), as of isolated points, is taken to be sharp; so is one that is nothing
    but noise.

    Parameters
    ----------
    image : array-like of shape (H, W)
        The image.
    max_factor : int, default=4
        Largest factor; returned where none suffices.
    min_size : int, default=128
        Smallest height and width after binning, pixels: limits the factor, which is never below 1.

    Returns
    -------
    int
        The factor.

    Raises
    ------
    ValueError, TypeError
        If the image is not 2-D, real and finite, or an argument is out of range.

    References
    ----------
    D. J. Field, "Relations between the statistics of natural images and the response properties of
    cortical cells", J. Opt. Soc. Am. A 4 (1987), for the power law.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> sharp = np.random.RandomState(0).rand(384, 384)
    >>> find_binning(sharp), find_binning(gaussian_filter(sharp, 2))
    (1, 3)
    """
    image = check_images(np.asarray(image)[np.newaxis], name="image")[0]
    check_number("max_factor", max_factor, low=1, integer=True)
    check_number("min_size", min_size, low=1, integer=True)
    limit = max(1, min(max_factor, min(image.shape) // min_size))
    if limit == 1 or image.min() == image.max():
        return 1
    power, frequency = _spectrum(image)

    def median_in(band, factor):
        inside = (frequency >= 0.5 * band[0] / factor) & (frequency < 0.5 * band[1] / factor)
        return np.median(power[inside]) if inside.any() else 0.0

    floor = median_in(_FLOOR_BAND, 1)
    middles = [median_in(_MIDDLE_BAND, factor) for factor in range(1, limit + 1)]
    if max(middles) < _WHITE * floor:
        return 1
    for factor, middle in enumerate(middles, start=1):
        high = median_in(_HIGH_BAND, factor) - floor
        if high >= _MIN_FALL * (middle - floor) and high >= _MIN_ABOVE_FLOOR * floor:
            return factor
    return limit


def _spectrum(image):
    """Power spectrum under a Hann window, and the frequency of each value in cycles per pixel."""
    window = np.multiply.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape))
    image = image.astype(np.float64)
    image = (image - np.average(image, weights=window)) * window
    power = abs(np.fft.rfft2(image)) ** 2
    frequency = np.hypot(
        np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :]
    )
    return power, frequency


def bin_to_pixel_limit(image, max_factor=4, min_size=128):
    """Average blocks of pixels until the texture is sharp at the pixel.

    Images from the wild are oversampled, interpolated or compressed; a blur that they bring along
    limits what can be learned from them.

    Parameters
    ----------
    image : array-like of shape (H, W)
        The image.
    max_factor : int, default=4
        Largest factor.
    min_size : int, default=128
        Smallest height and width of the result, pixels. A smaller image is returned as it is.

    Returns
    -------
    ndarray of shape (H // b, W // b)
        Means of blocks of b x b pixels, b as `find_binning` says, float32. Rows and columns that
        fill no block are left out.

    Raises
    ------
    ValueError, TypeError
        As `find_binning`.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> sharp = np.random.RandomState(0).rand(386, 400)
    >>> bin_to_pixel_limit(gaussian_filter(sharp, 2)).shape
    (128, 133)
    """
    factor = find_binning(image, max_factor, min_size)
    image = np.asarray(image)
    height, width = (n - n % factor for n in image.shape)
    image = image[:height, :width].astype(np.float32)
    return downscale_local_mean(image, (factor, factor)).astype(np.float32)
