import sys

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xstefa.binding import bind, plan
from xstefa.errors import RangeError, UnitsError


def tokens(binding):
    return {**binding.forcing, **binding.static}


def no_compute(*args, **kwargs):
    raise AssertionError("data was read")


def test_tokens_are_float32_in_canonical_units(basins, schema):
    basins["hot"] = (basins["hot"].astype(np.float64) + 273.15).assign_attrs(
        basins["hot"].attrs, units="K"
    )
    binding = bind(basins, schema)
    for name, array in tokens(binding).items():
        assert array.dtype == np.float32
        assert array.name == name
        assert array.attrs["units"] == schema[name].units
    assert float(binding.forcing["temperature_max"].max()) < 21
    assert binding.forcing["precipitation"].dims == ("site", "time")
    assert binding.static["elevation"].dims == ("site",)


def test_derived_tokens_have_the_values_of_their_formulas(basins, schema):
    binding = bind(basins, schema)
    np.testing.assert_allclose(
        binding.forcing["temperature_mean"], (basins["hot"] + basins["cold"]) / 2, rtol=1e-6
    )
    assert binding.table["potential_evapotranspiration"].rule == "derived: Hargreaves-Samani 1985"


def test_binding_reads_nothing_of_lazily_opened_files(basins, schema, tmp_path):
    basins.to_netcdf(tmp_path / "basins.nc")
    with xr.open_dataset(tmp_path / "basins.nc") as ds:
        repr(plan(ds, schema).table)
        bind(ds, schema)
        assert not any(ds[name].variable._in_memory for name in ds.data_vars)


def test_taking_tokens_out_of_chunked_data_computes_nothing(basins, schema):
    with dask.config.set(scheduler=no_compute):
        binding = bind(basins.chunk(site=1, time=5), schema)
        arrays = tokens(binding)
        binding.observed("streamflow")
    assert all(array.chunks is not None for array in arrays.values())
    assert arrays["temperature_mean"].chunks == ((1, 1, 1), (5, 5))
    assert arrays["potential_evapotranspiration"].chunks == ((1, 1, 1), (5, 5))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(site=st.integers(1, 3), time=st.integers(1, 10), seed=st.integers(0, 100))
def test_chunks_and_order_of_variables_do_not_matter(basins, schema, site, time, seed):
    names = list(basins.data_vars)
    np.random.default_rng(seed).shuffle(names)
    shuffled = basins[names].chunk(site=site, time=time)
    expected, found = tokens(bind(basins, schema)), tokens(bind(shuffled, schema))
    assert list(expected) == list(found)
    for name, array in expected.items():
        xr.testing.assert_identical(array, found[name].compute())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sites=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    start=st.integers(0, 5),
    length=st.integers(1, 5),
)
def test_selecting_before_and_after_is_the_same(basins, schema, sites, start, length):
    pick = {"site": sites, "time": slice(start, start + length)}
    before = tokens(bind(basins.isel(pick), schema))
    for name, array in tokens(bind(basins, schema)).items():
        picked = array.isel({dim: pick[dim] for dim in array.dims})
        xr.testing.assert_identical(before[name], picked)


def test_a_single_site_without_site_dimension(basins, schema):
    binding = bind(basins.isel(site=0), schema)
    assert binding.layout.site_dims == ()
    assert binding.forcing["potential_evapotranspiration"].dims == ("time",)
    assert binding.static["elevation"].dims == ()


def test_forcings_may_lack_dimensions_that_precipitation_has(basins, schema):
    ds = basins.assign(hot=basins["hot"].isel(site=0, drop=True))
    binding = bind(ds, schema)
    assert binding.forcing["temperature_max"].dims == ("time",)
    assert binding.forcing["temperature_mean"].dims == ("site", "time")


# ---- observations of targets


def test_streamflow_in_cubic_metres_is_divided_by_area(basins, schema, series):
    ds = basins.assign(
        q=series(standard_name="water_volume_transport_in_river_channel", units="m3 s-1"),
        area=("site", np.array([100.0, 200.0, 400.0], np.float32), {"units": "km2"}),
    )
    found = bind(ds, schema).observed("streamflow")
    np.testing.assert_allclose(found, ds["q"] * 86.4 / ds["area"], rtol=1e-6)
    assert found.attrs["units"] == "mm d-1"
    with pytest.raises(UnitsError, match=r"catchment area[\s\S]*km2"):
        bind(ds.drop_vars("area"), schema).observed("streamflow")


