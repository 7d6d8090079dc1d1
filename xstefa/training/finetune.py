"""Fine-tuning: a frozen encoder, and heads that learn one target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from xstefa.inference.windows import Floats, WindowPolicy
from xstefa.model.architecture import HeadSize
from xstefa.model.checkpoint import Model, ModelSpec, create_model
from xstefa.model.encoder import Encoder
from xstefa.model.network import StefaLand
from xstefa.model.variants import EncoderUse
from xstefa.options import get_options
from xstefa.schema import Schema, Variable
from xstefa.training.loop import Progress, Schedule, fit
from xstefa.training.losses import weighted_mse
from xstefa.training.samples import Batch, Record, Windows, known_tokens


def variance_weights(record: Record, *, floor: float = 0.1) -> Floats:
    """Return ``1 / (std + floor)**2`` of each site's observations, scaled to their own unit."""
    assert record.target is not None
    counted = np.isfinite(record.target).sum(axis=1) > 1
    std = np.zeros(len(record.ids), dtype=np.float32)
    std[counted] = np.nanstd(record.target[counted], axis=1)
    return (1 / (std + floor) ** 2).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenDropout:
    """Hides whole tokens from windows, the same ones each time a window comes by.

    Attributes
    ----------
    forcing : Tensor of bool, shape (row, C)
    static : Tensor of bool, shape (row, S)
        Window ``n`` is hidden what row ``n % rows`` says.
    """

    forcing: Tensor
    static: Tensor

    @classmethod
    def draw(cls, schema: Schema, *, probability: float, seed: int, rows: int = 4093) -> Self:
        """Draw which tokens are hidden; never a required one."""
        generator = torch.Generator().manual_seed(seed)

        def table(variables: Sequence[Variable]) -> Tensor:
            optional = torch.tensor([not variable.required for variable in variables])
            drawn = torch.rand((rows, len(variables)), generator=generator) < probability
            return drawn & optional

        return cls(forcing=table(schema.forcings), static=table(schema.statics))

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return forcing (B, T, C) and static (B, S), NaN where hidden."""
        row = torch.from_numpy(batch.number) % len(self.forcing)
        forcing = torch.from_numpy(batch.forcing).masked_fill(
            self.forcing[row].unsqueeze(1), torch.nan
        )
        return forcing, torch.from_numpy(batch.static).masked_fill(self.static[row], torch.nan)


def encode_windows(
    encoder: Encoder, windows: Windows, dropout: TokenDropout, *, batch_size: int = 64
) -> Tensor:
    """Read every window once with a frozen encoder: no gradient, no dropout of units.

    Returns
    -------
    Tensor of bfloat16, shape (window, T, d)
        The days' representation, in the order of `Batch.number`.
    """
    encoder.eval()
    encoded = torch.empty((len(windows), windows.length, encoder.width), dtype=torch.bfloat16)
    batches = tqdm(
        windows.in_order(batch_size=batch_size),
        desc="encoding windows",
        total=-(-len(windows) // batch_size),
        disable=not get_options().show_progress(),
    )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in batches:
            read = encoder(*dropout(batch))
            encoded[torch.from_numpy(batch.number)] = read.days.bfloat16()
    return encoded


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
    stride: int = 1,
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
    stride : int
        Days between the windows of a site. The frozen encoder reads each window once, before
        training; memory is 2 bytes times the number of windows, days and `width`.

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

    dropout = TokenDropout.draw(spec.schema, probability=token_dropout, seed=schedule.seed)
    sampled = Windows.find(
        [record.standardised(spec.scaler) for record in records],
        length=windows.length,
        spin_up=windows.spin_up,
        stride=stride,
        seed=schedule.seed,
        site_weights=weights,
    )
    frozen = network.encoder is not None and encoder == "frozen"
    encoded = encode_windows(network.encoder, sampled, dropout) if frozen else None

    def loss(batch: Batch) -> Tensor:
        assert batch.target is not None and batch.weight is not None
        forcing, static = dropout(batch)
        observed, weight = torch.from_numpy(batch.target), torch.from_numpy(batch.weight)
        days = None
        if encoded is not None:
            days = encoded[torch.from_numpy(batch.number)]
        elif network.encoder is not None:
            days = network.encoder(forcing, static).days
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

    progress = fit(
        network,
        sampled.draw(batch_size=schedule.batch_size, shares=shares, seed=schedule.seed),
        loss,
        schedule=schedule,
        description=f"training {name}",
        every=None
        if every is None
        else lambda step: every(step, create_model(spec, network.state_dict())),
        interval=interval,
    )
    return create_model(spec, network.state_dict()), progress
