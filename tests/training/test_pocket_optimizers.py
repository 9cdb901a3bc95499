"""Muon and AdamW as one optimizer."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from lad_agent.training.pocket.optimizers import WEIGHT_DECAY, Muon, MuonAndAdamW, orthogonal


def _net() -> nn.ModuleDict:
    torch.manual_seed(3)
    return nn.ModuleDict({"hidden": nn.Linear(8, 6), "head": nn.Linear(6, 4)})


def _step(net: nn.ModuleDict, optimizer: MuonAndAdamW, number: int) -> Tensor:
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(number))
    loss: Tensor = net["head"](net["hidden"](inputs).tanh()).square().mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def test_hidden_matrices_step_by_muon_and_all_else_by_adamw() -> None:
    net = _net()
    optimizer = MuonAndAdamW(net, net["hidden"], 1e-2)
    _step(net, optimizer, 0)
    kept = {name: set(optimizer.state[value]) for name, value in net.named_parameters()}
    adamw = {"step", "exp_avg", "exp_avg_sq"}
    assert kept["hidden.weight"] == {"momentum_buffer"}
    assert kept["hidden.bias"] == kept["head.weight"] == kept["head.bias"] == adamw


def test_one_rate_schedules_both() -> None:
    net = _net()
    optimizer = MuonAndAdamW(net, net["hidden"], 1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    _step(net, optimizer, 0)
    schedule.step()
    before = deepcopy(net.state_dict())
    _step(net, optimizer, 1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    net = _net()
    optimizer = MuonAndAdamW(net, net["hidden"], 1e-2)
    first = [_step(net, optimizer, number) for number in range(3)]
    assert first[-1] < first[0] * 2
    other = deepcopy(net)
    resumed = MuonAndAdamW(other, other["hidden"], 1e-2)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for number in range(3, 6):
        assert torch.equal(_step(net, optimizer, number), _step(other, resumed, number))


@pytest.mark.parametrize("shape", [(8, 8), (24, 6), (6, 24)])
def test_singular_values_are_drawn_to_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found = torch.linalg.svdvals(orthogonal(matrix))
    assert orthogonal(matrix).shape == matrix.shape
    assert found.min() > 0.5
    assert found.max() < 1.3


def test_steps_are_those_of_torch() -> None:
    weights = [torch.nn.Parameter(torch.randn(12, 5)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    own = Muon([weights[0]], 1e-2)
    other = torch.optim.Muon(
        [weights[1]], lr=1e-2, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
    )
    for number in range(3):
        gradient = torch.randn(12, 5, generator=torch.Generator().manual_seed(number))
        for weight in weights:
            weight.grad = gradient.clone()
        own.step()
        other.step()
    torch.testing.assert_close(weights[0], weights[1], atol=2e-3, rtol=0)


def _shared(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    net = _net()
    optimizer = MuonAndAdamW(net, net["hidden"], 1e-2)
    for number in range(3):
        _step(net, optimizer, number)
    save_file(net.state_dict(), f"{folder}/{rank}.safetensors")
    distributed.destroy_process_group()


def test_processes_that_share_the_matrices_step_as_one(tmp_path: Path) -> None:
    spawn(_shared, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    net = _net()
    optimizer = MuonAndAdamW(net, net["hidden"], 1e-2)
    for number in range(3):
        _step(net, optimizer, number)
    for rank in (0, 1):
        for name, value in load_file(tmp_path / f"{rank}.safetensors").items():
            torch.testing.assert_close(value, net.state_dict()[name])
