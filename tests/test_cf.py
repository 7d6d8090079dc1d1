"""Files of predictions follow the CF conventions, and bring back what was written."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xstefa
from xstefa.cf import as_cf, to_netcdf
from xstefa.errors import LayoutError, OptionError, StoreError

ccs = pytest.importorskip("compliance_checker.runner")


@pytest.fixture(scope="module")
def streamflow_model(make_model):
    return make_model(target="streamflow", support="point", name="flow", members=2)


def grid(**change):
    return xstefa.open_sample("conus_grid").isel(
        {"time": slice(0, 50), "lat": slice(4, 9), "lon": slice(8, 14)} | change
    )


def projected():
    ds = grid().drop_vars("crs").rename(lat="y", lon="x")
    axes = {
        "y": ("y", 3e6 - 5e4 * np.arange(5), {"units": "m", "axis": "Y",
                                              "standard_name": "projection_y_coordinate"}),
        "x": ("x", 4e6 + 5e4 * np.arange(6), {"units": "m", "axis": "X",
                                              "standard_name": "projection_x_coordinate"}),
    }  # fmt: skip
    return ds.assign_coords(axes).rio.write_crs(3035)


def noleap():
    times = xr.date_range("2001-01-01", periods=50, calendar="noleap", use_cftime=True)
    ds = grid()
    return ds.assign_coords(time=("time", times, ds["time"].attrs))


def ensemble():
    ds = grid().expand_dims(realization=[1, 2])
    ds["realization"].attrs = {"standard_name": "realization", "units": "1"}
    return ds


def basins():
    return xstefa.open_sample("camels_us").isel(basin=slice(0, 3), time=slice(0, 50))


def bare():
    """Coordinates without attributes, as of most datasets made by hand."""
    ds = grid().drop_vars("crs").drop_attrs(deep=True)
    for name, units in {"prcp": "mm d-1", "tmax": "degC", "tmin": "degC"}.items():
        ds[name].attrs = {"units": units}
    return ds.rename(lat="LAT", lon="LON", time="valid_time")[["prcp", "tmax", "tmin"]]


def utm():
    ds = bare().rename(LAT="y", LON="x", valid_time="time")
    axes = {"y": 5e6 - 1e3 * np.arange(5), "x": 5e5 + 1e3 * np.arange(6)}
    return ds.assign_coords(axes).rio.write_crs(32633)


def towers():
    return xstefa.open_sample("fluxnet").isel(station=slice(0, 3), time=slice(0, 50))


INPUTS = {
    "grid": grid,
    "projected": projected,
    "noleap": noleap,
    "one cell": lambda: grid(lat=slice(4, 5), lon=slice(8, 9)),
    "ensemble": ensemble,
    "basins": basins,
    "towers": towers,
    "bare": bare,
    "utm": utm,
}


def prediction(case, tiny_model, streamflow_model, **options):
    ds = INPUTS[case]()
    return ds.stefa.predict(streamflow_model if case == "basins" else tiny_model, **options)


def errors(path):
    """Run the IOOS checker with the vocabularies that it brings along; return its complaints."""
    suite = ccs.CheckSuite()
    suite.load_all_available_checkers()
    with suite.load_dataset(str(path)) as ds:
        scores, broken = suite.run_all(ds, ["cf:1.11"], skip_checks=[])["cf:1.11"]
    assert not broken
    return [
        message for score in _flat(scores) for message in score.msgs or [] if not _passed(score)
    ]


def _flat(scores):
    for score in scores:
        yield score
        yield from _flat(score.children or [])


def _passed(score):
    value = score.value
    return value[0] == value[1] if isinstance(value, tuple) else bool(value)


@pytest.mark.parametrize("case", INPUTS)
def test_files_pass_the_cf_checker(case, tiny_model, streamflow_model, tmp_path):
    result = prediction(case, tiny_model, streamflow_model, coverage=True)
    to_netcdf(result, tmp_path / "result.nc")
    assert errors(tmp_path / "result.nc") == []


@pytest.mark.parametrize("case", ["grid", "basins"])
def test_zarr_stores_pass_it_as_well(case, tiny_model, streamflow_model, tmp_path):
    result = prediction(case, tiny_model, streamflow_model)
    xstefa.to_zarr(result.chunk(), tmp_path / "result.zarr")
    with xr.open_zarr(tmp_path / "result.zarr", decode_coords="all") as stored:
        assert stored.attrs["Conventions"] == "CF-1.11"
        to_netcdf(stored, tmp_path / "result.nc")
    assert errors(tmp_path / "result.nc") == []


def test_the_checker_finds_what_is_wrong(tiny_model, tmp_path):
    result = grid().stefa.predict(tiny_model).assign_attrs(units="furlong per fortnight")
    result.to_netcdf(tmp_path / "plain.nc")
    found = " ".join(errors(tmp_path / "plain.nc"))
    assert "Conventions" in found
    assert "_FillValue" in found
    assert "furlong" in found


@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_round_trip_keeps_everything(case, kind, tiny_model, streamflow_model, tmp_path):
    result = prediction(case, tiny_model, streamflow_model)
    if kind == "netcdf":
        to_netcdf(result, tmp_path / "result.nc")
        again = xr.open_dataset(tmp_path / "result.nc", decode_coords="all")
    else:
        xstefa.to_zarr(result.chunk(), tmp_path / "result.zarr")
        again = xr.open_zarr(tmp_path / "result.zarr", decode_coords="all")
    with again:
        found = again[result.name].load()
    assert found.dims == result.dims
    np.testing.assert_array_equal(found.values, result.values)
    assert set(found.coords) == set(result.coords)
    for name, coordinate in result.coords.items():
        np.testing.assert_array_equal(found[name].values, coordinate.values)
        assert (
            found[name].attrs.items()
            >= {k: v for k, v in coordinate.attrs.items() if k != "GeoTransform"}.items()
        )
    kept = {k: v for k, v in result.attrs.items() if k != "grid_mapping"}
    if case == "bare":
        kept["cell_methods"] = "valid_time: mean"
    assert found.attrs == kept
    if case in ("grid", "projected"):
        assert found.rio.crs == result.rio.crs


def test_provenance_is_complete(tiny_model):
    ds = as_cf(grid().assign_attrs(history="downloaded").stefa.predict(tiny_model))
    assert ds.attrs["title"] == "volumetric soil moisture from tiny"
    assert ds.attrs["history"].endswith("downloaded")
    for key in ("model_name", "model_hash", "model_schema", "xstefa_version", "source"):
        assert ds["soil_moisture"].attrs[key]
    assert as_cf(basins().stefa.predict(tiny_model)).attrs["featureType"] == "timeSeries"
    assert "featureType" not in ds.attrs


def test_datasets_keep_their_own_attributes(tiny_model):
    ds = grid().assign(soil_moisture=grid().stefa.predict(tiny_model)).assign_attrs(title="mine")
    assert as_cf(ds).attrs["title"] == "mine"


def test_the_result_itself_is_left_as_it_is(tiny_model):
    result = basins().stefa.predict(tiny_model)
    before = {name: (dict(c.attrs), dict(c.encoding)) for name, c in result.coords.items()}
    as_cf(result)
    assert before == {n: (dict(c.attrs), dict(c.encoding)) for n, c in result.coords.items()}


def test_existing_files_and_nameless_arrays_are_refused(tmp_path):
    array = xr.DataArray(np.zeros(2), {"time": pd.date_range("2001", periods=2)}, name="a")
    to_netcdf(array, tmp_path / "a.nc")
    with pytest.raises(OptionError, match="overwrite=True"):
        to_netcdf(array, tmp_path / "a.nc")
    to_netcdf(array, tmp_path / "a.nc", overwrite=True)
    with pytest.raises(OptionError, match="rename"):
        to_netcdf(array.rename(None), tmp_path / "b.nc")
    stacked = xr.DataArray(np.zeros((2, 2)), {"y": [1, 2], "x": [1, 2]}, name="a").stack(
        c=("y", "x")
    )
    with pytest.raises(OptionError, match="reset_index"):
        to_netcdf(stacked, tmp_path / "c.nc")


@pytest.mark.parametrize("write", [to_netcdf, xstefa.to_zarr])
def test_what_a_file_cannot_hold_is_a_typed_error(write, tmp_path):
    array = xr.DataArray(np.zeros(2), {"time": pd.date_range("2001", periods=2)}, name="a")
    with pytest.raises(StoreError, match="attr"):
        write(array.assign_attrs(comment=object()), tmp_path / "a")
    with pytest.raises(OptionError, match="name of its own"):
        write(array.rename(3), tmp_path / "b")
    with pytest.raises(LayoutError, match="text"):
        write(array.to_dataset().rename(a=3), tmp_path / "c")
