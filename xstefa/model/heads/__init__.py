"""Heads: from the representation to a target. One registry, `HEADS`, knows them by name.

Each maps forcings (B, T, C), site attributes (B, S), both with NaN where missing, and the
representation of the days (B, T, d) to the target (B, T); those of kinds `STATIC` attributes, and
the representation of the site, to static targets.
"""

from __future__ import annotations

from xstefa.errors import OptionError
from xstefa.model.adapters import ADAPTERS
from xstefa.model.architecture import STATIC, HeadSize
from xstefa.model.heads.attributes import StaticHead
from xstefa.model.heads.direct import TargetDecoder
from xstefa.model.heads.hbv import HBV
from xstefa.model.heads.kernel import KernelHead
from xstefa.model.heads.recurrent import Adapted, Head, LinearProbe, PlainLSTM, ResConn
from xstefa.model.heads.released import Released
from xstefa.model.heads.reservoirs import Reservoirs
from xstefa.model.heads.site import SiteHead

HEADS: dict[str, type[Head] | type[StaticHead]] = {
    "resconn": ResConn,
    **dict.fromkeys(ADAPTERS, Adapted),
    "no_adapter": Adapted,
    "linear": LinearProbe,
    "direct": TargetDecoder,
    "lstm": PlainLSTM,
    "hbv": HBV,
    "reservoirs": Reservoirs,
    "released": Released,
    "site": SiteHead,
    "kernel": KernelHead,
}


def build_head(
    size: HeadSize, *, forcings: int, statics: int, width: int, extras: tuple[int, ...] = ()
) -> Head | StaticHead:
    """Build the head that ``size.kind`` names.

    Parameters
    ----------
    size, forcings, statics, width
        As for `Head`.
    extras : tuple of int
        Lengths of the tokens that stand last among the static variables: 1, or that of a vector.

    Raises
    ------
    OptionError
        If no head has that name, or it needs an encoder and there is none.
    """
    if size.kind not in HEADS:
        raise OptionError(
            variable="head",
            found=repr(size.kind),
            expected=", ".join(HEADS),
            fix='leave it out for the paper\'s head, "resconn"',
        )
    if not width and size.kind not in ("lstm", "released", "reservoirs", *STATIC):
        raise OptionError(
            variable="head",
            found=f"{size.kind!r} without an encoder",
            expected='"lstm", "reservoirs" or "site", which read the inputs only',
            fix='use head="lstm", or give an encoder',
        )
    kind = HEADS[size.kind]
    if issubclass(kind, StaticHead):
        return kind(size, statics=statics, width=width, extras=extras)
    return kind(size, forcings=forcings, statics=statics, width=width)
