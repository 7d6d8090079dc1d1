"""Why a model says this: what each forcing of each day, and each attribute, adds to one answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import cftime
import dask.array as da
import numpy as np
import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import plan
from xstefa.errors import ModelError, did_you_mean
from xstefa.inference.coalitions import DayGame, Guess, Players, states_of
from xstefa.inference.engine import Answer, Before, Engine
from xstefa.inference.explainable import LAGS, check_day, check_lags, check_spun_up, refuse
from xstefa.inference.predict import Members, answering
from xstefa.inference.run import Run, prepare
from xstefa.inference.shapley import shapley
from xstefa.inference.state import FinalState, carries_state
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike
from xstefa.schema import Schema
from xstefa.splits.sites import SiteLike, find_sites
from xstefa.typed import Count, Natural
from xstefa.windows import Days, Floats, bridge, unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand

AT_ONCE = 64
"""Sites whose states, of a quarter of a megabyte, are in memory together."""

AFTER, ERROR, VALUE = "after", "_error", "value"
LONG_NAMES = {
    "prediction": "{}",
    "baseline": "{} where nothing is known",
    "contribution": "what forcings of these days add to {}",
    "contribution_static": "what site attributes add to {}",
    "contribution_earlier": "what all days before the last lag add to {}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Answer):
    """What each of the players adds to the answer for one day, in the unit of the target.

    Attributes
    ----------
    players : Players
    output : int
        Which of the model's outputs.
    samples, seed : int
        As for `shapley`.
    """

    players: Players
    output: int
    samples: int
    seed: int

    def width(self, spec: ModelSpec) -> int:
        """Return the number of values: answer, baseline, contributions and their errors."""
        return 2 + 2 * len(self.players)

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Not asked: see `ask`."""
        raise NotImplementedError

    def ask(
        self,
        engine: Engine,
        forcing: Floats,
        static: Floats,
        *,
        days: Days,
        record: Days,
        out: Days,
        before: Before | None = None,
    ) -> tuple[Floats, Floats]:
        """Share the answer of each site among the players; see `Engine.answer`."""
        assert before is None
        how = {"days": days, "record": record, "out": out}
        parts = [slice(i, i + AT_ONCE) for i in range(0, max(len(forcing), 1), AT_ONCE)]
        found = [self._some(engine, forcing[part], static[part], **how) for part in parts]
        values, coverage = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(coverage)

    def _some(
        self,
        engine: Engine,
        forcing: Floats,
        static: Floats,
        *,
        days: Days,
        record: Days,
        out: Days,
    ) -> tuple[Floats, Floats]:
        """Do so for some sites, whose states are in memory together."""
        before: Before | None = None
        spec = engine.key.model.spec
        heads, every = len(spec.architecture.heads), self.output > 0
        forcing, days = unbroken(forcing, days)
        if not spec.windows.causal:  # as in a prediction, before anything is hidden
            forcing = bridge(forcing)
        earlier = self.players.earlier(days, out) if carries_state(spec) else 0
        if earlier:
            past = days[:earlier]
            states, _ = engine.answer(
                FinalState.of(spec), forcing[:, :earlier], static, days=past, record=past, out=past
            )
            before = states_of(states, spec, earlier)
            forcing, days = forcing[:, earlier:], days[earlier:]
            record = days
        members, coverage = engine.answer(
            Members(every=every), forcing, static, days=days, record=record, out=out, before=before
        )
        members = members[:, 0, self.output * heads : (self.output + 1) * heads]
        values = np.full((len(members), 1, self.width(spec)), np.nan, dtype=np.float32)
        for site, said in enumerate(np.isfinite(members)):
            if not said.any():
                continue
            game = DayGame(
                engine,
                self.players,
                Guess(every=every),
                np.flatnonzero(said) + self.output * heads,
                forcing[site],
                static[site],
                None if before is None else before.at(site),
                days=days,
                record=record,
                out=out,
            )
            found = shapley(game, game.playing, samples=self.samples, seed=self.seed)
            answer = members[site, said].mean(dtype=np.float64)
            values[site, 0] = [answer, found.nobody, *found.each, *found.error]
        return values, coverage


