import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import PatchStream, make_blurred_patches, make_textures
from sklearn_psf.simulation.patches import texture_contrast

FAMILY = make_psf_model("gaussian-1", size=31)
BRIGHT = Camera(peak_photons=1e9, read_noise=0.0)


@pytest.fixture(scope="module")
def sharp():
    return make_textures(3, size=128, kind="dead-leaves", random_state=0)


# ---- make_blurred_patches ----


def test_shapes_bounds_and_seed(sharp):
    X, y = make_blurred_patches(sharp, 10, psf_model=FAMILY, patch_size=40, random_state=0)
    assert X.shape == (10, 40, 40) and X.dtype == np.float32 and y.shape == (10, 1)
    low, high = FAMILY.bounds[0]
    assert np.nanmin(y) >= low and np.nanmax(y) <= high
    again = make_blurred_patches(sharp, 10, psf_model=FAMILY, patch_size=40, random_state=0)
    other = make_blurred_patches(sharp, 10, psf_model=FAMILY, patch_size=40, random_state=1)
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert not np.array_equal(X, other[0])


def test_a_patch_is_the_image_blurred_by_its_psf():
    # every crop of a periodic image is alike up to a shift: compare the sorted grey values
    period = np.random.RandomState(0).rand(16, 16)
    image = np.tile(period, (12, 12))
    X, y = make_blurred_patches(
        [image], 3, psf_model=FAMILY, camera=BRIGHT, patch_size=32, random_state=0
    )
    scaled = (image - image.min()) / (image.max() - image.min()) * 1e9
    for patch, parameters in zip(X, y, strict=True):
        blurred = fftconvolve(scaled, FAMILY.psf(parameters[None])[0], mode="same")[48:80, 48:80]
        tolerance = 1e-3 * 1e9
        np.testing.assert_allclose(np.sort(patch.ravel()), np.sort(blurred.ravel()), atol=tolerance)


def test_light_from_beyond_the_patch_reaches_it():
    # a bright frame around a dark centre: the patch is at the centre of its field
    image = np.ones((62, 62))
    image[15:47, 15:47] = 0.0
    X, _ = make_blurred_patches(
        [image], 1, psf_model=FAMILY, camera=BRIGHT, patch_size=32, random_state=0
    )
    assert X[0, 0].mean() > 0.1e9 and X[0, 16, 16] < X[0, 0].mean()


def test_noise_is_that_of_the_camera():
    image = np.ones((200, 200))
    image[::50] = 0.0
    camera = Camera(peak_photons=400, read_noise=10.0, gain=2.0, offset=100.0)
    X, _ = make_blurred_patches(
        [image], 8, psf_model=FAMILY, camera=camera, patch_size=32, random_state=0
    )
    smooth, _ = make_blurred_patches(
        [image], 8, psf_model=FAMILY, camera=BRIGHT, patch_size=32, random_state=0
    )
    expected = smooth / 1e9 * 400 * 2 + 100
    deviation = (X - expected) / (2 * np.sqrt(smooth / 1e9 * 400 + 100))
    assert abs(deviation.mean()) < 0.05 and abs(deviation.std() - 1) < 0.05


def test_textureless_patches_have_no_parameters(sharp):
    flat = np.full((90, 90), 7.0)
    _, y = make_blurred_patches([flat], 4, psf_model=FAMILY, patch_size=32, random_state=0)
    assert np.isnan(y).all()
    _, y = make_blurred_patches(sharp, 20, psf_model=FAMILY, patch_size=32, random_state=0)
    assert np.isfinite(y).mean() > 0.5
    dark = Camera(peak_photons=0.01)
    _, y = make_blurred_patches(
        sharp, 20, psf_model=FAMILY, camera=dark, patch_size=32, random_state=0
    )
    assert np.isnan(y).all()


def test_images_of_any_size_and_dtype(sharp):
    small = (sharp[0, :20, :25] * 60000).astype(np.uint16)
    X, y = make_blurred_patches([small, sharp[1]], 6, psf_model=FAMILY, patch_size=48)
    assert X.shape == (6, 48, 48) and np.isfinite(X).all()


