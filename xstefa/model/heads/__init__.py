"""Heads: from the representation to a target. One registry, `HEADS`, knows them by name.

Each maps forcings (B, T, C), site attributes (B, S), both with NaN where missing, and the
representation of the days (B, T, d) to the target (B, T).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypedDict

from xstefa.errors import OptionError
from xstefa.model.adapters import ADAPTERS
from xstefa.model.architecture import HeadSize
from xstefa.model.heads.adapted import Adapted
from xstefa.model.heads.direct import Direct
from xstefa.model.heads.hbv import HBV
from xstefa.model.heads.linear import LinearProbe
from xstefa.model.heads.lstm import PlainLSTM
from xstefa.model.heads.recurrent import LINKS, Head
from xstefa.model.heads.released import Released
from xstefa.model.heads.resconn import ResConn


class Counts(TypedDict):
    """Numbers of variables, and the length of the encoder's tokens (0 without an encoder)."""

    forcings: int
    statics: int
    width: int


_Builder: TypeAlias = Callable[[HeadSize, Counts], Head]


def _resconn(size: HeadSize, n: Counts) -> Head:
    return ResConn(
        **n, hidden=size.hidden, link=size.link, kernel=size.kernel, dropout=size.dropout
    )


def _adapted(size: HeadSize, n: Counts, *, adapter: str | None) -> Head:
    built = None if adapter is None else ADAPTERS[adapter](**n)
    return Adapted(**n, adapter=built, hidden=size.hidden, link=size.link, dropout=size.dropout)


def _linear(size: HeadSize, n: Counts) -> Head:
    return LinearProbe(width=n["width"], link=size.link)


def _direct(size: HeadSize, n: Counts) -> Head:
    return Direct(width=n["width"], inner=size.hidden, link=size.link)


def _lstm(size: HeadSize, n: Counts) -> Head:
    return PlainLSTM(
        forcings=n["forcings"],
        statics=n["statics"],
        hidden=size.hidden,
        link=size.link,
        dropout=size.dropout,
    )


def _released(size: HeadSize, n: Counts) -> Head:
    return Released(**n, hidden=size.hidden, outputs=size.outputs, dropout=size.dropout)


def _hbv(size: HeadSize, n: Counts) -> Head:
    return HBV(
        **n,
        hidden=size.hidden,
        kernel=size.kernel,
        dropout=size.dropout,
        drivers=size.drivers,
        spin_up=size.spin_up,
    )


HEADS: dict[str, _Builder] = {
    "resconn": _resconn,
    **{name: partial(_adapted, adapter=name) for name in ADAPTERS},
    "no_adapter": partial(_adapted, adapter=None),
    "linear": _linear,
    "direct": _direct,
    "lstm": _lstm,
    "hbv": _hbv,
    "released": _released,
}


def build_head(size: HeadSize, *, forcings: int, statics: int, width: int) -> Head:
    """Build the head that ``size.kind`` names.

    Parameters
    ----------
    size : HeadSize
    forcings, statics : int
        Number of dynamic and static variables.
    width : int
        Length of the encoder's tokens; 0 without an encoder.

    Raises
    ------
    OptionError
        If no head or link has that name, or it needs an encoder and there is none.
    """
    if size.kind not in HEADS:
        raise OptionError(
            variable="head",
            found=repr(size.kind),
            expected=", ".join(HEADS),
            fix='leave it out for the paper\'s head, "resconn"',
        )
    if size.link not in LINKS:
        raise OptionError(variable="link", found=repr(size.link), expected=", ".join(LINKS))
    if not width and size.kind not in ("lstm", "released"):
        raise OptionError(
            variable="head",
            found=f"{size.kind!r} without an encoder",
            expected='"lstm", the baseline that reads the inputs only',
            fix='use head="lstm", or give an encoder',
        )
    return HEADS[size.kind](size, Counts(forcings=forcings, statics=statics, width=width))
