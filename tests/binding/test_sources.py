"""Small datasets with the names, units and attributes that real sources use."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind, plan
from xstefa.errors import BindingErrors, CalendarError, LayoutError, RangeError, UnitsError

DAYS = 5


def grid(variables, *, time="time", calendar=None):
    """Make a (time, lat, lon) dataset of {name: (value, attrs)}."""
    days = (
        pd.date_range("2001-01-01", periods=DAYS)
        if calendar is None
        else xr.date_range("2001-01-01", periods=DAYS, calendar=calendar, use_cftime=True)
    )
    return xr.Dataset(
        {
            name: ((time, "lat", "lon"), np.full((DAYS, 2, 3), value, np.float32), attrs)
            for name, (value, attrs) in variables.items()
        },
        coords={
            time: days,
            "lat": ("lat", [50.0, 40.0], {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", [0.0, 1, 2], {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )


def basins(variables, statics=(), *, time="time"):
    """Make a (basin, time) dataset of {name: (value, attrs)}."""
    dims = ("basin", time)
    return xr.Dataset(
        {n: (dims, np.full((2, DAYS), v, np.float32), a) for n, (v, a) in variables.items()}
        | {n: ("basin", np.full(2, v, np.float32), a) for n, (v, a) in dict(statics).items()},
        coords={time: pd.date_range("2001-01-01", periods=DAYS), "lat": ("basin", [40.0, 41.0])},
    )


def check(ds, schema, expected):
    """Compare {token: (variables, value)}; nothing may be out of range."""
    binding = bind(ds, schema)
    binding.check_ranges()
    tokens = {**binding.forcing, **binding.static}
    for token, (variables, value) in expected.items():
        assert binding.table[token].variables == variables
        if value is not None:
            np.testing.assert_allclose(tokens[token], value, rtol=1e-3)
    return binding


def test_cmip6(schema):
    mean, high = "area: time: mean", "area: mean time: maximum"
    ds = grid(
        {
            "pr": (3e-5, {"standard_name": "precipitation_flux", "units": "kg m-2 s-1",
                          "cell_methods": mean}),
            "tas": (290.0, {"standard_name": "air_temperature", "units": "K",
                            "cell_methods": mean}),
            "tasmax": (295.0, {"standard_name": "air_temperature", "units": "K",
                               "cell_methods": high}),
            "tasmin": (285.0, {"standard_name": "air_temperature", "units": "K",
                               "cell_methods": "area: mean time: minimum"}),
            "hurs": (70.0, {"standard_name": "relative_humidity", "units": "%",
                            "cell_methods": mean}),
            "huss": (0.01, {"standard_name": "specific_humidity", "units": "1",
                            "cell_methods": mean}),
            "rsds": (200.0, {"standard_name": "surface_downwelling_shortwave_flux_in_air",
                             "units": "W m-2", "cell_methods": mean}),
            "rlds": (300.0, {"standard_name": "surface_downwelling_longwave_flux_in_air",
                             "units": "W m-2", "cell_methods": mean}),
            "sfcWind": (3.0, {"standard_name": "wind_speed", "units": "m s-1",
                              "cell_methods": mean}),
            "ps": (101000.0, {"standard_name": "surface_air_pressure", "units": "Pa",
                              "cell_methods": mean}),
            "prc": (1e-5, {"standard_name": "convective_precipitation_flux",
                           "units": "kg m-2 s-1", "cell_methods": mean}),
        },
        calendar="noleap",
    ).assign_coords(height=2.0)  # fmt: skip
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("pr",), 2.592),
            "temperature_max": (("tasmax",), 21.85),
            "temperature_mean": (("tas",), 16.85),
            "relative_humidity": (("hurs",), 70.0),
            "surface_pressure": (("ps",), 1010.0),
            "potential_evapotranspiration": (("tasmax", "tasmin"), None),
        },
    )
    assert set(binding.table.unused) == {"prc", "huss"}
    assert binding.layout.calendar == "noleap"


def test_gridmet(schema):
    mean = "time: mean(interval: 24 hours)"
    ds = grid(
        {
            "precipitation_amount": (2.0, {"units": "mm", "standard_name": "precipitation_amount",
                                           "cell_methods": "time: sum(interval: 24 hours)"}),
            "tmmx": (300.0, {"units": "K", "standard_name": "air_temperature",
                             "cell_methods": "time: maximum(interval: 24 hours)"}),
            "tmmn": (280.0, {"units": "K", "standard_name": "air_temperature",
                             "cell_methods": "time: minimum(interval: 24 hours)"}),
            "srad": (200.0, {"units": "W m-2", "cell_methods": mean,
                             "standard_name": "surface_downwelling_shortwave_flux_in_air"}),
            "rmax": (90.0, {"units": "%", "standard_name": "relative_humidity",
                            "cell_methods": "time: maximum(interval: 24 hours)"}),
            "rmin": (30.0, {"units": "%", "standard_name": "relative_humidity",
                            "cell_methods": "time: minimum(interval: 24 hours)"}),
            "wind_speed": (3.0, {"units": "m/s", "standard_name": "wind_speed",
                                 "cell_methods": mean}),
            "potential_evapotranspiration": (4.0, {
                "units": "mm", "standard_name": "potential_evapotranspiration",
                "cell_methods": "time: sum(interval: 24 hours)"}),
        },
        time="day",
    )  # fmt: skip
    check(
        ds,
        schema,
        {
            "precipitation": (("precipitation_amount",), 2.0),
            "temperature_max": (("tmmx",), 26.85),
            "temperature_mean": (("tmmx", "tmmn"), 16.85),
            "shortwave_down": (("srad",), 200.0),
            "relative_humidity": (("rmax", "rmin"), 60.0),
            "potential_evapotranspiration": (("potential_evapotranspiration",), 4.0),
        },
    )


GRIDMET = {
    "precipitation": (("precipitation_amount",), 2.0),
    "temperature_max": (("tmmx",), 26.85),
    "temperature_mean": (("tmmx", "tmmn"), 16.85),
    "shortwave_down": (("surface_downwelling_shortwave_flux_in_air",), 200.0),
    "wind_speed": (("wind_speed",), 3.0),
    "relative_humidity": (("mean_vapor_pressure_deficit", "tmmx", "tmmn"), None),
    "potential_evapotranspiration": (("potential_evapotranspiration",), 4.0),
}


def gridmet_files():
    """As in the files of one year: no cell methods, and a grid mapping with a dimension."""

    def about(short, units, description):
        return {"units": units, "description": description, "long_name": short,
                "standard_name": short, "dimensions": "lon lat time", "grid_mapping": "crs",
                "coordinate_system": "WGS84,EPSG:4326"}  # fmt: skip

    ds = grid(
        {
            "precipitation_amount": (2.0, about("pr", "mm", "Daily Accumulated Precipitation")),
            "tmmx": (300.0, about("tmmx", "K", "Daily Maximum Temperature")),
            "tmmn": (280.0, about("tmmn", "K", "Daily Minimum Temperature")),
            "surface_downwelling_shortwave_flux_in_air": (
                200.0, about("srad", "W m-2", "Daily Mean downward shortwave radiation at surface")
            ),
            "wind_speed": (3.0, about("vs", "m/s", "Daily Mean Wind Speed")),
            "mean_vapor_pressure_deficit": (1.0, about("vpd", "kPa", "Mean Vapor Pressure "
                                                       "Deficit")),
            "potential_evapotranspiration": (
                4.0, about("pet", "mm", "Daily reference evapotranspiration (short grass)")
            ),
        },
        time="day",
    )  # fmt: skip
    crs = {"grid_mapping_name": "latitude_longitude", "semi_major_axis": 6378137.0,
           "inverse_flattening": 298.257223563}  # fmt: skip
    return ds.assign_coords(crs=("crs", np.array([3], np.uint16), crs))


def test_gridmet_files(schema):
    binding = check(gridmet_files(), schema, GRIDMET)
    assert binding.layout.coords["crs"].dims == ()
    assert binding.layout.grid_mapping == "crs"


def test_gridmet_extremes_under_the_name_of_their_files_are_no_means(schema):
    ds = gridmet_files().drop_vars("tmmn").rename(tmmx="air_temperature")
    table = plan(ds, schema).table
    assert "temperature_mean" in table.missing
    assert table.unused["air_temperature"].endswith("time: maximum")


def test_gridmet_short_names(schema):
    """As on Earth Engine and from pygridmet."""
    ds = grid(
        {
            "pr": (2.0, {"units": "mm"}),
            "tmmx": (300.0, {"units": "K"}),
            "tmmn": (280.0, {"units": "K"}),
            "srad": (200.0, {"units": "W/m^2"}),
            "vs": (3.0, {"units": "m/s"}),
            "vpd": (1.0, {"units": "kPa"}),
            "eto": (4.0, {"units": "mm"}),
            "etr": (5.0, {"units": "mm"}),
        }
    )
    short = dict(zip(GRIDMET, ["pr", "tmmx", None, "srad", "vs", None, "eto"], strict=True))
    check(
        ds,
        schema,
        {token: ((short[token],), value) for token, (_, value) in GRIDMET.items() if short[token]},
    )


def test_gridmet_aggregated(schema):
    names = {
        "precipitation_amount": (2.0, {"units": "mm"}),
        "daily_maximum_temperature": (300.0, {"units": "K"}),
        "daily_minimum_temperature": (280.0, {"units": "K"}),
        "daily_mean_shortwave_radiation_at_surface": (200.0, {"units": "W m-2"}),
        "daily_mean_wind_speed": (3.0, {"units": "m/s"}),
        "daily_maximum_relative_humidity": (90.0, {"units": "%"}),
        "daily_minimum_relative_humidity": (30.0, {"units": "%"}),
        "daily_mean_reference_evapotranspiration_grass": (4.0, {"units": "mm"}),
    }
    binding = check(grid(names, time="day"), schema, {})
    assert not binding.table.unused
    np.testing.assert_allclose(binding.forcing["temperature_mean"], 16.85, rtol=1e-4)
    np.testing.assert_allclose(binding.forcing["relative_humidity"], 60.0)
    np.testing.assert_allclose(binding.forcing["potential_evapotranspiration"], 4.0)


def test_daymet(schema):
    mean = "area: mean time: mean"
    ds = grid(
        {
            "prcp": (2.0, {"long_name": "daily total precipitation", "units": "mm/day",
                           "cell_methods": "area: mean time: sum"}),
            "tmax": (20.0, {"long_name": "daily maximum temperature", "units": "degrees C",
                            "cell_methods": "area: mean time: maximum"}),
            "tmin": (10.0, {"long_name": "daily minimum temperature", "units": "degrees C",
                            "cell_methods": "area: mean time: minimum"}),
            "srad": (400.0, {"long_name": "daylight average incident shortwave radiation",
                             "units": "W/m2", "cell_methods": mean}),
            "vp": (1000.0, {"long_name": "daily average vapor pressure", "units": "Pa",
                            "cell_methods": mean}),
            "dayl": (43200.0, {"long_name": "daylength", "units": "s", "cell_methods": mean}),
            "swe": (0.0, {"long_name": "snow water equivalent", "units": "kg/m2"}),
        }
    )  # fmt: skip
    check(
        ds,
        schema,
        {
            "precipitation": (("prcp",), 2.0),
            "shortwave_down": (("srad", "dayl"), 200.0),
            "relative_humidity": (("vp", "tmax", "tmin"), 58.65),
        },
    )


def test_caravan_without_units_in_its_files(schema):
    ds = basins(
        {
            "total_precipitation_sum": (2.0, {}),
            "temperature_2m_mean": (15.0, {}),
            "temperature_2m_max": (20.0, {}),
            "temperature_2m_min": (10.0, {}),
            "dewpoint_temperature_2m_mean": (10.0, {}),
            "surface_net_solar_radiation_mean": (150.0, {}),
            "surface_pressure_mean": (100.0, {}),
            "u_component_of_wind_10m_mean": (3.0, {}),
            "v_component_of_wind_10m_mean": (4.0, {}),
            "potential_evaporation_sum_ERA5_LAND": (9.0, {}),
            "potential_evaporation_sum_FAO_PENMAN_MONTEITH": (4.0, {}),
            "streamflow": (1.0, {"units": "mm d-1"}),
        },
        {
            "area": (500.0, {"units": "km2"}),
            "tmp_dc_syr": (123.0, {}),
            "slp_dg_sav": (100.0, {}),
            "snd_pc_sav": (40.0, {}),
            "for_pc_sse": (40.0, {}),
            "seasonality": (1.0, {}),
        },
        time="date",
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("total_precipitation_sum",), 2.0),
            "temperature_mean": (("temperature_2m_mean",), 15.0),
            "surface_pressure": (("surface_pressure_mean",), 1000.0),
            "wind_speed": (
                ("u_component_of_wind_10m_mean", "v_component_of_wind_10m_mean"),
                5.0,
            ),
            "potential_evapotranspiration": (
                ("potential_evaporation_sum_FAO_PENMAN_MONTEITH",),
                4.0,
            ),
            "t_mean": (("tmp_dc_syr",), 12.3),
            "slope": (("slp_dg_sav",), 0.17633),
            "sand": (("snd_pc_sav",), 40.0),
            "forest_fraction": (("for_pc_sse",), 0.4),
        },
    )
    assert "shortwave_down" in binding.table.missing
    assert "p_seasonality" in binding.table.missing
    assert float(binding.observed("streamflow").mean()) == 1.0


def test_camels_us_text_columns(schema):
    ds = basins(
        {
            "PRCP(mm/day)": (2.0, {}),
            "Tmax(C)": (20.0, {}),
            "Tmin(C)": (10.0, {}),
            "Vp(Pa)": (1000.0, {}),
            "QObs(mm/d)": (1.0, {}),
        },
        {"geol_porostiy": (0.1, {"units": "1"})},
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("PRCP(mm/day)",), 2.0),
            "temperature_mean": (("Tmax(C)", "Tmin(C)"), 15.0),
            "relative_humidity": (("Vp(Pa)", "Tmax(C)", "Tmin(C)"), 58.65),
            "geol_porosity": (("geol_porostiy",), 0.1),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0


def test_camels_gb(schema):
    ds = basins(
        {
            "precipitation": (2.0, {"units": "mm d-1"}),
            "temperature": (10.0, {"units": "degC"}),
            "pet": (1.0, {"units": "mm d-1"}),
            "windspeed": (4.0, {"units": "m s-1"}),
            "humidity": (6.0, {"units": "g kg-1"}),
            "discharge_spec": (1.0, {"units": "mm d-1"}),
        },
        {
            "dpsbar": (100.0, {}),
            "inwater_perc": (2.0, {}),
            "elev_mean": (100.0, {"units": "m"}),
        },
    )
    check(
        ds,
        schema,
        {
            "temperature_mean": (("temperature",), 10.0),
            "slope": (("dpsbar",), 0.1),
            "water_fraction": (("inwater_perc",), 0.02),
        },
    )


def test_camels_gb_tables_say_no_units(schema):
    ds = basins(
        {
            "precipitation": (2.0, {}),
            "pet": (1.0, {}),
            "peti": (1.1, {}),
            "temperature": (10.0, {}),
            "discharge_spec": (1.0, {}),
            "discharge_vol": (5.0, {}),
            "humidity": (6.0, {}),
            "shortwave_rad": (100.0, {}),
            "longwave_rad": (300.0, {}),
            "windspeed": (4.0, {}),
        },
        {
            "gauge_lat": (52.0, {}),
            "elev_mean": (100.0, {}),
            "area": (250.0, {}),
            "p_mean": (2.0, {}),
            "frac_snow": (0.02, {}),
            "high_prec_freq": (10.0, {}),
            "high_prec_timing": (1.0, {}),
            "sand_perc": (40.0, {}),
            "frac_high_perc": (3.0, {}),
        },
    ).drop_vars("lat")
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("precipitation",), 2.0),
            "temperature_mean": (("temperature",), 10.0),
            "shortwave_down": (("shortwave_rad",), 100.0),
            "longwave_down": (("longwave_rad",), 300.0),
            # 6 g kg-1 at 10 degC and 1001 hPa: a vapour pressure of 9.62 of 12.28 hPa
            "relative_humidity": (("humidity", "temperature", "elev_mean"), 78.35),
            "potential_evapotranspiration": (("pet",), 1.0),
            "catchment_area": (("area",), 250.0),
            "p_mean": (("p_mean",), 2.0),
            "high_precip_freq": (("high_prec_freq",), 10.0),
            "sand": (("sand_perc",), 40.0),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0
    without = bind(ds.drop_vars("pet"), schema).table["potential_evapotranspiration"]
    assert without.rule == "derived: Oudin et al. 2005"


def test_fluxnet_2015(schema):
    ds = basins(
        {
            "P_F": (2.0, {}),
            "TA_F": (15.0, {}),
            "SW_IN_F": (200.0, {}),
            "LW_IN_F": (300.0, {}),
            "VPD_F": (5.0, {}),
            "PA_F": (98.0, {}),
            "WS_F": (3.0, {}),
            "SWC_F_MDS_1": (25.0, {}),
        }
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("P_F",), 2.0),
            "surface_pressure": (("PA_F",), 980.0),
            "relative_humidity": (("VPD_F", "TA_F"), 70.67),
        },
    )
    assert float(binding.observed("soil_moisture").mean()) == pytest.approx(0.25)


def test_caravan_names_in_other_units_are_told_by_what_stands_beside_them(schema):
    """ERA5-Land on Earth Engine has the same names in metres and kelvin, with units."""
    names = {"total_precipitation_sum": (0.002, {}), "t2m": (288.0, {"units": "K"})}
    with pytest.raises(UnitsError, match="total_precipitation_sum"):
        bind(basins(names), schema)
    names = {"total_precipitation_sum": (0.002, {"units": "m"}), "temperature_2m": (288.0, {})}
    check(
        basins(names),
        schema,
        {
            "precipitation": (("total_precipitation_sum",), 2.0),
            "temperature_mean": (("temperature_2m",), 14.85),
        },
    )


def test_era5_land_of_earth_engine_names_its_daily_sums(schema):
    ds = grid(
        {
            "total_precipitation_sum": (0.002, {"units": "m"}),
            "temperature_2m": (288.0, {"units": "K"}),
            "temperature_2m_max": (293.0, {"units": "K"}),
            "temperature_2m_min": (283.0, {"units": "K"}),
            "surface_solar_radiation_downwards_sum": (1.728e7, {"units": "J/m^2"}),
            "surface_thermal_radiation_downwards_sum": (2.592e7, {"units": "J/m^2"}),
            "potential_evaporation_sum": (-0.003, {"units": "m"}),
        }
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("total_precipitation_sum",), 2.0),
            "temperature_max": (("temperature_2m_max",), 19.85),
            "shortwave_down": (("surface_solar_radiation_downwards_sum",), 200.0),
            "longwave_down": (("surface_thermal_radiation_downwards_sum",), 300.0),
            "potential_evapotranspiration": (("temperature_2m_max", "temperature_2m_min"), None),
        },
    )
    assert set(binding.table.unused) == {"potential_evaporation_sum"}


def test_era5_mean_rates(schema):
    ds = grid(
        {
            "avg_tprate": (2.3148e-5, {"units": "kg m**-2 s**-1"}),
            "avg_sdswrf": (200.0, {"units": "W m**-2"}),
            "t2m": (288.0, {"units": "K"}),
        }
    )
    check(
        ds,
        schema,
        {"precipitation": (("avg_tprate",), 2.0), "shortwave_down": (("avg_sdswrf",), 200.0)},
    )


def test_camels_br(schema):
    ds = basins(
        {
            "precipitation_chirps": (2.0, {}),
            "precipitation_mswep": (2.1, {}),
            "precipitation_cpc": (2.2, {}),
            "evapotransp_gleam": (2.0, {}),
            "potential_evapotransp_gleam": (4.0, {}),
            "temperature_min_cpc": (18.0, {}),
            "temperature_mean_cpc": (24.0, {}),
            "temperature_max_cpc": (30.0, {}),
            "streamflow_m3s": (10.0, {}),
            "streamflow_mm": (1.0, {}),
        },
        {
            "area": (500.0, {"units": "km2"}),
            "bedrock_depth": (1500.0, {}),
            "forest_perc": (40.0, {}),
            "carb_rocks_perc": (10.0, {}),
            "sand_perc": (50.0, {"units": "%"}),
        },
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("precipitation_chirps",), 2.0),
            "temperature_mean": (("temperature_mean_cpc",), 24.0),
            "potential_evapotranspiration": (("potential_evapotransp_gleam",), 4.0),
            "depth_to_bedrock": (("bedrock_depth",), 15.0),
            "forest_fraction": (("forest_perc",), 0.4),
            "carbonate_fraction": (("carb_rocks_perc",), 0.1),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0
    assert {"precipitation_mswep", "evapotransp_gleam"} <= set(binding.table.unused)


def test_camels_cl(schema):
    ds = basins(
        {
            "precip_cr2met": (2.0, {}),
            "precip_chirps": (2.1, {}),
            "precip_mswep": (2.1, {}),
            "precip_tmpa": (2.1, {}),
            "tmin_cr2met": (4.0, {}),
            "tmax_cr2met": (16.0, {}),
            "tmean_cr2met": (9.0, {}),
            "pet_8d_modis": (3.0, {}),
            "pet_hargreaves": (3.5, {"units": "mm d-1"}),
            "streamflow_mm": (1.0, {}),
        },
        {
            "p_mean_cr2met": (3.0, {}),
            "aridity_cr2met": (0.7, {}),
            "high_prec_freq_cr2met": (20.0, {}),
            "low_prec_dur_cr2met": (5.0, {}),
            "carb_rocks_frac": (0.1, {}),
        },
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("precip_cr2met",), 2.0),
            "temperature_mean": (("tmean_cr2met",), 9.0),
            "potential_evapotranspiration": (("pet_hargreaves",), 3.5),
            "p_mean": (("p_mean_cr2met",), 3.0),
            "low_precip_dur": (("low_prec_dur_cr2met",), 5.0),
            "carbonate_fraction": (("carb_rocks_frac",), 0.1),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0


@pytest.mark.parametrize("product", ["AWAP", "AGCD"])
def test_camels_aus(schema, product):
    ds = basins(
        {
            f"precipitation_{product}": (2.0, {}),
            "precipitation_SILO": (2.1, {}),
            f"tmax_{product}": (30.0, {}),
            f"tmin_{product}": (16.0, {}),
            "tmax_SILO": (30.5, {}),
            "tmin_SILO": (16.5, {}),
            f"vprp_{product}": (15.0, {}),
            "vp_SILO": (15.0, {}),
            "radiation_SILO": (17.28, {}),
            "et_morton_wet_SILO": (5.0, {}),
            "et_short_crop_SILO": (6.0, {}),
            "streamflow_MLd": (10.0, {}),
            "streamflow_mmd": (1.0, {}),
        },
        {"catchment_area": (500.0, {"units": "km2"})},
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": ((f"precipitation_{product}",), 2.0),
            "temperature_mean": ((f"tmax_{product}", f"tmin_{product}"), 23.0),
            "shortwave_down": (("radiation_SILO",), 200.0),
            "relative_humidity": (
                (f"vprp_{product}", f"tmax_{product}", f"tmin_{product}"), 53.41),
            "potential_evapotranspiration": (("et_morton_wet_SILO",), 5.0),
        },
    )  # fmt: skip
    assert float(binding.observed("streamflow").mean()) == 1.0


def test_mswx_and_mswep(schema):
    ds = grid(
        {
            "precipitation": (2.0, {"units": "mm/d"}),
            "air_temperature": (15.0, {"units": "degree_Celsius"}),
            "air_temperature_max": (20.0, {"units": "degree_Celsius"}),
            "air_temperature_min": (10.0, {"units": "degree_Celsius"}),
            "downward_shortwave_radiation": (200.0, {"units": "W m-2"}),
            "downward_longwave_radiation": (300.0, {"units": "W m-2"}),
            "relative_humidity": (70.0, {"units": "%"}),
            "specific_humidity": (0.007, {"units": "kg kg-1"}),
            "wind_speed": (3.0, {"units": "m s-1"}),
            "surface_pressure": (1e5, {"units": "Pa"}),
        }
    )
    check(
        ds,
        schema,
        {
            "precipitation": (("precipitation",), 2.0),
            "temperature_max": (("air_temperature_max",), 20.0),
            "temperature_mean": (("air_temperature",), 15.0),
            "shortwave_down": (("downward_shortwave_radiation",), 200.0),
            "longwave_down": (("downward_longwave_radiation",), 300.0),
            "relative_humidity": (("relative_humidity",), 70.0),
            "surface_pressure": (("surface_pressure",), 1000.0),
        },
    )


def test_isimip_says_no_cell_methods(schema):
    temperature = {"standard_name": "air_temperature", "units": "K"}
    ds = grid(
        {
            "pr": (3e-5, {"standard_name": "precipitation_flux", "units": "kg m-2 s-1",
                          "long_name": "Precipitation"}),
            "tas": (290.0, temperature | {"long_name": "Near-Surface Air Temperature"}),
            "tasmax": (295.0, temperature | {"long_name": "Daily Maximum Near-Surface Air "
                                                          "Temperature"}),
            "tasmin": (285.0, temperature | {"long_name": "Daily Minimum Near-Surface Air "
                                                          "Temperature"}),
            "hurs": (70.0, {"standard_name": "relative_humidity", "units": "%"}),
            "huss": (0.01, {"standard_name": "specific_humidity", "units": "kg kg-1"}),
            "rsds": (200.0, {"standard_name": "surface_downwelling_shortwave_flux_in_air",
                             "units": "W m-2"}),
            "sfcwind": (3.0, {"standard_name": "wind_speed", "units": "m s-1"}),
            "ps": (1e5, {"standard_name": "surface_air_pressure", "units": "Pa"}),
        },
        calendar="proleptic_gregorian",
    )  # fmt: skip
    check(
        ds,
        schema,
        {
            "precipitation": (("pr",), 2.592),
            "temperature_max": (("tasmax",), 21.85),
            "temperature_min": (("tasmin",), 11.85),
            "temperature_mean": (("tas",), 16.85),
            "wind_speed": (("sfcwind",), 3.0),
        },
    )


def test_smap_l4(schema):
    ds = grid(
        {
            "precipitation_total_surface_flux": (2.3148e-5, {"units": "kg m-2 s-1"}),
            "temp_lowatmmodlay": (288.0, {"units": "K"}),
            "specific_humidity_lowatmmodlay": (0.008, {"units": "kg kg-1"}),
            "surface_pressure": (1e5, {"units": "Pa"}),
            "radiation_shortwave_downward_flux": (200.0, {"units": "W m-2"}),
            "windspeed_lowatmmodlay": (3.0, {"units": "m s-1"}),
            "sm_surface": (0.25, {"units": "m3 m-3"}),
        }
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("precipitation_total_surface_flux",), 2.0),
            "temperature_mean": (("temp_lowatmmodlay",), 14.85),
            "shortwave_down": (("radiation_shortwave_downward_flux",), 200.0),
            "wind_speed": (("windspeed_lowatmmodlay",), 3.0),
        },
    )
    assert float(binding.observed("soil_moisture").mean()) == pytest.approx(0.25)


ERA5 = {
    "tp": (0.002, {"long_name": "Total precipitation", "units": "m"}),
    "t2m": (288.0, {"long_name": "2 metre temperature", "units": "K"}),
    "d2m": (283.0, {"long_name": "2 metre dewpoint temperature", "units": "K"}),
    "sp": (1e5, {"standard_name": "surface_air_pressure", "units": "Pa"}),
    "u10": (3.0, {"units": "m s**-1"}),
    "v10": (4.0, {"units": "m s**-1"}),
    "ssrd": (1.728e7, {"standard_name": "surface_downwelling_shortwave_flux_in_air",
                       "units": "J m**-2"}),
    "strd": (2.592e7, {"units": "J m**-2"}),
    "pev": (-0.003, {"units": "m"}),
}  # fmt: skip


def test_era5_accumulations_are_refused_until_they_say_that_they_are_daily_sums(schema):
    ds = grid(ERA5)
    with pytest.raises(BindingErrors) as caught:
        bind(ds, schema)
    assert [type(problem) for problem in caught.value.problems] == [UnitsError] * 3
    assert {problem.variable for problem in caught.value.problems} == {"tp", "ssrd", "strd"}

    for name in ("tp", "ssrd", "strd"):
        ds[name].attrs["cell_methods"] = "time: sum"
    check(
        ds,
        schema,
        {
            "precipitation": (("tp",), 2.0),
            "temperature_mean": (("t2m",), 14.85),
            "relative_humidity": (("d2m", "t2m"), 71.98),
            "shortwave_down": (("ssrd",), 200.0),
            "longwave_down": (("strd",), 300.0),
            "wind_speed": (("u10", "v10"), 5.0),
            "potential_evapotranspiration": (("t2m",), None),
        },
    )


def test_nldas_2_daily_means(schema):
    ds = grid(
        {
            "Rainf": (2.0, {"units": "kg m-2 d-1"}),
            "Tair": (288.0, {"units": "K"}),
            "Qair": (0.008, {"units": "kg kg-1"}),
            "PSurf": (1e5, {"units": "Pa"}),
            "SWdown": (200.0, {"units": "W m-2"}),
            "LWdown": (300.0, {"units": "W m-2"}),
            "Wind_E": (3.0, {"units": "m s-1"}),
            "Wind_N": (4.0, {"units": "m s-1"}),
        }
    )
    check(
        ds,
        schema,
        {
            "precipitation": (("Rainf",), 2.0),
            "relative_humidity": (("Qair", "Tair", "PSurf"), 75.78),
            "wind_speed": (("Wind_E", "Wind_N"), 5.0),
        },
    )


def test_gldas_2_daily(schema):
    ds = grid(
        {
            "Rainf_f_tavg": (2.3148e-5, {"units": "kg m-2 s-1"}),
            "Rainf_tavg": (1e-5, {"units": "kg m-2 s-1"}),
            "Tair_f_tavg": (288.0, {"units": "K"}),
            "Wind_f_tavg": (4.0, {"units": "m s-1"}),
        }
    )
    assert "Rainf_tavg" in plan(ds, schema).table.unused
    check(ds, schema, {"precipitation": (("Rainf_f_tavg",), 2.0)})


def test_era5_long_names(schema):
    """As in the analysis-ready stores of ERA5."""
    ds = grid(
        {
            "total_precipitation": (0.002, {"units": "m", "cell_methods": "time: sum"}),
            "2m_temperature": (288.0, {"units": "K"}),
            "2m_dewpoint_temperature": (283.0, {"units": "K"}),
            "10m_u_component_of_wind": (3.0, {"units": "m s**-1"}),
            "10m_v_component_of_wind": (4.0, {"units": "m s**-1"}),
            "surface_pressure": (1e5, {"units": "Pa"}),
        }
    )
    check(
        ds,
        schema,
        {
            "precipitation": (("total_precipitation",), 2.0),
            "temperature_mean": (("2m_temperature",), 14.85),
            "relative_humidity": (("2m_dewpoint_temperature", "2m_temperature"), 71.98),
            "wind_speed": (("10m_u_component_of_wind", "10m_v_component_of_wind"), 5.0),
        },
    )


def test_smap_l3_beside_weather_is_the_observation(schema):
    ds = grid(
        {
            "pr": (2.0, {"units": "mm d-1"}),
            "tas": (288.0, {"units": "K"}),
            "soil_moisture": (0.3, {"units": "cm3/cm3", "long_name": "Representative DCA soil "
                                    "moisture measurement for the Earth based grid cell."}),
        }
    )  # fmt: skip
    binding = check(ds, schema, {"precipitation": (("pr",), 2.0)})
    assert float(binding.observed("soil_moisture").mean()) == pytest.approx(0.3)


WEATHER = {"prcp": (2.0, {"units": "mm d-1"}), "tmean": (10.0, {"units": "degC"})}


def statics(binding):
    """Return {token: (variable, value)} of all attributes."""
    return {
        token: (binding.table[token].variables, pytest.approx(float(values[0]), rel=1e-4))
        for token, values in binding.static.items()
    }


def test_attributes_of_camels_us_have_its_units_in_any_file(schema):
    """As neuralhydrology's generic files and tables of attributes have them: without units."""
    values = {
        "elev_mean": 500.0, "slope_mean": 20.0, "area_gages2": 300.0, "sand_frac": 40.0,
        "silt_frac": 35.0, "clay_frac": 20.0, "organic_frac": 1.0, "water_frac": 2.0,
        "frac_forest": 0.5, "gvf_max": 0.8, "gvf_diff": 0.3, "soil_depth_statsgo": 1.2,
        "soil_depth_pelletier": 5.0, "soil_porosity": 0.45, "soil_conductivity": 2.0,
        "max_water_content": 0.5, "carbonate_rocks_frac": 0.1, "geol_porostiy": 0.12,
        "root_depth_50": 0.2, "p_mean": 3.0, "pet_mean": 2.5, "frac_snow": 0.2,
        "high_prec_freq": 20.0, "high_prec_dur": 1.3, "low_prec_freq": 200.0, "low_prec_dur": 3.5,
    }  # fmt: skip
    columns = {"prcp(mm/day)": (2.0, {}), "tmax(C)": (20.0, {}), "tmin(C)": (10.0, {})}
    ds = basins(columns, {name: (value, {}) for name, value in values.items()})
    made = plan(ds, schema)
    assert not made.problems + made.doubts
    found = statics(check(ds, schema, {"precipitation": (("prcp(mm/day)",), 2.0)}))
    used = {names[0]: value for names, value in found.values()}
    assert used == {**values, "slope_mean": 0.02, "frac_forest": 0.5, "water_frac": 0.02}


