import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sklearn_psf import PSFMap, PSFParameterRegressor, SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.optics import Optics, make_psf_model

ASTIGMATISM = make_psf_model("zernike-3", size=31)


class MeanReader(BaseEstimator):
    """Stands for a fitted regressor: reads parameters and validity off the mean of a patch.

    The width is the mean grey value; a patch with a negative mean is invalid.
    """

    def __init__(self, psf_model="gaussian-1", patch_size=16, size=15):
        self.psf_model = psf_model
        self.patch_size = patch_size
        self.size = size

    def fit(self, X, y=None):
        self.psf_model_ = make_psf_model(self.psf_model, size=self.size)
        self.patch_size_ = self.patch_size
        return self

    def parameters(self, X):
        return np.abs(np.mean(X, (1, 2), dtype=float))[:, None]

    def predict(self, X, return_std=False):
        assert X.shape[1:] == (self.patch_size,) * 2
        p = self.parameters(X)
        return (p, 0.1 * p) if return_std else p

    def predict_invalid(self, X):
        return np.where(np.mean(X, (1, 2), dtype=float) < 0, 0.9, 0.05)


class AxisReader(MeanReader):
    """The axis is the mean of the patch, focus and cylinder are fixed."""

    def parameters(self, X):
        axis = np.abs(np.mean(X, (1, 2), dtype=float))
        return np.stack([np.full(len(X), 0.8), np.full(len(X), 0.5), axis], -1)


class RecordingReader(MeanReader):
    """Keeps the sizes of the batches it was asked to read."""

    def predict(self, X, return_std=False):
        self.sizes_ = [*getattr(self, "sizes_", []), len(X)]
        return super().predict(X, return_std)


def frozen(reader=None):
    return FrozenEstimator((MeanReader() if reader is None else reader).fit(None))


def unsmoothed(*args, **settings):
    """A mapper that reports what was read as it was read."""
    return SpatialPSFMapper(*args, **{"smoothing": 0.0} | settings)


def cells(values, size=16):
    """An image of squares with given grey values."""
    return np.kron(np.atleast_2d(values), np.ones((size, size)))[np.newaxis]


def map_of(values, reader=None, **settings):
    """The map of squares that the windows cover exactly."""
    mapper = unsmoothed(frozen(reader), **{"stride": 16, **settings})
    return mapper.fit_transform(cells(values))


