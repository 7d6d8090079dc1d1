"""Bring the authors' checkpoints: one file in, an ordinary `Model` out."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from xstefa.arguments import checked
from xstefa.errors import ModelError
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.published_layout import PublishedLayout
from xstefa.model.scaler import Moments, Scaler
from xstefa.schema import UNKNOWN_UNITS, Alias, Schema, Variable, load_schema
from xstefa.schema import Kind as TokenKind
from xstefa.windows import WindowPolicy

if TYPE_CHECKING:
    from torch import Tensor

# Of a variable that no schema knows.
ANY_VALUE = (-1e30, 1e30)


@checked
def import_published(
    path: str | os.PathLike[str],
    scaler: Scaler | None = None,
    *,
    heads: int = 4,
    units: Mapping[str, str] | None = None,
    schema: Schema | None = None,
    variables: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Model:
    """Import a StefaLand checkpoint as the authors' training scripts write it.

    Variables, sizes and layers are recovered from the keys and shapes. The result is an ordinary
    model in xstefa's cache folder: keep it with ``Model.save(path)``. Checkpoints of pretraining,
    of fine-tuning and of the fine-tuning script's LSTM baseline are told apart by their keys.

    Parameters
    ----------
    path : path-like
        The ``.pt`` file: a dictionary with the weights under ``model_state_dict``, or the weights
        themselves; keys with or without ``module.``. Read with ``weights_only=True``: nothing in
        the file is executed.
    scaler : Scaler, optional
        Mean and standard deviation of every variable, under the checkpoint's names or the tokens'.
        They are not in the file. Without them the model's scaler is the identity and its
        provenance says so: tensors must come standardised.
    heads : int
        Attention heads; not recoverable from the weights.
    units : mapping of str to str, optional
        Units of variables that the schema does not know. Unknown ones keep the model from reading
        datasets with that variable, not from tensor-level use.
    schema : Schema, optional
        Whose aliases turn the checkpoint's names into tokens; by default ``"stefaland"``. Names
        that it does not know, or that would share a token, stay as they are.
    variables : (sequence of str, sequence of str), optional
        Names of forcings and statics, in order, for the LSTM baseline, whose file has none.

    Returns
    -------
    Model
        A foundation model: `Model.encode` and `Model.reconstruct`; of fine-tuned ones and of the
        baseline also `Model.estimate`. How each name was read is in
        ``model.spec.provenance["variables"]``.

    Raises
    ------
    ModelError
        If the file is no such checkpoint, holds objects beside tensors and numbers, or its tensors
        are missing, left over or misshapen (all listed); if `scaler` or `units` name other
        variables than the checkpoint.

    Examples
    --------
    >>> from xstefa.model.scaler import Moments, Scaler
    >>> model = xstefa.import_published(
    ...     "stefaland.pt", Scaler(forcings={"prcp": Moments(mean=3.2, std=7.1)}, statics={...})
    ... )  # doctest: +SKIP
    """
    import torch

    path = Path(path)
    content = read_checkpoint(path)
    tensors = weights_of(content)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    names = None if variables is None else (tuple(variables[0]), tuple(variables[1]))
    layout = PublishedLayout.recover(shapes, heads=heads, variables=names)
    state = layout.state(tensors)
    known = schema or load_schema()
    given = dict(units or {})
    if both := sorted(set(layout.forcings) & set(layout.statics)):
        raise ModelError(
            variable=", ".join(both),
            found="both among the time series and among the site attributes",
            expected="names that mean one variable",
            fix="rename the keys of one of them in the checkpoint",
        )
    forcings = _tokens(layout.forcings, known.forcings, "forcing", given, path)
    statics = _tokens(layout.statics, known.statics, "static", given, path)
    if given:
        raise ModelError(
            variable=", ".join(given),
            found="units for names that are not unknown variables of the checkpoint",
            expected="only variables that the schema does not know",
            fix="leave them out; a token's units are those of the schema",
        )
    read_as = {
        name: token.name
        for name, token in zip(
            (*layout.forcings, *layout.statics), (*forcings, *statics), strict=True
        )
    }
    size = layout.architecture.encoder
    epoch = content.get("epoch")
    spec = ModelSpec(
        name=path.stem,
        target=None,
        support="any",
        architecture=layout.architecture,
        schema=replace(
            known,
            name=f"{known.name} as in {path.name}",
            forcings=forcings,
            statics=statics,
            # What the checkpoint reads as a variable is no longer a mere part of one.
            ingredients=tuple(v for v in known.ingredients if v.name not in read_as.values()),
        ),
        scaler=_scaler(scaler, forcings, statics, {v: k for k, v in read_as.items()}),
        windows=_windows(365 if size is None else size.positions - 1),
        tokens=tuple(v.name for v in (*forcings, *statics)),
        provenance={
            "imported_from": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "torch": torch.__version__,
            "epoch": int(epoch) if isinstance(epoch, int | np.integer) else None,
            "variables": read_as,
            "units_unknown": [t.name for t in (*forcings, *statics) if t.units == UNKNOWN_UNITS],
            "scaler": "given" if scaler else "identity: none was given, and the file holds none",
            "heads": f"{heads}: as given, not recoverable from the file",
        },
        card=f"# {path.stem}\n\nImported from the published checkpoint `{path.name}`; "
        "see `Model.spec.provenance`.\n",
    )
    return create_model(spec, state)


def read_checkpoint(path: Path) -> dict[str, object]:
    """Read a ``torch.save`` dictionary of tensors and numbers; execute nothing in it."""
    import torch

    if not path.is_file():
        raise ModelError(
            variable=str(path),
            found="no such file",
            expected="the authors' .pt checkpoint",
            fix="check the path",
        )
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises depends on the bytes it meets
        raise ModelError(
            variable=str(path),
            found=f"a file that cannot be read safely ({str(error).partition(chr(10))[0]})",
            expected="a torch.save file of tensors and numbers only",
            fix="save it again with nothing but its model_state_dict; a file that needs "
            "weights_only=False can run any code",
        ) from error
    if not isinstance(content, Mapping):
        content = {"model_state_dict": content}
    return dict(content)


def weights_of(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, without the prefix ``module.``."""
    import torch

    weights = content.get("model_state_dict", content)
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise ModelError(
            variable="model_state_dict",
            found=f"a {type(weights).__name__}, which does not map names to tensors",
            expected="the weights under model_state_dict, or nothing but weights",
            fix="give the authors' checkpoint as their training script wrote it",
        )
    # Data-parallel training prefixes the whole network, or the pretrained one inside it.
    found: dict[str, Tensor] = {}
    twice = []
    for key, value in weights.items():
        name = re.sub(r"^(pretrained_model\.)?module\.", r"\1", str(key))
        if name in found:
            twice.append(name)
        found[name] = value
    if twice:
        raise ModelError(
            variable="model_state_dict",
            found="with and without the prefix module.: " + ", ".join(twice),
            expected="every tensor once",
            fix="save the weights of one network only",
        )
    return found


