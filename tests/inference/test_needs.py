"""A model says what it needs, and makes do with one of each group."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load, save

import xstefa
from xstefa.binding import plan
from xstefa.binding.value_checks import ValuesWarning
from xstefa.errors import LayoutError, MissingTokenError, ModelError, XstefaWarning
from xstefa.model import registry
from xstefa.model.checkpoint import Model, ModelSpec, content_hash_of

P, T, PET = "precipitation", "temperature_mean", "potential_evapotranspiration"
NEEDS = ((P,), (T, PET))


@pytest.fixture(scope="module")
def old(make_model) -> Model:
    return make_model()


@pytest.fixture(scope="module")
def model(make_model) -> Model:
    return make_model(needs=NEEDS)


@pytest.fixture(scope="module")
def weather(dataset) -> xr.Dataset:
    """Rain, temperature and potential evapotranspiration; do not change it."""
    attrs = {"standard_name": "water_potential_evaporation_flux", "units": "mm d-1"}
    random = np.random.default_rng(1).uniform(0, 8, dataset[P].shape).astype("f4")
    return dataset[[P, T]].assign({PET: dataset[P].copy(data=random).assign_attrs(attrs)})


def predict(ds, model, **kwargs):
    return ds.stefa.predict(model, device="cpu", **kwargs).compute()


def bits(array):
    return array.values.view(np.int32)


def test_by_default_what_the_schema_requires(old, tiny_model):
    assert old.spec.needs == old.schema.needs == ((P,), (T,))
    bundled = xstefa.list_models().to_pandas()["needs"]
    assert bundled.pop("water-balance") == f"{P}, {T}, {PET}"
    assert bundled.pop("streamflow") == f"{P}, {T} or {PET}"
    assert bundled.pop("soil-texture") == ""  # attributes are enough
    assert set(bundled) == {f"{P}, {T}"}
    for name in bundled.index:
        assert xstefa.load_model(name).spec.needs == ((P,), (T,))


def test_either_is_enough_and_both_are_read(weather, old, model):
    answers = {}
    for names in ([P, T], [P, PET], [P, T, PET]):
        answers[tuple(names)] = predict(weather[names], model)
        assert np.isfinite(answers[tuple(names)].isel(time=slice(5, None))).all()
    values = list(map(bits, answers.values()))
    assert not (values[0] == values[1]).all()
    assert not (values[1] == values[2]).all()
    # The same weights that need temperature say the same of it, and nothing without it.
    np.testing.assert_array_equal(values[0], bits(predict(weather[[P, T]], old)))
    with pytest.raises(MissingTokenError) as caught:
        predict(weather[[P, PET]], old)
    assert caught.value.variable == T


def test_the_bundled_model_is_asked_too(weather, model, monkeypatch):
    monkeypatch.setattr(registry, "_bundled", lambda: {"tiny": model.path})
    found = weather[[P, PET]].stefa.predict("soil_moisture", device="cpu")
    np.testing.assert_array_equal(bits(found), bits(predict(weather[[P, PET]], model)))
    with pytest.raises(MissingTokenError, match=f"{T} or {PET}"):
        weather[[P]].stefa.predict("soil_moisture")
    with pytest.raises(LayoutError):
        weather.isel(time=0).stefa.predict("soil_moisture")


def test_rain_alone_is_refused_with_both_alternatives(weather, model):
    with pytest.raises(MissingTokenError) as caught:
        predict(weather[[P]], model)
    error = caught.value
    assert error.variable == f"{T} or {PET}"
    assert "needs one of these tokens" in error.message
    assert "air_temperature" in error.expected
    assert "potential_evaporation" in error.expected
    assert f"rename={{'<your variable>': '{T}'}}, or {{...: '{PET}'}}" in error.fix
    odd = weather[[P]].assign(e0=weather[PET].drop_attrs().assign_attrs(units="mm d-1"))
    found = predict(odd, model, rename={"e0": PET})
    np.testing.assert_array_equal(bits(found), bits(predict(weather[[P, PET]], model)))


def test_temperature_that_is_derived_counts(weather, model):
    both = weather[[P]].assign(
        tmax=weather[T].copy(data=weather[T] + 4).assign_attrs(cell_methods="time: maximum"),
        tmin=weather[T].copy(data=weather[T] - 4).assign_attrs(cell_methods="time: minimum"),
    )
    assert np.isfinite(predict(both, model).isel(time=slice(5, None))).all()


def test_sites_with_one_beside_sites_with_the_other(weather, model):
    north = weather["lat"] > 50
    mixed = weather.assign({T: weather[T].where(north), PET: weather[PET].where(~north)})
    mixed[PET][:, 2, 3] = np.nan  # neither
    found = predict(mixed, model)
    np.testing.assert_array_equal(
        bits(found.isel(lat=[0])), bits(predict(weather[[P, T]].isel(lat=[0]), model))
    )
    expected = predict(weather[[P, PET]].isel(lat=[1, 2]), model)
    expected[:, 1, 3] = np.nan
    np.testing.assert_array_equal(bits(found.isel(lat=[1, 2])), bits(expected))
    for chunks in ({"lat": 1, "time": 70}, {"lon": 3, "time": 31}):
        np.testing.assert_array_equal(bits(predict(mixed.chunk(chunks), model)), bits(found))


def test_the_spin_up_counts_whichever_is_there(weather, model):
    ds = weather.copy(deep=True)
    ds[PET][60:120] = np.nan
    only = predict(ds[[P, PET]], model)
    # Half of the spin-up of 10 days is known until the fifth day of the gap, and from the sixth
    # after it.
    assert np.isnan(only[65:125]).all()
    assert np.isfinite(only[5:65]).all()
    assert np.isfinite(only[125:]).all()
    late = ds.assign({T: ds[T].where(ds.time >= ds.time[60])})
    late[T][120:] = np.nan
    # Neither is known all the time; from day to day one of them is, on half of the days before.
    both = predict(late, model)
    assert np.isfinite(both[5:65]).all()
    assert np.isfinite(both[66:125]).all()
    np.testing.assert_array_equal(bits(predict(late.chunk(time=33), model)), bits(both))


def test_nothing_known_of_any(weather, model):
    empty = weather.assign({T: weather[T].where(False), PET: weather[PET].where(False)})
    with pytest.raises(MissingTokenError, match="no value is known") as caught:
        predict(empty, model)
    assert caught.value.variable == f"{T}, {PET}"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert np.isnan(predict(empty.chunk(), model)).all()
    (text,) = [str(each.message) for each in told if each.category is ValuesWarning]
    assert f"nothing is known of {T} or {PET}" in text


def test_what_is_in_doubt_is_not_missed_where_the_other_is_there(weather, model):
    unclear = weather[T].drop_attrs().assign_attrs(standard_name="air_temperature")
    doubtful = weather.drop_vars(T).assign(air=unclear)
    with pytest.warns(XstefaWarning, match=T):
        found = predict(doubtful, model)
    np.testing.assert_array_equal(bits(found), bits(predict(weather[[P, PET]], model)))


def test_the_table_names_the_alternatives(weather, model):
    text = " ".join(repr(plan(weather[[P]], model.schema, needs=NEEDS).table).split())
    assert f"Missing and required: {T} or {PET}" in text
    assert f"{T} (required, one of: {T}, {PET})" in text
    table = plan(weather[[P, PET]], model.schema, needs=NEEDS).table
    assert "required" not in repr(table)
    assert table.to_pandas()["required"].to_dict() | {P: True, PET: True} == {
        token: token in (P, PET) for token in table.matched + table.missing
    }


def test_a_file_holds_them(old, model, tmp_path):
    assert ModelSpec.from_json(model.spec.to_json()) == model.spec
    assert model.content_hash != old.content_hash
    content = json.loads(old.spec.to_json())
    weights, path = load(old.path.read_bytes()), tmp_path / "other.safetensors"

    def written(content):
        text = json.dumps(content)
        path.write_bytes(
            save(weights, metadata={"xstefa": text, "sha256": content_hash_of(text, weights)})
        )
        return Model(path)

    assert written(content).spec == old.spec
    for wrong in ([["sand"]], [["rain"]], [[]], ["precipitation"], [P], 1):
        with pytest.raises(ModelError, match="needs"):
            _ = written(content | {"needs": wrong}).spec
