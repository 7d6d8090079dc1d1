"""What models read and predict, with the names that data have for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from xstefa.typed import LATER, Count

__all__ = ["Alias", "Needs", "StandardName", "Target", "Variable"]

Kind: TypeAlias = Literal["forcing", "static"]
Transform: TypeAlias = Literal["identity", "log", "log1p"]
TargetKind: TypeAlias = Literal["number", "class"]
Beyond: TypeAlias = Literal["clip", "unknown", "keep"]
Needs: TypeAlias = tuple[tuple[str, ...], ...]
"""Groups of forcings, of each of which at least one has to be known."""

UNKNOWN_UNITS = "unknown"
"""Units of a token of which a model does not say them; no dataset can provide it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardName:
    """A CF standard name, and the time cell method that tells siblings apart.

    Parameters
    ----------
    name : str
        CF standard name, e.g. ``"air_temperature"``.
    cell_method : str, optional
        ``"maximum"``, ``"minimum"``, ``"mean"`` or ``"sum"``; None accepts all but extremes.
    """

    name: str
    cell_method: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """A variable name that a data source uses for a token.

    Parameters
    ----------
    name : str
        The exact name in the source's files.
    source : str
        The sources, separated by commas, for the reader and for the token table.
    units : str, optional
        Units fixed by the source's documentation, used only when the variable itself has none.
        Given only for names that no other source uses in another unit, or together with `beside`
        or `signed`.
    method : str, optional
        Time cell method fixed by the source's documentation, used only when the variable itself
        says none: ``"sum"`` of an amount that is the total of its day, ``"mean"`` of an hourly
        value that is the mean of the hour before its stamp.
    beside : str, optional
        Another variable of the source, by which it is told from sources that use this name for
        something else: without it the alias does not count.
    signed : bool
        Whether `units` and `method` count only beside a sign of one of the sources.
    twin : bool
        Whether it is the second reading of a quantity that sources have under another name too,
        and counts only where no other alias does.
    """

    name: str
    source: str
    units: str | None = None
    method: str | None = None
    beside: str | None = None
    signed: bool = False
    twin: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """One token (or ingredient of a derived token).

    Parameters
    ----------
    name : str
        Token name.
    kind : {"forcing", "static"}
        Daily series, or one value a site.
    units : str
        Canonical units.
    long_name : str
    standard_names : tuple of StandardName
    aliases : tuple of Alias
    valid_range : (float, float)
        In canonical units; values outside mean a wrong label, not weather.
    group : str, optional
        Physical group masked together in pretraining.
    transform : {"identity", "log", "log1p"}
        Applied by the scaler before standardising.
    required : bool
        Whether a model needs it that does not say which forcings it needs.
    maskable : bool
        Whether pretraining may hide it.
    daylight : bool
        True for an ingredient that is a mean over daylight hours and says so.
    beyond : {"clip", "unknown", "keep"}
        What a model reads of a static value outside those of its training: the nearest of them,
        nothing, or the value itself.
    unless : tuple of str
        Words, in small letters, by which a variable says that it is another quantity.
    length : int
        Numbers that it has at a site: 1, or more of a vector, such as an embedding by another
        model. All of them are known, or none.
    """

    name: str
    kind: Kind
    units: str
    long_name: str
    valid_range: tuple[float, float]
    standard_names: tuple[StandardName, ...] = ()
    aliases: tuple[Alias, ...] = ()
    group: str | None = None
    transform: Transform = "identity"
    required: bool = False
    maskable: bool = True
    daylight: bool = False
    beyond: Beyond = "clip"
    unless: tuple[str, ...] = ()
    length: Count = field(default=1, metadata=LATER)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its numbers: its own, or ``name[0]``, ``name[1]``, ... of a vector."""
        if self.length == 1:
            return (self.name,)
        return tuple(f"{self.name}[{i}]" for i in range(self.length))


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A quantity that models predict.

    Parameters
    ----------
    name, units, long_name, cell_methods : str
        Name and CF metadata of the prediction. A static target may have no cell methods.
    valid_range : (float, float)
        In `units`.
    standard_name : str, optional
        CF standard name of the prediction; None where CF has none that fits `units`.
    standard_names : tuple of StandardName
        Standard names under which observations of it are found.
    aliases : tuple of Alias
        Names under which observations of it are found.
    leaking : tuple of str
        Names of variables computed from the target; never predictors.
    static : bool
        Whether a site has one value (or one a depth), which is predicted from its attributes; by
        default it has one a day.
    kind : {"number", "class"}
        Of a class the probability is predicted, and labels 0 and 1 are observed: only static.
    composition : str, optional
        Name of the whole that it is a part of: fractions that are positive and sum to 1.
    depths : tuple of float
        Depths [m] that a static target has a value for; by default it has one.
    hidden : tuple of str
        Tokens that tell it: models of it, or of another part of its composition, never read them.
    """

    name: str
    units: str
    long_name: str
    valid_range: tuple[float, float]
    cell_methods: str = ""
    standard_name: str | None = None
    standard_names: tuple[StandardName, ...] = ()
    aliases: tuple[Alias, ...] = ()
    leaking: tuple[str, ...] = ()
    static: bool = field(default=False, metadata=LATER)
    kind: TargetKind = field(default="number", metadata=LATER)
    composition: str | None = field(default=None, metadata=LATER)
    depths: tuple[float, ...] = field(default=(), metadata=LATER)
    hidden: tuple[str, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        if not self.static and (self.kind == "class" or self.composition or self.depths):
            raise ValueError("only a static target is a class or a part, or has depths")
        fraction = self.units == "1" and tuple(self.valid_range) == (0, 1)
        if (self.kind == "class" or self.composition) and not fraction:
            raise ValueError("a class or part has the units '1' and the range 0 to 1")

    @property
    def aliases_text(self) -> tuple[str, ...]:
        """Standard names and aliases under which observations are found, for messages."""
        names = (f"standard_name {name.name}" for name in self.standard_names)
        return (*names, *(alias.name for alias in self.aliases))