def _numpy_scalars() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """Return what a pickled numpy number refers to, under the paths of numpy 1 and 2."""
    scalar = cast(Callable[..., object], np.float64(0).__reduce__()[0])
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    codes = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    dtypes = {type(np.dtype(code)) for code in codes}
    return [np.dtype, *dtypes, *((scalar, name) for name in names)]


def _tokens(
    names: Sequence[str],
    known: Sequence[Variable],
    kind: TokenKind,
    units: dict[str, str],
    path: Path,
) -> tuple[Variable, ...]:
    """Return the token of each name; takes what it uses out of `units`."""
    by_name = {v.name: v for v in known}
    by_alias = {
        alias.name: v
        for v in known
        for alias in v.aliases
        if alias.beside is None or alias.beside in names
    }
    found = [by_name.get(name) or by_alias.get(name) for name in names]
    tokens = []
    for name, token in zip(names, found, strict=True):
        if token is not None and found.count(token) == 1:
            tokens.append(token)
        else:
            tokens.append(
                Variable(
                    name=name,
                    kind=kind,
                    units=units.pop(name, UNKNOWN_UNITS),
                    long_name=name,
                    valid_range=ANY_VALUE,
                    aliases=(Alias(name=name, source=path.name),),
                )
            )
    return tuple(tokens)


def _scaler(
    given: Scaler | None,
    forcings: Sequence[Variable],
    statics: Sequence[Variable],
    published: Mapping[str, str],
) -> Scaler:
    """Put the given moments into the network's order, under the tokens' names."""
    if given is None:
        identity = Moments(mean=0.0, std=1.0)
        return Scaler(
            forcings={v.name: identity for v in forcings},
            statics={v.name: identity for v in statics},
        )

    def ordered(moments: Mapping[str, Moments], tokens: Sequence[Variable]) -> dict[str, Moments]:
        left = dict(moments)
        found, missing = {}, []
        for token in tokens:
            name = token.name if token.name in left else published[token.name]
            if name in left:
                found[token.name] = left.pop(name)
            else:
                missing.append(name)
        if missing or left:
            raise ModelError(
                variable="scaler",
                found=f"missing: {', '.join(missing) or 'none'}; "
                f"unknown: {', '.join(left) or 'none'}",
                expected="mean and std of " + ", ".join(published[t.name] for t in tokens),
                fix="give every variable of the checkpoint its moments, and no other",
            )
        return found

    return Scaler(
        forcings=ordered(given.forcings, forcings), statics=ordered(given.statics, statics)
    )


def _windows(longest: int) -> WindowPolicy:
    """Return windows of a year, as in the authors' pretraining, or what the table allows."""
    length = min(365, longest)
    return WindowPolicy(length=length, spin_up=length // 3, blend=2 * (length // 24))
