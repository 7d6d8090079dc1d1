"""What a step of training minimises: a batch in, one number out."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from xstefa.model.masking import GroupMasking
from xstefa.model.network import StefaLand
from xstefa.model.variants import EncoderUse
from xstefa.training.devices import Runner
from xstefa.training.dropout import TokenDropout
from xstefa.training.losses import masked_mse, weighted_mse
from xstefa.training.sampling import Batch
from xstefa.windows import WindowPolicy


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


class Reconstruction(Objective):
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
