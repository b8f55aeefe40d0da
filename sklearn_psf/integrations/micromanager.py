"""Autofocus on a microscope run by Micro-Manager's core (pymmcore, pymmcore-plus).

`focus_core` and `keep_focus` need nothing but an object with the calls of CMMCore. The engine for
acquisition sequences needs pymmcore-plus: ``pip install sklearn_psf[microscope]``.
"""

import time
from dataclasses import replace

import numpy as np

from .._validation import check_number
from ..autofocus import DeepFocusAutofocus, FocusResult

__all__ = ["MicroscopeError", "focus_core", "keep_focus", "make_focus_engine"]

_IN_A_SERIES = ("textureless", "uncertain")  # the last focus is a better guess
_ARRIVED = 1.0  # largest distance between where a stage was sent and where it says it is, um


class MicroscopeError(RuntimeError):
    """Camera or stage failed; the stage was sent back to where it began."""


def focus_core(
    core,
    af,
    *,
    limits=None,
    max_images=4,
    tol=None,
    backlash=0.0,
    tolerance=_ARRIVED,
    go_back=("textureless",),
):
    """Focus the microscope with its current focus drive and camera.

    Parameters
    ----------
    core : CMMCore
        Anything with its calls: getFocusDevice, getPosition, setPosition, waitForDevice,
        snapImage, getImage.
    af : DeepFocusAutofocus
        Calibrated.
    limits : (float, float) or None
        Stage positions never to be left, micrometres. None: half of ``af.range_`` to both sides.
    max_images : int, default=4
        Dose limit.
    tol : float or None
        Standard deviation at which to stop early, micrometres.
    backlash : float, default=0.0
        Positions are approached by moves of at least this much in the direction of its sign,
        micrometres. Give more than the slack of the drive.
    tolerance : float, default=1.0
        How far from its order the stage may report to be, micrometres.
    go_back : tuple of str, default=("textureless",)
        Reasons of a result for which the stage goes back to where it began. Add "uncertain" where
        the present position is a better guess than what the images leave open.

    Returns
    -------
    FocusResult
        The stage stands at ``result.z``, or at where it began.

    Raises
    ------
    MicroscopeError
        If the camera fails or the stage does not arrive. The stage is back where it began.
    ValueError
        If the stage begins beyond the limits, or an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_psf import DeepFocusAutofocus
    >>> from sklearn_psf.integrations.simulated_microscope import SimulatedMicroscope
    >>> from sklearn_psf.optics import Optics
    >>> from sklearn_psf.simulation import make_textures
    >>> optics = Optics(na=0.3, wavelength=0.52, pixel_size=0.43)
    >>> texture = make_textures(1, size=192, kind="dead-leaves", random_state=0)[0]
    >>> scope = SimulatedMicroscope(texture, optics, z_focus=5.0, random_state=0)
    >>> z = np.linspace(-60, 60, 13)
    >>> af = DeepFocusAutofocus("tenengrad", optics=optics).fit(scope.stack(z), z)
    >>> result = focus_core(scope, af, limits=(-30, 30))
    >>> abs(result.z - 5.0) < 0.5, result.n_images
    (True, 4)
    """
    _check_autofocus(af)
    check_number("backlash", backlash)
    check_number("tolerance", tolerance, low=0, open_low=True)
    device = core.getFocusDevice()
    if not device:
        raise MicroscopeError("The core has no focus device.")
    began = float(core.getPosition())
    search = af.start(began, limits, max_images=max_images, tol=tol)
    low, high = search.limits

    def move(z):
        core.setPosition(float(np.clip(z, low, high)))
        core.waitForDevice(device)
        return float(core.getPosition())

    def approach(z):
        if backlash:
            move(z - backlash)
        there = move(z)
        if abs(there - z) > tolerance:
            raise RuntimeError(f"the stage was sent to {z:.2f} um and reports {there:.2f} um")
        return float(np.clip(there, low, high))

    try:
        while not search.done:
            z = approach(search.suggest())
            core.snapImage()
            search.tell(z, np.asarray(core.getImage()))
        result = search.result
        approach(began if result.reason in go_back else result.z)
    except BaseException as error:  # an interrupt leaves no stage in mid-air either
        _return(core, device, began, error)
        if isinstance(error, (RuntimeError, OSError, TimeoutError)):
            raise MicroscopeError(f"Focusing ended: {error}. The stage is back.") from error
        raise
    return result


def _return(core, device, began, error):
    """Send the stage back; if even that fails, say so beside the first error."""
    try:
        core.setPosition(began)
        core.waitForDevice(device)
    except Exception as second:
        error.add_note(f"The stage could not be sent back to {began} um: {second}")


