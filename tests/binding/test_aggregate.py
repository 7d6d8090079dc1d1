"""Area-weighted means over polygons."""

import sys

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

gpd = pytest.importorskip("geopandas")
pytest.importorskip("exactextract")
import rioxarray  # noqa: E402, F401 - registers .rio
from shapely.geometry import MultiPolygon, Point, Polygon, box  # noqa: E402

from xstefa.binding import bind  # noqa: E402
from xstefa.errors import LayoutError, MissingExtraError, OptionError  # noqa: E402
from xstefa.prepare.aggregate import OutsideWarning, aggregate  # noqa: E402

NORTH = {"standard_name": "latitude", "units": "degrees_north"}
EAST = {"standard_name": "longitude", "units": "degrees_east"}
DAYS = 45


def weather(lat=(51.5, 50.5, 49.5), lon=(0.5, 1.5, 2.5, 3.5)):
    shape = (DAYS, len(lat), len(lon))
    rng = np.random.default_rng(0)
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "pr": (dims, rng.gamma(0.5, 6, shape).astype(np.float32),
                   {"units": "mm d-1", "cell_methods": "time: sum", "grid_mapping": "crs"}),
            "tas": (dims, rng.normal(10, 5, shape).astype(np.float32), {"units": "degC"}),
            "elevation": (dims[1:], rng.uniform(0, 900, shape[1:]), {"units": "m"}),
            "soil_type": (dims[1:], np.ones(shape[1:], int), {"flag_meanings": "a b"}),
            "co2": ("time", np.full(DAYS, 400.0)),
        },
        coords={
            "time": pd.date_range("2001-01-01", periods=DAYS),
            "lat": ("lat", np.array(lat), NORTH),
            "lon": ("lon", np.array(lon), EAST),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
        },
        attrs={"history": "made"},
    )  # fmt: skip


def basins(**shapes):
    return gpd.GeoDataFrame(
        {"id": list(shapes)}, geometry=list(shapes.values()), crs="EPSG:4326"
    ).set_index("id")


TRIANGLE = Polygon([(0.25, 49.2), (3.6, 49.7), (1.9, 51.9)])
RIDGE = MultiPolygon([box(0.2, 51.1, 0.7, 51.8), box(2.0, 50.0, 3.0, 51.0)])


def by_hand(field, shape, n=60):
    """Mean over a fine lattice of points of the cells inside the shape."""
    lat = 49 + (np.arange(3 * n) + 0.5) / n
    lon = (np.arange(4 * n) + 0.5) / n
    x, y = np.meshgrid(lon, lat)
    inside = gpd.GeoSeries(gpd.points_from_xy(x.ravel(), y.ravel())).within(shape).to_numpy()
    values = field.sel(
        lat=xr.DataArray(y.ravel()[inside]), lon=xr.DataArray(x.ravel()[inside]), method="nearest"
    )
    return float(np.average(values, weights=np.cos(np.deg2rad(y.ravel()[inside]))))


def test_means_are_weighted_by_the_exact_area_of_each_cell():
    ds = weather()
    result = aggregate(ds, basins(triangle=TRIANGLE, ridge=RIDGE))
    assert result["pr"].dims == ("basin", "time")
    assert result["elevation"].dims == ("basin",)
    for name, shape in (("triangle", TRIANGLE), ("ridge", RIDGE)):
        found = result.sel(basin=name)
        np.testing.assert_allclose(found["elevation"], by_hand(ds["elevation"], shape), rtol=3e-3)
        np.testing.assert_allclose(
            found["tas"][3], by_hand(ds["tas"][3], shape), rtol=1e-2, atol=0.02
        )
    cell = aggregate(ds, basins(one=box(1, 50, 2, 51)))
    np.testing.assert_allclose(cell["pr"][0], ds["pr"].sel(lat=50.5, lon=1.5), rtol=1e-6)


