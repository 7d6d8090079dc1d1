"""Static layers of any grid onto any grid."""

import numpy as np
import pandas as pd
import pytest
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from xstefa.binding import bind
from xstefa.errors import LayoutError, OptionError
from xstefa.prepare.area_mean import area_mean
from xstefa.prepare.attach import attach
from xstefa.prepare.cells import Cells, cell_edges
from xstefa.schema import Variable, load_schema

NORTH = {"standard_name": "latitude", "units": "degrees_north"}
EAST = {"standard_name": "longitude", "units": "degrees_east"}


def forcing(lat, lon, *, crs=None, dims=("lat", "lon")):
    """Make a dataset of precipitation over a map."""
    attrs = (NORTH, EAST) if dims == ("lat", "lon") else ({}, {})
    data = np.ones((3, len(lat), len(lon)), np.float32)
    ds = xr.Dataset(
        {
            "pr": (("time", *dims), data, {"units": "mm d-1"}),
            "tas": (("time", *dims), data, {"units": "degC"}),
        },
        coords={
            "time": pd.date_range("2001-01-01", periods=3),
            dims[0]: (dims[0], np.asarray(lat, float), attrs[0]),
            dims[1]: (dims[1], np.asarray(lon, float), attrs[1]),
        },
    )
    return ds if crs is None else ds.rio.write_crs(crs)


def raster(lat, lon, data, *, name="elevation", **attrs):
    coords = {"lat": ("lat", np.asarray(lat, float), NORTH),
              "lon": ("lon", np.asarray(lon, float), EAST)}  # fmt: skip
    attrs = {"units": "m"} | attrs
    return xr.DataArray(np.asarray(data, np.float32), coords, ("lat", "lon"), name, attrs)


def fine(step=0.25, west=-180.0):
    """Make a global map of 1000 lat-dependent metres plus a wave in longitude."""
    lat = np.arange(90 - step / 2, -90, -step)
    lon = np.arange(west + step / 2, west + 360, step)
    field = 1000 + 5 * lat[:, None] + 100 * np.cos(np.deg2rad(lon))
    return raster(lat, lon, field)


def by_hand(layer, lat, lon, half):
    """Mean of the centres inside a cell, weighted by the cosine of latitude."""
    inside = layer.where(abs(layer["lat"] - lat) < half, drop=True)
    inside = inside.where(abs((inside["lon"] - lon + 180) % 360 - 180) < half, drop=True)
    return float(inside.weighted(np.cos(np.deg2rad(inside["lat"]))).mean())


@pytest.mark.parametrize("west", [-180.0, 0.0], ids=["-180..180", "0..360"])
@pytest.mark.parametrize("lon", [(10.5, 11.5), (179.5, 180.5), (-0.5, 0.5), (359.5, 360.5)])
@pytest.mark.parametrize("flip", [False, True], ids=["falling", "rising"])
def test_means_are_weighted_by_area_in_any_longitude_convention(west, lon, flip):
    layer = fine(west=west)
    lat = (60.5, 59.5)
    result = attach(forcing(lat[::-1] if flip else lat, lon), layer)["elevation"]
    assert result.dims == ("lat", "lon")
    assert result.dtype == np.float32
    for y in lat:
        for x in lon:
            expected = by_hand(layer, y, x, 0.5)
            np.testing.assert_allclose(result.sel(lat=y, lon=x), expected, rtol=1e-6)


def test_everything_is_kept_on_the_whole_sphere():
    layer = fine()
    coarse = forcing(np.arange(85, -90, -10.0), np.arange(5, 360, 10.0))
    result = attach(coarse, layer)["elevation"]
    area = np.cos(np.deg2rad(layer["lat"]))
    sines = np.sin(np.deg2rad(coarse["lat"] + 5)) - np.sin(np.deg2rad(coarse["lat"] - 5))
    np.testing.assert_allclose(
        float(result.weighted(sines).mean()), float(layer.weighted(area).mean()), rtol=1e-5
    )