@checked
def explain(
    dataset: xr.Dataset,
    target: str | Model,
    *,
    day: str | date | np.datetime64 | cftime.datetime,
    site: SiteLike | Sequence[str | int] | None = None,
    model: ModelLike | None = None,
    lags: Sequence[int] = LAGS,
    attributes: Literal["group", "each"] = "group",
    samples: Count = 4,
    seed: Natural = 0,
    strict: bool = False,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
    **others: Any,
) -> xr.Dataset:
    """Say how much each forcing of each day, and each attribute, adds to the answer for one day.

    Parameters
    ----------
    target : str or Model
        As for `predict`.
    day : str or date
        The day whose answer is explained.
    site : str, int, tuple of two float, or sequence of names, optional
        Names or labels of sites, or latitude and longitude of the nearest; by default all sites.
    model : str or Model, optional
        As for `predict`.
    lags : sequence of int
        The last day of each bin of days, counted back from the day itself, which is 0.
    attributes : {"group", "each"}
        Share what attributes add among physical groups, or among each of them, which takes longer.
    samples : int
        Pairs of an order in which inputs become known and its reverse. Errors fall with the square
        root of their number, to nothing where all orders can be tried.
    seed : int
    strict, rename, device, precision, batch_size, extrapolate
        As for `predict`.
    others
        Other options of `predict` have no place here, and are refused.

    Returns
    -------
    Dataset
        In the unit of the target, at the sites of the dataset; lazy exactly if it is chunked.
        ``prediction``, the answer as `predict` gives it, is the sum of ``baseline``, the answer
        where nothing is known; ``contribution`` of each forcing that the dataset has, by ``token``
        and ``lag``; ``contribution_static`` of attributes; and ``contribution_earlier`` of all that
        happened before the last lag. Of the contributions the standard errors from sampling are
        beside them, as ``..._error``. The lag ``"after"`` holds the days after: 0 of models that
        look back only.

    Notes
    -----
    The contributions are Shapley values: what an input adds when it becomes known, on average over
    the orders in which all can become known. Inputs that say the same share what they add. An input
    that the model cannot read, or whose values are missing, adds 0.

    A model with physics inside has no answer where precipitation is not known. Here its physics
    goes on: with nothing known nothing falls, and nothing flows. Before the last lag everything is
    known or nothing, the attributes included: the model begins with the state that these days have
    left, or as a record begins.

    Raises
    ------
    OptionError
        If the day is not in the dataset, or for options of `predict` that have no place here.
    MissingTokenError
        If a site is not.
    CalendarError
        If there is no answer on the day, because the record begins too late before it.
    XstefaError
        As for `predict`.
    """
    refuse(others)
    if isinstance(target, Model):
        target.require("target")
        model, target = target, target.spec.outputs[0]
    bounds = check_lags(lags)
    chosen = answering(dataset, target, model=model, rename=rename)
    chosen.require("target")
    chosen.require("days")
    if target not in chosen.spec.outputs:
        raise ModelError(
            variable=chosen.name,
            found=f"a model of {', '.join(chosen.spec.outputs)}",
            expected=f"a model of {target}",
            fix=did_you_mean(target, chosen.spec.outputs)
            or f"explain {chosen.spec.target!r} with it, or leave model= out",
        )
    if not isinstance(day, str):  # text suits the time axis of any calendar
        day = str(day)[:10]
    check_day(dataset, day)
    if site is not None:
        layout = plan(dataset, chosen.schema, rename=rename).layout
        dataset = dataset.isel(find_sites(dataset, site, layout))
    run = prepare(
        dataset,
        chosen,
        period=(day, day),
        strict=strict,
        rename=rename,
        device=device,
        precision=precision,
        batch_size=batch_size,
        extrapolate=extrapolate,
    )
    check_spun_up(run)
    schema, known = chosen.spec.schema, run.binding.sources
    groups = _groups(schema, known, attributes)
    players = Players(forcings=len(schema.forcings), lags=bounds, attributes=tuple(groups.values()))
    answer = Explanation(
        players=players, output=chosen.spec.outputs.index(target), samples=samples, seed=seed
    )
    block = run.compute(answer)
    tokens = [name for name in schema.forcing_names if name in known]
    result = _labelled(block, run, answer, tokens=tokens, groups=[*groups])
    unit = chosen.schema.target(target)
    for name, variable in result.variables.items():
        if name in result.data_vars:
            text = LONG_NAMES[str(name).removesuffix(ERROR)].format(unit.long_name)
            variable.attrs |= {"long_name": text, "units": unit.units}
            if f"{name}{ERROR}" in result:
                variable.attrs["ancillary_variables"] = f"{name}{ERROR}"
            elif str(name).endswith(ERROR):
                variable.attrs["long_name"] = f"standard error of {text}"
    if unit.standard_name:
        result.prediction.attrs["standard_name"] = unit.standard_name
    return result.assign_attrs(run.attrs(f"{target} explained"))


def _labelled(
    block: da.Array | Floats,
    run: Run,
    answer: Explanation,
    *,
    tokens: list[str],
    groups: list[str],
) -> xr.Dataset:
    """Give the values of an explanation their names and places."""
    frame, time, schema = run.frame(), run.binding.layout.time, run.key.model.spec.schema
    whole = xr.Variable((*frame.dims, VALUE), block[..., :-1]).isel({time: 0})
    sites = [dim for dim in frame.dims if dim != time]
    columns = [schema.forcing_names.index(name) for name in tokens]
    forcing, static, before = answer.players.parts(np.arange(len(answer.players)))
    places = {
        "contribution": xr.Variable(("token", "lag"), forcing[columns]),
        "contribution_static": xr.Variable("attribute", static),
        "contribution_earlier": xr.Variable((), before[0]),
    }

    def taken(place: xr.Variable) -> xr.Variable:
        found = whole.isel({VALUE: place}).transpose(*place.dims, *sites)
        return xr.Variable(found.dims, found.data, frame.attrs, frame.encoding)

    found = {name: taken(xr.Variable((), i)) for i, name in enumerate(("prediction", "baseline"))}
    for first, ending in ((2, ""), (2 + len(answer.players), ERROR)):
        found |= {f"{name}{ending}": taken(place + first) for name, place in places.items()}
    begins = [0, *(lag + 1 for lag in answer.players.lags)]
    bins = [_span(*each) for each in zip(begins, answer.players.lags, strict=False)]
    coords = {
        "token": ("token", tokens, {"long_name": "forcing"}),
        "lag": ("lag", [*bins, AFTER], {"long_name": "days before the day that is explained"}),
        "attribute": ("attribute", groups, {"long_name": "site attributes"}),
    }
    return xr.Dataset(found, coords=frame.isel({time: 0}).coords).assign_coords(coords)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _groups(schema: Schema, known: Collection[str], attributes: str) -> dict[str, tuple[int, ...]]:
    """Return the columns of attributes that count as one, as those of a vector do, by name."""
    found: dict[str, tuple[int, ...]] = {}
    for column, variable in enumerate(schema.site_columns.values()):
        if variable.name in known:
            group = (variable.group if attributes == "group" else None) or variable.name
            found[group] = (*found.get(group, ()), column)
    return found
