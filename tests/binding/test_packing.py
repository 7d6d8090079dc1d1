"""How numbers are stored: packing, marks and limits that nobody applied yet."""

import numpy as np
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.binding.packing import decoded
from xstefa.errors import RangeError, UnitsError

TOKENS = {"pr": "precipitation", "elevation": "elevation"}


def bound(ds, schema, name="pr"):
    binding = bind(ds, schema)
    return {**binding.forcing, **binding.static}[TOKENS[name]].compute()


def packed(array, dtype="i2", **attrs):
    return array.round().astype(dtype).assign_attrs(array.attrs | attrs)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("name", TOKENS)
def test_packed_integers_are_unpacked(basins, schema, name, chunked):
    scale = np.float32(0.1) if chunked else "0.1"  # some writers store numbers as text
    raw = packed(basins[name] / 0.1, scale_factor=scale, add_offset=0.0, _FillValue=-32768)
    raw[0] = -32768
    ds = basins.assign({name: raw})
    right = basins[name].round(1)
    right[0] = np.nan
    found = bound(ds.chunk() if chunked else ds, schema, name)
    np.testing.assert_allclose(found, right, rtol=1e-6)
    np.testing.assert_allclose(decoded(ds)[name], right, rtol=1e-6)


def test_observations_are_unpacked(basins, schema, series):
    flow = series(units="mm d-1")
    raw = packed(xr.DataArray(flow) / 0.01, add_offset=1.0, scale_factor=0.01, missing_value=-1)
    raw[1, 2] = -1
    ds = basins.assign(streamflow=(flow.dims, raw.data, raw.attrs))
    found = bind(ds.chunk(), schema).observed("streamflow").compute()
    right = (flow.values / 0.01).round() * 0.01 + 1
    right[1, 2] = np.nan
    np.testing.assert_allclose(found, right, rtol=1e-5)


def test_floats_that_say_how_they_are_packed_ask(basins, schema, follow):
    """netCDF4 unpacks and lists the attributes still; rioxarray masks and does not unpack."""
    ds = basins.assign(pr=(basins["pr"] / 0.1).assign_attrs(basins["pr"].attrs, scale_factor=0.1))
    with pytest.raises(UnitsError, match=r"'pr'.*scale_factor 0.1") as caught:
        bind(ds, schema)
    np.testing.assert_allclose(bound(follow(caught.value, ds), schema), basins["pr"], rtol=1e-6)
    trivial = basins.assign(pr=basins["pr"].assign_attrs(scale_factor=1.0, add_offset=0.0))
    np.testing.assert_array_equal(bound(trivial, schema), basins["pr"])


MARKED = {
    "valid_min": ({"valid_min": 0.0}, -99.0),
    "valid_max": ({"valid_max": "1000"}, 1e20),
    "valid_range": ({"valid_range": [0, 1000]}, -9999.0),
    "missing_value": ({"missing_value": -9999}, -9999.0),
    "two marks": ({"missing_value": [-1.5, -9.5]}, -9.5),
    "a mark of doubles": ({"_FillValue": -999.9}, np.float32(-999.9)),
}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("case", MARKED)
def test_what_the_attributes_call_missing_is(basins, schema, case, chunked):
    attrs, mark = MARKED[case]
    ds = basins.assign(pr=basins["pr"].assign_attrs(attrs))
    ds["pr"][1, 3:7] = mark
    right = basins["pr"].copy()
    right[1, 3:7] = np.nan
    np.testing.assert_array_equal(bound(ds.chunk() if chunked else ds, schema), right)


JUNK = [
    {"missing_value": "none"},
    {"valid_range": "0"},
    {"_FillValue": None},
    {"valid_min": 5.0, "valid_max": 5.0},
    {"missing_value": np.nan},
]


@pytest.mark.parametrize("junk", JUNK)
def test_attributes_that_say_nothing_change_nothing(basins, schema, junk):
    ds = basins.assign(pr=basins["pr"].assign_attrs(junk))
    np.testing.assert_array_equal(bound(ds, schema), basins["pr"])


@pytest.mark.parametrize(
    "limits", [np.array([0, 100], "i2"), np.array([0.0, 10.0]), [0, 100]], ids=["i2", "f8", "json"]
)
def test_limits_of_packed_values_are_packed(basins, schema, limits):
    """What xarray unpacked keeps its limits in packed numbers, if they are of the packed type."""
    ds = basins.copy(deep=True)
    ds["pr"].attrs["valid_range"] = limits
    ds["pr"].encoding = {"scale_factor": 0.1, "add_offset": 0.0, "dtype": np.dtype("i2")}
    ds["pr"][0, 0] = 2e3
    right = basins["pr"].copy()
    right[0, 0] = np.nan
    np.testing.assert_array_equal(bound(ds, schema), right)


def test_limits_of_other_units_are_refused(basins, schema, follow):
    """Arithmetic that keeps attributes keeps limits, too."""
    ds = basins.assign(pr=basins["pr"].assign_attrs(valid_max=0.005))
    with pytest.raises(RangeError, match=r"'pr'.*29 of 30|30 of 30.*0.005") as caught:
        bound(ds, schema)
    np.testing.assert_array_equal(bound(follow(caught.value, ds), schema), basins["pr"])


@pytest.mark.parametrize("where", ["attrs", "encoding"])
def test_a_fill_value_of_zero_takes_the_dry_days(basins, schema, follow, where):
    dry = basins["pr"].where(basins["pr"] > 5, 0)
    ds = basins.assign(pr=dry if where == "attrs" else dry.where(dry != 0))
    getattr(ds["pr"], where)["_FillValue"] = 0.0
    with pytest.raises(RangeError, match="fill value is 0") as caught:
        bind(ds, schema)
    np.testing.assert_array_equal(bound(follow(caught.value, ds), schema), dry)


def test_noise_around_the_edge_is_the_edge(basins, schema):
    ds = basins.copy(deep=True)
    ds["pr"][:, ::2] = -1e-6
    right = basins["pr"].copy()
    right[:, ::2] = 0
    binding = bind(ds, schema)
    binding.check_ranges()
    np.testing.assert_array_equal(binding.forcing["precipitation"], right)
    assert "counts as the edge" in ds.stefa.tokens(check=True)["precipitation"].rule


def test_marks_of_discharge_over_a_large_area(basins, schema, series):
    """-9999 m3 s-1 over a million km2 is -0.9 mm d-1, which a tide could be."""
    flow = series(units="m3 s-1", standard_name="water_volume_transport_in_river_channel")
    flow[0, 3] = -9999
    ds = basins.assign(q=flow, area=("site", np.full(3, 1e6, np.float32), {"units": "km2"}))
    with pytest.raises(RangeError, match=r"'q'.* e\.g\. -9999"):
        bind(ds.chunk(), schema).observed("streamflow").compute()
