import numpy as np
import pytest
import xarray as xr

from xstefa.binding import bind, plan
from xstefa.binding.facts import describe
from xstefa.binding.rules import match_target
from xstefa.errors import (
    AmbiguousMatchError,
    MissingTokenError,
    SchemaError,
    UnitsError,
    XstefaError,
)


def variable_of(ds, schema, token, **kwargs):
    return plan(ds, schema, **kwargs).table[token].variables


@pytest.mark.parametrize(
    ("cell_methods", "method"),
    [
        ("time: mean", "mean"),
        ("area: time: mean", "mean"),
        ("area: mean time: maximum", "maximum"),
        ("time: maximum (interval: 1 hour)", "maximum"),
        ("time: mean(interval: 24 hours)", "mean"),
        ("time: maximum within days time: mean over days", "maximum"),
        ("area: mean time: mean (comment: daylight hours only)", "mean"),
        ("time: mean site: mean", "mean"),
        ("time: mean doy: sum", "sum"),
        ("time: mean day_of_year: sum", "sum"),
        ("area: mean", None),
        ("", None),
    ],
)
def test_the_time_method_is_read_out_of_cell_methods(basins, cell_methods, method):
    basins["pr"].attrs["cell_methods"] = cell_methods
    basins = basins.assign_coords(doy=basins["time"].dt.dayofyear)
    assert describe(basins, time="time")["pr"].method == method


@pytest.mark.parametrize(
    ("cell_methods", "doubtful"),
    [
        ("time: mean time: sum", True),  # CDO and NCO add up, and keep what was there
        ("time: mean doy: sum", True),  # Iris names its own coordinate
        ("time: sum time: mean", True),
        ("time: maximum time: mean", True),
        ("time: point time: mean", False),
        ("time: mean (interval: 1 hour) time: maximum", False),
        ("time: mean time: mean", False),
        ("time: sum time: sum", False),
        ("time: sum site: mean", False),
        ("time: maximum within days time: mean over days", False),
    ],
)
def test_of_two_methods_along_time_the_second_must_follow_from_the_first(
    basins, schema, follow, cell_methods, doubtful
):
    basins["pr"].attrs |= {"units": "mm", "standard_name": "lwe_thickness_of_precipitation_amount"}
    basins["pr"].attrs["cell_methods"] = cell_methods
    basins["elevation"].attrs["cell_methods"] = cell_methods
    facts = describe(basins, time="time")
    assert (facts["pr"].doubt is not None) == doubtful
    assert facts["elevation"].doubt is None
    if doubtful and cell_methods.endswith("sum"):
        with pytest.raises(UnitsError, match="second does not follow") as caught:
            bind(basins, schema)
        assert caught.value.variable == "pr"
        mended = bind(follow(caught.value, basins), schema)
        np.testing.assert_array_equal(mended.forcing["precipitation"], basins["pr"])


def test_cell_methods_may_use_the_name_of_the_time_dimension(basins):
    basins["hot"].attrs["cell_methods"] = "day: maximum"
    assert describe(basins.rename(time="day"), time="day")["hot"].method == "maximum"


def test_standard_name_and_method_tell_siblings_apart(basins, schema):
    assert variable_of(basins, schema, "temperature_max") == ("hot",)
    assert variable_of(basins, schema, "temperature_min") == ("cold",)
    assert variable_of(basins, schema, "temperature_mean") == ("hot", "cold")


def test_a_name_of_a_sibling_beats_a_standard_name_without_method(basins, schema):
    ds = basins.rename(hot="tasmax", cold="tasmin")
    for name in ("tasmax", "tasmin"):
        del ds[name].attrs["cell_methods"]
    assert variable_of(ds, schema, "temperature_max") == ("tasmax",)
    assert variable_of(ds, schema, "temperature_mean") == ("tasmax", "tasmin")


def test_a_standard_name_without_method_is_the_mean(basins, schema):
    ds = basins.drop_vars("cold").rename(hot="temp")
    del ds["temp"].attrs["cell_methods"]
    assert plan(ds, schema).table["temperature_mean"].rule == "standard_name"


def test_a_stated_method_beats_an_unstated_one(basins, schema, series):
    ds = basins.assign(
        t1=series(standard_name="air_temperature", units="degC"),
        t2=series(standard_name="air_temperature", units="degC", cell_methods="time: mean"),
    )
    table = plan(ds, schema).table
    assert table["temperature_mean"].variables == ("t2",)
    assert table.unused["t1"] == "temperature_mean taken from t2"


