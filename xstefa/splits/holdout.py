"""Which sites and days a model may not see in training.

Holdouts are data: frozen, equal if they say the same, printable, JSON-able. Given the sites of a
dataset they say which cells (site, day) train and which test. Sites are assigned by a hash of their
identifiers, so that neither their order nor the machine matters.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xstefa.errors import OptionError, TrainingError
from xstefa.splits.sites import Mask, Sites, as_code

RELEASE_SALT = "xstefa-release-1"
"""Names the tenth of all sites that choices were made on: validation."""

TEST_SALT = "xstefa-test-1"
"""Names a second tenth, to be scored once, when all choices are made."""

HUC02_REGIONS: tuple[tuple[str, ...], ...] = (
    ("1", "2"),
    ("3", "6"),
    ("4", "5", "7"),
    ("9", "10"),
    ("8", "11", "12", "13"),
    ("14", "15", "16", "18"),
    ("17",),
)
"""The seven regions of the StefaLand paper (arXiv:2509.17942): groups of HUC-02 units."""

EARTH = 6371.0
"""Radius of the earth [km]."""

Floats: TypeAlias = NDArray[np.float64]
Json: TypeAlias = "dict[str, Any]"

_MASKS = ("train_sites", "train_days", "test_sites", "test_days")


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One split. A cell (site, day) trains or tests if its site and its day do; none does both.

    Attributes
    ----------
    name : str
    train_sites, test_sites : ndarray of bool, shape (site,)
    train_days, test_days : ndarray of bool, shape (time,)
    """

    name: str
    train_sites: Mask
    test_sites: Mask
    train_days: Mask
    test_days: Mask

    @classmethod
    def of_sites(cls, name: str, out: Mask, sites: Sites) -> Fold:
        """Hold sites out, on all days."""
        always = np.ones(len(sites.days), dtype=bool)
        return cls(name=name, train_sites=~out, test_sites=out, train_days=always, test_days=always)

    def check(self) -> Fold:
        """Return the fold itself.

        Raises
        ------
        TrainingError
            If nothing is left to train or to test on.
        """
        for part in _MASKS:
            role, what = part.split("_")
            if what == "days" and not getattr(self, part).size:
                continue  # sites with static attributes only
            if not getattr(self, part).any():
                raise TrainingError(
                    f"a fold has no {what} to {role} on",
                    variable=self.name,
                    found=f"none of {len(getattr(self, part))} {what}",
                    expected="at least one",
                    fix="use fewer folds, or other bounds",
                )
        return self


@dataclass(frozen=True)
class Holdout(ABC):
    """A rule that splits sites, days or both. ``a & b`` holds out what is in both tests."""

    @abstractmethod
    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split, each fold under the number that `fold` takes.

        Raises
        ------
        TrainingError
            If a fold would be empty.
        """

    def folds(self, sites: Sites) -> tuple[Fold, ...]:
        """Split, as `numbered` does."""
        return tuple(self.numbered(sites).values())

    def named(self, ids: Iterable[str]) -> Mask:
        """Mark the sites that are held out whatever else there is: by their names alone."""
        return np.zeros(len(list(ids)), dtype=bool)

    def named_alone(self) -> frozenset[str]:
        """Return the names that it, or what it is made of, names one by one."""
        parts: list[Any] = [getattr(self, field.name) for field in fields(self)]
        parts += [item for part in parts if isinstance(part, tuple) for item in part]
        return frozenset().union(*(p.named_alone() for p in parts if isinstance(p, Holdout)))

    def __and__(self, other: Holdout) -> Both:
        return Both(self, other)

    def fold(self, number: int) -> OneFold:
        """Return the holdout that consists of one fold of this one, counted from 0."""
        return OneFold(self, number)

    def to_dict(self) -> Json:
        """Return a JSON-able form."""
        content = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        return {"kind": type(self).__name__, **content}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Holdout:
        """Read the form written by `to_dict`, also after it has been JSON.

        Raises
        ------
        TrainingError
            If it names a kind that this version does not have.
        """
        parts = {name: _revived(value) for name, value in content.items()}
        kind, known = parts.pop("kind"), holdout_kinds()
        if kind not in known:
            raise TrainingError(
                "an unknown kind of holdout",
                found=repr(kind),
                expected=f"one of {', '.join(known)}",
            )
        return known[kind](**parts)


def holdout_kinds() -> dict[str, type[Holdout]]:
    """Return all kinds of holdouts by name."""
    return {kind.__name__: kind for kind in Holdout.__subclasses__()}


def _plain(value: object) -> Any:
    if isinstance(value, Holdout):
        return value.to_dict()
    return tuple(_plain(v) for v in value) if isinstance(value, tuple) else value


def _revived(value: object) -> Any:
    if isinstance(value, Mapping):
        return Holdout.from_dict(value)
    return tuple(map(_revived, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class RandomGroups(Holdout):
    """Random groups of sites, equal in size give or take one, each held out once: k-fold.

    With ten groups this is the PUB experiment, prediction in ungauged basins.

    Parameters
    ----------
    groups : int
    seed : int
        Another seed gives other groups.
    """

    groups: int = 10
    seed: int = 0

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into `groups` folds."""
        fix = "TimeBlocks(2)" if len(sites.days) else "a dataset of more sites"
        if len(sites) > 1:
            fix = f"RandomGroups({min(10, len(sites))})"
        _check_number("groups", self.groups, "sites", 2, len(sites), fix=fix)
        group = _order(sites.ids, f"groups-{self.seed}") % self.groups
        return {
            k: Fold.of_sites(f"group {k + 1} of {self.groups}", group == k, sites).check()
            for k in range(self.groups)
        }


