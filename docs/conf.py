"""Sphinx configuration."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from gallery_order import place  # noqa: E402 - after the path of the extensions
from sphinx_gallery.sorting import FunctionSortKey  # noqa: E402

import xstefa  # noqa: E402

project = "xstefa"
author = "xstefa developers"
copyright = "xstefa developers"
version = release = xstefa.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_autosummary_accessors",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "live",
    "model_cards",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}  # the gallery is made of .rst
exclude_patterns = ["_build"]

# Inventories of others come over the network, without which the build has to pass, too.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "dask": ("https://docs.dask.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# numpydoc brings autosummary along; nothing here uses it.
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"  # the docstrings state the types, with shapes and units
autodoc_member_order = "bysource"

# Scripts that run when the pages are built: a code change can change any of them. One needs more
# than the tests do, and is shown without its results where that is not installed.
routes = find_spec("earthkit") is not None
sphinx_gallery_conf = {
    "filename_pattern": "plot_" if routes else r"plot_(?!routing)",
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "run_stale_examples": True,
    "within_subsection_order": FunctionSortKey(place),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 0.0,
}

html_theme = "furo"
html_title = f"xstefa {release}"
html_static_path = ["_static"]
html_css_files = ["live.css"]
