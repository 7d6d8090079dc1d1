"""What the days of a record leave to those that follow: hidden states, stores, what was known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from xstefa.binding import Binding, Layout
from xstefa.binding.time_axis import day_numbers
from xstefa.errors import CalendarError, LayoutError, ModelError, XstefaWarning, warn
from xstefa.inference.engine import Answer
from xstefa.model.checkpoint import Model
from xstefa.model.distribution import KNOWN_DAYS, REMEMBERED
from xstefa.windows import Floats, Known, SegmentPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.architecture import Architecture
    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.heads.recurrent import State
    from xstefa.model.network import StefaLand

ANSWERS, KNOWN = "answers", "known"
FLAGS = 8
"""Forcings whose days are known or not that one number says: half precision holds it, too."""
LENGTH = "record_days"
TOKENS = "state_tokens"
"""Attribute that names what the record had."""
TIME = "time"
"""Coordinate of the day that a state is of."""


class ForecastWarning(XstefaWarning):
    """Days lack what those before them had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalState(Answer):
    """The state at the end of a record, as one vector a site: all of `parts`, one after another.

    Attributes
    ----------
    known : int
        Days of which it says what was known.
    """

    known: int

    @classmethod
    def of(cls, spec: ModelSpec) -> FinalState:
        """Return that of a model."""
        return cls(known=parts(spec)[KNOWN][0])

    @property
    def daily(self) -> bool:
        """One for each site."""
        return False

    @property
    def needs_required(self) -> bool:
        """A record that is too short for an answer leaves a state."""
        return False

    @property
    def needs_any(self) -> bool:
        """So do days of which nothing is known."""
        return False

    def width(self, spec: ModelSpec) -> int:
        """Return the length of the vector."""
        return sum(map(math.prod, parts(spec).values()))

    def run(
        self, network: StefaLand, forcing: Tensor, static: Tensor, state: State | None = None
    ) -> Tensor:
        """Return the vectors, shape (B, width)."""
        import torch
        from torch.nn import functional

        answers, after = network.follow(forcing, static, state)
        known = forcing.isfinite()
        if state is not None:
            answers = torch.cat([state[ANSWERS], answers], dim=1)
            known = torch.cat([state[KNOWN], known], dim=1)
        known = functional.pad(known, (0, -known.shape[-1] % FLAGS)).unflatten(-1, (-1, FLAGS))
        known = (known * 2 ** torch.arange(FLAGS - 1, -1, -1, device=known.device)).sum(-1)
        recent = [
            functional.pad(values[:, -days:], (0, 0, max(days - values.shape[1], 0), 0), value=gone)
            for values, days, gone in (
                (answers, REMEMBERED, math.nan),
                (known, self.known, 0.0),
            )
        ]
        return torch.cat([part.flatten(1).float() for part in (*recent, *after.values())], dim=1)


