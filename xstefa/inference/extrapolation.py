"""Values that a model has never seen the like of: said, and not only read by the schema's rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.binding.plain import in_memory
from xstefa.binding.sources import TokenSource
from xstefa.errors import XstefaWarning, warn
from xstefa.inference.engine import EngineKey
from xstefa.inference.job import Job
from xstefa.model.ranges import Range, outside
from xstefa.schema import Variable
from xstefa.windows import YEAR, Floats

_SHOWN = 4  # tokens that a warning names

_READ_AS = {"clip": "the nearest of these", "unknown": "not known", "keep": "they are"}

_told: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()


class ExtrapolationWarning(XstefaWarning):
    """A model is given what lies outside of all that it was trained on."""


def outside_training(binding: Binding, key: EngineKey) -> dict[str, str]:
    """Warn of attributes in memory that lie outside the range of training.

    Returns
    -------
    dict of str to str
        The same as an attribute of the result; empty if there are none.
    """
    found: dict[str, str] = {}
    for variable in key.model.spec.schema.attributes:
        source = binding.sources.get(variable.name)
        if source is not None and _at_hand(source, binding.dataset):
            found |= _attributes(binding.token(variable.name).to_numpy(), variable, key)
    if found and not key.extrapolate:
        _warn("attributes", found, key)
    return {"attributes_outside_training": "; ".join(found.values())} if found else {}


def look_at_block(job: Job, forcing: Floats, static: Floats) -> None:
    """Warn, once for each token of a job in a process, of what planning could not see.

    Parameters
    ----------
    job : Job
    forcing : ndarray, shape (site, day, C)
    static : ndarray, shape (site, S)
    """
    key, spec, told = job.key, job.key.model.spec, _told.setdefault(job, set())
    unseen = [n for n, source in job.sources.items() if not _at_hand(source, job.dataset)]
    attributes = _of_sites(static, key, unseen)
    climate: dict[str, str] = {}
    for i, variable in enumerate(spec.schema.forcings):
        climate |= _climate(forcing[..., i], variable, spec.ranges.get(variable.name))
    for what, found in {"attributes": attributes, "a climate": climate}.items():
        if not found.keys() <= told and not (key.extrapolate and what == "attributes"):
            _warn(what, found, key, where=" (in one block of the data)")
            told.update(found)


def look_at_sites(task: object, key: EngineKey, static: Floats, names: Collection[str]) -> None:
    """Warn as `look_at_block` of attributes alone, once for each token of a task.

    Parameters
    ----------
    task : object
    static : ndarray, shape (site, S)
    names : collection of str
        Those that planning could not see.
    """
    told, found = _told.setdefault(task, set()), _of_sites(static, key, names)
    if not found.keys() <= told and not key.extrapolate:
        _warn("attributes", found, key, where=" (in one block of the data)")
        told.update(found)


def _at_hand(source: TokenSource, dataset: xr.Dataset) -> bool:
    return {*source.variables} <= dataset.variables.keys() and in_memory(dataset, source.variables)


def _of_sites(static: Floats, key: EngineKey, names: Collection[str]) -> dict[str, str]:
    """Return what is outside of training of some attributes, shape (site, S)."""
    schema, found = key.model.spec.schema, dict[str, str]()
    columns = list(schema.site_columns)
    for variable in schema.attributes:
        if variable.name in names:
            first = columns.index(variable.columns[0])
            values = static[:, first : first + variable.length]
            values = values if variable.length > 1 else values[:, 0]
            found |= _attributes(values, variable, key)
    return found


def _attributes(values: Floats, variable: Variable, key: EngineKey) -> dict[str, str]:
    ranges = key.model.spec.ranges
    if (beyond := outside(variable, values, ranges)) is None or not beyond.any():
        return {}
    rule = _READ_AS["keep" if key.extrapolate else variable.beyond]
    if variable.length > 1:
        text = f"{variable.name} (a vector) at {beyond.sum()} of {beyond.size} sites"
    else:
        known = ranges[variable.name]
        text = _counted(variable, values[beyond], values.size, known.low, known.high)
    return {variable.name: f"{text}, read as {rule}"}


def _climate(values: Floats, variable: Variable, known: Range | None) -> dict[str, str]:
    values = values[np.isfinite(values).sum(axis=1) >= YEAR]
    if known is None or not len(values):
        return {}
    means = np.asarray(np.nanmean(values, axis=1, dtype=np.float64))
    outside = known.excludes_means(means)
    if not outside.any():
        return {}
    text = _counted(variable, means[outside], len(means), known.mean_low, known.mean_high)
    return {variable.name: f"mean {text}"}


def _counted(
    variable: Variable, values: NDArray[np.floating], sites: int, low: float, high: float
) -> str:
    """Name the token, how many sites, the value farthest out, and what training had."""
    middle = (low + high) / 2
    farthest = values[np.argmax(np.abs(values - middle))]
    return (
        f"{variable.name} {farthest:.4g} {variable.units} (training: {low:.4g} to {high:.4g}) "
        f"at {values.size} of {sites} sites"
    )


def _warn(what: str, found: Mapping[str, str], key: EngineKey, *, where: str = "") -> None:
    advice = "" if what != "attributes" else "; extrapolate=True reads values as they are"
    shown = [*found.values()][:_SHOWN]
    shown += [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    warn(
        ExtrapolationWarning(
            f"{key.model.name} has never seen {what} like these: {'; '.join(shown)}{where}. "
            f"Expect less skill there{advice}."
        )
    )
