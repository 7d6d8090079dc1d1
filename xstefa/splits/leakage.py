"""Guards against leakage: predictors that tell the target, sites seen in training, twins."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.binding.facts import describe
from xstefa.binding.rules import match_target
from xstefa.errors import TrainingError, XstefaWarning
from xstefa.splits.holdout import Holdout, held_out
from xstefa.splits.sites import Sites
from xstefa.windows import Floats

UNKNOWN, SEEN, HELD_OUT = 0, 1, 2
ROLES = {"unknown": UNKNOWN, "seen_in_training": SEEN, "held_out": HELD_OUT}

COMPARED_DAYS = 2000
LEAST_COMMON_DAYS = 100


class LeakageWarning(XstefaWarning):
    """A score may be better than it deserves."""


def refuse_leaks(
    binding: Binding,
    *,
    target: str | None = None,
    rename: Mapping[str, str] | None = None,
    hidden: Collection[str] = (),
) -> None:
    """Refuse predictors that are computed from a target, or are one.

    Matching never takes them for a target of the schema; `rename` could, and a target of the user's
    own may be what a token reads, too.

    Parameters
    ----------
    binding : Binding
        The dataset, as it was matched.
    target : str, optional
        The one that is learned.
    rename : mapping of str to str, optional
        Dataset variable to token.
    hidden : collection of str
        Tokens that the model will not read.

    Raises
    ------
    TrainingError
        Naming the variable.
    """
    dataset, schema = binding.dataset, binding.schema
    inputs = {alias.name for token in schema.tokens for alias in token.aliases}
    for variable, token in (rename or {}).items():
        named = dataset[variable].attrs.get("standard_name") if variable in dataset else None
        for known in schema.targets:
            if known.static and known.name != target:
                continue  # the texture of a soil, say, tells a model of streamflow something
            observed = variable in {alias.name for alias in known.aliases} - inputs
            observed |= named in {name.name for name in known.standard_names}
            if variable not in known.leaking and (not observed or token == known.name):
                continue
            what = "computed from it" if variable in known.leaking else "an observation of it"
            raise TrainingError(
                f"a model of {known.name} must not read what is {what}",
                variable=variable,
                found=f"rename gives it to {token!r}",
                expected="predictors that are known where the target is not",
                fix=f"leave {variable!r} out of rename",
            )
    if target is None:
        return
    facts = describe(dataset, time=binding.layout.time).values()
    observing = {match.variable.name for match in match_target(facts, schema.target(target))}
    for token, source in binding.sources.items():
        both = observing.intersection(source.variables)
        if both and token not in hidden:
            raise TrainingError(
                f"a model of {target} must not read what is an observation of it",
                variable=", ".join(sorted(both)),
                found=f"it provides the token {token!r}",
                expected="predictors that are known where the target is not",
                fix=f"hide the token from the model: Target(..., hidden=({token!r},)), or in TOML "
                f"hidden = [{token!r}]",
            )
    tokens = [schema[name] for name in hidden if name in schema]
    telling = {alias.name: token.name for token in tokens for alias in token.aliases}
    for variable, token in (rename or {}).items():
        if variable in telling and token not in hidden:
            raise TrainingError(
                f"a model of {target} must not read what tells it",
                variable=variable,
                found=f"rename gives it to {token!r}; by its name it is {telling[variable]!r}, "
                "which is hidden",
                expected="predictors that are known where the target is not",
                fix=f"leave {variable!r} out of rename",
            )


def roles(
    provenance: Mapping[str, Any], ids: NDArray[np.str_], *, named: bool = True
) -> NDArray[np.int8]:
    """Say of each site whether a model has learned from it, as far as its provenance tells.

    Names are all there is to compare. Where a dataset names its sites otherwise than the training
    data did, nothing is known of them: that a name was not trained on then says nothing.

    Parameters
    ----------
    provenance : mapping
        `ModelSpec.provenance`; that of the model it was fine-tuned from counts too.
    ids : ndarray of str, shape (site,)
    named : bool
        Whether these are names, not numbers or coordinates in place of names.

    Returns
    -------
    ndarray of int8, shape (site,)
        A value of `ROLES`.
    """
    stages = []
    while provenance:
        stage = _roles_in(provenance, ids, named)
        if stage is not None:
            stages.append(stage)
        foundation = provenance.get("foundation")
        provenance = foundation.get("provenance", {}) if isinstance(foundation, Mapping) else {}
    if not stages:
        return np.full(len(ids), UNKNOWN, dtype=np.int8)
    seen = np.any([stage == SEEN for stage in stages], axis=0)
    out = np.all([stage == HELD_OUT for stage in stages], axis=0)
    return np.select([seen, out], [SEEN, HELD_OUT], UNKNOWN).astype(np.int8)


def site_roles(provenance: Mapping[str, Any], sites: Sites) -> xr.DataArray:
    """Say of each site whether a model has learned from it, as a CF flag variable."""
    return sites.labeled(
        roles(provenance, sites.ids, named=sites.named),
        long_name="whether the model learned from the site, as its provenance tells",
        flag_values=np.array(list(ROLES.values()), dtype=np.int8),
        flag_meanings=" ".join(ROLES),
    )


def _roles_in(
    provenance: Mapping[str, Any], ids: NDArray[np.str_], named: bool
) -> NDArray[np.int8] | None:
    """Return what one stage of training, pretraining or fine-tuning, tells; None if nothing."""
    datasets, salt, rule = (provenance.get(key) for key in ("datasets", "holdout", "held_out"))
    trained: set[str] = set()
    if isinstance(datasets, Mapping):
        trained = {
            site
            for content in datasets.values()
            for use in ("trained", "validated")
            for site in content.get(use, ())
        }
    elif not isinstance(salt, str):
        return None
    bare, forms = set(map(_bare, trained)), set(map(_form, trained))
    seen = np.array([_bare(site) in bare for site in ids], dtype=bool)
    alike = np.array([_form(site) in forms for site in ids], dtype=bool)
    out = np.zeros(len(ids), dtype=bool)
    if seen.any():
        out = alike & ~seen  # the names are those of training, and theirs are not among them
    elif named and isinstance(salt, str):  # of older models only the rule is known
        published = [_published(site) for site in ids]
        alike = np.array([bool(_PUBLISHED.fullmatch(site)) for site in published], dtype=bool)
        out = alike & held_out(published, salt=salt)
    elif named and isinstance(rule, Mapping):
        out = alike & Holdout.from_dict(rule).named(ids)
    return np.select([seen, out], [SEEN, HELD_OUT], UNKNOWN).astype(np.int8)


# What agencies and collections put before a gauge number.
_PREFIX = re.compile(
    r"(?:usgs|nwis|camels(?:[_-]?us)?|gauge|gage|basin)[-_: ]*(?=\d{5})", re.IGNORECASE
)

# What the hash of the released models was made of: numbers of the USGS, codes of FLUXNET.
_PUBLISHED = re.compile(r"\d{8,15}|[A-Z]{2}-\w{3}")


def _published(site: str) -> str:
    """Return a name as the owner of the data writes it."""
    prefix = _PREFIX.match(str(site))
    name = str(site) if prefix is None else str(site)[prefix.end() :]
    return name.zfill(8) if name.isdigit() else name


def _bare(site: str) -> str:
    """Return a name without leading zeros, which gauge numbers lose where they become integers."""
    return _published(site).lstrip("0")


def _form(site: str) -> str:
    """Return what a name looks like: names of another form are those of other data."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", _published(site)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """For each site, the site among those it must not resemble that resembles it most.

    Attributes
    ----------
    nearest : ndarray of int64, shape (site,)
        Its place among the others; -1 if there is none.
    similarity : ndarray of float64, shape (site,)
        Correlation of the two series, or the lower one where two kinds of series are compared.
    """

    nearest: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Mark the sites with a near duplicate."""
        return self.similarity >= threshold


def find_twins(sites: list[Floats], others: list[Floats]) -> Twins:
    """Find near duplicates by their series.

    Two gauges a kilometre apart on one river, a gauge under two names, neighbouring cells of an
    interpolated grid: their series correlate almost perfectly, whatever their coordinates say.

    Parameters
    ----------
    sites, others : list of ndarray, shape (site, day)
        Series of one or several kinds (precipitation, streamflow) on the same days, NaN where
        missing. Two sites are as similar as their least similar kind of series. A kind that one
        of them never observed does not count.

    Returns
    -------
    Twins
    """
    if not len(others[0]):
        count = len(sites[0])
        return Twins(nearest=np.full(count, -1), similarity=np.full(count, np.nan))
    days = np.unique(np.linspace(0, sites[0].shape[1] - 1, COMPARED_DAYS).astype(int))
    pairs = zip(sites, others, strict=True)
    found = [_correlations(one[:, days], two[:, days]) for one, two in pairs]
    lowest = np.nan_to_num(np.fmin.reduce(found), nan=-np.inf)
    comparable = lowest.max(axis=1) > -np.inf
    return Twins(
        nearest=np.where(comparable, lowest.argmax(axis=1), -1),
        similarity=np.where(comparable, lowest.max(axis=1), np.nan),
    )


def _correlations(one: Floats, two: Floats) -> NDArray[np.float64]:
    """Return Pearson's r of each row of `one` with each of `two` over the days both know."""
    (a, known_a), (b, known_b) = _centred(one), _centred(two)
    count = known_a @ known_b.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_a, mean_b = a @ known_b.T / count, known_a @ b.T / count
        covariance = a @ b.T / count - mean_a * mean_b
        variance_a = a**2 @ known_b.T / count - mean_a**2
        variance_b = known_a @ (b**2).T / count - mean_b**2
        found = covariance / np.sqrt(variance_a * variance_b)
    found[(count < LEAST_COMMON_DAYS) | ~np.isfinite(found)] = np.nan
    return found


def _centred(series: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return anomalies, or sums of squares would cancel, 0 where missing; and 1 where known."""
    values = np.ma.masked_invalid(series.astype(np.float64))
    anomalies = values - values.mean(axis=1, keepdims=True)
    return anomalies.filled(0.0), (~np.ma.getmaskarray(values)).astype(np.float64)
