"""Cells of global grids and geometries as sites: they have a latitude, and come back."""

from __future__ import annotations

import sys

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xstefa
from xstefa.binding import bind, plan
from xstefa.binding.places import with_places
from xstefa.errors import LayoutError, MissingExtraError, OptionError

# HEALPix, level 1, nested: the cell nearest to the pole, the southernmost and one in the middle of
# a face on the equator, and the cell nearest to the other pole; latitudes of Górski et al. (2005).
CELLS = [3, 16, 18, 40]
GRID = {"grid_name": "healpix", "level": 1, "indexing_scheme": "nested"}
LATITUDES = np.rad2deg(np.arcsin([1 - (1 / 2) ** 2 / 3, -1 / 3, 0, -1 + (1 / 2) ** 2 / 3]))


@pytest.fixture
def weather(series):
    """Temperature extremes and rain at four sites, without latitude."""
    dims, sizes = ("site", "time"), {"sites": 4, "days": 60}
    return xr.Dataset(
        {
            "pr": series(dims=dims, units="mm d-1", **sizes),
            "tasmax": series(low=10, high=20, dims=dims, units="degC", **sizes),
            "tasmin": series(dims=dims, units="degC", **sizes),
        },
        {"time": pd.date_range("2001-05-01", periods=60)},
    )


@pytest.fixture
def cells(weather):
    pytest.importorskip("xdggs")
    return weather.assign_coords(cell_ids=("site", CELLS, {"long_name": "cells", **GRID}))


@pytest.fixture
def shapes(weather):
    shapely = pytest.importorskip("shapely")
    polygons = shapely.box([0, 10, 20, 30], [0, 10, 20, 30], [1, 12, 21, 31], [2, 12, 21, 31])
    return weather.assign_coords(geometry=("site", polygons, {"crs": "EPSG:4326"}))


def with_latitude(ds, latitude):
    return ds.assign_coords(lat=("site", latitude, {"units": "degrees_north"}))


@pytest.mark.parametrize("decoded", [False, True])
def test_cells_have_a_latitude_and_come_back(cells, decoded, schema, tiny_model):
    import xdggs

    latitude = with_places(cells)["latitude"].values
    centers = xdggs.decode(cells, GRID).dggs.cell_centers()
    np.testing.assert_allclose(latitude, centers["latitude"])
    np.testing.assert_allclose(latitude, LATITUDES, atol=1e-9)
    if decoded:
        cells = xdggs.decode(cells, GRID)
    bound = bind(cells, schema)
    assert bound.layout.support == "grid"
    expected = bind(with_latitude(cells, latitude), schema)
    pet = "potential_evapotranspiration"
    np.testing.assert_array_equal(bound.forcing[pet], expected.forcing[pet])
    assert np.ptp(bound.forcing[pet].values.mean(axis=1)) > 0.3
    answer = cells.stefa.predict(tiny_model)
    xr.testing.assert_identical(answer.coords["cell_ids"], cells["cell_ids"])
    assert set(answer.coords) == {"time", "cell_ids"}
    np.testing.assert_array_equal(answer, with_latitude(cells, latitude).stefa.predict(tiny_model))
    if decoded:
        assert answer.dggs.grid_info.level == 1


def test_cells_are_lazy_selected_and_written(cells, tiny_model, tmp_path):
    import xdggs

    def refuse(*_, **__):
        raise AssertionError("computed")

    lazy = xdggs.decode(cells, GRID).chunk(site=2)
    with dask.config.set(scheduler=refuse):
        answer = lazy.stefa.predict(tiny_model)
    whole = cells.stefa.predict(tiny_model)
    np.testing.assert_array_equal(answer, whole)
    one = cells.isel(site=2).stefa.predict(tiny_model)
    xr.testing.assert_identical(one, whole.isel(site=2))
    # What the index knows is in the file.
    xstefa.to_zarr(answer, tmp_path / "cells.zarr")
    stored = xr.open_zarr(tmp_path / "cells.zarr").drop_attrs(deep=False)
    assert stored["cell_ids"].attrs == GRID
    assert xdggs.decode(stored).dggs.grid_info.level == 1


