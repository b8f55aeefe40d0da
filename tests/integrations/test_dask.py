from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sklearn_psf import SpatialPSFMapper, TVRLDeconvolver
from sklearn_psf.integrations._blocks import deal_windows, even_chunks
from sklearn_psf.integrations.dask import map_psfs, read_windows, restore, write_zarr
from sklearn_psf.optics import Camera
from sklearn_psf.simulation import make_textures, make_tilted_scene

# Difference from what is restored in one piece, relative to the mean of the image: of single
# pixels without acceleration; RMS with it, since each block drops extrapolations for itself.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def images():
    """Two photographs (2, 200, 231) of a tilted sample, uint16."""
    sharp = make_textures(2, size=(200, 231), kind="dead-leaves", random_state=0)
    scenes = [
        make_tilted_scene(
            texture,
            psf_model="gaussian-1",
            low=0.7,
            high=2.0,
            camera=Camera(bits=16, offset=50),
            random_state=0,
        )[0]
        for texture in sharp
    ]
    return np.stack(scenes).astype(np.uint16)


@pytest.fixture(scope="module")
def mapper(tiny_regressor, images):
    return SpatialPSFMapper(FrozenEstimator(tiny_regressor), stride=20).fit(images)


@pytest.fixture(scope="module")
def maps(mapper, images):
    return mapper.transform(images)


@pytest.fixture(scope="module")
def deconvolver(maps):
    return TVRLDeconvolver(n_iter=15, offset=50).fit(maps)


def lazy(maps):
    """The same map over a dask array."""
    return replace(maps, images=da.from_array(maps.images))


def assert_same_map(a, b, rtol=0.0):
    for name in ("parameters", "std", "invalid", "rows", "columns"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, err_msg=name)
    assert a.model == b.model and a.optics == b.optics


def largest(restored, whole):
    return abs(restored - whole).max() / whole.mean()


def rms(restored, whole):
    return np.sqrt(((restored - whole) ** 2).mean()) / whole.mean()


# ---- Mapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [40, 90, 1024])
def test_map_does_not_depend_on_blocks(mapper, maps, images, chunk_size):
    assert_same_map(map_psfs(images, mapper, chunk_size=chunk_size), maps, rtol=1e-6)


@pytest.mark.parametrize("stride", [20, 50])  # windows that overlap, and that leave gaps
def test_map_of_resampled_images(tiny_regressor, images, stride):
    # gaussian-1 counts in pixels and is not resampled: a regressor of waves is stood in for
    mapper = SpatialPSFMapper(FrozenEstimator(tiny_regressor), stride=stride, smoothing=0)
    mapper.fit(images)
    for scale in (0.7, 1.6):
        mapper._working_shape = lambda shape, scale=scale: tuple(round(n * scale) for n in shape)
        expected = mapper.transform(images)
        assert_same_map(map_psfs(images, mapper, chunk_size=60), expected, rtol=2e-3)


def test_reading_is_lazy(mapper):
    def fail(block):
        raise AssertionError("computed")

    images = da.zeros((1, 128, 128), chunks=64).map_blocks(fail, dtype=float, meta=np.zeros(()))
    readings = read_windows(images, mapper, chunk_size=64)
    assert readings.shape[:3] == (1, 5, 5)
    with pytest.raises(AssertionError, match="computed"):
        readings.compute()


def test_map_keeps_images_lazy_and_takes_zarr(mapper, maps, images, tmp_path):
    stored = zarr.create_array(tmp_path / "in.zarr", data=images, chunks=(1, 64, 64))
    result = map_psfs(stored, mapper, chunk_size=70)
    assert isinstance(result.images, da.Array) and result.shape == images.shape
    assert_same_map(result, maps, rtol=1e-6)
    np.testing.assert_array_equal(result.images.compute(), images)


def test_map_shows_progress(mapper, images, capsys):
    map_psfs(images, mapper, chunk_size=90, verbose=1)
    assert "PSF map: 100%" in capsys.readouterr().err
    map_psfs(images, mapper, chunk_size=90)
    assert capsys.readouterr().err == ""


# ---- Restoring ----------------------------------------------------------------------------------


def test_restoration_does_not_depend_on_blocks(maps, deconvolver):
    plain = TVRLDeconvolver(n_iter=15, offset=50, accelerate=False).fit(maps)
    for chosen, deviation in ((plain, largest), (deconvolver, rms)):
        whole = chosen.transform(maps)
        restored = restore(lazy(maps), chosen, chunk_size=70)
        assert np.prod(restored.numblocks) > 2 * 4
        assert restored.dtype == whole.dtype
        assert deviation(restored.compute(), whole) < TOLERANCE
    # the halo is what does it
    bare = restore(lazy(maps), plain, chunk_size=70, halo=0).compute()
    assert largest(bare, plain.transform(maps)) > 10 * TOLERANCE


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_restoration_by_a_psf_of_ones_own(images, grid):
    psf = np.random.RandomState(0).rand(*grid, 5, 7)
    deconvolver = TVRLDeconvolver(psf=psf, n_iter=10, offset=50).fit(images)
    restored = restore(images, deconvolver, chunk_size=60)
    assert np.prod(restored.numblocks) > 2
    assert rms(restored.compute(), deconvolver.transform(images)) < TOLERANCE


