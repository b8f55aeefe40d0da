"""Displays of PSF maps and restorations, in scikit-learn's style.

Nothing here needs to know the rest of the package: a map is anything with the attributes of a
`PSFMap`. matplotlib is optional and imported when something is drawn.
"""

from .psf_map import PSFMapDisplay
from .restoration import RestorationDisplay

__all__ = ["PSFMapDisplay", "RestorationDisplay"]
