"""Guards against leakage: what a model must not have seen to be judged fairly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import plan
from xstefa.binding.match import describe, match_target
from xstefa.errors import TrainingError
from xstefa.evaluation.holdout import held_out
from xstefa.schema import Schema

UNKNOWN, SEEN, HELD_OUT = 0, 1, 2
ROLES = {"unknown": UNKNOWN, "seen_in_training": SEEN, "held_out": HELD_OUT}


class LeakageWarning(UserWarning):
    """A score may be better than it deserves."""


def refuse_leaks(
    dataset: xr.Dataset,
    schema: Schema,
    *,
    target: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> None:
    """Refuse predictors that are computed from a target, or are one.

    Matching never takes them for a target of the schema; `rename` could, and a target of the user's
    own may be what a token reads, too.

    Parameters
    ----------
    dataset : xarray.Dataset
    schema : Schema
    target : str, optional
        The one that is learned.
    rename : mapping of str to str, optional
        Dataset variable to token.

    Raises
    ------
    TrainingError
        Naming the variable.
    """
    inputs = {alias.name for token in schema.tokens for alias in token.aliases}
    for variable, token in (rename or {}).items():
        named = dataset[variable].attrs.get("standard_name") if variable in dataset else None
        for known in schema.targets:
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
    understood = plan(dataset, schema, rename=rename)
    time = None if understood.layout is None else understood.layout.time
    facts = describe(dataset, time=time).values()
    observing = {match.variable.name for match in match_target(facts, schema.target(target))}
    for token, source in understood.sources.items():
        both = observing.intersection(source.variables)
        # A token of the target's own name is read hidden: the variant "direct".
        if both and token != target:
            raise TrainingError(
                f"a model of {target} must not read what is an observation of it",
                variable=", ".join(sorted(both)),
                found=f"it provides the token {token!r}",
                expected="predictors that are known where the target is not",
                fix="give the observations a name and standard_name that no token has, and the "
                "target the same",
            )


def roles(provenance: Mapping[str, Any], ids: NDArray[np.str_]) -> NDArray[np.int8]:
    """Say of each site whether a model has learned from it, as far as its provenance tells.

    Parameters
    ----------
    provenance : mapping
        `ModelSpec.provenance`; that of the model it was fine-tuned from counts too.
    ids : ndarray of str, shape (site,)

    Returns
    -------
    ndarray of int8, shape (site,)
        A value of `ROLES`.
    """
    found = np.full(len(ids), UNKNOWN, dtype=np.int8)
    while provenance:
        datasets = provenance.get("datasets")
        rule = provenance.get("holdout")
        if isinstance(datasets, Mapping):
            trained = {
                site
                for content in datasets.values()
                for use in ("trained", "validated")
                for site in content.get(use, ())
            }
            found[(found == UNKNOWN) & ~np.isin(ids, list(trained))] = HELD_OUT
            found[np.isin(ids, list(trained))] = SEEN
        elif isinstance(rule, str):
            # Older models tell the rule only: a site that it does not hold out may have been seen.
            out = held_out(ids, salt=rule)
            found[out & (found == UNKNOWN)] = HELD_OUT
            found[~out & (found == HELD_OUT)] = UNKNOWN
        foundation = provenance.get("foundation")
        provenance = foundation.get("provenance", {}) if isinstance(foundation, Mapping) else {}
    return found
