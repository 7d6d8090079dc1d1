import dask.array as da
import numpy as np
import pint
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xstefa.binding.units import conversion, same_kind
from xstefa.errors import UnitsError

# found, used, a value before, the value after
TABLE = [
    ("K", "degC", 273.15, 0.0),
    ("kelvin", "degC", 300.0, 26.85),
    ("degF", "degC", 212.0, 100.0),
    ("C", "degC", 5.0, 5.0),
    ("deg C", "degC", 5.0, 5.0),
    ("degrees_Celsius", "degC", 5.0, 5.0),
    ("0.1 degC", "degC", 123.0, 12.3),
    ("kg m-2 s-1", "mm d-1", 1e-4, 8.64),
    ("kg m**-2 s**-1", "mm d-1", 1e-4, 8.64),
    ("kg/m^2/s", "mm d-1", 1e-4, 8.64),
    ("mm/day", "mm d-1", 3.0, 3.0),
    ("mm day-1", "mm d-1", 3.0, 3.0),
    ("mm/hr", "mm d-1", 1.0, 24.0),
    ("m s-1", "mm d-1", 1e-8, 0.864),
    ("m d-1", "mm d-1", 0.003, 3.0),
    ("cm/day", "mm d-1", 0.3, 3.0),
    ("inches/day", "mm d-1", 1.0, 25.4),
    ("kg m-2 d-1", "mm d-1", 3.0, 3.0),
    ("mm yr-1", "mm d-1", 365.25, 1.0),
    ("W/m2", "W m-2", 100.0, 100.0),
    ("W m**-2", "W m-2", 100.0, 100.0),
    ("J m-2 d-1", "W m-2", 8.64e6, 100.0),
    ("MJ m-2 day-1", "W m-2", 8.64, 100.0),
    ("Pa", "hPa", 101325.0, 1013.25),
    ("kPa", "hPa", 101.325, 1013.25),
    ("mb", "hPa", 1000.0, 1000.0),
    ("mbar", "hPa", 1000.0, 1000.0),
    ("1", "%", 0.5, 50.0),
    ("fraction", "%", 0.5, 50.0),
    ("%", "1", 50.0, 0.5),
    ("percent", "1", 50.0, 0.5),
    ("(0 - 1)", "1", 0.5, 0.5),
    ("0.1 %", "1", 500.0, 0.5),
    ("kg kg**-1", "kg kg-1", 0.01, 0.01),
    ("g/kg", "kg kg-1", 10.0, 0.01),
    ("m km-1", "m m-1", 50.0, 0.05),
    ("1", "m m-1", 0.05, 0.05),
    ("day year-1", "d yr-1", 20.0, 20.0),
    ("1", "d yr-1", 0.1, 36.525),
    ("day", "d", 2.0, 2.0),
    ("m s-1", "cm h-1", 1e-6, 0.36),
    ("cm hour-1", "cm h-1", 1.0, 1.0),
    ("kg m-3", "g cm-3", 1300.0, 1.3),
    ("m2", "km2", 5e6, 5.0),
    ("mi^2", "km2", 1.0, 2.589988),
    ("km/hour", "m s-1", 3.6, 1.0),
    ("knot", "m s-1", 1.0, 0.514444),
    ("0.1 degree", "degree", 35.0, 3.5),
    ("people km-2", "km-2", 7.0, 7.0),
    ("h", "s", 12.0, 43200.0),
    ("mm/3h", "mm d-1", 1.0, 8.0),
    ("mm / 6 hours", "mm d-1", 1.0, 4.0),
    ("l s-1 km-2", "mm d-1", 10.0, 0.864),
    ("J cm-2 d-1", "W m-2", 864.0, 100.0),
    ("mmHg", "hPa", 760.0, 1013.25),
    ("0.0001", "1", 5000.0, 0.5),
    ("ft3 s-1", "m3 s-1", 1.0, 0.028316847),
    ("ML d-1", "m3 s-1", 86.4, 1.0),
    ("cfs", "m3 s-1", 1.0, 0.028316847),
    ("cumecs", "m3 s-1", 1.0, 1.0),
    ("Kelvin", "degC", 273.15, 0.0),
    ("degrees Celsius", "degC", 5.0, 5.0),
    ("degrees_C", "degC", 5.0, 5.0),
    ("Fahrenheit", "degC", 212.0, 100.0),
    ("deg_F", "degC", 212.0, 100.0),
    ("degree kelvin", "degC", 273.15, 0.0),
    ("m of water equivalent", "m", 3.0, 3.0),
    ("kg m\N{MINUS SIGN}2 s\N{MINUS SIGN}1", "mm d-1", 1e-4, 8.64),
    ("Watts/m^2", "W m-2", 100.0, 100.0),
    ("Millimeters per day", "mm d-1", 3.0, 3.0),
    ("hpa", "hPa", 1000.0, 1000.0),
    ("Percent", "1", 50.0, 0.5),
    ("vol %", "m3 m-3", 25.0, 0.25),
    ("m a.s.l.", "m", 3.0, 3.0),
]


