"""Muon for the weights between hidden layers, AdamW for all others.

Muon (Jordan, 2024, https://kellerjordan.github.io/posts/muon) steps by the orthogonalised momentum
of a matrix. At this size it reaches in two steps what AdamW reaches in five; embeddings, heads,
norms and biases are not what it is made for.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, distributed, nn

WEIGHT_DECAY = 0.01
MOMENTUM = 0.95
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the Newton-Schulz iteration, as Jordan gives them."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for matrices.

    Steps are scaled to the root mean square of AdamW's (Liu and others, 2025, arXiv 2502.16982). In
    place of `torch.optim.Muon`, which iterates in bfloat16 and takes longer for it than a whole
    pass through a small model on a processor without it; and the processes of a torch.distributed
    group share the matrices.
    """

    def __init__(self, matrices: Iterable[Tensor], learning_rate: float) -> None:
        super().__init__(matrices, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        loss = closure() if closure else None
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            for matrix, update in zip(learning, self._updates(learning), strict=True):
                scale = 0.2 * max(matrix.shape) ** 0.5
                matrix.mul_(1 - group["lr"] * WEIGHT_DECAY)
                matrix.add_(update, alpha=-group["lr"] * scale)
        return loss

    def _updates(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """The orthogonalised momenta; each process makes its own share of them."""
        rank, world = 0, 1
        if distributed.is_initialized():
            rank, world = distributed.get_rank(), distributed.get_world_size()
        order = sorted(range(len(matrices)), key=lambda i: -matrices[i].numel())
        flat = torch.zeros(sum(matrix.numel() for matrix in matrices))
        parts = torch.split(flat, [matrix.numel() for matrix in matrices])
        out = [part.view_as(m) for part, m in zip(parts, matrices, strict=True)]
        for turn, index in enumerate(order):
            gradient = matrices[index].grad
            if gradient is None:
                continue
            state = self.state[matrices[index]]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
            if turn % world == rank:
                out[index].copy_(orthogonal(torch.lerp(gradient, momentum, MOMENTUM)))
        if world > 1:
            distributed.all_reduce(flat)
        return out


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix [rows, columns] with its singular values drawn to about 1."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    out = matrix.T if tall else matrix
    out = out / out.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = out @ out.T
        out = torch.addmm(out, torch.addmm(gram, gram, gram, beta=b, alpha=c), out, beta=a)
    return out.T if tall else out


class MuonAndAdamW(torch.optim.Optimizer):
    """Both as one optimizer for `net`: Muon for the matrices in `hidden`, AdamW for all others,
    with one learning rate."""

    def __init__(self, net: nn.Module, hidden: nn.Module, learning_rate: float) -> None:
        matrices = [parameter for parameter in hidden.parameters() if parameter.ndim == 2]
        chosen = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in net.parameters() if id(parameter) not in chosen]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, learning_rate),
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
