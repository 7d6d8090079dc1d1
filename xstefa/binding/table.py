"""The token table: what was understood of a dataset, for people to read."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib import resources

import pandas as pd

COLUMNS = ("token", "variable", "units", "known", "range", "rule")
_ADVICE = ("token", "how to provide it")
_WIDTH = 100  # of text lines that are wrapped
NOT_LOOKED_AT = (
    "not read; ds.stefa.tokens(check=True) reads a few days and tells coverage and range"
)
_KINDS = (("forcing", "Forcings"), ("static", "Statics"))


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
        Whether there is no prediction without it.
    one_of : tuple of str
        If it is required: the tokens, itself among them, of which one is enough.
    group : str, optional
    note : str
        The problem that keeps it from being used, if there is one.
    advice : str
        How to provide it.
    known : float, optional
        Share of the values that are known, of those looked at; None if none were.
    low, high : float, optional
        Range of the values looked at, in `units`.
    wrong : bool
        Whether these values cannot be in these units.
    gain : str
        If it is missing: the skill that it is worth, if that is known and was asked for.
    """

    token: str
    kind: str
    units: str
    variables: tuple[str, ...] = ()
    rule: str = ""
    units_found: str = ""
    required: bool = False
    one_of: tuple[str, ...] = ()
    group: str | None = None
    note: str = ""
    advice: str = ""
    known: float | None = None
    low: float | None = None
    high: float | None = None
    wrong: bool = False
    gain: str = ""

    @property
    def matched(self) -> bool:
        """Whether the dataset has this token."""
        return bool(self.variables)

    @property
    def cells(self) -> tuple[str, ...]:
        """What the representations show of it, one text for each of `COLUMNS`."""
        units = self.units
        if self.units_found not in ("", self.units):
            units = f"{self.units_found} → {self.units}"
        known = "" if self.known is None else f"{100 * self.known:.3g} %"
        values = ""
        if self.low is not None and self.high is not None:
            values = f"{self.low:.4g} to {self.high:.4g}{' (!)' if self.wrong else ''}"
        return self.token, ", ".join(self.variables), units, known, values, self.rule


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
    layout : str
        Sites and days in a few words.
    problems : tuple of str
        What would stop a prediction, each with its fix.
    doubts : tuple of str
        What keeps optional tokens from being used, each with its fix.
    looked_at : str
        Of which values `known` and the ranges are; empty if none were read.
    """

    schema: str
    rows: tuple[TokenRow, ...]
    unused: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    looked_at: str = ""

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
        columns = ["kind", "variable", "rule", "units_found", "units", "known", "low", "high"]
        return frame[[*columns, "wrong", "required", "group", "note", "advice"]]

    def __repr__(self) -> str:
        lines = [f"<xstefa.TokenTable> {self._heading}"]
        for section in self._sections():
            lines.append(f"{section.title}: {section.more}")
            for item in section.items:
                # What is to be typed stays in one piece.
                what, fix, mended = item.partition("Fix: ")
                lines += [*_wrapped(what), *([f"        {fix}{mended}"] if fix else [])]
            table = _without_empty_columns([COLUMNS, *(row.cells for row in section.found)])
            widths = [max(map(len, column[1:])) for column in zip(*table, strict=True)]
            for cells in table[1:]:
                lines.append("    " + "  ".join(map(str.ljust, cells, widths)).rstrip())
            if section.absent:
                lines += _wrapped("missing: " + ", ".join(map(_absent, section.absent)))
        lines.append(f"Values: {self.looked_at or NOT_LOOKED_AT}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = f"<div class='xstefa-head'>xstefa.TokenTable {escape(self._heading)}</div>"
        body = "".join(section.html() for section in self._sections())
        values = f"<p>Values: {escape(self.looked_at or NOT_LOOKED_AT)}</p>"
        style = resources.files(__package__).joinpath("table.css").read_text("utf-8")
        # The text inside <pre> is what shows where style sheets are stripped (untrusted notebooks),
        # as in xarray's own representation.
        return (
            f"<div><style>{style}</style><pre class='xstefa-text'>{escape(repr(self))}</pre>"
            f"<div class='xstefa-table' style='display:none'>{head}{body}{values}</div></div>"
        )

    def _sections(self) -> Iterator[_Section]:
        for title, texts in (
            ("Problems", self.problems),
            ("In doubt, taken as not known", self.doubts),
        ):
            if texts:
                yield _Section(title=title, more=str(len(texts)), items=texts, alarm=True)
        if needed := [row for row in self.rows if row.required and not row.matched]:
            yield _Section(
                title="Missing and required",
                more=", ".join(dict.fromkeys(" or ".join(r.one_of) or r.token for r in needed)),
                items=tuple(
                    f"{row.token}: {row.advice or 'no way is known to provide it'}"
                    for row in needed
                ),
                alarm=True,
            )
        for kind, title in _KINDS:
            rows = [row for row in self.rows if row.kind == kind]
            found = tuple(row for row in rows if row.matched)
            absent = tuple(row for row in rows if not row.matched)
            more = f"{len(found)} of {len(rows)} tokens"
            yield _Section(title=title, more=more, found=found, absent=absent)
        if self.unused:
            reasons: dict[str, list[str]] = {}
            for name, reason in self.unused.items():
                reasons.setdefault(reason, []).append(name)
            items = tuple(f"{reason}: {', '.join(names)}" for reason, names in reasons.items())
            more = f"{len(self.unused)} variables"
            yield _Section(title="Unused", more=more, items=items, is_open=False)

    @property
    def _heading(self) -> str:
        return f"schema {self.schema!r}" + (f", {self.layout}" if self.layout else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    """A part of the table: texts, which may end with a fix, tokens found, tokens missing."""

    title: str
    more: str
    items: tuple[str, ...] = ()
    found: tuple[TokenRow, ...] = ()
    absent: tuple[TokenRow, ...] = ()
    alarm: bool = False
    is_open: bool = True

    def html(self) -> str:
        """Return it as an element that can be folded, in colour if it is an alarm."""
        items = ""
        for item in self.items:
            what, fix, mended = item.partition("Fix: ")
            code = f"<br>{fix}<code>{_html_text(mended)}</code>" if fix else ""
            items += f"<li>{_html_text(what)}{code}</li>"
        body = f"<ul>{items}</ul>" if items else ""
        if self.found:
            body += _html_table(COLUMNS, [row.cells for row in self.found])
        if self.absent:
            names = [(_absent(row), row.advice) for row in self.absent]
            more = ", ".join(name for name, _ in names)
            body += _html_details("missing", more, _html_table(_ADVICE, names))
        whole = _html_details(self.title, self.more, body, is_open=self.is_open)
        if self.alarm:
            return f"<div class='xstefa-alarm' style='{_ALARM}'>{whole}</div>"
        return whole


def _absent(row: TokenRow) -> str:
    if len(row.one_of) > 1:
        return f"{row.token} (required, one of: {', '.join(row.one_of)})"
    if row.gain:
        return f"{row.token} ({row.gain})"
    return f"{row.token} (required)" if row.required else row.token


_wrapped = textwrap.TextWrapper(
    _WIDTH,
    initial_indent=" " * 4,
    subsequent_indent=" " * 8,
    break_long_words=False,
    break_on_hyphens=False,
).wrap


def _html_text(text: str) -> str:
    """Escape a text, and let a line end after the underscores of names, but not within units."""
    text = escape(text).replace("_", "_<wbr>")
    return re.sub(r"\w+-\d+", r"<span class='xstefa-unit'>\g<0></span>", text)


def _html_details(heading: str, more: str, body: str, *, is_open: bool = False) -> str:
    state = " open" if is_open else ""
    title = f"{heading} <span>{_html_text(more)}</span>"
    return f"<details{state}><summary>{title}</summary>{body}</details>"


def _html_table(names: tuple[str, ...], table: Sequence[tuple[str, ...]]) -> str:
    head, *rows = _without_empty_columns([names, *table])
    lines = ["".join(f"<th>{name}</th>" for name in head)]
    for cells in rows:
        wrong = [" class='xstefa-wrong'" if text.endswith("(!)") else "" for text in cells]
        pairs = zip(wrong, map(_html_text, cells), strict=True)
        lines.append("".join(f"<td{kind}>{text}</td>" for kind, text in pairs))
    first, *others = (f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead>{first}</thead><tbody>{''.join(others)}</tbody></table>"


def _without_empty_columns(table: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out columns without any text below the head: no values were looked at."""
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    return list(zip(*columns, strict=True))


# Text keeps the colour of its surroundings, which a notebook's theme chooses, on a tint of red that
# is light on white and dark on black.
_ALARM = "border-left: 4px solid #dc3b3b; background: #dc3b3b22; padding: 2px 8px; margin: 4px 0"