def parts(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return names and shapes, for one site, of what a model carries from day to day.

    What the heads answered in the last 30 days, which forcings were known in its spin-up or year,
    tensors of `StefaLand.follow`.
    """
    heads, forcings = len(spec.architecture.heads), len(spec.schema.forcings)
    recent = {
        ANSWERS: (REMEMBERED, heads),
        KNOWN: (max(spec.windows.spin_up, KNOWN_DAYS), -(-forcings // FLAGS)),
    }
    return recent | _carried(spec.architecture)


@cache
def _carried(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    import torch

    from xstefa.model.network import StefaLand

    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        network = StefaLand(architecture).eval()
        nothing = torch.zeros(1, 1, network.forcings), torch.zeros(1, network.attributes)
        _, state = network.follow(*nothing, None)
    return {name: tuple(tensor.shape[1:]) for name, tensor in state.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """What the days before a record have left of its sites.

    Attributes
    ----------
    values : Variable, shape (*sites, width)
        All of `parts`, one after another; the record may have more dimensions.
    days : int
        Since the beginning of the record before.
    """

    values: xr.Variable
    days: int

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of the sites."""
        return tuple(map(str, self.values.dims[:-1]))


def split(values: Floats, spec: ModelSpec, days: int) -> dict[str, Floats | Known]:
    """Return the parts of states, by name, each of shape (site, ...).

    Parameters
    ----------
    values : ndarray, shape (site, width)
    spec : ModelSpec
    days : int
        Since the beginning of the record: of what was answered and known there are no more.
    """
    found: dict[str, Floats | Known] = {}
    for name, (place, shape) in _places(spec).items():
        part = values[:, place].reshape(-1, *shape)
        found[name] = part[:, max(shape[0] - days, 0) :] if name in (ANSWERS, KNOWN) else part
    count = len(spec.schema.forcings)
    flags = np.unpackbits(found[KNOWN].astype(np.uint8), axis=-1, count=count)
    found[KNOWN] = flags.astype(bool)
    return found


def _places(spec: ModelSpec) -> dict[str, tuple[slice, tuple[int, ...]]]:
    """Return where each of `parts` stands in the vector of a site, and its shape."""
    shapes = parts(spec)
    ends = list(accumulate(map(math.prod, shapes.values())))
    places = map(slice, [0, *ends[:-1]], ends)
    return dict(zip(shapes, zip(places, shapes.values(), strict=True), strict=True))


def labelled(
    block: da.Array | Floats, frame: xr.DataArray, model: Model, *, end: xr.DataArray, days: int
) -> xr.Dataset:
    """Return final states as variables that can be saved.

    Parameters
    ----------
    block : array, shape (*sites, width)
    frame : DataArray
        Of the sites.
    model : Model
    end : DataArray
        The last day, a scalar.
    days : int
        Since the beginning of the record.
    """
    found = {}
    for name, (place, shape) in _places(model.spec).items():
        values = block[..., place]
        # Axes of one length have one name, but not in one variable.
        axes = [f"state_{size}" for size in shape]
        axes = [f"{axis}_{i}" if axis in axes[:i] else axis for i, axis in enumerate(axes)]
        found[name] = xr.Variable((*frame.dims, *axes), values.reshape(*block.shape[:-1], *shape))
    found[LENGTH] = xr.Variable((), days, {"long_name": "days of the record", "units": "1"})
    return xr.Dataset(found, coords=frame.coords | {TIME: end.variable})


def carries_state(spec: ModelSpec) -> bool:
    """Whether a model reads a record from its first day to its last, and can go on from there."""
    return isinstance(spec.windows, SegmentPolicy) and spec.windows.span is None


def refuse_within(dataset: xr.Dataset) -> None:
    """Refuse a dataset that a state was put into, where nothing reads it.

    Raises
    ------
    LayoutError
        If it has variables of a state.
    """
    of_state = [
        str(name)
        for name, variable in dataset.data_vars.items()
        if any(str(dim) == f"state_{size}" for dim, size in variable.sizes.items())
    ]
    if of_state:
        raise LayoutError(
            "a state stands beside a dataset, not in it",
            variable=of_state[0],
            found=f"{len(of_state)} parts of a state among the variables",
            expected="the weather alone, and the state as state=",
            fix="ds.drop_dims([dim for dim in ds.dims if dim.startswith('state_')])"
            ".stefa.predict(target, state=state)",
        )


def require_state(model: Model) -> None:
    """Refuse models that carry nothing from day to day.

    Raises
    ------
    ModelError
    """
    if carries_state(model.spec):
        return
    raise ModelError(
        "what a model leaves to the days after is known of those that look back only",
        variable=model.name,
        found="a model that reads windows",
        expected="one that reads a record from its first day to its last",
        fix='model="streamflow", or predict from the whole record with period=...',
    )


def going_on(state: xr.Dataset, model: Model, binding: Binding) -> Past:
    """Return a state as tasks read it, or refuse it.

    Parameters
    ----------
    state : Dataset
        From `spin_up`.
    model : Model
    binding : Binding
        Of what is to follow.

    Raises
    ------
    ModelError
        If it is no state, or that of another model.
    LayoutError
        If its sites are others, or in another order.
    CalendarError
        If the dataset does not begin on the day after.
    """
    require_state(model)
    expected, dataset, layout = parts(model.spec), binding.dataset, binding.layout
    made_by = state.attrs.get("model_hash")
    if made_by != model.content_hash:
        name = state.attrs.get("model_name")
        raise ModelError(
            "a state belongs to the model that made it",
            variable="state",
            found=f"one of {name!r} ({made_by[:12]})" if made_by else "a dataset without a state",
            expected=f"one of {model.name!r} ({model.content_hash[:12]})",
            fix=f"state = history.stefa.spin_up(model={model.name!r})",
        )
    _check_whole(state, {**expected, LENGTH: ()}, model)
    check_sites(state, site_dims(state), binding, what="state")
    if TIME not in state.coords or state[TIME].ndim:
        raise CalendarError(
            "the day that a state is of is not known",
            variable="state",
            found=f"no scalar coordinate {TIME!r}",
            expected="the last day of the record that it was made from",
            fix=f"state = state.assign_coords({TIME}=<that day>)",
        )
    last, calendar = last_day(state)
    if calendar != layout.calendar or last + 1 != layout.days[0]:
        time = layout.time
        raise CalendarError(
            "a record goes on from a state on the day after it",
            variable="state",
            found=f"a state of {str(state[TIME].values)[:10]} ({calendar}), and a dataset that "
            f"begins on {str(dataset[time].values[0])[:10]} ({layout.calendar})",
            expected="a dataset that begins on the day after; days without data may be missing",
            fix=_days_after(state[TIME], dataset[time], last, layout),
        )
    tell_lost(str(state.attrs.get(TOKENS, "")).split(), binding, what="state")
    return Past(values=_joined(state, [*expected]), days=int(state[LENGTH]))


def _check_whole(state: xr.Dataset, shapes: Mapping[str, tuple[int, ...]], model: Model) -> None:
    """Refuse a state of which a part is missing, or was changed in shape."""
    for name, shape in shapes.items():
        found = "nothing of that name"
        if name in state.variables:
            sizes = state[name].sizes
            own = tuple(n for dim, n in sizes.items() if str(dim).startswith("state_"))
            if own == shape and (name != LENGTH or not sizes):
                continue
            found = f"{dict(sizes)}"
        raise LayoutError(
            "a state is used as a whole",
            variable=f"state[{name!r}]",
            found=found,
            expected=f"{shape} at each site" if shape else "one number",
            fix="select sites of a state and nothing else, or make it anew: "
            f"state = history.stefa.spin_up(model={model.name!r})",
        )


def tokens_of(binding: Binding, model: Model) -> list[str]:
    """Return which tokens of a dataset a model reads."""
    return [
        v.name
        for v in model.schema.tokens
        if v.name in model.spec.tokens and v.name in binding.sources
    ]


def tell_lost(before: Iterable[str], binding: Binding, *, what: str) -> None:
    """Warn of tokens that were known before, and are not in what follows."""
    if lost := [name for name in before if name not in binding.sources]:
        warn(
            ForecastWarning(
                f"The {what} has {', '.join(lost)} and the dataset has not: on its days they count "
                f"as not known. Fix: add them to the dataset, or make the {what} without them, to "
                "read both alike."
            )
        )


def site_dims(state: xr.Dataset) -> tuple[str, ...]:
    """Return the dimensions of the sites of a state, wherever they stand among its axes."""
    return tuple(str(d) for d in state[ANSWERS].dims if not str(d).startswith("state_"))


def last_day(state: xr.Dataset) -> tuple[int, str]:
    """Return the number of the day that a state is of, and its calendar."""
    (day,), calendar = day_numbers(state[TIME].expand_dims(TIME))
    return int(day), calendar


def steps_until(state: xr.Dataset, layout: Layout) -> int:
    """Return how many steps of a record a state knows already."""
    if TIME not in state.coords or state[TIME].ndim:
        return 0
    return int(np.searchsorted(layout.days, last_day(state)[0], side="right"))


def _days_after(end: xr.DataArray, time: xr.DataArray, last: int, layout: Layout) -> str:
    """Say how a state gets the day after it."""
    if layout.days[-1] <= last:
        return "a dataset with later days, or a state of an earlier day"
    if layout.days[0] <= last:
        after = time.values[np.searchsorted(layout.days, last, side="right")]
        return f"period=({str(after)[:10]!r}, {str(time.values[-1])[:10]!r})"
    every = f"xr.date_range({str(end.values)[:19]!r}, {str(time.values[-1])[:19]!r}"
    return f"ds = ds.reindex({time.name}={every}, calendar={layout.calendar!r})[1:])"


def _joined(state: xr.Dataset, names: list[str]) -> xr.Variable:
    """Return the parts of a state one after another, shape (*sites, width)."""
    dims, found = site_dims(state), []
    for name in names:
        variable = state[name].variable.transpose(*dims, ...).astype(np.float32)
        found.append(variable.data.reshape(*variable.shape[: len(dims)], -1))
    if all(isinstance(part, np.ndarray) for part in found):
        return xr.Variable((*dims, "state"), np.concatenate(found, axis=-1))
    return xr.Variable((*dims, "state"), da.concatenate(found, axis=-1).rechunk({-1: -1}))


def check_sites(before: xr.Dataset, dims: Iterable[str], binding: Binding, *, what: str) -> None:
    """Refuse what is of other sites than a dataset, or in another order.

    Parameters
    ----------
    before : Dataset
        A state or history.
    dims : iterable of str
        Dimensions of its sites.
    binding : Binding
        Of what follows; it may have members beside.
    what : str
        What `before` is called.

    Raises
    ------
    LayoutError
    """
    dataset, layout, dims = binding.dataset, binding.layout, tuple(dims)
    # Who has one value of text has one of several sites; a number may be that of a member.
    named = [dim for dim in before.coords if before[dim].dtype.kind in "OUT"]
    lacking = [d for d in layout.site_dims if d in (*binding.place_dims, *named) and d not in dims]
    for dim in (*dims, *lacking):
        fix = _agreed(before.indexes.get(dim), dataset.indexes.get(dim), dim, what)
        if dim in lacking:
            found = f"one value of {dim!r}" if dim in before.coords else f"no dimension {dim!r}"
            fix = f"a {what} along {dim!r}, or one site: ds = ds.isel({dim}=0)"
        elif dim not in layout.site_dims:
            found = f"a dimension {dim!r}, which the dataset does not have"
            fix = f"{what} = {what}.isel({dim}=0), or .rename({dim}=<the dataset's>)"
        elif before.sizes[dim] != dataset.sizes[dim]:
            found = f"{before.sizes[dim]} along {dim!r}, and {dataset.sizes[dim]} in the dataset"
        elif not _same(before.indexes.get(dim), dataset.indexes.get(dim)):
            both = zip(before.indexes[dim], dataset.indexes[dim], strict=True)
            mine, other = next((a, b) for a, b in both if a != b)
            found = f"{mine!r} where the dataset has {other!r} along {dim!r}"
        else:
            continue
        raise LayoutError(
            f"the sites of a {what} are not those of the dataset",
            variable=what,
            found=found,
            expected="the same sites in the same order",
            fix=fix,
        )


def _same(one: pd.Index | None, other: pd.Index | None) -> bool:
    return one is None or other is None or one.equals(other)


def _agreed(mine: pd.Index | None, other: pd.Index | None, dim: str, what: str) -> str:
    """Say what gives the sites of both the same labels."""
    if mine is None or other is None or not (here := other.isin(mine)).any():
        fix = f"a {what} of the sites of ds"
        if mine is not None and other is not None and _equal_numbers(mine, other):
            fix = (
                f"{what} = {what}.assign_coords({dim}=ds[{dim!r}])   # the same, written otherwise"
            )
        return fix
    if here.all():
        return f"{what} = {what}.sel({dim}=ds[{dim!r}])"
    if mine.isin(other).all():
        return f"ds = ds.sel({dim}={what}[{dim!r}])"
    others = f"{{*ds.dims, *{what}.dims}} - {{{dim!r}}}"
    return f"ds, {what} = xr.align(ds, {what}, join='inner', exclude={others})"


def _equal_numbers(one: pd.Index, other: pd.Index) -> bool:
    """Whether numbers differ by less than a hundredth of a step, or by whole circles."""
    if len(one) != len(other) or {one.dtype.kind, other.dtype.kind} - {*"fiu"}:
        return False
    step = np.abs(np.diff(other)).min(initial=1)
    off = np.abs(one.to_numpy() - other.to_numpy())
    return bool((np.minimum(off, np.abs(off - 360)) < 0.01 * step).all())
