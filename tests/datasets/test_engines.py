"""The names under which xarray finds the engines."""

import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
import xarray as xr
from xarray.backends import BackendEntrypoint

PROJECT = tomllib.loads(
    (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
)["project"]  # fmt: skip
ENGINES = PROJECT["entry-points"]["xarray.backends"]


@pytest.mark.parametrize("name", ["camels_us", "caravan"])
def test_entry_points_name_engines(name):
    module, _, attribute = ENGINES[name].partition(":")
    backend = getattr(import_module(module), attribute)
    assert issubclass(backend, BackendEntrypoint)
    assert backend.open_dataset_parameters[:2] == ("filename_or_obj", "drop_variables")


def test_xarray_lists_them_when_installed():
    installed = {e.name for e in metadata.entry_points(group="xarray.backends")}
    if not set(ENGINES) <= installed:
        pytest.skip("this checkout is not installed with its entry points")
    assert set(ENGINES) <= set(xr.backends.list_engines())
