"""The generative side: what the masked autoencoder says about variables that it does not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import dask.array as da
import xarray as xr

from xstefa.arguments import checked
from xstefa.errors import LayoutError, OptionError
from xstefa.inference.engine import Answer
from xstefa.inference.run import Run, each_block, prepare
from xstefa.model.registry import ModelLike, foundation_model
from xstefa.model.scaler import Moments
from xstefa.options import as_list
from xstefa.schema import Kind, Variable
from xstefa.windows import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand

Columns: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction(Answer):
    """Variables as the decoder reconstructs them, standardised.

    Attributes
    ----------
    kind : {"forcing", "static"}
    columns : tuple of int
        Which of the network's variables of this kind.
    hidden : tuple of tuple of int
        For each of the columns those that are hidden while it is reconstructed; empty where it is
        reconstructed from all that is known.
    """

    kind: Kind
    columns: Columns
    hidden: tuple[Columns, ...]

    @property
    def daily(self) -> bool:
        """Whether there are values for each day."""
        return self.kind == "forcing"

    @property
    def needs_required(self) -> bool:
        """Whatever is known says something of the rest."""
        return False

    def width(self, spec: ModelSpec) -> int:
        """Return the number of variables."""
        return len(self.columns)

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return standardised values, shape (B, T, variables) or (B, variables)."""
        import torch

        assert network.encoder is not None and network.decoder is not None
        found = {}
        for hide in dict.fromkeys(self.hidden):
            masks = [torch.zeros_like(v, dtype=torch.bool) for v in (forcing, static)]
            masks[self.kind == "static"][..., list(hide)] = True
            values = network.decoder(network.encoder(forcing, static, *masks))
            found[hide] = values.static if self.kind == "static" else values.forcing
        pairs = zip(self.columns, self.hidden, strict=True)
        return torch.stack([found[hide][..., column] for column, hide in pairs], dim=-1)


@checked
def reconstruct(
    dataset: xr.Dataset,
    variables: str | Iterable[str] | None = None,
    *,
    only_missing: bool = True,
    model: ModelLike | None = None,
    rename: Mapping[str, str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    batch_size: int | None = None,
    extrapolate: bool = False,
) -> xr.Dataset:
    """Say what the masked autoencoder expects of variables that are not known.

    Parameters
    ----------
    variables : sequence of str, optional
        Tokens to reconstruct. By default those that the dataset does not have; with
        ``only_missing=False`` all that the model has learned.
    only_missing : bool
        Keep what is known of these variables, and fill the gaps from everything that is known.
        False tells what the model says when it does not see a variable: each is reconstructed
        while it and its physical group (soil texture, climate, ...) are hidden, as in
        pretraining. Compared with known values that is the model's skill.
    model : str or Model, optional
        A foundation model; by default the bundled one.
    rename : mapping of str to str, optional
        Dataset variable to token.
    device, precision, batch_size, extrapolate
        As for `predict`.

    Returns
    -------
    Dataset
        A variable for each token, in its canonical units: forcings with the dimensions of the
        dataset, site attributes without time. Lazy exactly if the dataset is chunked. Values
        are not clipped to what is physically possible.

    Raises
    ------
    ModelError
        If the model has no decoder, or none is bundled.
    OptionError
        If a name is not a token that the model has learned.
    """
    chosen = foundation_model(model, causal=False)
    chosen.require("decoder")
    run = prepare(
        dataset,
        chosen,
        rename=rename,
        device=device,
        precision=precision,
        batch_size=batch_size,
        extrapolate=extrapolate,
    )
    names = _names(variables, run, only_missing=only_missing)
    schema, scaler = chosen.schema, chosen.spec.scaler
    moments = {**scaler.forcings, **scaler.statics}
    arrays: dict[str, xr.DataArray] = {}
    kinds: dict[Kind, tuple[Variable, ...]] = {
        "forcing": schema.forcings,
        "static": schema.statics,
    }
    for kind, tokens in kinds.items():
        wanted = [variable for variable in tokens if variable.name in names]
        if not wanted:
            continue
        answer = Reconstruction(
            kind=kind,
            columns=tuple(tokens.index(variable) for variable in wanted),
            hidden=tuple(() if only_missing else _together(v, tokens) for v in wanted),
        )
        block = run.compute(answer)
        for place, variable in enumerate(wanted):
            restored = partial(_restored, place=place, moments=moments[variable.name])
            arrays[variable.name] = _labeled(
                each_block(restored, block), variable, run, only_missing=only_missing
            )
    try:
        result = xr.Dataset({name: arrays[name] for name in names})
    except xr.MergeError as error:
        raise LayoutError(
            "a token has the name of a coordinate of the dataset",
            variable=", ".join(names),
            found=str(error),
            expected="coordinates of other names",
            fix="rename the coordinate: ds.rename({...})",
        ) from error
    return result.assign_attrs(run.attrs("variables reconstructed"))


def _names(
    variables: str | Iterable[str] | None,
    run: Run,
    *,
    only_missing: bool,
) -> list[str]:
    """Return the tokens to reconstruct."""
    spec = run.key.model.spec
    learned = [v.name for v in spec.schema.tokens if v.name in spec.tokens]
    if variables is None:
        return [n for n in learned if not (only_missing and n in run.binding.sources)]
    names = as_list(variables)
    if unknown := [name for name in names if not isinstance(name, str) or name not in learned]:
        raise OptionError(
            variable="variables",
            found=", ".join(map(repr, unknown)),
            expected="some of " + ", ".join(learned),
            fix="name tokens, not the dataset's variables: see ds.stefa.tokens()",
        )
    return list(dict.fromkeys(names))


def _labeled(
    data: da.Array | Floats, variable: Variable, run: Run, *, only_missing: bool
) -> xr.DataArray:
    """Give reconstructed values their place and name; let known ones stand."""
    frame = run.frame(daily=variable.kind == "forcing")
    array = frame.copy(data=data).rename(variable.name)
    if only_missing and variable.name in run.binding.sources:
        known = run.binding.token(variable.name).broadcast_like(frame).transpose(*frame.dims)
        array = array.copy(data=known.where(known.notnull(), array).data)
    array.attrs |= _attributes(variable, only_missing=only_missing)
    return array


def _together(variable: Variable, tokens: Iterable[Variable]) -> Columns:
    """Return the columns of the variable's group, which pretraining hides as a whole."""
    return tuple(
        column
        for column, other in enumerate(tokens)
        if other.name == variable.name or (other.group == variable.group and variable.group)
    )


def _restored(block: Floats, *, place: int, moments: Moments) -> Floats:
    return moments.restore(block[..., place])


def _attributes(variable: Variable, *, only_missing: bool) -> dict[str, str]:
    seen = "known values as they are" if only_missing else "not seeing it or its group"
    attrs = {
        "long_name": variable.long_name,
        "units": variable.units,
        "comment": f"reconstructed by StefaLand, {seen}",
    }
    if variable.standard_names:
        first = variable.standard_names[0]
        attrs["standard_name"] = first.name
        if first.cell_method is not None:
            attrs["cell_methods"] = f"time: {first.cell_method}"
    return attrs
