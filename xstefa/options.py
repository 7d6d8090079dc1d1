"""Settings that hold for a session or a ``with`` block: :class:`set_options`.

Every setting is also a keyword of the calls that use it. :func:`resolve_options` joins the two, so
that a keyword and a setting of the same name are checked by the same rule and mean the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from xstefa.arguments import check_fields, check_names
from xstefa.errors import OptionError
from xstefa.typed import Count, Rule

Precision = Literal["fp32", "bf16"]

Device = Annotated[
    str,
    Rule(
        '"cpu", "cuda", "cuda:<number>", "mps" or "xpu"',
        lambda name: re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", name) is not None,
    ),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """One consistent set of settings; ``None`` leaves the choice to xstefa.

    Attributes
    ----------
    device : str or None
        Torch device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ``"xpu"``. By default the
        first GPU if there is one, else the CPU.
    precision : {"fp32", "bf16"} or None
        Number format of the model's arithmetic. By default ``"fp32"`` on every device: precision
        never drops unless asked.
    batch_size : int or None
        Windows given to the model at once. By default chosen for the device.
    progress : bool or None
        Whether what takes long says how far it is: training, cross-validation, writing a store,
        predicting what is in memory. By default only in terminals and notebooks, as a bar; True
        also writes to a file, a line every ten seconds. Lazy results have none: compute them under
        dask's ``ProgressBar``.
    cache_dir : pathlib.Path or None
        Folder for what is worth keeping between runs. By default ``$XSTEFA_CACHE_DIR``, else
        ``xstefa`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises
    ------
    OptionError
        If a value is not one of the above.
    """

    device: Device | None = None
    precision: Precision | None = None
    batch_size: Count | None = None
    progress: bool | None = None
    cache_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.cache_dir is not None:
            object.__setattr__(self, "cache_dir", Path(self.cache_dir).expanduser())

    def cache_path(self) -> Path:
        """Folder of the cache. It is not created here."""
        if self.cache_dir is not None:
            return Path(self.cache_dir)
        if own := os.environ.get("XSTEFA_CACHE_DIR"):
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "xstefa"


_current = Options()


class set_options:
    """Change settings for the session, or for a ``with`` block.

    Parameters
    ----------
    **values
        Any of ``device``, ``precision``, ``batch_size``, ``progress``, ``cache_dir``; see
        :class:`Options` for what they accept. ``None`` returns a setting to its default.

    Raises
    ------
    OptionError
        If a name is unknown or a value is not accepted. Nothing is changed then.

    Notes
    -----
    Settings belong to the process, as xarray's do. A lazy prediction takes them when it is built:
    leaving the block before computing changes nothing, and they travel with it to dask workers.

    Examples
    --------
    >>> import xstefa
    >>> with xstefa.set_options(device="cpu", batch_size=16):
    ...     xstefa.options.get_options().batch_size
    16
    >>> xstefa.options.get_options().batch_size is None
    True
    """

    def __init__(self, **values: Any) -> None:
        global _current
        updated = _replaced(_current, values)
        self._previous = {name: getattr(_current, name) for name in values}
        _current = updated

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Only what this block set goes back: a setting changed for the session inside it stays.
        global _current
        _current = replace(_current, **self._previous)


def get_options() -> Options:
    """Return the settings in force now."""
    return _current


def resolve_options(**values: Any) -> Options:
    """Return the settings in force, with the given keywords of a call put over them.

    Parameters
    ----------
    **values
        As for :class:`set_options`, except that ``None`` means "not given": the setting holds.

    Returns
    -------
    Options

    Raises
    ------
    OptionError
        If a name is unknown or a value is not accepted.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return _replaced(_current, given)


def as_list(value: Any) -> list[Any]:
    """Return what a keyword that takes one or several things was given."""
    try:
        return [value] if isinstance(value, str) else list(value)
    except TypeError:
        return [value]


def require_gpu(device: str) -> None:
    """Raise if a device is a GPU and this process has none.

    Only where something runs: who plans a computation may have another computer than who runs it.

    Raises
    ------
    OptionError
        If `device` names a CUDA device and torch finds none.
    """
    if not device.startswith("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        raise OptionError(
            variable="device",
            found=f"{device!r}, and no GPU that torch can use in this process",
            expected='"cpu", or a CUDA build of torch on a machine with a GPU',
            fix="leave device out: then a GPU is used where there is one",
        )


def _replaced(options: Options, values: Mapping[str, Any]) -> Options:
    """Put ``values`` into ``options``, checked."""
    check_names(Options, values)
    return replace(options, **values)
