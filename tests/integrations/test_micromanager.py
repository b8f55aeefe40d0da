import numpy as np
import pytest
import useq
from pymmcore_plus import CMMCorePlus

from sklearn_psf import DeepFocusAutofocus
from sklearn_psf.integrations.micromanager import (
    MicroscopeError,
    focus_core,
    keep_focus,
    make_focus_engine,
)
from sklearn_psf.integrations.simulated_microscope import SimulatedMicroscope, make_simulated_core
from sklearn_psf.optics import Optics
from sklearn_psf.simulation import make_textures

OPTICS = Optics(na=0.3, wavelength=0.522, pixel_size=0.435)
DEPTH_OF_FIELD = 5.8
LIMITS = (-95.0, 95.0)


def microscope(kind="dead-leaves", seed=3, **options):
    texture = make_textures(1, size=320, kind=kind, random_state=seed)[0]
    return SimulatedMicroscope(texture, OPTICS, random_state=seed, **options)


@pytest.fixture(scope="module")
def autofocus():
    z = np.r_[-110:-50:12.0, -48:49:6.0, 58:111:12.0]
    return DeepFocusAutofocus(optics=OPTICS).fit(microscope(seed=1).stack(z), z)


class Broken(SimulatedMicroscope):
    """Fails as it is told to."""

    snaps_left, waits_left, deaf = 99, 99, False

    def snapImage(self):
        self.snaps_left -= 1
        if self.snaps_left < 0:
            raise RuntimeError("camera timed out")
        super().snapImage()

    def waitForDevice(self, label):
        self.waits_left -= 1
        if self.waits_left == -1:
            raise RuntimeError(f"wait for device {label!r} timed out")

    def setPosition(self, z):
        if not self.deaf:
            super().setPosition(z)


def broken(position, **state):
    texture = make_textures(1, size=320, kind="cells", random_state=3)[0]
    scope = Broken(texture, OPTICS, random_state=3)
    scope.setPosition(position)
    for name, value in state.items():
        setattr(scope, name, value)
    return scope


# ---- Through pymmcore-plus ----


@pytest.mark.parametrize("start", [80.0, -63.0])
def test_simulated_microscope_through_the_core(autofocus, start):
    scope = microscope(z_focus=7.0, tilt=(3.0, 2.0), drift=0.05, backlash=1.0)
    core = make_simulated_core(scope)
    core.setPosition(start)
    result = focus_core(core, autofocus, limits=LIMITS, max_images=5, backlash=2.0)
    assert result.n_images == scope.n_images == 5
    assert abs(scope.sample_position - scope.z_focus) < 1
    assert core.getPosition() == pytest.approx(result.z)
    assert core.getImage().dtype == np.uint16


def test_demo_camera_is_driven():
    """The demo camera shows the same pattern everywhere: what counts is what happens to it."""
    core = CMMCorePlus()
    core.loadSystemConfiguration("MMConfig_demo.cfg")
    core.setPosition(10.0)
    visited = []
    core.events.stagePositionChanged.connect(lambda device, z: visited.append(z))
    af = DeepFocusAutofocus("tenengrad", optics=OPTICS)
    z = np.linspace(-60, 60, 21)
    af.fit(microscope(seed=1).stack(z), z)
    result = focus_core(core, af, limits=(0.0, 30.0), max_images=3)
    assert result.n_images == 3 and np.isfinite([score for _, score in result.history]).all()
    assert 0 <= result.z <= 30
    assert core.getPosition() == pytest.approx(result.z, abs=0.1)
    positions = [z for z, _ in result.history]
    assert positions[0] == 10.0 and len(set(positions)) == 3
    assert all(0 <= z <= 30 for z in visited)


def faint_microscope():
    """Twelve dim points on much light, far out of focus."""
    texture = np.ones((320, 320))
    texture[tuple(np.random.default_rng(3).integers(0, 320, (2, 12)))] += 2.0
    scope = SimulatedMicroscope(texture, OPTICS, z_focus=60.0, random_state=0)
    scope.setPosition(-60.0)
    return scope


def test_the_stage_goes_back_from_an_open_focus_if_asked(autofocus):
    options = dict(limits=LIMITS, max_images=2)
    guess = faint_microscope()
    result = focus_core(guess, autofocus, go_back=(), **options)
    assert result.reason in ("uncertain", "textureless")
    assert guess.position == pytest.approx(result.z)
    back = faint_microscope()
    focus_core(back, autofocus, go_back=("uncertain", "textureless"), **options)
    assert back.position == -60.0
    series = faint_microscope()
    keep_focus(series, autofocus, 1, 0.0, limits=LIMITS, max_images=2)
    assert series.position == -60.0


