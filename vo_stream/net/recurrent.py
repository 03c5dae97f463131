"""The recurrent cores: what the network remembers beyond the previous frame.

Each takes (batch, n) a frame and carries its memory as named tensors, so that one graph with
inputs and outputs holds it: no loop, no hidden state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

MAX_CELL = 10.0
"""Of the LSTM's cell state. A unit that forgets nothing would grow with every frame of a stream and
take as long to turn round; beyond this its output is 1 anyway (cell clipping; Sak et al., 2014)."""


class LstmCore(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shapes = {"hidden": (size,), "memory": (size,)}
        self.cell = nn.LSTMCell(size, size)
        with torch.no_grad():  # remember at first (Jozefowicz et al., 2015)
            self.cell.bias_hh[size : 2 * size] = 1.0

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what the core says of a frame, and its new state."""
        hidden, memory = self.cell(features, (state["hidden"], state["memory"]))
        memory = memory.clamp(-MAX_CELL, MAX_CELL)
        return hidden, {"hidden": hidden, "memory": memory}

    def recall(self, state: State) -> Tensor:
        """Return what was last said, (batch, n), without a new frame."""
        return state["hidden"]


class GruCore(nn.Module):
    """Gated recurrent unit (Cho et al., 2014)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shapes = {"hidden": (size,)}
        self.cell = nn.GRUCell(size, size)

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what the core says of a frame, and its new state."""
        hidden = self.cell(features, state["hidden"])
        return hidden, {"hidden": hidden}

    def recall(self, state: State) -> Tensor:
        """Return what was last said, (batch, n), without a new frame."""
        return state["hidden"]


class RnnCore(nn.Module):
    """Elman network (1990) that starts near an identity (Le, Jaitly and Hinton, 2015)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shapes = {"hidden": (size,)}
        self.cell = nn.RNNCell(size, size)
        with torch.no_grad():
            self.cell.weight_hh.copy_(0.9 * torch.eye(size))

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what the core says of a frame, and its new state."""
        hidden = self.cell(features, state["hidden"])
        return hidden, {"hidden": hidden}

    def recall(self, state: State) -> Tensor:
        """Return what was last said, (batch, n), without a new frame."""
        return state["hidden"]


class TcnCore(nn.Module):
    """Causal dilated convolution (Bai, Kolter and Koltun, 2018): two layers over `TAPS` frames."""

    TAPS = (1, 2, 4, 8)
    """Frames back that each layer looks at, besides the current one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shapes = {"history": (2 * self.TAPS[-1], size)}
        self.first = nn.Linear(size * (1 + len(self.TAPS)), size)
        self.second = nn.Linear(size * (1 + len(self.TAPS)), size)

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """The history holds the inputs of both layers, newest last."""
        before, middle = state["history"].chunk(2, dim=1)
        inner = self._layer(self.first, features, before)
        result = self._layer(self.second, inner, middle)
        before = torch.cat([before[:, 1:], features[:, None]], dim=1)
        middle = torch.cat([middle[:, 1:], inner[:, None]], dim=1)
        return result, {"history": torch.cat([before, middle], dim=1)}

    def _layer(self, layer: nn.Linear, now: Tensor, history: Tensor) -> Tensor:
        taps = [history[:, -back] for back in self.TAPS]
        result: Tensor = now + layer(torch.cat([now, *taps], dim=1)).tanh()
        return result

    def recall(self, state: State) -> Tensor:
        """Return what was last said, (batch, n), without a new frame."""
        return state["history"][:, -1].tanh()


CORES: dict[str, type[LstmCore | GruCore | RnnCore | TcnCore]] = {
    "lstm": LstmCore,
    "gru": GruCore,
    "rnn": RnnCore,
    "tcn": TcnCore,
}
