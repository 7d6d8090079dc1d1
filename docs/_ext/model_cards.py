"""Puts the cards of the bundled models in place of ``<!-- model-cards -->``."""

from __future__ import annotations

import re

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

import xstefa

MARK = "<!-- model-cards -->"


def insert_cards(app: Sphinx, docname: str, source: list[str]) -> None:
    if MARK in source[0]:
        models = map(xstefa.load_model, xstefa.list_models())
        # Those beside the weights: what was found later is in them, too.
        cards = (model.path.with_suffix(".md").read_text(encoding="utf-8") for model in models)
        text = "\n\n".join(demote(card) for card in cards)
        source[0] = source[0].replace(MARK, text or "This version ships no weights.")


def demote(card: str) -> str:
    """Drop a card's front matter and move its headings one level down, below the page's title."""
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return re.sub(r"^(#+ )", r"#\1", body, flags=re.MULTILINE)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("source-read", insert_cards)
    return {"version": "1", "parallel_read_safe": True}
