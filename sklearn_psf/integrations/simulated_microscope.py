"""A microscope in memory, to try autofocus on: alone, or as devices of pymmcore-plus."""

import numpy as np
from sklearn.utils import check_random_state

from .._validation import check_number
from ..optics import Camera
from ..simulation import make_focal_stack

__all__ = ["SimulatedMicroscope", "make_simulated_core"]

_CAMERA = Camera(peak_photons=8000, read_noise=2.0, offset=100.0, bits=16)
_LABELS = ("Camera", "Z")


class SimulatedMicroscope:
    """A tilted, drifting sample under a stage with slack, seen by a noisy 16-bit camera.

    It has the calls of Micro-Manager's core that autofocus needs.

    Parameters
    ----------
    texture : array-like of shape (H, W)
        Sharp sample, non-negative.
    optics : Optics
        Microscope.
    z_focus : float, default=0.0
        Stage position of focus at the centre of the image, micrometres.
    tilt : (float, float), default=(0.0, 0.0)
        As for `make_focal_stack`.
    drift : float, default=0.0
        By how much focus moves from image to image, micrometres.
    backlash : float, default=0.0
        Slack of the gear: the sample follows the stage when the slack is taken up, micrometres.
    margin : int, default=32
        Pixels of sample beyond the frame.
    camera : Camera or None
        None: 8000 peak photons in focus, 16 bits.
    random_state : int, RandomState or None
        Seed of the noise.

    Attributes
    ----------
    position : float
        What the stage's scale says, micrometres.
    sample_position : float
        Where the sample is; behind by the slack after a move downwards.
    n_images : int
        Images taken.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf.optics import Optics
    >>> optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.43)
    >>> scope = SimulatedMicroscope(np.ones((128, 128)), optics, backlash=1.0, random_state=0)
    >>> scope.setPosition(5.0)
    >>> scope.setPosition(2.0)
    >>> scope.position, scope.sample_position
    (2.0, 3.0)
    """

    def __init__(
        self,
        texture,
        optics,
        *,
        z_focus=0.0,
        tilt=(0.0, 0.0),
        drift=0.0,
        backlash=0.0,
        margin=32,
        camera=None,
        random_state=None,
    ):
        for name, value in (("z_focus", z_focus), ("drift", drift)):
            check_number(name, value)
        check_number("backlash", backlash, low=0)
        self.texture, self.optics, self.margin = np.asarray(texture), optics, margin
        self.z_focus, self.tilt, self.drift, self.backlash = z_focus, tilt, drift, backlash
        self.camera = _CAMERA if camera is None else camera
        self.position = self.sample_position = 0.0
        self.n_images, self._image = 0, None
        self._rng = check_random_state(random_state)
        in_focus = self._blur(np.zeros(1))[0]
        self._gain = self.camera.peak_photons / max(in_focus.max(), 1e-12)
        self.shape = in_focus.shape

    def _blur(self, offsets):
        return make_focal_stack(
            self.texture, offsets, optics=self.optics, tilt=self.tilt, margin=self.margin
        )

    def _expose(self, photons):
        seed = int(self._rng.randint(2**31 - 1))
        return self.camera.expose(photons, generator=seed).astype(np.uint16)

    def stack(self, z):
        """Return a calibration stack, without drift and slack.

        Parameters
        ----------
        z : array-like of shape (n,)
            Stage positions, micrometres.

        Returns
        -------
        ndarray of shape (n, H, W)
            Grey values, uint16.
        """
        return self._expose(self._blur(np.asarray(z) - self.z_focus) * self._gain)

    def snap(self):
        """Take an image (H, W), uint16; the sample drifts after it."""
        photons = self._blur(np.array([self.sample_position - self.z_focus]))[0] * self._gain
        self.n_images += 1
        self.z_focus += self.drift
        return self._expose(photons)

    def getFocusDevice(self):
        """Return the label of the focus drive."""
        return _LABELS[1]

    def getPosition(self):
        """Return what the stage's scale says, micrometres."""
        return self.position

    def setPosition(self, z):
        """Move the stage; the sample follows when the slack is taken up."""
        self.position = float(z)
        # The sample is dragged: never more than the slack above the scale, never below it.
        self.sample_position = float(
            np.clip(self.sample_position, self.position, self.position + self.backlash)
        )

    def waitForDevice(self, label):
        """Wait for nothing: moves take no time."""

    def snapImage(self):
        """Take an image and keep it."""
        self._image = self.snap()

    def getImage(self):
        """Return the image kept."""
        return self._image


def make_simulated_core(microscope):
    """Put a simulated microscope under the control of pymmcore-plus.

    Parameters
    ----------
    microscope : SimulatedMicroscope
        The microscope.

    Returns
    -------
    pymmcore_plus.experimental.unicore.UniMMCore
        A core whose camera and focus drive are those of the microscope.

    Raises
    ------
    ImportError
        If pymmcore-plus is not installed.
    """
    try:
        from pymmcore_plus.experimental.unicore import SimpleCameraDevice, StageDevice, UniMMCore
    except ImportError:
        raise ImportError(
            "The core needs pymmcore-plus: pip install sklearn_psf[microscope]"
        ) from None

    core = UniMMCore()
    devices = _make_devices(microscope, SimpleCameraDevice, StageDevice)
    for label, device in zip(_LABELS, devices, strict=True):
        core.loadPyDevice(label, device)
        core.initializeDevice(label)
    core.setAutoShutter(False)  # there is no shutter to open
    core.setCameraDevice(_LABELS[0])
    core.setFocusDevice(_LABELS[1])
    return core


def _make_devices(microscope, SimpleCameraDevice, StageDevice):
    """Return camera and focus drive of a microscope, of the base classes of pymmcore-plus."""

    class SimulatedCamera(SimpleCameraDevice):
        exposure = 10.0

        def get_exposure(self):
            return self.exposure

        def set_exposure(self, exposure):
            self.exposure = exposure

        def dtype(self):
            return np.uint16

        def sensor_shape(self):
            return microscope.shape

        def snap(self, buffer):
            buffer[:] = microscope.snap()
            return {}

    class SimulatedStage(StageDevice):
        def set_position_um(self, val):
            microscope.setPosition(val)

        def get_position_um(self):
            return microscope.getPosition()

        def home(self):
            microscope.setPosition(0.0)

        def stop(self):
            pass

        def set_origin(self):
            pass

        def busy(self):
            return False

    return SimulatedCamera(), SimulatedStage()
