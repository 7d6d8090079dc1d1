"""The ``.stefa`` accessor: it checks arguments and delegates."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from xstefa.arguments import checked
from xstefa.binding import TokenTable, plan
from xstefa.binding.plain import plain
from xstefa.evaluation.ablate import ablate, with_gains
from xstefa.evaluation.evaluate import evaluate
from xstefa.evaluation.probing import probe
from xstefa.inference.embed import embed
from xstefa.inference.explain import explain
from xstefa.inference.predict import predict
from xstefa.inference.reconstruct import reconstruct
from xstefa.inference.spin_up import spin_up
from xstefa.inference.trust import trust
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model
from xstefa.model.registry import ModelLike, foundation_model, load_model
from xstefa.model.variants import EncoderUse
from xstefa.plotting.namespace import Plots
from xstefa.prepare.aggregate import aggregate
from xstefa.prepare.attach import attach
from xstefa.prepare.daily import daily
from xstefa.prepare.ragged import from_ragged
from xstefa.report.explore import explore
from xstefa.report.report import report
from xstefa.schema import Schema, Targets, Tokens, load_schema
from xstefa.splits.holdout import Holdout
from xstefa.training.calibration import calibrate

if TYPE_CHECKING:  # what trains imports torch, and is imported when something trains
    from xstefa.training.checkpoints import Checkpoint
    from xstefa.training.options import HeadRecipe, Schedule


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of a function of a dataset: same arguments, same docstring."""

    @wraps(function)
    def method(self: StefaAccessor, *args: Any, **kwargs: Any) -> Any:
        return function(self._dataset, *args, **kwargs)

    signature = inspect.signature(function)
    first, *others = signature.parameters.values()
    own = first.replace(name="self", annotation=first.empty)
    method.__signature__ = signature.replace(parameters=[own, *others])  # type: ignore[attr-defined]
    method.__annotations__ = {
        name: kind for name, kind in function.__annotations__.items() if name != first.name
    }
    return method


