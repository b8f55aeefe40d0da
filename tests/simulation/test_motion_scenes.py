import numpy as np
import pytest
from scipy.ndimage import label
from scipy.signal import fftconvolve

from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import make_motion_scene, make_particles, make_pipe_flow, make_vortex

FAMILY = make_psf_model("motion", size=31)
TEXTURE = np.random.default_rng(0).uniform(0, 50, (40, 56))
SMALL = {"shape": (48, 40), "psf_model": FAMILY, "spacing": 16, "random_state": 0}
STEP = 1 / 64  # of a profile of speeds
ANGLES = [0.0, 0.7, np.pi / 2, -2.5]


def centred(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2


def one_particle(size=95, diameter=2.0):
    image = np.zeros((size, size))
    middle = size // 2
    y, x = np.mgrid[-3:4, -3:4]
    image[middle - 3 : middle + 4, middle - 3 : middle + 4] = np.clip(
        diameter / 2 + 0.5 - np.hypot(y, x), 0, 1
    )
    return image


def photograph(motion):
    """The streak of one particle in the middle, and the truth."""
    family = make_psf_model("motion", size=95)
    blurred, _, truth = make_motion_scene(one_particle(), [motion], psf_model=family)
    return blurred.astype(float), truth


def moments(image, direction):
    """Mean along a direction, and second moments along and across it."""
    y, x = centred(image.shape)
    image = image / image.sum()
    along = y * np.sin(direction) + x * np.cos(direction)
    across = x * np.sin(direction) - y * np.cos(direction)
    mean = (image * along).sum()
    return mean, (image * (along - mean) ** 2).sum(), (image * across**2).sum()


# ---- Particles ----


@pytest.mark.parametrize("diameter", [2.5, 4.0, 7.5])
def test_a_particle_is_a_disk_of_its_diameter(diameter):
    sums = []
    for seed in range(20):
        image = make_particles((64, 64), density=1 / 64**2, diameter=diameter, random_state=seed)
        if not image.any():
            continue  # beyond the border
        if image[:8].any() or image[-8:].any() or image[:, :8].any() or image[:, -8:].any():
            continue  # cut by the border
        y, x = np.nonzero(image)
        assert max(np.ptp(y), np.ptp(x)) <= diameter + 1
        sums.append(image.sum() / image.max())
    # A disk whose border is one pixel of linear fall.
    assert np.median(sums) == pytest.approx(np.pi * (diameter**2 / 4 + 1 / 12), rel=0.08)


def test_particles_are_as_many_as_asked_anywhere_and_half_to_fully_bright():
    image = make_particles((400, 500), density=4e-4, diameter=2.0, random_state=1)
    assert image.shape == (400, 500) and image.dtype == np.float64
    assert image.min() == 0 and image.max() == 1
    pieces, n = label(image > 0)
    assert n == pytest.approx(80, abs=8)  # some touch, some lie beyond the border by half
    places = np.array([np.argwhere(pieces == k).mean(0) for k in range(1, n + 1)])
    upper_left = places < np.array(image.shape) / 2
    np.testing.assert_allclose(upper_left.mean(0), 0.5, atol=0.2)
    whole = np.array([image[pieces == k].max() for k in range(1, n + 1)])
    assert 0.4 < np.quantile(whole, 0.1) < 0.65 < np.quantile(whole, 0.9) <= 1


def test_dense_particles_overlap():
    image = make_particles((64, 64), density=0.3, diameter=4.0, random_state=0)
    assert (image > 0).mean() > 0.9 and image.max() == 1


# ---- Regions ----


def test_each_region_moves_by_itself_and_the_truth_says_so():
    y, x = np.indices(TEXTURE.shape)
    regions = (2 * y + x > 60).astype(int)
    motions = np.array([[0, 6, 0.3, 0.4], [5, -2, 0.1, 0.2]])
    blurred, sharp, truth = make_motion_scene(TEXTURE, motions, regions=regions, psf_model=FAMILY)
    assert truth.shape == (4, *TEXTURE.shape)
    np.testing.assert_array_equal(truth, np.moveaxis(motions[regions], -1, 0))
    np.testing.assert_allclose(sharp, TEXTURE, rtol=1e-6)
    # Every region sends its light by its own PSF, and the image is the sum.
    expected = 0
    for k, psf in enumerate(FAMILY.psf(motions.astype(np.float32))):
        light = np.pad(TEXTURE, 15, mode="symmetric")
        own = np.pad(regions == k, 15, mode="edge")
        expected = expected + fftconvolve(light * own, psf, mode="valid")
    np.testing.assert_allclose(blurred, expected, rtol=0.01, atol=0.01 * TEXTURE.max())


def test_regions_by_chance_are_connected_and_seeded():
    motions = np.eye(4) * [5, 5, 0.5, 0.5]
    arguments = {"psf_model": FAMILY, "camera": Camera(peak_photons=1e3)}
    first, again, other = (
        make_motion_scene(TEXTURE, motions, random_state=seed, **arguments) for seed in (3, 3, 4)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[2] != other[2]).any()
    for k in range(4):
        where = (first[2] == motions[k][:, None, None]).all(0)
        assert where.any() and label(where)[1] == 1


@pytest.mark.parametrize("maker", [make_pipe_flow, make_vortex])
def test_same_seed_same_flow(maker):
    camera = Camera(peak_photons=1e3)
    first, again, other = (
        maker(**SMALL | {"random_state": seed}, camera=camera) for seed in (5, 5, 6)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).any() and (first[1] != other[1]).any()
    np.testing.assert_array_equal(first[2], other[2])  # the flow is not drawn by chance


# ---- Pipe ----


@pytest.mark.parametrize("direction", ANGLES)
@pytest.mark.parametrize("profile", ["poiseuille", "plug"])
def test_pipe_has_its_profile_and_nothing_outside(profile, direction):
    radius, speed, axial = 14.0, 6.0, 0.3
    blurred, sharp, truth = make_pipe_flow(
        profile=profile,
        radius=radius,
        speed=speed,
        axial_speed=axial,
        depth=0.2,
        direction=direction,
        **SMALL,
    )
    y, x = centred(sharp.shape)
    distance = np.abs(y * np.cos(direction) - x * np.sin(direction))
    inside = distance <= radius
    assert inside.any() and not inside.all()
    np.testing.assert_array_equal(np.isnan(truth), np.broadcast_to(~inside, truth.shape))
    assert (sharp[~inside] == 0).all() and sharp[inside].max() > 0 and blurred[~inside].max() > 0
    share = 1 - (distance / radius) ** 2 if profile == "poiseuille" else np.ones(sharp.shape)
    velocity = (speed * np.sin(direction), speed * np.cos(direction), axial)
    for component, largest in zip(truth, velocity, strict=False):
        allowed = abs(largest) * STEP / 2 + 1e-12
        np.testing.assert_allclose(component[inside], largest * share[inside], atol=allowed)
    assert (truth[3, inside] == 0.2).all()


def test_pipe_carries_the_texture_it_is_given():
    _, sharp, truth = make_pipe_flow(TEXTURE, radius=12, psf_model=FAMILY, spacing=16)
    inside = ~np.isnan(truth[0])
    np.testing.assert_allclose(sharp[inside], TEXTURE[inside], rtol=1e-6)
    assert (sharp[~inside] == 0).all()


# ---- Vortex ----


@pytest.mark.parametrize("speed", [5.0, -5.0])
def test_vortex_turns_as_a_body_inside_and_freely_outside(speed):
    core = 9.0
    _, sharp, truth = make_vortex(speed=speed, core=core, axial_speed=0.2, depth=0.1, **SMALL)
    y, x = centred(sharp.shape)
    radius = np.hypot(y, x)
    allowed = 2 * abs(speed) * STEP
    along = (truth[0] * y + truth[1] * x) / radius
    around = (truth[0] * x - truth[1] * y) / radius  # from x towards y
    np.testing.assert_allclose(along, 0, atol=allowed)
    expected = speed * np.minimum(radius / core, core / radius)
    np.testing.assert_allclose(around, expected, atol=allowed)
    assert (truth[2] == 0.2).all() and (truth[3] == 0.1).all()


# ---- The picture agrees with the truth ----


@pytest.mark.parametrize("direction", ANGLES)
def test_a_streak_is_as_long_as_the_motion_and_lies_along_it(direction):
    speed = 12.0
    blurred, truth = photograph([speed * np.sin(direction), speed * np.cos(direction), 0.0, 0.0])
    v_y, v_x = truth[:2, 47, 47]
    mean, along, across = moments(blurred, np.arctan2(v_y, v_x))
    assert mean == pytest.approx(0, abs=0.02)  # the middle of the exposure
    # What the lens adds is round; the path adds the variance of a uniform distribution.
    assert along - across == pytest.approx(np.hypot(v_y, v_x) ** 2 / 12, rel=0.05)
    still, _ = photograph([0.0, 0.0, 0.0, 0.0])
    assert across == pytest.approx(moments(still, direction)[2], rel=0.05)


@pytest.mark.parametrize("direction", ANGLES)
def test_the_motion_points_to_the_blurred_end(direction):
    blurred, truth = photograph([12 * np.sin(direction), 12 * np.cos(direction), 0.8, 0.6])
    assert truth[2, 0, 0] > 0 and truth[3, 0, 0] > 0
    peak = np.array(np.unravel_index(blurred.argmax(), blurred.shape)) - 47
    assert peak @ truth[:2, 47, 47] < -10  # in pixels squared: the sharp end lies behind
    assert abs(moments(blurred, direction)[0]) < 0.3  # but the light is in the middle


def test_blurs_that_cannot_be_told_apart():
    blurred, _ = photograph([6.0, 9.0, 0.5, 0.4])
    for motion in ([-6.0, -9.0, -0.5, 0.4], [6.0, 9.0, -0.5, -0.4]):
        np.testing.assert_allclose(photograph(motion)[0], blurred, atol=1e-5 * blurred.max())
    reversed_, _ = photograph([-6.0, -9.0, 0.5, 0.4])
    assert abs(reversed_ - blurred).max() > 0.2 * blurred.max()


def test_a_known_cylinder_tells_the_side_of_focus():
    streaks = {}
    for cylinder in (0.0, 0.3):
        family = make_psf_model("motion", size=63, cylinder=cylinder)
        streaks[cylinder] = [
            make_motion_scene(one_particle(63), [[2.0, 5.0, 0.0, z0]], psf_model=family)[0]
            for z0 in (0.4, -0.4)
        ]
    for cylinder, (above, below) in streaks.items():
        differ = abs(above - below).max() / above.max()
        assert differ > 0.2 if cylinder else differ < 1e-4


# ---- Bad arguments ----


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"shape": (64,)}, r"shape must be \(height, width\), got \(64,\)"),
        ({"shape": (64, 4)}, r"shape must be in \[8, inf\), got 4"),
        ({"density": 0}, r"density must be in \(0, 1\], got 0"),
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
        ({"diameter": 0.1}, r"diameter must be in \[0.5, inf\), got 0.1"),
    ],
)
def test_bad_particles(arguments, match):
    with pytest.raises(ValueError, match=match):
        make_particles(**{"shape": (64, 64)} | arguments)


