"""The main job with the released weights on the bundled real data."""

from __future__ import annotations

import re
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.cli import main
from xstefa.evaluation import metrics

SHARED = Path(__file__).parents[1].parent / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the developers' data folder ../shared is absent"
)


def held_out(dataset: xr.Dataset) -> xr.Dataset:
    (dim,) = dataset.held_out.dims
    return dataset.isel({dim: np.flatnonzero(dataset.held_out.values)})


@pytest.fixture(scope="module")
def basins() -> xr.Dataset:
    return held_out(xstefa.open_sample("camels_us", chunks={}))


@pytest.fixture(scope="module")
def streamflow(basins: xr.Dataset) -> xr.DataArray:
    return basins.stefa.predict("streamflow").compute()


def test_streamflow_at_basins_never_seen(basins: xr.Dataset, streamflow: xr.DataArray) -> None:
    assert streamflow.dims == ("basin", "time")
    assert streamflow.attrs["units"] == "mm d-1"
    # It looks back only: no answer before half of its first year is known.
    assert streamflow[:, :182].isnull().all()
    assert (streamflow[:, 182:] >= 0).all()
    # A floor, not the claim: the claim and its interval are in the model card.
    assert metrics.nse(streamflow, basins.streamflow.compute()).median() > 0.5


def test_more_tokens_make_no_prediction_worse(basins: xr.Dataset, streamflow: xr.DataArray) -> None:
    """Median over basins; `examples/robustness.py` has the table over all validation sources."""
    part = basins.isel(time=slice(0, 1461))
    attributes = [name for name, array in part.data_vars.items() if "time" not in array.dims]
    least, some, all_ = (
        float(metrics.nse(predicted.compute(), part.streamflow.compute()).median())
        for predicted in (
            part[["prcp", "tmax", "tmin"]].stefa.predict("streamflow"),
            part.drop_vars(attributes).stefa.predict("streamflow"),
            streamflow.isel(time=slice(0, 1461)),
        )
    )
    assert least - 0.005 < some < all_ + 0.005


@pytest.mark.parametrize("chunks", [None, {"time": 300}])
@pytest.mark.parametrize("name", ["streamflow", "water-balance"])
def test_no_day_depends_on_a_later_one(name: str, chunks: dict[str, int] | None) -> None:
    known = held_out(xstefa.open_sample("camels_us")).isel(time=slice(800)).load()
    other = known.copy(deep=True)
    other["prcp"][{"time": 700}] += 120.0
    cut = known.isel(time=slice(700))
    model = xstefa.load_model(name)
    expected, changed, ended = (
        (ds if chunks is None else ds.chunk(chunks)).stefa.predict(model).values
        for ds in (known, other, cut)
    )
    assert np.isfinite(expected[:, 650:]).any()
    np.testing.assert_allclose(changed[:, :700], expected[:, :700], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ended, expected[:, :700], rtol=1e-5, atol=1e-5)
    assert np.nanmax(abs(changed[:, 700:] - expected[:, 700:])) > 1e-3


def test_soil_moisture_at_towers_never_seen() -> None:
    towers = held_out(xstefa.open_sample("fluxnet", chunks={}))
    moisture = towers.stefa.predict("soil_moisture").compute()
    assert moisture.dims == ("station", "time")
    assert moisture.attrs["standard_name"] == "volume_fraction_of_condensed_water_in_soil"
    # A tower has no answer before its first year of weather.
    assert moisture.notnull().any("time").all()
    assert ((moisture > 0) & (moisture < 1) | moisture.isnull()).all()
    observed = towers.swc.isel(swc_layer=0, drop=True).compute()
    assert metrics.correlation(moisture, observed).median() > 0.4


def test_soil_moisture_map_is_lazy_and_keeps_the_grid() -> None:
    grid = xstefa.open_sample("conus_grid", chunks={})
    moisture = grid.stefa.predict("soil_moisture")
    assert isinstance(moisture.data, da.Array)
    assert moisture.dims == ("time", "lat", "lon")
    assert moisture.rio.crs.to_epsg() == 4326
    corner = moisture.isel(lat=slice(12, 15), lon=slice(20, 24), time=slice(400, 410)).compute()
    assert ((corner > 0) & (corner < 1)).all()
    xr.testing.assert_identical(corner.lat, grid.lat.isel(lat=slice(12, 15)))


def test_grid_and_point_models_are_told_apart() -> None:
    grid = xstefa.open_sample("conus_grid", chunks={}).stefa.predict("soil_moisture")
    point = xstefa.open_sample("fluxnet", chunks={}).stefa.predict("soil_moisture")
    assert grid.attrs["model_name"] != point.attrs["model_name"]


@pytest.mark.parametrize("name", xstefa.list_models())
def test_card_beside_the_weights_is_the_one_inside(name: str) -> None:
    model = xstefa.load_model(name)
    assert model.card == model.path.with_suffix(".md").read_text()
    # Probes were put to the models when they had been released.
    within = re.sub(r"## Probes\n.*?\n(?=## )", "", model.card, flags=re.DOTALL)
    assert within == model.spec.card
    assert ("## Probes" in model.card) == (model.target is not None and not model.target.static)
    assert model.name == name


def test_bundled_weights_and_samples_stay_small() -> None:
    package = Path(xstefa.__file__).parent
    files = [*(package / "weights").iterdir(), *(package / "datasets").iterdir()]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 30e6


@needs_shared
@pytest.mark.parametrize(
    ("file", "target", "sites"),
    [
        ("camels_us.nc", "streamflow", {"basin": slice(0, 3)}),
        ("conus_smap_nldas.nc", "soil_moisture", {"lat": slice(6, 8), "lon": slice(10, 13)}),
        ("fluxnet_daily.nc", "soil_moisture", {"station": slice(0, 3)}),
    ],
)
def test_source_files_need_no_arguments(file: str, target: str, sites: dict[str, slice]) -> None:
    with xr.open_dataset(SHARED / "data" / file, chunks={}) as dataset:
        prediction = dataset.isel(sites).stefa.predict(target)
        assert np.isfinite(prediction.isel(time=slice(-400, None)).compute()).any()


def test_command_line_shows_tokens(tmp_path: Path) -> None:
    file = tmp_path / "basins.nc"
    xstefa.open_sample("camels_us").isel(basin=slice(0, 2), time=slice(0, 30)).to_netcdf(file)
    result = CliRunner().invoke(main, ["tokens", str(file)])
    assert result.exit_code == 0, result.output
    assert "precipitation" in result.output
    assert "prcp" in result.output


def test_command_line_lists_models() -> None:
    result = CliRunner().invoke(main, ["models"])
    assert result.exit_code == 0
    assert all(name in result.output for name in xstefa.list_models())


def test_where_the_water_is() -> None:
    """Precipitation is what flows off, evaporates and is stored, on each day at each basin."""
    names = ["streamflow", "evapotranspiration", "snow_water_equivalent", "soil_water_storage",
             "groundwater_storage"]  # fmt: skip
    ds = xstefa.open_sample("camels_us").isel(basin=slice(3), time=slice(1095))
    water = ds.stefa.predict(names)
    assert list(water) == names
    flow, evaporated, *stores = (water[name] for name in names)
    stored = sum(stores).diff("time")
    left = ds["prcp"].transpose(*flow.dims) - flow - evaporated - stored
    assert left.notnull().sum() > 2000
    assert abs(left).max() < 1e-3
    assert water.snow_water_equivalent.max() > 1
    # A target by itself, and the pass of several, are the same numbers.
    xr.testing.assert_equal(ds.stefa.predict(names[1]), evaporated)