def test_rows_nearer_to_the_pole_weigh_less():
    ds = weather(lat=(75.0, 45.0, 15.0), lon=(15.0, 45.0, 75.0, 105.0))
    field = ds["elevation"].copy(data=np.broadcast_to([[3.0], [2.0], [1.0]], (3, 4)))
    result = aggregate(ds.assign(elevation=field), basins(all=box(0, 0, 120, 90)))
    sines = np.diff(np.sin(np.deg2rad([0, 30, 60, 90])))
    np.testing.assert_allclose(result["elevation"], sines @ [1, 2, 3], rtol=1e-6)


def test_outlines_are_kept_where_they_are_asked_for():
    ds, shapes = weather(), basins(triangle=TRIANGLE, ridge=RIDGE)
    result = aggregate(ds, shapes, geometry=True)
    assert result["geometry"].dims == ("basin",)
    assert list(result["geometry"].values) == list(shapes.geometry)
    assert result["geometry"].attrs["crs"] == shapes.crs
    xr.testing.assert_identical(result.drop_vars("geometry"), aggregate(ds, shapes))


def test_outlines_have_the_index_of_xvec():
    pytest.importorskip("xvec")
    result = aggregate(weather(), basins(triangle=TRIANGLE, ridge=RIDGE), geometry=True)
    assert result.xindexes["geometry"].crs == 4326
    assert result.sel(geometry=RIDGE)["basin"].item() == "ridge"


def test_missing_cells_do_not_count():
    ds = weather()
    ds["pr"][:, :, 0] = np.nan
    ds["tas"][:] = np.nan
    result = aggregate(ds, basins(two=box(0, 50, 2, 51)))
    np.testing.assert_allclose(result["pr"][0], ds["pr"].sel(lat=50.5, lon=1.5), rtol=1e-6)
    assert result["tas"].isnull().all()


@pytest.mark.parametrize("flip", [False, True])
def test_longitude_conventions_and_directions_change_nothing(flip):
    shapes = basins(a=box(-1.3, 49.4, 1.2, 51.1))
    ds = weather(lon=(-1.5, -0.5, 0.5, 1.5))
    expected = aggregate(ds, shapes)
    turned = ds.assign_coords(lon=("lon", ds["lon"].values % 360, EAST)).sortby("lon")
    whole = turned.reindex(lon=np.arange(0.5, 360), fill_value=np.nan)
    whole["lon"].attrs = EAST
    whole = whole.isel(lat=slice(None, None, -1)) if flip else whole
    found = aggregate(whole.drop_vars("soil_type"), shapes)
    np.testing.assert_allclose(found["pr"], expected["pr"], rtol=1e-6)
    np.testing.assert_allclose(found["elevation"], expected["elevation"], rtol=1e-6)


def test_a_regional_map_across_the_date_line():
    ds = weather(lon=(178.5, 179.5, 180.5, 181.5))
    result = aggregate(ds, basins(east=box(178, 50, 179, 51), west=box(-179, 50, -178, 51)))
    np.testing.assert_allclose(
        result["elevation"], ds["elevation"].sel(lat=50.5, lon=[178.5, 181.5]), rtol=1e-6
    )


def test_projected_maps_and_polygons_of_another_system():
    ds = weather(lat=(3.15e6, 3.1e6, 3.05e6), lon=(4.0e6, 4.05e6, 4.1e6, 4.15e6))
    ds = ds.rename(lat="y", lon="x").drop_vars("crs")
    ds["y"].attrs = ds["x"].attrs = {"units": "m"}
    ds = ds.rio.write_crs(3035)
    shape = gpd.GeoDataFrame(
        {"id": ["a"]}, geometry=[box(4.025e6, 3.075e6, 4.125e6, 3.125e6)], crs=3035
    ).set_index("id")
    result = aggregate(ds, shape.to_crs(4326))
    expected = ds["elevation"].isel(y=1, x=slice(1, 3)).mean()
    np.testing.assert_allclose(result["elevation"], expected, rtol=1e-3)
    assert result["catchment_area"].item() == pytest.approx(5000, rel=0.01)
    assert float(result["lat"][0]) == pytest.approx(50.7, abs=0.5)
    assert "spatial_ref" not in result.coords
    assert "grid_mapping" not in result["pr"].attrs