def test_scale_and_offset_of_the_image_do_not_matter(sharp):
    settings = {"psf_model": FAMILY, "patch_size": 32, "random_state": 0, "camera": BRIGHT}
    X, _ = make_blurred_patches(sharp, 4, **settings)
    changed, _ = make_blurred_patches(sharp.astype(float) * 300 - 50, 4, **settings)
    np.testing.assert_allclose(changed, X, rtol=1e-3, atol=1e5)


def test_large_images_are_drawn_from_more_often():
    small, large = np.zeros((64, 64)), np.zeros((128, 128))
    large[::4] = 1.0
    _, y = make_blurred_patches(
        [small, large], 200, psf_model=FAMILY, patch_size=32, random_state=0
    )
    assert abs(np.isfinite(y).mean() - 0.8) < 0.1  # by area 4 : 1; the small one is flat


def test_input_is_not_modified(sharp):
    X = sharp.astype(np.float32).copy()
    X.flags.writeable = False
    make_blurred_patches(X, 2, psf_model=FAMILY, patch_size=32)
    stream = PatchStream(X, psf_model=FAMILY, patch_size=32, batch_size=2, pool_size=4)
    stream.draw()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"n": 0}, ValueError, r"n must be in \[1, inf\), got 0"),
        ({"n": 2.0}, TypeError, "n must be an integer"),
        ({"patch_size": 8}, ValueError, r"patch_size must be in \[16, inf\), got 8"),
        ({"psf_model": "bessel"}, ValueError, "psf_model must be one of"),
        ({"images": []}, ValueError, r"0 sample\(s\) for images"),
        ({"images": np.ones((40, 40))}, ValueError, "images, got 2D"),
        ({"images": [np.full((40, 40), np.nan)]}, ValueError, r"images\[0\] contains NaN"),
        ({"random_state": "monday"}, ValueError, "seed"),
    ],
)
def test_bad_arguments(sharp, arguments, error, match):
    options = {"images": sharp, "n": 2, "psf_model": FAMILY, "patch_size": 32} | arguments
    with pytest.raises(error, match=match):
        make_blurred_patches(options.pop("images"), options.pop("n"), **options)


# ---- texture_contrast ----


@given(
    level=st.floats(10, 1e5),
    amplitude=st.floats(0.01, 0.9),
    read_noise=st.floats(0, 20),
)
def test_contrast_of_a_checkerboard(level, amplitude, read_noise):
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    photons = (level * (1 + amplitude * board))[None]
    expected = amplitude * level / np.sqrt(level + read_noise**2)
    assert float(texture_contrast(photons, read_noise)) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.3, 1e4, 1e9])
def test_constant_patches_have_no_contrast(value):
    assert float(texture_contrast(torch.full((1, 64, 64), value))) == 0


