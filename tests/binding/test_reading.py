"""What is read of a dataset: dense arrays of some sites and days, each variable once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xstefa.binding import bind

REGION = {"site": slice(1, 3), "time": slice(2, 9)}


def counting(ds: xr.Dataset, read: list[str]) -> xr.Dataset:
    """Return the dataset with lazy variables that note when they are computed."""

    def note(block: np.ndarray, name: str) -> np.ndarray:
        read.append(name)
        return block

    noted = {
        name: (v.dims, v.chunk().data.map_blocks(note, str(name), dtype=v.dtype, meta=v.values[:0]))
        for name, v in ds.data_vars.items()
    }
    arrays = {name: xr.Variable(*each, ds[name].attrs) for name, each in noted.items()}
    return ds.assign(arrays)


@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize("order", [("site", "time"), ("time", "site")])
def test_tokens_lie_where_the_schema_has_them(basins, schema, region, order):
    binding = bind(basins.transpose(*order), schema)
    tokens, part = binding.read(region), region or {}
    forcings, statics = tokens.forcings(), tokens.statics()
    for i, name in enumerate(schema.forcing_names):
        if name in binding.forcing:
            known = binding.forcing[name].transpose("site", "time").isel(part)
            np.testing.assert_array_equal(forcings[..., i], known)
        else:
            assert np.isnan(forcings[..., i]).all()
    for i, name in enumerate(schema.static_names):
        if name in binding.static:
            known = binding.static[name].isel(part, missing_dims="ignore")
            np.testing.assert_array_equal(statics[:, i], known)
    assert forcings.dtype == statics.dtype == np.float32


def test_each_variable_is_read_once(basins, schema):
    """Also those that several tokens are made of: extremes, their mean, and evapotranspiration."""
    read: list[str] = []
    tokens = bind(counting(basins, read), schema).read()
    assert not read
    tokens.present([["temperature_mean"], ["potential_evapotranspiration"]])
    assert sorted(read) == ["cold", "hot"]
    tokens.forcings()
    tokens.statics()
    assert len(read) == len(set(read))
    assert not set(tokens.block.data_vars) & set(read)  # and is let go


def test_sites_at_which_one_of_each_group_is_known(basins, schema):
    basins["pr"][0] = np.nan
    basins["hot"][1] = np.nan
    basins["cold"][1, 1:] = np.nan
    read: list[str] = []
    tokens = bind(counting(basins, read), schema).read()
    rain, warm = ["precipitation"], ["temperature_mean"]
    assert tokens.present([rain, warm]).tolist() == [False, False, True]
    assert tokens.present([rain, [*warm, "temperature_min"]]).tolist() == [False, True, True]
    assert tokens.forcings(np.array([False, False, True])).shape[0] == 1
    read.clear()
    nowhere = np.zeros(3, dtype=bool)
    assert tokens.forcings(nowhere).shape == (0, 10, len(schema.forcings))
    assert tokens.statics(nowhere).shape == (0, len(schema.statics))
    assert not read


def test_extremes_that_are_none_are_not_known(basins, schema):
    basins["cold"][0, 3] = basins["hot"][0, 3]
    found = bind(basins, schema).read().forcings()
    for name in ("temperature_max", "temperature_min"):
        missing = np.isnan(found[..., schema.forcing_names.index(name)])
        assert np.argwhere(missing).tolist() == [[0, 3]]
