"""Configuration of Sphinx; `make docs` builds the site from this folder without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import lrc_ase

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "lrc-ase"
author = "The lrc-ase developers"
copyright = "The lrc-ase developers, MIT license"
version = release = lrc_ase.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "command_reference",
    "complete_reference",
    "docstrings",
    "mathml",
    "notebooks",
]
exclude_patterns = ["notebook/paper"]

# pages are Markdown; docstrings write names and formulas in single backticks
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
default_role = "code"
highlight_language = "text"

napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# inherited docstrings would describe ASE, pydantic and torch
autodoc_inherit_docstrings = False

html_theme = "furo"
html_title = "lrc-ase"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