@pytest.mark.parametrize("events", ["plan", "action"])
def test_engine_of_acquisition_sequences(autofocus, events):
    scope = microscope(z_focus=4.0, drift=0.3)
    core = make_simulated_core(scope)
    core.setPosition(30.0)
    engine = make_focus_engine(core, autofocus, limits=LIMITS, max_images=4)
    core.register_mda_engine(engine)
    frames = []
    core.mda.events.frameReady.connect(lambda image, event: frames.append(core.getPosition()))
    plan = useq.AxesBasedAF(autofocus_motor_offset=0.0, axes=("t",))
    sequence = useq.MDASequence(
        stage_positions=[(None, None, 30.0)],
        time_plan={"interval": 0, "loops": 2},
        autofocus_plan=plan,
        axis_order="tp",
    )
    if events == "action":
        focusing = useq.MDAEvent(action=useq.HardwareAutofocus(), index={"p": 0})
        sequence = [focusing, useq.MDAEvent(index={"p": 0}, z_pos=30.0)]
    core.mda.run(sequence)
    expected = 2 if events == "plan" else 1
    assert len(engine.focus_results) == len(frames) == expected
    for z, result in zip(frames, engine.focus_results, strict=True):
        assert z == pytest.approx(result.z, abs=0.01)
        assert result.z == pytest.approx(4.0, abs=4.0)


# ---- A time lapse ----


def test_time_lapse_stays_in_focus(autofocus):
    scope = microscope(drift=0.4, backlash=1.0)
    scope.setPosition(10.0)
    seen = []
    images, results = keep_focus(
        scope,
        autofocus,
        4,
        0.0,
        every=2,
        limits=LIMITS,
        max_images=3,
        backlash=2.0,
        on_frame=lambda i, image, result: seen.append(scope.sample_position - scope.z_focus),
    )
    assert images.shape == (4, 256, 256) and images.dtype == np.uint16
    assert [r.n_images for r in results] == [3, 0, 3, 0]
    assert max(map(abs, seen)) < DEPTH_OF_FIELD / 2
    assert scope.z_focus == pytest.approx(0.4 * 10)


def test_time_lapse_goes_on_after_a_failed_search(autofocus):
    scope = broken(0.0, waits_left=2)
    images, results = keep_focus(scope, autofocus, 2, 0.0, limits=LIMITS, max_images=3)
    assert [r.reason for r in results] == ["error", "max_images"]
    assert len(images) == 2 and abs(scope.position) < 1


def test_time_lapse_waits(autofocus):
    waited = []
    scope = microscope()
    keep_focus(scope, autofocus, 2, 100.0, every=5, limits=LIMITS, sleep=waited.append)
    assert waited[0] == 0 and 50 < waited[1] <= 100


# ---- What goes wrong ----


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"snaps_left": 2}, "camera timed out"),
        ({"waits_left": 1}, "timed out"),
        ({"deaf": True}, "reports"),
    ],
)
def test_failures_bring_the_stage_back(state, words, autofocus):
    scope = broken(30.0, **state)
    with pytest.raises(MicroscopeError, match=words):
        focus_core(scope, autofocus, limits=LIMITS)
    assert scope.position == 30.0


def test_an_interrupt_brings_the_stage_back(autofocus):
    scope = broken(30.0)

    def interrupt(label):
        if scope.position != 30.0:
            scope.waitForDevice = lambda label: None
            raise KeyboardInterrupt

    scope.waitForDevice = interrupt
    with pytest.raises(KeyboardInterrupt):
        focus_core(scope, autofocus, limits=LIMITS)
    assert scope.position == 30.0


def test_a_lost_sample_brings_the_stage_back(autofocus):
    scope = SimulatedMicroscope(np.full((320, 320), 0.3), OPTICS, random_state=0)
    scope.setPosition(20.0)
    result = focus_core(scope, autofocus, limits=LIMITS)
    assert result.reason == "textureless" and scope.position == 20.0


def test_limits_hold_for_backlash_moves_too(autofocus):
    scope = microscope(z_focus=-28.0)
    scope.setPosition(-20.0)
    visited, move = [], scope.setPosition
    scope.setPosition = lambda z: (visited.append(z), move(z))
    focus_core(scope, autofocus, limits=(-30.0, 30.0), backlash=5.0)
    assert min(visited) >= -30 and max(visited) <= 30


def test_bad_input(autofocus):
    scope = microscope()
    with pytest.raises(TypeError, match="af"):
        focus_core(scope, "autofocus")
    with pytest.raises(ValueError, match="limits"):
        focus_core(scope, autofocus, limits=(10.0, 20.0))
    with pytest.raises(ValueError, match="n_frames"):
        keep_focus(scope, autofocus, 0, 1.0)
    scope.getFocusDevice = lambda: ""
    with pytest.raises(MicroscopeError, match="no focus device"):
        focus_core(scope, autofocus)