class StefaAccessor:
    """What StefaLand can do with a dataset.

    Its representation is the token table: which of the dataset's variables provide which of the
    model's tokens, by which rule, and what is missing.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = plain(dataset)

    def __repr__(self) -> str:
        return repr(self.tokens())

    def _repr_html_(self) -> str:
        return self.tokens()._repr_html_()

    @property
    def plot(self) -> Plots:
        """Pictures of what a model says of the dataset."""
        return Plots(self._dataset)

    @checked
    def tokens(
        self,
        schema: Schema | str | Path | None = None,
        rename: Mapping[str, str] | None = None,
        *,
        check: bool | None = None,
        gain: str | None = None,
    ) -> TokenTable:
        """Match the dataset's variables to the tokens of a schema.

        Parameters
        ----------
        schema : Schema or str, optional
            A schema, or the name or path of one; by default that of the bundled models.
        rename : mapping of str to str, optional
            Dataset variable to token, where matching by metadata and name does not suffice.
        check : bool, optional
            Whether to read a few days and say how many values are known, which range they have
            and whether it fits their units and the training of the bundled models. By default only
            if all values are in memory.
        gain : str, optional
            Name of a released model: say of missing tokens what skill held-out sites lose without
            them, see `ablate`.

        Returns
        -------
        TokenTable
        """
        understood = plan(self._dataset, load_schema(schema or "stefaland"), rename=rename)
        if check or (check is None and understood.at_hand):
            # The models that are bundled for a target each were trained on what this one has seen.
            ranges = foundation_model(None, causal=False).spec.ranges if schema is None else None
            table = understood.look(ranges)
        else:
            table = understood.table
        return table if gain is None else with_gains(table, load_model(gain))

    daily = _method(daily)
    from_ragged = _method(from_ragged)
    attach = _method(attach)
    aggregate = _method(aggregate)
    predict = _method(predict)
    spin_up = _method(spin_up)
    embed = _method(embed)
    reconstruct = _method(reconstruct)
    evaluate = _method(evaluate)
    calibrate = _method(calibrate)
    trust = _method(trust)
    report = _method(report)
    explore = _method(explore)
    explain = _method(explain)
    probe = _method(probe)
    ablate = _method(ablate)

    def finetune(
        self,
        target: Targets,
        *,
        model: ModelLike | None = None,
        head: str | HeadSize | tuple[HeadSize, ...] | None = "resconn",
        encoder: EncoderUse | None = None,
        holdout: Holdout | None = None,
        validation: Holdout | None = None,
        patience: int | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        seed: int = 0,
        schedule: Schedule | None = None,
        recipe: HeadRecipe | None = None,
        tokens: Tokens = (),
        rename: Mapping[str, str] | None = None,
        sites: str | None = None,
        device: str | None = None,
        devices: int = 1,
        precision: str | None = None,
        memory: str | int = "8 GiB",
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        name: str | None = None,
    ) -> Model:
        """Learn a target from the dataset's observations, on top of a pretrained encoder.

        Data go the same way as in prediction: the same matching, units, scaling and windows.

        Parameters
        ----------
        target : str, Target, Path, or sequence of these
            A target of the model's schema, or a new one; a TOML file with an entry ``[[target]]``;
            of static ones also the parts of a composition, or its name.
        model : str or Model, optional
            Whose encoder, schema and scaler are used; by default the bundled foundation model.
        head : str, HeadSize, tuple of HeadSize or None
            What learns the target: ``"resconn"`` (the paper's), another adapter or ablation of
            `xstefa.model.variants.VARIANTS`, ``"hbv"`` (a hydrological model inside),
            ``"reservoirs"`` (water that fills and drains, without encoder), ``"lstm"`` (the
            baseline without encoder), or sizes; those of several heads, of one kind or more,
            whose answers are averaged. None trains the model's own heads on. Static targets have
            heads of their own, ``"site"``, four of them if no sizes are given, and without encoder
            if none is asked for.
        encoder : {"frozen", "tuned", "scratch", "none"}, optional
            Keep the encoder as it is, train it on, train it from random weights, or leave it out;
            by default as `head` says, which is mostly ``"frozen"``.
        holdout : Holdout, optional
            Sites or days that are left out, with one fold: `xstefa.splits.holdout`.
        validation : Holdout, optional
            Training sites whose loss is watched instead of learned from. Of static targets, which
            learn from all: folds of them, without each of which a model is learned once more; from
            its errors there follow the quantiles of ``predict(quantiles=...)``.
        patience : int, optional
            Stop early: after this many validations without a lower loss. There are 40 in a full
            run. The weights of the lowest are kept.
        steps : int, optional
        epochs : float, optional
            Length of the training; by default 25 epochs, but at least 500 steps. In an epoch as
            many days are seen as there are observations.
        batch_size : int
            Windows of each step.
        learning_rate : float
        seed : int
            On a CPU the same seed, data, threads and versions give the same weights, bit by bit.
        schedule : Schedule, optional
            Everything about the length and speed of training, in place of the five above and
            `precision`.
        recipe : HeadRecipe, optional
            Loss, token dropout, windows: how the head learns, in detail.
        tokens : Variable, str, Path, or sequence of these
            Attributes of sites that the head reads beside those of the encoder, numbers or vectors
            (embeddings by other models): descriptions of them, TOML files with entries
            ``[[static]]``, or names of known ones such as ``"alphaearth"``.
        rename : mapping of str to str, optional
            Dataset variable to token.
        sites : str, optional
            Variable that names the sites; by default the one with ``cf_role = "timeseries_id"``,
            else their labels.
        device : str, optional
            Torch device; default as set by `set_options`.
        devices : int
            Number of devices; on CPUs, of processes.
        precision : {"fp32", "bf16"}, optional
            Arithmetic; default as set by `set_options`.
        memory : str or int
            What a chunked dataset may take; a larger one is written to disk, in the cache, for as
            long as it is trained on.
        checkpoint : path-like or Checkpoint, optional
            File to save the state of training to, every ten minutes, and to go on from if it is
            there. A run that was killed and goes on gives the same weights as one that was not.
        name : str, optional
            Name of the new model.

        Returns
        -------
        Model
            To predict with, ``ds.stefa.predict(model)``, or to keep, ``model.save(path)``. It
            knows its learning curve: `xstefa.plotting.curves.plot_learning`.

        Raises
        ------
        TrainingError
            If the dataset has no observations, a predictor leaks the target, or nothing is left to
            learn from.
        ModelError
            If the model to start from does not fit.
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        from xstefa.training.finetune import finetune

        return finetune(self._dataset, **given)

    def cross_validate(
        self,
        target: Targets,
        *,
        holdout: Holdout,
        model: ModelLike | None = None,
        scores: str | Iterable[str] | None = None,
        rename: Mapping[str, str] | None = None,
        sites: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        **training: Any,
    ) -> xr.Dataset:
        """Fine-tune without, and test on, every fold of a holdout.

        The dataset is read into memory.

        Parameters
        ----------
        target : str, Target, Path, or sequence of these
            As for `finetune`.
        holdout : Holdout
            For instance `xstefa.splits.holdout.PUB` (ten random groups of sites), `PUR`
            (regions), or ``RandomGroups(5) & Period("1990-10-01", "1995-09-30")``.
        model, rename, sites
            As for `finetune`.
        scores : str or sequence of str, optional
            As for `evaluate`.
        checkpoint : path-like, optional
            Folder to keep the state of each fold's training in. The same call goes on from there
            after an interruption, and does not train again what has been trained.
        **training
            How to train: keywords of `finetune` from `head` to `precision`, without `holdout`.

        Returns
        -------
        Dataset
            Scores of each site over all days on which it was tested; ``predicted`` and
            ``observed``; ``fold``, which fold tested the site; ``twin``, a training site of that
            fold that is nearly the same; ``pretraining``, whether the foundation model saw the
            site. Of static targets scores of all sites, as those of `evaluate`.

        Warns
        -----
        LeakageWarning
            If test sites have near duplicates in training, or the foundation model saw them.
        """
        from xstefa.evaluation.cross_validation import cross_validate

        return cross_validate(
            self._dataset,
            target,
            holdout=holdout,
            model=model,
            scores=scores,
            rename=rename,
            sites=sites,
            checkpoint=checkpoint,
            **training,
        )


class _Accessor:
    """Makes an accessor each time that it is asked for.

    The one that xarray registers is kept by its dataset, and keeps it: a dataset in a cycle is left
    to garbage collection, which closes its files in any thread, and file libraries are not safe in
    several.
    """

    def __get__(
        self, dataset: xr.Dataset | None, owner: type[xr.Dataset]
    ) -> StefaAccessor | type[StefaAccessor]:
        return StefaAccessor if dataset is None else StefaAccessor(dataset)


xr.Dataset.stefa = _Accessor()  # type: ignore[attr-defined]
