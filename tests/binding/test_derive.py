"""Values worked out in the cited publications, or by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xstefa
from xstefa.binding import derive
from xstefa.binding.derive import DERIVATIONS


def f(*values):
    return np.array(values, dtype=np.float32)


def test_saturation_vapour_pressure_of_fao_56_table_2_3():
    # FAO-56 Annex 2 Table 2.3, in kPa.
    result = derive.saturation_vapour_pressure(f(1.0, 15.0, 24.5, 35.0))
    np.testing.assert_allclose(result / 10, [0.657, 1.705, 3.075, 5.624], atol=0.002)


def test_extraterrestrial_radiation_of_fao_56_example_8():
    # 20 degrees south, 3 September (day 246): 32.2 MJ m-2 d-1.
    assert derive.extraterrestrial_radiation(f(-20.0), f(246.0)) == pytest.approx(32.2, abs=0.1)


def test_extraterrestrial_radiation_of_polar_night_and_day():
    night, day = derive.extraterrestrial_radiation(f(80.0, 80.0), f(355.0, 172.0))
    assert night == 0.0
    assert day > 40.0


def test_hargreaves_of_fao_56_example_20():
    # Lyon, 45.72 north, mid July: Ra 40.55, Tmax 26.6, Tmin 14.8; ETo = 5.0 mm/day.
    result = derive.hargreaves(f(26.6), f(14.8), f(45.72), f(196.0))
    assert result == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(("maximum", "minimum"), [(6.0, 6.0), (5.0, 7.0)])
def test_extremes_that_are_none_evaporate_as_their_mean(maximum, minimum):
    found = derive.hargreaves(f(maximum), f(minimum), f(45.0), f(180.0))
    assert found == derive.oudin(f(6.0), f(45.0), f(180.0)) > 0.5


def test_extremes_that_are_none_are_not_known():
    names = ("precipitation", "temperature_max", "temperature_min", "temperature_mean")
    forcing = np.float32([[[1, 9, 3, 6], [1, 6, 6, 6], [1, 5, 7, 6], [1, np.nan, 3, 6]]])
    expected = forcing.copy()
    expected[0, 1:3, 1:3] = np.nan
    derive.hide_false_extremes(forcing, names)
    np.testing.assert_array_equal(forcing, expected)
    derive.hide_false_extremes(forcing, names[:2])


@pytest.mark.parametrize("chunks", [None, {"time": 50}])
def test_the_mean_as_both_extremes_predicts_as_the_mean(tiny_model, chunks):
    """CAMELS-US's Maurer and NLDAS files."""
    ds = xstefa.open_sample("camels_us").isel(basin=slice(2), time=slice(400)).load()
    mean = ((ds["tmax"] + ds["tmin"]) / 2).assign_attrs(units="degC", cell_methods="time: mean")
    same = ds.assign(
        tmax=mean.assign_attrs(ds["tmax"].attrs), tmin=mean.assign_attrs(ds["tmin"].attrs)
    )
    right = ds.drop_vars(["tmax", "tmin"]).assign(tmean=mean)
    found, expected = (
        (each if chunks is None else each.chunk(chunks)).stefa.predict(tiny_model).compute()
        for each in (same, right)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    text = "\n".join(same.stefa.tokens(check=True).doubts)
    assert "'tmax' and 'tmin': the same, on 100 % of the days" in text
    assert not ds.stefa.tokens(check=True).doubts


def test_oudin_is_zero_below_minus_five_and_by_hand_above():
    radiation = derive.extraterrestrial_radiation(f(45.0), f(180.0))
    result = derive.oudin(f(-6.0, 15.0), f(45.0), f(180.0))
    np.testing.assert_allclose(result, [0.0, float(radiation[0]) * 0.408 * 0.2], rtol=1e-5)


def test_standard_pressure_of_fao_56_example_2():
    assert derive.standard_pressure(f(1800.0)) == pytest.approx(818.0, abs=1.0)


def test_four_ways_to_the_same_humidity():
    temperature, pressure = f(20.0), f(1000.0)
    vapour_pressure = 0.6 * derive.saturation_vapour_pressure(temperature)
    deficit = derive.saturation_vapour_pressure(temperature) - vapour_pressure
    specific = 0.622 * vapour_pressure / (pressure - 0.378 * vapour_pressure)
    log = np.log(vapour_pressure / 6.108)
    dewpoint = 237.3 * log / (17.27 - log)
    for result in (
        derive.humidity_from_vapour_pressure(vapour_pressure, temperature),
        derive.humidity_from_deficit(deficit, temperature),
        derive.humidity_from_specific(specific, temperature, pressure),
        derive.humidity_from_dewpoint(dewpoint, temperature),
    ):
        np.testing.assert_allclose(result, 60.0, rtol=1e-4)


def test_shortwave_speed_and_slope():
    assert derive.daily_shortwave(f(400.0), f(43200.0)) == 200.0
    assert derive.speed(f(3.0), f(-4.0)) == 5.0
    assert derive.tangent(f(45.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("derivation", DERIVATIONS, ids=lambda d: f"{d.token}: {d.rule}")
def test_kernels_keep_float32_and_pass_missing_on(derivation):
    parts = [f(1.0, np.nan) for _ in derivation.parts]
    result = derivation.kernel(*parts)
    assert result.dtype == np.float32
    assert np.isfinite(result[0])
    assert np.isnan(result[1])


@given(
    temperature=st.floats(-60, 50, width=32),
    vapour_pressure=st.floats(0, 100, width=32),
)
def test_humidity_stays_within_its_bounds(temperature, vapour_pressure):
    result = derive.humidity_from_vapour_pressure(f(vapour_pressure), f(temperature))
    assert 0.0 <= float(result[0]) <= 100.0


@given(latitude=st.floats(-90, 90, width=32), day=st.integers(1, 366))
def test_radiation_is_finite_and_mirrored_across_the_equator(latitude, day):
    north = derive.extraterrestrial_radiation(f(latitude), f(day))
    assert 0.0 <= float(north[0]) < 50.0
