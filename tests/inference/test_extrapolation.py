"""Attributes and climates outside all that a model was trained on: read by rule, and said."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from xstefa.inference.extrapolation import ExtrapolationWarning
from xstefa.model.ranges import Range
from xstefa.schema import load_schema

ATTRIBUTE = "attributes_outside_training"
AREA = Range(low=1.0, high=900.0, mean_low=1.0, mean_high=900.0)


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(name="limited", ranges={"catchment_area": AREA})


@pytest.fixture(scope="module")
def beyond(dataset):
    area = dataset.catchment_area.copy()
    area[1, 2] = 127_000.0
    return dataset.assign(catchment_area=area)


def told(step):
    """Return what a step gives, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = step()
    return result, [str(w.message) for w in caught if w.category is ExtrapolationWarning]


def predicted(ds, model, **how):
    """Return a prediction, and what was told while it was planned, and computed."""
    planned, planning = told(lambda: ds.stefa.predict(model, **how))
    result, computing = told(planned.compute)
    return result, planning, computing


def test_what_is_outside_counts_as_the_nearest_of_training(beyond, model, make_model):
    found, planning, computing = predicted(beyond, model)
    clipped = beyond.assign(catchment_area=beyond.catchment_area.clip(max=900))
    expected, *none = predicted(clipped, model)
    np.testing.assert_array_equal(found, expected)
    text = "catchment_area 1.27e+05 km2 (training: 1 to 900) at 1 of 12 sites"
    assert len(planning) == 1
    assert text in planning[0]
    assert "extrapolate=True" in planning[0]
    assert found.attrs[ATTRIBUTE] == f"{text}, read as the nearest of these"
    assert computing == []
    assert none == [[], []]
    assert ATTRIBUTE not in expected.attrs


def test_values_are_taken_as_they_are_on_request(beyond, model, make_model):
    found, *all_told = predicted(beyond, model, extrapolate=True)
    unlimited, *_ = predicted(beyond, make_model(name="unlimited"))
    np.testing.assert_array_equal(found, unlimited)
    assert all_told == [[], []]
    assert found.attrs[ATTRIBUTE].endswith("read as they are")
    assert not np.array_equal(found, beyond.stefa.predict(model))


def test_lazy_attributes_are_not_read_by_planning_and_told_of_once(beyond, model):
    lazy = beyond.chunk(lat=1, lon=1)
    found, planning, computing = predicted(lazy, model)
    assert planning == []
    assert len(computing) == 1
    assert "catchment_area 1.27e+05 km2 (training: 1 to 900) at 1 of 1 sites" in computing[0]
    np.testing.assert_array_equal(found, beyond.stefa.predict(model))
    assert predicted(lazy, model, extrapolate=True)[1:] == ([], [])


@pytest.mark.parametrize("chunks", [None, {"lat": 1, "time": -1}])
def test_a_climate_outside_of_training_is_told_of(make_dataset, make_model, chunks):
    rain = Range(low=0.0, high=300.0, mean_low=0.5, mean_high=8.0)
    warm = Range(low=-40.0, high=40.0, mean_low=-4.0, mean_high=27.0)
    model = make_model(name="dry", ranges={"precipitation": rain, "temperature_mean": warm})
    ds = make_dataset(days=500)
    ds = ds if chunks is None else ds.chunk(chunks)
    _, planning, computing = predicted(ds, model)
    (text,) = [*planning, *computing]
    assert re.search(r"a climate like these: mean precipitation (9|10)\.\d+ mm d-1", text)
    assert "(training: 0.5 to 8)" in text
    assert "temperature" not in text
    # A season is no climate.
    assert predicted(make_dataset(days=200), model)[1:] == ([], [])


def test_embeddings_and_scores_say_so_too(beyond, model, make_model):
    foundation = make_model(
        foundation=True, name="limited foundation", ranges={"catchment_area": AREA}
    )
    clipped = beyond.assign(catchment_area=beyond.catchment_area.clip(max=900))
    observed = beyond.precipitation * 0
    observed.attrs = {"units": "m3 m-3"}
    with pytest.warns(ExtrapolationWarning, match="catchment_area") as caught:
        found = beyond.stefa.embed(model=foundation)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(found, clipped.stefa.embed(model=foundation))
    assert "catchment_area" in found.attrs[ATTRIBUTE]
    with pytest.warns(ExtrapolationWarning, match="catchment_area"):
        filled = beyond.stefa.reconstruct(["clay"], model=foundation)
    expected = clipped.stefa.reconstruct(["clay"], model=foundation)
    np.testing.assert_array_equal(filled.clay, expected.clay)
    with pytest.warns(ExtrapolationWarning, match="catchment_area"):
        scores = beyond.assign(swc=observed).stefa.evaluate(model, scores="rmse")
    assert "catchment_area" in scores.attrs[ATTRIBUTE]


def test_the_token_table_says_so(dataset):
    ds = dataset.assign(catchment_area=dataset.catchment_area * 1000)
    row = ds.stefa.tokens(check=True)["catchment_area"]
    assert "of 12 outside training (0.05131 to 2.579e+04)" in row.rule
    assert "outside training" not in dataset.stefa.tokens(check=True)["catchment_area"].rule
    assert (
        "outside training" not in ds.stefa.tokens(load_schema(), check=True)["catchment_area"].rule
    )
