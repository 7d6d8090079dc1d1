"""How far a long call is: a bar in a terminal or notebook, plain lines in a log."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

from dask.callbacks import Callback
from tqdm import tqdm

from xstefa.options import get_options

SECONDS = 10.0
"""Time between two lines of a log."""

# Calls that are over sooner show no bar.
_DELAY = 0.5


def progress(description: str, *, total: int, unit: str = "it", initial: int = 0) -> Any:
    """Return tqdm's bar: a context manager, with ``update()`` and ``set_postfix()``.

    The option `progress` decides whether there is one; by default only on a screen. With
    ``progress=True`` a stream that is no screen, such as a file, gets a line every ten seconds.

    Parameters
    ----------
    description, unit : str
        What is done, and what is counted.
    total, initial : int
        How many there are, and how many are done.
    """
    notebook = _in_notebook()
    screen = notebook or sys.stderr.isatty()
    wanted = get_options().progress
    about: dict[str, Any] = {"desc": description, "total": total, "unit": unit, "initial": initial}
    if not (screen if wanted is None else wanted):
        return tqdm(**about, disable=True)
    if not screen:
        return _Lines(**about)
    from tqdm.auto import tqdm as bar  # warns where a notebook has no widgets

    # Of nested bars in a terminal only the outermost stays.
    return bar(**about, delay=_DELAY, leave=True if notebook else None)


def counting(bar: Any, name: str) -> Any:
    """Count the tasks of a dask collection, by its name, on a bar: a context manager."""

    def count(key: Any, *_: object) -> None:
        if isinstance(key, tuple) and key[0] == name:
            bar.update()

    return Callback(posttask=count)


def _in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, whose error stream is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


class _Lines(tqdm):  # type: ignore[misc]
    """Says in lines how far it is, if it takes long; nested ones take turns."""

    last = -SECONDS

    def __init__(self, **about: Any) -> None:
        self._started = monotonic()
        line = "{desc}: {n_fmt} of {total_fmt} {unit} after {elapsed}, {remaining} to go{postfix}"
        super().__init__(**about, mininterval=0, miniters=1, bar_format=line)

    def display(self, *_: object, **__: object) -> None:
        now = monotonic()
        if now - max(self._started, _Lines.last) >= SECONDS:
            _Lines.last = now
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        self.disable = True
        self._decr_instances(self)
