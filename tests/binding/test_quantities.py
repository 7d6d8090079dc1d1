"""Datasets quantified by pint."""

import numpy as np
import pint
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.binding.quantities import without_quantities

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
    assert without_quantities(basins) is basins
    basins.to_netcdf(tmp_path / "basins.nc")
    with xr.open_dataset(tmp_path / "basins.nc") as ds:
        assert without_quantities(ds) is ds
        assert not any(ds[name].variable._in_memory for name in ds.data_vars)
