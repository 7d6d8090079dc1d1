"""Bad inputs: each is refused with a typed error that names variable, found, expected and fix."""

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind, plan
from xstefa.binding.binding import TokenWarning
from xstefa.errors import (
    AmbiguousMatchError,
    BindingErrors,
    CalendarError,
    LayoutError,
    MissingTokenError,
    OptionError,
    RangeError,
    SchemaError,
    UnitsError,
    XstefaError,
)
from xstefa.schema import Schema, load_schema


def attrs(name, **changes):
    """Change attributes of a variable; None removes one."""

    def change(ds):
        new = {k: v for k, v in (ds[name].attrs | changes).items() if v is not None}
        ds[name].attrs = new
        return ds

    return change


def add(name, dims, value, **attributes):
    def change(ds):
        shape = tuple(ds.sizes.get(dim, 2) for dim in dims)
        data = np.full(shape, value) if np.ndim(value) == 0 else value
        return ds.assign({name: (dims, data, attributes)})

    return change


def days(index, name="time"):
    return lambda ds: ds.assign_coords({name: index})


def both(*changes):
    def change(ds):
        for each in changes:
            ds = each(ds)
        return ds

    return change


def mean_temperature(*dims, **attributes):
    """Replace the extremes by one mean temperature over `dims`."""
    temperature = add("tas", dims, 10.0, **({"units": "degC"} | attributes))
    return both(lambda ds: ds.drop_vars(["hot", "cold"]), temperature)


SERIES = ("site", "time")
START = "2001-02-25"