def keep_focus(
    core, af, n_frames, interval, *, every=1, limits=None, on_frame=None, sleep=time.sleep, **search
):
    """Take a time lapse in focus: before each frame, or each few, focus anew from the last place.

    A search that fails or leaves focus open does not end the series: the stage is back at the last
    focus, the frame is taken there, and its result says why.

    Parameters
    ----------
    core, af
        As for `focus_core`.
    n_frames : int
        Frames to take.
    interval : float
        Time from frame to frame, seconds; late frames are taken at once.
    every : int, default=1
        Focus before every so many frames.
    limits : (float, float) or None
        Stage positions never to be left in the whole series, micrometres.
    on_frame : callable or None
        ``on_frame(i, image, result)`` after each frame.
    sleep : callable
        Waits so many seconds.
    **search
        `max_images`, `tol`, `backlash`, `tolerance`, `go_back` of `focus_core`; the stage goes
        back from "textureless" and "uncertain" results if not said otherwise.

    Returns
    -------
    images : ndarray of shape (n_frames, H, W)
        The frames.
    results : list of FocusResult
        Of each frame; without a search, the last one. Reason "error" if a search failed.

    Raises
    ------
    MicroscopeError
        If a frame itself cannot be taken.
    """
    check_number("n_frames", n_frames, low=1, integer=True)
    check_number("interval", interval, low=0)
    check_number("every", every, low=1, integer=True)
    _check_autofocus(af)
    if limits is None:
        here = float(core.getPosition())
        limits = (here - af.range_ / 2, here + af.range_ / 2)
    images, results, begin = [], [], time.monotonic()
    for i in range(n_frames):
        sleep(max(0.0, begin + i * interval - time.monotonic()))
        if i % every == 0:
            results.append(_try_focus(core, af, limits, search))
        else:
            results.append(replace(results[-1], n_images=0, history=()))
        try:
            core.snapImage()
            images.append(np.array(core.getImage()))
        except RuntimeError as error:
            raise MicroscopeError(f"Frame {i} was not taken: {error}") from error
        if on_frame is not None:
            on_frame(i, images[-1], results[-1])
    return np.stack(images), results


def _try_focus(core, af, limits, search):
    try:
        return focus_core(core, af, limits=limits, **({"go_back": _IN_A_SERIES} | search))
    except MicroscopeError:
        return FocusResult(float(core.getPosition()), np.inf, 0, (), "error")


def make_focus_engine(core, af, **search):
    """Make an acquisition engine whose autofocus events are searches of `af`.

    A useq sequence with ``autofocus_plan=AxesBasedAF(axes=("t",), ...)``, or single events with the
    action `HardwareAutofocus`, then focus by images, without an autofocus device. Later events
    of the same position are corrected by what the search moved, as after a hardware autofocus.

    Parameters
    ----------
    core : CMMCorePlus
        The core.
    af : DeepFocusAutofocus
        Calibrated.
    **search
        Arguments of `focus_core`.

    Returns
    -------
    pymmcore_plus.mda.MDAEngine
        Register it with ``core.register_mda_engine(engine)``. Its `focus_results` lists what every
        search found.

    Raises
    ------
    ImportError
        If pymmcore-plus is not installed.
    """
    _check_autofocus(af)
    try:
        from pymmcore_plus.mda import MDAEngine
        from useq import HardwareAutofocus
    except ImportError:
        raise ImportError(
            "The engine needs pymmcore-plus: pip install sklearn_psf[microscope]"
        ) from None

    class FocusEngine(MDAEngine):
        """The engine of pymmcore-plus with autofocus by images."""

        focus_results = ()

        def exec_event(self, event):
            """Execute an event; an autofocus event by a search."""
            if not isinstance(event.action, HardwareAutofocus):
                return super().exec_event(event)
            before = float(core.getPosition())
            for attempt in range(1 + event.action.max_retries):
                try:
                    result = focus_core(core, af, **search)
                    break
                except MicroscopeError:
                    if attempt == event.action.max_retries:
                        raise
            self.focus_results = (*self.focus_results, result)
            place = event.index.get("p")
            moved = float(core.getPosition()) - before
            self._z_correction[place] = moved + self._z_correction.get(place, 0.0)
            return ()

    return FocusEngine(core)


def _check_autofocus(af):
    if not isinstance(af, DeepFocusAutofocus):
        raise TypeError(f"af must be a DeepFocusAutofocus, got {af!r}.")