def test_standard_names_beat_aliases_and_rename_beats_all(basins, schema, series):
    ds = basins.assign(tp=series(units="mm d-1"))
    assert variable_of(ds, schema, "precipitation") == ("pr",)
    renamed = plan(ds, schema, rename={"tp": "precipitation"}).table
    assert renamed["precipitation"].variables == ("tp",)
    assert renamed["precipitation"].rule == "rename"


def test_a_renamed_variable_is_nothing_else(basins, schema, series):
    ds = basins.assign(tas=series(units="degC"))
    table = plan(ds, schema, rename={"tas": "temperature_max"}).table
    assert table["temperature_max"].variables == ("tas",)
    assert table["temperature_mean"].variables == ("tas", "cold")


def test_rename_reaches_ingredients(basins, schema, series):
    ds = basins.assign(water=series(units="hPa"))
    table = plan(ds, schema, rename={"water": "vapour_pressure"}).table
    assert table["relative_humidity"].variables == ("water", "hot", "cold")


@pytest.mark.parametrize(
    ("rename", "error", "match"),
    [
        ({"gone": "precipitation"}, MissingTokenError, "pr, hot, cold"),
        ({"pr": "rain"}, SchemaError, "precipitation"),
        ({"hot": "precipitation", "cold": "precipitation"}, SchemaError, "'hot' and 'cold'"),
    ],
)
def test_a_wrong_rename_is_refused_at_once(basins, schema, rename, error, match):
    with pytest.raises(error, match=match):
        plan(basins, schema, rename=rename)


def test_two_equal_candidates_are_named_with_the_rename_that_decides(basins, schema, series):
    ds = basins.assign(
        tas=series(units="degC", standard_name="air_temperature", cell_methods="time: mean"),
        t2m=series(units="degC", standard_name="air_temperature", cell_methods="time: mean"),
    )
    with pytest.raises(AmbiguousMatchError, match=r"'tas'[\s\S]*'t2m'") as caught:
        bind(ds, schema)
    assert "rename={'tas': 'temperature_mean'}" in caught.value.fix
    bind(ds, schema, rename={"t2m": "temperature_mean"})


@pytest.mark.parametrize(
    "attrs",
    [
        {"cell_methods": "time: mean (comment: daylight hours only)"},
        {"long_name": "relative humidity, accepted daytime mean"},
        {"long_name": "day-time humidity"},
        {"long_name": "climatological humidity"},
        {"cell_methods": "time: maximum"},
        {"standard_name": "eastward_wind"},
        {"standard_name": "volume_fraction_of_condensed_water_in_soil"},
    ],
)
def test_a_variable_that_says_it_is_something_else_is_not_matched_by_name(
    basins, schema, series, attrs
):
    ds = basins.assign(hurs=series(units="%", **attrs))
    table = plan(ds, schema).table
    assert table["relative_humidity"].variables == ()
    assert table.unused["hurs"] != "no token"


def test_day_and_night_together_are_a_whole_day(basins, schema, series):
    ds = basins.assign(hurs=series(units="%", long_name="mean of daytime and nighttime"))
    assert variable_of(ds, schema, "relative_humidity") == ("hurs",)


@pytest.mark.parametrize("long_name", ["shortwave, daylight average", None])
def test_only_a_radiation_that_says_daylight_is_multiplied_by_day_length(
    basins, schema, series, long_name
):
    ds = basins.assign(
        srad=series(units="W m-2", long_name=long_name), dayl=series(units="s", high=86400)
    )
    expected = ("srad", "dayl") if long_name else ()
    assert variable_of(ds, schema, "shortwave_down") == expected


def test_forcings_need_time_and_statics_must_not_have_it(basins, schema, series):
    ds = basins.assign(
        ndvi=("site", np.full(3, 0.5, np.float32), {"units": "1"}), sand=series(units="%")
    )
    table = plan(ds, schema).table
    assert table["ndvi"].variables == ()
    assert table["ndvi_mean"].variables == ("ndvi",)
    assert table["sand"].variables == ()


def test_statics_may_be_coordinates(basins, schema):
    ds = basins.drop_vars("elevation").assign_coords(
        alt=("site", [1.0, 2.0, 3.0], {"units": "m", "standard_name": "surface_altitude"})
    )
    assert variable_of(ds, schema, "elevation") == ("alt",)


