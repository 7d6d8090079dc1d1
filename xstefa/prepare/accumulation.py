"""Over which time amounts collect: since the step before, or since a restart hours ago.

Nothing in the files of ERA5, ERA5-Land or GFS says which, so the values are weighed. A running
total falls at its restarts, which come at regular hours and take nearly all; packing makes it fall
a little at any hour. Sums of steps fall at every hour, by about as much as they rise. What is
neither is not guessed.

The steps of a day are its *slots*: slot 0 holds the value stamped at the end of the first step. A
rule is the tuple of the slots that begin anew: all for sums of steps, none for a total that never
restarts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding.plain import values_of
from xstefa.errors import OptionError, UnitsError

Restarts: TypeAlias = tuple[int, ...]

_DAY = 86400  # s
_PERIOD = re.compile(r"(\d+)h(?: from (\d\d):(\d\d))?")

# How many days are looked at, more where fewer prove nothing, and how many points of each.
_DAYS_LOOKED_AT = (4, 16, 64)
_POINTS_LOOKED_AT = 1024

# Shares of what stood, or of all that rose. Between the limits nothing is proven.
_NOISE = 0.03  # what packing takes from a running total
_FALLS = 0.1  # what sums of steps lose at least at hours at which a running total would not
_RESTART = 0.6  # what a restart takes at least; half of that where a period has two or three steps
_FALLING = 0.25  # of the values above zero, how many of a step are followed by less
_FAINT = 0.01  # of the largest: what stands below it proves nothing
_MUCH = 0.2  # of the largest at a point
_LEAST_STEPS = 8  # a day: with fewer the daily cycle of radiation looks like a running total
_LEAST_PROOFS = 4


def stated(accumulation: str, *, step: int) -> Restarts:
    """Return the rule that the caller's word stands for; OptionError if none does."""
    slots = _DAY // step
    words = {"step": tuple(range(slots)), "day": (0,), "start": ()}
    text = str(accumulation)  # whatever was given
    if text in words:
        return words[text]
    if found := _PERIOD.fullmatch(text):
        period, first = 3600 * int(found[1]), 60 * (60 * int(found[2] or 0) + int(found[3] or 0))
        if period and _DAY % period == 0 and period % step == 0 and first % step == 0:
            return _every(period // step, first // step, slots)
    raise OptionError(
        "accumulation says over which time amounts collect",
        variable="accumulation",
        found=repr(accumulation),
        expected=f"'step', 'day', 'start' or hours that divide the day into whole numbers of "
        f"steps of {step / 3600:g} h: '6h', '24h from 18:00'",
        fix="accumulation='step' for sums over each step (ERA5), 'day' for sums since 00 UTC "
        "(ERA5-Land), '6h' for sums that restart at 00, 06, 12 and 18 UTC (GFS), 'start' for sums "
        "that never restart",
    )


def name_of(restarts: Restarts, *, step: int) -> str:
    """Return the word for a rule that `stated` understands."""
    slots = _DAY // step
    words = {slots: "step", 0: "start"}
    if len(restarts) in words:
        return words[len(restarts)]
    if restarts == (0,):
        return "day"
    hour, minute = divmod(restarts[0] * step // 60, 60)
    period = f"{_DAY // 3600 // len(restarts)}h"
    return f"{period} from {hour:02}:{minute:02}" if restarts[0] else period


def _every(period: int, first: int, slots: int) -> Restarts:
    return tuple(sorted((first + k) % slots for k in range(0, slots, period)))


def _candidates(slots: int) -> Iterator[Restarts]:
    """Yield the rules of running totals, those with the fewest restarts first."""
    yield ()
    for period in range(slots, 1, -1):
        if slots % period == 0 and 24 % (slots // period) == 0:  # whole hours
            for first in range(period):
                yield _every(period, first, slots)


def restarts_of(
    ds: xr.Dataset,
    names: Sequence[str],
    *,
    time: str,
    ends: NDArray[np.int64],
    step: int,
    sums: Collection[str] = (),
) -> dict[str, Restarts]:
    """Find out over which time amounts collect; reads some days.

    Parameters
    ----------
    names : sequence of str
        The amounts.
    ends : int64 array (time,)
        When the interval of each value ends, in seconds since 1970-01-01.
    step : int
        Seconds.
    sums : collection of str
        Those of `names` that are said to be sums of each step: they are, unless their values prove
        something else.

    Returns
    -------
    dict of str to tuple of int
        A variable whose values prove nothing follows the others, if they agree and its values do
        not contradict.

    Raises
    ------
    UnitsError
        If the values of a variable do not tell.
    """
    slots = _DAY // step
    found: dict[str, Restarts] = {}
    possible: dict[str, list[Restarts]] = {}
    evidence: dict[str, pd.DataFrame] = {}
    for days in _DAYS_LOOKED_AT:
        for name in [name for name in names if name not in found]:
            evidence[name] = _evidence(ds[name], time=time, ends=ends, step=step, days=days)
            verdict, possible[name] = _verdict(evidence[name])
            if verdict is not None:
                found[name] = verdict
    found = {name: tuple(range(slots)) for name in sums} | found
    agreed = set(found.values())
    for name in [name for name in names if name not in found]:
        if len(agreed) == 1 and not agreed.isdisjoint(possible[name]):
            found[name] = next(iter(agreed))
            continue
        raise UnitsError(
            "an amount, and neither metadata nor values tell over which time it collects",
            variable=name,
            found=f"units {ds[name].attrs.get('units')!r} every {step / 3600:g} h; in the days "
            f"looked at the values rise by {evidence[name]['grown'].sum():.4g} and fall by "
            f"{evidence[name]['lost'].sum():.4g}",
            expected="sums over each step, or running totals that restart at regular hours",
            fix=(
                "ds = ds.stefa.daily(accumulation='step')   # if each value covers the time since "
                "the step before (ERA5); accumulation='day' if it covers the time since 00 UTC "
                "(ERA5-Land), '6h' since 00, 06, 12 or 18 UTC (GFS), '24h from 18:00' since 18:00, "
                "'start' since the first day"
            ),
        )
    return found


def some_days(
    array: xr.DataArray, *, time: str, steps: int, days: int
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Read so many `days`, of so many `steps` each and spread over the record, of some points.

    Returns
    -------
    places : int64 array (step,)
        Where along `time` the steps are.
    values : array (step, point)
    """
    size = array.sizes[time]
    if days * steps < size:
        starts = np.linspace(0, size - steps, days).astype(int)
    else:
        starts, steps = np.array([0]), size
    others = [dim for dim in array.dims if dim != time]
    points = int(_POINTS_LOOKED_AT ** (1 / max(1, len(others))))
    thinned = array.isel(
        {dim: slice(None, None, max(1, -(-array.sizes[dim] // points))) for dim in others}
    ).transpose(time, ...)
    # Slices, because files are slow to look up single steps.
    parts = [values_of(thinned.isel({time: slice(i, i + steps)}), str(array.name)) for i in starts]
    places = (starts[:, None] + np.arange(steps)).ravel()
    return places, np.concatenate(parts).reshape(places.size, -1)


def _evidence(
    array: xr.DataArray, *, time: str, ends: NDArray[np.int64], step: int, days: int
) -> pd.DataFrame:
    """Look at so many days, spread over the record, and sum up what happens at each slot.

    Returns
    -------
    DataFrame
        A row for each slot. Of the changes from the step before: how many (`steps`), what `stood`
        before, by how much it fell (`lost`) and rose (`grown`), what is `left`, how many values
        were above zero (`standing`) and how many fell (`falling`). Of those that are not faint, how
        many were followed by any other (`seen`) and by about the same (`kept`); of each step no
        more than a few, because neighbours prove the same.
    """
    slots = _DAY // step
    places, values = some_days(array, time=time, steps=slots + 1, days=days)
    # The sign does not matter: some count evaporation downwards.
    values = np.abs(values.astype(np.float64))
    follows = np.diff(ends[places]) == step
    before, after = values[:-1][follows], values[1:][follows]
    known = np.isfinite(before) & np.isfinite(after)
    before, after = np.where(known, before, 0), np.where(known, after, 0)
    slot = (ends[places][1:][follows] - 1) % _DAY // step
    clear = before > _FAINT * before.max(initial=0.0)
    # The first amount after a restart may be more than all before it, but hardly just as much,
    # and hardly more than much.
    much = before > _MUCH * before.max(axis=0, initial=0.0)
    same = (after >= (1 - _NOISE) * before) & (much | (after <= (1 + _FALLS) * before))
    of_steps = {
        "stood": before,
        "lost": (before - after).clip(min=0),
        "grown": (after - before).clip(min=0),
        "left": after,
        "standing": before > 0,
        "falling": before > after,
        "seen": clear,
        "kept": clear & same,
    }
    table = pd.DataFrame({name: each.sum(axis=1) for name, each in of_steps.items()}, dtype=float)
    table[["seen", "kept"]] = table[["seen", "kept"]].clip(upper=_LEAST_PROOFS)
    return table.assign(steps=1.0).groupby(slot).sum().reindex(range(slots), fill_value=0.0)


def _verdict(evidence: pd.DataFrame) -> tuple[Restarts | None, list[Restarts]]:
    """Return the rule that is proven, if one is, and those that are not disproved."""
    slots = len(evidence)
    running = list(_candidates(slots))
    total = evidence.sum()
    steps = tuple(range(slots))
    possible = []
    for restarts in running:
        at = np.isin(steps, restarts)
        contrast = _contrast(evidence, at)
        if contrast or evidence["lost"][~at].sum() <= _FALLS * max(total["lost"], total["grown"]):
            possible.append(restarts)
            if contrast and slots >= _LEAST_STEPS and _proves(evidence, restarts, running):
                return restarts, possible
    often = total["falling"] >= _FALLING * total["standing"]
    if not possible and often:
        return steps, [steps]
    return None, [*possible, steps] if often else possible


def _contrast(evidence: pd.DataFrame, at: NDArray[np.bool_]) -> bool:
    """Whether nearly all is lost at the restarts `at`, and nearly nothing between them."""
    if not at.any():
        return bool(evidence["lost"].sum() <= _NOISE * evidence["grown"].sum())
    restart, between = evidence[at].sum(), evidence[~at].sum()
    least = _RESTART if at.sum() * 4 <= at.size else _RESTART / 2
    return bool(
        between["lost"] <= _NOISE * between["stood"] and restart["lost"] >= least * restart["stood"]
    )


def _proves(evidence: pd.DataFrame, restarts: Restarts, running: list[Restarts]) -> bool:
    """Whether a rule that the sums allow holds hour by hour, and no other rule does."""
    at = np.isin(evidence.index, restarts)
    restart, between = evidence[at].sum(), evidence[~at].sum()
    seen = evidence["seen"].to_numpy() > 0
    share = (evidence["lost"] / evidence["stood"].where(evidence["stood"] > 0, 1)).to_numpy()
    if (share[~at & seen] > _FALLS).any() or (share[at & seen] < _RESTART / 2).any():
        return False
    # The sun, too, rises for a quarter of the day and is gone at the same hour every day.
    if seen[~at].mean() < 0.5 or between["grown"] < _RESTART / 2 * evidence["grown"].sum():
        return False
    if restart["kept"] > _FALLS * restart["seen"]:
        return False  # some days go by without a restart
    if restarts and 0 not in restarts and restart["left"] == 0:
        return False  # stamped when it restarts, so that the last step before it is lost
    mine = set(restarts)
    # The record of a single day that begins at 00:00 sees no restart.
    single = restarts == (0,) and evidence["steps"][0] == 0
    return all(
        evidence["kept"][list(set(other) - mine)].sum() >= _LEAST_PROOFS
        if set(other) > mine
        else single or seen[list(mine - set(other))].any()
        for other in running
        if set(other) > mine or set(other) < mine
    )
