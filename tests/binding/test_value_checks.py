"""Values that can be, and are unlikely to be what they are said to be."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xstefa.binding import bind
from xstefa.binding.value_checks import ValuesWarning
from xstefa.errors import MissingTokenError


@pytest.fixture
def grid():
    """A good year of rain and temperature on 2 x 3 cells, with dry days."""
    random = np.random.default_rng(0)
    dims, shape = ("time", "lat", "lon"), (400, 2, 3)
    rain = np.maximum(random.normal(0, 10, shape), 0).round(1).astype("f4")
    air = {"standard_name": "air_temperature", "units": "degC"}
    warm = random.uniform(0, 20, shape).astype("f4")
    return xr.Dataset(
        {
            "prcp": (dims, rain, {"units": "mm d-1"}),
            "tmean": (dims, warm, air | {"cell_methods": "time: mean"}),
            "tmax": (dims, warm + 5, air | {"cell_methods": "time: maximum"}),
            "tmin": (dims, warm - 4, air | {"cell_methods": "time: minimum"}),
        },
        coords={
            "time": pd.date_range("2001-01-01", periods=400),
            "lat": ("lat", [40.1, 40.2], {"units": "degrees_north"}),
            "lon": ("lon", [5.1, 5.2, 5.3], {"units": "degrees_east"}),
        },
    )


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if each.category is ValuesWarning]


def test_coordinates_that_differ_by_rounding(grid, tiny_model, follow):
    axes = {dim: grid[dim].astype("f4") for dim in ("lat", "lon")}
    merged = xr.merge([grid[["prcp"]].assign_coords(axes), grid.drop_vars("prcp")], join="outer")
    with pytest.raises(MissingTokenError, match=r"no day on which all.*prec\w* 2400") as caught:
        merged.stefa.predict(tiny_model)
    right = grid.stefa.predict(tiny_model)
    found = follow(caught.value, merged).stefa.predict(tiny_model).transpose(*right.dims)
    np.testing.assert_allclose(found, right, atol=2e-6)
    assert (
        "different sites only"
        in told(lambda: merged.chunk().stefa.predict(tiny_model).compute())[0]
    )


def test_an_empty_required_token(grid, tiny_model):
    with pytest.raises(MissingTokenError, match=r"'prcp': no value is known"):
        grid.assign(prcp=grid["prcp"].where(False)).stefa.predict(tiny_model)
    assert "Nothing is known" in told(lambda: grid.where(False).stefa.predict(tiny_model))[0]


@pytest.mark.parametrize("chunks", [{}, {"lat": 1, "lon": 1, "time": 200}])
def test_an_empty_required_token_of_chunked_data(grid, tiny_model, chunks):
    ds = grid.drop_vars(["tmax", "tmin"]).assign(tmean=grid["tmean"].where(False)).chunk(chunks)
    assert "nothing is known of temperature_mean" in told(ds.stefa.predict(tiny_model).compute)[0]
    assert not told(grid.where(False).chunk(chunks).stefa.predict(tiny_model).compute)
    assert not told(ds.isel(lat=slice(0)).stefa.predict(tiny_model).compute)
    some = grid["lat"] == grid["lat"][0]  # a coast: the other forcings go on over the sea
    coast = grid.drop_vars(["tmax", "tmin"]).assign(tmean=grid["tmean"].where(some)).chunk()
    assert not told(coast.stefa.predict(tiny_model).compute)


def test_tokens_of_chunked_data_that_never_meet(grid, tiny_model):
    odd = xr.DataArray(np.arange(400) % 2 == 1, dims="time")
    hidden = grid["tmin"].where(~odd)
    ds = grid.drop_vars(["tmax", "tmean"], errors="ignore").assign(
        prcp=grid["prcp"].where(odd), tmean=hidden.assign_attrs(cell_methods="time: mean")
    )
    ds = ds.drop_vars("tmin").chunk(lat=1, lon=1)
    assert "known on different days only" in told(ds.stefa.predict(tiny_model).compute)[0]


def test_tokens_that_hardly_meet(grid, tiny_model):
    days = xr.DataArray(np.arange(400), dims="time")
    ds = grid.drop_vars(["tmax", "tmin"]).assign(prcp=grid["prcp"].where(days < 10))
    assert "together on 60 of the 2400 days" in told(lambda: ds.stefa.predict(tiny_model))[0]
    ds["prcp"] = grid["prcp"].where(days < 30)
    assert not told(lambda: ds.stefa.predict(tiny_model))
    apart = ds.assign(tmean=ds["tmean"].where(days > 30))
    with pytest.raises(MissingTokenError, match="no day on which"):
        apart.stefa.predict(tiny_model)


def test_rain_without_a_dry_day(grid, tiny_model):
    wet = grid.assign(prcp=grid["prcp"].where(grid["prcp"] > 0))
    (text,) = told(lambda: wet.stefa.predict(tiny_model))
    assert text.startswith("'prcp' has no dry day")
    names = {"ds": wet.copy()}
    exec(text.split(": ")[-1], names)
    xr.testing.assert_equal(names["ds"], grid)
    assert not told(lambda: wet.isel(time=slice(300)).stefa.predict(tiny_model))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_derived_value_stands_in_where_the_direct_one_is_missing(grid, schema, chunked):
    part = grid["time"].dt.month < 7
    hollow = grid.assign(tmean=grid["tmean"].where(part))
    found = bind(hollow.chunk() if chunked else hollow, schema).forcing["temperature_mean"]
    right = grid["tmean"].where(part, 0.5 * (grid["tmax"] + grid["tmin"]))
    np.testing.assert_allclose(found.compute(), right, rtol=1e-6)
    rule = hollow.stefa.tokens(check=True)["temperature_mean"].rule
    assert rule.endswith("; where missing derived: (maximum + minimum) / 2")
    empty = grid.assign(tmean=grid["tmean"].where(False))
    want = grid.drop_vars("tmean")
    for token in ("temperature_mean", "potential_evapotranspiration"):
        a, b = (bind(ds, schema).forcing[token].compute() for ds in (empty, want))
        np.testing.assert_allclose(a, b, rtol=1e-5)


# (what the numbers are, their factor to mm d-1)
WRONG = {"m d-1": 1e-3, "inch d-1": 1 / 25.4, "kg m-2 s-1": 1 / 86400, "0.1 mm d-1": 10.0}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("units", WRONG)
def test_rain_in_other_units_than_it_says(grid, tiny_model, units, own):
    if own:
        mean = 1.2 * grid["prcp"].mean("time")
        grid = grid.assign(p_mean=mean.assign_attrs(units="mm d-1"))
    assert not told(lambda: grid.stefa.predict(tiny_model))
    wrong = grid.assign(prcp=(grid["prcp"] * WRONG[units]).assign_attrs(grid["prcp"].attrs))
    texts = told(lambda: wrong.stefa.predict(tiny_model))
    rule = wrong.stefa.tokens()["precipitation"].rule
    assert rule.endswith(texts[0].split("   #")[0])
    assert all(text.startswith("'prcp' is unlikely to be precipitation") for text in texts)
    assert f"ds['prcp'].attrs['units'] = {units!r}" in texts[0]
    lazy = wrong.chunk(lat=1).stefa.predict(tiny_model)
    assert set(told(lazy.compute)) == {text.split("   #")[0] for text in texts}
    exec(texts[0].split("   #")[0].split(": ")[-1], {"ds": wrong})
    assert not told(lambda: wrong.stefa.predict(tiny_model))
