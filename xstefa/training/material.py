"""Datasets as training material: bound, read, split, guarded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from dask.utils import parse_bytes

from xstefa.binding import Binding, bind
from xstefa.errors import OptionError, TrainingError
from xstefa.schema import Needs, Schema
from xstefa.splits.holdout import Fold, Holdout, as_holdout
from xstefa.splits.leakage import LeakageWarning, refuse_leaks
from xstefa.splits.sites import Mask, Sites
from xstefa.training.samples import Record, Split
from xstefa.training.streaming import Stream, cut, is_too_large
from xstefa.windows import Days

Datasets: TypeAlias = xr.Dataset | Mapping[str, xr.Dataset]

# Longer lists of sites (cells of a large grid) are told by their number and hash only.
MOST_NAMED_SITES = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What one dataset gives to learn from.

    Attributes
    ----------
    name : str
    binding : Binding
    sites : Sites
        All sites of the dataset.
    present : ndarray of bool, shape (site,)
        Sites at which what a model needs is known: on a grid, the land. `record` has only these.
    record : Record
        Canonical units; not split. Of a dataset larger than memory a sample of it.
    stream : Stream, optional
        That dataset.
    """

    name: str
    binding: Binding
    sites: Sites
    present: Mask
    record: Record
    stream: Stream | None = None

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
    ) -> Material:
        """Bind a dataset and read it into memory, or, if it is too large, a sample.

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
        """
        refuse_leaks(dataset, schema, target=target, rename=rename)
        binding = bind(dataset, schema, rename=rename, needs=needs)
        binding.check_ranges()
        found = Sites.of(dataset, binding.layout, name=sites)
        if memory is not None and is_too_large(binding, memory):
            stream = Stream(
                binding=binding,
                sites=found,
                blocks=cut(binding, memory),
                target=target,
                length=length,
                keep=np.ones(len(found), dtype=bool),
            )
            record, present = stream.sample()
            return cls(
                name=name,
                binding=binding,
                sites=found,
                present=present,
                record=record,
                stream=stream,
            )
        record = Record.from_binding(binding, ids=found.ids.tolist(), target=target)
        present = record.known_at(schema.columns(binding.needs))
        return cls(
            name=name,
            binding=binding,
            sites=found,
            present=present,
            record=record.select(present).at_least(length),
        )

    @cached_property
    def known_land(self) -> Sites:
        """Sites that folds are made of. A stream does not know yet where land is: all of them."""
        return self.sites if self.stream is not None else self.sites.select(self.present)

    def fold(self, holdout: Holdout | None) -> Fold:
        """Split by a holdout that makes one fold; without one, all trains.

        Raises
        ------
        TrainingError
            If the holdout makes several.
        """
        if holdout is None:
            every = np.ones(len(self.known_land), dtype=bool)
            always = np.ones(len(self.known_land.days), dtype=bool)
            return Fold(
                name="",
                train_sites=every,
                test_sites=~every,
                train_days=always,
                test_days=~always,
            )
        folds = as_holdout(holdout, name="holdout").folds(self.known_land)
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
        land = self.known_land
        return set(land.ids[chosen].tolist()) if land.named else set()

    def split(self, fold: Fold, validation: Holdout | None) -> Split:
        """Say what becomes of the record's sites and days; validation sites come from training."""
        train, validate = fold.train_sites, None
        if self.stream is not None:
            train = train[self.present]
        if validation is not None:
            found = as_holdout(validation, name="validation").folds(
                self.sites.select(self.present).select(train)
            )
            if len(found) != 1 or not found[0].train_days.all():
                raise TrainingError(
                    "the loss is watched at sites, on the days of training",
                    variable="validation",
                    found=repr(validation),
                    expected="a holdout of sites with one fold",
                    fix="validation=RandomSites(0.1)",
                )
            validate = train.copy()
            validate[train] = found[0].check().test_sites
            train = train & ~validate
        days: Days | None = None
        if not fold.train_days.all():
            days = self.binding.layout.days[fold.train_days]
        return Split(train=train, validate=validate, days=days)

    def streamed(self, fold: Fold, split: Split) -> Stream | None:
        """Return the stream of the training sites, for a dataset larger than memory."""
        if self.stream is None:
            return None
        keep = fold.train_sites.copy()
        if split.validate is not None:
            keep[np.flatnonzero(self.present)[split.validate]] = False
        return self.stream.restricted(keep, split.days)

    def describe(self, split: Split, stream: Stream | None = None) -> dict[str, Any]:
        """Return what goes into the provenance: hash of the data, names of the sites."""
        content: dict[str, Any]
        if stream is None:
            trained = self.record.ids[split.train]
            content = {"sha256": self.record.digest()}
        else:
            trained = self.sites.ids[stream.keep]
            content = {"dask": stream.digest}
        content["sites"] = len(trained)
        if len(trained) <= MOST_NAMED_SITES:
            content["trained"] = trained.tolist()
            if split.validate is not None:
                content["validated"] = self.record.ids[split.validate].tolist()
        if split.days is not None:
            content["days"] = len(split.days)
        return content


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
) -> list[Material]:
    """Read one or several datasets, see `Material.read`.

    Parameters
    ----------
    datasets : Dataset or mapping of str to Dataset
    rename : mapping of str to str, optional
        Applies to the datasets that have the variables.
    sites : str or mapping of str to str, optional
        Variable that names the sites, or one for each dataset.
    memory : str or int, optional
        Bytes, or text such as ``"8 GiB"``, that a chunked dataset may take; larger ones stream.

    Raises
    ------
    TrainingError
        If there is no dataset, or none has a variable of `rename`.
    """
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
    return [
        Material.read(
            dataset,
            name=name,
            schema=schema,
            target=target,
            length=length,
            rename={k: v for k, v in (rename or {}).items() if k in dataset.variables},
            sites=sites.get(name) if isinstance(sites, Mapping) else sites,
            needs=needs,
            memory=None if memory is None else _bytes(memory),
        )
        for name, dataset in named.items()
    ]


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


def fold_all(material: Sequence[Material], holdout: Holdout | None) -> list[Fold]:
    """Split each dataset by a holdout that makes one fold; warn of names that no dataset has.

    Raises
    ------
    TrainingError
        If a site is tested in one dataset and learned from in another.
    """
    folds = [part.fold(holdout) for part in material]
    named = frozenset() if holdout is None else holdout.named_alone()
    absent = sorted(named.difference(*(part.sites.ids.tolist() for part in material)))
    if absent:
        found = ", ".join(map(repr, material[0].sites.ids[:3].tolist()))
        warnings.warn(
            f"{len(absent)} of {len(named)} sites that are to be held out by name are in no "
            f"dataset ({', '.join(map(repr, absent[:3]))}): they hold out nothing. Sites are named "
            f"{found}, ...",
            LeakageWarning,
            stacklevel=5,
        )
    for part, fold in zip(material, folds, strict=True):
        tested = part.names(fold.test_sites & ~fold.train_sites)
        for other, its in zip(material, folds, strict=True):
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


def share_list(
    shares: Mapping[str, float] | None, material: Sequence[Material], days: Sequence[int]
) -> list[float]:
    """Return how often each dataset is drawn from; by default as often as it has known days.

    Raises
    ------
    TrainingError
        If `shares` names other datasets than there are.
    """
    if shares is None:
        return [float(count) for count in days]
    names = [part.name for part in material]
    if set(shares) != set(names):
        raise TrainingError(
            variable="shares",
            found=f"shares of {', '.join(shares)}",
            expected=f"one for each dataset: {', '.join(names)}",
        )
    return [float(shares[name]) for name in names]