@pytest.mark.parametrize("stride", [1, 5, 16, 40])
@pytest.mark.parametrize("shape", [(16, 16), (31, 32), (33, 47), (57, 16)])
def test_size_of_the_map_and_its_centres(shape, stride):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    X = np.stack([rows, columns]).astype(float)
    mapper = unsmoothed(frozen(), stride=stride).fit(X)
    maps = mapper.transform(X)
    assert mapper.patch_size_ == 16 and mapper.psf_model_.name == "gaussian-1"
    grid = tuple((n - 16) // stride + 1 for n in shape)
    assert maps.parameters.shape == maps.std.shape == (2, *grid, 1)
    assert maps.invalid.shape == (2, *grid)
    # the mean of a window of coordinates is its centre
    np.testing.assert_allclose(maps.rows, maps.parameters[0, :, 0, 0])
    np.testing.assert_allclose(maps.columns, maps.parameters[1, 0, :, 0])
    np.testing.assert_allclose(maps.parameters[0, ..., 0], maps.rows[:, None] + 0 * maps.columns)


def test_what_the_map_holds():
    X = cells([[1, 2, -1]]).astype(np.int16)
    maps = unsmoothed(frozen(), stride=16).fit_transform(X)
    assert isinstance(maps, PSFMap) and maps.images is X and maps.optics is None
    assert maps.model == make_psf_model("gaussian-1", size=15).settings
    np.testing.assert_allclose(maps.invalid[0, 0], [0.05, 0.05, 0.9])
    np.testing.assert_allclose(maps.parameters[0, 0, :2, 0], [1, 2])
    np.testing.assert_allclose(maps.std[0, 0, :2, 0], [0.1, 0.2])


def test_invalid_windows_are_filled_by_inverse_square_distance():
    maps = map_of([[1, -1, -1, 4]])
    third, two_thirds = (1 * 4 + 4 * 1) / 5, (1 * 1 + 4 * 4) / 5
    np.testing.assert_allclose(maps.parameters[0, 0, :, 0], [1, third, two_thirds, 4])
    maps = map_of([[2, -1], [-1, 5]])  # both neighbours at one distance
    np.testing.assert_allclose(maps.parameters[0, :, :, 0], [[2, 3.5], [3.5, 5]])
    assert (maps.std[0, [0, 1], [1, 0], 0] > maps.std[0, 1, 1, 0]).all()  # less is known


def test_each_image_is_filled_from_itself():
    X = np.concatenate([cells([[1, -1]]), cells([[-1, 3]])])
    maps = unsmoothed(frozen(), stride=16).fit_transform(X)
    np.testing.assert_allclose(maps.parameters[:, 0, :, 0], [[1, 1], [3, 3]])


def test_angles_are_filled_in_the_encoding():
    maps = map_of([[0.1, -1, np.pi - 0.1]], AxisReader("zernike-3", size=31))
    focus, cylinder, axis = maps.parameters[0, 0, 1]
    assert abs(np.sin(axis)) < 1e-6  # not pi / 2, the mean of the angles
    # the average of PSFs on either side is a little less astigmatic, never more
    assert focus == pytest.approx(0.8) and 0.4 < cylinder <= 0.5 + 1e-9


@pytest.mark.parametrize(("threshold", "filled"), [(0.01, True), (0.5, True), (0.95, False)])
def test_threshold(threshold, filled):
    values = [[1, -3]] if threshold > 0.05 else [[-1, -3]]
    maps = map_of(values, invalid_threshold=threshold)
    if threshold < 0.05:  # every window is above it
        assert np.isnan(maps.parameters).all()
    else:
        assert maps.parameters[0, 0, 1, 0] == pytest.approx(1 if filled else 3)
    np.testing.assert_allclose(maps.invalid[0, 0, 1], 0.9)


def test_nothing_valid():
    X = np.concatenate([cells([[-1, -2], [-3, -4]]), cells([[1, 2], [3, 4]])]) + 0.0
    X = np.rint(X).astype(np.int32)
    maps = unsmoothed(frozen(), stride=16).fit_transform(X)
    assert np.isnan(maps.parameters[0]).all() and np.isnan(maps.std[0]).all()
    assert np.isfinite(maps.parameters[1]).all()
    delta = np.zeros((15, 15), np.float32)
    delta[7, 7] = 1
    np.testing.assert_array_equal(maps.psfs(0), np.broadcast_to(delta, (2, 2, 15, 15)))
    deconv = TVRLDeconvolver(n_iter=2).fit(maps)
    with pytest.warns(UserWarning, match="No window of image 0 .*returned as it is"):
        restored = deconv.transform(maps)
    np.testing.assert_array_equal(restored[0], X[0])
    assert restored.dtype == np.float32 and not np.array_equal(restored[1], X[1])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_bound_what_is_read_at_a_time(batch_size):
    X = np.arange(2 * 40 * 48.0).reshape(2, 40, 48)
    reader = RecordingReader().fit(None)
    mapper = unsmoothed(FrozenEstimator(reader), stride=8, batch_size=batch_size).fit(X)
    maps = mapper.transform(X)
    assert max(reader.sizes_) == min(batch_size, 4 * 5) and sum(reader.sizes_) == 2 * 4 * 5
    expected = unsmoothed(frozen(), stride=8).fit_transform(X)
    np.testing.assert_array_equal(maps.parameters, expected.parameters)


def test_memmap_is_read_and_kept(tmp_path):
    X = np.memmap(tmp_path / "X", dtype="uint16", mode="w+", shape=(2, 32, 32))
    X[:] = np.arange(32)
    maps = unsmoothed(frozen(), stride=16).fit_transform(X)
    assert maps.images is X
    np.testing.assert_allclose(maps.parameters[:, :, 0, 0], 7.5)


def test_unsigned_integers_and_inputs_are_left_alone():
    X = np.full((1, 40, 40), 65535, np.uint16)
    X.flags.writeable = False
    maps = unsmoothed(frozen(), stride=8).fit_transform(X)
    np.testing.assert_allclose(maps.parameters, 65535)


def test_smoothing_draws_readings_towards_a_plane():
    rows, columns = np.mgrid[:7, :9]
    truth = 4 + 0.2 * rows + 0.1 * columns
    noise = 0.1 * truth * np.random.RandomState(0).standard_normal(truth.shape)
    errors = {}
    for smoothing in (0, 1, 100):
        maps = map_of(truth + noise, smoothing=smoothing)
        errors[smoothing] = np.sqrt(np.mean((maps.parameters[0, ..., 0] - truth) ** 2))
    assert errors[0] == pytest.approx(np.sqrt(np.mean(noise**2)))
    assert errors[100] < errors[1] < 0.7 * errors[0]


def test_smoothing_heeds_the_certain_and_not_the_invalid():
    class Sure(MeanReader):
        def predict(self, X, return_std=False):
            p = self.parameters(X)
            return (p, np.where(p == 6, 1e-6, 2.0)) if return_std else p

    values = np.full((5, 5), 4.0)
    values[2, 2], values[0, 0] = 6, -9  # one window is certain, one is invalid
    maps = map_of(values, Sure(), smoothing=1)
    parameters = maps.parameters[0, ..., 0]
    assert parameters[2, 2] == pytest.approx(6, abs=1e-3)
    assert parameters[2, 1] > 4.3 and parameters.max() < 6.5 and parameters[0, 0] < 6.5
    assert maps.invalid[0, 0, 0] > 0.5


# ---- Optics: images are resampled to the sampling that the network was trained at ----


def test_optics_resample_but_waves_stay_waves():
    # cut-off 0.125 at this pixel: the network, trained at 0.25, wants every second pixel
    optics = Optics(na=0.5, wavelength=0.5, pixel_size=0.125)
    assert optics.cutoff == pytest.approx(0.125)
    rows, columns = np.mgrid[:64, :96]
    X = np.stack([rows, columns, 0 * rows + 0.6]).astype(float)
    reader = MeanReader("zernike-1", size=31)
    maps = unsmoothed(frozen(reader), stride=8, optics=optics).fit_transform(X)
    assert maps.parameters.shape == (3, 3, 5, 1) and maps.optics == optics
    np.testing.assert_allclose(maps.parameters[2], 0.6, rtol=1e-5)  # waves are not rescaled
    # centres are given in pixels of the original image
    np.testing.assert_allclose(maps.rows, maps.parameters[0, :, 0, 0], atol=0.3)
    np.testing.assert_allclose(maps.columns, maps.parameters[1, 0, :, 0], atol=0.3)
    # PSFs come on the original sampling: twice as wide in pixels as at the network's
    assert maps.model["cutoff"] == pytest.approx(0.125) and maps.model["size"] >= 61
    wide, narrow = maps.psfs(2)[0, 0], make_psf_model("zernike-1", size=31).psf([[0.6]])[0]
    assert second_moment(wide) == pytest.approx(2 * second_moment(narrow), rel=0.1)
    z = 0.6 * 4 * np.sqrt(3) * 0.5 / 0.5**2
    np.testing.assert_allclose(maps.defocus()[2], z, rtol=1e-5)


def second_moment(psf):
    """Radius within which half of the light falls, pixels."""
    at = np.arange(len(psf)) - len(psf) // 2
    radius = np.hypot(at[:, None], at)
    order = np.argsort(radius, axis=None)
    return np.interp(0.5, np.cumsum(psf.ravel()[order]), radius.ravel()[order])


def test_optics_at_the_networks_sampling_change_nothing():
    optics = Optics(na=0.5, wavelength=0.5, pixel_size=0.25)
    X = np.random.RandomState(0).rand(1, 40, 40)
    reader = MeanReader("zernike-1", size=31)
    with_optics = unsmoothed(frozen(reader), stride=8, optics=optics).fit_transform(X)
    without = unsmoothed(frozen(reader), stride=8).fit_transform(X)
    np.testing.assert_array_equal(with_optics.parameters, without.parameters)
    np.testing.assert_array_equal(with_optics.rows, without.rows)
    assert with_optics.model == without.model


def test_widths_in_pixels_need_no_resampling():
    optics = Optics(na=0.5, wavelength=0.5, pixel_size=0.125)
    X = np.random.RandomState(0).rand(1, 40, 40)
    maps = unsmoothed(frozen(), stride=8, optics=optics).fit_transform(X)
    assert maps.parameters.shape == (1, 4, 4, 1) and maps.model["size"] == 15


def test_images_too_small_once_resampled():
    optics = Optics(na=0.5, wavelength=0.5, pixel_size=0.125)
    mapper = unsmoothed(frozen(MeanReader("zernike-1")), optics=optics)
    with pytest.raises(ValueError, match=r"24 x 40 pixels \(12 x 20 at the network's sampling\)"):
        mapper.fit(np.ones((1, 24, 40)))


# ---- Which regressors are taken ----


def test_pretrained_regressor_is_cloned_and_validated(tiny_weights, tiny_patches):
    X = tiny_patches[0][:2].repeat(2, 1).repeat(2, 2)
    regressor = PSFParameterRegressor(pretrained=tiny_weights)
    mapper = unsmoothed(regressor, stride=16).fit(X)
    assert mapper.regressor_ is not regressor and not hasattr(regressor, "state_")
    assert mapper.regressor_.history_ == []
    maps = mapper.transform(X)
    assert maps.parameters.shape == (2, 3, 3, 1)
    np.testing.assert_allclose(
        maps.parameters[:, 1, 1], mapper.regressor_.predict(X[:, 16:48, 16:48]), rtol=1e-5
    )


def test_frozen_regressor_is_kept(tiny_regressor, tiny_patches):
    X = tiny_patches[0][:2].repeat(2, 1).repeat(2, 2)
    mapper = unsmoothed(FrozenEstimator(tiny_regressor), stride=32)
    maps = mapper.fit(X, y="ignored").transform(X)
    assert mapper.regressor_ is mapper.regressor
    p, std = tiny_regressor.predict(X[:, :32, :32], return_std=True)
    valid = maps.invalid[:, 0, 0] < 0.5
    np.testing.assert_allclose(maps.parameters[valid, 0, 0], p[valid], rtol=1e-4)
    np.testing.assert_allclose(maps.std[valid, 0, 0], std[valid], rtol=1e-3)


def test_default_regressor_follows_the_shipped_weights():
    X = np.random.RandomState(0).poisson(100, (1, 130, 128))
    mapper = SpatialPSFMapper().fit(X)
    assert mapper.regressor is None and mapper.regressor_.pretrained == "zernike-1"
    assert mapper.psf_model_.name == "zernike-1" and mapper.patch_size_ == 128


@pytest.mark.parametrize("case", ["unfitted", "fitted", "frozen unfitted", "no regressor"])
def test_regressors_that_cannot_be_used(case, tiny_regressor):
    regressor, match = {
        "unfitted": (
            PSFParameterRegressor(),
            r"fit it on sharp images and pass FrozenEstimator\(regressor\), or set pretrained=",
        ),
        "fitted": (tiny_regressor, "pass FrozenEstimator"),
        "frozen unfitted": (FrozenEstimator(PSFParameterRegressor()), "frozen .* not fitted"),
        "no regressor": ("zernike-3", "pass FrozenEstimator"),
    }[case]
    with pytest.raises(NotFittedError, match=match):
        SpatialPSFMapper(regressor).fit(np.ones((1, 64, 64)))


def test_errors_of_the_regressor_come_through(tiny_weights):
    wrong = PSFParameterRegressor(pretrained=tiny_weights, psf_model="zernike-1")
    with pytest.raises(ValueError, match="disagrees with the weights"):
        SpatialPSFMapper(wrong).fit(np.ones((1, 64, 64)))
    with pytest.raises(ValueError, match="neither a shipped name"):
        SpatialPSFMapper(PSFParameterRegressor(pretrained="zernike-7")).fit(np.ones((1, 64, 64)))


def test_dense_method_asks_for_a_whole_map():
    class Dense(MeanReader):
        def predict_map(self, images, rows, columns):
            assert images.shape == (1, 72, 90)
            focus = np.add.outer(0.001 * rows, 0.002 * columns)[None, ..., None]
            encoding = self.psf_model_.encode(focus)
            parts = focus, np.full_like(focus, 0.1), np.zeros(focus.shape[:3])
            return (*parts, encoding, np.full_like(encoding, 0.01))

    mapper = unsmoothed(frozen(Dense()), stride=16, method="dense")
    maps = mapper.fit_transform(np.ones((2, 72, 90)))
    assert maps.parameters.shape == (2, 4, 5, 1)
    np.testing.assert_array_equal(maps.rows, [7.5, 23.5, 39.5, 55.5])  # squares of the stride
    expected = np.add.outer(0.001 * maps.rows, 0.002 * maps.columns)
    np.testing.assert_allclose(maps.parameters[1, ..., 0], expected)
    with pytest.raises(ValueError, match="method='dense' needs .* predict_map"):
        unsmoothed(frozen(), method="dense").fit(np.ones((1, 32, 32)))


# ---- Bad input ----


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"stride": 0}, ValueError, r"stride must be in \[1, inf\), got 0"),
        ({"stride": 2.0}, TypeError, "stride must be an integer, got 2.0"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"smoothing": -1}, ValueError, r"smoothing must be in \[0, inf\), got -1"),
        ({"invalid_threshold": 1.5}, ValueError, r"invalid_threshold must be in \[0, 1\], got 1.5"),
        ({"invalid_threshold": np.nan}, ValueError, "invalid_threshold must be finite"),
        ({"method": "fast"}, ValueError, "method must be one of 'sliding', 'dense'; got 'fast'"),
        ({"optics": 0.5}, TypeError, "optics must be an Optics or None, got 0.5"),
    ],
)
def test_bad_parameters(settings, error, match):
    with pytest.raises(error, match=match):
        unsmoothed(frozen(), **settings).fit(np.ones((1, 32, 32)))


