"""
Autofocus in four images
========================

A motorised microscope is 70 micrometres out of focus: a dozen depths of field. One calibration
stack of another sample is all that is known. The first image says how far focus is, but not on
which side; the second is taken where it tells the two apart; the others pin focus down.

The microscope is simulated, and driven through `pymmcore-plus
<https://pymmcore-plus.github.io/pymmcore-plus/>`_ like a real one: its sample is tilted and drifts,
its stage has a slack of one micrometre, its camera gives noisy 16-bit images. It needs
``pip install sklearn_psf[microscope]``.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_psf import DeepFocusAutofocus
from sklearn_psf.integrations.micromanager import focus_core
from sklearn_psf.integrations.simulated_microscope import SimulatedMicroscope, make_simulated_core
from sklearn_psf.optics import Optics
from sklearn_psf.plotting import FocusCurveDisplay
from sklearn_psf.simulation import make_textures

OPTICS = Optics(na=0.3, wavelength=0.522, pixel_size=0.435)  # 10x

# %%
# Calibration
# -----------
# Once per objective: a stack of any textured object, from -110 to 110 micrometres. The blur that a
# network reads grows evenly to both sides of focus. Neither aperture nor wavelength is given: the
# estimator learns what it needs of them from the stack.

texture = make_textures(1, size=384, kind="dead-leaves", random_state=1)[0]
z = np.linspace(-110, 110, 37)
calibration = SimulatedMicroscope(texture, OPTICS, margin=64, random_state=0).stack(z)
af = DeepFocusAutofocus().fit(calibration, z)
FocusCurveDisplay.from_estimator(af)

# %%
# Another sample, out of focus
# ----------------------------
# Focus is at 12 micrometres, the stage at 82.

sample = make_textures(1, size=384, kind="cells", random_state=6)[0]
scope = SimulatedMicroscope(
    sample,
    OPTICS,
    z_focus=12.0,
    tilt=(3.0, 2.0),
    drift=0.02,
    backlash=1.0,
    margin=64,
    random_state=1,
)
core = make_simulated_core(scope)
core.setPosition(82.0)

# %%
# Step by step
# ------------
# The search is asked where to go and told what was seen there. Below each image is what is known
# after it: the posterior of the position of focus, with the positions of the images so far.

search = af.start(core.getPosition(), limits=(-100, 170), max_images=4)
figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
for step in range(4):
    target = search.suggest()
    core.setPosition(target - 2)  # always from below, against the slack
    core.setPosition(target)
    core.snapImage()
    search.tell(target, core.getImage())
    image, posterior = axes[:, step]
    image.imshow(core.getImage(), cmap="gray")
    image.set(title=f"image {step + 1} at {target:.1f} um", xticks=[], yticks=[])
    grid, density = search.posterior
    posterior.semilogy(grid, np.maximum(density / density.max(), 1e-8))
    for where, _ in search.history:
        posterior.axvline(where, color="C3", lw=1, ls=":")
    result = search.result
    posterior.set(
        title=f"focus at {result.z:.2f} +- {result.std:.2f} um",
        xlabel="stage position (um)",
        ylabel="posterior / maximum" if step == 0 else "",
        ylim=(1e-8, 3),
    )

# %%
# All of it on one curve: the images lie on the calibration, shifted to where focus was found.

FocusCurveDisplay.from_estimator(af, search.result)
print(f"found {search.result.z:.2f} um, true {scope.z_focus:.2f} um")

# %%
# In one call
# -----------
# ``focus_core`` does the same with any core, and leaves the stage in focus, or where it began if
# camera, stage or sample fail.

core.setPosition(-60.0)
result = focus_core(core, af, limits=(-100, 170), max_images=4, backlash=2.0)
core.snapImage()
error = scope.sample_position - scope.z_focus
print(f"{result.n_images} images, {result.reason}; the sample is {error:+.2f} um from focus")

figure, axes = plt.subplots(figsize=(4.4, 4.4), layout="constrained")
axes.imshow(core.getImage(), cmap="gray")
axes.set(title=f"in focus at {result.z:.2f} um", xticks=[], yticks=[])

plt.show()
