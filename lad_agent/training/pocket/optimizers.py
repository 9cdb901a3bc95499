"""Muon for the weights between hidden layers, AdamW for all others.

Muon (Jordan, 2024, https://kellerjordan.github.io/posts/muon) steps by the orthogonalised momentum
of a matrix. At this size it reaches in two steps what AdamW reaches in five; embeddings, heads,
norms and biases are not what it is made for.
"""

from collections.abc import Callable

import torch
from torch import nn

WEIGHT_DECAY = 0.01


class MuonAndAdamW(torch.optim.Optimizer):
    """Both as one optimizer for `net`: Muon for the matrices in `hidden`, AdamW for all others.

    Muon's steps are scaled to the root mean square of AdamW's (Liu and others, 2025,
    arXiv 2502.16982), so that one learning rate fits both.
    """

    def __init__(self, net: nn.Module, hidden: nn.Module, learning_rate: float) -> None:
        matrices = [parameter for parameter in hidden.parameters() if parameter.ndim == 2]
        chosen = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in net.parameters() if id(parameter) not in chosen]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices,
                lr=learning_rate,
                weight_decay=WEIGHT_DECAY,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                others,
                lr=learning_rate,
                weight_decay=WEIGHT_DECAY,
                betas=(0.9, 0.98),
                foreach=True,
            ),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._join()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = closure() if closure else None
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take over the state of another, both parts at once."""
        super().load_state_dict(state_dict)
        self._join()

    def _join(self) -> None:
        """Let both parts work on this optimizer's own groups and state."""
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups = [group]
            part.state = self.state
