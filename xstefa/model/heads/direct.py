"""The ablation "direct": the target is one more input variable, and is reconstructed."""

from __future__ import annotations

from torch import Tensor, nn

from xstefa.model.architecture import HeadSize
from xstefa.model.decoder import Decoder, VariableProjection
from xstefa.model.heads.recurrent import Head, State, linked, remember


class TargetDecoder(Head):
    """The pretraining decoder for one variable, equations (13)-(16): the target.

    The encoder knows the target as its last forcing. In pretraining it is masked like others; when
    it is to be predicted the network hides it on all days (`xstefa.model.network.StefaLand`), and
    this decodes it. The LSTM runs forward in time, so the site token, which comes last, is not
    needed. The projection has ``size.hidden`` units, as many as the encoder's embedding.
    """

    def __init__(self, size: HeadSize, *, forcings: int, statics: int, width: int) -> None:
        super().__init__(size, forcings=forcings, statics=statics, width=width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.project = VariableProjection(variables=1, width=width, hidden=size.hidden)

    def start_from(self, decoder: Decoder) -> None:
        """Take over what the pretrained decoder knows of its last forcing."""
        assert decoder.lstm is not None and decoder.norm is not None
        self.lstm.load_state_dict(decoder.lstm.state_dict())
        self.norm.load_state_dict(decoder.norm.state_dict())
        rows = {k: v[-1:] for k, v in decoder.project_forcing.state_dict().items()}
        self.project.load_state_dict(rows)

    def advance(
        self, forcing: Tensor, static: Tensor, days: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """Predict the target, shape (B, T), from the representation (B, T, d)."""
        assert days is not None
        tokens, state = remember(self.lstm, days, state)
        return linked(self.project(self.norm(tokens)).squeeze(-1), self.link), state
