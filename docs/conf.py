"""Sphinx configuration."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import xstefa  # noqa: E402 - after the path of the extensions

project = "xstefa"
author = "xstefa developers"
copyright = "xstefa developers"
version = release = xstefa.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "live",
    "model_cards",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

# No intersphinx: its inventories come over the network, and the build has to pass without one.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# numpydoc brings autosummary along; nothing here uses it.
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"  # the docstrings state the types, with shapes and units
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"xstefa {release}"
html_static_path = ["_static"]
html_css_files = ["live.css"]
