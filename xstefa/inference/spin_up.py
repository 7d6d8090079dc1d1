"""Spin a model up: its state at the end of a record, for the days that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from xstefa.arguments import checked
from xstefa.inference.forecast import alone, continued, names_of
from xstefa.inference.predict import answering, refuse_beside
from xstefa.inference.run import Period, prepare
from xstefa.inference.state import TOKENS, FinalState, labelled, require_state, tokens_of
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike


@checked
def spin_up(
    dataset: xr.Dataset,
    target: str | Model | Sequence[str] | None = None,
    *,
    model: ModelLike | None = None,
    period: Period | None = None,
    history: xr.Dataset | None = None,
    state: xr.Dataset | None = None,
    strict: bool = False,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
) -> xr.Dataset:
    """Return what a model knows at the end of the dataset, to predict the days after from.

    ``new.stefa.predict("streamflow", state=state)`` answers as if the days of this dataset stood
    before those of `new`, and reads none of them.

    Parameters
    ----------
    target : str, Model or sequence of str, optional
        As for `predict`; or a model, with any name or path, as `model`.
    model : str or Model, optional
    period : tuple of two dates or str, optional
        The state is that of its last day. Days before it are read, unless a state knows them.
    history : Dataset, optional
        As for `predict`: the weather of the days before.
    state : Dataset, optional
        What the days before this dataset have left: the state that it begins with.
    strict, rename, device, precision, batch_size, extrapolate
        As for `predict`.

    Returns
    -------
    Dataset
        One variable for each part of the state, over the sites and axes ``state_<length>``, which
        no model but this one reads: hidden states, stores of water [mm], what the layers read of
        the days that attention looks back to, which forcings were known lately. A scalar
        coordinate says of which day it is. Lazy exactly if the dataset is chunked; ``to_zarr``
        saves it.

    Notes
    -----
    Of the bundled models it takes about 0.2 MB a site, nearly all of it what the layers read; in
    half precision half of it, and answers differ in the fourth digit.
    A site without any data has none; when its data begin, it is as if these days were unknown.

    Raises
    ------
    ModelError
        If the model reads windows, and carries nothing from day to day.
    XstefaError
        As for `predict`.
    """
    if isinstance(target, Model):
        model, target = target, None
    forecast = None if history is None and state is None else alone(dataset)
    if forecast is not None and history is None:
        dataset = forecast.at(0)
    known = dataset if history is None else history
    renamed = rename if history is None else names_of(rename, history)
    chosen = answering(known, target or "streamflow", model=model, rename=renamed)
    chosen.require("target")
    chosen.require("days")
    require_state(chosen)
    options: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    options |= {"strict": strict, "rename": rename, "extrapolate": extrapolate}
    answer = FinalState.of(chosen.spec)
    if history is not None:
        refuse_beside("history", {"period": period, "state": state})
        run, _, block = continued(dataset, history, chosen, answer, **options)
    else:
        run = prepare(dataset, chosen, period=period, state=state, **options)
        steps = slice(0, run.answered.stop)
        run = replace(run, binding=run.binding.during(steps), answered=steps)
        block = run.compute(answer)
    layout = run.binding.layout
    found = labelled(
        block,
        run.frame(daily=False),
        chosen,
        end=run.binding.dataset[layout.time].isel({layout.time: -1}).reset_coords(drop=True),
        days=(run.past.days if run.past else 0) + int(layout.days[-1] - layout.days[0]) + 1,
    )
    known_tokens = " ".join(tokens_of(run.binding, chosen))
    return found.assign_attrs(run.attrs("spun up") | {TOKENS: known_tokens})
