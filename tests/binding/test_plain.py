"""Datasets quantified by pint, with attributes that are no text, and with values out of reach."""

import dask.array as da
import numpy as np
import pint
import pytest
import xarray as xr

from xstefa.binding import bind, plan
from xstefa.binding.plain import plain
from xstefa.errors import ReadError

UREG = pint.UnitRegistry()


def quantified(ds, *, chunked=False):
    """Do what ``ds.pint.quantify()`` of pint-xarray does: move units from attributes to arrays."""
    units = {"degC": "degree_Celsius", "mm d-1": "millimeter / day", "m": "meter"}
    ds = ds.chunk(site=1) if chunked else ds
    for name in list(ds.data_vars):
        variable = ds[name].variable
        attrs = dict(variable.attrs)
        quantity = UREG.Quantity(variable.data, units[attrs.pop("units")])
        ds = ds.assign({name: xr.Variable(variable.dims, quantity, attrs)})
    return ds


@pytest.mark.parametrize("chunked", [False, True])
def test_quantified_arrays_bind_as_plain_ones(basins, schema, chunked):
    ds = quantified(basins, chunked=chunked)
    assert isinstance(ds["pr"].data, pint.Quantity)
    expected, found = bind(basins, schema), bind(ds, schema)
    assert found.table["precipitation"].units_found == "millimeter / day"
    for name, array in {**expected.forcing, **expected.static}.items():
        mine = {**found.forcing, **found.static}[name]
        assert (mine.chunks is not None) == chunked or not mine.ndim
        np.testing.assert_array_equal(mine.values, array.values)


def test_quantities_that_were_chunked_afterwards_bind_as_well(basins, schema):
    ds = quantified(basins).chunk(site=1)
    found = bind(ds, schema).forcing["temperature_max"]
    assert found.chunks is not None
    np.testing.assert_array_equal(found, bind(basins, schema).forcing["temperature_max"])


def test_units_of_quantities_are_converted(basins, schema):
    ds = quantified(basins)
    ds["hot"] = ds["hot"].copy(data=UREG.Quantity(np.full((3, 10), 290.0), "kelvin"))
    np.testing.assert_allclose(bind(ds, schema).forcing["temperature_max"], 16.85, rtol=1e-5)


def test_quantified_datasets_predict(basins, tiny_model):
    expected = basins.stefa.predict(tiny_model)
    xr.testing.assert_identical(quantified(basins).stefa.predict(tiny_model), expected)
    assert "millimeter / day" in repr(quantified(basins).stefa)


def test_plain_datasets_are_left_as_they_are(basins, tmp_path):
    assert plain(basins) is basins
    basins.to_netcdf(tmp_path / "basins.nc")
    with xr.open_dataset(tmp_path / "basins.nc") as ds:
        assert plain(ds) is ds
        assert not any(ds[name].variable._in_memory for name in ds.data_vars)


# ---- attributes that are no text


@pytest.mark.parametrize(
    "make", [lambda text: [text], lambda text: np.array([text]), str.encode, np.array]
)
def test_texts_of_any_kind_are_read_as_text(basins, schema, make):
    expected = plan(basins, schema).table
    for name in ("pr", "hot", "cold"):
        basins[name].attrs = {key: make(text) for key, text in basins[name].attrs.items()}
    assert plan(basins, schema).table == expected


@pytest.mark.parametrize("value", [None, 3, ["a", "b"], {"a": 1}, np.array([1, 2]), {1}, object()])
@pytest.mark.parametrize("key", ["history", "standard_name", "units", "cell_methods", "bounds"])
def test_attributes_of_other_kinds_neither_fail_nor_change(basins, tiny_model, key, value):
    basins.attrs[key] = basins["time"].attrs[key] = basins["lat"].attrs[key] = value
    basins["elevation"].encoding[key] = value
    found = basins.stefa.predict(tiny_model)
    assert isinstance(found.attrs["history"], str)
    assert basins.attrs[key] is basins["time"].attrs[key] is basins["lat"].attrs[key] is value


def test_an_array_of_one_text_is_the_text(basins, schema):
    basins["pr"].attrs["units"] = np.array(["mm h-1"], dtype=object)
    assert plan(basins, schema).table["precipitation"].units_found == "mm h-1"


# ---- values out of reach


def broken(basins):
    """Let the graph of a variable fail."""

    def fail(block):
        raise ZeroDivisionError("no such file")

    pr = basins["pr"].chunk().variable
    data = da.map_blocks(fail, pr.data, dtype=pr.dtype, meta=np.empty((0, 0), pr.dtype))
    return basins.assign(pr=(pr.dims, data, pr.attrs))


def test_what_cannot_be_read_is_named(basins):
    with pytest.raises(ReadError, match=r"'pr': its values cannot be read.*no such file") as caught:
        broken(basins).stefa.tokens(check=True)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_graph_that_the_caller_computes_raises_what_it_raises(basins, tiny_model):
    prediction = broken(basins).stefa.predict(tiny_model)
    with pytest.raises(ZeroDivisionError, match="no such file"):
        prediction.compute(scheduler="synchronous")
