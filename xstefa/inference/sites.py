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
from xstefa.model.distribution import WIDTH, Distribution
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

QUANTILE = {"long_name": "probability of a lower observation", "units": "1"}

COVERAGE = {"long_name": "share of the model's attributes that are known", "units": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteValues(Answer):
    """The static targets of a model, each at each depth: the mean of the heads.

    Attributes
    ----------
    distributions : tuple of Distribution
        Those of the model, if what may be observed is asked for: it comes last.
    """

    distributions: tuple[Distribution, ...] = ()

    @property
    def daily(self) -> bool:
        """Whether there is a value for each day: there is none."""
        return False

    def width(self, spec: ModelSpec) -> int:
        """Return the number of targets times that of depths; and that of the distributions."""
        size = spec.architecture.heads[0]
        return size.outputs * size.levels + WIDTH * len(self.distributions)

    def run(self, network: StefaLand, forcing: Tensor, static: Tensor) -> Tensor:
        """Return the values of sites, and what may be observed there, shape (B, width)."""
        import torch

        members = network.sites(static).flatten(1, 2)
        parts, nothing = [members.mean(-1)], static.new_empty((len(static), 1, 0))
        for each, distribution in zip(members.split(1, dim=1), self.distributions, strict=False):
            parts.append(distribution.locate(each, nothing, static)[:, 0])
        return torch.cat(parts, dim=-1)


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
    found[sites, :width] = answer_sites(key, job.answer, static[sites])
    return found.reshape(*shape, width + 1)


def answer_sites(key: EngineKey, answer: Answer, static: Floats) -> Floats:
    """Ask a model at sites whose attributes (site, S) it may read, shape (site, width)."""
    found = np.empty((len(static), answer.width(key.model.spec)), dtype=np.float32)
    for begin in range(0, len(static), ROWS):
        rows = slice(begin, begin + ROWS)
        found[rows] = get_engine(key).answer_sites(answer, static[rows], rows=ROWS)
    return found


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


AT_ONCE = "a static target is learned from all sites at once, in minutes"


def refuse_daily(
    why: str = "a static target has one value a site, and no days", **given: object
) -> None:
    """Refuse options that mean nothing to a static target."""
    for option, value in given.items():
        if value is not None:
            raise OptionError(
                why,
                variable=option,
                found=f"{option}=",
                expected="nothing for it: only daily targets have it",
                fix=f"leave {option} out",
            )


def predict_sites(
    dataset: xr.Dataset,
    names: Sequence[str],
    model: Model,
    *,
    levels: tuple[float, ...] | None = None,
    coverage: bool = False,
    min_coverage: float = 0.0,
    **how: Any,
) -> xr.Dataset:
    """Predict static targets from the attributes of sites.

    Parameters
    ----------
    names : sequence of str
        Targets, or the name of a composition, which stands for its parts.
    levels : tuple of float, optional
        Quantiles of what may be observed, in place of the mean.
    coverage, min_coverage
        As for `StefaAccessor.predict`, of attributes.
    **how
        Of `SiteRun.of`.

    Returns
    -------
    Dataset
        A variable for each target, on the sites, and `DEPTH` if they have depths; the first
        dimension is ``quantile`` if these are asked for.
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
    known = () if levels is None else distributions_of(model)
    run = SiteRun.of(dataset, model, **how)
    block = run.compute(SiteValues(distributions=known), "value")
    shares = block.isel(value=-1, drop=True)
    mean = block.isel(value=slice(0, SiteValues().width(model.spec)))
    values = split(mean if levels is None else _quantiles(block, known, levels), schema, outputs)
    found = xr.Dataset()
    for name in wanted:
        each = values[name]
        if min_coverage:
            each = each.where(shares >= np.float32(min_coverage))
        attrs = target_attributes(schema.target(name))
        if levels is not None:
            sites = known[outputs.index(name) * len(known) // len(outputs)].sites
            attrs["comment"] = f"predictive quantiles, learned at {sites} sites"
        if coverage:
            attrs["ancillary_variables"] = "coverage"
        found[name] = run.label(each, done=f"{name} predicted", name=name, **attrs)
    return found.assign_coords(coverage=shares.assign_attrs(COVERAGE)) if coverage else found


def distributions_of(model: Model) -> tuple[Distribution, ...]:
    """Return what may be observed around the answers of a model.

    Raises
    ------
    OptionError
        If they are probabilities.
    ModelError
        If it was not learned.
    """
    assert model.target is not None
    if model.target.kind == "class":
        raise OptionError(
            "what may be observed of a class is 0 or 1, and the probability says how often",
            variable="quantiles",
            found=f"quantiles of {model.target.name!r}, a class",
            expected="the probability alone",
            fix="leave quantiles= and interval= out",
        )
    if not model.spec.distributions:
        raise ModelError(
            "what may be observed around its answers is not known",
            variable=model.name,
            found="a model that learned without folds",
            expected="one that knows its errors at sites that it did not learn from",
            fix="model = ds.stefa.finetune(<target>, validation=BlocksOfSpace())",
        )
    return model.spec.distributions


def _quantiles(
    block: xr.DataArray, known: Sequence[Distribution], levels: tuple[float, ...]
) -> xr.DataArray:
    """Return quantiles of what an answer has located: one value for each distribution."""
    first = block.sizes["value"] - 1 - WIDTH * len(known)

    def taken(values: Floats) -> Floats:
        parts = np.split(values[..., first:-1], len(known), axis=-1)
        found = [each.quantiles(part, levels) for each, part in zip(known, parts, strict=True)]
        return np.moveaxis(np.stack(found, axis=-1), 0, -2)

    found = xr.apply_ufunc(
        taken,
        block,
        input_core_dims=[["value"]],
        output_core_dims=[["quantile", "value"]],
        exclude_dims={"value"},
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"quantile": len(levels), "value": len(known)}},
    )
    found = found.assign_coords(quantile=("quantile", list(levels), QUANTILE))
    return found.transpose("quantile", ...)


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