def test_restoring_is_lazy(maps, deconvolver, monkeypatch):
    def fail(*args):
        raise AssertionError("restored")

    monkeypatch.setattr("sklearn_psf.integrations.dask.restore_block", fail)
    restored = restore(lazy(maps), deconvolver)
    with pytest.raises(AssertionError, match="restored"):
        restored.compute()


def test_an_unfitted_deconvolver_is_fitted_on_a_crop(maps):
    restored = restore(lazy(maps), TVRLDeconvolver(n_iter=2))
    assert restored.shape == maps.shape and np.isfinite(restored.compute()).all()


def test_an_image_without_texture_comes_back_as_it_is(maps, deconvolver):
    parameters = maps.parameters.copy()
    parameters[0] = np.nan
    unknown = replace(lazy(maps), parameters=parameters)
    with pytest.warns(UserWarning, match="image 0"):
        restored = restore(unknown, deconvolver, chunk_size=100)
    result = restored.compute()
    np.testing.assert_array_equal(result[0], maps.images[0])
    assert abs(result[1] - maps.images[1]).max() > 10


# ---- Writing, and two processes -----------------------------------------------------------------


def test_write_refuses_to_overwrite(tmp_path):
    array = da.ones((1, 4, 5), chunks=2)
    assert write_zarr(array, tmp_path / "a.zarr")[:].sum() == 20
    with pytest.raises(FileExistsError, match=r"a\.zarr"):
        write_zarr(array, tmp_path / "a.zarr")


def test_two_processes(mapper, maps, deconvolver, images, tmp_path, capsys):
    zarr.create_array(tmp_path / "in.zarr", data=images, chunks=(1, 64, 64))
    source = zarr.open_array(tmp_path / "in.zarr", mode="r")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        client.get_task_stream()  # from here on, who did what is recorded
        found = map_psfs(source, mapper, chunk_size=70, verbose=1)
        target = write_zarr(
            restore(found, deconvolver, chunk_size=70), tmp_path / "out.zarr", verbose=1
        )
        workers = {record["worker"] for record in client.get_task_stream()}
    assert len(workers) == 2
    assert_same_map(found, maps, rtol=1e-6)
    assert rms(target[:], deconvolver.transform(maps)) < TOLERANCE
    printed = capsys.readouterr().err
    assert "PSF map: 100%" in printed and "writing: 100%" in printed


# ---- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (da.zeros((64, 64)), "Expected 3D images"),
        (da.zeros((1, 64, 64), dtype=complex), "Complex"),
        (da.zeros((1, 64, 20)), "smaller than the minimum"),
    ],
)
def test_unusable_images(mapper, X, message):
    with pytest.raises(ValueError, match=message):
        map_psfs(X, mapper)


def test_nan_is_found_by_the_block_that_holds_it(mapper):
    images = np.ones((1, 128, 128))
    images[0, 100, 100] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        map_psfs(da.from_array(images), mapper, chunk_size=40)


def test_unusable_arguments(mapper, maps, deconvolver, images):
    with pytest.raises(NotFittedError):
        read_windows(images, SpatialPSFMapper())
    with pytest.raises(ValueError, match="chunk_size"):
        map_psfs(images, mapper, chunk_size=0)
    with pytest.raises(ValueError, match="halo"):
        restore(lazy(maps), deconvolver, halo=-1)
    with pytest.raises(ValueError, match="n_samples=3"):
        restore(lazy(maps), TVRLDeconvolver(n_samples=3))
    with pytest.raises(ValueError, match="plain images"):
        restore(images, deconvolver)
    dense = SpatialPSFMapper(mapper.regressor, stride=20).fit(images)
    dense.method = "dense"
    with pytest.raises(ValueError, match="method='sliding'"):
        read_windows(images, dense)


# ---- Cutting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 100, 231, 1000])
@pytest.mark.parametrize("size", [1, 30, 300])
def test_even_chunks(length, size):
    chunks = even_chunks(length, size)
    assert sum(chunks) == length
    assert len(set(chunks[:-1])) <= 1 and chunks[-1] <= chunks[0]
    assert len(chunks) == 1 or min(chunks) >= size


@pytest.mark.parametrize("stride", [1, 16, 32, 50])
@pytest.mark.parametrize("working", [100, 231, 500])
@pytest.mark.parametrize("chunk_size", [1, 64])
def test_every_window_is_in_one_block_with_its_pixels(stride, working, chunk_size):
    axis = deal_windows(231, working, 32, stride, chunk_size)
    assert axis.starts[0] == 0 and axis.starts[-1] == (working - 32) // stride + 1
    assert sum(axis.chunks) == 231 and min(axis.windows) > 0
    if len(axis.chunks) > 1:
        assert min(axis.chunks) >= max(axis.before, axis.after)  # else dask would cut anew
    for b, (first, last) in enumerate(zip(axis.starts, axis.starts[1:], strict=False)):
        low = axis.edges[b] - (axis.before if b else 0)
        high = min(axis.edges[b + 1] + axis.after, 231)
        reach = 0 if axis.factor == 1 else 1  # of the linear interpolation
        assert low <= max(first * stride * axis.factor - reach, 0)
        assert high >= min(((last - 1) * stride + 32) * axis.factor + reach, 231)
