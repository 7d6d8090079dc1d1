"""Exceptions and warnings of xstefa.

Every error says what it is about, what was found, what was expected and what to type next.
All derive from `XstefaError`; each also derives from the builtin that callers would expect.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import warnings
from collections.abc import Iterable, Sequence


class XstefaWarning(UserWarning):
    """Base of all warnings of xstefa: it goes on, and says with what."""


class XstefaError(Exception):
    """Base of all errors of xstefa.

    Parameters
    ----------
    message : str, optional
        What went wrong, in one sentence.
    variable : str, optional
        The variable, token, dimension or option concerned.
    found, expected : str, optional
        What the input has, and what is needed instead.
    fix : str, optional
        What to type to get further.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        variable: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.message = message
        self.variable = variable
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(message, variable, found, expected, fix)

    def __str__(self) -> str:
        parts = []
        if self.variable is not None:
            parts.append(f"{self.variable!r}:")
        if self.message is not None:
            parts.append(_sentence(self.message))
        if self.found is not None:
            parts.append(_sentence(f"Found {self.found}"))
        if self.expected is not None:
            parts.append(_sentence(f"Expected {self.expected}"))
        if self.fix is not None:
            parts.append(f"Fix: {self.fix}")
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive Exception's own pickling (dask workers need it).
        return (_rebuild, (type(self), dict(self.__dict__)))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


def _rebuild(cls: type[XstefaError], state: dict[str, object]) -> XstefaError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    return error


class SchemaError(XstefaError, ValueError):
    """A schema is malformed, or does not know a name."""


class MissingTokenError(XstefaError, LookupError):
    """A required token, or a variable that was asked for, is not in the dataset."""


class AmbiguousMatchError(XstefaError, ValueError):
    """Several variables fit one token equally well."""


class UnitsError(XstefaError, ValueError):
    """Units are missing, ambiguous, or cannot be converted to the token's."""


class RangeError(XstefaError, ValueError):
    """Values lie outside what is physically possible: most often a wrong units label."""


class LayoutError(XstefaError, ValueError):
    """The dimensions or coordinates of a dataset cannot be read as sites and days."""


class CalendarError(LayoutError):
    """The time axis is not a sequence of distinct, ordered days."""


class ModelError(XstefaError, ValueError):
    """A model is unknown, damaged, or does not fit what it is asked to do."""


class ReadError(XstefaError, OSError):
    """A file, or the values of a variable, cannot be read: what it is made of raises."""


class StoreError(XstefaError, OSError):
    """A result store cannot be written or resumed."""


class TrainingError(XstefaError, ValueError):
    """A training set or recipe cannot be used."""


class OptionError(XstefaError, ValueError):
    """An option or argument has a value that is not allowed."""


class MissingExtraError(XstefaError, ImportError):
    """A feature needs packages that are not installed: those of an extra of xstefa."""


def need(extra: str, *packages: str, job: str, variable: str | None = None) -> None:
    """Refuse a job whose packages, those of an extra of xstefa, are not installed.

    Parameters
    ----------
    extra : str
        Its name in pyproject.toml.
    *packages : str
        What is imported, named as the package index names it.
    job : str
        What they are for: "drawing", say.
    variable : str, optional
        What to name in the message; by default the extra.

    Raises
    ------
    MissingExtraError
    """
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"{job} needs what is not installed",
            variable=variable or extra,
            found=f"no module {error.name!r}",
            expected=f"the extra {extra!r}: {' and '.join(packages)}",
            fix=f"pip install {' '.join(packages)}",
        ) from error


class BindingErrors(XstefaError, ValueError):
    """Several problems of one dataset, reported together.

    Parameters
    ----------
    problems : sequence of XstefaError
        At least two; kept in order as `.problems`.
    """

    def __init__(self, problems: Sequence[XstefaError]) -> None:
        super().__init__(f"{len(problems)} problems with this dataset")
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [
            f"  {number}. {type(problem).__name__}: {problem}"
            for number, problem in enumerate(self.problems, start=1)
        ]
        return "\n".join([f"{self.message}:", *lines])


def did_you_mean(name: object, known: Iterable[str]) -> str | None:
    """Return the question to ask after an unknown name; None if no known one is close."""
    close = difflib.get_close_matches(str(name), list(known), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else None


def raise_problems(problems: Sequence[XstefaError]) -> None:
    """Raise nothing, the only problem, or all problems as one `BindingErrors`.

    They are told in the order in which they can be mended: days are made (`daily`) of variables
    that are known by then, and the others are left out.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise BindingErrors(sorted(problems, key=lambda each: isinstance(each, CalendarError)))


def warn(warning: XstefaWarning) -> None:
    """Warn, at the line outside of the package that called it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith("xstefa"):
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)
