"""The moving average of the weights."""

import torch
from torch import nn

from degrain.training.ema import WeightAverage


def test_the_average_equals_its_formula() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    average = WeightAverage(network)
    expected = {name: p.detach().double().clone() for name, p in network.named_parameters()}
    for step in range(1, 15):
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.randn_like(p))
        average.update(network, step, 0.5)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, p in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
    for name, p in average.network.named_parameters():
        assert torch.allclose(p.double(), expected[name], atol=1e-6)
        assert not p.requires_grad
    assert not average.network.training


def test_the_average_copies_buffers() -> None:
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network)
    network(torch.rand(4, 2, 3, 3))
    average.update(network, 1, 0.9)
    for mine, theirs in zip(average.network.buffers(), network.buffers(), strict=True):
        assert torch.equal(mine, theirs)
