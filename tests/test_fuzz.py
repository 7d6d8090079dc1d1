"""Every answer to a random dataset is a result or an error of xstefa.

``XSTEFA_FUZZ=5000 pytest tests/test_fuzz.py --hypothesis-show-statistics`` tries as many
datasets on each method, and counts the answers.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import xstefa
from tests.strategies import ODD, GraphError, datasets
from xstefa.inference.trust import signatures
from xstefa.model.neighbourhood import HeldOut, Neighbourhood
from xstefa.splits.holdout import RandomGroups

EXAMPLES = int(os.environ.get("XSTEFA_FUZZ", "0"))


@pytest.fixture(scope="module")
def models(make_model):
    """A model of soil moisture of two heads that knows its sites, and a foundation model."""
    model = make_model(members=2)
    static = np.random.default_rng(0).normal(size=(5, len(model.schema.statics))).astype("f4")
    neighbourhood = Neighbourhood.of(np.array([*"abcde"]), signatures(model, static))
    neighbourhood = replace(neighbourhood, held_out=(HeldOut(distance=1.0, score=0.5),))
    known = model.described(replace(model.spec, neighbourhood=neighbourhood))
    return known, make_model(foundation=True)


def some(draw, name, *good):
    """Draw a keyword that is left out, good, or of any kind."""
    value = draw(st.one_of(st.just(...), st.sampled_from([..., *good]), ODD))
    return {} if value is ... else {name: value}


def one_of(draw, *keywords):
    """Draw keywords of which at most one is of any kind."""
    return {} if draw(st.booleans()) else some(draw, *draw(st.sampled_from(keywords)))


MAP = xr.Dataset(
    {"height": (("lat", "lon"), np.ones((20, 20), np.float32))},
    coords={"lat": np.linspace(30.0, 60.0, 20), "lon": np.linspace(0.0, 20.0, 20)},
)
RUN = (
    ("device", "cpu"), ("precision", "bf16"), ("batch_size", 3),
    ("rename", {"pr": "precipitation"}, {"sand": "clay"}, {"pr": 3}, {3: "sand"},
     {"precipitation": ["pr"]}, {"lat": "sand"}, {"time": "precipitation"}),
)  # fmt: skip


def answer(result: Any) -> Any:
    """Compute a result that is lazy."""
    return result.compute(scheduler="synchronous")


def represent(draw, ds, models, folder):
    repr(ds.stefa)


def represent_html(draw, ds, models, folder):
    ds.stefa._repr_html_()


def tokens(draw, ds, models, folder):
    keywords = one_of(draw, ("schema", "stefaland"), RUN[-1])
    table = ds.stefa.tokens(check=draw(st.booleans()), **keywords)
    repr(table), table.to_pandas()


def daily(draw, ds, models, folder):
    answer(ds.stefa.daily(**one_of(draw, ("schema",), ("accumulation", "step", "day"))))


def predict(draw, ds, models, folder):
    keywords = one_of(
        draw, *RUN, ("target", "soil_moisture"), ("model", models[1]), ("min_coverage", 0.5),
        ("quantiles", [0.5], [0.1, 0.9], [2], ["a"], [None]), ("interval", 0.9, 1, "a", 2.0),
    )  # fmt: skip
    keywords["coverage"] = draw(st.booleans())
    answer(ds.stefa.predict(**({"target": "soil_moisture", "model": models[0]} | keywords)))


def embed(draw, ds, models, folder):
    keywords = one_of(draw, *RUN, ("level", "day"), ("model", models[1]))
    answer(ds.stefa.embed(**({"model": models[1]} | keywords)))


def trust(draw, ds, models, folder):
    keywords = one_of(draw, RUN[-1], ("neighbours", 1, 2.0), ("model", models[1]))
    answer(ds.stefa.trust(**({"model": models[0]} | keywords)))


def reconstruct(draw, ds, models, folder):
    keywords = one_of(
        draw, *RUN, ("model", models[0]),
        ("variables", ["sand"], "sand", ["temperature_max"], [3], [["sand"]]),
    )  # fmt: skip
    keywords["only_missing"] = draw(st.booleans())
    answer(ds.stefa.reconstruct(**({"model": models[1]} | keywords)))


def evaluate(draw, ds, models, folder):
    keywords = one_of(
        draw, *RUN, ("target", models[0]), ("scores", None, ["kge", "fhv"], [3], [["nse"]]),
        ("sites", "site", "lat"), ("model",),
    )  # fmt: skip
    usual = {"target": "soil_moisture", "model": models[0], "scores": "nse"}
    answer(ds.stefa.evaluate(**(usual | keywords)))


def finetune(draw, ds, models, folder):
    keywords = one_of(
        draw, *RUN, ("target", "streamflow"), ("model", models[0]), ("steps", 2), ("epochs", 1),
        ("learning_rate", 0.1), ("seed", 1), ("sites", "site", "lat"), ("head", "lstm"),
        ("encoder", "frozen"), ("validation", RandomGroups(2)), ("patience", 2), ("name", "a"),
        ("holdout", RandomGroups(2)), ("checkpoint", folder / "run"), ("memory", "1 GiB"),
    )  # fmt: skip
    ds.stefa.finetune(**({"target": "soil_moisture", "model": models[1], "steps": 1} | keywords))


def attach(draw, ds, models, folder):
    other = draw(st.one_of(st.just(MAP), datasets(), ODD))
    answer(ds.stefa.attach(other, **one_of(draw, ("resampling", "nearest"))))


def written(draw, ds, models):
    """Draw a prediction, with a variable of the dataset beside it, or the dataset."""
    if draw(st.booleans()):
        return ds
    result = ds.stefa.predict(models[0])
    if draw(st.booleans()):
        result.name = draw(ODD)
        return result
    name = draw(st.sampled_from(list(ds.data_vars)))
    return result.to_dataset().assign({name: ds[name]})


def to_zarr(draw, ds, models, folder):
    obj = one_of(draw, ("obj",)).get("obj", ...)
    obj = written(draw, ds, models) if obj is ... else obj
    with dask.config.set(scheduler="synchronous"):
        xstefa.to_zarr(obj, folder / "out.zarr", overwrite=True)


def to_netcdf(draw, ds, models, folder):
    obj = one_of(draw, ("obj",)).get("obj", ...)
    obj = written(draw, ds, models) if obj is ... else obj
    xstefa.to_netcdf(obj, folder / "out.nc", overwrite=True)


CALLS: tuple[Callable[..., None], ...] = (
    represent, represent_html, tokens, daily, predict, embed, trust, reconstruct, evaluate,
    finetune, attach, to_zarr, to_netcdf,
)  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@settings(
    max_examples=EXAMPLES or 15,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data(), ds=datasets())
def test_an_answer_is_a_result_or_an_error_of_xstefa(call, data, ds, models, tmp_path):
    def draw(strategy):
        return data.draw(strategy)

    # Text for a path makes a file there.
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(draw, ds, models, tmp_path)
        except xstefa.XstefaError as error:
            str(error)
            event(f"{type(error).__name__}")
        except GraphError:
            event("error of the dataset's own graph")
        else:
            event("a result")
