"""Muon and AdamW as one optimizer."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from lad_agent.training.pocket.optimizers import MuonAndAdamW


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