@dataclass(frozen=True)
class RandomSites(Holdout):
    """A random share of the sites, held out once.

    Parameters
    ----------
    fraction : float
        Share of sites, between 0 and 1; at least one site is held out and one is not.
    seed : int
    """

    fraction: float = 0.1
    seed: int = 0

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into one fold."""
        _check_fraction(self.fraction)
        count = min(max(1, round(self.fraction * len(sites))), len(sites) - 1)
        out = _order(sites.ids, f"sites-{self.seed}") < count
        return {0: Fold.of_sites(f"{count} random sites", out, sites).check()}


@dataclass(frozen=True)
class HashedSites(Holdout):
    """The sites that `held_out` marks: the rule of the released weights.

    Parameters
    ----------
    fraction : float
    salt : str
    """

    fraction: float = 0.1
    salt: str = RELEASE_SALT

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into one fold, which tests nothing if the hash holds out none of the sites."""
        return {0: Fold.of_sites(f"held out by {self.salt}", self.named(sites.ids), sites)}

    def named(self, ids: Iterable[str]) -> Mask:
        """Mark them by the hash."""
        _check_fraction(self.fraction)
        return held_out(ids, fraction=self.fraction, salt=self.salt)


@dataclass(frozen=True)
class NamedSites(Holdout):
    """Sites held out by name: all gauges of one river, for instance.

    Parameters
    ----------
    names : tuple of str
        As the data name their sites. Those that a dataset does not have hold out nothing; those
        that none has are warned of in training.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        names = np.atleast_1d(self.names)
        if isinstance(self.names, str) or names.ndim > 1 or names.dtype.kind not in "UTSiu":
            raise OptionError(
                variable="names",
                found=repr(self.names),
                expected="names of sites",
                fix='NamedSites(("01013500", "01022500"))',
            )
        object.__setattr__(self, "names", tuple(map(str, names.tolist())))

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into one fold, which tests nothing if none of the sites is named."""
        return {0: Fold.of_sites("named sites", self.named(sites.ids), sites)}

    def named(self, ids: Iterable[str]) -> Mask:
        """Mark them."""
        return np.isin(list(ids), self.names)

    def named_alone(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(self.names)


@dataclass(frozen=True)
class Regions(Holdout):
    """Whole regions, each held out once.

    With ``Regions("huc_02", HUC02_REGIONS)`` this is the paper's PUR experiment, prediction in
    ungauged regions.

    Parameters
    ----------
    by : str
        Variable of the dataset that says where a site belongs.
    regions : tuple of tuple of str, optional
        Values that make a region together; by default every value is a region. Codes are compared
        without leading zeros.
    """

    by: str
    regions: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.regions is not None:
            plain = tuple(tuple(as_code(value) for value in group) for group in self.regions)
            object.__setattr__(self, "regions", plain)

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split; every site has to belong to a region, those without sites make no fold."""
        found = sites.values(self.by)
        present = sorted(set(found) - {"", "nan"}, key=lambda v: (len(v), v))
        groups = self.regions or tuple((value,) for value in present)
        stray = ~np.isin(found, [value for group in groups for value in group])
        if stray.any():
            values = ", ".join(sorted(map(repr, set(found[stray].tolist()))))
            raise TrainingError(
                "some sites are in no region",
                variable=self.by,
                found=f"{stray.sum()} sites with values {values}",
                expected="each value in one region",
                fix="add the values to regions=, give the sites others, or drop them",
            )
        tests = [("+".join(group), np.isin(found, group)) for group in groups]
        return {
            number: Fold.of_sites(f"{self.by} {name}", out, sites).check()
            for number, (name, out) in enumerate(tests)
            if out.any()
        }


@dataclass(frozen=True)
class BlocksOfSpace(Holdout):
    """Blocks of the map, each held out once with others, so that no test site has a neighbour.

    Blocks are as wide as high, also towards the poles, and are dealt to groups in an order that
    depends on their places alone, so that groups have about as many sites each.

    Parameters
    ----------
    degrees : float
        Height of a block, in degrees of latitude.
    groups : int
    buffer : float
        Distance [km] from any test site up to which sites are neither trained nor tested on.
    seed : int
        Another seed deals the blocks otherwise.
    """

    degrees: float = 5.0
    groups: int = 5
    buffer: float = 50.0
    seed: int = 0

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into `groups` folds; every site has to have a latitude and longitude."""
        if not (self.degrees > 0 and self.buffer >= 0):
            raise TrainingError(
                variable="degrees" if self.degrees <= 0 else "buffer",
                found=f"degrees={self.degrees}, buffer={self.buffer}",
                expected="a height above 0, and a distance of 0 or more",
                fix="BlocksOfSpace(degrees=5, buffer=50)",
            )
        latitude, longitude = sites.places()
        band = np.floor(latitude / self.degrees)
        middle = np.cos(np.radians((band + 0.5) * self.degrees))
        around = np.maximum(1, np.round(360 * np.abs(middle) / self.degrees))
        column = np.floor((longitude % 360) / 360 * around)
        names = [f"{int(row)},{int(place)}" for row, place in zip(band, column, strict=True)]
        blocks, block = np.unique(names, return_inverse=True)
        _check_number("groups", self.groups, "blocks", 2, len(blocks))
        counts, fold = np.bincount(block), np.empty(len(blocks), dtype=int)
        filled = np.zeros(self.groups)
        for number in np.argsort(_order(blocks, f"blocks-{self.seed}")):
            fold[number] = filled.argmin()
            filled[fold[number]] += counts[number]
        found = {}
        for k in range(self.groups):
            out = fold[block] == k
            name = f"group {k + 1} of {self.groups} of blocks of {self.degrees:g} degrees"
            whole = Fold.of_sites(name, out, sites)
            near = _within(latitude, longitude, out, self.buffer)
            found[k] = replace(whole, train_sites=~near).check()
        return found


@dataclass(frozen=True)
class Period(Holdout):
    """A period, held out at all sites.

    Parameters
    ----------
    start, end : str
        First and last day tested, as ISO dates.
    gap : int
        Days before and after it that are neither trained nor tested on.
    """

    start: str
    end: str
    gap: int = 0

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into one fold."""
        first, last = sites.day_number(self.start), sites.day_number(self.end)
        out = (sites.days >= first) & (sites.days <= last)
        return {0: _over_days(f"{self.start} to {self.end}", out, sites, self.gap)}


@dataclass(frozen=True)
class TimeBlocks(Holdout):
    """Consecutive blocks of days, equal give or take a day, each held out once: k-fold over time.

    Parameters
    ----------
    blocks : int
    gap : int
        Days before and after a block that are neither trained nor tested on with it.
    """

    blocks: int = 5
    gap: int = 0

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into `blocks` folds."""
        fix = None if len(sites.days) else "a holdout of sites: RandomGroups(5)"
        _check_number("blocks", self.blocks, "days", 2, len(sites.days), fix=fix)
        block = np.arange(len(sites.days)) * self.blocks // len(sites.days)
        return {
            k: _over_days(f"block {k + 1} of {self.blocks}", block == k, sites, self.gap)
            for k in range(self.blocks)
        }


@dataclass(frozen=True)
class Both(Holdout):
    """Every fold of one holdout with every fold of another.

    Tested is what both hold out, trained what neither does: with regions and a period, an
    ungauged region in years nobody has seen. Cells that only one holds out are left unused.
    """

    first: Holdout
    second: Holdout

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split; the second holdout's number runs faster."""
        first, second = self.first.numbered(sites), self.second.numbered(sites)
        return {
            i * (max(second) + 1) + k: Fold(
                name=f"{a.name}, {b.name}",
                **{part: getattr(a, part) & getattr(b, part) for part in _MASKS},
            ).check()
            for i, a in first.items()
            for k, b in second.items()
        }


@dataclass(frozen=True)
class OneFold(Holdout):
    """One fold of a holdout, counted from 0."""

    holdout: Holdout
    number: int

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Return that fold."""
        found = self.holdout.numbered(sites)
        if self.number not in found:
            raise TrainingError(
                variable="fold",
                found=f"fold {self.number}",
                expected=f"one of {', '.join(map(str, found))}",
            )
        return {0: found[self.number]}


@dataclass(frozen=True)
class AllTests(Holdout):
    """All sites that any fold of some holdouts tests, held out at once.

    A foundation model that is pretrained without them is clean for all of those folds.
    """

    holdouts: tuple[Holdout, ...]

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Split into one fold, which tests nothing if none of the holdouts does."""
        tested = [fold.test_sites for holdout in self.holdouts for fold in holdout.folds(sites)]
        fold = Fold.of_sites("all tests", np.any(tested, axis=0), sites)
        # Together they may leave no site to learn from.
        return {0: fold if fold.train_sites.any() else fold.check()}

    def named(self, ids: Iterable[str]) -> Mask:
        """Mark those that any of the holdouts marks."""
        ids = list(ids)
        return np.any([holdout.named(ids) for holdout in self.holdouts], axis=0)


@dataclass(frozen=True)
class FewSites(Holdout):
    """The folds of another holdout with only some of the training sites.

    Parameters
    ----------
    holdout : Holdout
    sites : int
        Training sites that are kept. Fewer sites are a subset of more.
    seed : int
    """

    holdout: Holdout
    sites: int
    seed: int = 0

    def numbered(self, sites: Sites) -> dict[int, Fold]:
        """Thin the training sites of each fold; the tests stay as they are."""
        order = _order(sites.ids, f"few-{self.seed}")
        thinned = {}
        for number, fold in self.holdout.numbered(sites).items():
            available = np.sort(order[fold.train_sites])
            _check_number("sites", self.sites, "training sites", 1, len(available))
            kept = fold.train_sites & (order <= available[self.sites - 1])
            thinned[number] = replace(fold, train_sites=kept)
        return thinned


def as_holdout(value: object, *, name: str) -> Holdout:
    """Return an argument if it is a holdout.

    Raises
    ------
    OptionError
        If it is not.
    """
    if isinstance(value, Holdout):
        return value
    raise OptionError(
        variable=name,
        found=repr(value),
        expected=f"one of {', '.join(holdout_kinds())}, or two joined by &",
        fix=f"from xstefa.splits.holdout import RandomSites; {name}=RandomSites(0.1)",
    )


PUB = RandomGroups(10)
"""Prediction in ungauged basins as in the paper: ten random groups."""

PUR = Regions("huc_02", HUC02_REGIONS)
"""Prediction in ungauged regions as in the paper: seven groups of HUC-02 units."""


def held_out(
    site_ids: Iterable[str], *, fraction: float = 0.1, salt: str = RELEASE_SALT
) -> NDArray[np.bool_]:
    """Mark the sites held out of pretraining and training, by a hash of their identifier.

    A hash, unlike a shuffled index, puts a gauge that appears in two data sets (CAMELS-US and
    MOPEX share some) on the same side of the split, and keeps every site on its side when others
    are added.

    Parameters
    ----------
    site_ids : iterable of str
        Identifiers as published by the data owner (USGS gauge number, FLUXNET site code, ...).
    fraction : float
        Share of sites to hold out, in expectation.
    salt : str
        Names the split; another salt gives an independent split.

    Returns
    -------
    ndarray of bool, shape (site,)
    """
    return np.array([_hash(salt, site) / 2**64 < fraction for site in site_ids], dtype=bool)


def _hash(salt: str, site: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}:{site}".encode()).digest()[:8], "big")


def _order(ids: NDArray[np.str_], salt: str) -> NDArray[np.int64]:
    """Return each site's place in a random order that depends on the identifiers alone."""
    ranked = sorted(range(len(ids)), key=lambda i: (_hash(salt, str(ids[i])), str(ids[i])))
    return np.argsort(ranked)


def _within(latitude: Floats, longitude: Floats, out: Mask, distance: float) -> Mask:
    """Mark sites within a distance [km] of any of those in `out`, these included."""
    from scipy.spatial import cKDTree

    up, along = np.radians(latitude), np.radians(longitude)
    flat = np.cos(up)
    points = np.stack([flat * np.cos(along), flat * np.sin(along), np.sin(up)], axis=1)
    nearest, _ = cKDTree(points[out]).query(points)
    return np.asarray(out | (nearest < 2 * np.sin(min(distance / EARTH / 2, np.pi / 2))))


def _over_days(name: str, out: Mask, sites: Sites, gap: int) -> Fold:
    everywhere = np.ones(len(sites), dtype=bool)
    tested = sites.days[out]
    near = np.zeros(len(sites.days), dtype=bool)
    if len(tested):
        near = (sites.days >= tested[0] - gap) & (sites.days <= tested[-1] + gap)
    return Fold(
        name=name, train_sites=everywhere, test_sites=everywhere, train_days=~near, test_days=out
    ).check()


def _check_number(
    variable: str, number: int, what: str, least: int, most: int, fix: str | None = None
) -> None:
    if not least <= number <= most:
        raise TrainingError(
            variable=variable,
            found=f"{number} {variable} of {most} {what}",
            expected=f"between {least} and {most}" if most > least else f"{least} {what} or more",
            fix=fix,
        )


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise TrainingError(
            variable="fraction", found=str(fraction), expected="more than 0 and less than 1"
        )
