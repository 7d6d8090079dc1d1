"""Arguments are what annotations say, or an error names them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import xarray as xr

import xstefa
from xstefa.accessor import StefaAccessor
from xstefa.arguments import checked, described, hints, words
from xstefa.errors import OptionError
from xstefa.splits.holdout import PUB, Holdout
from xstefa.typed import Share

CALLS = {
    "target": lambda ds: ds.stefa.predict(3),
    "coverage": lambda ds: ds.stefa.predict("streamflow", coverage="yes"),
    "min_coverage": lambda ds: ds.stefa.predict("streamflow", min_coverage=1.5),
    "rename": lambda ds: ds.stefa.predict("streamflow", rename=["tas"]),
    "device": lambda ds: ds.stefa.predict("streamflow", device=0),
    "schema": lambda ds: ds.stefa.tokens(3),
    "check": lambda ds: ds.stefa.tokens(check="all"),
    "accumulation": lambda ds: ds.stefa.daily(accumulation=6),
    "static": lambda ds: ds.stefa.attach("elevation.tif"),
    "resampling": lambda ds: ds.stefa.attach(ds, resampling="sum"),
    "by": lambda ds: ds.stefa.aggregate("basins.gpkg", by=3),
    "level": lambda ds: ds.stefa.embed(level="year"),
    "only_missing": lambda ds: ds.stefa.reconstruct(only_missing=0),
    "sites": lambda ds: ds.stefa.evaluate("streamflow", sites=3),
    "holdout": lambda ds: ds.stefa.finetune("streamflow", holdout=0.2),
    "encoder": lambda ds: ds.stefa.finetune("streamflow", encoder="cold"),
    "schedule": lambda ds: ds.stefa.finetune("streamflow", schedule="fast"),
    "seed": lambda ds: ds.stefa.cross_validate("streamflow", holdout=PUB, seed="0"),
    "stepz": lambda ds: ds.stefa.cross_validate("streamflow", holdout=PUB, stepz=3),
    "datasets": lambda ds: xstefa.pretrain({"a": ds, "b": "b.nc"}),
    "obj": lambda ds: xstefa.to_zarr(None, "out.zarr"),
    "overwrite": lambda ds: xstefa.to_netcdf(ds, "out.nc", overwrite="no"),
    "path": lambda ds: xstefa.import_published(3),
    "name": lambda ds: xstefa.open_sample(["camels_us"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_argument_is_named(name):
    with pytest.raises(OptionError) as caught:
        CALLS[name](xr.Dataset())
    assert caught.value.variable == name
    assert caught.value.found
    assert caught.value.expected
    assert caught.value.fix


@checked
def example(
    a: int,
    *,
    share: Share = 0.5,
    way: Literal["x", "y"] = "x",
    places: list[Path] | None = None,
) -> tuple[object, ...]:
    """Do nothing.

    Parameters
    ----------
    a : int
        A number. Of something.
    share, way
        As in `other`.
    """
    return a, share, way, places


def test_what_fits_passes():
    assert example(np.int64(3), share=1, places=[Path("x")]) == (3, 1, "x", [Path("x")])
    assert list(inspect.signature(example).parameters) == ["a", "share", "way", "places"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": True}, "'a': Found True. Expected int."),
        ({"a": "1"}, "'a': Found '1'. Expected int."),
        ({"a": 1, "share": 2}, "Expected a number from 0 to 1. Fix: share=0.5, or leave it out"),
        ({"a": 1, "way": "z"}, "'way': Found 'z'. Expected 'x' or 'y'."),
        ({"a": 1, "places": ["x"]}, "'places': Found ['x']. Expected list[Path] or None."),
        ({"a": xr.DataArray(0)}, "Found a DataArray."),
        ({"a": "x" * 1000}, "xxx..."),
    ],
)
def test_what_does_not_is_said(given, message):
    with pytest.raises(OptionError) as caught:
        example(**given)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_was_meant_by_another_name():
    """A model goes first in other methods."""
    model = xstefa.load_model("streamflow")
    with pytest.raises(OptionError, match=r"'observed': Found a Model.*Fix: model=<this Model>"):
        xr.Dataset().stefa.calibrate(model)


def test_missing_arguments_are_pythons_own_business():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        example()
    with pytest.raises(TypeError, match="unexpected keyword argument 'b'"):
        example(1, b=2)


def test_documentation_is_read():
    assert described(example) == {"a": "A number", "share": "As in other", "way": "As in other"}
    assert "RandomSites" in words(Holdout)


def test_every_method_says_what_it_takes():
    """What only type checkers import is checked where it is used."""
    for name, method in vars(StefaAccessor).items():
        if not name.startswith("_") and not isinstance(method, property):
            parameters = set(inspect.signature(method).parameters) - {"self"}
            assert parameters == set(hints(method)), name
            assert parameters - {"training"} <= set(described(method)), name