@given(
    edges=st.lists(st.floats(-3, 3), min_size=2, max_size=6, unique=True).map(sorted),
    values=st.lists(st.floats(-5, 5), min_size=4, max_size=4),
)
def test_overlaps_are_exact_for_cells_of_any_size(edges, values):
    """Against the definition, cell by cell."""
    source = xr.Dataset(coords={"y": [0.0, 1.0], "x": [-1.0, 1.0]})
    array = xr.DataArray(np.reshape(values, (2, 2)), dims=("y", "x"), coords=source.coords)
    y, x = (cell_edges(source, d, kind="projected") for d in "yx")
    low, high = np.array(edges[:-1]), np.array(edges[1:])
    wide = high - low > 1e-6
    if not wide.any():
        return
    over = type(x)(low=low[wide], high=high[wide])
    found = area_mean(array, y=y, x=x, over_y=y, over_x=over, sphere=False)
    for row in range(2):
        for cell, (a, b) in enumerate(zip(over.low, over.high, strict=True)):
            shares = np.clip(np.minimum(b, [0.0, 2.0]) - np.maximum(a, [-2.0, 0.0]), 0, None)
            known = shares.sum()
            expected = shares @ array.values[row] / known if known > 0 else np.nan
            np.testing.assert_allclose(found[row, cell], expected, atol=1e-4)


def test_gaps_between_cells_are_not_known():
    cells = Cells(low=np.array([0.0, 3.0]), high=np.array([1.0, 4.0]))
    over = Cells(low=np.array([0.0, 1.2]), high=np.array([3.5, 2.8]))
    array = xr.DataArray([[1.0, 4.0], [1.0, 4.0]], dims=("y", "x"))
    found = area_mean(array, y=cells, x=cells, over_y=cells, over_x=over, sphere=False)
    np.testing.assert_allclose(found, [[2.0, np.nan], [2.0, np.nan]])


def test_missing_values_do_not_count():
    layer = raster([1.5, 0.5], [0.5, 1.5], [[1.0, np.nan], [3.0, np.nan]])
    result = attach(forcing([1.0, -1.0], [1.0, 3.0]), layer)["elevation"].values
    weights = np.diff(np.sin(np.deg2rad([0, 1, 2])))
    np.testing.assert_allclose(result[0, 0], (3 * weights[0] + weights[1]) / weights.sum())
    assert np.isnan(result[1]).all()


@pytest.mark.parametrize("masked", [True, False])
def test_nodata_of_rasters_is_missing(tmp_path, masked):
    layer = raster([3.5, 2.5, 1.5, 0.5], [0.5, 1.5, 2.5, 3.5], np.arange(16).reshape(4, 4) + 10.0)
    layer = layer.where(layer < 18, -9999).rio.write_nodata(-9999).rio.write_crs("EPSG:4326")
    layer.rio.to_raster(tmp_path / "layer.tif")
    opened = rioxarray.open_rasterio(tmp_path / "layer.tif", masked=masked).rename("elevation")
    result = attach(forcing([3.0, 1.0], [1.0, 3.0]), opened)["elevation"]
    weights = np.diff(np.sin(np.deg2rad([2, 3, 4])))
    np.testing.assert_allclose(result[0, 0], (14.5 * weights[0] + 10.5 * weights[1]) /
                               weights.sum(), rtol=1e-6)  # fmt: skip
    assert result.isnull().values.tolist() == [[False, False], [True, True]]
    assert "_FillValue" not in result.attrs
    assert not ({"band", "spatial_ref"} & set(attach(forcing([3.0], [1.0, 3.0]).assign_coords(
        lat=("lat", [3.0], NORTH | {"bounds": "b"})).assign(b=(("lat", "nv"), [[2.0, 4.0]])),
        opened).coords))  # fmt: skip


@pytest.mark.parametrize("begin", [0.0, -30.0], ids=["the layer", "both"])
def test_longitudes_that_wrap_inside_a_map_are_one_map(begin):
    """As `assign_coords(lon=lon % 360)` leaves them: ..., 359.5, 0.5, ..."""
    lat, lon = [50.5, 49.5], np.array([-1.5, -0.5, 0.5, 1.5])
    layer = fine()
    wrapped = layer.assign_coords(lon=("lon", layer["lon"].values % 360, EAST))
    there = forcing(lat, lon if begin == 0.0 else lon % 360)
    expected = attach(forcing(lat, lon), layer)["elevation"]
    np.testing.assert_allclose(attach(there, wrapped)["elevation"], expected, rtol=1e-6)


