"""A directive that runs its code at build time, so that results and messages cannot go stale.

Blocks of one page share their names, as cells of a notebook do::

    ```{live}
    ds = xstefa.open_sample("camels_us")
    ds.sizes
    ```

The value of a last expression is shown, a matplotlib figure as a picture. With
``:raises: UnitsError`` the code has to raise that error (or one of several, separated by spaces),
whose name and message are shown. ``:hide-code:`` shows only the output, which ``:markdown:`` makes
a part of the page. Anything else that goes wrong fails the build at that line.
"""

from __future__ import annotations

import ast
import contextlib
import io
import textwrap
import traceback
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata, OptionSpec

WIDTH = 92


class Live(SphinxDirective):
    """Run the content; show it, then what it printed, returned or raised."""

    has_content = True
    option_spec: ClassVar[OptionSpec] = {
        "raises": directives.unchanged_required,
        "hide-code": directives.flag,
        "markdown": directives.flag,
    }

    def run(self) -> list[nodes.Node]:
        """Return the blocks of code and output."""
        code = "\n".join(self.content)
        names = self.env.temp_data.setdefault("live_names", {"__name__": "__main__"})
        expected = self.options.get("raises", "").split()
        picture = None
        try:
            output, value = execute(code, names)
            if isinstance(value, Figure):
                picture = nodes.raw("", drawn(value), format="html")
            elif value is not None:
                output = f"{output}\n{value!r}".strip()
        except Exception as error:
            if type(error).__name__ not in expected:
                raise self.error(f"live code failed:\n{traceback.format_exc()}") from error
            output = wrap(f"{type(error).__name__}: {error}")
        else:
            if expected:
                raise self.error(f"live code was to raise {' or '.join(expected)} and did not")
        shown: list[nodes.Node] = []
        if "hide-code" not in self.options:
            shown.append(nodes.literal_block(code, code, language="python"))
        if output and "markdown" in self.options:
            part = nodes.container()
            self.state.nested_parse(StringList(output.splitlines()), self.content_offset, part)
            shown += part.children
        elif output:
            shown.append(nodes.literal_block(output, output, language="text", classes=["output"]))
        if picture is not None:
            shown.append(picture)
        return shown


def execute(code: str, names: dict[str, object]) -> tuple[str, object]:
    """Run ``code`` in ``names``; return what it printed, and the value of a last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<live>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<live>", "eval"), names)
    return printed.getvalue().rstrip(), value


def drawn(figure: Figure) -> str:
    """Return a figure as SVG to put into the page."""
    content = io.StringIO()
    figure.savefig(content, format="svg")
    text = content.getvalue()
    return text[text.index("<svg") :]  # without the head of a file


def wrap(text: str) -> str:
    """Wrap each line of an error's message to the width of the page."""
    lines = (textwrap.wrap(line, WIDTH, subsequent_indent="    ") for line in text.splitlines())
    return "\n".join("\n".join(parts) for parts in lines)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("live", Live)
    return {"version": "1", "parallel_read_safe": True}
