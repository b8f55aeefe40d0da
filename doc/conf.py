"""Sphinx configuration."""

import tempfile
from pathlib import Path

import sklearn_psf

project = "sklearn_psf"
author = "The sklearn_psf developers"
copyright = "2026, The sklearn_psf developers"
version = release = sklearn_psf.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"] if (Path(__file__).parent / "_static").is_dir() else []
html_title = "sklearn_psf"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False


class GalleryArguments:
    """Arguments of the example scripts while the gallery runs them: results go elsewhere."""

    def __repr__(self):
        """Return a constant, or every build would run every example again."""
        return "GalleryArguments()"

    def __call__(self, gallery_conf, script_vars):
        """Return the command line of a script."""
        return ["--output", str(Path(tempfile.gettempdir(), "sklearn_psf_gallery"))]


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "reset_argv": GalleryArguments(),
    "doc_module": ("sklearn_psf",),
    "download_all_examples": False,
    "remove_config_comments": True,
}
# The object above cannot be cached, which costs nothing.
suppress_warnings = ["config.cache"]