def test_slow_shading_is_no_texture():
    ramp = torch.linspace(900, 1100, 128).expand(128, 128)[None]
    steps = 900 + 200.0 * (torch.arange(128) // 4 % 2).expand(128, 128)[None]
    assert float(texture_contrast(ramp)) < 0.2 < 1 < float(texture_contrast(steps))


# ---- PatchStream ----


def stream(images, **settings):
    options = {"psf_model": FAMILY, "patch_size": 32, "batch_size": 16, "pool_size": 32}
    return PatchStream(images, **options | {"random_state": 0} | settings)


def test_stream_is_seeded_endless_and_never_repeats(sharp):
    a, b, c = stream(sharp), stream(sharp), stream(sharp, random_state=1)
    first = [a.draw() for _ in range(5)]
    for (X, y), (X_again, y_again) in zip(first, b, strict=False):
        assert torch.equal(X, X_again) and torch.equal(y.nan_to_num(-1), y_again.nan_to_num(-1))
    assert not torch.equal(first[0][0], c.draw()[0])
    X = torch.cat([X for X, _ in first]).flatten(1)
    assert len(torch.unique(X, dim=0)) == len(X)
    assert X.shape == (80, 1024) and X.dtype == torch.float32 and torch.isfinite(X).all()


def test_stream_leaves_the_global_seeds_alone(sharp):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    stream(sharp).draw()
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_stream_covers_the_bounds_with_fresh_psfs(sharp):
    source = stream(sharp, batch_size=32)
    batches = [y for _, y in (source.draw() for _ in range(30))]
    y = torch.cat(batches)[:, 0].numpy()
    low, high = FAMILY.bounds[0]
    known = y[np.isfinite(y)]
    assert known.min() >= low and known.max() <= high
    assert known.min() < low + 0.1 * (high - low) and known.max() > high - 0.1 * (high - low)
    assert len(np.unique(known)) > 32 + 30  # the pool of 32 is renewed as it is used
    # what came first is gone once the pool has been renewed
    assert not np.intersect1d(batches[0][:4], torch.cat(batches[15:]).numpy()).size


def test_stream_labels_textureless_patches(sharp):
    y = torch.cat([stream(sharp, random_state=i).draw()[1] for i in range(12)])
    assert 0 < float(torch.isnan(y).float().mean()) < 0.5
    flat = stream([np.full((90, 90), 3.0)]).draw()[1]
    assert torch.isnan(flat).all()


def test_stream_varies_the_exposure_unless_a_camera_fixes_it(sharp):
    levels = torch.cat([stream(sharp, random_state=i).draw()[0].amax((1, 2)) for i in range(8)])
    assert float(levels.max() / levels.min()) > 10
    camera = Camera(peak_photons=1000, read_noise=0.0)
    source = stream(sharp, camera=camera)
    assert float(torch.cat([source.draw()[0] for _ in range(4)]).max()) < 1000 + 6 * 1000**0.5


def test_noise_of_the_stream_has_poissons_moments(sharp):
    source = stream(sharp)
    for mean, read_noise in ((3.0, 0.0), (50.0, 4.0), (1e4, 2.0)):
        drawn = source.expose(torch.full((200_000,), mean), torch.tensor(read_noise)).double()
        assert float(drawn.mean()) == pytest.approx(mean, rel=0.02)
        assert float(drawn.var()) == pytest.approx(mean + read_noise**2, rel=0.06)


def test_stream_from_small_images_and_lists(sharp):
    images = [sharp[0, :20, :30], (sharp[1] * 255).astype(np.uint8)]
    X, y = stream(images).draw()
    assert X.shape == (16, 32, 32) and torch.isfinite(X).all()


@pytest.mark.parametrize("family", ["zernike-1", "gaussian-2", "zernike-3"])
def test_stream_of_any_family(sharp, family):
    model = make_psf_model(family, size=31)
    X, y = stream(sharp, psf_model=model, pool_size=8, batch_size=4).draw()
    assert X.shape == (4, 32, 32) and y.shape == (4, len(model.parameter_names))
    rows = torch.isnan(y)
    assert torch.equal(rows.any(1), rows.all(1))  # all parameters of a patch or none


def test_bad_images_of_the_stream():
    with pytest.raises(ValueError, match="images, got 2D"):
        stream(np.ones((50, 50)))
    with pytest.raises(ValueError, match="device 'abacus'"):
        stream(np.ones((1, 50, 50)), device="abacus")


def test_half_of_the_stream_is_exposed_for_the_blurred_patch():
    sharp = np.zeros((1, 300, 300))
    sharp[:, ::37, ::37] = 1.0  # points, which blur dims a hundred times
    model = make_psf_model("gaussian-1")
    stream = PatchStream(
        sharp, psf_model=model, batch_size=64, pool_size=64, camera=None, random_state=0
    )
    stream.textureless = 0.0
    brightest = np.concatenate([stream.draw()[0].amax((1, 2)).numpy() for _ in range(4)])
    share = (brightest > 10**2.4).mean()
    assert 0.45 < share < 0.8
