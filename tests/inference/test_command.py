"""``xstefa predict``."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from xstefa.cli import main
from xstefa.inference import store


@pytest.fixture
def run(dataset, tiny_model, tmp_path):
    dataset.to_zarr(tmp_path / "in.zarr", consolidated=False)
    dataset.to_netcdf(tmp_path / "in.nc", engine="netcdf4")

    def invoke(*words, source="in.zarr", out="out.zarr", model=tiny_model):
        places = [str(tmp_path / source), str(tmp_path / out)]
        options = ["--target", "soil_moisture", "--model", str(model.path), "--device", "cpu"]
        return CliRunner().invoke(main, ["predict", *places, *options, *words])

    return invoke


@pytest.mark.parametrize("source", ["in.zarr", "in.nc"])
def test_writes_prediction_and_coverage(run, dataset, tiny_model, tmp_path, source):
    result = run(source=source)
    assert result.exit_code == 0, result.output
    # What is soon over says nothing to a file; the first days have no spin-up.
    assert [line[:22] for line in result.output.splitlines()] == ["Warning: No answer on "]
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    expected = dataset.stefa.predict(tiny_model, device="cpu", coverage=True)
    np.testing.assert_array_equal(found.soil_moisture, expected)
    np.testing.assert_array_equal(found.coverage, expected.coverage)


def test_quantiles_and_interval_beside_the_mean(run, make_model, distribution, tmp_path):
    model = make_model(members=2, distribution=distribution)
    words = ["--quantile", "0.1", "--quantile", "0.9", "--interval", "0.8"]
    result = run(*words, "--no-coverage", model=model)
    assert result.exit_code == 0, result.output
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    name = "soil_moisture"
    assert set(found.data_vars) == {name, *(f"{name}_{x}" for x in ("quantiles", "lower", "upper"))}
    assert found["quantile"].values.tolist() == [0.1, 0.9]
    for bound, level in (("lower", 0.1), ("upper", 0.9)):
        quantile = found[f"{name}_quantiles"].sel(quantile=level)
        np.testing.assert_array_equal(found[f"{name}_{bound}"], quantile)
    assert found[f"{name}_lower"].attrs["ancillary_variables"] == f"{name}_upper"


def test_existing_store_needs_a_word(run):
    assert run().exit_code == 0
    result = run()
    assert result.exit_code == 1
    assert "--resume to go on" in result.output
    assert "--overwrite to replace" in result.output
    assert run("--resume").exit_code == 0
    assert run("--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rename", "precipitation"], "expected VARIABLE=TOKEN"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no dask scheduler answers there"),
        (["--quantile", "0.5"], "a model that was not calibrated"),
    ],
)
def test_mistakes_are_named(run, words, message):
    result = run(*words)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())


def test_input_that_is_not_there(run):
    result = run(source="nothing.zarr")
    assert result.exit_code == 1
    assert "cannot be opened" in result.output


@pytest.mark.parametrize("command", ["tokens", "predict"])
@pytest.mark.parametrize("content", [b"", b"some notes", b"\x89HDF\r\n\x1a\n" + b"0" * 64])
def test_input_that_is_no_dataset(command, content, tmp_path):
    (tmp_path / "notes.txt").write_bytes(content)
    words = [str(tmp_path / "out.zarr"), "--target", "streamflow"] if command == "predict" else []
    result = CliRunner().invoke(main, [command, str(tmp_path / "notes.txt"), *words])
    assert result.exit_code == 1
    assert "cannot be opened" in result.output
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("source", ["in.zarr", "in.nc"])
def test_a_netcdf_file(run, dataset, tiny_model, tmp_path, source):
    for words in ([], ["--overwrite"]):
        result = run(*words, source=source, out="out.nc")
        assert result.exit_code == 0, result.output
    with xr.open_dataset(tmp_path / "out.nc") as found:
        np.testing.assert_array_equal(found.soil_moisture, dataset.stefa.predict(tiny_model))
        assert "coverage" in found.variables
    assert "--overwrite to replace it" in run(out="out.nc").output
    assert "written as a whole" in run("--resume", out="out.nc").output
    assert "Expected a NetCDF file (.nc) or a Zarr store" in run(out="out.csv").output


@pytest.mark.parametrize("out", ["out.zarr", "out.nc"])
def test_a_call_that_fails_leaves_nothing(run, dataset, tmp_path, out):
    """What is wrong with values of files is known only when they are read."""
    warm = dataset["temperature_mean"]
    dataset.assign(temperature_mean=(warm + 900).assign_attrs(warm.attrs)).to_netcdf(
        tmp_path / "wrong.nc"
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    result = run(source="wrong.nc", out=out)
    assert result.exit_code == 1
    assert "'temperature_mean': " in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    # To replace what is there fails as well; a file that was there still is.
    assert run(out=out).exit_code == 0
    assert run("--overwrite", source="wrong.nc", out=out).exit_code == 1
    assert (tmp_path / out).exists() == (out == "out.nc")


def test_what_was_interrupted_stays(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_missing", interrupt)
        assert run().exit_code == 1
    assert (tmp_path / "out.zarr").exists()
    assert run("--resume").exit_code == 0


@pytest.mark.parametrize("out", ["file/out.zarr", "file/out.nc", "nowhere/out.nc"])
def test_places_that_cannot_be_are_named(run, tmp_path, out):
    (tmp_path / "file").write_text("")
    result = run(out=out)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert "nowhere" not in out or "there is no such folder" in result.output


def test_on_a_cluster(run, dataset, tiny_model, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as cluster:
        result = run("--scheduler", cluster.scheduler_address)
    assert result.exit_code == 0, result.output
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    np.testing.assert_array_equal(found.soil_moisture, dataset.stefa.predict(tiny_model))


FAULTS = """
import resource
import numpy as np
from click.testing import CliRunner
from xstefa.cli import main

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
assert CliRunner().invoke(main, ["models", "--help"]).exit_code == 0
print(usual, faults())
"""


@pytest.mark.skipif(
    os.name != "posix" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's malloc"
)
def test_freed_memory_is_kept():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    out = subprocess.run(
        [sys.executable, "-c", FAULTS],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    usual, found = map(int, out.split())
    assert found < usual / 4
