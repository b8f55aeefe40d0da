"""Displays of PSF maps, depths, flows, focus searches and restorations, in scikit-learn's style.

Nothing here needs to know the rest of the package: a map is anything with the attributes of a
`PSFMap`. matplotlib is optional and imported when something is drawn.
"""

from .calibration import ReliabilityDisplay
from .depth import DepthMapDisplay
from .flow import FlowFieldDisplay
from .focus_curve import FocusCurveDisplay
from .psf_map import PSFMapDisplay
from .regularisation import RegularisationDisplay
from .restoration import RestorationDisplay

__all__ = [
    "DepthMapDisplay",
    "FlowFieldDisplay",
    "FocusCurveDisplay",
    "PSFMapDisplay",
    "RegularisationDisplay",
    "ReliabilityDisplay",
    "RestorationDisplay",
]
