"""The names under which xarray finds the engines."""

import tomllib
from importlib import import_module, metadata
from importlib.resources import files
from pathlib import Path

import pytest
import xarray as xr
from xarray.backends import BackendEntrypoint

from xstefa.binding.units import conversion
from xstefa.schema import load_schema

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


@pytest.mark.parametrize(
    ("engine", "sign"), [("camels_us", "area_gages2"), ("caravan", "moisture_index_FAO_PM")]
)
def test_engines_and_plain_files_of_the_same_names_are_in_the_same_units(engine, sign):
    """What the schema says of a source without its engine is what the engine says."""
    schema = load_schema()
    text = files("xstefa.datasets").joinpath(f"{engine}.toml").read_text("utf-8")
    said = {
        name: attrs["units"]
        for name, attrs in tomllib.loads(text)["attributes"].items()
        if "units" in attrs
    }
    compared = 0
    for name, units in said.items():
        for variable, alias, _ in schema.claims(name, {sign, *said})[:1]:
            if alias.units is not None:
                mine = conversion(alias.units, variable.units, variable=name)
                theirs = conversion(units, variable.units, variable=name)
                assert (mine.scale, mine.offset) == (theirs.scale, theirs.offset), name
                compared += 1
    assert compared >= (20 if engine == "camels_us" else 5)
