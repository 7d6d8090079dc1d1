"""What one dataset gives to learn static targets from: attributes and observations of its sites."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xstefa.binding import Binding
from xstefa.binding.binding import DEPTH
from xstefa.binding.plain import values_of
from xstefa.binding.sites import plan_sites
from xstefa.binding.value_checks import value_problems
from xstefa.errors import TrainingError, XstefaWarning, raise_problems, warn
from xstefa.schema import Schema, Target
from xstefa.splits.leakage import LeakageWarning, refuse_leaks
from xstefa.splits.sites import Sites
from xstefa.training.data import KnownSites
from xstefa.training.records import observations
from xstefa.windows import Floats

CLOSED = 0.05
"""How far the sum of a composition may be from 1 by rounding; it is then made 1."""

_TELLING, _FEW = 0.999, 5
"""R2 from which a token tells a target; sites for each of its numbers from which one may say so."""

_STRAY = 0.01  # share of sites with other sums, up to which these are left out


class SumWarning(XstefaWarning):
    """The parts of some compositions do not sum to 1: they are not learned from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteData(KnownSites):
    """Attributes and observations of the sites of one dataset.

    Attributes
    ----------
    static : ndarray of float32, shape (site present, S)
        Canonical units; NaN where missing.
    observed : ndarray of float32, shape (site present, target, depth)
    """

    static: Floats
    observed: Floats

    @classmethod
    def read(
        cls,
        dataset: xr.Dataset,
        *,
        name: str,
        schema: Schema,
        targets: Sequence[Target],
        rename: Mapping[str, str] | None,
        sites: str | None,
        added: Collection[str] = (),
    ) -> Self:
        """Match a dataset and read it; sites without attributes or observations are not present.

        Parameters
        ----------
        targets : sequence of Target
            One, or all parts of a composition.
        sites : str, optional
            Variable that names the sites.
        added : collection of str
            Tokens that were asked for: what is in doubt of them is refused.

        Raises
        ------
        TrainingError
            If a predictor leaks the target, there are no observations, or these cannot be.
        """
        binding = plan_sites(dataset, schema, rename=rename)
        hidden = {token for target in targets for token in target.hidden}
        for target in targets:
            refuse_leaks(binding, target=target.name, rename=rename, hidden=hidden)
        raise_problems([binding.troubled[name] for name in added if name in binding.troubled])
        binding.require()
        raise_problems(
            value_problems(binding.dataset, binding.sources.values(), layout=binding.layout)
        )
        found = Sites.of(dataset, binding.layout, name=sites)
        static = binding.read().statics()
        static[:, [token.name in hidden for token in schema.site_columns.values()]] = np.nan
        observed = observed_parts(binding, targets)
        present = np.asarray(np.isfinite(observed).any(axis=(1, 2)))
        present &= np.isfinite(static).any(axis=1)
        content = hashlib.sha256(repr(found.ids[present].tolist()).encode())
        for values in (static[present], observed[present]):
            content.update(np.ascontiguousarray(values).data)
        warn_of_telling(schema, static[present], observed[present], targets)
        return cls(
            name=name,
            binding=binding,
            sites=found,
            present=present,
            digest=content.hexdigest(),
            static=static[present],
            observed=observed[present],
        )


def observed_parts(binding: Binding, targets: Sequence[Target]) -> NDArray[np.float32]:
    """Read observations of static targets, shape (site, target, depth).

    Raises
    ------
    TrainingError
        If there are none, labels of a class are others than 0 and 1, or parts do not sum to 1.
    """
    layout, sizes = binding.layout, binding.dataset.sizes
    parts = []
    for target in targets:
        array = observations(binding, target.name)
        dims = (*layout.site_dims, *([DEPTH] if target.depths else []))
        array = array.reset_coords(drop=True)
        array = array.expand_dims({dim: sizes[dim] for dim in dims if dim not in array.dims})
        values = values_of(array.transpose(*dims), target.name)
        parts.append(values.reshape(-1, max(1, len(target.depths))))
        if target.kind == "class":
            names = [alias.name for alias in target.aliases if alias.name in binding.dataset]
            _check_labels(parts[-1], names[0] if names else target.name)
    found = np.stack(parts, axis=1).astype(np.float32)
    return _closed(found, targets) if targets[0].composition else found


def warn_of_telling(
    schema: Schema, static: Floats, observed: Floats, targets: Sequence[Target]
) -> None:
    """Warn of a token that tells a target all but exactly: who knows it need not predict.

    Values tell of a copy, a complement or a sum: of a line through the numbers of one token. They
    do not tell whether the token is known where the target is not.
    """
    begin = 0
    for token in schema.attributes:
        columns = static[:, begin : (begin := begin + token.length)]
        for target, values in zip(targets, observed.swapaxes(0, 1), strict=True):
            told = max((_told(columns, level) for level in values.T), default=0.0)
            if told > _TELLING:
                warn(
                    LeakageWarning(
                        f"{token.name} tells {target.name} all but exactly (R2 {told:.4f} of a "
                        "line). If it is measured with it, or computed from it, hide it: "
                        f"Target(..., hidden=({token.name!r},))"
                    )
                )


def _told(columns: Floats, target: Floats) -> float:
    """Return the share of a target's variance that a line through some columns tells."""
    known = np.isfinite(target) & np.isfinite(columns).all(axis=1)
    if known.sum() < _FEW * (columns.shape[1] + 1) or not np.ptp(target[known]):
        return 0.0
    wanted = target[known].astype(np.float64)
    wanted -= wanted.mean()
    read = columns[known].astype(np.float64)
    read -= read.mean(axis=0)
    found, *_ = np.linalg.lstsq(read, wanted, rcond=None)
    return float(1 - np.square(wanted - read @ found).sum() / np.square(wanted).sum())


def _check_labels(values: Floats, name: str) -> None:
    known = values[np.isfinite(values)]
    others = np.unique(known[(known != 0) & (known != 1)])
    if others.size:
        raise TrainingError(
            "the labels of a class are 0 and 1",
            variable=name,
            found=f"{others.size} other values, e.g. {others[0]:g}",
            expected="1 where the class is, 0 where it is not, NaN where nobody knows",
            fix=f"ds[{name!r}] = (ds[{name!r}] > <threshold>).astype('f4'), NaN where it was; "
            'or, to learn the number itself, a Target of kind="number"',
        )


def _closed(values: Floats, targets: Sequence[Target]) -> Floats:
    """Return compositions whose parts sum to 1; those that do not are unknown."""
    values = np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.float32(np.nan))
    total = values.sum(axis=1, keepdims=True)
    known = np.isfinite(total)
    off = known & (np.abs(total - 1) > CLOSED)
    if off.any():
        names = [target.name for target in targets]
        texts = {
            "variable": ", ".join(names),
            "found": f"sums from {total[known].min():.3g} to {total[known].max():.3g}, "
            f"{off.sum()} of {known.sum()} not within {CLOSED} of 1",
            "expected": "fractions of one whole, all in the units that they are labelled with",
            "fix": f"total = {' + '.join(f'ds[<{name}>]' for name in names)}; each divided by it, "
            "if what is lacking is no part of the whole (water, organic matter)",
        }
        problem = TrainingError(f"the parts of a {targets[0].composition} do not sum to 1", **texts)
        if off.sum() > _STRAY * known.sum():
            raise problem
        warn(SumWarning(f"Not learned from: {problem}"))
    return np.asarray(np.where(off, np.nan, values / total), dtype=np.float32)