# (what is done to a good dataset, the error, the variable it names, what the fix says)
BAD = {
    # ---- tokens that are not there
    "no precipitation": (
        lambda ds: ds.drop_vars("pr"),
        MissingTokenError,
        "precipitation",
        "rename=",
    ),
    "no temperature": (
        lambda ds: ds.drop_vars(["hot", "cold"]),
        MissingTokenError,
        "temperature_mean",
        "rename=",
    ),
    "only the maximum temperature": (
        lambda ds: ds.drop_vars("cold"),
        MissingTokenError,
        "temperature_mean",
        "rename=",
    ),
    "a name nobody knows": (
        lambda ds: attrs("regen", standard_name=None)(ds.rename(pr="regen")),
        MissingTokenError,
        "precipitation",
        "rename={'<your variable>': 'precipitation'}",
    ),
    "an extra dimension": (
        mean_temperature(*SERIES, "height"),
        MissingTokenError,
        "temperature_mean",
        "isel(height=0, drop=True)",
    ),
    "an extra dimension of the extremes": (
        lambda ds: ds.assign(
            {n: ds[n].expand_dims(member=[1, 2]).assign_attrs(ds[n].attrs) for n in ("hot", "cold")}
        ),
        MissingTokenError,
        "temperature_mean",
        "isel(member=0, drop=True)",
    ),
    "a climatology without time": (
        mean_temperature("site"),
        MissingTokenError,
        "temperature_mean",
        "rename=",
    ),
    "numbers as text": (
        lambda ds: ds.assign(pr=(SERIES, ds["pr"].values.astype(str), ds["pr"].attrs)),
        MissingTokenError,
        "precipitation",
        "astype(float)",
    ),
    "objects": (
        lambda ds: ds.assign(pr=(SERIES, ds["pr"].values.astype(object), ds["pr"].attrs)),
        MissingTokenError,
        "precipitation",
        "astype(float)",
    ),
    "an hourly maximum of precipitation": (
        attrs("pr", cell_methods="time: maximum"),
        MissingTokenError,
        "precipitation",
        "rename={'pr': 'precipitation'}",
    ),
    "daytime temperature": (
        mean_temperature(
            *SERIES,
            standard_name="air_temperature",
            cell_methods="time: mean (comment: daytime only)",
        ),
        MissingTokenError,
        "temperature_mean",
        "rename={'tas': 'temperature_mean'}",
    ),
    "a climatology by its name": (
        both(attrs("pr", long_name="climatological precipitation")),
        MissingTokenError,
        "precipitation",
        "rename={'pr': 'precipitation'}",
    ),
    "another standard name": (
        both(
            lambda ds: ds.rename(pr="precipitation"),
            attrs("precipitation", standard_name="air_temperature"),
        ),
        MissingTokenError,
        "precipitation",
        "rename={'precipitation': 'precipitation'}",
    ),
    "nothing": (lambda ds: xr.Dataset(), MissingTokenError, "precipitation", "rename="),
    # ---- two for one
    "two precipitations by standard name": (
        lambda ds: ds.assign(pr2=ds["pr"]),
        AmbiguousMatchError,
        "precipitation",
        "rename={'pr': 'precipitation'}",
    ),
    "two precipitations by name": (
        both(
            lambda ds: ds.drop_vars("pr"),
            add("prcp", SERIES, 1.0, units="mm d-1"),
            add("tp", SERIES, 1.0, units="mm d-1"),
        ),
        AmbiguousMatchError,
        "precipitation",
        "rename={'prcp': 'precipitation'}",
    ),
    "two elevations": (
        add("elev", ("site",), 1.0, units="m"),
        AmbiguousMatchError,
        "elevation",
        "drop_vars(['elev'])",
    ),
    "two evapotranspirations": (
        both(
            add("pet_oudin", SERIES, 1.0, units="mm d-1"),
            add("pet_hargreaves", SERIES, 1.0, units="mm d-1"),
        ),
        AmbiguousMatchError,
        "potential_evapotranspiration",
        "rename=",
    ),
    "two sets of sites": (
        lambda ds: ds.assign(pr2=ds["pr"].rename(site="gauge").drop_vars(["lat", "lon"])),
        AmbiguousMatchError,
        "precipitation",
        "rename",
    ),
    "two catchment areas": (
        both(
            add("area", ("site",), 1.0, units="km2"),
            add("drainage_area", ("site",), 1.0, units="km2"),
        ),
        AmbiguousMatchError,
        "catchment_area",
        "rename",
    ),
    # ---- units
    "no units": (attrs("pr", units=None), UnitsError, "pr", "attrs['units'] = 'mm d-1'"),
    "no units of a temperature": (attrs("hot", units=None), UnitsError, "hot", "attrs['units']"),
    "no units of a fraction": (
        add("forest_fraction", ("site",), 0.5),
        UnitsError,
        "forest_fraction",
        "attrs['units'] = '1'",
    ),
    "no units of a percentage": (
        add("sand", ("site",), 0.5),
        UnitsError,
        "sand",
        "attrs['units'] = '%'",
    ),
    "no units of an elevation": (
        attrs("elevation", units=None),
        UnitsError,
        "elevation",
        "attrs['units'] = 'm'",
    ),
    "empty units": (attrs("hot", units=""), UnitsError, "hot", "attrs['units']"),
    "units nobody knows": (attrs("pr", units="wet"), UnitsError, "pr", "attrs['units']"),
    "units that are a sentence": (
        attrs("pr", units="see the manual"),
        UnitsError,
        "pr",
        "attrs['units']",
    ),
    "millimetres": (attrs("pr", units="mm", cell_methods=None), UnitsError, "pr", "'time: sum'"),
    "millimetres of a mean": (
        attrs("pr", units="mm", cell_methods="time: mean"),
        UnitsError,
        "pr",
        "'time: sum'",
    ),
    "metres of accumulated water": (
        attrs("pr", units="m", cell_methods=None),
        UnitsError,
        "pr",
        "ERA5-Land",
    ),
    "kilograms per square metre": (
        attrs("pr", units="kg m-2", cell_methods=None),
        UnitsError,
        "pr",
        "'time: sum'",
    ),
    "accumulated radiation": (
        add("ssrd", SERIES, 1e7, units="J m**-2"),
        UnitsError,
        "ssrd",
        "'time: sum'",
    ),
    "volts of rain": (attrs("pr", units="volt"), UnitsError, "pr", "drop_vars('pr')"),
    "a speed as temperature": (attrs("hot", units="m s-1"), UnitsError, "hot", "drop_vars('hot')"),
    "a percentage as rain": (attrs("pr", units="%"), UnitsError, "pr", "drop_vars('pr')"),
    "an angle as a ratio": (
        add("aridity", ("site",), 1.0, units="degree"),
        UnitsError,
        "aridity",
        "aridity",
    ),
    "a temperature as elevation": (
        attrs("elevation", units="degC"),
        UnitsError,
        "elevation",
        "drop_vars",
    ),
    "a length as pressure": (add("sp", SERIES, 1.0, units="m"), UnitsError, "sp", "drop_vars"),
    "a ratio as vapour pressure": (
        add("vp", SERIES, 1.0, units="1"),
        UnitsError,
        "vp",
        "drop_vars",
    ),
    "a discharge as rain": (attrs("pr", units="m3 s-1"), UnitsError, "pr", "drop_vars"),
    "units that are a number": (attrs("pr", units=86400), UnitsError, "pr", "attrs['units']"),
    # ---- the caller's rename
    "rename of nothing": (
        lambda ds: (ds, {"rain": "precipitation"}),
        MissingTokenError,
        "rain",
        "rename=",
    ),
    "rename to nothing": (lambda ds: (ds, {"pr": "rain"}), SchemaError, "rain", "rename="),
    "rename of two": (
        lambda ds: (ds, {"pr": "temperature_mean", "hot": "temperature_mean"}),
        SchemaError,
        "temperature_mean",
        "rename=",
    ),
    "rename backwards": (
        lambda ds: (ds, {"precipitation": "pr"}),
        MissingTokenError,
        "precipitation",
        "rename={'pr': 'precipitation'}",
    ),
    "rename of a static to a series": (
        lambda ds: (ds, {"elevation": "temperature_mean"}),
        LayoutError,
        "elevation",
        "leave 'elevation' out",
    ),
    "rename of a series to a static": (
        lambda ds: (ds, {"hot": "t_mean"}),
        LayoutError,
        "hot",
        "leave 'hot' out",
    ),
    "rename of text": (
        lambda ds: (add("name", ("site",), np.array(["a", "b", "c"]))(ds), {"name": "elevation"}),
        LayoutError,
        "name",
        "leave 'name' out",
    ),
    "rename of layers": (
        lambda ds: (add("clays", ("site", "depth"), 1.0, units="%")(ds), {"clays": "clay"}),
        LayoutError,
        "clays",
        "leave 'clays' out",
    ),
    "rename of a coordinate": (
        lambda ds: (ds, {"time": "elevation"}),
        LayoutError,
        "time",
        "leave 'time' out",
    ),
    # ---- time
    "no dates": (lambda ds: ds.drop_vars("time"), LayoutError, "time", "pd.date_range"),
    "no time at all": (lambda ds: ds.isel(time=0, drop=True), LayoutError, "time", "pd.date_range"),
    "dates not decoded": (
        days(("time", np.arange(10), {"units": "days since 2000-01-01"})),
        LayoutError,
        "time",
        "decode_cf",
    ),
    "dates elsewhere": (
        lambda ds: ds.rename(time="t").drop_vars("t").assign_coords(when=("t", ds["time"].data)),
        LayoutError,
        "when",
        "swap_dims({'t': 'when'})",
    ),
    "dates as text": (
        lambda ds: days(ds["time"].dt.strftime("%Y-%m-%d").values)(ds),
        LayoutError,
        "time",
        "pd.to_datetime",
    ),
    "dates as years": (days(np.arange(1990, 2000)), LayoutError, "time", "pd.date_range"),
    "two time axes": (
        lambda ds: ds.rename(time="day").expand_dims(reference=pd.date_range("2000", periods=1)),
        LayoutError,
        "reference",
        "attrs['axis'] = 'T'",
    ),
    "no days": (lambda ds: ds.isel(time=slice(0)), LayoutError, "time", ".sel()"),
    "backwards": (
        lambda ds: ds.isel(time=slice(None, None, -1)),
        CalendarError,
        "time",
        "sortby('time')",
    ),
    "one day out of order": (
        lambda ds: ds.isel(time=[0, 2, 1, *range(3, 10)]),
        CalendarError,
        "time",
        "sortby('time')",
    ),
    "a day twice": (
        lambda ds: ds.isel(time=[0, 1, 1, *range(2, 9)]),
        CalendarError,
        "time",
        "drop_duplicates('time')",
    ),
    "a missing date": (
        days([*pd.date_range(START, periods=9), pd.NaT]),
        CalendarError,
        "time",
        "notnull()",
    ),
    "hours": (
        days(pd.date_range(START, periods=10, freq="h")),
        CalendarError,
        "time",
        "ds.stefa.daily()",
    ),
    "six hours": (
        days(pd.date_range(START, periods=10, freq="6h")),
        CalendarError,
        "time",
        "resample(time='1D')",
    ),
    "hours of another calendar": (
        days(xr.date_range(START, periods=10, freq="h", calendar="noleap", use_cftime=True)),
        CalendarError,
        "time",
        "ds.stefa.daily()",
    ),
    "a dimension called like another coordinate": (
        lambda ds: ds.assign_coords(site=(("site", "time"), np.zeros((3, 10)))),
        LayoutError,
        "site",
        "rename_dims",
    ),
    "two calendars": (
        days(
            np.array(
                [
                    cftime.datetime(2001, 1, day, calendar="noleap" if day < 5 else "360_day")
                    for day in range(1, 11)
                ]
            )
        ),
        CalendarError,
        "time",
        "convert_calendar",
    ),
    "a name that is a number": (
        lambda ds: ds.rename(elevation=3),
        LayoutError,
        "3",
        "ds.rename({3: 'name_3'})",
    ),
    "months": (
        days(pd.date_range(START, periods=10, freq="MS")),
        CalendarError,
        "time",
        "daily data",
    ),
    "years of 360 days": (
        days([cftime.Datetime360Day(year, 1, 1) for year in range(2000, 2010)]),
        CalendarError,
        "time",
        "daily data",
    ),
    "eight-day composites": (
        days(pd.date_range(START, periods=10, freq="8D")),
        CalendarError,
        "time",
        "daily data",
    ),
    "a time zone": (
        days(pd.date_range(START, periods=10, tz="America/Denver")),
        CalendarError,
        "time",
        "tz_localize(None)",
    ),
    "periods": (days(pd.period_range(START, periods=10)), CalendarError, "time", "to_timestamp()"),
    # ---- other layouts
    "a forecast": (
        lambda ds: ds.expand_dims(step=pd.to_timedelta([1, 2], unit="D")),
        LayoutError,
        "step",
        "swap_dims(step='valid_time')",
    ),
    "dates of each site": (
        lambda ds: (
            ds.rename(time="obs")
            .drop_vars("obs")
            .assign(time=(("site", "obs"), np.tile(ds["time"].values, (3, 1))))
        ),
        LayoutError,
        "time",
        "join='outer'",
    ),
    "a contiguous ragged array": (
        lambda ds: xr.Dataset(
            {"pr": ("obs", np.ones(4)), "row_size": ("site", [1, 3], {"sample_dimension": "obs"})},
            {"time": ("obs", pd.date_range(START, periods=4))},
        ),
        LayoutError,
        "row_size",
        "from_ragged()",
    ),
    "an indexed ragged array": (
        lambda ds: xr.Dataset(
            {
                "pr": ("obs", np.ones(4)),
                "index": ("obs", [0, 0, 1, 1], {"instance_dimension": "site"}),
            },
            {"time": ("obs", pd.date_range(START, periods=4))},
        ),
        LayoutError,
        "index",
        "from_ragged()",
    ),
}


