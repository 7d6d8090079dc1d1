"""Figures: what is on them, for the layouts people have, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from xstefa import plotting
from xstefa.datasets import open_sample
from xstefa.errors import LayoutError, UnitsError, XstefaWarning
from xstefa.evaluation.probabilistic import coverage
from xstefa.plotting.look import SOIL_MOISTURE_COLOURS
from xstefa.plotting.scores import plot_map, plot_reliability

ATTRS = {"units": "m3 m-3", "long_name": "volumetric soil moisture"}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def grid() -> xr.DataArray:
    """A soil-moisture-like field over the US, two months."""
    vapour = open_sample("conus_grid")["vp"].isel(time=slice(0, 60)).load()
    return (0.05 + vapour / 8000).rename("soil_moisture").assign_attrs(ATTRS)


@pytest.fixture
def basin() -> xr.Dataset:
    ds = open_sample("camels_us")[["streamflow", "prcp", "gauge_name"]].set_coords("gauge_name")
    return ds.sel(basin="01054200", time=slice("1989-10", "1991-09")).load()


def texts(figure) -> str:
    """All text of a figure."""
    figure.canvas.draw()
    return " | ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text())


def outline(axis) -> list[np.ndarray]:
    """Lines of coasts and borders of a map, without points that are far away."""
    lines = [line.get_xydata() for line in axis.lines if line.get_gid() == "outline"]
    return [line[np.isfinite(line).all(axis=1)] for line in lines]


def drawn(figure) -> list[np.ndarray]:
    """Values of each map of a figure, missing as NaN, the colour bar left out."""
    kinds = (matplotlib.collections.QuadMesh, matplotlib.collections.PathCollection)
    maps = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    values = [c.get_array() for axis in maps for c in axis.collections if isinstance(c, kinds)]
    return [np.ma.filled(v.astype(float), np.nan) for v in values]


def test_maps_name_days_units_and_quantity(grid: xr.DataArray) -> None:
    figure = plotting.soil_moisture_maps(grid, dates=["2011-01-01", "2011-02-15"])
    shown = texts(figure)
    for text in ("1 January 2011", "15 February 2011", "Volumetric soil moisture", "m³ m⁻³"):
        assert text in shown


def test_maps_show_the_values_of_the_day(grid: xr.DataArray) -> None:
    (shown,) = drawn(plotting.soil_moisture_maps(grid, dates=["2011-02-03"]))
    np.testing.assert_allclose(shown, grid.sel(time="2011-02-03"))


def test_maps_share_one_scale_and_default_to_six(grid: xr.DataArray) -> None:
    figure = plotting.soil_moisture_maps(grid)
    assert len(drawn(figure)) == 6
    meshes = figure.findobj(matplotlib.collections.QuadMesh)
    assert len({m.get_clim() for m in meshes if m.get_rasterized()}) == 1


def test_dimension_names_order_and_direction_do_not_matter(grid: xr.DataArray) -> None:
    renamed = grid.rename(time="day", lat="j", lon="i").transpose("i", "day", "j")
    figure = plotting.soil_moisture_maps(
        renamed.isel(j=slice(None, None, -1)), dates=["2011-02-03"]
    )
    (shown,) = drawn(figure)
    np.testing.assert_allclose(shown[::-1], grid.sel(time="2011-02-03"))


def test_longitudes_to_360_draw_the_same_map(grid: xr.DataArray) -> None:
    east = grid.assign_coords(lon=(grid["lon"] % 360).assign_attrs(grid["lon"].attrs))
    extents = []
    for da in (grid, east):
        axis = plotting.soil_moisture_maps(da, dates=["2011-01-01"]).axes[0]
        borders = np.concatenate(outline(axis))
        extents.append([*axis.get_xlim(), *axis.get_ylim(), *borders.min(0), *borders.max(0)])
    np.testing.assert_allclose(*extents, atol=1)
    left, right, bottom, top, west, south, east_, north = extents[0]
    assert left < west < east_ < right
    assert bottom < south < north < top


def test_sites_are_drawn_as_points() -> None:
    ds = open_sample("camels_us")
    da = ds["streamflow"].assign_attrs(units="mm d-1").isel(time=slice(0, 3))
    (shown,) = drawn(plotting.soil_moisture_maps(da, dates=["1989-10-02"]))
    np.testing.assert_allclose(shown, da.sel(time="1989-10-02"))


def test_projected_grid_keeps_its_projection(grid: xr.DataArray) -> None:
    rng = np.random.default_rng(0)
    da = xr.DataArray(
        rng.random((2, 5, 7)),
        dims=("time", "y", "x"),
        coords={
            "time": grid["time"][:2],
            "y": ("y", np.arange(5) * 1e5, {"axis": "Y"}),
            "x": ("x", np.arange(7) * 1e5, {"axis": "X"}),
        },
        attrs=ATTRS,
    ).rio.write_crs(5070)
    figure = plotting.soil_moisture_maps(da, dates=["2011-01-01"])
    (shown,) = drawn(figure)
    np.testing.assert_allclose(shown, da[0])
    assert outline(figure.axes[0]), "borders are drawn in the same projection"


def test_curvilinear_grid(grid: xr.DataArray) -> None:
    lon, lat = np.meshgrid(grid["lon"], grid["lat"])
    da = xr.DataArray(
        grid.values,
        dims=("time", "j", "i"),
        coords={
            "time": grid["time"],
            "lat": (("j", "i"), lat, {"standard_name": "latitude"}),
            "lon": (("j", "i"), lon, {"standard_name": "longitude"}),
        },
        attrs=ATTRS,
    )
    (shown,) = drawn(plotting.soil_moisture_maps(da, dates=["2011-01-01"]))
    np.testing.assert_allclose(shown, grid[0])
    lost = np.zeros(lat.shape, dtype=bool)
    lost[0, 0], lost[3, 4:7], lost[:, -1] = True, True, True
    gaps = da.assign_coords(
        {n: da[n].where(~lost).assign_attrs(da[n].attrs) for n in ("lat", "lon")}
    )
    with pytest.warns(XstefaWarning, match=f"{lost.sum()} of {lost.size} cells have no place"):
        figure = plotting.soil_moisture_maps(gaps, dates=["2011-01-01"])
    (shown,) = drawn(figure)
    np.testing.assert_allclose(np.ma.filled(shown, np.nan), da[0].where(~lost))
    nowhere = gaps.assign_coords(lat=gaps.lat * np.nan)
    with pytest.raises(LayoutError, match="none with both latitude and longitude"):
        plotting.soil_moisture_maps(nowhere, dates=["2011-01-01"])


def test_calendar_without_leap_days(grid: xr.DataArray) -> None:
    noleap = grid.convert_calendar("noleap", use_cftime=True)
    assert "3 February 2011" in texts(plotting.soil_moisture_maps(noleap, dates=["2011-02-03"]))
    point = noleap.isel(lat=12, lon=30)
    assert "2011" in texts(plotting.series(point, point))


@pytest.mark.parametrize("layout", ["global", "one cell"])
def test_odd_extents(grid: xr.DataArray, layout: str) -> None:
    if layout == "one cell":
        da = grid.isel(lat=[12], lon=[30])
    else:
        da = xr.DataArray(
            np.random.default_rng(0).random((1, 18, 36)),
            dims=("time", "lat", "lon"),
            coords={
                "time": grid["time"][:1],
                "lat": np.arange(-85.0, 90, 10),
                "lon": np.arange(5.0, 360, 10),
            },
            attrs=ATTRS,
        )
    axis = plotting.soil_moisture_maps(da).axes[0]
    assert np.diff(axis.get_xlim()) > 0
    assert np.diff(axis.get_ylim()) > 0


def test_lazy_prediction_is_computed_once(grid: xr.DataArray) -> None:
    calls = []

    def predict(block: np.ndarray) -> np.ndarray:
        if block.size:
            calls.append(block.shape)
        return block

    lazy = grid.chunk(time=-1, lat=13, lon=29)
    predicted = lazy.copy(data=lazy.data.map_blocks(predict, meta=np.empty((0, 0, 0), "f4")))
    plotting.soil_moisture_maps(predicted)
    assert len(calls) == 4
    calls.clear()
    point = predicted.isel(lat=12, lon=30)
    plotting.series(point, grid.isel(lat=12, lon=30))
    assert len(calls) == 1


def test_colours_darken_steadily() -> None:
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in SOIL_MOISTURE_COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = -np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() < 3 * steps.min()


@pytest.mark.parametrize("log", [False, True])
def test_hydrograph_with_a_fan(basin: xr.Dataset, log: bool) -> None:
    obs = basin["streamflow"]
    levels = xr.DataArray([0.95, 0.5, 0.05, 0.25, 0.75], dims="quantile")
    fan = (obs * (0.5 + levels)).assign_coords(quantile=levels).assign_attrs(obs.attrs)
    period = slice("1990-01", "1990-03")
    figure = plotting.hydrograph(obs * 1.1, obs, quantiles=fan, period=period, log=log)
    assert all(text in texts(figure) for text in ("5 to 95 %", "25 to 75 %"))
    axis = figure.axes[-1]
    assert axis.get_yscale() == ("log" if log else "linear")
    wide, narrow = (band.get_paths()[0].vertices for band in axis.collections)
    assert len(axis.collections) == 2
    highest = float(obs.sel(time=period).max())
    assert wide[:, 1].max() == pytest.approx(1.45 * highest, rel=1e-5)
    assert narrow[:, 1].max() == pytest.approx(1.25 * highest, rel=1e-5)


def test_a_fan_is_of_the_same_site_and_days(basin: xr.Dataset) -> None:
    obs = basin["streamflow"].assign_coords(basin="here")
    fan = obs.expand_dims(quantile=[0.1, 0.9])
    for wrong, text in (
        (obs, "no quantiles"),
        (fan.isel(quantile=0), "no quantiles"),
        (fan.isel(time=slice(9)), "different labels"),
        (fan.assign_coords(basin="elsewhere"), "of another place.*elsewhere.*here"),
    ):
        with pytest.raises(LayoutError, match=text):
            plotting.hydrograph(obs, quantiles=wrong)


def test_reliability() -> None:
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    below = np.array([[0.2, 0.3, 0.5, 0.7, 0.8], [0.0, 0.2, 0.5, 0.8, 1.0], [np.nan] * 5])
    pit = xr.DataArray(below.T, dims=("quantile", "site"), coords={"quantile": levels})
    left, right = plot_reliability(xr.Dataset({"pit": pit})).axes
    (stairs,) = left.patches
    np.testing.assert_allclose(stairs.get_data().values, [2, 0.75, 1, 1, 0.75, 2])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[0.9, 0.8], [0.5, 0.5]])
    assert left.get_title(loc="left") == "2 sites"
    with pytest.raises(LayoutError, match="evaluate"):
        plot_reliability(xr.Dataset({"nse": pit}))
    with pytest.raises(LayoutError, match="no site with a value"):
        plot_reliability(xr.Dataset({"pit": pit.where(False)}))


def test_a_map_of_coverage_diverges_from_what_ought_to_be() -> None:
    levels = np.arange(0.05, 1, 0.1)
    obs = xr.DataArray(np.random.default_rng(0).random((3, 100)), dims=("site", "time"))
    obs[0], obs[2] = 2.0, np.nan
    places = {"lat": ("site", [40.0, 41, 42]), "lon": ("site", [-90.0, -91, -92])}
    pred = xr.ones_like(obs) * xr.DataArray(levels, {"quantile": levels}, "quantile")
    shares = coverage(pred.transpose("quantile", ...), obs.assign_coords(places))
    figure = plot_map(shares)
    points, bar = figure.axes[0].collections[-1], figure.axes[1]
    assert (points.norm.vmin, points.norm.vmax, points.cmap.name) == (0.8, 1, "RdBu")
    assert "within the 90 % interval" in bar.get_xlabel()
    assert figure.get_suptitle() == f"{float(shares[1]) / 2:.1%} of the days at 2 sites"
    assert plot_map(shares, title="of all").get_suptitle() == "of all"


def test_hydrograph_names_site_scores_and_units(basin: xr.Dataset) -> None:
    pred = (basin["streamflow"] * 0.9).rename("streamflow").assign_attrs(units="mm d-1")
    figure = plotting.hydrograph(pred, basin["streamflow"], precipitation=basin["prcp"])
    shown = texts(figure)
    for text in ("Wild River At Gilead, Maine", "NSE 0.9", "KGE 0.8", "(730 days)", "mm d⁻¹"):
        assert text in shown
    rain, flow = figure.axes
    assert rain.get_ylim()[0] > rain.get_ylim()[1] == 0
    assert rain.get_xlim() == flow.get_xlim()


def test_scores_are_those_of_all_days_whatever_is_drawn(basin: xr.Dataset) -> None:
    pred, obs = basin["streamflow"] + 0.1, basin["streamflow"]
    figure = plotting.hydrograph(pred, obs, period=slice("1990-01", "1990-03"))
    assert "(730 days)" in texts(figure)
    assert len(figure.axes[0].lines[0].get_xdata()) == 90


def test_observations_in_other_units_are_drawn_in_those_predicted(basin: xr.Dataset) -> None:
    pred = basin["streamflow"]
    obs = (pred / 1000).assign_attrs(units="m day-1")
    figure = plotting.hydrograph(pred, obs)
    assert "NSE 1.00" in texts(figure)
    observed, predicted = figure.axes[0].lines
    np.testing.assert_allclose(observed.get_ydata(), predicted.get_ydata(), rtol=1e-5)
    with pytest.raises(UnitsError, match="streamflow"):
        plotting.hydrograph(pred, obs.assign_attrs(units="m3 s-1"))


def test_prediction_alone_has_no_scores(basin: xr.Dataset) -> None:
    shown = texts(plotting.hydrograph(basin["streamflow"].drop_vars("gauge_name")))
    assert "Basin 01054200" in shown
    assert "NSE" not in shown


def test_series_at_a_tower_with_gaps() -> None:
    ds = open_sample("fluxnet").set_coords("station_id").isel(station=6)
    obs = ds["swc"].isel(swc_layer=0)
    pred = (obs.interpolate_na("time") + 0.01).rename("soil_moisture").assign_attrs(ATTRS)
    shown = texts(plotting.series(pred, obs, precipitation=ds["precipitation"]))
    for text in ("Station US-SRM", "r 1.00", "bias +0.01 m³ m⁻³", "(1,677 days)"):
        assert text in shown


def test_series_begins_with_its_site(basin: xr.Dataset) -> None:
    late = basin[["streamflow", "prcp"]].where(basin["time"] >= np.datetime64("1990-10-01"))
    figure = plotting.hydrograph(late["streamflow"], precipitation=late["prcp"])
    begin = matplotlib.dates.num2date(figure.axes[-1].get_xlim()[0])
    assert begin.strftime("%Y-%m") == "1990-09"  # with a margin of two days


def test_missing_day_names_the_days_there_are(grid: xr.DataArray) -> None:
    with pytest.raises(LayoutError, match="1 January 2011 to 1 March 2011"):
        plotting.soil_moisture_maps(grid, dates=["2015-01-01"])
    with pytest.raises(LayoutError, match="28 days for '2011-02'"):
        plotting.soil_moisture_maps(grid, dates=["2011-02"])


def test_further_dimensions_are_refused_with_the_fix(grid: xr.DataArray) -> None:
    with pytest.raises(LayoutError, match=r"isel\(\{'quantile': 0\}\)"):
        plotting.soil_moisture_maps(grid.expand_dims(quantile=[0.1, 0.9]))
    with pytest.raises(LayoutError, match=r"isel\(.*'lat': 0"):
        plotting.hydrograph(grid)


def test_no_time_no_place_no_days(grid: xr.DataArray, basin: xr.Dataset) -> None:
    with pytest.raises(LayoutError, match="no time axis"):
        plotting.soil_moisture_maps(grid[0])
    with pytest.raises(LayoutError, match="latitude and longitude"):
        plotting.soil_moisture_maps(grid.drop_vars(["lat", "lon"]))
    with pytest.raises(LayoutError, match="no days in this period"):
        plotting.hydrograph(basin["streamflow"], period=slice("2020", "2021"))


def test_other_outline(grid: xr.DataArray, tmp_path: Path) -> None:
    ring = [[-100, 35], [-90, 35], [-90, 40], [-100, 35]]
    shapes = [{"type": "Polygon", "coordinates": [ring]}, {"type": "Point", "coordinates": [0, 0]}]
    path = tmp_path / "outline.geojson"
    path.write_text(json.dumps({"features": [{"geometry": shape} for shape in shapes]}))
    assert len(outline(plotting.soil_moisture_maps(grid[:1], outline=path).axes[0])) == 1
    assert not outline(plotting.soil_moisture_maps(grid[:1], outline=None).axes[0])


def test_importing_does_not_import_matplotlib() -> None:
    code = "import sys, xstefa.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def explained() -> xr.Dataset:
    """What `explain` returns: 1 mm with nothing known, 20 from rain, -3 from warmth, 2 of land."""
    coords = {
        "token": ["precipitation", "temperature_max", "temperature_min"],
        "lag": ["0", "1-30", "after"],
        "attribute": ["soil_texture"],
    }
    rain = np.array([[15.0, 5, 0], [-2, 0, 0], [0, -1, 0]])
    found = xr.Dataset(coords=coords | {"basin": "01", "time": np.datetime64("1999-09-17")})
    found["contribution"] = ("token", "lag"), rain
    found["contribution_static"] = "attribute", [2.0]
    found["contribution_earlier"] = 0.5
    for name in [*found]:
        found[f"{name}_error"] = 0 * found[name] + 0.1
    found["baseline"] = 1.0
    attrs = {"units": "mm d-1", "long_name": "streamflow per unit catchment area"}
    found["prediction"] = xr.Variable((), 20.5, attrs)
    return found


def test_contributions_begin_where_the_one_above_ends():
    figure = plotting.contributions(explained())
    bars = [p for p in figure.axes[0].patches if isinstance(p, matplotlib.patches.Rectangle)]
    ends = np.cumsum([1.0, 15, 5, -3, 0.5, 2])
    np.testing.assert_allclose([p.get_x() + p.get_width() for p in bars], [*ends, 20.5])
    np.testing.assert_allclose([p.get_x() for p in bars], [0, *ends[:-1], 0])
    text = texts(figure)
    assert "Basin 01, 17 September 1999" in text
    assert "precipitation 1-30 days before" in text
    assert "after" not in text  # nothing is there to be drawn


def test_contributions_of_several_sites_are_refused():
    with pytest.raises(LayoutError, match=r"isel\(\{'site': 0\}\)"):
        plotting.contributions(explained().expand_dims(site=2))
