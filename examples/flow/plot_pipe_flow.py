"""
Flow through a pipe from one long exposure
==========================================

While the shutter is open, particles draw streaks. One streak tells how far a particle went across
the image and, by the change of its blur, how far along the optical axis. From a single image comes
the profile of speeds across a pipe, hence how much flows through it.

Everything is simulated here, so that the truth is known: a layer of particles between two upright
walls, out of focus, which moves along the walls and away from the lens at once.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_psf import BlurFlowEstimator
from sklearn_psf.metrics import align_sense
from sklearn_psf.optics import Camera, Optics, make_psf_model
from sklearn_psf.plotting import FlowFieldDisplay
from sklearn_psf.simulation import make_pipe_flow

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=6.5, magnification=20)
EXPOSURE = 0.02  # s
RADIUS = 26.0  # um, half the distance between the walls
DIRECTION = 0.35  # radians from the x axis towards the y axis
SPEED, AXIAL_SPEED, DEPTH = 220.0, 300.0, 9.0  # um/s, um/s, um: on the axis of the pipe

# %%
# The image
# ---------
# The simulation counts in pixels and waves per exposure; the optics bring both to micrometres.


def photograph(size):
    """Return the image (size, size), and v_y, v_x, v_z (um/s) and z0 (um) of every pixel."""
    pixel = OPTICS.object_pixel
    image, _, motion = make_pipe_flow(
        shape=(size, size),
        speed=SPEED * EXPOSURE / pixel,
        axial_speed=OPTICS.micrometres_to_waves(AXIAL_SPEED * EXPOSURE),
        depth=OPTICS.micrometres_to_waves(DEPTH),
        radius=RADIUS / pixel,
        direction=DIRECTION,
        psf_model=make_psf_model("motion", cutoff=OPTICS.cutoff),
        camera=Camera(peak_photons=1e4, read_noise=2.0),
        random_state=0,
    )
    depth = OPTICS.waves_to_micrometres(1.0)
    units = [pixel / EXPOSURE, pixel / EXPOSURE, depth / EXPOSURE, depth]
    return image, motion * np.reshape(units, (4, 1, 1))


# %%
# The profile of speeds
# ---------------------
# All pixels at one distance from the axis of the pipe share one speed, so the median over them is
# far better known than each. Only the length of the motion along the pipe counts here: its sense is
# known as far as the blur tells it. The estimator looks at windows of 128 and 256 pixels, as wide
# as this pipe, so that the profile comes out too flat. It is too fast at the walls, and so the flow
# rate comes out too high.


def distance_from_axis(shape):
    """Return the distance of every pixel from the axis of the pipe, um, (H, W)."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    across = y[:, np.newaxis] * np.cos(DIRECTION) - x * np.sin(DIRECTION)
    return across * OPTICS.object_pixel


def profile(motion, n_bins=20):
    """Return distances from the axis, um, and median speeds along the pipe there, um/s."""
    along = np.abs(motion[0] * np.sin(DIRECTION) + motion[1] * np.cos(DIRECTION))
    edges = np.linspace(-RADIUS, RADIUS, n_bins + 1)
    place = np.digitize(distance_from_axis(along.shape), edges) - 1
    speeds = [np.nanmedian(along[place == k]) for k in range(n_bins)]
    return (edges[1:] + edges[:-1]) / 2, np.array(speeds)


def flow_rate(distances, speeds):
    """Return the flow for each micrometre of the pipe's depth: speed over distance, um^2/s."""
    return float(np.sum(speeds) * (distances[1] - distances[0]))


# %%
# What was found
# --------------


def report(motion, truth, sense):
    """Print a motion (4, H, W) beside the true one; NaN is left out."""
    found, true = profile(motion), profile(truth)
    print(f"{'':34}{'found':>8}{'true':>8}")
    rows = {
        "speed on the axis, um/s": (found[1].max(), true[1].max()),
        "flow for each um of depth, um^2/s": (flow_rate(*found), flow_rate(*true)),
        "axial speed, um/s, median": (np.nanmedian(motion[2]), np.nanmedian(truth[2])),
        "depth, um, median": (np.nanmedian(motion[3]), np.nanmedian(truth[3])),
    }
    for name, row in rows.items():
        print(f"{name:34}" + "".join(f"{value:8.1f}" for value in row))
    error = align_sense(motion[np.newaxis], truth[np.newaxis])[0] - truth
    errors = np.sqrt(np.nanmean(error**2, axis=(1, 2)))
    units = ("v_y {:.0f} um/s", "v_x {:.0f} um/s", "v_z {:.0f} um/s", "z0 {:.1f} um")
    named = ", ".join(unit.format(value) for unit, value in zip(units, errors, strict=True))
    print(f"RMS error of single pixels, the sense aside: {named}")
    print(f"probability that the sense is right: {np.nanmedian(sense):.2f}, median")


# %%
# The pictures
# ------------
# Arrows without a head are motions whose sense the blur does not tell.


def plot(flow, X, found, true):
    """Draw what an estimator sees in an image, and the profile found against the true one."""
    figure, axes = plt.subplots(2, 3, figsize=(16, 8.4), layout="compressed")
    display = FlowFieldDisplay.from_estimator(flow, X, ax=axes[0, 0])
    display.plot("wheel", ax=axes[0, 1])
    display.plot("rgb", ax=axes[0, 2])
    display.plot("axial", ax=axes[1, :2])
    ax = axes[1, 2]
    ax.plot(*true, "k--", label="truth")
    ax.plot(*found, "o-", label="found")
    ax.set(title="profile", xlabel="distance from the axis (um)", ylabel="speed (um/s)")
    ax.set_ylim(0)
    ax.legend()
    return figure


# %%
# All together
# ------------


def main(arguments=None):
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Flow through a pipe from one image")
    parser.add_argument("--size", type=int, default=256, help="of the image, pixels")
    parser.add_argument("--weights", default="motion", help="name or path")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for results")
    options = parser.parse_args(arguments)
    image, truth = photograph(options.size)
    X = image[np.newaxis]
    flow = BlurFlowEstimator(pretrained=options.weights, optics=OPTICS, exposure=EXPOSURE).fit(X)
    outside = np.isnan(truth[0])
    motion = np.where(outside, np.nan, flow.predict(X)[0])
    report(motion, truth, np.where(outside, np.nan, flow.predict_sense(X)[0]))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "pipe_flow.png"
    plot(flow, X, profile(motion), profile(truth)).savefig(path, dpi=80)
    print(f"The picture is in {path}")


if __name__ == "__main__":
    main()