BAD_IMAGES = {
    "2-D": (np.ones((32, 32)), "got 2D"),
    "empty": (np.ones((0, 32, 32)), r"0 sample\(s\)"),
    "NaN": (np.full((1, 32, 32), np.nan), "NaN or infinity"),
    "inf": (np.full((1, 32, 32), np.inf), "NaN or infinity"),
    "complex": (np.ones((1, 32, 32), complex), "Complex data not supported"),
    "object": (np.ones((1, 32, 32), object), "real numbers"),
    "too small": (np.ones((1, 15, 40)), "15 x 40 pixels, .*16 x 16 required: the patch_size"),
    "colour": (np.ones((1, 32, 32, 3)), "colour"),
    "colour image": (np.ones((32, 32, 3)), "colour"),
    "ragged": ([np.ones((32, 32)), np.ones((32, 33))], "ragged list.*one image per call"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_bad_images(case, method):
    X, match = BAD_IMAGES[case]
    mapper = unsmoothed(frozen())
    if method == "transform":
        mapper.fit(np.ones((1, 32, 32)))
    with pytest.raises(ValueError, match=match):
        getattr(mapper, method)(X)


def test_unfitted():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        SpatialPSFMapper().transform(np.ones((1, 128, 128)))


def test_verbose_shows_a_bar(capsys):
    map_of([[1, 2]], verbose=1)
    assert "PSF map" in capsys.readouterr().err
    map_of([[1, 2]])
    assert capsys.readouterr() == ("", "")


def test_clone_and_hash():
    mapper = unsmoothed(frozen(), stride=16)
    X = cells([[1, 2]])
    copy = clone(mapper).fit(X)
    assert not hasattr(mapper, "regressor_") and copy.stride == 16
    before = joblib.hash(copy)
    copy.transform(X)
    assert joblib.hash(copy) == before


@pytest.mark.parametrize("value", [0, 700.0, -3.0])
def test_constant_images_with_shipped_weights(value):
    X = np.full((1, 130, 130), value)
    maps = SpatialPSFMapper().fit_transform(X)
    assert (maps.invalid > 0.8).all() and np.isnan(maps.parameters).all()
    with pytest.warns(UserWarning, match="returned as it is"):
        restored = TVRLDeconvolver(n_iter=1).fit(maps).transform(maps)
    np.testing.assert_array_equal(restored, X.astype("f4"))
