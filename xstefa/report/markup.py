"""Tables and pictures as HTML that needs nothing else, and follows the reader's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING

from xstefa.plotting.look import FAINT, INK, LAND, OBSERVED, PREDICTED, RAIN, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEME = {
    INK: "ink",
    FAINT: "faint",
    LAND: "land",
    OBSERVED: "observed",
    PREDICTED: "predicted",
    RAIN: "rain",
    "#ffffff": "paper",
}
"""Colours of pictures that the page sets, by what its style sheet calls them."""

DOTS = 110  # per inch, of the parts of a picture that are not lines


def picture(figure: Figure, *, name: str, alt: str, caption: str = "", wide: bool = False) -> str:
    """Return a figure as part of a page, in lines and text, and close it.

    Parameters
    ----------
    figure : Figure
    name : str
        Of its own on the page.
    alt : str
        What can be seen, for those who cannot.
    caption : str
    wide : bool
        Whether it stays legible on a narrow screen by being moved, not made smaller.
    """
    plt = pyplot()

    text, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", dpi=DOTS, metadata=nothing)
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Names of groups would be on the page once for each picture; nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", partial(_opening, alt), svg, count=1)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, f"var(--{variable})")
    kind, tab = ("wide", ' tabindex="0"') if wide else ("", "")
    return (
        f'<figure class="{kind}"><div class="scroll"{tab}>{svg}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _opening(alt: str, found: re.Match[str]) -> str:
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} {found[1]} role="img" aria-label="{escape(alt)}">'


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str | float]],
    *,
    caption: str,
    links: Mapping[str, str] | None = None,
    sortable: bool = False,
) -> str:
    """Return a table; the first cell of each row is its heading.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequence of str or float
        Numbers stand at the right; a dash where there is none.
    caption : str
        What it holds.
    links : mapping of str to str, optional
        Where first cells lead, by their text.
    sortable : bool
        Whether a click on a heading sorts it.
    """
    number = [any(isinstance(row[i], float) for row in rows) for i in range(len(head))]
    classes = [' class="number"' if each else "" for each in number]
    heads = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>'
        for text, kind in zip(head, classes, strict=True)
    )
    lines, links = [], links or {}
    for first, *others in rows:
        text = escape(str(first))
        if str(first) in links:
            text = f'<a href="#{escape(links[str(first)])}">{text}</a>'
        cells = "".join(map(_cell, others))
        lines.append(f'<tr><th scope="row">{text}</th>{cells}</tr>')
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{kind}><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: str | float) -> str:
    if not isinstance(value, float):
        return f"<td>{escape(str(value))}</td>"
    if value != value:
        return '<td class="number" data-value="-1e99">–</td>'
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    shown = f"{value:,.{digits}f}"
    return f'<td class="number" data-value="{value:.6g}">{shown.replace("-", "−")}</td>'