def problems(function, *args, **kwargs):
    with pytest.raises(XstefaError) as caught:
        function(*args, **kwargs)
    return getattr(caught.value, "problems", (caught.value,))


def check(found, error, variable, fix):
    mine = [p for p in found if isinstance(p, error) and variable in (None, p.variable)]
    assert mine, [f"{type(p).__name__}: {p}" for p in found]
    assert fix in mine[0].fix
    for problem in found:
        for part in ("message", "variable", "found", "expected", "fix"):
            assert getattr(problem, part), f"no {part} in: {problem}"


@pytest.mark.parametrize("case", BAD)
def test_bad_datasets_are_refused_by_name_with_the_fix(basins, schema, case):
    change, error, variable, fix = BAD[case]
    changed = change(basins)
    ds, rename = changed if isinstance(changed, tuple) else (changed, None)
    check(problems(bind, ds, schema, rename=rename, strict=True), error, variable, fix)


@pytest.mark.parametrize("rename", [{"pr": ["precipitation"]}, ["pr", "precipitation"]])
def test_rename_is_a_mapping_of_names(basins, schema, rename):
    with pytest.raises(OptionError, match=r"'rename': Found .*Expected Mapping\[str, str\]"):
        bind(basins, schema, rename=rename)


OPTIONAL = [
    "two elevations",
    "two evapotranspirations",
    "no units of a fraction",
    "a temperature as elevation",
    "accumulated radiation",
]


