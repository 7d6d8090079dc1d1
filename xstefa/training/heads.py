"""Training of heads: a frozen encoder, and what learns one target on top of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from xstefa.errors import ModelError, TrainingError
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, ModelSpec
from xstefa.model.heads.direct import Direct
from xstefa.model.heads.hbv import KNOWN_SHARE
from xstefa.model.network import StefaLand
from xstefa.model.ranges import Ranges, join_ranges
from xstefa.model.variants import DRIVERS, EncoderUse, completed
from xstefa.schema import Needs, Schema
from xstefa.training.checkpoints import Checkpoint
from xstefa.training.devices import Devices, Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.embeddings import encode_windows
from xstefa.training.ensemble import filled_first
from xstefa.training.loop import History, Schedule, Supply, Validation, fit
from xstefa.training.objectives import Estimation
from xstefa.training.perturbation import Perturbation
from xstefa.training.runs import finished, seeded
from xstefa.training.samples import Record, Split, known_tokens
from xstefa.training.sampling import Windows, validation_windows
from xstefa.training.streaming import Stream, StreamedWindows, seen
from xstefa.windows import Floats, SegmentPolicy, WindowPolicy


def train_head(
    records: Sequence[Record],
    *,
    foundation: Model,
    schema: Schema | None = None,
    encoder: EncoderUse = "frozen",
    head: HeadSize | tuple[HeadSize, ...],
    target: str,
    support: str,
    windows: WindowPolicy,
    schedule: Schedule,
    shares: Sequence[float],
    weights: Sequence[Floats],
    token_dropout: float = 0.0,
    group_dropout: float = 0.0,
    perturbation: float = 0.0,
    needs: Needs | None = None,
    centred: float = 0.0,
    stride: int = 1,
    cache: bool = True,
    encoding: str | None = None,
    name: str,
    provenance: Mapping[str, Any],
    splits: Sequence[Split] | None = None,
    validation: Validation | None = None,
    checkpoint: Checkpoint | None = None,
    devices: Devices | None = None,
    warm_start: bool = False,
    streams: Sequence[Stream | None] | None = None,
    weigh: Callable[[Record], Floats] | None = None,
) -> tuple[Model, History]:
    """Train the heads of one target on a frozen encoder, equations (1)-(3).

    Parameters
    ----------
    records : sequence of Record
        With their target.
    foundation : Model
        Gives the encoder, the schema and the scaler.
    schema : Schema, optional
        The foundation's, with another target.
    head : HeadSize or tuple of HeadSize
        Several are trained side by side, and their answers are averaged.
    encoder : {"frozen", "tuned", "scratch", "none"}
        Keep the pretrained encoder as it is, train it on, train it from random weights, or leave it
        out; `xstefa.model.variants` names the combinations with heads that the paper compares.
    shares : sequence of float
        How often each record is drawn from.
    weights : sequence of ndarray, shape (site,)
        Loss weight of every site of every record.
    token_dropout : float
        Probability with which each token that can be done without is hidden from a window, so that
        the head also serves datasets with fewer tokens.
    group_dropout, perturbation : float
        Probabilities with which a window is made one of a poorer dataset, and its weather that of
        another product.
    needs : tuple of tuple of str, optional
        Groups of forcings, of each of which a dataset has to have one; by default as `foundation`,
        and for the head "hbv" each of its drivers.
    centred : float
        Share of the loss that forgives a constant error; see `weighted_mse`.
    stride : int
        Days between the windows of a site.
    cache : bool
        Let a frozen encoder read each window once, before training, and keep what it says on disk:
        2 bytes (in single precision 4) times the number of windows, days and `width`.
    encoding : {"fp32", "bf16"}, optional
        Arithmetic of the encoder and number format of what is kept, with `cache`; by default that
        of the schedule. The heads read it in the precision of the schedule.
    splits : sequence of Split, optional
        Which sites and days of each record train and validate; by default all train.
    validation : Validation, optional
    checkpoint : Checkpoint, optional
    devices : Devices, optional
        By default one CPU.
    warm_start : bool
        Start from the heads of `foundation`, which then must be a model with such heads.
    streams : sequence of Stream or None, optional
        Datasets larger than memory that are learned from instead of their records.
    weigh : callable, optional
        Goes with `streams`: from a record to its `weights`.

    Returns
    -------
    Model, History
    """
    splits = splits or [Split.all_of(record) for record in records]
    trained_on = [r.select(split.train) for r, split in zip(records, splits, strict=True)]
    schema = schema or foundation.schema
    tokens = known_tokens(schema, trained_on)
    if encoder == "frozen":
        # Weights that no training value ever reached would answer with noise, and cannot learn.
        tokens = tuple(token for token in tokens if token in foundation.spec.tokens)
    sizes = head if isinstance(head, tuple) else (head,)
    heads = tuple(completed(s, spec=foundation.spec, tokens=tokens, target=target) for s in sizes)
    if all(size.kind == "hbv" for size in sizes):
        drivers = tuple((name,) for name in DRIVERS)
        needs = needs or drivers
        if not set(drivers) <= set(needs):
            raise TrainingError(
                "the physics leaves out none of what drives it",
                variable="needs",
                found=", ".join(map(" or ".join, needs)),
                expected=", ".join(DRIVERS),
                fix="leave needs out of HeadRecipe",
            )
    if isinstance(windows, SegmentPolicy):  # stores begin empty
        spun_up = replace(windows, known=max(windows.known, KNOWN_SHARE))
        if all(size.kind == "hbv" for size in sizes):
            windows = spun_up
        heads = tuple(filled_first(size, spun_up, windows) for size in heads)
    if needs is None:
        groups = (tuple(filter(tokens.__contains__, group)) for group in foundation.spec.needs)
        needs = tuple(filter(None, groups))
    elif not schema.allows(needs, tokens):
        raise TrainingError(
            "a model cannot need what it has not learned to read",
            variable="needs",
            found=", ".join(map(" or ".join, needs)),
            expected=f"some of what training data and foundation have: {', '.join(tokens)}",
            fix="add a dataset that has them, or leave them out of HeadRecipe(needs=...)",
        )
    ranges: Ranges = seen(schema, trained_on, streams)
    if encoder in ("frozen", "tuned"):
        ranges = join_ranges(foundation.spec.ranges, ranges)
    spec = replace(
        foundation.spec,
        name=name,
        target=target,
        support=support,
        architecture=replace(
            foundation.spec.architecture,
            decoder=False,
            heads=heads,
            encoder=None if encoder == "none" else foundation.spec.architecture.encoder,
        ),
        schema=schema,
        windows=windows,
        tokens=tokens,
        ranges={token: ranges[token] for token in tokens},
        provenance=provenance,
        card="",
        needs=needs,
    )
    hidden = frozenset(v.name for v in (*schema.forcings, *schema.statics)) - set(tokens)
    streaming = any(stream is not None for stream in streams or ())
    job = _Job(
        records=[_readable(record, hidden, spec) for record in records],
        streams=streams if streaming else None,
        weigh=weigh,
        hidden=hidden,
        splits=splits,
        foundation=foundation,
        encoder=encoder,
        spec=spec,
        schedule=schedule,
        shares=shares,
        weights=weights,
        token_dropout=token_dropout,
        group_dropout=group_dropout,
        perturbation=perturbation,
        centred=centred,
        stride=stride,
        encoding=(encoding or schedule.precision)
        if cache and encoder == "frozen" and not streaming
        else None,
        validation=validation,
        checkpoint=checkpoint,
        warm_start=warm_start,
    )
    return (devices or Devices()).launch(partial(_train, job=job))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """All that a process has to know."""

    records: Sequence[Record]
    streams: Sequence[Stream | None] | None
    weigh: Callable[[Record], Floats] | None
    hidden: frozenset[str]
    splits: Sequence[Split]
    foundation: Model
    encoder: EncoderUse
    spec: ModelSpec
    schedule: Schedule
    shares: Sequence[float]
    weights: Sequence[Floats]
    token_dropout: float
    group_dropout: float
    perturbation: float
    centred: float
    stride: int
    encoding: str | None
    validation: Validation | None
    checkpoint: Checkpoint | None
    warm_start: bool

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the result, as JSON."""
        names = (
            "encoder", "token_dropout", "group_dropout", "perturbation", "centred", "stride",
            "encoding", "warm_start",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {
            "model": json.loads(self.spec.to_json()),
            "foundation": self.foundation.content_hash,
            "shares": list(self.shares),
        }


def _train(runner: Runner, *, job: _Job) -> tuple[Model, History]:
    spec, schedule = job.spec, job.schedule
    with seeded(schedule.seed, runner):
        network = _network(job).to(runner.device)
        dropout = TokenDropout(
            spec.schema,
            probability=job.token_dropout,
            seed=schedule.seed,
            needs=spec.needs,
            groups=job.group_dropout,
            perturbation=Perturbation(
                spec.scaler.forcings, probability=job.perturbation, seed=schedule.seed
            )
            if job.perturbation
            else None,
        ).to(runner.device)
        found = Windows.find(
            job.records,
            length=spec.windows.length,
            spin_up=spec.windows.spin_up,
            stride=job.stride,
            seed=schedule.seed,
            site_weights=job.weights,
            shares=job.shares,
        )
        encoded = None
        if job.encoding is not None:
            # The first process writes the file that the others find.
            for turn in (runner.is_first, not runner.is_first):
                if turn:
                    encoded = encode_windows(
                        network,
                        found,
                        dropout,
                        precision=job.encoding,
                        device=runner.device,
                    )
                runner.barrier()
        records = [
            record if split.days is None else record.observed_on(split.days)
            for record, split in zip(job.records, job.splits, strict=True)
        ]
        history = fit(
            Estimation(
                network,
                runner=runner,
                encoder=job.encoder,
                windows=spec.windows,
                dropout=dropout,
                centred=job.centred,
            ),
            _supply(job, found, records),
            schedule=schedule,
            runner=runner,
            description=f"training {spec.name}",
            encoded=encoded,
            validation=job.validation,
            validation_windows=validation_windows(found, job.splits, records),
            checkpoint=job.checkpoint,
            recipe=job.recipe,
        )
        return finished(spec, network, history, runner)


def _supply(job: _Job, found: Windows, records: Sequence[Record]) -> Supply:
    """Return what is drawn from: the training sites' windows, or streams of them."""
    if job.streams is None:
        return found.restricted([split.train for split in job.splits], records)
    sources = [
        record.select(split.train) if stream is None else stream
        for record, split, stream in zip(records, job.splits, job.streams, strict=True)
    ]
    return StreamedWindows(
        sources,
        prepare=partial(_prepared, job=job),
        find=partial(
            Windows.find,
            length=found.length,
            spin_up=found.spin_up,
            least_known=found.least_known,
            stride=job.stride,
            seed=job.schedule.seed,
            each=False,
        ),
        shares=job.shares,
        seed=job.schedule.seed,
    )


def _prepared(record: Record, *, job: _Job, raw: bool) -> tuple[Record, Floats | None]:
    """Return a record as the network reads it, and its site weights."""
    weights = None if job.weigh is None else job.weigh(record)
    if raw:
        record = _readable(record, job.hidden, job.spec)
    return record, weights


def _readable(record: Record, hidden: frozenset[str], spec: ModelSpec) -> Record:
    """Return a record as the network reads it in prediction."""
    record = record.without(hidden, spec.schema)
    # What bridges a gap knows its far end.
    return (record if spec.windows.causal else record.bridged()).standardised(spec.scaler)


def _network(job: _Job) -> StefaLand:
    """Build the network, with those weights that it does not have to learn anew."""
    network = StefaLand(job.spec.architecture)
    if network.encoder is None or job.encoder == "scratch":
        return network
    foundation = job.foundation.network()
    if foundation.encoder is None:
        raise ModelError(
            variable=job.foundation.name,
            found="a model without an encoder",
            expected="a StefaLand model, of which the encoder is kept",
            fix='choose one of xstefa.list_models() that is no baseline, or head="lstm"',
        )
    network.encoder.load_state_dict(foundation.encoder.state_dict())
    network.encoder.requires_grad_(job.encoder == "tuned")
    for head in network.heads:
        if isinstance(head, Direct) and foundation.decoder is not None:
            head.start_from(foundation.decoder)
    if job.warm_start:
        network.heads.load_state_dict(foundation.heads.state_dict())
    return network