def test_packed_rasters_are_unpacked():
    lat, lon = np.arange(59.5, 40, -1), np.arange(-9.5, 10)
    layer = raster(lat, lon, np.full((20, 20), 133.0), scale_factor=0.1, add_offset=5.0)
    found = attach(forcing([50.5, 49.5], [0.5, 1.5]), layer)["elevation"]
    np.testing.assert_allclose(found, 18.3, rtol=1e-6)
    assert "scale_factor" not in found.attrs


def test_stations_of_camels_tables_are_found_by_name():
    ds = xr.Dataset({"gauge_lat": ("gauge", [50.1, 10.0]), "gauge_lon": ("gauge", [1.0, 361.0])})
    found = attach(ds, fine())["elevation"]
    assert found.dims == ("gauge",)
    assert found.notnull().all()


def test_finer_grids_take_the_value_of_the_cell_they_lie_in():
    layer = raster([1.0, -1.0], [1.0, 3.0], [[1.0, 2.0], [3.0, 4.0]])
    result = attach(forcing([1.75, 0.25], [0.25, 3.75]), layer, resampling="average")
    np.testing.assert_allclose(result["elevation"].isel(lat=0, lon=0), 1.0)
    nearest = attach(forcing([1.75, 0.25], [0.25, 3.75]), layer, resampling="nearest")
    assert nearest["elevation"].values.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert "cell_methods" not in nearest["elevation"].attrs


def test_cells_are_their_bounds_not_the_spacing_of_a_sparse_lattice():
    layer = fine()
    ds = forcing([40.0, 36.0], [10.0, 14.0])
    ds = ds.assign(
        lat_bnds=(("lat", "nv"), [[39.5, 40.5], [35.5, 36.5]]),
        lon_bnds=(("lon", "nv"), [[9.5, 10.5], [13.5, 14.5]]),
    )
    ds["lat"].attrs["bounds"], ds["lon"].attrs["bounds"] = "lat_bnds", "lon_bnds"
    result = attach(ds, layer)["elevation"]
    np.testing.assert_allclose(result[0, 0], by_hand(layer, 40.0, 10.0, 0.5), rtol=1e-6)


# ---- projections


def projected_target():
    return forcing(
        np.arange(3.15e6, 3.0e6, -5e4), np.arange(4.0e6, 4.2e6, 5e4), crs=3035, dims=("y", "x")
    )


@pytest.mark.parametrize("west", [-180.0, 0.0], ids=["-180..180", "0..360"])
@pytest.mark.parametrize("rising", [False, True])
def test_onto_a_projected_grid(west, rising):
    ds = projected_target()
    ds = ds.sortby("y") if rising else ds
    result = attach(ds, fine(step=0.1, west=west))["elevation"]
    transformer = Transformer.from_crs(3035, 4326, always_xy=True)
    lon, lat = transformer.transform(*np.meshgrid(ds["x"], ds["y"]))
    expected = 1000 + 5 * lat + 100 * np.cos(np.deg2rad(lon))
    np.testing.assert_allclose(result, expected, atol=0.3)
    assert result.rio.crs == ds.rio.crs
    xr.testing.assert_identical(result["y"], ds["y"])


def test_from_a_projected_raster_onto_latitudes(tmp_path):
    source = projected_target()["pr"].isel(time=0, drop=True).rename("sand")
    x, y = np.meshgrid(source["x"], source["y"])
    source = source.copy(data=((x - 4e6) / 1e3 + (y - 3e6) / 1e4).astype(np.float32))
    source.rio.to_raster(tmp_path / "sand.tif")
    opened = rioxarray.open_rasterio(tmp_path / "sand.tif", masked=True).rename("sand")
    ds = forcing([50.9, 50.6, 50.3], [6.0, 6.5, 7.0])
    result = attach(ds, opened)["sand"]
    transformer = Transformer.from_crs(4326, 3035, always_xy=True)
    px, py = transformer.transform(6.5, 50.6)
    np.testing.assert_allclose(
        float(result.sel(lat=50.6, lon=6.5)), (px - 4e6) / 1e3 + (py - 3e6) / 1e4, atol=30
    )


def test_an_irregular_grid_in_another_projection_is_refused():
    with pytest.raises(LayoutError, match=r"regular grid[\s\S]*reproject"):
        attach(forcing([60.0, 55.0, 53.0], [1.0, 2.0]), projected_target()["pr"].isel(
            time=0, drop=True).rename("sand"))  # fmt: skip


# ---- sites that are no map