def test_metadata_say_what_was_done():
    result = aggregate(weather(), basins(triangle=TRIANGLE, beyond=box(3, 50, 5, 51)))
    assert result.attrs["featureType"] == "timeSeries"
    assert "left out: soil_type" in result.attrs["history"]
    assert result.attrs["history"].endswith("made")
    assert result["pr"].attrs == {"units": "mm d-1", "cell_methods": "area: mean time: sum"}
    assert result["co2"].dims == ("time",)
    assert "crs" not in result.coords
    assert result["basin"].attrs["cf_role"] == "timeseries_id"
    np.testing.assert_allclose(result["grid_coverage"], [1.0, 0.5], rtol=1e-6)
    assert result["catchment_area"].attrs["units"] == "km2"


def test_chunked_maps_stay_lazy():
    ds = weather()
    expected = aggregate(ds, basins(a=TRIANGLE, b=RIDGE))

    def refuse(*args, **kwargs):
        raise AssertionError("data was read")

    with dask.config.set(scheduler=refuse):
        result = aggregate(ds.chunk(time=10, lat=1), basins(a=TRIANGLE, b=RIDGE))
    assert result["pr"].chunksizes["time"] == (10, 10, 10, 10, 5)
    xr.testing.assert_identical(result.compute(), expected)


def test_identifiers_come_from_the_index_or_a_column(tmp_path):
    shapes = basins(a=TRIANGLE, b=RIDGE).reset_index()
    assert aggregate(weather(), shapes, by="id")["basin"].values.tolist() == ["a", "b"]
    assert aggregate(weather(), shapes)["basin"].values.tolist() == ["0", "1"]
    shapes.to_file(tmp_path / "basins.gpkg")
    assert aggregate(weather(), tmp_path / "basins.gpkg", by="id").sizes["basin"] == 2
    assert aggregate(weather(), shapes.geometry).sizes["basin"] == 2


def test_from_grid_to_hydrograph(schema, make_model):
    """Basin means predict streamflow, and the polygon's area is the catchment's."""
    ds = aggregate(weather(), basins(a=TRIANGLE, b=RIDGE))
    binding = bind(ds, schema)
    assert binding.layout.support == "point"
    assert {"catchment_area", "elevation"} <= set(binding.static)
    assert "potential_evapotranspiration" in binding.forcing
    flow = ds.stefa.predict(make_model(target="streamflow", support="point"))
    assert flow.dims == ("basin", "time")
    assert flow["basin"].values.tolist() == ["a", "b"]
    assert bool(flow.notnull()[:, 5:].all())  # after half of the spin-up


SHAPES = basins(a=TRIANGLE)
BAD = {
    "not a map": (weather().isel(lat=0, lon=0), SHAPES, {}, LayoutError, "without aggregating"),
    "not polygons": (weather(), [TRIANGLE], {}, OptionError, "read_file"),
    "no file": (weather(), "gone.gpkg", {}, OptionError, "path"),
    "points": (weather(), basins(a=Point(1, 50)), {}, OptionError, "geom_type"),
    "no polygons": (weather(), SHAPES.iloc[:0], {}, OptionError, "selection"),
    "no crs": (weather(), SHAPES.set_crs(None, allow_override=True), {}, LayoutError, "set_crs"),
    "no such column": (weather(), SHAPES, {"by": "name"}, OptionError, "by="),
    "identifiers twice": (
        weather(), pd.concat([SHAPES, SHAPES]).reset_index(), {"by": "id"}, OptionError, "dissolve"
    ),
    "elsewhere": (weather(), basins(far=box(20, 10, 21, 11)), {}, LayoutError, "polygons.crs"),
    "no outlines": (weather(), gpd.GeoDataFrame({"id": [1]}), {}, OptionError, "read_file"),
    "a column that is no name": (weather(), SHAPES, {"by": {}}, OptionError, "leave by out"),
    "beyond the pole": (weather(lat=(92.5, 91.5, 90.5)), SHAPES, {}, LayoutError, "'lat'"),
    "irregular": (weather(lat=(51.5, 50.9, 49.5)), SHAPES, {}, LayoutError, "interp"),
}  # fmt: skip


