"""Predictions over the nodes of a tree."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from xstefa.errors import BindingErrors, LayoutError, MissingTokenError, ModelError


@pytest.fixture
def tree(make_dataset) -> xr.DataTree:
    """Two regions, one of which inherits its time axis, and a table without time."""
    europe, asia = make_dataset(days=80, lat=2, lon=2), make_dataset(days=80, lat=1, lon=3, seed=1)
    names = xr.Dataset({"height": ("lat", [1.0, 2.0])}, {"lat": [10.0, 20.0]})
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(coords={"time": europe["time"]}),
            "/regions/europe": europe.drop_vars("time"),
            "/regions/asia": asia,
            "/regions/names": names,
        },
        name="world",
    )


def test_each_node_is_predicted(tree, tiny_model):
    found = tree.stefa.predict(tiny_model, coverage=True)
    assert found.name == "world"
    assert [node.path for node in found.subtree] == [node.path for node in tree.subtree]
    for path in ("regions/europe", "regions/asia"):
        expected = tree[path].to_dataset().stefa.predict(tiny_model, coverage=True)
        xr.testing.assert_identical(found[path]["soil_moisture"], expected)
        assert "coverage" in found[path].coords
    assert not found["regions/names"].data_vars
    assert not found.data_vars


def test_a_part_of_a_tree_and_lazily(tree, tiny_model):
    def refuse(*_, **__):
        raise AssertionError("computed")

    part = tree["regions"].chunk()
    with dask.config.set(scheduler=refuse):
        found = part.stefa.predict(tiny_model)
    assert [node.name for node in found.children.values()] == ["europe", "asia", "names"]
    np.testing.assert_array_equal(
        found["asia"]["soil_moisture"],
        tree["regions/asia"].to_dataset().stefa.predict(tiny_model),
    )


def test_the_node_of_a_problem_is_named(tree, tiny_model):
    del tree["regions/asia"]["precipitation"]
    with pytest.raises(MissingTokenError, match=r"^'precipitation': at node 'regions/asia': the"):
        tree.stefa.predict(tiny_model)
    del tree["regions/asia"]["temperature_mean"]
    with pytest.raises(BindingErrors, match="at node 'regions/asia': 2 problems"):
        tree.stefa.predict(tiny_model)
    with pytest.raises(ModelError, match="at node 'regions/europe'"):
        tree.stefa.predict("snowfall")


def test_days_that_are_not_decoded_are_not_left_out(tree, tiny_model):
    asia = tree["regions/asia"].to_dataset().rename(time="t")
    raw = asia.assign_coords(t=("t", np.arange(80), {"units": "days since 2000-01-01"}))
    with pytest.raises(LayoutError, match="at node 'asia': the time axis is not decoded"):
        xr.DataTree.from_dict({"asia": raw}).stefa.predict(tiny_model)


def test_a_tree_without_days(tree):
    with pytest.raises(LayoutError, match="no node of the tree has a series in time"):
        tree["regions/names"].stefa.predict("soil_moisture")
