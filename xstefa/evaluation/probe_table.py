"""What came of probes, for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import xarray as xr

from xstefa.evaluation.probes import Probe


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One probe of one model.

    Attributes
    ----------
    probe : Probe
    numbers : tuple of float
        One for each site; NaN where it was not asked.
    asked : tuple of bool
        At which sites it was.
    note : str
        Why it was asked nowhere, if it was not.
    """

    probe: Probe
    numbers: tuple[float, ...]
    asked: tuple[bool, ...]
    note: str = ""

    @property
    def passed(self) -> tuple[bool, ...]:
        """At which sites the answer is as it has to be."""
        return tuple((self.probe.passed(np.array(self.numbers)) & self.asked).tolist())

    @property
    def verdict(self) -> str:
        """Return ``"pass"`` if it passes wherever it was asked, ``"fail"``, or ``"not asked"``."""
        if not any(self.asked):
            return "not asked"
        return "pass" if self.passed == self.asked else "fail"

    @property
    def worst(self) -> float:
        """The number farthest from where it has to be, or nearest to a bound."""
        numbers = np.array(self.numbers)[list(self.asked)]
        if not numbers.size or not np.isfinite(numbers).all():
            return float("nan")
        inside = np.minimum(numbers - self.probe.least, self.probe.most - numbers)
        return float(numbers[np.argmin(inside)])

    @property
    def cells(self) -> tuple[str, ...]:
        """What the representations show of it."""
        probe = self.probe
        if self.note:
            return probe.name, self.verdict, "", "", probe.bounds, self.note, probe.judge
        sites = f"{sum(self.passed)} of {sum(self.asked)}"
        number = f"{self.worst:.3g}"
        return probe.name, self.verdict, sites, number, probe.bounds, probe.number, probe.judge


COLUMNS = ("probe", "verdict", "sites", "worst", "has to be", "number", "HydroTuring")


@dataclass(frozen=True, kw_only=True, repr=False)
class ProbeTable:
    """Probes of a model, and what came of them.

    Attributes
    ----------
    model, target : str
        Names.
    rows : tuple of ProbeRow
    sites : tuple of str
        Where it was asked.
    attrs : tuple of (str, str)
        Which model it is.
    """

    model: str
    target: str
    rows: tuple[ProbeRow, ...]
    sites: tuple[str, ...]
    attrs: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> ProbeRow:
        for row in self.rows:
            if row.probe.name == name:
                return row
        raise KeyError(name)

    def __iter__(self) -> Iterator[ProbeRow]:
        return iter(self.rows)

    @property
    def failed(self) -> tuple[str, ...]:
        """Probes that fail at some site."""
        return tuple(row.probe.name for row in self.rows if row.verdict == "fail")

    @property
    def passed(self) -> tuple[str, ...]:
        """Probes that pass wherever they were asked."""
        return tuple(row.probe.name for row in self.rows if row.verdict == "pass")

    def to_pandas(self) -> pd.DataFrame:
        """Return one line for each probe."""
        frame = pd.DataFrame([row.cells for row in self.rows], columns=list(COLUMNS))
        frame["worst"] = [row.worst for row in self.rows]
        frame.insert(1, "asks", [row.probe.asks for row in self.rows])
        return frame.set_index("probe")

    def to_dataset(self) -> xr.Dataset:
        """Return numbers, and whether they are as they have to be, by probe and site."""
        probes = [row.probe for row in self.rows]
        found = xr.Dataset(
            {
                "number": (("probe", "site"), [row.numbers for row in self.rows]),
                "asked": (("probe", "site"), [row.asked for row in self.rows]),
                "passed": (("probe", "site"), [row.passed for row in self.rows]),
                "least": ("probe", [probe.least for probe in probes]),
                "most": ("probe", [probe.most for probe in probes]),
            },
            coords={"probe": [probe.name for probe in probes], "site": list(self.sites)},
            attrs=dict(self.attrs),
        )
        found.number.attrs = {"long_name": "answer of the model", "units": "1"}
        return found

    @property
    def _heading(self) -> str:
        asked = len(self.passed) + len(self.failed)
        return f"{self.model} ({self.target}): {len(self.passed)} of {asked} probes passed"

    def __repr__(self) -> str:
        table = [COLUMNS, *(row.cells for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table)
        where = f"at {', '.join(self.sites)}"
        return "\n".join([f"<xstefa.ProbeTable> {self._heading}", *lines, where])

    def _repr_html_(self) -> str:
        frame = pd.DataFrame([row.cells for row in self.rows], columns=list(COLUMNS))
        with pd.option_context("display.max_colwidth", None):
            table = frame.to_html(index=False)
        return f"<div><b>xstefa.ProbeTable</b> {escape(self._heading)}{table}</div>"