@pytest.mark.parametrize("case", OPTIONAL)
def test_optional_tokens_in_doubt_are_not_known(basins, schema, case):
    change, error, variable, fix = BAD[case]
    changed = change(basins)
    with pytest.warns(TokenWarning, match="taken as not known") as caught:
        binding = bind(changed, schema)
    check(caught[0].message.doubts, error, variable, fix)
    assert binding.table.doubts == tuple(map(str, caught[0].message.doubts))
    assert not binding.table.problems
    wrong = {row.token for row in binding.table.rows if row.note}
    assert wrong
    assert not wrong & {*binding.forcing, *binding.static}
    assert "In doubt" in repr(binding.table)
    assert "In doubt" in binding.table._repr_html_()


def test_what_keeps_a_required_token_away_is_reported_with_all_doubts(basins, schema):
    changed = BAD["no units of a fraction"][0](basins)
    changed["pr"].attrs["units"] = "mm"
    del changed["pr"].attrs["cell_methods"]
    found = problems(bind, changed, schema)
    assert {problem.variable for problem in found} == {"pr", BAD["no units of a fraction"][2]}


def test_a_site_attribute_on_every_day_is_taken_if_it_is_the_same(basins, schema):
    sand = xr.DataArray([20.0, 40.0, np.nan], dims="site", attrs={"units": "%"})
    for chunks in (None, {"time": 3, "site": 1}):
        ds = basins.assign(sand=sand.expand_dims(time=basins.sizes["time"]).copy())
        ds = ds if chunks is None else ds.chunk(chunks)
        np.testing.assert_array_equal(bind(ds, schema).static["sand"], sand)
    ds["sand"] = ds["sand"].where(ds.time != ds.time[5], 50.0)
    with pytest.warns(TokenWarning, match="'sand'.*change along time") as caught:
        assert "sand" not in bind(ds, schema).static
    exec(caught[0].message.doubts[0].fix, {"ds": ds})
    assert "sand" in bind(ds, schema).static