def test_stations_take_the_value_of_the_cell_they_stand_in():
    layer = fine(west=0.0)
    stations = xr.Dataset(
        {"pr": (("station", "time"), np.ones((3, 2)), {"units": "mm d-1"})},
        coords={
            "time": pd.date_range("2001-01-01", periods=2),
            "lat": ("station", [10.1, -45.0, 89.99], NORTH),
            "lon": ("station", [-0.05, 359.9, -180.0], EAST),
        },
    )
    result = attach(stations, layer)["elevation"]
    assert result.dims == ("station",)
    expected = layer.sel(
        lat=stations["lat"], lon=stations["lon"] % 360, method="nearest"
    )  # ties of the nearest centre do not occur at these places
    np.testing.assert_allclose(result, expected.values)


def test_curvilinear_grids_take_the_nearest_only():
    lat, lon = np.meshgrid([50.0, 51, 52], [0.1, 1.1], indexing="ij")
    ds = forcing(range(3), range(2), dims=("eta", "xi")).drop_vars(["eta", "xi"])
    ds = ds.assign_coords(glat=(("eta", "xi"), lat, NORTH), glon=(("eta", "xi"), lon, EAST))
    with pytest.raises(LayoutError, match="nearest"):
        attach(ds, fine())
    result = attach(ds, fine(), resampling="nearest")["elevation"]
    assert result.dims == ("eta", "xi")
    np.testing.assert_allclose(result, 1000 + 5 * lat + 100 * np.cos(np.deg2rad(lon)), atol=1)


# ---- in use


def test_attached_layers_are_tokens(schema):
    layers = xr.Dataset({"elevation": fine(), "sand": fine().assign_attrs(units="%") / 100})
    layers["sand"].attrs["units"] = "%"
    ds = attach(forcing([51.5, 50.5], [0.5, 1.5]).assign_attrs(history="before"), layers)
    binding = bind(ds, schema)
    assert {"elevation", "sand"} <= set(binding.static)
    assert binding.static["elevation"].dims == ("lat", "lon")
    assert ds.attrs["history"].splitlines() == [
        "xstefa: attached elevation, sand (average)",
        "before",
    ]
    assert ds["elevation"].attrs == {"units": "m", "cell_methods": "area: mean"}


def test_chunked_layers_and_forcings_work():
    layer = fine().chunk(lat=100)
    expected = attach(forcing([51.5, 50.5], [0.5, 1.5]), layer.compute())
    found = attach(forcing([51.5, 50.5], [0.5, 1.5]).chunk(time=1), layer)
    assert found["pr"].chunks is not None
    xr.testing.assert_identical(found["elevation"], expected["elevation"])