def test_what_the_sources_have_in_other_units_is_told_by_their_other_names(schema):
    names = {"slope_mean": (20.0, {}), "high_prec_freq": (0.05, {})}
    alone = plan(basins(WEATHER, names), schema)
    assert {doubt.variable for doubt in alone.doubts} == {"slope_mean", "high_prec_freq"}

    swiss = bind(basins(WEATHER, names | {"steep_area_perc": (30.0, {})}), schema)
    assert swiss.table["slope"].rule == "derived: tangent of the angle"
    assert float(swiss.static["slope"][0]) == pytest.approx(np.tan(np.deg2rad(20.0)))
    caravan = bind(basins(WEATHER, names | {"moisture_index_FAO_PM": (0.1, {})}), schema)
    assert float(caravan.static["high_precip_freq"][0]) == pytest.approx(0.05 * 365.25, rel=1e-3)

    both = {"moisture_index_FAO_PM": (0.1, {}), "area_gages2": (300.0, {})}
    mixed = plan(basins(WEATHER, {"high_prec_freq": (0.05, {})} | both), schema)
    assert [doubt.variable for doubt in mixed.doubts] == ["high_prec_freq"]


@pytest.mark.parametrize(
    ("units", "value"), [("degree", np.tan(np.deg2rad(10.0))), ("m km-1", 0.01), ("%", 0.1)]
)
def test_a_slope_is_an_angle_if_its_units_are(schema, units, value):
    binding = bind(basins(WEATHER, {"slope": (10.0, {"units": units})}), schema)
    assert float(binding.static["slope"][0]) == pytest.approx(value)
    assert binding.table["slope"].variables == ("slope",)


