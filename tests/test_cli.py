"""The methods of the accessor as commands, on the bundled samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import xstefa
from xstefa.cli import main


def succeed(*words: object) -> str:
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object) -> str:
    """Return the message of a command that has to fail, and not by a traceback."""
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def basins() -> xr.Dataset:
    """Three basins, of which the second was held out, for two years."""
    ds = xstefa.open_sample("camels_us").isel(basin=slice(3)).sel(time=slice("1989", "1991-09"))
    return ds.load().drop_encoding()


@pytest.fixture
def file(basins, tmp_path):
    basins.to_netcdf(tmp_path / "in.nc")
    return tmp_path / "in.nc"


def test_fixes_are_typed_as_here(file, tmp_path):
    out = tmp_path / "out"
    assert "Fix: --target streamflow" in refused("calibrate", file, out)
    said = refused("calibrate", file, out, "--target", "streamflow")
    assert "Fix: select others, or --trained-on if it is" in said
    model = ("--target", "soil_moisture", "--model", "soil-moisture-point", "--interval", "0.9")
    said = refused("predict", file, tmp_path / "out.nc", *model)
    assert "Fix: xstefa calibrate IN OUT --model soil-moisture-point, of" in said


def test_tokens(file, basins, tmp_path):
    assert "Values: not read; --check reads a few days" in succeed("tokens", file)
    assert "Values: 16 of 730 days, 3 of 3 basin" in succeed("tokens", file, "--check")
    odd = basins.rename(prcp="wet").drop_vars("streamflow")
    odd["wet"].attrs = {"units": "mm day-1"}
    odd.to_netcdf(tmp_path / "odd.nc")
    found = succeed("tokens", tmp_path / "odd.nc")
    assert "Fix: --rename '<your variable>=precipitation'" in found
    renamed = succeed("tokens", tmp_path / "odd.nc", "--rename", "wet=precipitation", "--check")
    assert "Problems" not in renamed
    assert "precipitation" in renamed
    assert "no such schema" in refused("tokens", file, "--schema", "nothing").lower()


def test_predict_for_a_period(file, basins, tmp_path):
    words = ["--target", "streamflow", "--no-coverage", "--period", "1991-04", "1991-05"]
    succeed("predict", file, tmp_path / "out.nc", *words)
    with xr.open_dataset(tmp_path / "out.nc") as found:
        expected = basins.stefa.predict("streamflow", period=["1991-04", "1991-05"])
        assert found.sizes["time"] == 61
        np.testing.assert_array_equal(found["streamflow"], expected)


def test_warnings_are_lines(basins, tmp_path):
    shown = warnings.showwarning
    basins.isel(time=slice(300)).to_netcdf(tmp_path / "short.nc")
    words = [tmp_path / "short.nc", tmp_path / "out.nc", "--target", "streamflow"]
    lines = succeed("predict", *words).splitlines()
    (line,) = lines
    assert line.startswith("Warning: No answer on 182 of 300 days")
    assert "with --period 1989-10-01 1990-07-27" in line
    assert not any(".py" in line for line in lines)
    assert warnings.showwarning is shown


def test_evaluate(file, basins, tmp_path):
    said = succeed(
        "evaluate", file, tmp_path / "scores.nc", "--target", "streamflow",
        "--score", "nse", "--score", "kge",
    )  # fmt: skip
    expected = basins.stefa.evaluate("streamflow", scores=["nse", "kge"])
    with xr.open_dataset(tmp_path / "scores.nc") as found:
        np.testing.assert_allclose(found["nse"], expected["nse"], rtol=1e-5)
    warned, *table = said.splitlines()
    assert warned.startswith("Warning: No answer on 182 of 730 days")
    rows = [line.split() for line in table]
    assert rows[0] == ["sites", "25", "%", "median", "75", "%"]
    assert rows[1][:2] == ["nse", "3"]
    assert rows[1][3] == f"{float(expected['nse'].median()):.3f}"
    assert [row[0] for row in rows[1:]] == ["nse", "kge"]
    assert "'mse'" in refused("evaluate", file, "--target", "streamflow", "--score", "mse")
    assert "Missing option '--target'" in refused("evaluate", file)


def test_finetune(file, basins, tmp_path):
    how = ["--target", "streamflow", "--head", "lstm", "--batch-size", 2, "--name", "mine"]
    (tmp_path / "tokens.toml").write_text(
        '[[static]]\nname = "curvature"\nunits = "mm d-1"\nlong_name = "curvature"\n'
        "valid_range = [-1e3, 1e3]\n"
    )
    how += ["--token", tmp_path / "tokens.toml", "--rename", "p_mean=curvature"]
    with xstefa.set_options(cache_dir=tmp_path / "cache"):
        said = succeed("finetune", file, tmp_path / "mine", *how, "--steps", 2)
    model = xstefa.load_model(tmp_path / "mine")
    assert model.name == "mine"
    assert model.name in said
    assert [token.name for token in model.schema.extras] == ["curvature"]
    assert model.spec.provenance["schedule"]["steps"] == 2
    assert basins.stefa.predict(model).notnull().any()
    assert "--overwrite to replace it" in refused("finetune", file, tmp_path / "mine", *how)
    assert "'--steps': 'two'" in refused("finetune", file, "other", *how, "--steps", "two")


def test_embed(file, basins, tmp_path):
    succeed("embed", file, tmp_path / "days.zarr", "--level", "day")
    found = xr.open_zarr(tmp_path / "days.zarr").embedding
    np.testing.assert_array_equal(found, basins.stefa.embed(level="day"))


def test_cross_validate(file, tmp_path):
    how = ["--target", "streamflow", "--head", "lstm", "--steps", 2, "--score", "kge"]
    with xstefa.set_options(cache_dir=tmp_path / "cache"):
        said = succeed(
            "cross-validate", file, tmp_path / "a.nc", *how, "--holdout", "RandomGroups(3)"
        )
    assert "median" in said
    assert sorted(xr.open_dataset(tmp_path / "a.nc").fold.values.tolist()) == [0, 1, 2]
    assert "'RandomGroups(5)'" in refused("cross-validate", file, *how, "--holdout", "Random(3)")
    assert "Missing option '--holdout'" in refused("cross-validate", file, *how)


def test_daily(basins, tmp_path):
    hours = basins[["prcp", "tmax"]].isel(time=slice(3)).resample(time="12h").ffill()
    hours["prcp"].attrs["cell_methods"] = "time: mean"
    hours["tmax"].attrs = {"units": "degC", "standard_name": "air_temperature"}
    hours.to_netcdf(tmp_path / "hours.nc")
    succeed("daily", tmp_path / "hours.nc", tmp_path / "days.nc")
    with xr.open_dataset(tmp_path / "days.nc") as found:
        xr.testing.assert_allclose(found.load(), hours.stefa.daily(), rtol=1e-6)
    assert "'fortnight'" in refused(
        "daily", tmp_path / "hours.nc", tmp_path / "x.nc", "--accumulation", "fortnight"
    )
    assert not (tmp_path / "x.nc").exists()


def test_attach(file, basins, tmp_path):
    layer = xr.Dataset(
        {"height": (("lat", "lon"), [[1.0, 2.0], [3.0, 4.0]], {"units": "m"})},
        {"lat": [50.0, 25.0], "lon": [-120.0, -70.0]},
    )
    layer["lat"].attrs, layer["lon"].attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    layer.to_zarr(tmp_path / "static.zarr")
    words = [file, tmp_path / "static.zarr", tmp_path / "out.zarr", "--resampling"]
    succeed("attach", *words, "nearest")
    found = xr.open_zarr(tmp_path / "out.zarr")["height"]
    expected = basins.stefa.attach(layer, resampling="nearest")["height"]
    np.testing.assert_array_equal(found, expected)
    assert "'sum' is not one of 'average', 'nearest'" in refused("attach", *words, "sum")


def test_aggregate(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    pytest.importorskip("exactextract")
    from shapely.geometry import box

    grid = xstefa.open_sample("conus_grid").isel(time=slice(3))
    grid[["prcp", "crs"]].to_netcdf(tmp_path / "grid.nc")
    shapes = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[box(-100, 40, -98, 41)], crs=4326)
    shapes.to_file(tmp_path / "basins.gpkg")
    words = [tmp_path / "grid.nc", tmp_path / "basins.gpkg", tmp_path / "out.nc"]
    succeed("aggregate", *words, "--by", "id")
    with xr.open_dataset(tmp_path / "out.nc") as found:
        expected = grid["prcp"].sel(lat=40.5, lon=[-99.5, -98.5]).mean("lon")
        np.testing.assert_allclose(found["prcp"].squeeze("basin"), expected, rtol=1e-5)
    assert "--overwrite to replace it" in refused("aggregate", *words)
    missing = refused("aggregate", words[0], tmp_path / "no.gpkg", tmp_path / "new.nc")
    assert "the polygons cannot be read" in missing


@pytest.mark.parametrize("verb", ["tokens", "predict", "evaluate", "finetune", "daily"])
def test_inputs_that_are_not_there(verb, tmp_path):
    words = [] if verb == "tokens" else [tmp_path / "out"]
    words += ["--target", "streamflow"] if verb in ("predict", "evaluate", "finetune") else []
    assert "cannot be opened" in refused(verb, tmp_path / "nothing.nc", *words)
    assert not list(tmp_path.iterdir())
