"""`ds.stefa.plot`: what stands on pictures of a dataset, and how they come by it."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import xstefa
from xstefa.errors import LayoutError, MissingTokenError, OptionError
from xstefa.evaluation.climatology import anomaly, percentile
from xstefa.plotting.maps import soil_moisture_maps
from xstefa.plotting.place import Sheet
from xstefa.plotting.shown import thinned

MADE = {"model_name": "m", "model_hash": "0123456789", "xstefa_version": "1"}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def basins() -> xr.Dataset:
    return xstefa.open_sample("camels_us").sel(time=slice("1989-10", "1991-09")).load()


@pytest.fixture(scope="module")
def predicted(basins: xr.Dataset) -> xr.DataArray:
    """Half of what was observed, as a prediction that was made before."""
    return (basins.streamflow / 2).assign_attrs(units="mm d-1", **MADE)


@pytest.fixture
def grid() -> xr.Dataset:
    return xstefa.open_sample("conus_grid")


def texts(figure) -> str:
    figure.canvas.draw()
    return " | ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text())


def lines(figure) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in figure.axes[-1].lines}


def test_a_hydrograph_predicts_and_draws_what_belongs_beside_it(basins: xr.Dataset) -> None:
    figure = basins.stefa.plot.hydrograph(site="01054200", period=("1991-01", "1991-03"))
    shown, drawn = texts(figure), lines(figure)
    model = xstefa.load_model("streamflow")
    for text in (
        "Wild River At Gilead, Maine (01054200)",
        "NSE",
        "5 to 95 %",
        f"model streamflow · {model.content_hash[:8]}",
        "site held out of training",
    ):
        assert text in shown
    whole = basins.sel(basin="01054200").stefa.predict("streamflow")
    np.testing.assert_allclose(drawn["predicted"], whole.sel(time=slice("1991-01", "1991-03")))
    observed = basins.streamflow.sel(basin="01054200", time=slice("1991-01", "1991-03"))
    np.testing.assert_allclose(drawn["observed"], observed)
    assert figure.axes[0].get_ylim()[0] > 0 == figure.axes[0].get_ylim()[1]  # rain hangs


def test_a_prediction_that_is_given_is_drawn(basins, predicted) -> None:
    plot = basins.stefa.plot
    for site in ("01054200", (44.4, -70.98)):
        figure = plot.hydrograph(predicted, site=site, log=True)
        assert "NSE" in texts(figure)
        assert "model m · 01234567 · xstefa 1" in texts(figure)
        np.testing.assert_allclose(
            lines(figure)["predicted"], predicted.sel(basin="01054200"), rtol=1e-6
        )
        assert figure.axes[-1].get_yscale() == "log"
    known = plot.hydrograph(predicted, site="01054200", model="streamflow")
    assert "held out" in texts(known)


def test_which_site_is_asked_for(basins, predicted) -> None:
    plot = basins.stefa.plot
    with pytest.raises(OptionError, match="site='01054200'"):
        plot.hydrograph(predicted)
    with pytest.raises(MissingTokenError, match="01054200"):
        plot.hydrograph(predicted, site="0105420")
    with pytest.raises(OptionError, match="km from the nearest"):
        plot.hydrograph(predicted, site=(0.0, 0.0))
    with pytest.raises(LayoutError, match="other sites"):
        plot.hydrograph(predicted[:3], site="01054200")


def test_flow_duration_is_of_common_days_in_order(basins, predicted) -> None:
    gaps = predicted.where(predicted.time.dt.month != 3)
    figure = basins.stefa.plot.flow_duration(gaps, site="01054200")
    curves = lines(figure)
    both = gaps.sel(basin="01054200").notnull() & basins.streamflow.sel(basin="01054200").notnull()
    assert f"{int(both.sum())} days" in texts(figure)
    np.testing.assert_allclose(curves["predicted"], curves["observed"] / 2, rtol=1e-5)
    assert (np.diff(curves["observed"]) <= 0).all()


def test_names_with_dollars_are_no_formulas(basins, predicted) -> None:
    name = "a $b_{$ c$"
    one = basins.isel(basin=[0]).drop_vars("gauge_name").assign_coords(basin=[name])
    given = predicted[:1].assign_coords(basin=[name])
    for figure in (
        one.stefa.plot.hydrograph(given, log=True),
        one.stefa.plot.flow_duration(given),
        one.stefa.plot.regime(given),
    ):
        assert f"Basin {name}" in texts(figure)
        assert "mathdefault" not in texts(figure)


def test_cells_are_named_by_their_place(grid: xr.Dataset) -> None:
    moisture = (grid.vp / 1e4).rename("soil_moisture").assign_attrs(units="m3 m-3")
    assert "40.5° N, 98.5° W" in texts(grid.stefa.plot.regime(moisture, site=(40.4, -98.6)))


def test_days_without_flow_are_said(basins, predicted) -> None:
    dry = predicted.where(predicted.time.dt.month > 3, 0.0)
    shown = texts(basins.stefa.plot.flow_duration(dry, site="01054200"))
    assert "predicted, 25% without flow" in shown


def test_regime_is_of_months(basins, predicted) -> None:
    figure = basins.stefa.plot.regime(predicted, site="01054200")
    may = basins.streamflow.sel(basin="01054200")[basins.time.dt.month == 5].mean()
    np.testing.assert_allclose(lines(figure)["observed"][4], may, rtol=1e-5)
    rain, below = figure.axes
    assert len(rain.patches) == 12
    assert below.get_ylim()[0] == 0


def test_soil_moisture_of_a_cell_is_a_series_without_zero(grid: xr.Dataset) -> None:
    moisture = (0.2 + grid.vp / 1e5).rename("soil_moisture").assign_attrs(units="m3 m-3")
    figure = grid.stefa.plot.hydrograph(moisture, site=(40.1, 260.1))
    cell = moisture.sel(lat=40.1, lon=-99.9, method="nearest")
    np.testing.assert_allclose(lines(figure)["predicted"], cell)
    assert figure.axes[-1].get_ylim()[0] > 0.1


def test_percentiles_and_anomalies_are_of_the_time_of_year() -> None:
    time = xr.date_range("2001-01-01", "2010-12-31")
    season = np.sin(2 * np.pi * (time.day_of_year - 1) / 365.25)
    wet = np.where(time.year == 2005, 1.0, 0.0)
    da = xr.DataArray(season + wet, {"time": time}, "time", "x")
    day = [int(np.flatnonzero(time == f"{year}-06-20")[0]) for year in (2005, 2006)]
    high, usual = percentile(da, day).values
    assert high > 90 > usual > 20
    above, none = anomaly(da, day).values
    assert above - none == pytest.approx(1, abs=0.01)
    # All of a year of ten is above the rest, whatever the season.
    rank = percentile(xr.DataArray(wet, {"time": time}, "time", "x"), day)
    np.testing.assert_allclose(rank, [95, 45])
    with pytest.raises(LayoutError, match="several years"):
        percentile(da[:700], [0])


def test_the_time_of_year_goes_on_over_new_year() -> None:
    time = xr.date_range("2001-01-01", "2003-12-31")
    da = xr.DataArray(np.where(time.month == 12, 1.0, 0.0), {"time": time}, "time", "x")
    # 15 days of December before the first of January, in three years (of one there is no before).
    assert 0 < percentile(da, [0]).item() < 40
    assert percentile(da.chunk(time=100), [0]).chunks


def test_a_drought_is_on_the_map_as_percentiles(grid: xr.Dataset) -> None:
    dry = xr.where((grid.time.dt.year == 2012) & (grid.lon > -95), 0.1, 0.3)
    dry = (dry + 0.001 * grid.vp / grid.vp.max()).transpose(*grid.vp.dims)
    dry = dry.rename("soil_moisture").assign_attrs(units="m3 m-3", **MADE)
    figure = grid.stefa.plot.map(dry, day="2012-07-15", as_="percentile")
    (mesh,) = figure.axes[0].findobj(matplotlib.collections.QuadMesh)
    values = xr.DataArray(mesh.get_array().reshape(25, 58).filled(np.nan), dry[0].coords)
    east, west = values.sel(lon=slice(-90, None)), values.sel(lon=slice(None, -100))
    assert float(east.max()) < 34 < float(west.median())
    shown = texts(figure)
    for text in ("15 July 2012", "2011 to 2013", "95", "40° N", "105° W", "model m"):
        assert text in shown


def test_large_maps_are_thinned_before_anything_is_predicted(grid: xr.Dataset) -> None:
    fewer, how = thinned(grid, most=20)
    assert (fewer.sizes["lat"], fewer.sizes["lon"]) == (8, 19)
    assert how.text == "one cell in 3 × 3"
    xr.testing.assert_identical(fewer, grid.isel(how.steps))
    assert thinned(grid)[1].text == ""
    basins = xstefa.open_sample("camels_us")
    assert thinned(basins, most=5)[0].sizes == basins.sizes


def test_skill_says_which_sites_were_held_out(basins: xr.Dataset) -> None:
    scored = xr.Dataset(
        {"nse": ("basin", np.linspace(0.1, 0.9, 12)), "training": ("basin", [2] * 5 + [1] * 7)},
        basins[["lat", "lon"]].coords,
        {"model_name": "m", "model_hash": "0123456789"},
    )
    figure = basins.stefa.plot.skill(scored)
    assert all(t in texts(figure) for t in ("5 held out", "7 learned from", "model m · 01234567"))
    with pytest.raises(OptionError, match="nse"):
        basins.stefa.plot.skill(scored, score="kge")


def test_trust_crosses_out_what_is_outside(basins: xr.Dataset) -> None:
    odd = basins.assign(elev_mean=basins.elev_mean.where(basins.basin != "01054200", 7000.0))
    figure = odd.stefa.plot.trust("streamflow")
    crosses = figure.axes[0].collections[-1].get_offsets()
    assert len(crosses) == int(odd.stefa.trust("streamflow").outside.sum()) > 0
    assert "to expect" in texts(figure)
    with pytest.raises(OptionError, match="distance"):
        odd.stefa.plot.trust("streamflow", variable="nse")


@pytest.mark.parametrize("middle", [0, 180])
def test_land_is_on_maps_of_the_world_wherever_they_begin(middle: int) -> None:
    lon = np.arange(middle - 175.0, middle + 180, 10)
    lat = np.arange(-85.0, 90, 10)
    da = xr.DataArray(
        np.zeros((1, 18, 36)), {"time": [np.datetime64("2001-01-01")], "lat": lat, "lon": lon}
    )
    axis = xstefa.plotting.soil_moisture_maps(da).axes[0]
    (land,) = (p for p in axis.patches if p.get_facecolor()[3] and p.get_zorder() == 1)
    place = Sheet.of(da[0])

    def on_land(lat: float, lon: float) -> bool:
        x = place.x[0][0] + ((lon - (middle - 180)) % 360) / 360 * np.ptp(place.x)
        return land.get_path().contains_point(
            (x, place.y[0, 0] + (lat + 90) / 180 * np.ptp(place.y))
        )

    for name, lat_, lon_, expected in (
        ("Ghana", 8, -1, True),
        ("Brazil", -10, -55, True),
        ("Siberia", 65, 120, True),
        ("Pacific", 0, -150, False),
        ("Atlantic", 30, -40, False),
    ):
        assert on_land(lat_, lon_) == expected, name


def test_meridians_and_parallels_say_which_they_are() -> None:
    swiss = xr.DataArray([1.0], {"lat": ("s", [47.0]), "lon": ("s", [8.0])}, "s", "x")
    axis = xstefa.plotting.scores.plot_map(swiss).axes[0]
    place = Sheet.of(swiss)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["5° E", "10° E", "15° E"]
    assert "46° N" in [t.get_text() for t in axis.get_yticklabels()]
    # The site is at the middle, between meridians of 5 and 10 degrees.
    five, ten = axis.get_xticks()[:2]
    assert five < place.x[0] < ten


def test_one_of_several_sites_is_named_in_a_way_that_works(basins, predicted) -> None:
    with pytest.raises(OptionError, match="this shows one site") as caught:
        basins.stefa.plot.hydrograph(predicted)
    basins.stefa.plot.hydrograph(predicted, **eval(f"dict({caught.value.fix})"))
    none = basins.isel(basin=[])
    with pytest.raises(OptionError, match="Fix: check the selection"):
        none.stefa.plot.hydrograph(predicted.isel(basin=[]))


def test_a_region_across_the_date_line_is_one_region(grid: xr.Dataset) -> None:
    region = grid.isel(lat=slice(8, 13), lon=slice(20, 26), time=slice(400, 401)).load()
    values = region.precipitation if "precipitation" in region else region[next(iter(region))]
    values = values.transpose("time", "lat", "lon").isel(time=0, drop=True)
    values = values.assign_coords(lon=values.lon - float(values.lon[0]) + 178.5)
    values.lon.attrs["standard_name"] = "longitude"
    wrapped = values.assign_coords(
        lon=((values.lon + 180) % 360 - 180).assign_attrs(values.lon.attrs)
    )
    points = [each.stack(site=("lat", "lon")).reset_index("site") for each in (values, wrapped)]
    lon, lat = np.meshgrid(wrapped.lon, wrapped.lat)
    curved = wrapped.drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    curved = curved.assign_coords(
        lat=(("y", "x"), lat, values.lat.attrs), lon=(("y", "x"), lon, values.lon.attrs)
    )
    for one, other in ((values, wrapped), points, (values, curved)):
        expected, found = Sheet.of(one), Sheet.of(other)
        np.testing.assert_allclose(found.x, expected.x, atol=1)
        np.testing.assert_allclose(found.y, expected.y, atol=1)


def test_there_is_something_to_map(grid: xr.Dataset) -> None:
    some = grid.isel(lat=slice(3), lon=slice(3), time=slice(3)).load()
    values = xr.zeros_like(some[next(iter(some))]).assign_attrs(MADE)
    for data, day in ((values, []), (values.isel(lat=[]), str(values.time.values[0])[:10])):
        with pytest.raises(LayoutError, match="at least one day of one place"):
            soil_moisture_maps(data, dates=day if isinstance(day, list) else [day])
