import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson
from skimage.restoration import richardson_lucy as skimage_richardson_lucy

from sklearn_psf.operators import Convolution, crop_psfs, make_operator, strips
from sklearn_psf.optics import make_psf_model
from sklearn_psf.richardson_lucy import poisson_log_likelihood, richardson_lucy
from sklearn_psf.simulation import make_textures


def gaussian(size, width):
    t = np.arange(size) - size // 2
    h = np.exp(-(t[:, None] ** 2 + t**2) / (2 * width**2))
    return h / h.sum()


def varying_operator(shape=(40, 44), size=9, dtype=torch.float64, rtol=1e-3, method="modes"):
    psfs = np.stack([gaussian(size, w) for w in (0.8, 1.2, 1.5, 2.0)]).reshape(2, 2, size, size)
    rows, columns = (np.array([0.25, 0.75]) * n for n in shape)
    return make_operator(psfs, rows, columns, shape, method=method, rtol=rtol, dtype=dtype)


def scene(operator, photons=1e3, seed=0):
    """A sharp field of blocks and its noisy image."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((operator.field_shape[0] // 6 + 1, operator.field_shape[1] // 6 + 1)) ** 3
    field = np.kron(coarse, np.ones((6, 6)))[: operator.field_shape[0], : operator.field_shape[1]]
    field = torch.from_numpy(photons * field).to(operator.dtype)
    mean = operator.forward(field).clamp(min=0)
    return field, torch.poisson(mean, generator=torch.Generator().manual_seed(seed))


def snr(truth, estimate):
    return float(10 * torch.log10(truth.square().sum() / (truth - estimate).square().sum()))


def test_agrees_with_scikit_image_in_the_interior():
    psf = gaussian(7, 1.2)
    psf[0, 1] += 0.1  # not symmetric: a flipped kernel would show
    psf /= psf.sum()
    operator = Convolution(psf, (80, 81))
    image = np.random.default_rng(0).uniform(0.2, 1, (80, 81))
    ours = operator.crop(richardson_lucy(image, operator, n_iter=5))
    theirs = skimage_richardson_lucy(image, psf, num_iter=5, clip=False)
    # each iteration carries what the border assumes 6 pixels further
    np.testing.assert_allclose(ours[31:-31, 31:-31], theirs[31:-31, 31:-31], rtol=1e-9)


@settings(max_examples=8)
@given(seed=st.integers(0, 999), n_iter=st.integers(1, 12), varying=st.booleans())
def test_light_is_kept_without_background(seed, n_iter, varying):
    shape = (24, 31)
    operator = (
        varying_operator(shape, method="tiles") if varying else Convolution(gaussian(7, 1.5), shape)
    )
    image = torch.from_numpy(np.random.default_rng(seed).uniform(1, 100, shape))
    x = richardson_lucy(image, operator, n_iter=n_iter)
    torch.testing.assert_close(operator.forward(x).sum(), image.sum(), rtol=1e-9, atol=0)


def test_light_above_a_background_is_what_the_last_step_explains():
    operator = Convolution(gaussian(7, 1.5), (24, 31))
    image = torch.from_numpy(np.random.default_rng(0).uniform(50, 150, (24, 31)))
    before, after = (richardson_lucy(image, operator, n_iter=n, background=20.0) for n in (7, 8))
    blurred = operator.forward(before)
    explained = (image * blurred / (blurred + 20)).sum()
    torch.testing.assert_close(operator.forward(after).sum(), explained, rtol=1e-9, atol=0)
    converged = operator.forward(richardson_lucy(image, operator, n_iter=200, background=20.0))
    torch.testing.assert_close(converged.sum(), (image - 20).sum(), rtol=2e-2, atol=0)


@pytest.mark.parametrize("background", [0.0, 30.0])
@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("varying", [False, True])
def test_the_likelihood_never_falls(varying, accelerate, background):
    operator = (
        varying_operator(method="tiles") if varying else Convolution(gaussian(9, 2.0), (40, 44))
    )
    _, image = scene(operator)
    image = image + background
    values = []

    def follow(i, x):
        values.append(float(poisson_log_likelihood(image, operator.forward(x) + background)))

    richardson_lucy(
        image, operator, n_iter=30, background=background, accelerate=accelerate, callback=follow
    )
    assert len(values) == 30
    assert np.diff(values).min() >= -1e-9 * abs(values[-1])
    assert values[-1] > values[0] + 1


def test_forty_accelerated_iterations_reach_a_hundred_plain_ones():
    operator = varying_operator((96, 96), 15, torch.float32)
    field, image = scene(operator, photons=1e4)
    truth = operator.crop(field)
    plain, fast = (
        snr(truth, operator.crop(richardson_lucy(image, operator, n_iter=n, accelerate=a)))
        for n, a in ((100, False), (40, True))
    )
    assert plain > snr(truth, image) + 1
    assert fast > plain - 0.1


@pytest.mark.parametrize("lambda_tv", [0.0, 0.004])
@pytest.mark.parametrize("kind", ["cells", "dead-leaves"])
def test_twenty_accelerated_iterations_reach_a_hundred_plain_ones(kind, lambda_tv):
    sharp = torch.from_numpy(1e4 * make_textures(1, size=160, kind=kind, random_state=0)[0])
    psf = crop_psfs(make_psf_model("zernike-1").psf([[0.5]])[0], 1e-3)
    operator = Convolution(psf, [161 - n for n in psf.shape], dtype=torch.float32)
    mean = operator.forward(sharp.float()).clamp(min=0)
    image = torch.poisson(mean, generator=torch.Generator().manual_seed(0))
    plain, fast = (
        richardson_lucy(image, operator, n_iter=n, lambda_tv=lambda_tv, accelerate=a)
        for n, a in ((100, False), (20, True))
    )
    truth = operator.crop(sharp)
    assert snr(truth, operator.crop(plain)) > snr(truth, image) + 1
    assert snr(truth, operator.crop(fast)) > snr(truth, operator.crop(plain)) - 0.1


def test_acceleration_starts_anew_where_it_leads_uphill():
    """Points on black oscillate under extrapolations that are never dropped."""
    operator = Convolution(gaussian(7, 1.0), (40, 44))
    rng = np.random.default_rng(0)
    field = torch.ones(operator.field_shape, dtype=torch.float64)
    field[tuple(rng.integers(4, 40, (2, 30)))] += 1e4
    image = torch.poisson(operator.forward(field), generator=torch.Generator().manual_seed(0))
    values = []

    def follow(i, x):
        values.append(float(poisson_log_likelihood(image, operator.forward(x))))

    richardson_lucy(image, operator, n_iter=150, accelerate=True, callback=follow)
    assert (np.maximum.accumulate(values) - values).max() < 1e-6 * (values[-1] - values[0])


def test_total_variation_helps_where_noise_is_strong():
    operator = varying_operator((96, 96), 15, torch.float32)
    field, image = scene(operator, photons=200)
    truth = operator.crop(field)
    without, with_tv = (
        snr(truth, operator.crop(richardson_lucy(image, operator, n_iter=60, lambda_tv=t)))
        for t in (0.0, 0.02)
    )
    assert with_tv > without + 0.5


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("lambda_tv", [0.0, 0.01])
@pytest.mark.parametrize("scale", [1e-6, 1 / 3, 1e5])
def test_scaling_the_image_scales_the_result(scale, lambda_tv, accelerate):
    operator = varying_operator((24, 25))
    _, image = scene(operator)
    settings = {"n_iter": 8, "lambda_tv": lambda_tv, "accelerate": accelerate}
    x = richardson_lucy(image, operator, background=5.0, **settings)
    scaled = richardson_lucy(scale * image, operator, background=5.0 * scale, **settings)
    torch.testing.assert_close(scaled, scale * x, rtol=1e-7, atol=1e-9 * scale * float(x.max()))


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["black", "constant", "point", "noise", "hole", "bright"])
def test_output_is_finite_and_not_negative(kind, dtype, accelerate):
    # coarse modes make A x negative in places
    operator = varying_operator((24, 30), dtype=dtype, rtol=0.05)
    image = torch.zeros(24, 30, dtype=dtype)
    if kind == "constant":
        image += 7
    elif kind == "point":
        image[12, 3] = 1e6
    elif kind == "noise":
        image = torch.rand(24, 30, dtype=dtype).round()
    elif kind == "hole":
        image += 1
        image[8:16] = 0
    elif kind == "bright":
        image += torch.rand(24, 30, dtype=dtype) * 1e12
    for lambda_tv in (0.0, 0.3):
        x = richardson_lucy(image, operator, n_iter=25, lambda_tv=lambda_tv, accelerate=accelerate)
        assert torch.isfinite(x).all() and (x >= 0).all()
        if kind == "black":
            assert x.max() < 1e-10


def test_a_constant_stays_constant():
    image = torch.full((24, 30), 7.0, dtype=torch.float64)
    one = Convolution(gaussian(9, 1.5), (24, 30))
    x = richardson_lucy(image, one, n_iter=10, lambda_tv=0.01)
    torch.testing.assert_close(one.crop(x), image, rtol=0.01, atol=0)
    varying = varying_operator((24, 30))
    x = richardson_lucy(image, varying, n_iter=10, lambda_tv=0.01)
    torch.testing.assert_close(varying.forward(x), image, rtol=0.02, atol=0)


def test_a_source_just_outside_the_frame_explains_its_light():
    operator = Convolution(gaussian(9, 1.5), (30, 30))
    field = torch.full(operator.field_shape, 10.0, dtype=torch.float64)
    field[2, 19] = 5000  # 2 pixels above the frame
    image = operator.forward(field)
    x = richardson_lucy(image, operator, n_iter=200)
    assert x[1:4, 18:21].sum() > 2500
    assert operator.crop(x).max() < 100


def test_pixels_that_cannot_be_seen_are_left_out():
    operator = Convolution(gaussian(21, 1.0), (20, 20))
    x = richardson_lucy(torch.ones(20, 20), operator, n_iter=3)
    sensitivity = operator.adjoint(torch.ones(20, 20).double())
    assert (x[sensitivity < 0.001] == 0).all()
    assert (x[sensitivity > 0.001] > 0).all()


@pytest.mark.parametrize("accelerate", [False, True])
def test_strips_meet_without_a_seam(accelerate, monkeypatch):
    """An iteration overwrites, strip by strip, what the total variation looks at."""
    operator = varying_operator((40, 44))
    image = torch.stack([scene(operator, seed=i)[1] for i in range(2)])
    options = {"n_iter": 5, "lambda_tv": 0.05, "accelerate": accelerate}
    whole = richardson_lucy(image, operator, **options)
    assert len(list(strips(whole))) == 1
    monkeypatch.setattr("sklearn_psf.operators.row_strips._STRIP_POINTS", 300)
    assert len(list(strips(whole))) > 10
    torch.testing.assert_close(richardson_lucy(image, operator, **options), whole)


def test_images_of_a_batch_do_not_see_each_other():
    operator = varying_operator((24, 25))
    images = torch.stack(
        [scene(operator, photons, seed=i)[1] for i, photons in enumerate((5, 5e3))]
    )
    options = {"n_iter": 15, "lambda_tv": 0.005, "accelerate": True}
    both = richardson_lucy(images, operator, **options)
    for image, x in zip(images, both, strict=True):
        torch.testing.assert_close(richardson_lucy(image, operator, **options), x)


def test_one_start_serves_all_images_of_a_batch():
    operator = varying_operator((24, 25))
    images = torch.stack([scene(operator, seed=i)[1] for i in range(2)])
    start = torch.ones(operator.field_shape, dtype=torch.float64)
    for accelerate in (False, True):
        options = {"n_iter": 4, "x0": start, "accelerate": accelerate, "lambda_tv": 0.01}
        both = richardson_lucy(images, operator, **options)
        assert both.shape == (2, *operator.field_shape)
        torch.testing.assert_close(both[1], richardson_lucy(images[1], operator, **options))


def test_the_image_is_not_changed():
    operator = varying_operator((24, 25), dtype=torch.float32)
    image = scene(operator)[1].numpy()
    before = image.copy()
    richardson_lucy(image, operator, n_iter=3, lambda_tv=0.01, accelerate=True)
    np.testing.assert_array_equal(image, before)
    image.setflags(write=False)
    richardson_lucy(image[::-1], operator, n_iter=1)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's counters")
def test_memory_is_twelve_images_at_most():
    script = """
