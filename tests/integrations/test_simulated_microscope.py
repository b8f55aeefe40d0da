import numpy as np
import pytest

from sklearn_psf.integrations.simulated_microscope import SimulatedMicroscope
from sklearn_psf.optics import Optics

OPTICS = Optics(na=0.3, wavelength=0.522, pixel_size=0.435)
TEXTURE = np.random.default_rng(0).random((128, 128))


def test_slack_is_taken_up_before_the_sample_follows():
    scope = SimulatedMicroscope(TEXTURE, OPTICS, backlash=1.0, random_state=0)
    places = []
    for z in (5.0, 4.5, 3.0, 3.5, 6.0):
        scope.setPosition(z)
        places.append(scope.sample_position)
    assert places == [5.0, 5.0, 4.0, 4.0, 6.0]


def test_drift_moves_focus_with_each_image():
    scope = SimulatedMicroscope(TEXTURE, OPTICS, drift=0.5, random_state=0)
    for _ in range(3):
        scope.snapImage()
    assert scope.z_focus == 1.5 and scope.n_images == 3
    assert scope.getImage().dtype == np.uint16


def test_stack_and_images_share_exposure():
    scope = SimulatedMicroscope(TEXTURE, OPTICS, z_focus=3.0, random_state=0)
    scope.setPosition(3.0)
    image, plane = scope.snap().astype(float), scope.stack([3.0])[0].astype(float)
    assert image.mean() == pytest.approx(plane.mean(), rel=0.01)
    assert image.max() == pytest.approx(8100, rel=0.1)


def test_bad_input():
    with pytest.raises(ValueError, match="backlash"):
        SimulatedMicroscope(TEXTURE, OPTICS, backlash=-1.0)