def test_without_xdggs_the_extra_is_named(weather, schema, monkeypatch):
    monkeypatch.setitem(sys.modules, "xdggs", None)
    ds = weather.assign_coords(cell_ids=("site", CELLS, GRID))
    bound = plan(ds, schema)
    assert not bound.problems
    assert [type(doubt) for doubt in bound.doubts] == [MissingExtraError]
    with pytest.raises(MissingExtraError, match=r"the extra 'cells': xdggs.*pip install xdggs"):
        bound.require(strict=True)
    with pytest.raises(MissingExtraError):
        with_places(ds)
    # Who gives latitudes, or evapotranspiration, needs no package.
    assert not plan(with_latitude(ds, LATITUDES), schema).doubts
    assert not plan(ds.assign(pet=ds["pr"]), schema).doubts


def test_a_grid_that_is_not_understood_is_in_doubt(cells, schema):
    for wrong in ({"grid_name": "healpix"}, {"grid_name": "healpix", "level": "fine"}):
        cells["cell_ids"].attrs = wrong
        (doubt,) = plan(cells, schema).doubts
        assert isinstance(doubt, LayoutError)
        assert "grid_name" in doubt.fix
    cells["cell_ids"].attrs = {"grid_name": "EASE2_M36km"}
    assert not plan(cells, schema).doubts
    assert plan(cells, schema).layout.support == "point"


def test_geometries_have_a_latitude_and_come_back(shapes, schema, tiny_model):
    bound = bind(shapes, schema)
    assert bound.layout.support == "point"
    found = with_places(shapes)
    assert found["latitude"].values.tolist() == [1, 11, 20.5, 30.5]
    assert found["longitude"].values.tolist() == [0.5, 11, 20.5, 30.5]
    same = with_latitude(shapes, found["latitude"].values)
    answer = shapes.chunk(site=1).stefa.predict(tiny_model)
    np.testing.assert_array_equal(answer, same.stefa.predict(tiny_model))
    assert answer["geometry"].values.tolist() == shapes["geometry"].values.tolist()
    xr.testing.assert_equal(
        shapes.isel(site=1).stefa.predict(tiny_model).drop_vars("geometry"),
        answer.isel(site=1).drop_vars("geometry"),
    )
    # The same outlines in another system are at the same place.
    import geopandas

    far = geopandas.GeoSeries(shapes["geometry"].values, crs="EPSG:4326").to_crs("EPSG:3857")
    moved = with_places(shapes.assign_coords(geometry=("site", far.values, {"crs": far.crs})))
    np.testing.assert_allclose(moved["latitude"], found["latitude"], atol=0.01)


def test_geometries_without_a_system_are_in_doubt(shapes, schema, follow):
    del shapes["geometry"].attrs["crs"]
    (doubt,) = plan(shapes, schema).doubts
    assert "no coordinate reference system" in str(doubt)
    assert not plan(follow(doubt, shapes), schema).doubts


def test_geometries_cannot_be_written(shapes, tiny_model, tmp_path):
    answer = shapes.stefa.predict(tiny_model)
    with pytest.raises(OptionError, match=r"geometries.*drop_vars\('geometry'\)"):
        xstefa.to_netcdf(answer, tmp_path / "x.nc")
    xstefa.to_netcdf(answer.drop_vars("geometry"), tmp_path / "x.nc")


def test_places_that_are_there_stay(shapes):
    ds = with_latitude(shapes, LATITUDES)
    assert with_places(ds) is ds


def test_the_index_of_xvec_comes_back(shapes, tiny_model):
    xvec = pytest.importorskip("xvec")
    del shapes["geometry"].attrs["crs"]
    ds = shapes.set_xindex("geometry", xvec.GeometryIndex, crs="EPSG:4326")
    answer = ds.stefa.predict(tiny_model)
    assert answer.xindexes["geometry"].equals(ds.xindexes["geometry"])
    assert answer.sel(geometry=ds["geometry"].values[1]).dims == ("time",)
    np.testing.assert_array_equal(
        answer,
        shapes.assign_coords(
            geometry=shapes["geometry"].assign_attrs(crs="EPSG:4326")
        ).stefa.predict(tiny_model),
    )