import numpy as np, torch
from sklearn_psf.operators import Convolution
from sklearn_psf.richardson_lucy import richardson_lucy
torch.set_num_threads(1)

def resident(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def restore(size):
    image = np.ones((size, size), np.float32)
    psf = np.full((63, 63), 1 / 63**2, np.float32)
    before = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    options = {"n_iter": 3, "lambda_tv": 0.01, "accelerate": True}
    richardson_lucy(image, Convolution(psf, image.shape), **options)
    return (resident("VmHWM") - before) / image.nbytes

restore(100)
print(restore(1536))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 3 < float(run.stdout) < 12


def test_continuing_from_a_start():
    operator = varying_operator((24, 25))
    _, image = scene(operator)
    half = richardson_lucy(image, operator, n_iter=4)
    torch.testing.assert_close(
        richardson_lucy(image, operator, n_iter=4, x0=half),
        richardson_lucy(image, operator, n_iter=8),
    )
    start = half.clone()
    for accelerate in (False, True):
        torch.testing.assert_close(
            richardson_lucy(image, operator, n_iter=0, x0=half, accelerate=accelerate), half
        )
    assert torch.equal(half, start)


def test_scale_sets_the_start():
    operator = varying_operator((24, 25))
    x = richardson_lucy(torch.ones(24, 25), operator, n_iter=0, scale=3.0)
    assert x.max() == 3 and operator.crop(x).min() == 3


def test_log_likelihood_is_that_of_scipy():
    rng = np.random.default_rng(0)
    counts, mean = rng.integers(0, 20, (2, 5, 6)), rng.uniform(0.1, 20, (2, 5, 6))
    ours = poisson_log_likelihood(torch.from_numpy(counts).double(), torch.from_numpy(mean))
    np.testing.assert_allclose(ours, poisson.logpmf(counts, mean).sum((1, 2)))
    zero = torch.zeros(3, 3)
    assert poisson_log_likelihood(zero, zero) == 0
    assert poisson_log_likelihood(zero + 1, zero) == -torch.inf
    with pytest.raises(ValueError, match="must have one shape"):
        poisson_log_likelihood(zero, torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": -torch.ones(8, 9)}, "image must be finite and not negative"),
        ({"image": torch.full((8, 9), torch.nan)}, "image must be finite"),
        ({"image": torch.ones(9, 9)}, r"image must have shape \(..., 8, 9\)"),
        ({"background": -1.0}, "background must be finite and not negative"),
        ({"lambda_tv": -0.1}, "lambda_tv must not be negative"),
        ({"lambda_tv": float("nan")}, "lambda_tv must not be negative"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"n_iter": -1}, "n_iter must not be negative"),
        ({"x0": torch.ones(8, 9)}, r"x0 must have shape \(..., 10, 11\)"),
        ({"x0": -torch.ones(10, 11)}, "x0 must be finite and not negative"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"image": torch.ones(8, 9), "operator": Convolution(np.ones((3, 3)) / 9, (8, 9))}
    with pytest.raises(ValueError, match=message):
        richardson_lucy(**(arguments | changes))
