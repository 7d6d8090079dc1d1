"""The Basic Model Interface: a day at a time is one long prediction; rules of bmi-tester."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import numpy as np
import pytest
import xarray as xr

import xstefa
from xstefa.errors import LayoutError, MissingExtraError, OptionError, ReadError

bmipy = pytest.importorskip("bmipy")

from xstefa.bmi import NAMES, StefaBmi  # noqa: E402
from xstefa.windows import SegmentPolicy  # noqa: E402

KNOWN, DAYS = 400, 10
RAIN = NAMES["precipitation"]
FLOW = NAMES["streamflow"]


@pytest.fixture(scope="module")
def basins() -> xr.Dataset:
    ds = xstefa.open_sample("camels_us").isel(basin=[0, 5]).isel(time=slice(KNOWN + DAYS))
    return ds.load().drop_encoding()


@pytest.fixture(scope="module")
def folder(basins, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bmi")
    basins.isel(time=slice(KNOWN)).to_netcdf(folder / "history.nc")
    basins.to_netcdf(folder / "weather.nc")
    for model in ("streamflow", "water-balance"):
        state = basins.isel(time=slice(KNOWN)).stefa.spin_up(model=model)
        xstefa.save_state(state, folder / f"{model}.nc")
    return folder


@pytest.fixture
def begin(folder):
    def begun(**config):
        path = folder / "config.toml"
        path.write_text("".join(f"{name} = {value!r}\n" for name, value in config.items()))
        bmi = StefaBmi()
        bmi.initialize(str(path))
        return bmi

    return begun


@pytest.mark.parametrize("model", ["streamflow", "water-balance"])
def test_a_day_at_a_time_is_one_long_prediction(begin, basins, folder, model):
    bmi = begin(model=model, state=f"{model}.nc", forcing="weather.nc")
    targets = list(xstefa.load_model(model).spec.outputs)
    expected = basins.stefa.predict(targets, model=model).isel(time=slice(KNOWN, None))
    assert bmi.get_end_time() == DAYS
    held = {target: bmi.get_value_ptr(NAMES[target]) for target in targets}
    for day in range(DAYS):
        if day == 4:  # stopped and begun again
            bmi.save_state(str(folder / "later.zarr"))
            bmi.finalize()
            bmi = begin(model=model, state="later.zarr", forcing="weather.nc")
            held = {target: bmi.get_value_ptr(NAMES[target]) for target in targets}
        bmi.update()
        for target in targets:
            today = expected[target].isel(time=day)
            np.testing.assert_allclose(held[target], today, rtol=1e-5, atol=2e-5)
            assert bmi.get_var_units(NAMES[target]) == expected[target].attrs["units"]
    assert bmi.date == basins["time"][-1]
    assert bmi.get_current_time() == bmi.get_end_time() == DAYS - 4


def test_weather_that_is_set(begin, basins, folder):
    """In the model's units, and in place of a file's; attributes come from a file."""
    basins.drop_dims("time").to_netcdf(folder / "attributes.nc")
    bmi = begin(model="streamflow", state="streamflow.nc", attributes="attributes.nc")
    assert bmi.get_end_time() == np.inf
    days = xstefa.binding.bind(basins, xstefa.load_schema()).forcing
    wet = days["precipitation"].isel(time=slice(KNOWN, None)) + 5
    given = {NAMES[n]: days[n].isel(time=slice(KNOWN, None)) for n in days if n in NAMES}
    for day in range(3):
        for name in {*given} & {*bmi.get_input_var_names()}:
            bmi.set_value(name, given[name].isel(time=day).values)
        bmi.set_value(RAIN, wet.isel(time=day).values)
        bmi.update()
        assert np.isnan(bmi.get_value_ptr(RAIN)).all()
    changed = basins.copy()
    changed["prcp"] = basins["prcp"].copy()
    changed["prcp"][{"time": slice(KNOWN, None)}] += 5
    expected = changed.stefa.predict("streamflow").isel(time=KNOWN + 2)
    np.testing.assert_allclose(bmi.get_value_ptr(FLOW), expected, rtol=1e-5, atol=2e-5)
    plain = begin(model="streamflow", state="streamflow.nc", forcing="weather.nc")
    for day in range(3):
        plain.set_value_at_indices(RAIN, [1], wet.isel(time=day).values[1:])
        plain.set_value_at_indices(RAIN, [0], wet.isel(time=day).values[:1])
        plain.update()
    np.testing.assert_allclose(plain.get_value_ptr(FLOW), expected, rtol=1e-5, atol=2e-5)


def test_a_history_and_some_sites(begin, basins, folder):
    site = str(basins["basin"].values[1])
    how = {"history": "history.nc", "forcing": "weather.nc", "sites": [site]}
    bmi = begin(model="streamflow", **how, state_out="out.nc")
    bmi.update_until(2.0)
    expected = basins.stefa.predict("streamflow")[1, KNOWN + 1]
    np.testing.assert_allclose(bmi.get_value(FLOW, np.empty(1)), [expected], rtol=1e-5, atol=2e-5)
    assert bmi.get_grid_x(0, np.empty(1)) == basins["lon"].values[1]
    assert bmi.get_grid_y(0, np.empty(1)) == basins["lat"].values[1]
    bmi.finalize()
    with xstefa.open_state(folder / "out.nc") as state:
        assert state["time"] == basins["time"][KNOWN + 1]
    assert bmi.get_output_item_count() == 0


def test_a_day_of_which_nothing_is_known(begin, basins):
    bmi = begin(model="streamflow", state="streamflow.nc", forcing="weather.nc")
    for name in bmi.get_input_var_names():
        bmi.set_value(name, [np.nan, np.nan])
    bmi.update()
    bmi.update()
    gone = basins.copy(deep=True)
    for name in [n for n, v in gone.data_vars.items() if "time" in v.dims]:
        gone[name][{"time": KNOWN}] = np.nan
    expected = gone.stefa.predict("streamflow").isel(time=KNOWN + 1)
    np.testing.assert_allclose(bmi.get_value_ptr(FLOW), expected, rtol=1e-5, atol=2e-5)


def test_mistakes_are_named(begin, folder, basins):
    bmi = begin(model="streamflow", state="streamflow.nc", attributes="history.nc")
    with pytest.raises(OptionError, match="not set for the next day") as caught:
        bmi.update()
    assert f"bmi.set_value('{RAIN}', values)" in caught.value.fix
    assert bmi.get_current_time() == 0
    with pytest.raises(OptionError, match="whole number of days"):
        bmi.update_until(0.5)
    with pytest.raises(OptionError, match="water_precipitation__leq"):
        bmi.set_value("precipitation", [1.0, 1.0])
    with pytest.raises(OptionError, match="a state or a history"):
        begin(model="streamflow")
    with pytest.raises(OptionError, match="'statte'"):
        begin(model="streamflow", statte="streamflow.nc")
    with pytest.raises(LayoutError, match="not all sites are there"):
        begin(model="streamflow", state="streamflow.nc", sites=["nowhere"])
    basins.isel(basin=[1, 0]).to_netcdf(folder / "turned.nc")
    with pytest.raises(LayoutError, match="not those of the state"):
        begin(model="streamflow", state="streamflow.nc", forcing="turned.nc")
    (folder / "config.yaml").write_text("model: streamflow")
    with pytest.raises(ReadError, match="a file in TOML"):
        StefaBmi().initialize(str(folder / "config.yaml"))


def test_the_extra_is_named(monkeypatch):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "bmipy", None)
    monkeypatch.delitem(sys.modules, "xstefa.bmi")
    with pytest.raises(MissingExtraError, match="pip install bmipy"):
        importlib.import_module("xstefa.bmi")


def test_every_function_is_there_and_typed():
    for name, function in inspect.getmembers(bmipy.Bmi, inspect.isfunction):
        mine = getattr(StefaBmi, name)
        assert mine is not function
        assert (
            inspect.signature(mine).parameters.keys()
            == inspect.signature(function).parameters.keys()
        )
        assert get_type_hints(mine).keys() == get_type_hints(function).keys()


def test_rules_of_bmi_tester(begin):
    bmi = begin(model="water-balance", state="water-balance.nc", forcing="weather.nc")
    assert isinstance(bmi.get_component_name(), str)
    inputs, outputs = bmi.get_input_var_names(), bmi.get_output_var_names()
    assert isinstance(inputs, tuple)
    assert isinstance(outputs, tuple)
    assert (len(inputs), len(outputs)) == (bmi.get_input_item_count(), bmi.get_output_item_count())
    assert (bmi.get_start_time(), bmi.get_time_step(), bmi.get_time_units()) == (0.0, 1.0, "d")
    assert 0 <= bmi.get_current_time() <= bmi.get_end_time()
    for name in (*inputs, *outputs):
        assert bmi.get_var_location(name) == "node"
        assert bmi.get_var_grid(name) == 0
        dtype = np.dtype(bmi.get_var_type(name))
        assert bmi.get_var_itemsize(name) == dtype.itemsize
        assert bmi.get_var_nbytes(name) == bmi.get_grid_size(0) * dtype.itemsize
        assert bmi.get_var_units(name)
        values = np.empty(2, dtype)
        assert bmi.get_value(name, values) is values
        one = np.empty(1)
        assert bmi.get_value_at_indices(name, one, np.array([1])) is one
        np.testing.assert_array_equal(one, values[1:])
    assert (bmi.get_grid_type(0), bmi.get_grid_rank(0)) == ("unstructured", 1)
    assert bmi.get_grid_node_count(0) == bmi.get_grid_size(0) == 2
    assert bmi.get_grid_edge_count(0) == bmi.get_grid_face_count(0) == 0
    for place in (bmi.get_grid_x, bmi.get_grid_y):
        assert np.isfinite(place(0, np.full(2, np.nan))).all()
    for nothing in (
        bmi.get_grid_edge_nodes,
        bmi.get_grid_face_edges,
        bmi.get_grid_face_nodes,
        bmi.get_grid_nodes_per_face,
    ):
        empty = np.empty(0, np.int32)
        assert nothing(0, empty) is empty
    assert bmi.update() is None
    assert bmi.finalize() is None


def test_a_table_of_attributes(begin, basins, folder):
    names = [name for name, v in basins.data_vars.items() if v.dims == ("basin",)]
    places = basins[names].reset_coords(["lat", "lon"])
    units = {
        name: f"{name}({v.attrs['units']})" for name, v in places.items() if "units" in v.attrs
    }
    table = places.to_dataframe().rename(columns=units)
    table.to_csv(folder / "attributes.csv")
    bmi = begin(
        model="streamflow",
        state="streamflow.nc",
        attributes="attributes.csv",
        forcing="weather.nc",
    )
    bmi.update()
    expected = basins.stefa.predict("streamflow").isel(time=KNOWN)
    np.testing.assert_allclose(bmi.get_value_ptr(FLOW), expected, rtol=1e-5, atol=2e-5)


def test_a_map_is_a_row_of_points(begin, folder, make_model, make_dataset):
    ds = make_dataset(days=63, lat=2, lon=3)
    model = make_model(windows=SegmentPolicy(length=60, spin_up=20), encoder=False)
    ds.isel(time=slice(60)).to_netcdf(folder / "map.nc")
    ds.to_netcdf(folder / "days.nc")
    bmi = begin(model=str(model.path), history="map.nc", forcing="days.nc")
    bmi.update_until(bmi.get_end_time())
    expected = ds.stefa.predict(model).isel(time=-1)
    found = bmi.get_value_ptr(NAMES["soil_moisture"])
    np.testing.assert_allclose(found, expected.values.reshape(-1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(bmi.get_grid_x(0, np.empty(6)), np.tile(ds["lon"], 2))
    np.testing.assert_array_equal(bmi.get_grid_y(0, np.empty(6)), np.repeat(ds["lat"], 3))