def test_polygons_outside_are_refused_or_dropped_by_name():
    """Also one before, and one between, those that are on the map."""
    ds, far = weather(), box(20, 10, 21, 11)
    shapes = basins(moon=far, triangle=TRIANGLE, mars=far, ridge=RIDGE)
    with pytest.raises(LayoutError) as caught:
        aggregate(ds, shapes)
    assert caught.value.variable == "moon, mars"
    assert "2 of 4 polygons" in caught.value.found
    assert "outside='drop'" in caught.value.fix
    with pytest.warns(OutsideWarning, match="dropped: moon, mars$") as warned:
        found = ds.stefa.aggregate(shapes, outside="drop")
    assert warned[0].filename == __file__
    expected = aggregate(ds, basins(triangle=TRIANGLE, ridge=RIDGE))
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert "outside of the map: moon, mars" in found.attrs["history"]
    with pytest.raises(LayoutError, match=r"polygons\.crs"):  # nothing would be left
        aggregate(ds, basins(moon=far), outside="drop")


@pytest.mark.parametrize("case", BAD)
def test_bad_polygons_are_refused_with_the_fix(case):
    ds, polygons, options, error, fix = BAD[case]
    with pytest.raises(error) as caught:
        aggregate(ds, polygons, **options)
    assert fix in caught.value.fix
    assert caught.value.variable
    assert caught.value.found
    assert caught.value.expected


def test_outlines_that_cross_themselves_are_refused_with_the_fix():
    bow = Polygon([(0.1, 49.1), (2.9, 51.9), (2.9, 49.1), (0.1, 51.9)])
    polygons = gpd.GeoDataFrame(geometry=[bow], index=["a"], crs="EPSG:4326")
    with pytest.raises(OptionError, match=r"'a'.*cross.*1 of 1") as caught:
        aggregate(weather(), polygons)
    scope = {"polygons": polygons}
    exec(caught.value.fix, scope)
    halves = gpd.GeoSeries(scope["polygons"].geometry.explode(), crs="EPSG:4326")
    areas = [
        aggregate(weather(), half).catchment_area.item()
        for half in (halves.iloc[[0]], halves.iloc[[1]])
    ]
    mended = aggregate(weather(), scope["polygons"]).catchment_area.item()
    assert mended == pytest.approx(sum(areas), rel=1e-9)
    assert mended > 30_000


def test_parts_turned_differently_add_up():
    left, right = box(0.1, 49.1, 1.1, 50.1), box(2.0, 49.1, 3.0, 50.1)
    for parts in ([left, right], [left, right.reverse()]):
        polygons = gpd.GeoDataFrame(geometry=[MultiPolygon(parts)], crs="EPSG:4326")
        found = aggregate(weather(), polygons).catchment_area.item()
        assert found == pytest.approx(2 * 8000, rel=0.02)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "exactextract", None)
    with pytest.raises(MissingExtraError, match="pip install exactextract geopandas") as caught:
        aggregate(weather(), SHAPES)
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("change", [
    lambda ds: ds,
    lambda ds: ds.transpose("lat", "lon", "band", "time"),
    lambda ds: ds.chunk(band=1, lat=2),
    lambda ds: ds.sortby("lat"),
    lambda ds: ds.assign_coords(lon=ds["lon"] + 360),
], ids=["band first", "band last", "chunked", "ascending", "beyond 360"])  # fmt: skip
def test_bands_of_a_picture_are_averaged_as_each_would_be(change):
    ds, shapes = weather(), basins(a=TRIANGLE, b=RIDGE)
    rng = np.random.default_rng(3)
    bands = rng.normal(0, 1, (4, 3, 4))
    bands[2, 1, 1] = np.nan
    ds["patch"] = ("band", "lat", "lon"), bands
    given = change(ds)
    found = aggregate(given, shapes)["patch"]
    assert (found.chunks is not None) == (given["patch"].chunks is not None)
    assert found.dims == ("basin", "band")
    for i in range(4):
        alone = aggregate(ds.assign(patch=ds["patch"].isel(band=i)), shapes)["patch"]
        np.testing.assert_allclose(found.isel(band=i), alone, rtol=1e-6)
