"""
Depth of a surface from one astigmatic image
============================================

A weak cylindrical lens in front of the camera makes the blur elongated. Before focus it is
elongated one way, behind focus the other way: the blur of a textured, uneven sample tells its
depth, sign included, from a single image.

Everything is simulated here, so that the truth is known.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_psf import AstigmaticDepthEstimator, PSFParameterRegressor, SpatialPSFMapper
from sklearn_psf.optics import Camera, Optics
from sklearn_psf.plotting import DepthMapDisplay
from sklearn_psf.simulation import make_surface, make_textures, make_tilted_plane

OPTICS = Optics(na=0.4, wavelength=0.52, pixel_size=0.325)
MICROSCOPE = {"optics": OPTICS, "cylinder": 0.4, "axis": 0.3, "camera": Camera(peak_photons=1e4)}

# %%
# Calibration
# -----------
# A plane of known tilt is imaged once. It gives the axis of the lens and the curve from blur to
# micrometres; both are constants of the microscope.

textures = make_textures(2, 512, kind="dead-leaves", random_state=11)
plane, plane_depth = make_tilted_plane(textures[0], tilt=12, random_state=0, **MICROSCOPE)

regressor = PSFParameterRegressor(pretrained="zernike-3")
mapper = SpatialPSFMapper(regressor, stride=32, smoothing=0, optics=OPTICS)
estimator = AstigmaticDepthEstimator()
estimator.fit(mapper.fit_transform(plane[np.newaxis]), plane_depth[np.newaxis])

calibration = estimator.calibration_
print(f"lens: {calibration['cylinder']:.2f} waves RMS at {np.degrees(calibration['axis']):.0f} deg")
print(f"error of single readings: {calibration['rms_error']:.1f} um RMS")

# %%
# The cap of a sphere
# -------------------
# Another texture, another shape, the same microscope.

image, depth = make_surface(
    textures[1], shape="sphere", height=20.0, offset=0.0, random_state=1, **MICROSCOPE
)
maps = mapper.transform(image[np.newaxis])
z, std = estimator.predict(maps, return_std=True)
score = estimator.score(maps, depth[np.newaxis])
print(f"R2 {score:.3f}, typical error bar {np.nanmedian(std):.2f} um")

# %%
# The pictures
# ------------

figure = plt.figure(figsize=(15, 4.2), layout="constrained")
axes = figure.add_subplot(1, 4, 1)
axes.imshow(image, cmap="gray")
axes.set(title="image", xticks=[], yticks=[])
truth = depth[np.newaxis]
for k, kind in enumerate(("map", "profile", "surface"), start=2):
    axes = figure.add_subplot(1, 4, k, projection="3d" if kind == "surface" else None)
    DepthMapDisplay.from_estimator(estimator, maps, truth, kind=kind, ax=axes)

# %%
# The surface as points in space, for other programs: x, y and z in micrometres.

points = estimator.points(maps)
print(points.shape, points[0].round(1))
plt.show()
