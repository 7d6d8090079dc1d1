"""Predictions come back on the geometry of the input, whatever it is."""

import numpy as np
import pandas as pd
import pytest
import rioxarray
import xarray as xr
from pyproj import CRS, Transformer
from xarray.indexes import NDPointIndex

from xstefa.binding import bind
from xstefa.binding.derive import oudin
from xstefa.cf import as_cf

DAYS = 20
LAMBERT = CRS.from_epsg(3035)
ROTATED = CRS.from_cf(
    {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
)
NORTH = {"standard_name": "latitude", "units": "degrees_north"}
EAST = {"standard_name": "longitude", "units": "degrees_east"}


def weather(dims, coords, sizes=None):
    """Make precipitation and temperature that differ from cell to cell and day to day."""
    sizes = {"time": DAYS} | (sizes or {name: len(coords[name]) for name in dims if name in coords})
    shape = tuple(sizes[dim] for dim in dims)
    rng = np.random.default_rng(1)
    precipitation = {"units": "mm d-1", "standard_name": "lwe_precipitation_rate"}
    temperature = {"units": "degC", "standard_name": "air_temperature"}
    return xr.Dataset(
        {
            "pr": (dims, rng.gamma(0.5, 8, shape).astype(np.float32), precipitation),
            "tas": (dims, rng.normal(12, 8, shape).astype(np.float32), temperature),
        },
        coords={"time": pd.date_range("2003-06-01", periods=DAYS), **coords},
    )


def lat_lon(lat=(52.0, 51.0, 50.0), lon=(-2.0, -1.0, 0.0, 1.0)):
    return {
        "lat": xr.Variable("lat", np.array(lat), NORTH),
        "lon": xr.Variable("lon", np.array(lon), EAST),
    }


def projected():
    axis = {"units": "m", "standard_name": "projection_{}_coordinate"}
    y = np.arange(3.15e6, 3.0e6, -5e4)
    x = np.arange(4.0e6, 4.2e6, 5e4)
    coords = {
        "y": xr.Variable("y", y, {k: v.format("y") for k, v in axis.items()}),
        "x": xr.Variable("x", x, {k: v.format("x") for k, v in axis.items()}),
    }
    return weather(("time", "y", "x"), coords).rio.write_crs(LAMBERT)


def rotated():
    coords = {
        "rlat": ("rlat", np.array([-1.0, 0, 1]), {"standard_name": "grid_latitude",
                                                  "units": "degrees"}),
        "rlon": ("rlon", np.array([2.0, 3, 4, 5]), {"standard_name": "grid_longitude",
                                                    "units": "degrees"}),
    }  # fmt: skip
    ds = weather(("time", "rlat", "rlon"), coords, {"rlat": 3, "rlon": 4})
    for name in ("pr", "tas"):
        ds[name].attrs["grid_mapping"] = "rotated_pole"
    # As xr.open_dataset(decode_coords="all") would have it.
    return ds.assign_coords(rotated_pole=((), 0, ROTATED.to_cf()))


def curvilinear(*, as_coordinates=True):
    ds = weather(("time", "eta", "xi"), {}, {"eta": 3, "xi": 4})
    lat, lon = np.meshgrid([50.0, 51, 52], [0.0, 1, 2, 3], indexing="ij")
    ds = ds.assign(glat=(("eta", "xi"), lat + lon / 10, NORTH), glon=(("eta", "xi"), lon, EAST))
    return ds.set_coords(["glat", "glon"]) if as_coordinates else ds


def stations():
    ds = weather(("station", "time"), {}, {"station": 4})
    ds.attrs["featureType"] = "timeSeries"
    return ds.assign(
        station_id=("station", ["a", "b", "c", "d"], {"cf_role": "timeseries_id"}),
        lat=("station", [1.0, 2, 3, 4], NORTH),
        lon=("station", [5.0, 6, 7, 8], EAST),
        alt=("station", [10.0, 20, 30, 40], {"standard_name": "surface_altitude", "units": "m"}),
    ).set_coords(["lat", "lon", "alt"])


GEOMETRIES = {
    "descending latitudes": (lambda: weather(("time", "lat", "lon"), lat_lon()), "grid"),
    "ascending latitudes": (
        lambda: weather(("time", "lat", "lon"), lat_lon(lat=(50.0, 51.0, 52.0))),
        "grid",
    ),
    "longitudes 0..360": (
        lambda: weather(("time", "lat", "lon"), lat_lon(lon=(0.0, 90, 180, 270))),
        "grid",
    ),
    "irregular latitudes": (
        lambda: weather(("time", "lat", "lon"), lat_lon(lat=(88.57, 86.72, 84.86))),
        "grid",
    ),
    "one cell": (lambda: weather(("time", "lat", "lon"), lat_lon((50.0,), (8.0,))), "grid"),
    "time last": (lambda: weather(("lon", "lat", "time"), lat_lon()), "grid"),
    "projected": (projected, "grid"),
    "rotated pole": (rotated, "grid"),
    "curvilinear": (curvilinear, "grid"),
    "curvilinear, not called coordinates": (lambda: curvilinear(as_coordinates=False), "grid"),
    "unnamed axes": (
        lambda: weather(
            ("time", "g0", "g1"),
            {"g0": xr.Variable("g0", [2.0, 1.0], NORTH), "g1": xr.Variable("g1", [1.0, 2], EAST)},
        ),
        "grid",
    ),
    "stacked": (
        lambda: weather(("time", "lat", "lon"), lat_lon()).stack(cell=("lat", "lon")),
        "grid",
    ),
    "ensemble": (
        lambda: weather(("member", "time", "lat", "lon"), {"member": [1, 2], **lat_lon()}),
        "grid",
    ),
    "stations": (stations, "point"),
    "one station": (lambda: stations().isel(station=slice(0, 1)), "point"),
    "no site dimension": (lambda: stations().isel(station=0), "point"),
}


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    make, support = GEOMETRIES[request.param]
    return make(), support


def test_predictions_come_back_on_the_coordinates_of_the_input(geometry, schema, tiny_model):
    ds, support = geometry
    assert bind(ds, schema).layout.support == support
    result = ds.stefa.predict(tiny_model)
    assert result.dims == ds["pr"].dims
    assert bool(result.notnull().all())
    assert result.std() > 0
    for name, coordinate in ds["pr"].coords.items():
        xr.testing.assert_identical(result[name].variable, coordinate.variable)
        assert result[name].encoding == coordinate.encoding
    # It can be put beside its input.
    assert "soil_moisture" in ds.assign(soil_moisture=result)


def test_chunks_change_nothing(geometry, tiny_model):
    ds, _ = geometry
    expected = ds.stefa.predict(tiny_model)
    sites = {dim: 1 for dim in ds["pr"].dims if dim != "time"}
    found = ds.chunk(time=7, **sites).stefa.predict(tiny_model)
    assert found.chunks is not None
    xr.testing.assert_identical(found.compute(), expected)


def test_stacking_and_flipping_commute_with_prediction(tiny_model):
    ds = weather(("time", "lat", "lon"), lat_lon())
    expected = ds.stefa.predict(tiny_model)
    stacked = ds.stack(cell=("lat", "lon")).stefa.predict(tiny_model)
    xr.testing.assert_equal(stacked.unstack("cell").transpose(*expected.dims), expected)
    flipped = ds.isel(lat=slice(None, None, -1)).stefa.predict(tiny_model)
    xr.testing.assert_equal(flipped.sortby("lat"), expected.sortby("lat"))
    turned = ds.assign_coords(lon=ds["lon"] % 360).sortby("lon").stefa.predict(tiny_model)
    np.testing.assert_array_equal(turned.sel(lon=358.0), expected.sel(lon=-2.0))


def test_a_cell_taken_from_a_map_is_still_of_a_map(schema):
    ds = weather(("time", "lat", "lon"), lat_lon())
    ds["lat"].attrs["axis"], ds["lon"].attrs["axis"] = "Y", "X"
    assert bind(ds.isel(lat=0), schema).layout.support == "grid"
    cell = ds.isel(lat=0, lon=0)
    assert bind(cell, schema).layout.support == "grid"
    assert bind(cell.assign_attrs(featureType="timeSeries"), schema).layout.support == "point"


# ---- coordinate reference systems


@pytest.mark.parametrize("make", [projected, rotated], ids=["projected", "rotated"])
def test_the_crs_comes_back(make, tiny_model):
    ds = make()
    result = ds.stefa.predict(tiny_model)
    assert CRS(result.rio.crs) == CRS(ds["pr"].rio.crs)


@pytest.mark.parametrize("make", [projected, rotated], ids=["projected", "rotated"])
def test_rasters_land_where_the_data_is(make, tiny_model, tmp_path):
    ds = make()
    result = ds.stefa.predict(tiny_model)
    y, x = result.dims[1:]
    result.rio.set_spatial_dims(x, y).rio.to_raster(tmp_path / "soil.tif")
    with rioxarray.open_rasterio(tmp_path / "soil.tif") as raster:
        assert CRS(raster.rio.crs) == CRS(ds["pr"].rio.crs)
        np.testing.assert_allclose(raster["x"], ds[x])
        np.testing.assert_allclose(raster["y"], ds[y])
        np.testing.assert_array_equal(raster.values, result.values)


def test_rasters_of_latitudes_and_longitudes_land_where_the_data_is(tiny_model, tmp_path):
    ds = weather(("time", "lat", "lon"), lat_lon()).rio.write_crs("EPSG:4326")
    ds.stefa.predict(tiny_model).isel(time=3).rio.to_raster(tmp_path / "soil.tif")
    with rioxarray.open_rasterio(tmp_path / "soil.tif") as raster:
        assert raster.rio.bounds() == (-2.5, 49.5, 1.5, 52.5)
        cell = raster.sel(x=0.1, y=51.2, method="nearest")
        expected = ds.stefa.predict(tiny_model).isel(time=3).sel(lat=51.0, lon=0.0)
        assert float(cell.squeeze()) == float(expected)


@pytest.mark.parametrize("make", [projected, rotated], ids=["projected", "rotated"])
def test_latitude_of_a_map_without_one_is_that_of_its_projection(make, schema):
    ds = make()
    y, x = ds["pr"].dims[1:]
    crs = LAMBERT if make is projected else ROTATED
    transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    _, latitude = transformer.transform(*np.meshgrid(ds[x], ds[y]))
    expected = oudin(
        ds["tas"].values,
        latitude.astype(np.float32),
        ds["time"].dt.dayofyear.values.astype(np.float32)[:, None, None],
    )
    binding = bind(ds, schema)
    np.testing.assert_allclose(binding.forcing["potential_evapotranspiration"], expected, rtol=1e-5)
    lazy = bind(ds.chunk(time=5), schema).forcing["potential_evapotranspiration"]
    np.testing.assert_allclose(lazy.compute(), expected, rtol=1e-5)


def test_projections_in_kilometres(schema):
    ds = projected()
    km = ds.assign_coords({d: (d, ds[d].data / 1e3, ds[d].attrs | {"units": "km"}) for d in "yx"})
    name = "potential_evapotranspiration"
    np.testing.assert_allclose(
        bind(km, schema).forcing[name], bind(ds, schema).forcing[name], rtol=1e-6
    )


def test_no_latitude_no_evapotranspiration(schema):
    ds = projected().drop_vars("spatial_ref")
    assert "potential_evapotranspiration" in bind(ds, schema).table.missing


@pytest.mark.parametrize("kind", ["nearest point", "range"])
def test_an_index_that_pandas_does_not_have_changes_nothing(kind, schema):
    north, east = np.meshgrid(40.0 + np.arange(3), 5.0 + np.arange(4), indexing="ij")
    if kind == "range":
        coords = {"lat": ("lat", north[:, 0], NORTH), "lon": ("lon", east[0], EAST)}
        ds = weather(("time", "lat", "lon"), coords, sizes={"lat": 3, "lon": 4})
        index = xr.indexes.RangeIndex.arange(5.0, 9.0, dim="lon")
        indexed = ds.drop_vars("lon").assign_coords(xr.Coordinates.from_xindex(index))
        indexed["lon"].attrs = EAST
    else:
        coords = {"lat": (("y", "x"), north, NORTH), "lon": (("y", "x"), east, EAST)}
        ds = weather(("time", "y", "x"), coords, sizes={"y": 3, "x": 4})
        indexed = ds.set_xindex(("lat", "lon"), NDPointIndex)
    found, expected = bind(indexed, schema), bind(ds, schema)
    assert str(found.layout) == str(expected.layout)
    for token, array in expected.forcing.items():
        np.testing.assert_array_equal(found.forcing[token], array)
    wrapped = found.layout.wrap(np.zeros((DAYS, 3, 4), np.float32), name="flow")
    assert set(as_cf(wrapped).coords) == set(wrapped.coords)
