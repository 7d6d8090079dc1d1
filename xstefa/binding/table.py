"""The token table: what was understood of a dataset, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape

import pandas as pd

__all__ = ["TokenRow", "TokenTable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """One token of the schema in one dataset.

    Parameters
    ----------
    token, kind, units : str
        Name, ``"forcing"`` or ``"static"``, canonical units.
    variables : tuple of str
        The dataset's variables it comes from; empty if missing.
    rule : str
        How they were recognised; empty if missing.
    units_found : str
        Units of the variable; empty for derived and missing tokens.
    required : bool
    group : str, optional
    note : str
        What else a reader should know, e.g. a problem.
    """

    token: str
    kind: str
    units: str
    variables: tuple[str, ...] = ()
    rule: str = ""
    units_found: str = ""
    required: bool = False
    group: str | None = None
    note: str = ""

    @property
    def matched(self) -> bool:
        """Whether the dataset has this token."""
        return bool(self.variables)


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenTable:
    """Tokens of a schema, the variables they come from, and the variables left over.

    Parameters
    ----------
    schema : str
        Name of the schema.
    rows : tuple of TokenRow
        In schema order, one for each token.
    unused : mapping of str to str
        Variables that are not used, and why.
    """

    schema: str
    rows: tuple[TokenRow, ...]
    unused: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, token: str) -> TokenRow:
        for row in self.rows:
            if row.token == token:
                return row
        raise KeyError(token)

    @property
    def matched(self) -> tuple[str, ...]:
        """Tokens that the dataset has."""
        return tuple(row.token for row in self.rows if row.matched)

    @property
    def missing(self) -> tuple[str, ...]:
        """Tokens that the dataset lacks."""
        return tuple(row.token for row in self.rows if not row.matched)

    def to_pandas(self) -> pd.DataFrame:
        """Return one line for each token, indexed by token."""
        frame = pd.DataFrame([asdict(row) for row in self.rows]).set_index("token")
        frame["variable"] = [", ".join(names) for names in frame.pop("variables")]
        columns = ["kind", "variable", "rule", "units_found", "units", "required", "group", "note"]
        return frame[columns]

    def __repr__(self) -> str:
        lines = [f"<xstefa.TokenTable> schema {self.schema!r}"]
        for kind, title in (("forcing", "Forcings"), ("static", "Statics")):
            rows = [row for row in self.rows if row.kind == kind]
            found = [row for row in rows if row.matched]
            lines.append(f"{title} ({len(found)} of {len(rows)} tokens):")
            lines += _columns([_cells(row) for row in found])
            absent = [
                row.token + (" (required)" if row.required else "")
                for row in rows
                if not row.matched
            ]
            if absent:
                lines += _wrapped("missing: ", absent)
        for row in self.rows:
            if row.note:
                lines.append(f"  ! {row.token}: {row.note}")
        if self.unused:
            lines.append(f"Unused ({len(self.unused)} variables):")
            by_reason: dict[str, list[str]] = {}
            for name, reason in self.unused.items():
                by_reason.setdefault(reason, []).append(name)
            for reason, names in by_reason.items():
                lines += _wrapped(f"{reason}: ", names)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def _cells(row: TokenRow) -> tuple[str, str, str, str]:
    units = row.units if row.units_found in ("", row.units) else f"{row.units_found} → {row.units}"
    return row.token, ", ".join(row.variables), units, row.rule


def _columns(table: list[tuple[str, ...]]) -> list[str]:
    if not table:
        return []
    widths = [min(max(len(cell) for cell in column), 34) for column in zip(*table, strict=True)]
    return [
        "    "
        + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]


def _wrapped(head: str, names: list[str], width: int = 100) -> list[str]:
    lines, line = [], f"  {head}"
    for index, name in enumerate(names):
        word = name + (", " if index < len(names) - 1 else "")
        if len(line) + len(word) > width:
            lines.append(line.rstrip())
            line = " " * 6
        line += word
    return [*lines, line]