@pytest.mark.parametrize("units", ["kg m-2 s-1", "mm h-1", "m s-1", "mm/3h"])
@pytest.mark.parametrize("methods", ["time: sum", "time: mean time: sum", "time: mean doy: sum"])
def test_a_sum_of_rates_is_refused_by_name(basins, schema, follow, units, methods):
    """CDO's daysum and NCO's ttl of hourly rates leave the units of a rate."""
    rates = 1e-7 * basins["pr"]
    ds = basins.assign(pr=(24 * rates).assign_attrs(
        units=units, standard_name="precipitation_flux", cell_methods=methods))  # fmt: skip
    with pytest.raises(UnitsError, match="how many values were added up") as caught:
        bind(ds, schema)
    assert caught.value.variable == "pr"
    right = rates.assign_attrs(units=units, cell_methods="time: mean")
    got, want = (
        bind(x, schema).forcing["precipitation"]
        for x in (follow(caught.value, ds), basins.assign(pr=right))
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


CDO = "Tue Jan 02 2024: cdo {} hours.nc days.nc"


@pytest.mark.parametrize(
    ("units", "history", "refused"),
    [
        ("kg m-2 s-1", CDO.format("daysum"), True),
        ("mm h-1", "later: ncatted\n" + CDO.format("-O daysum -selname,pr"), True),
        ("mm d-1", CDO.format("daysum"), False),
        ("kg m-2 s-1", CDO.format("-divc,24 -daysum"), False),
        ("kg m-2 s-1", CDO.format("daymean"), False),
        ("kg m-2 s-1", CDO.format("merge -daysum tp.nc -daymean"), False),
    ],
)
def test_a_history_of_sums_is_believed_where_the_metadata_stayed(
    basins, schema, follow, units, history, refused
):
    """CDO's daysum leaves "time: mean" and the units of the hours."""
    attrs = {"units": units, "cell_methods": "time: mean"}
    rain = (basins["pr"] / 1e3).drop_attrs()
    ds = basins.assign(pr=rain.assign_attrs(attrs)).assign_attrs(history=history)
    if not refused:
        assert plan(ds, schema).problems == ()
        return
    with pytest.raises(UnitsError, match="daysum in the history") as caught:
        bind(ds, schema)
    assert caught.value.variable == "pr"
    binding = bind(follow(caught.value, ds), schema)
    factor = {"kg m-2 s-1": 86400, "mm h-1": 24}[units] / 24
    np.testing.assert_allclose(binding.forcing["precipitation"], rain * factor, rtol=1e-6)
    # A file of which another variable was summed, and says so.
    snow = basins["pr"].drop_attrs().assign_attrs(units="mm", cell_methods="time: sum")
    assert plan(ds.assign(snow=snow), schema).problems == ()


@pytest.mark.parametrize("units", ["mm d-1", "mm/day", "mm/24h", "kg m-2 d-1", "mm", "kg m-2"])
def test_a_sum_of_amounts_or_of_a_rate_per_day_is_the_rate_of_the_day(basins, schema, units):
    attrs = {"units": units, "cell_methods": "time: sum"}
    binding = bind(basins.assign(pr=basins["pr"].drop_attrs().assign_attrs(attrs)), schema)
    np.testing.assert_allclose(binding.forcing["precipitation"], basins["pr"], rtol=1e-6)


def test_a_sum_of_temperatures_or_discharges_is_refused(basins, schema, series):
    ds = basins.assign(
        tas=series(units="K", cell_methods="time: sum"),
        streamflow=series(units="m3 s-1", cell_methods="time: sum"),
        area=("site", np.ones(3, np.float32), {"units": "km2"}),
    )
    with pytest.raises(UnitsError, match="'tas': a sum of what is no amount"):
        bind(ds, schema)
    binding = bind(ds.drop_vars("tas"), schema)
    with pytest.raises(UnitsError, match="'streamflow': a sum of what is no amount"):
        binding.observed("streamflow")


def test_the_shallowest_soil_moisture_is_taken(basins, schema):
    data = np.stack([np.full((3, 10), 0.1), np.full((3, 10), 0.4)], axis=-1)
    attrs = {"units": "m3 m-3", "standard_name": "volume_fraction_of_condensed_water_in_soil"}
    ds = basins.assign(swc=(("site", "time", "depth"), data.astype(np.float32), attrs))
    assert float(bind(ds, schema).observed("soil_moisture").max()) == pytest.approx(0.1)
    deeper_first = ds.assign_coords(depth=[0.5, 0.05])
    assert float(bind(deeper_first, schema).observed("soil_moisture").min()) == pytest.approx(0.4)


def test_targets_elsewhere_or_absent_are_none(basins, schema, series):
    assert bind(basins, schema).observed("soil_moisture") is None
    ds = basins.assign(
        discharge=series(dims=("gauge", "time"), units="m3 s-1", sites=2),
        swc=(("site", "time", "member"), np.ones((3, 10, 2)), {"units": "m3 m-3"}),
    )
    assert bind(ds, schema).observed("streamflow") is None
    assert bind(ds, schema).observed("soil_moisture") is None


def test_static_soil_moisture_is_neither_token_nor_observation(basins, schema):
    ds = basins.assign(soil_moisture=("site", np.ones(3, np.float32), {"units": "m3 m-3"}))
    binding = bind(ds, schema)
    assert "soil_moisture" in binding.table.unused
    assert binding.observed("soil_moisture") is None


# ---- ranges


def test_spikes_and_missing_values_are_weather_not_labels(basins, schema):
    basins["hot"][0, :5] = np.nan
    bind(basins, schema).check_ranges()
    basins["hot"][1, 2] = 66.0
    binding = bind(basins, schema)
    binding.check_ranges()
    assert binding.forcing["temperature_max"][1, 2] == 65  # the edge of what is possible
    basins["hot"][1, :4] = 66.0
    with pytest.raises(RangeError, match=r"e\.g\. 66 degC"):
        bind(basins, schema).check_ranges()
    basins["hot"][1] = 15.0
    bind(basins.where(False).assign_attrs(basins.attrs), schema).check_ranges()


# ---- many variables


def work_of_planning(basins, schema, number):
    """Count the calls made while a dataset with so many further variables is planned."""
    further = {f"attribute_{i}": ("site", np.zeros(3), {"units": "m"}) for i in range(number)}
    ds = basins.assign(further)
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        plan(ds, schema)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_of_planning_grows_with_the_variables_and_not_with_their_square(basins, schema):
    plan(basins, schema)  # imports, and what is worked out once
    few, more, most = (work_of_planning(basins, schema, number) for number in (100, 200, 400))
    assert most - more < 1.05 * 2 * (more - few)
    assert (most - more) / 200 < 150  # calls for each further variable