@pytest.mark.parametrize(("found", "used", "before", "after"), TABLE)
def test_conversions(found, used, before, after):
    array = xr.DataArray(np.array([before], dtype=np.float64))
    result = conversion(found, used, variable="x")(array)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [after], rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("found", "used", "before", "after"),
    [
        ("mm", "mm d-1", 3.0, 3.0),
        ("m", "mm d-1", 0.003, 3.0),
        ("kg m-2", "mm d-1", 3.0, 3.0),
        ("J m-2", "W m-2", 8.64e6, 100.0),
        ("J m**-2", "W m-2", 8.64e6, 100.0),
    ],
)
def test_an_amount_is_a_rate_only_if_it_says_that_it_is_the_sum_of_the_day(
    found, used, before, after
):
    array = xr.DataArray([before])
    result = conversion(found, used, variable="x", time_method="sum")(array)
    np.testing.assert_allclose(result, [after], rtol=1e-6)
    for method in (None, "mean", "point"):
        with pytest.raises(UnitsError, match=r"amount without the interval[\s\S]*time: sum"):
            conversion(found, used, variable="x", time_method=method)


@pytest.mark.parametrize(
    ("found", "used"),
    [
        ("K", "mm d-1"),
        ("m3 s-1", "mm d-1"),
        ("degree", "m m-1"),  # an angle is not a slope, though both are dimensionless to pint
        ("degrees", "1"),
        ("1", "degree"),
        ("mm", "d"),
        ("day", "d yr-1"),
        ("kg m-2 s-1", "m s-1"),  # a mass flux is not a wind
        ("W m-2", "mm d-1"),  # needs the latent heat, so it is a formula and not a unit
        ("bananas", "degC"),
        ("mm//day)", "mm d-1"),
    ],
)
def test_impossible_conversions_name_variable_units_and_fix(found, used):
    with pytest.raises(UnitsError) as caught:
        conversion(found, used, variable="tp")
    assert caught.value.variable == "tp"
    assert found in caught.value.found
    assert used in caught.value.expected
    assert "tp" in caught.value.fix
    assert not same_kind(found, used)


CELSIUS = {
    "degC": lambda value: value,
    "K": lambda value: value - 273.15,
    "degF": lambda value: (value - 32) / 1.8,
    "degR": lambda value: value / 1.8 - 273.15,
}


@given(value=st.floats(-1e3, 1e3, width=32), units=st.sampled_from(sorted(CELSIUS)))
def test_temperatures_follow_their_definitions(value, units):
    result = conversion(units, "degC", variable="t")(xr.DataArray(np.float32(value)))
    np.testing.assert_allclose(result, CELSIUS[units](value), rtol=1e-5, atol=1e-3)


def test_conversion_is_lazy_and_keeps_float32_as_it_is():
    lazy = xr.DataArray(da.zeros((4, 4), chunks=2, dtype=np.float32))
    assert isinstance(conversion("K", "degC", variable="t")(lazy).data, da.Array)
    eager = xr.DataArray(np.zeros(4, dtype=np.float32))
    assert conversion("degC", "degC", variable="t")(eager).data is eager.data


def test_packed_and_timedelta_values_become_float32():
    packed = xr.DataArray(np.array([1, 2], dtype=np.int16))
    assert conversion("mm", "m", variable="x")(packed).dtype == np.float32
    spans = xr.DataArray(np.array([86400, 43200], dtype="timedelta64[s]"))
    np.testing.assert_allclose(conversion("s", "d", variable="x")(spans), [1.0, 0.5])


def test_pints_application_registry_is_left_alone():
    before = pint.get_application_registry().get()
    conversion("K", "degC", variable="t")
    assert pint.get_application_registry().get() is before