def test_variables_on_other_dimensions_are_listed_and_left_out(basins, schema):
    ds = basins.assign(
        area=("site", np.ones(3, np.float32), {"units": "km2"}),
        drainage_area=("gauge", np.ones(2, np.float32), {"units": "km2"}),
    )
    table = plan(ds, schema).table
    assert table["catchment_area"].variables == ("area",)
    assert table.unused["drainage_area"] == "on gauge: not the sites of the forcings"


def test_what_is_computed_from_a_target_is_never_a_predictor(basins, schema):
    ds = basins.assign(q_mean=("site", np.ones(3, np.float32), {"units": "mm d-1"}))
    assert plan(ds, schema).table.unused["q_mean"] == "computed from streamflow"


def test_classes_text_and_service_variables_are_not_quantities(basins, schema):
    ds = basins.assign(
        elevation=("site", np.array([1, 2, 1], np.int8), {"flag_meanings": "low high"}),
        sand=("site", ["a", "b", "c"]),
        crs=((), 0, {"grid_mapping_name": "latitude_longitude"}),
    )
    table = plan(ds, schema).table
    assert table["elevation"].variables == ()
    assert table.unused["sand"] == "not a quantity"
    assert "crs" not in table.unused


def test_a_dataset_without_time_still_shows_its_statics(schema):
    ds = xr.Dataset({"elevation": ("site", [1.0], {"units": "m"})})
    understood = plan(ds, schema)
    assert understood.table.matched == ("elevation",)
    with pytest.raises(XstefaError, match="no time axis"):
        _ = understood.layout


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ("maximum temperature", "maximum"),
        ("Daily Minimum Near-Surface Air Temperature", "minimum"),
        ("max. 2 m temperature of the day", "maximum"),
        ("minimum relative humidity", "minimum"),
        ("mean temperature", None),
        ("mean of maximum and minimum temperature", None),
        ("temperature between minimum and maximum", None),
        ("maximum depth", None),
    ],
)
def test_extremes_that_only_words_tell(basins, words, method):
    basins["hot"].attrs = {"standard_name": "air_temperature", "units": "degC", "long_name": words}
    assert describe(basins, time="time")["hot"].method == method


def test_the_observations_of_europe_are_known_by_their_names(basins, schema):
    """E-OBS has no cell methods, calls all temperatures alike, and its precipitation rainfall."""
    temperature = {"standard_name": "air_temperature", "units": "Celsius"}
    ds = xr.Dataset(
        {
            "rr": basins["pr"].assign_attrs(
                standard_name="thickness_of_rainfall_amount", units="mm", cell_methods=None
            ),
            "tx": basins["hot"]
            .drop_attrs()
            .assign_attrs(temperature, long_name="maximum temperature"),
            "tn": basins["cold"]
            .drop_attrs()
            .assign_attrs(temperature, long_name="minimum temperature"),
            "tg": basins["cold"]
            .drop_attrs()
            .assign_attrs(temperature, long_name="mean temperature"),
        }
    )
    del ds["rr"].attrs["cell_methods"]
    table = plan(ds, schema).table
    assert not table.problems
    names = ("precipitation", "temperature_max", "temperature_min", "temperature_mean")
    assert [table[name].variables for name in names] == [("rr",), ("tx",), ("tn",), ("tg",)]
    without = plan(ds[["rr", "tx"]], schema, rename={"rr": "precipitation"})
    assert "temperature_mean" in without.table.missing
    assert "'tx': 'temperature_mean'" not in str(without.table.problems)


@pytest.mark.parametrize(
    "words",
    [
        "surface soil moisture, degree of saturation",
        "relative soil moisture",
        "soil moisture anomaly",
        "standardized soil moisture",
        "soil wetness index",
        "root-zone soil moisture",
    ],
)
def test_observations_of_another_quantity_are_not_those_of_the_target(basins, schema, words):
    target = schema.target("soil_moisture")
    basins["soil_moisture"] = basins["pr"].drop_attrs().assign_attrs(units="%", long_name=words)
    assert not match_target(describe(basins, time="time").values(), target)
    assert plan(basins, schema).table.unused["soil_moisture"].startswith("not soil_moisture: ")
    basins["soil_moisture"].attrs["long_name"] = "volumetric soil moisture"
    assert match_target(describe(basins, time="time").values(), target)
