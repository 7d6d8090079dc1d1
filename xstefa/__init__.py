"""StefaLand for xarray: predict streamflow and soil moisture from any labeled dataset.

Importing registers the ``.stefa`` accessors on `xarray.Dataset` and `xarray.DataTree`, and does
nothing else.
"""

from typing import TYPE_CHECKING, Any

from xstefa import accessor as accessor
from xstefa.cf import to_netcdf
from xstefa.datasets import open_sample
from xstefa.errors import XstefaError
from xstefa.inference.command import open_state, save_state
from xstefa.inference.store import to_zarr
from xstefa.installed import show_versions
from xstefa.model.checkpoint import Model
from xstefa.model.published import import_published
from xstefa.model.registry import list_models, load_model
from xstefa.options import set_options
from xstefa.schema import load_schema
from xstefa.tree import StefaTreeAccessor as StefaTreeAccessor
from xstefa.version import __version__

if TYPE_CHECKING:
    from xstefa.training.pretrain import pretrain

__all__ = [
    "Model",
    "XstefaError",
    "__version__",
    "import_published",
    "list_models",
    "load_model",
    "load_schema",
    "open_sample",
    "open_state",
    "pretrain",
    "save_state",
    "set_options",
    "show_versions",
    "to_netcdf",
    "to_zarr",
]


def __getattr__(name: str) -> Any:
    """Import what trains, and torch with it, when it is first asked for."""
    if name == "pretrain":
        from xstefa.training.pretrain import pretrain

        return pretrain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
