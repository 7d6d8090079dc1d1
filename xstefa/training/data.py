"""Datasets to learn from: matched, read, split, guarded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import xarray as xr
from dask.utils import parse_bytes
from numpy.typing import NDArray

from xstefa.binding import Binding, plan
from xstefa.errors import MissingTokenError, OptionError, TrainingError, raise_problems, warn
from xstefa.model.ranges import Range, Ranges, join_ranges, ranges_of
from xstefa.schema import Needs, Schema
from xstefa.splits.holdout import Fold, Holdout, as_holdout
from xstefa.splits.leakage import LeakageWarning, refuse_leaks
from xstefa.splits.sites import Mask, Sites
from xstefa.training.records import Record, written
from xstefa.windows import Days, Floats

Datasets: TypeAlias = xr.Dataset | Mapping[str, xr.Dataset]

# Longer lists of sites (cells of a large grid) are described by their number and hash only.
MOST_NAMED_SITES = 20_000

# Copies of some sites that are in memory at a time, of a dataset that is larger.
COPIES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """What becomes of the sites and days of a record.

    Attributes
    ----------
    train : ndarray of bool, shape (site,)
        Sites that are learned from.
    validate : ndarray of bool, shape (site,)
        Sites whose loss is watched.
    days : ndarray of int64, optional
        Days whose observations count, from 1970-01-01; by default all.
    """

    train: Mask
    validate: Mask
    days: Days | None = None

    @property
    def in_use(self) -> Mask:
        """Sites that train or validate, shape (site,)."""
        return self.train | self.validate

    def of(self, sites: Mask) -> Self:
        """Return the split of the record reduced to some sites."""
        return replace(self, train=self.train[sites], validate=self.validate[sites])


class Survey(NamedTuple):
    """Site-days that are learned from, and the range of each token."""

    days: int
    ranges: Ranges


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownSites:
    """The sites of one dataset that can be learned from, and what holds some of them out.

    Attributes
    ----------
    name : str
    binding : Binding
    sites : Sites
        All sites of the dataset.
    present : ndarray of bool, shape (site,)
        Sites at which what a model needs is known: on a grid, the land.
    digest : str
        SHA-256 of names, days and values.
    """

    name: str
    binding: Binding
    sites: Sites
    present: Mask
    digest: str

    @property
    def land(self) -> Sites:
        """Sites that are present: what folds are made of."""
        return self.sites.select(self.present)

    def fold(self, holdout: Holdout | None) -> Fold:
        """Split by a holdout that makes one fold; without one, all trains.

        Raises
        ------
        TrainingError
            If the holdout makes several.
        """
        land = self.land
        if holdout is None:
            return Fold.of_sites("", np.zeros(len(land), dtype=bool), land)
        folds = as_holdout(holdout, name="holdout").folds(land)
        if len(folds) != 1:
            raise TrainingError(
                "one model can leave out one fold only",
                variable="holdout",
                found=f"{len(folds)} folds of {holdout!r}",
                expected="a holdout with one fold",
                fix="use cross_validate, or one fold: holdout.fold(0)",
            )
        return folds[0]

    def names(self, chosen: Mask) -> set[str]:
        """Return the names of chosen sites of a fold; none if the dataset does not name them."""
        land = self.land
        return set(land.ids[chosen].tolist()) if land.named else set()

    def learned(self, train: Mask) -> dict[str, Any]:
        """Return what the provenance says of the sites that are learned from."""
        trained = self.land.ids[train]
        content: dict[str, Any] = {"sha256": self.digest, "sites": len(trained)}
        if len(trained) <= MOST_NAMED_SITES:
            content["trained"] = trained.tolist()
        return content


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData(KnownSites):
    """What one dataset gives to learn from.

    Attributes
    ----------
    record : Record
        Canonical units. In memory it has the sites that are present, on disk all.
    split : Split
        What is learned from.
    at_once : int, optional
        Sites that fit in memory at a time; by default all.
    stride : int
        Days between windows, if there is one for each day: their list has to fit in memory, too.
    """

    record: Record
    split: Split
    at_once: int | None = None
    stride: int = 1

    @classmethod
    def read(
        cls,
        dataset: xr.Dataset,
        *,
        name: str,
        schema: Schema,
        target: str | None,
        length: int,
        rename: Mapping[str, str] | None,
        sites: str | None,
        needs: Needs | None = None,
        memory: int | None = None,
        added: Collection[str] = (),
        hidden: Collection[str] = (),
    ) -> TrainingData:
        """Match a dataset and read it into memory, or, if it is too large, onto the disk.

        Parameters
        ----------
        length : int
            Days of a window; a shorter record is preceded by missing days.
        sites : str, optional
            Variable that names the sites.
        needs : tuple of tuple of str, optional
            What the dataset has to have; by default what the schema requires.
        memory : int, optional
            Bytes that a chunked dataset may take; by default any number.
        added : collection of str
            Tokens that were asked for: what is in doubt of them is refused.
        hidden : collection of str
            Tokens that the model will not read.
        """
        binding = plan(dataset, schema, rename=rename, needs=needs)
        refuse_leaks(binding, target=target, rename=rename, hidden=hidden)
        raise_problems([binding.troubled[name] for name in added if name in binding.troubled])
        binding.require()
        binding.check_ranges()
        found = Sites.of(dataset, binding.layout, name=sites)
        columns, content = schema.columns(binding.needs), hashlib.sha256()
        present, at_once, stride = np.zeros(len(found), dtype=bool), None, 1

        def read(block: Mapping[str, slice] | None = None) -> tuple[NDArray[np.int64], Record]:
            places = np.arange(len(found)).reshape(found.shape)
            rows = places[tuple((block or {}).values())].ravel()
            part = Record.from_binding(binding, ids=found.ids[rows], target=target, block=block)
            present[rows] = part.known_at(columns)
            part = part.at_least(length)
            part.select(present[rows]).add_to(content.update)
            return rows, part

        days = int(np.ptp(binding.layout.days)) + 1
        size = 4 * len(found) * days * (len(schema.forcings) + 1)
        if memory is None or not binding.chunks or size <= memory:
            record = read()[1].select(present)
        else:
            at_once, stride = max(1, len(found) * memory // (COPIES * size)), -(-size // memory)
            record = written(map(read, _blocks(binding, found, at_once)), len(found))
        everywhere = np.ones(int(present.sum()), dtype=bool)
        return cls(
            name=name,
            binding=binding,
            sites=found,
            present=present,
            record=record,
            digest=content.hexdigest(),
            split=Split(train=everywhere, validate=~everywhere),
            at_once=at_once,
            stride=stride,
        )

    def parts(self, chosen: Mask) -> Iterator[Record]:
        """Yield chosen sites of those present, so many at a time as fit in memory; at least once.

        Parameters
        ----------
        chosen : ndarray of bool, shape (site present,)
        """
        if self.at_once is None:
            yield self.record.select(chosen)
            return
        rows = np.flatnonzero(self.present)[chosen]
        for begin in range(0, max(len(rows), 1), self.at_once):
            yield self.record.select_rows(rows[begin : begin + self.at_once])

    def prepared(self, prepare: Callable[[Record], Record], sites: Mask) -> Record:
        """Return the record of some sites as the network reads it, where the record lies."""
        parts = map(prepare, self.parts(sites))
        if self.at_once is None:
            return next(parts)
        count = int(sites.sum())
        begins = range(0, max(count, 1), self.at_once)
        slices = (slice(begin, begin + self.at_once) for begin in begins)
        return written(zip(slices, parts, strict=True), count)

    @property
    def attributes(self) -> Floats:
        """Attributes of the training sites, shape (site, S)."""
        static = self.record.static
        static = static if self.at_once is None else static[self.present]
        return static[self.split.train]

    def sample(self) -> Record:
        """Return the training sites, or of too many for memory some that are spread evenly."""
        chosen = self.split.train
        if self.at_once is not None and (count := int(chosen.sum())) > self.at_once:
            some = np.flatnonzero(chosen)[np.linspace(0, count - 1, self.at_once).astype(int)]
            chosen = np.isin(np.arange(len(chosen)), some)
        return next(self.parts(chosen)).observed_on(self.split.days)

    @cached_property
    def survey(self) -> Survey:
        """What training sites have."""
        days, found = 0, dict[str, Range]()
        for part in self.parts(self.split.train):
            part = part.observed_on(self.split.days)
            days += int(np.isfinite(part.learned).sum())
            ranges = ranges_of(self.binding.schema, part.forcing, part.static)
            found = join_ranges(found, ranges)
        return Survey(days=days, ranges=found)

    def on(self, fold: Fold, validation: Holdout | None) -> Self:
        """Learn from what a fold trains on; validation sites come from these."""
        train, validate = fold.train_sites, np.zeros_like(fold.train_sites)
        if validation is not None:
            found = as_holdout(validation, name="validation").folds(self.land.select(train))
            if len(found) != 1 or not found[0].train_days.all():
                raise TrainingError(
                    "the loss is watched at sites, on the days of training",
                    variable="validation",
                    found=repr(validation),
                    expected="a holdout of sites with one fold",
                    fix="validation=RandomSites(0.1)",
                )
            validate[train] = found[0].check().test_sites
        days = None if fold.train_days.all() else self.binding.layout.days[fold.train_days]
        return replace(self, split=Split(train=train & ~validate, validate=validate, days=days))

    def describe(self) -> dict[str, Any]:
        """Return what goes into the provenance: hash of the data, names of the sites."""
        split, content = self.split, self.learned(self.split.train)
        if "trained" in content and split.validate.any():
            content["validated"] = self.land.ids[split.validate].tolist()
        if split.days is not None:
            content["days"] = len(split.days)
        return content


def _blocks(binding: Binding, sites: Sites, affordable: int) -> Iterator[dict[str, slice]]:
    """Yield blocks of so many sites at most, along the chunks of the dataset."""
    edges = []
    for dim, size in zip(sites.site_dims, sites.shape, strict=True):
        step = min(max(binding.chunks.get(dim, (size,))), affordable)
        affordable = max(1, affordable // step)
        edges.append(
            [(dim, slice(begin, min(begin + step, size))) for begin in range(0, size, step)]
        )
    yield from map(dict, product(*edges))


def read_all(
    datasets: Datasets,
    *,
    schema: Schema,
    target: str | None,
    length: int,
    rename: Mapping[str, str] | None,
    sites: str | Mapping[str, str] | None,
    needs: Needs | None = None,
    memory: str | int | None = None,
    added: Collection[str] = (),
    hidden: Collection[str] = (),
) -> list[TrainingData]:
    """Read one or several datasets, see `TrainingData.read`.

    Parameters
    ----------
    datasets : Dataset or mapping of str to Dataset
    rename : mapping of str to str, optional
        Applies to the datasets that have the variables.
    sites : str or mapping of str to str, optional
        Variable that names the sites, or one for each dataset.
    memory : str or int, optional
        Bytes, or text such as ``"8 GiB"``, that a chunked dataset may take; larger ones
        are written to disk.
    added : collection of str
        Tokens that were asked for.
    hidden : collection of str
        Tokens that the model will not read.

    Raises
    ------
    TrainingError
        If there is no dataset, or none has a variable of `rename`.
    """
    named = by_name(datasets, rename)
    return [
        TrainingData.read(
            dataset,
            name=name,
            schema=schema,
            target=target,
            length=length,
            rename={k: v for k, v in (rename or {}).items() if k in dataset.variables},
            sites=sites.get(name) if isinstance(sites, Mapping) else sites,
            needs=needs,
            memory=None if memory is None else _bytes(memory),
            added=added,
            hidden=hidden,
        )
        for name, dataset in named.items()
    ]


def by_name(
    datasets: Datasets, rename: Mapping[str, str] | None = None
) -> Mapping[str, xr.Dataset]:
    """Return datasets by name, one alone as "data"; see `read_all` for what it refuses."""
    named = {"data": datasets} if isinstance(datasets, xr.Dataset) else datasets
    if not isinstance(named, Mapping) or not named:
        raise TrainingError(
            variable="datasets",
            found=f"{type(datasets).__name__} of length {len(datasets)}",
            expected="a Dataset, or a mapping with at least one dataset",
            fix='{"basins": ds, "towers": another}',
        )
    for variable in rename or {}:
        if not any(variable in dataset.variables for dataset in named.values()):
            raise TrainingError(
                "rename names a variable that no dataset has",
                variable=variable,
                found=", ".join(named),
                expected="a variable of one of them",
                fix="rename={variable of the dataset: token}",
            )
    return named


def _bytes(memory: str | float) -> int:
    try:
        return parse_bytes(memory)
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            variable="memory",
            found=repr(memory),
            expected="bytes, as a number or as text such as '4 GiB'",
            fix="memory='4 GiB'",
        ) from error


def require_added(names: Sequence[str], bindings: Sequence[Binding]) -> None:
    """Raise MissingTokenError if no dataset has a token that is to be added."""
    for name in names:
        if any(name in binding.sources for binding in bindings):
            continue
        first = bindings[0]
        called = {alias.name for alias in first.schema[name].aliases}
        unused = first.table.unused.items()
        like = [f"{variable!r}: {why}" for variable, why in unused if variable in called]
        raise MissingTokenError(
            "no dataset has the token that is to be added",
            variable=name,
            found="; ".join(like) or "no variable that matches it",
            expected=first.table[name].advice,
            fix=f"rename={{'<variable of the dataset>': {name!r}}}",
        )


def fold_all(data: Sequence[KnownSites], holdout: Holdout | None) -> list[Fold]:
    """Split each dataset by a holdout that makes one fold; warn of names that no dataset has.

    Raises
    ------
    TrainingError
        If a site is tested in one dataset and learned from in another.
    """
    folds = [part.fold(holdout) for part in data]
    named = frozenset() if holdout is None else holdout.named_alone()
    absent = sorted(named.difference(*(part.sites.ids.tolist() for part in data)))
    if absent:
        found = ", ".join(map(repr, data[0].sites.ids[:3].tolist()))
        warn(
            LeakageWarning(
                f"{len(absent)} of {len(named)} sites that are to be held out by name are in no "
                f"dataset ({', '.join(map(repr, absent[:3]))}): they hold out nothing. Sites are "
                f"named {found}, ..."
            )
        )
    for part, fold in zip(data, folds, strict=True):
        tested = part.names(fold.test_sites & ~fold.train_sites)
        for other, its in zip(data, folds, strict=True):
            both = tested & other.names(its.train_sites)
            if both:
                raise TrainingError(
                    "the same site is held out of one dataset and learned from in another",
                    variable=min(both),
                    found=f"{len(both)} such sites of {part.name!r} in {other.name!r}",
                    expected="each site on one side",
                    fix="hold out by a hash of the name, HashedSites(), or rename different sites "
                    "that share a name",
                )
    return folds


def share_list(shares: Mapping[str, float] | None, data: Sequence[TrainingData]) -> list[float]:
    """Return how often each dataset is drawn from; by default as often as it has known days.

    Raises
    ------
    TrainingError
        If `shares` names other datasets than there are.
    """
    shares = {part.name: part.survey.days for part in data} if shares is None else shares
    names = [part.name for part in data]
    if set(shares) != set(names):
        raise TrainingError(
            variable="shares",
            found=f"shares of {', '.join(shares)}",
            expected=f"one for each dataset: {', '.join(names)}",
        )
    return [float(shares[name]) for name in names]


def provenance(data: Sequence[TrainingData], holdout: Holdout | None) -> dict[str, Any]:
    """Return the training data as a model's provenance describes them."""
    return {
        "datasets": {part.name: part.describe() for part in data},
        **provenance_of(holdout),
    }


def provenance_of(holdout: Holdout | None) -> dict[str, Any]:
    """Return what was held out, as a model's provenance says it."""
    return {"held_out": None if holdout is None else holdout.to_dict()}
