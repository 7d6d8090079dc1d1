"""The bundled samples: what they promise, and that the build script still makes them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xstefa.datasets import SAMPLES, US_OUTLINE, WORLD_OUTLINE, open_sample
from xstefa.errors import OptionError, XstefaError
from xstefa.splits.holdout import held_out

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared"


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_carries_licence_attribution_and_units(name: str) -> None:
    ds = open_sample(name)
    assert ds.attrs["Conventions"].startswith("CF-")
    assert ds.attrs["license"].startswith(("CC-BY-4.0", "CC0-1.0"))
    assert "doi" in ds.attrs["references"]
    for variable in ds.data_vars.values():
        assert "long_name" in variable.attrs
        has_units = "units" in variable.attrs or "flag_values" in variable.attrs
        assert has_units or variable.dtype.kind not in "f"


@pytest.mark.parametrize("name", SAMPLES)
def test_no_attribute_computed_from_the_target(name: str) -> None:
    groups = {v.attrs.get("attribute_group") for v in open_sample(name).data_vars.values()}
    assert "hydrology" not in groups


def test_all_samples_together_stay_small() -> None:
    files = [p for p in US_OUTLINE.parent.iterdir() if p.suffix in {".nc", ".geojson"}]
    assert {p.stem for p in files} == {*SAMPLES, "us_outline", "world_outline"}
    assert sum(p.stat().st_size for p in files) < 8e6


@pytest.mark.parametrize(
    ("name", "ids", "at_least"), [("camels_us", "basin", 5), ("fluxnet", "station_id", 3)]
)
def test_held_out_is_the_release_split(name: str, ids: str, at_least: int) -> None:
    ds = open_sample(name)
    assert ds["held_out"].dtype == bool
    np.testing.assert_array_equal(ds["held_out"], held_out(str(i) for i in ds[ids].values))
    assert ds["held_out"].sum() >= at_least


def test_basins_have_complete_records() -> None:
    ds = open_sample("camels_us")
    needed = ["prcp", "tmax", "tmin", "srad", "vp", "dayl", "streamflow"]
    assert all(ds[name].notnull().all() for name in needed)


def test_towers_have_soil_moisture() -> None:
    swc = open_sample("fluxnet")["swc"].isel(swc_layer=0)
    assert (swc.notnull().sum("time") > 700).all()


def test_grid_is_contiguous_georeferenced_and_labelled() -> None:
    ds = open_sample("conus_grid")
    assert ds["prcp"].dims == ("time", "lat", "lon")
    assert np.unique(np.diff(ds["lat"])).tolist() == [1.0]
    assert np.unique(np.diff(ds["lon"])).tolist() == [1.0]
    assert ds.rio.crs.to_epsg() == 4326 if hasattr(ds, "rio") else "crs" in ds.coords
    assert "crs" in ds["prcp"].coords
    assert "Interpolated" in ds.attrs["title"]
    assert "Inverse-distance" in ds.attrs["comment"]


def test_grid_has_every_value_on_land_and_none_elsewhere() -> None:
    ds = open_sample("conus_grid")
    land = ds["gauge_distance"].notnull()
    assert 750 < int(land.sum()) < 900
    for variable in ds.data_vars.values():
        assert (variable.notnull() == land).all()
    # Lake Michigan, the Gulf, and Kansas.
    at = [land.sel(lat=y, lon=x).item() for y, x in [(43.5, -87.5), (26.5, -90.5), (38.5, -98.5)]]
    assert at == [False, False, True]


def test_landslides_and_their_terrain_have_the_same_attributes():
    points, terrain = open_sample("landslides"), open_sample("landslide_terrain")
    assert points["landslide"].values.sum() == 175
    for name, variable in terrain.data_vars.items():
        assert variable.dims == ("y", "x")
        assert variable.attrs["units"] == points[name].attrs["units"]
        assert variable.notnull().mean() > 0.99
    near = terrain["elev"].sel(x=points["point_x"], y=points["point_y"], method="nearest")
    assert float(abs(near - points["elev"]).max()) < 30


def test_opening_reads_nothing_and_chunks_follow_the_file() -> None:
    assert open_sample("conus_grid")["prcp"].variable._in_memory is False
    chunked = open_sample("conus_grid", chunks={})["prcp"]
    assert chunked.chunksizes["time"] == (1096,)
    assert len(chunked.chunksizes["lat"]) == 2


def test_unknown_sample_names_the_known() -> None:
    with pytest.raises(OptionError, match=r"camels_us.*fluxnet.*conus_grid") as raised:
        open_sample("camels")
    assert isinstance(raised.value, XstefaError)


def test_outline_lies_in_the_conterminous_us() -> None:
    features = json.loads(US_OUTLINE.read_text())["features"]
    assert len(features) == 49
    points = np.concatenate(
        [line for f in features for line in f["geometry"]["coordinates"]], axis=0
    )
    assert (points.min(axis=0) > [-125, 24]).all()
    assert (points.max(axis=0) < [-66, 50]).all()


@pytest.mark.skipif(
    not (SHARED / "data" / "camels_us.nc").exists(), reason="source data are not on this machine"
)
def test_build_script_makes_the_bundled_values(tmp_path: Path) -> None:
    script = REPOSITORY / "ci" / "build_sample.py"
    subprocess.run([sys.executable, script, SHARED / "data", "--out", tmp_path], check=True)
    for name in SAMPLES:
        built = xr.open_dataset(tmp_path / f"{name}.nc", decode_coords="all")
        xr.testing.assert_identical(built.load(), open_sample(name).load())
    for outline in (US_OUTLINE, WORLD_OUTLINE):
        assert (tmp_path / outline.name).read_bytes() == outline.read_bytes()
