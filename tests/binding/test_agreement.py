"""What xclim and pint-xarray make of the same units, calendars and formulas."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.binding.units import conversion

UNITS = [
    ("kg m-2 s-1", "mm d-1"),
    ("m s-1", "mm d-1"),
    ("mm h-1", "mm d-1"),
    ("inch day-1", "mm d-1"),
    ("K", "degC"),
    ("degF", "degC"),
    ("Pa", "hPa"),
    ("kPa", "hPa"),
    ("1", "%"),
    ("MJ m-2 d-1", "W m-2"),
    ("km h-1", "m s-1"),
    ("kg kg-1", "g kg-1"),
    ("g m-3", "kg m-3"),
]


@pytest.fixture
def days():
    """A year of daily weather in the mid latitudes, as CMIP6 has it."""
    time = xr.date_range("2000-01-01", periods=366)
    season = np.cos(2 * np.pi * (np.arange(366) - 200) / 366)
    random = np.random.default_rng(0)

    def series(values, units, name, method):
        attrs = {"units": units, "standard_name": name, "cell_methods": f"time: {method}"}
        return ("site", "time"), np.stack([values, values + 1]).astype(np.float32), attrs

    warm = 285 + 10 * season
    return xr.Dataset(
        {
            "pr": (
                ("site", "time"),
                random.gamma(0.5, 1e-4, (2, 366)).astype(np.float32),
                {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"},
            ),
            "tas": series(warm, "K", "air_temperature", "mean"),
            "tasmax": series(warm + 5, "K", "air_temperature", "maximum"),
            "tasmin": series(warm - 5, "K", "air_temperature", "minimum"),
        },
        {"time": time, "lat": ("site", [45.0, -30.0], {"units": "degrees_north"})},
    )


@pytest.mark.parametrize(("found", "used"), UNITS)
def test_units_of_xclim(found, used):
    xclim = pytest.importorskip("xclim")
    values = xr.DataArray([0.0, 0.5, 3.0], dims="time", attrs={"units": found})
    if found.startswith("kg m-2"):  # mass of water: xclim tells it by the standard name
        values.attrs["standard_name"] = "precipitation_flux"
    theirs = xclim.core.units.convert_units_to(values, used)
    np.testing.assert_allclose(conversion(found, used, variable="x")(values), theirs, rtol=1e-6)


def test_amounts_of_a_day_of_xclim(days, schema):
    xclim = pytest.importorskip("xclim")
    amounts = xclim.core.units.rate2amount(days["pr"], out_units="mm")
    amounts.attrs |= {"cell_methods": "time: sum"}
    amounts.attrs.pop("standard_name", None)
    ours = bind(days, schema).forcing["precipitation"]
    again = bind(days.assign(pr=amounts), schema).forcing["precipitation"]
    np.testing.assert_allclose(ours, amounts, rtol=1e-6)
    np.testing.assert_allclose(again, amounts, rtol=1e-6)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "proleptic_gregorian"])
def test_calendars_of_xclim(days, schema, calendar):
    """Days that a calendar lacks are left out, and nothing else changes."""
    xclim = pytest.importorskip("xclim")
    other = days.convert_calendar(calendar, align_on="date", use_cftime=True)
    assert other.sizes["time"] == {"noleap": 365, "360_day": 359}.get(calendar, 366)
    binding = bind(other, schema)
    assert {binding.layout.calendar, xclim.core.calendar.get_calendar(other)} <= {
        calendar,
        "standard",
    }
    ours = binding.forcing["precipitation"]
    mm = xclim.core.units.convert_units_to(other["pr"], "mm d-1")
    np.testing.assert_allclose(ours, mm, rtol=1e-6)
    kept = days["time"].dt.strftime("%Y-%m-%d").isin(other["time"].dt.strftime("%Y-%m-%d"))
    same_dates = bind(days, schema).forcing["precipitation"].isel(time=kept.values)
    np.testing.assert_allclose(ours, same_dates, rtol=1e-6)


def test_evapotranspiration_and_humidity_of_xclim(days, schema):
    xclim = pytest.importorskip("xclim")
    theirs = xclim.indices.potential_evapotranspiration(
        tasmin=days["tasmin"],
        tasmax=days["tasmax"],
        tas=days["tas"],
        lat=days["lat"],
        method="HG85",
    )
    theirs = xclim.core.units.convert_units_to(theirs, "mm d-1", context="hydro").transpose(
        "site", "time"
    )
    ours = bind(days, schema).forcing["potential_evapotranspiration"]
    # Its sun is Spencer's, and that of FAO-56 up to a degree lower or higher in spring and autumn.
    np.testing.assert_allclose(ours, theirs, atol=0.15)
    np.testing.assert_allclose(ours.mean("time"), theirs.mean("time"), rtol=0.02)
    dew = days.assign(tdps=(days["tas"] - 4).drop_attrs().assign_attrs(units="K"))
    theirs = xclim.indices.relative_humidity(tas=days["tas"], tdps=dew["tdps"], method="tetens30")
    ours = bind(dew, schema).forcing["relative_humidity"]
    np.testing.assert_allclose(ours, theirs, atol=1)


def test_xclim_and_its_registry_change_no_units(days, schema):
    before = bind(days, schema).forcing["precipitation"]
    xclim = pytest.importorskip("xclim")
    import pint

    assert pint.get_application_registry().get() is xclim.core.units.units
    xr.testing.assert_identical(bind(days, schema).forcing["precipitation"], before)


@pytest.mark.parametrize("chunks", [None, {"time": 100}])
def test_what_pint_xarray_quantified_and_converted_is_the_same(days, schema, chunks):
    pytest.importorskip("pint_xarray")
    from cf_xarray.units import units as registry  # reads degrees_north

    ds = days if chunks is None else days.chunk(chunks)
    quantified = ds.drop_vars("pr").pint.quantify(unit_registry=registry)
    converted = quantified.pint.to({"tas": "degC", "tasmax": "degF"})
    expected = bind(ds, schema)
    for given in (quantified, converted, converted.pint.dequantify(format="~C")):
        found = bind(given.assign(pr=ds["pr"]), schema)
        for token in ("temperature_mean", "temperature_max", "temperature_min"):
            assert found.forcing[token].chunks == expected.forcing[token].chunks
            np.testing.assert_allclose(
                found.forcing[token], expected.forcing[token], rtol=1e-5, atol=1e-4
            )
