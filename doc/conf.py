"""Sphinx configuration."""

import sys
from pathlib import Path

import sklearn_psf

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for gallery.py, which the settings below name

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
html_static_path = ["_static"] if (HERE / "_static").is_dir() else []
html_title = "sklearn_psf"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "reset_argv": "gallery.command_line",
    "doc_module": ("sklearn_psf",),
    "download_all_examples": False,
    "remove_config_comments": True,
}