MOTION = [[0.0, 3.0, 0.1, 0.1]]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"image": TEXTURE[0]}, ValueError, r"image must be one image \(H, W\), got shape \(56,\)"),
        ({"image": -TEXTURE}, ValueError, "image must be non-negative"),
        ({"motions": [[1, 2, 3]]}, ValueError, r"motions must have shape \(k, 4\), got \(1, 3\)"),
        ({"motions": [[0, 0, 0, np.nan]]}, ValueError, "motions must be finite"),
        ({"regions": np.zeros((3, 3))}, ValueError, r"shape \(40, 56\).*got shape \(3, 3\)"),
        ({"regions": np.ones(TEXTURE.shape)}, ValueError, "values 0 to 0.*values 1.0 to 1.0"),
        ({"psf_model": "zernike-1"}, ValueError, "family 'motion', got 'zernike-1'"),
        ({"camera": 3}, TypeError, "camera must be a Camera or None, got 3"),
    ],
)
def test_bad_scenes(arguments, error, match):
    with pytest.raises(error, match=match):
        make_motion_scene(**{"image": TEXTURE, "motions": MOTION} | arguments)


@pytest.mark.parametrize("maker", [make_pipe_flow, make_vortex])
@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", np.inf), ("axial_speed", np.nan), ("depth", "deep"), ("spacing", 0)],
)
def test_bad_flows(maker, name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} must .*{value}"):
        maker(**SMALL | {name: value})


@pytest.mark.parametrize(
    ("maker", "name", "value"),
    [
        (make_pipe_flow, "profile", "turbulent"),
        (make_pipe_flow, "radius", 0.5),
        (make_pipe_flow, "direction", np.nan),
        (make_vortex, "core", 0.0),
    ],
)
def test_bad_shapes_of_flows(maker, name, value):
    with pytest.raises(ValueError, match=f"{name} must .*{value}"):
        maker(**SMALL, **{name: value})
