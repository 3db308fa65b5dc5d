"""Whole networks and table cells as contenders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vsquant.bench import networks, our_networks
from vsquant.bench.cases import CellCase, ModelCase
from vsquant.bench.contender import ParityError, RefusedError
from vsquant.bench.networks import Network
from vsquant.bench.our_networks import VsquantCell, VsquantNetwork
from vsquant.bench.peers import networks as peer_networks
from vsquant.bench.peers.cells import FloatCell, cell_task
from vsquant.bench.peers.networks import TorchNetwork

CASE = ModelCase(model="resnet50", images=2, specs=("w4a8-s4/x",))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    net, x = Net().eval(), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        small = Network(model=net, inputs={"x": x}, expected=net(x[:1]))
    for module in (our_networks, peer_networks):
        monkeypatch.setattr(module, "network", lambda case: small)
    monkeypatch.setattr(our_networks, "calibration_inputs", lambda case: {"x": torch.randn(2, 3, 8, 8)})
    return small


def test_our_network_is_the_integer_model(small: Network) -> None:
    prepared = VsquantNetwork("w4a8-s4/x").prepare(CASE)
    y = prepared.output()
    assert y.shape == prepared.expected.shape == (1, 8, 6, 6)
    assert 0 < float((y - prepared.expected).norm() / prepared.expected.norm()) < 0.3
    assert prepared.start(1)().shape == (2, 8, 6, 6) and "from the simulated model" in prepared.checked


def test_an_integer_model_far_from_the_simulated_one_is_wrong(small: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_networks, "to_integer", lambda simulated: lambda x: -simulated(x))
    with pytest.raises(ParityError, match="the integer model is 2 from the simulated one"):
        VsquantNetwork("w4a8-s4/x").prepare(CASE)


def test_torch_folds_batch_norms_and_gives_the_float_result(small: Network) -> None:
    prepared = TorchNetwork(None).prepare(CASE)
    assert torch.allclose(prepared.output(), small.expected, atol=1e-5)


def test_networks_are_the_same_each_time() -> None:
    inputs = networks.network_inputs(ModelCase(model="bert-base", images=2, specs=()), 2)
    assert inputs["input_ids"].shape == (2, networks.TOKENS)
    assert torch.equal(networks.network_inputs(CASE, 1)["x"], networks.network_inputs(CASE, 1)["x"])
    assert not torch.equal(networks.network_inputs(CASE, 2)["x"], networks.calibration_inputs(CASE)["x"])


def test_a_cell_is_timed_beside_the_float_network(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    cell_task.cache_clear()
    monkeypatch.setenv("VSQUANT_DATA", "/somewhere")
    monkeypatch.setattr("vsquant.bench.peers.cells.create_task", lambda name, data: tiny["TinyTask"]())
    case = CellCase(task="tiny", samples=8, specs=("w4a4u-s4/6",))
    for contender in (VsquantCell("w4a4u-s4/6"), FloatCell()):
        prepared = contender.prepare(case)
        assert torch.equal(prepared.output(), prepared.start(1)())
    cell_task.cache_clear()


def test_a_cell_without_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cell_task.cache_clear()
    monkeypatch.delenv("VSQUANT_DATA", raising=False)
    with pytest.raises(RefusedError, match="VSQUANT_DATA must name the folder of real data"):
        FloatCell().prepare(CellCase(task="cifar10", samples=1, specs=()))