def test_twins_of_hydroatlas_come_after_the_attributes_of_the_source(schema):
    names = {
        "elev_mean": (500.0, {}), "ele_mt_sav": (480.0, {}), "slope_mean": (20.0, {}),
        "slp_dg_sav": (11.0, {}), "sand_frac": (40.0, {}), "snd_pc_sav": (30.0, {}),
        "area_gages2": (300.0, {}),
    }  # fmt: skip
    ds = basins(
        WEATHER | {"pet": (1.0, {"units": "mm d-1"}), "pet_gleam": (2.0, {"units": "mm d-1"})},
        names,
    )
    expected = {"elevation": "elev_mean", "slope": "slope_mean", "sand": "sand_frac",
                "potential_evapotranspiration": "pet"}  # fmt: skip
    table = bind(ds, schema).table
    assert {token: table[token].variables for token in expected} == {
        token: (name,) for token, name in expected.items()
    }
    table = bind(ds.drop_vars(list(expected.values())), schema).table
    assert table["sand"].variables == ("snd_pc_sav",)
    assert table["potential_evapotranspiration"].variables == ("pet_gleam",)


def test_a_column_may_hold_its_units(schema):
    """As in CAMELS-CH and CAMELS-IND."""
    ds = basins(
        {
            "precipitation(mm/d)": (2.0, {}),
            "temperature_mean(°C)": (10.0, {}),
            "rel_hum(%)": (70.0, {}),
            "discharge_spec(mm/d)": (1.0, {}),
            "wind(2m)": (3.0, {}),
        }
    )
    binding = check(
        ds,
        schema,
        {
            "precipitation": (("precipitation(mm/d)",), 2.0),
            "temperature_mean": (("temperature_mean(°C)",), 10.0),
            "relative_humidity": (("rel_hum(%)",), 70.0),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0


def test_camels_de_and_fr_tables_say_no_units(schema):
    german = {
        "precipitation_mean": 2.0, "temperature_mean": 10.0, "temperature_min": 5.0,
        "temperature_max": 15.0, "humidity_mean": 70.0, "radiation_global_mean": 120.0,
        "discharge_spec_obs": 1.0,
    }  # fmt: skip
    binding = check(
        basins({name: (value, {}) for name, value in german.items()}),
        schema,
        {
            "precipitation": (("precipitation_mean",), 2.0),
            "shortwave_down": (("radiation_global_mean",), 120.0),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0
    french = {
        "tsd_prec": 2.0, "tsd_temp": 10.0, "tsd_temp_min": 5.0, "tsd_temp_max": 15.0,
        "tsd_pet_ou": 1.0, "tsd_pet_pe": 2.0, "tsd_rad_ssi": 1036.8, "tsd_humid": 6.0,
        "tsd_wind": 3.0, "tsd_q_mm": 1.0,
    }  # fmt: skip
    attributes = {"top_altitude_mean": (500.0, {}), "top_slo_mean": (10.0, {}),
                  "sta_area_snap": (300.0, {}), "cli_prec_freq_high": (20.0, {})}  # fmt: skip
    binding = check(
        basins({name: (value, {}) for name, value in french.items()}, attributes),
        schema,
        {
            "precipitation": (("tsd_prec",), 2.0),
            "potential_evapotranspiration": (("tsd_pet_ou",), 1.0),
            "shortwave_down": (("tsd_rad_ssi",), 120.0),
            "relative_humidity": (("tsd_humid", "tsd_temp", "top_altitude_mean"), None),
            "slope": (("top_slo_mean",), np.tan(np.deg2rad(10.0))),
            "high_precip_freq": (("cli_prec_freq_high",), 20.0),
        },
    )
    assert float(binding.observed("streamflow").mean()) == 1.0


def test_evaporation_as_from_open_water_is_no_potential_evapotranspiration(schema):
    """Of Caravan before 1.5, whose names 1.5 gave up; or told by a file's own words."""
    ds = basins(
        {
            "total_precipitation_sum": (2.0, {}),
            "temperature_2m_mean": (15.0, {}),
            "potential_evaporation_sum": (9.0, {}),
        },
        {"moisture_index": (0.1, {}), "pet_mean": (8.0, {}), "aridity": (4.0, {}),
         "p_mean": (2.0, {}), "frac_snow": (0.1, {})},
    )  # fmt: skip
    table = bind(ds, schema).table
    assert table["potential_evapotranspiration"].rule == "derived: Oudin et al. 2005"
    assert not table["pet_mean"].variables + table["aridity"].variables
    for name in ("potential_evaporation_sum", "pet_mean", "aridity"):
        assert "open water" in table.unused[name]
    words = {"units": "mm d-1", "comment": "ERA5-Land potential_evaporation_sum"}
    said = bind(basins(WEATHER | {"pet": (9.0, words)}), schema).table
    assert said["potential_evapotranspiration"].variables == ("tmean",)


def test_nldas_2_of_grib_files(schema):
    """As ncl and wgrib name them: with the level."""
    ds = grid(
        {
            "APCP_FORA": (2.0, {"units": "kg m-2", "cell_methods": "time: sum"}),
            "TMP_2_FORA": (288.0, {"units": "K"}),
            "SPFH_2_FORA": (0.008, {"units": "kg kg-1"}),
            "PRES_FORA": (1e5, {"units": "Pa"}),
            "DSWRF_FORA": (200.0, {"units": "W m-2"}),
            "DLWRF_FORA": (300.0, {"units": "W m-2"}),
            "UGRD_10_FORA": (3.0, {"units": "m s-1"}),
            "VGRD_10_FORA": (4.0, {"units": "m s-1"}),
        }
    )
    check(
        ds,
        schema,
        {
            "precipitation": (("APCP_FORA",), 2.0),
            "temperature_mean": (("TMP_2_FORA",), 14.85),
            "relative_humidity": (("SPFH_2_FORA", "TMP_2_FORA", "PRES_FORA"), 75.78),
            "shortwave_down": (("DSWRF_FORA",), 200.0),
            "wind_speed": (("UGRD_10_FORA", "VGRD_10_FORA"), 5.0),
        },
    )


def test_era5_land_of_earth_engine_without_units_as_xee_opens_it(schema):
    """The units are those of ECMWF/ERA5_LAND/DAILY_AGGR in the catalogue; Caravan has others."""
    ds = grid(
        {
            "total_precipitation_sum": (0.002, {}),
            "temperature_2m": (288.0, {}),
            "temperature_2m_max": (293.0, {}),
            "temperature_2m_min": (283.0, {}),
            "dewpoint_temperature_2m": (280.0, {}),
            "surface_solar_radiation_downwards_sum": (1.728e7, {}),
            "surface_thermal_radiation_downwards_sum": (2.592e7, {}),
            "u_component_of_wind_10m": (3.0, {}),
            "v_component_of_wind_10m": (4.0, {}),
            "surface_pressure": (98000.0, {}),
        }
    )
    expected = {
        "precipitation": (("total_precipitation_sum",), 2.0),
        "temperature_max": (("temperature_2m_max",), 19.85),
        "temperature_mean": (("temperature_2m",), 14.85),
        "shortwave_down": (("surface_solar_radiation_downwards_sum",), 200.0),
        "longwave_down": (("surface_thermal_radiation_downwards_sum",), 300.0),
        "wind_speed": (("u_component_of_wind_10m", "v_component_of_wind_10m"), 5.0),
        "surface_pressure": (("surface_pressure",), 980.0),
    }
    assert not check(ds, schema, expected).doubts
    # Without the name that only Earth Engine has, or beside Caravan's as well, the units are open.
    caravan = ds.assign(temperature_2m_mean=ds["temperature_2m"])
    for unclear in (ds.drop_vars("temperature_2m"), caravan):
        found = {problem.variable for problem in plan(unclear, schema).problems}
        assert found >= {"total_precipitation_sum", "temperature_2m_max", "temperature_2m_min"}


def test_era5_of_earth_engine(schema):
    ds = grid(
        {
            "total_precipitation": (0.002, {}),
            "mean_2m_air_temperature": (288.0, {}),
            "maximum_2m_air_temperature": (293.0, {}),
            "minimum_2m_air_temperature": (283.0, {}),
            "dewpoint_2m_temperature": (280.0, {}),
            "surface_pressure": (98000.0, {}),
        }
    )
    expected = {
        "precipitation": (("total_precipitation",), 2.0),
        "temperature_min": (("minimum_2m_air_temperature",), 9.85),
        "relative_humidity": (("dewpoint_2m_temperature", "mean_2m_air_temperature"), None),
        "surface_pressure": (("surface_pressure",), 980.0),
    }
    assert not check(ds, schema, expected).doubts


AQUAFETCH = {
    "pcp_mm": 2.0,
    "airtemp_C_max": 20.0,
    "airtemp_C_min": 10.0,
    "airtemp_C_mean": 15.0,
    "pet_mm": 3.0,
    "rh_%": 70.0,
    "swdownrad_wm2": 200.0,
    "lwdownrad_wm2": 300.0,
    "windspeed_mps": 5.0,
    "q_mm_obs": 1.5,
}


def test_aquafetch(schema):
    statics = {
        "area_km2": (100.0, {}), "slope_mkm-1": (50.0, {}), "elev_catch_m": (300.0, {}),
        "pop_density_km2": (20.0, {}),
    }  # fmt: skip
    ds = basins({name: (value, {}) for name, value in AQUAFETCH.items()}, statics)
    ds = ds.drop_vars("lat").assign_coords(lat=("basin", [40.0, 41]), long=("basin", [8.0, 9]))
    expected = {
        "precipitation": (("pcp_mm",), 2.0),
        "temperature_max": (("airtemp_C_max",), 20.0),
        "temperature_mean": (("airtemp_C_mean",), 15.0),
        "relative_humidity": (("rh_%",), 70.0),
        "potential_evapotranspiration": (("pet_mm",), 3.0),
        "shortwave_down": (("swdownrad_wm2",), 200.0),
        "longwave_down": (("lwdownrad_wm2",), 300.0),
        "wind_speed": (("windspeed_mps",), 5.0),
        "catchment_area": (("area_km2",), 100.0),
        "slope": (("slope_mkm-1",), 0.05),
        "elevation": (("elev_catch_m",), 300.0),
    }
    binding = check(ds, schema, expected)
    assert not binding.doubts
    np.testing.assert_allclose(binding.observed("streamflow"), 1.5)
    per_second = ds.drop_vars("q_mm_obs").assign(q_cms_obs=(("basin", "time"), np.ones((2, DAYS))))
    np.testing.assert_allclose(bind(per_second, schema).observed("streamflow"), 0.864, rtol=1e-6)
    angle = ds.rename({"slope_mkm-1": "slope_degrees"}) * 0.1
    assert bind(angle, schema).table["slope"].rule.startswith("derived")


def test_aquafetch_has_stations_as_variables(schema, follow):
    """`fetch(as_dataframe=False)`: stations are variables, quantities lie along a dimension."""
    table = np.broadcast_to(list(AQUAFETCH.values()), (DAYS, len(AQUAFETCH)))
    ds = xr.Dataset(
        {gauge: (("time", "dynamic_features"), table) for gauge in ("01013500", "01022500")},
        {"time": pd.date_range("2001-01-01", periods=DAYS), "dynamic_features": list(AQUAFETCH)},
    )
    (problem,) = plan(ds, schema).problems
    assert problem.variable == "dynamic_features"
    found = follow(problem, ds)
    assert bind(found, schema).forcing["precipitation"].dims == ("site", "time")
    assert found["site"].values.tolist() == ["01013500", "01022500"]


def test_hydrodataset(schema):
    """Its standard names, with the spellings of units that its readers write."""
    ds = basins(
        {
            "precipitation": (2.0, {"units": "mm/day"}),
            "temperature_max": (20.0, {"units": "°C"}),
            "temperature_min": (10.0, {"units": "°C"}),
            "temperature_mean": (15.0, {"units": "°C"}),
            "potential_evapotranspiration": (3.0, {"units": "mm/day"}),
            "solar_radiation": (200.0, {"units": "W/m^2"}),
            "surface_pressure": (98000.0, {"units": "Pa"}),
            "streamflow": (1.157407, {"units": "m^3/s"}),
        },
        {"area": (100.0, {"units": "km^2"}), "p_mean": (3.0, {"units": "mm/day"})},
    )
    expected = {
        "precipitation": (("precipitation",), 2.0),
        "temperature_max": (("temperature_max",), 20.0),
        "potential_evapotranspiration": (("potential_evapotranspiration",), 3.0),
        "surface_pressure": (("surface_pressure",), 980.0),
        "catchment_area": (("area",), 100.0),
    }
    binding = check(ds, schema, expected)
    np.testing.assert_allclose(binding.observed("streamflow"), 1.0, rtol=1e-5)
    # Net in some of its data sets, a mean over daylight in others; CAMELS-GB's humidity is in g/kg.
    assert binding.table.unused["solar_radiation"] == "no token"
    assert not binding.doubts
    humid = ds.assign(relative_humidity=ds["precipitation"].assign_attrs(units="g/kg") * 4)
    humid["relative_humidity"].attrs["units"] = "g/kg"
    with pytest.raises(RangeError, match="do not fit relative_humidity in g/kg"):
        bind(humid, schema).check_ranges()


@pytest.fixture
def wrf():
    """A day and an hour of hourly `wrfout`, as xarray opens it."""
    hours = np.arange(25, dtype=np.float32)[:, None, None]
    times = pd.date_range("2005-08-28", periods=25, freq="h")
    dims, shape = ("Time", "south_north", "west_east"), (25, 2, 3)
    values = {
        "T2": (288 + 5 * np.sin(hours / 24 * 2 * np.pi), "K"), "Q2": (0.008, "kg kg-1"),
        "PSFC": (98000, "Pa"), "U10": (3, "m s-1"), "V10": (4, "m s-1"), "GLW": (300, "W m-2"),
        "SWDOWN": (np.maximum(0, 500 * np.sin(hours / 24 * 2 * np.pi)), "W m-2"),
        "RAINC": (hours * 0.1, "mm"), "RAINNC": (hours * 0.3, "mm"), "HGT": (150, "m"),
    }  # fmt: skip

    def field(value, units):
        return dims, np.broadcast_to(np.float32(value), shape).copy(), {"units": units}

    places = {
        "XLAT": ([[40.0], [40.3]], "degree_north"),
        "XLONG": ([-90, -89.7, -89], "degree_east"),
    }
    return xr.Dataset(
        {name: field(*each) for name, each in values.items()}
        | {"Times": ("Time", np.array(times.strftime("%Y-%m-%d_%H:%M:%S"), dtype="S19"))},
        {name: field(*each) for name, each in places.items()} | {"XTIME": ("Time", times)},
    )


def test_wrf_adds_up_its_rain_from_the_start_and_is_not_guessed(wrf, schema, follow):
    with pytest.raises(LayoutError) as caught:
        wrf.stefa.daily()
    ds = follow(caught.value, wrf)
    (_, problem) = plan(ds, schema).problems
    assert "RAINC and RAINNC: part of the rain since a run of WRF began" in problem.found
    with pytest.raises(BindingErrors) as caught:
        bind(ds, schema)
    # First the rain: days are made of what is known by then.
    assert "RAINC" in str(caught.value.problems[0])
    assert isinstance(caught.value.problems[1], CalendarError)
    recipe = problem.found.split("began: ")[1]
    names = {"ds": ds}
    exec(recipe, names)
    days = names["ds"]
    binding = bind(days, schema)
    np.testing.assert_allclose(binding.forcing["precipitation"], 24 * 0.4, rtol=1e-5)
    np.testing.assert_allclose(binding.forcing["wind_speed"], 5.0)
    np.testing.assert_allclose(binding.forcing["surface_pressure"], 980.0, rtol=1e-5)
    np.testing.assert_allclose(binding.forcing["temperature_max"], 19.85, rtol=1e-4)
    np.testing.assert_allclose(binding.forcing["shortwave_down"], 158, rtol=0.01)
    assert binding.layout.support == "grid"
    # Latitude is repeated at each time, and needed for evapotranspiration.
    assert days["XLAT"].dims == ("south_north", "west_east")
    assert "potential_evapotranspiration" in binding.forcing
    assert "mixing ratio" in plan(ds, schema).table.unused["Q2"]


def test_wrf_whose_dates_are_text(wrf, follow):
    ds = wrf.drop_vars("XTIME")
    with pytest.raises(LayoutError, match="as WRF writes it") as caught:
        ds.stefa.daily()
    assert follow(caught.value, ds).stefa.daily()["T2"].sizes["Time"] == 1


def test_a_nest_of_wrf_that_moves_keeps_no_place(wrf):
    ds = wrf.swap_dims(Time="XTIME")
    ds["XLAT"] = ds["XLAT"] + xr.DataArray(np.arange(25.0), dims="XTIME")
    assert "XLAT" not in ds.stefa.daily().coords
