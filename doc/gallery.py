"""What the gallery of examples needs besides its configuration."""

import tempfile
from pathlib import Path

__all__ = ["command_line"]


def command_line(gallery_conf, script_vars):
    """Arguments of an example script while the gallery runs it: results go elsewhere."""
    return ["--output", str(Path(tempfile.gettempdir(), "sklearn_psf_gallery"))]
