"""How far to trust a model at a site: what it was trained on that is like it, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial, reduce
from operator import add, and_, or_
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.arguments import checked
from xstefa.errors import ModelError
from xstefa.inference.run import Run, prepare
from xstefa.model.checkpoint import Model
from xstefa.model.neighbourhood import INTERVAL, signature
from xstefa.model.ranges import bounded
from xstefa.model.ranges import outside as outside_ranges
from xstefa.model.registry import ModelLike, load_model
from xstefa.typed import Count
from xstefa.windows import YEAR, Floats

NEIGHBOUR = "neighbour"
"""Dimension of the nearest training sites."""

AT_ONCE = 2048
"""Sites whose distances to all training sites are in memory together."""

SCORES = {"nse": "Nash-Sutcliffe efficiency", "correlation": "correlation"}
EXPECTED = ("expected_score", "expected_low", "expected_high", "held_out_sites")

_LONG_NAMES = {
    "distance": "distance to the nearest training site, in standard deviations of training sites",
    "nearest": "nearest training sites",
    "nearest_distance": "distance to each of them",
    "expected_score": "{} to expect at a site that training did not see",
    "expected_low": f"lower bound of the {100 * INTERVAL:g} % interval of the expected score",
    "expected_high": f"upper bound of the {100 * INTERVAL:g} % interval of the expected score",
    "held_out_sites": "sites of like aridity and distance whose scores are known",
    "aridity": "potential evapotranspiration over precipitation",
    "known": "share of the inputs of the model that is known",
    "outside": "whether the site is outside what the model has seen",
}


@checked
def trust(
    dataset: xr.Dataset,
    model: ModelLike,
    *,
    neighbours: Count = 3,
    rename: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Say of each site how like the training sites it is, and what skill to expect there.

    Parameters
    ----------
    model : str or Model
        Expects skill if it was calibrated: see `calibrate`.
    neighbours : int
        How many of the nearest training sites to name.
    rename : mapping of str to str, optional
        Dataset variable to token.

    Returns
    -------
    Dataset
        Dimensions and coordinates as in the dataset, without time; lazy exactly if the dataset is
        chunked. ``distance`` to the nearest training site, ``nearest`` and ``nearest_distance``
        (dimension ``neighbour``), which they are; ``aridity``; ``known``, the share of the model's
        inputs that is known; ``outside``, whether the site is farther away than nearly all training
        sites are from each other, or an attribute or a mean of its weather is outside those of
        training, or there is no answer at all. Of a model that was calibrated also
        ``expected_score``, the NSE (of soil moisture the correlation) of held-out sites of like
        aridity and distance, an interval of 90 % from ``expected_low`` to ``expected_high``, and
        ``held_out_sites``, how many of them there were.

    Raises
    ------
    ModelError
        If the model does not know its training sites.

    Notes
    -----
    The distance is one of attributes as the model reads them; an attribute that is missing makes a
    difference, too. Aridity is potential evapotranspiration over precipitation of the dataset,
    if it has a year of them, or else the attribute.
    """
    chosen = load_model(model)
    chosen.require("target")
    chosen.require("days")
    if chosen.spec.neighbourhood is None:
        raise ModelError(
            "at which sites the model was trained is not known",
            variable=chosen.name,
            found="a model of before models kept their training sites",
            expected="a model with spec.neighbourhood",
            fix="train it again with ds.stefa.finetune, or give it the sites: "
            "model = xstefa.training.neighbourhood.acquainted(training_data, model)",
        )
    run = prepare(dataset, chosen, rename=rename)
    frame = run.frame(daily=False)
    found = placed(run, neighbours)
    nearest = found.pop("number")
    names = np.append(chosen.spec.neighbourhood.names, "")
    found["nearest"] = _each(names.__getitem__, nearest, dtype=names.dtype)
    result = xr.Dataset(coords=frame.coords, attrs=run.attrs("trust"))
    for name, text in _LONG_NAMES.items():
        if name in found:
            units = {} if name in ("nearest", "outside") else {"units": "1"}
            attrs = (
                {"long_name": text.format(SCORES[chosen.spec.neighbourhood.score])}
                | units
                | frame.attrs
            )
            result[name] = found[name].dims, found[name].data, attrs, frame.encoding
    return result


