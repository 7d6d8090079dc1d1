"""Static targets: attributes of sites in, one value a site out; no days, no windows, no spin-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xstefa.binding import Binding
from xstefa.binding.binding import DEPTH
from xstefa.binding.plain import in_memory
from xstefa.binding.sites import plan_sites
from xstefa.binding.value_checks import value_problems
from xstefa.errors import ModelError, OptionError, did_you_mean, raise_problems
from xstefa.inference.engine import Answer, EngineKey, get_engine
from xstefa.inference.extrapolation import look_at_sites, outside_training
from xstefa.inference.run import model_attributes
from xstefa.model.checkpoint import Model
from xstefa.model.ranges import bounded
from xstefa.model.registry import ModelLike, load_model, model_for
from xstefa.options import as_list, resolve_options
from xstefa.schema import Schema, Target, load_schema
from xstefa.windows import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from xstefa.model.checkpoint import ModelSpec
    from xstefa.model.network import StefaLand

ROWS = 256
"""Sites of a call of the network: always as many, so that no answer depends on the chunks."""

COVERAGE = {"long_name": "share of the model's attributes that are known", "units": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteValues(Answer):
    """The static targets of a model, each at each depth: the mean of the heads."""

    @property
    def daily(self) -> bool:
        """Whether there is a value for each day: there is none."""
        return False

    def width(self, spec: ModelSpec) -> int:
        """Return the number of targets times that of depths."""
        size = spec.architecture.heads[0]
        return size.outputs * size.levels

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return the values of sites, shape (B, width)."""
        return network.sites(static).mean(-1).flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVectors(Answer):
    """What the encoder makes of the attributes of a site."""

    @property
    def daily(self) -> bool:
        """Whether there is one for each day: there is none."""
        return False

    def width(self, spec: ModelSpec) -> int:
        """Return the length of a vector."""
        assert spec.architecture.encoder is not None
        return spec.architecture.encoder.width

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return the vectors, shape (B, d)."""
        found = network.represent_sites(static)
        assert found is not None
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteRun:
    """A model, and the attributes of a dataset that it reads.

    Attributes
    ----------
    key : EngineKey
    binding : Binding
    outside : dict of str to str
        What is said of attributes outside of training.
    """

    key: EngineKey
    binding: Binding
    outside: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        dataset: xr.Dataset,
        model: Model,
        *,
        strict: bool = False,
        rename: Mapping[str, str] | None = None,
        extrapolate: bool = False,
        **options: Any,
    ) -> SiteRun:
        """Match a dataset to the attributes that a model reads; raise all that is wrong.

        Parameters
        ----------
        strict, rename, extrapolate, **options
            As for `StefaAccessor.predict`; the last are `device`, `precision` and `batch_size`.
        """
        spec = model.spec
        binding = plan_sites(dataset, model.schema, rename=rename, tokens=spec.tokens)
        binding.require(strict=strict)
        chosen = resolve_options(**options)
        key = EngineKey(
            model=model,
            device=chosen.device,
            precision=chosen.precision or "fp32",
            extrapolate=extrapolate,
        )
        read = [s for s in binding.sources.values() if in_memory(binding.dataset, s.variables)]
        raise_problems(value_problems(binding.dataset, read, layout=binding.layout, every=True))
        return cls(key=key, binding=binding, outside=outside_training(binding, key))

    def compute(self, answer: Answer, name: str) -> xr.DataArray:
        """Ask the model: lazily where attributes are chunked, else here and now.

        Returns
        -------
        DataArray of float32
            Dimensions of the sites, and last ``name``: the values of the answer, and the share of
            attributes that are known. Where none is, all values are NaN.
        """
        binding, spec = self.binding, self.key.model.spec
        tokens = {n: binding.static[n].reset_coords(drop=True) for n in binding.static}
        dataset, sources, dims = binding.dataset, binding.sources, binding.layout.dims
        unseen = tuple(n for n, s in sources.items() if not in_memory(dataset, s.variables))
        job = SiteJob(key=self.key, answer=answer, names=tuple(tokens), unseen=unseen)
        block = xr.apply_ufunc(
            _answered,
            *tokens.values(),
            kwargs={"job": job},
            input_core_dims=[[d for d in each.dims if d not in dims] for each in tokens.values()],
            output_core_dims=[[name]],
            dask="parallelized",
            output_dtypes=[np.float32],
            dask_gufunc_kwargs={
                "output_sizes": {name: answer.width(spec) + 1},
                "allow_rechunk": True,  # of the numbers of a vector
            },
            join="override",
        )
        layout = binding.layout
        lacking = {d: binding.dataset.sizes[d] for d in layout.dims if d not in block.dims}
        return (
            block.expand_dims(lacking).transpose(*layout.dims, name).drop_vars(list(block.coords))
        )

    def label(self, block: xr.DataArray, *, done: str, name: str, **attrs: str) -> xr.DataArray:
        """Give values, whose last dimensions may be others than those of the sites, their labels.

        Parameters
        ----------
        done : str
            What was done, for the history.
        """
        layout, sizes = self.binding.layout, self.binding.dataset.sizes
        shape = tuple(sizes[dim] for dim in layout.dims)
        frame = layout.wrap(np.broadcast_to(np.float32(0), shape), name=name)
        model = model_attributes(self.key.model, self.key.precision, self.binding.dataset, done)
        result = block.assign_coords(frame.coords).rename(name)
        result.attrs = attrs | model | self.outside | frame.attrs
        result.encoding = frame.encoding
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteJob:
    """All that the tasks of one prediction have in common.

    Attributes
    ----------
    key : EngineKey
    answer : Answer
    names : tuple of str
        Attributes that it is given, in this order.
    unseen : tuple of str
        Those whose values nobody has looked at.
    """

    key: EngineKey
    answer: Answer
    names: tuple[str, ...]
    unseen: tuple[str, ...]

    def __dask_tokenize__(self) -> object:
        return type(self).__qualname__, self.key, self.answer, self.names


def _answered(*values: Floats, job: SiteJob) -> Floats:
    """Answer for the sites of a block, given its attributes one by one, shape (..., width + 1)."""
    key, spec = job.key, job.key.model.spec
    given = dict(zip(job.names, values, strict=True))
    given = {n: v if spec.schema[n].length > 1 else v[..., None] for n, v in given.items()}
    shape = np.broadcast_shapes(*(each.shape[:-1] for each in given.values()))
    parts, known = [], np.zeros(shape, dtype=np.int64)
    for variable in spec.schema.attributes:
        part = np.full((*shape, variable.length), np.nan, dtype=np.float32)
        if variable.name in given:
            complete = np.asarray(np.isfinite(given[variable.name]).all(axis=-1))
            part[...] = np.where(complete[..., None], given[variable.name], np.float32(np.nan))
            known += complete
        parts.append(part)
    static = np.concatenate(parts, axis=-1)
    static = static.reshape(known.size, static.shape[-1])  # there may be no site
    look_at_sites(job, key, static, job.unseen)
    if not key.extrapolate:
        static = bounded(static, spec.schema, spec.ranges)
    width = job.answer.width(spec)
    found = np.full((len(static), width + 1), np.nan, dtype=np.float32)
    readable = sum(variable.name in spec.tokens for variable in spec.schema.attributes)
    found[:, -1] = known.ravel() / readable
    sites = np.flatnonzero(known)
    for begin in range(0, len(sites), ROWS):
        rows = sites[begin : begin + ROWS]
        found[rows, :width] = get_engine(key).answer_sites(job.answer, static[rows], rows=ROWS)
    return found.reshape(*shape, width + 1)


def model_of_sites(
    dataset: xr.Dataset,
    names: Sequence[str],
    *,
    model: ModelLike | None,
    rename: Mapping[str, str] | None = None,
) -> Model | None:
    """Return the model that predicts static targets; None if it or the targets are daily."""
    if model is not None:
        chosen = load_model(model)
        return chosen if chosen.spec.static else None
    schema = load_schema()
    known = {target.name: target for target in schema.targets}
    targets = [known[name] for name in schema.expanded(names) if name in known]
    if not any(target.static for target in targets):
        return None
    support = plan_sites(dataset, schema, rename=rename).layout.support
    return model_for(schema.expanded(names), support=support)


def only_one(target: Any) -> Any:
    """Return the one daily target that is asked for, of a target or a sequence.

    Raises
    ------
    OptionError
        If there are several.
    """
    names = as_list(target)
    if len(names) == 1:
        return names[0]
    raise OptionError(
        "one daily target at a time",
        variable="target",
        found=repr(target),
        expected="one target, or static ones of one model",
        fix="call it for each",
    )


def refuse_daily(**given: object) -> None:
    """Refuse options about days or distributions, which a static target does not have."""
    for option, value in given.items():
        if value is not None:
            raise OptionError(
                "a static target has one value a site: no days, and no distribution",
                variable=option,
                found=f"{option}=",
                expected="options that are not about days or quantiles",
                fix=f"leave {option} out",
            )


def predict_sites(
    dataset: xr.Dataset,
    names: Sequence[str],
    model: Model,
    *,
    coverage: bool = False,
    min_coverage: float = 0.0,
    **how: Any,
) -> xr.Dataset:
    """Predict static targets from the attributes of sites.

    Parameters
    ----------
    names : sequence of str
        Targets, or the name of a composition, which stands for its parts.
    coverage, min_coverage
        As for `StefaAccessor.predict`, of attributes.
    **how
        Of `SiteRun.of`.

    Returns
    -------
    Dataset
        A variable for each target, on the sites, and `DEPTH` if they have depths.
    """
    schema, outputs = model.schema, model.spec.outputs
    wanted = schema.expanded(names)
    if others := [name for name in wanted if name not in outputs]:
        raise ModelError(
            variable=model.name,
            found=f"a model of {', '.join(outputs)}",
            expected=f"a model of {', '.join(others)}",
            fix=did_you_mean(others[0], outputs) or "leave model= out",
        )
    run = SiteRun.of(dataset, model, **how)
    block = run.compute(SiteValues(), "value")
    shares = block.isel(value=-1, drop=True)
    values = split(block.isel(value=slice(0, -1)), schema, outputs)
    found = xr.Dataset()
    for name in wanted:
        each = values[name]
        if min_coverage:
            each = each.where(shares >= np.float32(min_coverage))
        attrs = target_attributes(schema.target(name))
        if coverage:
            attrs["ancillary_variables"] = "coverage"
        found[name] = run.label(each, done=f"{name} predicted", name=name, **attrs)
    return found.assign_coords(coverage=shares.assign_attrs(COVERAGE)) if coverage else found


def split(block: xr.DataArray, schema: Schema, outputs: Sequence[str]) -> dict[str, xr.DataArray]:
    """Return the values of each target, along `DEPTH` if it has depths."""
    depths = schema.target(outputs[0]).depths
    levels = max(1, len(depths))
    found = {}
    for number, name in enumerate(outputs):
        each = block.isel(value=slice(number * levels, (number + 1) * levels))
        if depths:
            attrs = {"units": "m", "standard_name": "depth", "positive": "down", "axis": "Z"}
            found[name] = each.rename(value=DEPTH).assign_coords(
                {DEPTH: (DEPTH, list(depths), attrs)}
            )
        else:
            found[name] = each.isel(value=0, drop=True)
    return found


def target_attributes(target: Target) -> dict[str, str]:
    """Return the CF attributes of a target; specific discharge, say, has no standard name."""
    attrs = {
        "long_name": target.long_name,
        "units": target.units,
        "cell_methods": target.cell_methods,
        "standard_name": target.standard_name,
    }
    return {key: value for key, value in attrs.items() if value}
