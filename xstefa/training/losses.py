"""What training minimises: a batch in, one number out; missing values never enter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from xstefa.model.decoder import Reconstructed
from xstefa.model.masking import GroupMasking
from xstefa.model.network import StefaLand
from xstefa.model.variants import EncoderUse
from xstefa.training.devices import Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.sampling import Batch
from xstefa.windows import WindowPolicy

Mean: TypeAlias = Callable[[Tensor], Tensor]

ALONE = Runner()


def masked_mse(
    reconstruction: Reconstructed,
    forcing: Tensor,
    static: Tensor,
    mask_forcing: Tensor,
    mask_static: Tensor,
    *,
    static_weight: float = 0.5,
    mean: Mean = ALONE.mean,
) -> Tensor:
    """Squared error on hidden values only (appendix A.2).

    Per dynamic variable the mean over values that are hidden and observed, summed over variables;
    static variables pooled.

    Parameters
    ----------
    reconstruction : Reconstructed
    forcing : Tensor, shape (B, T, C)
    static : Tensor, shape (B, S)
        Standardised; NaN where never observed.
    mask_forcing, mask_static : Tensor of bool
        True where hidden from the encoder.
    mean : callable
        Averages counts over processes that each hold some rows, so that the mean of their losses
        is the loss of all rows.
    """
    dynamic = _mean_where(reconstruction.forcing, forcing, mask_forcing, (0, 1), mean).sum()
    pooled = _mean_where(reconstruction.static, static, mask_static, (0, 1), mean)
    return dynamic + static_weight * pooled


def _mean_where(
    found: Tensor,
    known: Tensor,
    mask: Tensor,
    dim: tuple[int, ...],
    mean: Mean,
) -> Tensor:
    counted = mask & known.isfinite()
    error = torch.where(counted, found.float() - known.nan_to_num(), 0.0).square()
    return error.sum(dim) / mean(counted.sum(dim)).clamp(min=1)


def weighted_mse(
    predicted: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    spin_up: int,
    centred: float = 0.0,
    mean: Mean = ALONE.mean,
) -> Tensor:
    """Squared error after the spin-up, each site weighted.

    With ``weight = 1 / (std + 0.1)**2`` of the site's observations this is the basin-averaged NSE
    loss of Kratzert et al. (2019), doi:10.5194/hess-23-5089-2019, equation (1).

    Parameters
    ----------
    predicted, target : Tensor, shape (B, T)
        Same unit; target NaN where missing, predicted where a head has no answer.
    weight : Tensor, shape (B,)
    spin_up : int
        Days at the start of the window that do not count.
    centred : float
        Share of the loss that forgives a constant error over the window. The level of soil
        moisture differs between sites for reasons no attribute tells (sensor depth, calibration);
        what the weather explains is its course.
    mean : callable
        As for `masked_mse`.
    """
    predicted, target = predicted[:, spin_up:].float(), target[:, spin_up:]
    known = target.isfinite() & ~predicted.isnan()
    error = torch.where(known, predicted - target.nan_to_num(), 0.0)
    level = error.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    anomaly = torch.where(known, error - level, 0.0)
    squares = (1 - centred) * error.square() + centred * anomaly.square()
    return (squares.sum(1) * weight).sum() / mean(known.sum()).clamp(min=1)


class Objective(nn.Module):
    """A network together with the loss it is trained on.

    Parameters
    ----------
    network : StefaLand
    runner : Runner
        Says which rows of a batch this process holds.
    generator : torch.Generator, optional
        Source of the objective's own random numbers.
    """

    def __init__(
        self, network: StefaLand, *, runner: Runner, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.runner = runner
        self.generator = generator

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch; its mean over the processes is that of all rows."""


class MaskedReconstruction(Objective):
    """Fill in masked groups of variables (appendix A.2).

    Parameters
    ----------
    masking : GroupMasking
    seed : int
        Of the masks. Each validation hides the same.
    """

    def __init__(
        self, network: StefaLand, *, runner: Runner, masking: GroupMasking, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(network, runner=runner, generator=generator)
        self.masking = masking

    def forward(self, batch: Batch) -> Tensor:
        """Hide, encode, decode, compare."""
        encoder, decoder = self.network.encoder, self.network.decoder
        assert encoder is not None and decoder is not None and self.generator is not None
        generator = self.generator
        if not self.training:
            generator = torch.Generator().manual_seed(batch.size)
        drawn = self.masking.draw(
            batch=batch.size, days=batch.forcing.shape[1], generator=generator
        )
        masks = [mask[self.runner.rows].to(batch.forcing.device) for mask in drawn]
        reconstruction = decoder(encoder(batch.forcing, batch.static, *masks))
        return masked_mse(
            reconstruction, batch.forcing, batch.static, *masks, mean=self.runner.mean
        )


class Estimation(Objective):
    """Predict a target.

    Parameters
    ----------
    encoder : {"frozen", "tuned", "scratch", "none"}
    windows : WindowPolicy
    dropout : TokenDropout
    centred : float
        See `weighted_mse`.
    """

    def __init__(
        self,
        network: StefaLand,
        *,
        runner: Runner,
        encoder: EncoderUse,
        windows: WindowPolicy,
        dropout: TokenDropout,
        centred: float,
    ) -> None:
        super().__init__(network, runner=runner)
        self.frozen = encoder == "frozen"
        self.spin_up = windows.spin_up
        self.dropout = dropout
        self.centred = centred

    def forward(self, batch: Batch) -> Tensor:
        """Hide tokens, encode unless that is done, predict, compare."""
        assert batch.target is not None and batch.weight is not None
        network = self.network
        forcing, static = self.dropout(batch)
        days = batch.days
        if days is None and network.encoder is not None:
            if self.frozen:
                # Frozen means frozen: no gradient, and no dropout either.
                network.encoder.eval()
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                days = network.represent(forcing, static)
        # Read in one precision, whether it comes from the file or from the encoder.
        days = None if days is None else days.float()
        # Each member has its own dropout and sees every batch; they differ by initialisation.
        return torch.stack(
            [
                weighted_mse(
                    member(forcing, static, days).float() * size.scale + size.offset,
                    batch.target,
                    batch.weight,
                    spin_up=self.spin_up,
                    centred=self.centred,
                    mean=self.runner.mean,
                )
                for member, size in zip(network.heads, network.sizes, strict=True)
            ]
        ).sum()
