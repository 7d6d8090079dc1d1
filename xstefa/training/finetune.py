"""Fine-tuning: a frozen encoder, and heads that learn one target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xstefa.inference.windows import Floats, WindowPolicy
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.network import StefaLand
from xstefa.model.variants import EncoderUse
from xstefa.training.loop import Progress, Schedule, fit
from xstefa.training.losses import weighted_mse
from xstefa.training.samples import Batch, Record, draw, known_tokens


def variance_weights(record: Record, *, floor: float = 0.1) -> Floats:
    """Return ``1 / (std + floor)**2`` of each site's observations, scaled to their own unit."""
    assert record.target is not None
    counted = np.isfinite(record.target).sum(axis=1) > 1
    std = np.zeros(len(record.ids), dtype=np.float32)
    std[counted] = np.nanstd(record.target[counted], axis=1)
    return (1 / (std + floor) ** 2).astype(np.float32)


def train_head(
    records: Sequence[Record],
    *,
    foundation: Model,
    encoder: EncoderUse = "frozen",
    head: HeadSize,
    target: str,
    support: str,
    windows: WindowPolicy,
    schedule: Schedule,
    shares: Sequence[float],
    weights: Sequence[Floats],
    token_dropout: float = 0.0,
    centred: float = 0.0,
    name: str,
    provenance: Mapping[str, Any],
    every: Callable[[int, Model], None] | None = None,
    interval: int = 1000,
) -> tuple[Model, Progress]:
    """Train the heads of one target on a frozen encoder, equations (1)-(3).

    Parameters
    ----------
    records : sequence of Record
        Training sites only, with their target.
    foundation : Model
        Gives the encoder, the schema and the scaler.
    encoder : {"frozen", "tuned", "scratch", "none"}
        Keep the pretrained encoder as it is, train it on, train it from random weights, or leave it
        out; `xstefa.model.variants` names the combinations with heads that the paper compares.
    weights : sequence of ndarray, shape (site,)
        Loss weight of every site of every record.
    token_dropout : float
        Probability with which each token that is not required is hidden from a window, so that
        the head also serves datasets with fewer tokens.
    centred : float
        Share of the loss that forgives a constant error; see `weighted_mse`.

    Returns
    -------
    Model, Progress
    """
    torch.manual_seed(schedule.seed)
    spec = foundation.spec
    architecture = replace(
        spec.architecture,
        decoder=False,
        head=head,
        encoder=None if encoder == "none" else spec.architecture.encoder,
    )
    network = StefaLand(architecture)
    if network.encoder is not None and encoder != "scratch":
        pretrained = foundation.network().encoder
        assert pretrained is not None
        network.encoder.load_state_dict(pretrained.state_dict())
        network.encoder.requires_grad_(encoder == "tuned")
    spec = ModelSpec(
        name=name,
        target=target,
        support=support,
        architecture=architecture,
        schema=spec.schema,
        scaler=spec.scaler,
        windows=windows,
        tokens=known_tokens(spec.schema, records),
        provenance=provenance,
    )

    generator = torch.Generator().manual_seed(schedule.seed)
    optional = [
        torch.tensor([not variable.required for variable in variables])
        for variables in (spec.schema.forcings, spec.schema.statics)
    ]

    def hide(tokens: Tensor, may_hide: Tensor) -> Tensor:
        drawn = torch.rand((len(tokens), len(may_hide)), generator=generator) < token_dropout
        drawn = (drawn & may_hide).view(len(tokens), *(1,) * (tokens.ndim - 2), -1)
        return tokens.masked_fill(drawn, torch.nan)

    def loss(batch: Batch) -> Tensor:
        assert batch.target is not None and batch.weight is not None
        forcing, static = torch.from_numpy(batch.forcing), torch.from_numpy(batch.static)
        forcing, static = hide(forcing, optional[0]), hide(static, optional[1])
        observed, weight = torch.from_numpy(batch.target), torch.from_numpy(batch.weight)
        if network.encoder is not None and encoder == "frozen":
            # Frozen means frozen: no gradient, and no dropout either.
            network.encoder.eval()
        with torch.set_grad_enabled(encoder != "frozen"):
            days = network.represent(forcing, static)
        # Each member has its own dropout and sees every batch; they differ by initialisation.
        return torch.stack(
            [
                weighted_mse(
                    member(forcing, static, days).float() * network.scale + network.offset,
                    observed,
                    weight,
                    spin_up=windows.spin_up,
                    centred=centred,
                )
                for member in network.heads
            ]
        ).sum()

    batches = draw(
        [record.standardised(spec.scaler) for record in records],
        length=windows.length,
        batch_size=schedule.batch_size,
        shares=shares,
        spin_up=windows.spin_up,
        site_weights=weights,
        seed=schedule.seed,
    )
    progress = fit(
        network,
        batches,
        loss,
        schedule=schedule,
        description=f"training {name}",
        every=None
        if every is None
        else lambda step: every(step, create_model(spec, network.state_dict())),
        interval=interval,
    )
    return create_model(spec, network.state_dict()), progress