@pytest.mark.parametrize("stations", [True, False])
def test_quantities_along_a_dimension_are_named_with_the_fix(basins, schema, stations):
    cube = basins[["pr", "hot"]].rename(hot="tas").to_array("dynamic_features")
    ds = xr.Dataset({"data": cube})
    if stations:
        ds = xr.Dataset({f"s{i}": cube.isel(site=i, drop=True) for i in range(3)})
    found = problems(bind, ds, schema)
    assert len(found) == 1
    check(found, LayoutError, "dynamic_features", "to_dataset")
    scope = {"ds": ds, "xr": xr}
    exec(found[0].fix, scope)
    assert {"pr", "tas"} <= set(scope["ds"].data_vars)
    with pytest.raises(XstefaError, match="no units"):
        bind(scope["ds"], schema)


# (variable, its values, the units it claims, what they look like)
WRONG = {
    "kelvin": ("hot", 290.0, "degC", "K"),
    "fahrenheit": ("hot", 85.0, "degC", "degF"),
    "tenths of a degree": ("hot", 215.0, "degC", "0.1 degC"),
    "percent": ("fapar", 60.0, "1", "%"),
    "a fraction": ("hurs", 0.6, "%", "1"),
    "pascal": ("ps", 101325.0, "hPa", "Pa"),
    "kilopascal": ("ps", 101.3, "hPa", "kPa"),
    "joule": ("rsds", 1.5e7, "W m-2", "J m-2 d-1"),
    "square metres": ("area", 5e8, "km2", "m2"),
    "metres per kilometre": ("slope", 120.0, "m m-1", "m km-1"),
    "grams": ("huss", 9.0, "kg kg-1", "g kg-1"),
    "a scale factor": ("ndvi", 5400.0, "1", "0.0001"),
    "a fill value": ("hot", -9999.0, "degC", "missing values must be NaN"),
    "a fill value of rain": ("pr", -999.0, "mm d-1", "missing values must be NaN"),
    "nothing known": ("vp", 5e6, "hPa", "check the source"),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_that_cannot_be_in_their_units_are_refused(basins, schema, case):
    name, value, units, looks_like = WRONG[case]
    dims = ("site",) if name in ("area", "slope") else SERIES
    ds = add(name, dims, value, **{**basins.get(name, xr.DataArray()).attrs, "units": units})(
        basins
    )
    binding = bind(ds, schema)
    found = problems(binding.check_ranges)
    check(found, RangeError, name, looks_like)
    if looks_like in ("missing values must be NaN", "check the source"):
        return
    ds[name].attrs["units"] = looks_like
    bind(ds, schema).check_ranges()


def test_sites_without_latitude_lose_a_token_not_the_prediction(basins, schema):
    table = plan(basins.drop_vars("lat"), schema).table
    assert "potential_evapotranspiration" in table.missing
    assert not table.problems


SCHEMAS = {
    "no such schema": (lambda: load_schema("stefa"), "stefa"),
    "a number": (lambda: load_schema(5), "schema"),
    "a file that is not there": (lambda: load_schema("gone.toml"), "gone.toml"),
    "a section nobody knows": (lambda: Schema.from_dict({"forcings": []}), "forcings"),
    "no name": (lambda: Schema.from_dict({"version": "1"}), "name"),
    "a section that is no table": (
        lambda: Schema.from_dict({"name": "a", "version": "1", "forcing": 3}),
        "forcing",
    ),
    "no such token": (lambda: load_schema()["rain"], "rain"),
    "no such target": (lambda: load_schema().target("snow"), "snow"),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_bad_schemas_are_refused(case):
    function, variable = SCHEMAS[case]
    check(problems(function), SchemaError, variable, "")


def test_text_that_is_not_toml_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_text("name = ", encoding="utf-8")
    check(problems(load_schema, tmp_path / "bad.toml"), SchemaError, None, "")


def test_all_problems_are_reported_together_and_each_once(basins, schema):
    ds = both(
        attrs("pr", units=None),
        attrs("hot", units="mm"),
        add("elev", ("site",), 1.0, units="m"),
        add("sand", ("site",), 1.0),
        lambda ds: ds.isel(time=slice(None, None, -1)),
    )(basins)
    with pytest.raises(BindingErrors) as caught:
        bind(ds, schema)
    # temperature_mean needs "hot": its absence is the same problem, not another one.
    named = [problem.variable for problem in caught.value.problems]
    assert named == ["pr", "hot", "elevation", "sand", "time"]
    assert str(caught.value).startswith("5 problems with this dataset:")
    note = plan(ds, schema).table["temperature_mean"].note
    assert "temperature_max" in note


def test_there_are_at_least_sixty():
    assert len(BAD) + len(WRONG) + len(SCHEMAS) >= 60


def test_a_plan_raises_nothing_for_a_bad_dataset(schema):
    understood = plan(xr.Dataset(), schema)
    assert understood.table.matched == ()
    assert {type(problem) for problem in understood.problems} == {LayoutError, MissingTokenError}


@pytest.mark.parametrize("chunked", [False, True])
def test_predictions_of_values_at_hand_check_their_ranges(basins, tiny_model, chunked):
    basins["hot"] = (basins["hot"] + 273.15).assign_attrs(basins["hot"].attrs)
    if chunked:
        # Nothing is read while a prediction is planned; the table looks when it is asked.
        basins.chunk().stefa.predict(tiny_model)
        assert basins.chunk().stefa.tokens(check=True).problems
        return
    found = problems(basins.stefa.predict, tiny_model)
    check(found, RangeError, "hot", "look like K")


@pytest.mark.parametrize("value", [-9999.0, -999.0, -99.0, -1.0, 32767.0, 9999.0])
@pytest.mark.parametrize("sites", [1, 3])
def test_marks_of_missing_values_are_no_units(basins, schema, value, sites):
    """Of one site all values may be marks: no reason to take them for other units."""
    ds = basins.isel(site=slice(sites)).assign(
        catchment_area=("site", np.full(sites, 100.0), {"units": "km2"})
    )
    for name, mark in (("elevation", value), ("catchment_area", -abs(value)), ("hot", value)):
        if name != "catchment_area" and mark in {"elevation": (-99.0, -1.0), "hot": (-1.0,)}[name]:
            continue  # can be
        marked = ds.copy(deep=True)
        marked[name][..., 0] = mark
        source = plan(marked, schema).sources["temperature_max" if name == "hot" else name]
        with pytest.raises(RangeError) as caught:
            source.realise(marked)
        assert "missing values must be NaN" in caught.value.fix
        exec(caught.value.fix, {"ds": marked})
        bind(marked, schema).check_ranges()
        assert not (marked[name] == mark).any()


@pytest.mark.parametrize("attrs", [
    {"standard_name": "air_temperature_anomaly"}, {"long_name": "temperature anomaly"},
    {"long_name": "uncertainty of the mean temperature"},
])  # fmt: skip
def test_anomalies_and_uncertainties_are_not_the_value(basins, schema, attrs):
    ds = basins.drop_vars(["hot", "cold"]).assign(tas=basins["cold"].drop_attrs())
    ds["tas"].attrs = {"units": "degC"}
    assert not plan(ds, schema).problems
    ds["tas"].attrs |= attrs
    found = problems(bind, ds, schema)
    check(found, MissingTokenError, "temperature_mean", "")
