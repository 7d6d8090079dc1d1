"""What functions say of their arguments: in their annotations and in their docstrings."""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any


class _Names(dict[str, Any]):
    """Names of a module; those that only a type checker imports say nothing."""

    def __missing__(self, name: str) -> Any:
        return Any


@cache
def hints(function: Callable[..., object]) -> dict[str, Any]:
    """Return the annotations of a function's parameters, resolved as far as they can be."""
    names = _Names(vars(builtins) | vars(sys.modules[function.__module__]))
    return {
        name: eval(text, {}, names) if isinstance(text, str) else text
        for name, text in function.__annotations__.items()
        if name != "return"
    }


def described(function: Callable[..., object]) -> dict[str, str]:
    """Return the first sentence that a numpydoc docstring says of each parameter."""
    text = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")[2]
    found = re.findall(r"^(\w[\w, ]*)(?: :.*)?\n((?:    .*\n?|\n(?=    ))*)", text, re.MULTILINE)
    return {
        name: " ".join(body.split()).partition(". ")[0].rstrip(".").replace("`", "")
        for names, body in found
        for name in names.split(", ")
    }
