"""Pretraining: learn weather and landscape together by filling in what is hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xstefa.inference.windows import WindowPolicy
from xstefa.model.architecture import Architecture, EncoderSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.masking import GroupMasking
from xstefa.model.network import StefaLand
from xstefa.model.scaler import Scaler
from xstefa.schema import Schema
from xstefa.training.loop import Progress, Schedule, fit
from xstefa.training.losses import masked_mse
from xstefa.training.samples import Batch, Record, Windows, known_tokens


def pretrain_encoder(
    records: Sequence[Record],
    *,
    schema: Schema,
    scaler: Scaler,
    size: EncoderSize,
    windows: WindowPolicy,
    schedule: Schedule,
    shares: Sequence[float],
    name: str,
    provenance: Mapping[str, Any],
    every: Callable[[int, Model], None] | None = None,
    interval: int = 1000,
) -> tuple[Model, Progress]:
    """Train encoder and decoder to reconstruct masked groups of variables (appendix A.2).

    Parameters
    ----------
    records : sequence of Record
        Training sites only, in canonical units.
    shares : sequence of float
        How often each record is drawn from.

    Returns
    -------
    Model
        Foundation model with encoder and decoder, no head.
    Progress
    """
    torch.manual_seed(schedule.seed)
    architecture = Architecture(
        forcings=len(schema.forcings), statics=len(schema.statics), encoder=size, decoder=True
    )
    network = StefaLand(architecture)
    masking = GroupMasking.from_schema(schema)
    generator = torch.Generator().manual_seed(schedule.seed)
    spec = ModelSpec(
        name=name,
        target=None,
        support="any",
        architecture=architecture,
        schema=schema,
        scaler=scaler,
        windows=windows,
        tokens=known_tokens(schema, records),
        provenance=provenance,
    )

    def loss(batch: Batch) -> Tensor:
        forcing, static = torch.from_numpy(batch.forcing), torch.from_numpy(batch.static)
        masks = masking.draw(batch=len(forcing), days=windows.length, generator=generator)
        assert network.encoder is not None and network.decoder is not None
        reconstruction = network.decoder(network.encoder(forcing, static, *masks))
        return masked_mse(reconstruction, forcing, static, *masks)

    sampled = Windows.find(
        [record.standardised(scaler) for record in records],
        length=windows.length,
        spin_up=0,
        least_known=0.5,
    )
    batches = sampled.draw(batch_size=schedule.batch_size, shares=shares, seed=schedule.seed)
    progress = fit(
        network,
        batches,
        loss,
        schedule=schedule,
        description=f"pretraining {name}",
        every=None
        if every is None
        else lambda step: every(step, create_model(spec, network.state_dict())),
        interval=interval,
    )
    return create_model(spec, network.state_dict()), progress