GOOD = forcing([51.5, 50.5], [0.5, 1.5])
BAD = {
    "no name": (GOOD, fine().rename(None), {}, OptionError, "rename"),
    "no map": (GOOD, fine().isel(lat=0, drop=True), {}, LayoutError, "open_rasterio"),
    "months": (GOOD, fine(10).expand_dims(month=12), {}, LayoutError, "static.mean('month')"),
    "classes": (
        GOOD, fine(10).astype(int).assign_attrs(flag_meanings="a b"), {}, OptionError, "nearest"
    ),
    "elsewhere": (
        GOOD, fine().sel(lat=slice(-10, -20)), {}, LayoutError, "ds.rio.crs"
    ),
    "there already": (GOOD.assign(elevation=("lat", [1.0, 2.0])), fine(10), {}, OptionError,
                      "drop_vars"),
    "no xarray object": (GOOD, np.zeros((2, 2)), {}, OptionError, "open_dataset(path)"),
    "no such way": (GOOD, fine(10), {"resampling": "cubic"}, OptionError, "average"),
    "no crs": (GOOD.rename(lat="v", lon="u").assign_coords(
        v=("v", [1.0, 0.0], {"axis": "Y"}), u=("u", [1.0, 0.0], {"axis": "X"})),
        fine(10), {}, LayoutError, "write_crs"),
    "no crs of the layer": (GOOD, fine(10).rename(lat="y", lon="x").assign_coords(
        y=("y", np.arange(18.0)), x=("x", np.arange(36.0))), {}, LayoutError, "write_crs"),
    "one cell": (GOOD.isel(lat=[0]), fine(10), {}, LayoutError, "add_bounds"),
    "out of order": (GOOD.isel(lon=[0, 1, 0]), fine(10), {}, LayoutError, "sortby('lon')"),
    "no place": (GOOD.rename(lat="v", lon="u").drop_vars(["u", "v"]), fine(10), {}, LayoutError,
                 "assign_coords"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_layers_are_refused_with_the_fix(case):
    ds, static, options, error, fix = BAD[case]
    with pytest.raises(error) as caught:
        attach(ds, static, **options)
    assert fix in caught.value.fix
    assert caught.value.variable
    assert caught.value.found
    assert caught.value.expected


# ---- pictures: several bands are one vector


def picture(step=0.25, west=-180.0):
    """Make three bands that differ, the last with a hole."""
    first = fine(step, west)
    hole = (abs(first["lat"] - 50) < 1) & (abs(first["lon"] % 360 - 8) < 1)
    bands = [first, 2 * first - 100, (0.5 * first).where(~hole)]
    label = xr.Variable("band", [1, 2, 3])
    return xr.concat(bands, label).rename("patch").assign_attrs(units="1")


def stations():
    lat, lon = [10.1, 50.1, 89.0], [-4.0, 8.1, 3.0]
    coords = {"lat": ("station", lat, NORTH), "lon": ("station", lon, EAST)}
    time = pd.date_range("2001-01-01", periods=2)
    pr = (("station", "time"), np.ones((3, 2)), {"units": "mm d-1"})
    return xr.Dataset({"pr": pr}, coords=coords | {"time": time})


@pytest.mark.parametrize("west", [-180.0, 0.0], ids=["-180..180", "0..360"])
@pytest.mark.parametrize("change", [
    lambda layer: layer,
    lambda layer: layer.transpose("lat", "lon", "band"),
    lambda layer: layer.chunk(band=2, lat=100),
    lambda layer: layer.sortby("lat"),
], ids=["band first", "band last", "chunked", "ascending"])  # fmt: skip
@pytest.mark.parametrize("where", ["map", "projected", "stations"])
def test_bands_are_attached_as_each_would_be(where, change, west):
    target = {
        "map": lambda: forcing([52.0, 50.0, 48.0], [6.0, 8.0, 10.0]),
        "projected": projected_target,
        "stations": stations,
    }[where]()
    layer = picture(west=west)
    found = attach(target, change(layer))["patch"]
    assert found.dims[-1] == "band"
    assert found.dtype == np.float32
    assert found["band"].values.tolist() == [1, 2, 3]
    for band in (1, 2, 3):
        alone = attach(target, layer.sel(band=band, drop=True))["patch"]
        xr.testing.assert_allclose(found.sel(band=band, drop=True), alone, rtol=1e-6)
    if where != "projected":
        assert np.isnan(found.sel(band=3)).any()
    assert np.isfinite(found.sel(band=[1, 2])).all()


def test_a_picture_of_several_bands_is_one_token(tmp_path):
    terrain = picture().sel(lat=slice(60, 40), lon=slice(0, 20))
    terrain.rio.write_crs(4326).fillna(-9999).rio.write_nodata(-9999).rio.to_raster(
        tmp_path / "terrain.tif"
    )
    opened = rioxarray.open_rasterio(tmp_path / "terrain.tif").rename("patch")
    token = Variable(
        name="patch", kind="static", units="1", long_name="", valid_range=(-1e5, 1e5), length=3
    )
    places = stations().isel(station=[1])
    ready = attach(places.assign(tas=places["pr"].assign_attrs(units="degC")), opened)
    (row,) = [r for r in ready.stefa.tokens(load_schema().with_extras([token])).rows[-1:]]
    assert (row.token, row.variables) == ("patch", ("patch",))
    assert row.known == pytest.approx(2 / 3)  # nodata is missing
    expected = picture().sel(lat=50.1, lon=8.1, method="nearest")
    np.testing.assert_allclose(ready["patch"][0], expected, rtol=1e-5)


def test_bands_that_cannot_be_told_are_refused():
    layer = picture()
    with pytest.raises(LayoutError, match=r"2 values along 'year' and 3 values along 'band'"):
        attach(stations(), layer.expand_dims(year=2))
    with pytest.raises(OptionError, match=r"static.rename\({'band': 'patch_band'}\)"):
        attach(stations().assign(other=("band", [1, 2])), layer)