def placed(run: Run, neighbours: int = 1) -> dict[str, xr.Variable]:
    """Return what `trust` says of the sites of a run, by name.

    But ``number``, the numbers of the nearest training sites, -1 without an answer, in place of
    their names.
    """
    model, binding, time = run.key.model, run.binding, run.binding.layout.time
    spec, neighbourhood = model.spec, model.spec.neighbourhood
    assert neighbourhood is not None
    frame = run.frame(daily=False)
    sizes: dict[Any, int] = dict(frame.sizes)
    shares: dict[str, xr.Variable] = {}
    means: dict[str, xr.Variable] = {}
    statics: dict[str, xr.Variable] = {}
    vectors: dict[str, xr.Variable] = {}
    for name in spec.tokens:
        if name not in binding.sources:
            continue
        token = binding.token(name).variable
        known = token.notnull()
        if len(columns := spec.schema[name].columns) > 1:
            (numbers,) = token.dims[-1:]
            token = token if token.chunks is None else token.chunk({numbers: -1})
            vectors[name], shares[name] = token, known.all(numbers).astype(np.float64)
            statics |= {column: token.isel({numbers: i}) for i, column in enumerate(columns)}
        elif name in spec.schema.forcing_names:
            shares[name] = known.mean(time)
            means[name] = token.mean(time, dtype=np.float64).where(known.sum(time) >= YEAR)
        else:
            shares[name], statics[name] = known.astype(np.float64), token

    def at_sites(variable: xr.Variable) -> xr.Variable:
        return variable.set_dims(sizes).transpose(*frame.dims)

    present = at_sites(
        reduce(
            and_,
            (
                reduce(or_, (shares[name] > 0 for name in group if name in shares))
                for group in spec.needs
            ),
        )
    )
    nothing = xr.Variable((), np.float32(np.nan))
    count = min(neighbours, len(neighbourhood.names))
    between, number = xr.apply_ufunc(
        partial(_nearest, model=model, count=count),
        present,
        *(statics.get(name, nothing) for name in spec.schema.site_columns),
        output_core_dims=[[NEIGHBOUR], [NEIGHBOUR]],
        dask="parallelized",
        output_dtypes=[np.float64, np.int64],
        dask_gufunc_kwargs={"output_sizes": {NEIGHBOUR: count}},
    )
    distance = between.isel({NEIGHBOUR: 0})
    rain, demand = (
        means.get(n, nothing) for n in ("precipitation", "potential_evapotranspiration")
    )
    aridity = at_sites((demand / rain).fillna(statics.get("aridity", nothing)))
    outside = [~present, distance > neighbourhood.reach]
    for name, token in vectors.items():
        beyond = partial(outside_ranges, spec.schema[name], ranges=spec.ranges)
        outside.append(_each(beyond, token, dtype=bool, core=token.dims[-1:]))
    vector_columns = {c for name in vectors for c in spec.schema[name].columns}
    for name, known_range in spec.ranges.items():
        if name in vector_columns:
            continue
        for values, excluded in (
            (statics.get(name), known_range.excludes),
            (means.get(name), known_range.excludes_means),
        ):
            if values is not None:
                outside.append(_each(excluded, values, dtype=bool))
    found = {
        "distance": distance,
        "nearest_distance": between,
        "number": number,
        "aridity": aridity,
        "known": at_sites(reduce(add, shares.values()) / len(spec.tokens)),
        "outside": at_sites(reduce(or_, outside)),
    }
    if neighbourhood.held_out:
        expected = xr.apply_ufunc(
            neighbourhood.expected,
            distance,
            aridity,
            output_core_dims=[["expected"]],
            dask="parallelized",
            output_dtypes=[np.float64],
            dask_gufunc_kwargs={"output_sizes": {"expected": len(EXPECTED)}},
        )
        found |= {name: expected.isel(expected=i) for i, name in enumerate(EXPECTED)}
    return found


def _each(
    function: Callable[[Any], Any],
    values: xr.Variable,
    *,
    dtype: Any,
    core: tuple[Hashable, ...] = (),
) -> xr.Variable:
    """Apply a function value by value, or vector by vector, lazily if these are."""
    return xr.apply_ufunc(
        function, values, input_core_dims=[core], dask="parallelized", output_dtypes=[dtype]
    )


def _nearest(
    present: NDArray[np.bool_], *statics: Floats, model: Model, count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distances and numbers of the nearest training sites, shape (*site, count)."""
    neighbourhood = model.spec.neighbourhood
    assert neighbourhood is not None
    table = np.stack(np.broadcast_arrays(present, *statics)[1:], axis=-1)
    rows = np.flatnonzero(present)
    static = table.reshape(present.size, len(statics))[rows].astype(np.float32)
    distance, number = np.full((present.size, count), np.nan), np.full((present.size, count), -1)
    for begin in range(0, len(rows), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        nearest = neighbourhood.nearest(signatures(model, static[part]), count)
        distance[rows[part]], number[rows[part]] = nearest
    return distance.reshape(*present.shape, count), number.reshape(*present.shape, count)


def signatures(model: Model, static: Floats) -> Floats:
    """Return what the model makes of the attributes of sites.

    Parameters
    ----------
    model : Model
    static : ndarray of float32, shape (site, S)
        Canonical units; NaN where missing.

    Returns
    -------
    ndarray of float32, shape (site, d)
    """
    import torch

    from xstefa.model.arithmetic import plain_float32

    spec = model.spec
    static = bounded(static, spec.schema, spec.ranges)
    hidden = [v.name not in spec.tokens for v in spec.schema.site_columns.values()]
    static[:, hidden] = np.nan
    scaled = [m.standardise(static[:, i]) for i, m in enumerate(spec.scaler.statics.values())]
    with torch.inference_mode(), plain_float32():
        return signature(
            model.network_on("cpu"), torch.from_numpy(np.stack(scaled, axis=1))
        ).numpy()
