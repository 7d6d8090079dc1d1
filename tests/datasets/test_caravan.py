"""The official files of Caravan, written from the bundled sample and read back."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xstefa
from xstefa.binding import bind
from xstefa.datasets.caravan import CaravanBackend
from xstefa.errors import LayoutError, OptionError

DAYS = 40


@pytest.fixture(scope="module")
def sample():
    return xstefa.open_sample("camels_us").isel(basin=slice(0, 4), time=slice(0, DAYS)).load()


def gauge_name(number, basin):
    return f"{'camels' if number < 2 else 'hysets'}_{basin}"


def tables(sample):
    """Series of each gauge under Caravan's names; the last gauge begins later."""
    for number, basin in enumerate(sample["basin"].values):
        one = sample.sel(basin=basin).isel(time=slice(3 if number == 3 else 0, None))
        mean = (one["tmax"] + one["tmin"]) / 2
        frame = pd.DataFrame(
            {
                "dewpoint_temperature_2m_mean": mean - 5,
                "surface_net_solar_radiation_mean": one["srad"] / 2,
                "surface_pressure_mean": 0 * mean + 95.0,
                "temperature_2m_max": one["tmax"],
                "temperature_2m_mean": mean,
                "temperature_2m_min": one["tmin"],
                "u_component_of_wind_10m_mean": 0 * mean + 3.0,
                "v_component_of_wind_10m_mean": 0 * mean + 4.0,
                "total_precipitation_sum": one["prcp"],
                "potential_evaporation_sum_ERA5_LAND": one["pet"] * 2,
                "potential_evaporation_sum_FAO_PENMAN_MONTEITH": one["pet"],
                "streamflow": one["streamflow"],
            },
            index=pd.DatetimeIndex(one["time"].values, name="date"),
        ).astype(np.float32)
        yield gauge_name(number, basin), frame


@pytest.fixture(scope="module", params=["netcdf", "csv"])
def folder(request, tmp_path_factory, sample):
    root = tmp_path_factory.mktemp("caravan")
    for gauge, frame in tables(sample):
        subset = gauge.split("_")[0]
        place = root / "timeseries" / request.param / subset
        place.mkdir(parents=True, exist_ok=True)
        if request.param == "netcdf":
            xr.Dataset.from_dataframe(frame).to_netcdf(place / f"{gauge}.nc")
        else:
            frame.to_csv(place / f"{gauge}.csv")
    ids = [gauge_name(*pair) for pair in enumerate(sample["basin"].values)]
    for subset in ("camels", "hysets"):
        place = root / "attributes" / subset
        place.mkdir(parents=True)
        chosen = [i for i, gauge in enumerate(ids) if gauge.startswith(subset)]
        index = pd.Index([ids[i] for i in chosen], name="gauge_id")
        part = sample.isel(basin=chosen)
        pd.DataFrame(
            {"p_mean": part["p_mean"], "aridity": part["aridity"], "frac_snow": part["frac_snow"],
             "high_prec_freq": part["high_prec_freq"] / 365.25}, index=index,
        ).to_csv(place / f"attributes_caravan_{subset}.csv")  # fmt: skip
        pd.DataFrame(
            {"tmp_dc_syr": np.full(len(chosen), 123), "snd_pc_sav": 40, "lka_pc_sse": 15,
             "ele_mt_sav": part["elev_mean"], "gdp_ud_sav": 30000, "slp_dg_sav": 35},
            index=index,
        ).to_csv(place / f"attributes_hydroatlas_{subset}.csv")  # fmt: skip
        pd.DataFrame(
            {"gauge_lat": part["lat"], "gauge_lon": part["lon"], "gauge_name": part["gauge_name"],
             "country": "United States of America", "area": part["area_gages2"]}, index=index,
        ).to_csv(place / f"attributes_other_{subset}.csv")  # fmt: skip
    return root


def test_series_and_attributes_are_those_of_the_files(folder, sample):
    ds = xr.open_dataset(folder, engine=CaravanBackend)
    assert dict(ds.sizes) == {"gauge_id": 4, "date": DAYS}
    expected = sample["prcp"].values.copy()
    expected[3, :3] = np.nan
    np.testing.assert_allclose(ds["total_precipitation_sum"], expected, rtol=1e-5)
    np.testing.assert_allclose(ds["area"], sample["area_gages2"], rtol=1e-6)
    np.testing.assert_allclose(ds["lat"], sample["lat"])
    assert ds["gauge_name"].values.tolist() == sample["gauge_name"].values.tolist()
    assert ds["temperature_2m_max"].attrs["cell_methods"] == "area: mean time: maximum"
    assert ds["tmp_dc_syr"].attrs["units"] == "0.1 degC"
    assert ds["ele_mt_sav"].attrs["units"] == "m"
    assert ds["gauge_id"].attrs["cf_role"] == "timeseries_id"


def test_it_binds_without_rename(folder):
    binding = bind(xr.open_dataset(folder, engine=CaravanBackend), xstefa.load_schema())
    found = {row.token: row.variables for row in binding.table.rows if row.matched}
    assert found["precipitation"] == ("total_precipitation_sum",)
    assert found["temperature_max"] == ("temperature_2m_max",)
    assert found["potential_evapotranspiration"] == (
        "potential_evaporation_sum_FAO_PENMAN_MONTEITH",
    )
    assert found["wind_speed"] == ("u_component_of_wind_10m_mean", "v_component_of_wind_10m_mean")
    assert "shortwave_down" not in found  # net radiation is not downward radiation
    np.testing.assert_allclose(binding.static["t_mean"], 12.3, rtol=1e-6)
    np.testing.assert_allclose(binding.static["water_fraction"], 0.015, rtol=1e-6)
    np.testing.assert_allclose(binding.forcing["surface_pressure"][0], 950.0)
    assert {"gdp", "slope", "elevation", "catchment_area", "high_precip_freq"} <= set(found)
    assert binding.observed("streamflow") is not None
    binding.check_ranges()


def test_the_open_water_evaporation_of_versions_before_1_5_is_not_used(folder):
    ds = xr.open_dataset(folder, engine=CaravanBackend)
    older = ds.drop_vars("potential_evaporation_sum_FAO_PENMAN_MONTEITH").rename(
        potential_evaporation_sum_ERA5_LAND="potential_evaporation_sum"
    )
    table = bind(older.assign(pet_mean=2 * ds["p_mean"]), xstefa.load_schema()).table
    assert table["potential_evapotranspiration"].rule == "derived: Hargreaves-Samani 1985"
    assert not table["pet_mean"].matched
    assert not table["aridity"].matched
    assert "open water" in table.unused["potential_evaporation_sum"]


@pytest.mark.parametrize("kind", ["netcdf", "csv"])
def test_files_of_several_versions_lie_side_by_side(sample, kind, tmp_path):
    """Each series that any file has, missing where a file lacks it, or derived there."""
    older, newer = list(tables(sample))[1:3]
    older[1].pop("potential_evaporation_sum_FAO_PENMAN_MONTEITH")
    older[1]["water_level"] = np.float32(2.5)
    for gauge, frame in (older, newer):
        place = tmp_path / "timeseries" / kind / gauge.split("_")[0]
        place.mkdir(parents=True)
        if kind == "netcdf":
            xr.Dataset.from_dataframe(frame).to_netcdf(place / f"{gauge}.nc")
        else:
            frame.to_csv(place / f"{gauge}.csv")
    ds = xr.open_dataset(tmp_path, engine=CaravanBackend)
    np.testing.assert_array_equal(ds["water_level"], [[2.5] * DAYS, [np.nan] * DAYS])
    latitudes = sample["lat"].values[1:3]
    binding = bind(ds.assign_coords(lat=("gauge_id", latitudes)), xstefa.load_schema())
    found = binding.forcing["potential_evapotranspiration"]
    assert found.notnull().all()
    np.testing.assert_allclose(found[1], newer[1]["potential_evaporation_sum_FAO_PENMAN_MONTEITH"])


def test_subsets_and_gauges_can_be_chosen(folder, sample):
    whole = xr.open_dataset(folder, engine=CaravanBackend).load()
    for gauges, rows in (
        ("hysets", [2, 3]),
        (["hysets", gauge_name(0, sample["basin"].values[0])], [2, 3, 0]),
        ([gauge_name(1, sample["basin"].values[1])], [1]),
    ):
        part = xr.open_dataset(folder, engine=CaravanBackend, gauges=gauges).load()
        xr.testing.assert_identical(part, whole.isel(gauge_id=rows))
    with pytest.raises(OptionError, match="camels, hysets"):
        xr.open_dataset(folder, engine=CaravanBackend, gauges="lamah")


def test_chunks_are_files_and_reading_waits(folder, monkeypatch):
    monkeypatch.setattr("xstefa.datasets.series.SITES_A_CHUNK", 3)
    ds = xr.open_dataset(folder, engine=CaravanBackend, chunks={}, drop_variables="streamflow")
    assert ds.chunksizes["gauge_id"] == (3, 1)
    assert "streamflow" not in ds
    whole = xr.open_dataset(folder, engine=CaravanBackend)
    xr.testing.assert_identical(
        ds["temperature_2m_mean"].isel(date=slice(5, 9)).compute(),
        whole["temperature_2m_mean"].isel(date=slice(5, 9)).compute(),
    )


def test_guessing_and_other_folders(folder, tmp_path):
    assert CaravanBackend().guess_can_open(folder)
    assert not CaravanBackend().guess_can_open(tmp_path)
    assert not CaravanBackend().guess_can_open(None)
    with pytest.raises(LayoutError, match="timeseries/netcdf"):
        xr.open_dataset(tmp_path, engine=CaravanBackend)
