"""Quantizing with channels reordered: better, the same network in float, and told in every record."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant.errors import CalibrationError, RecipeError, VsquantError
from vsquant.export.inspection import inspect
from vsquant.workflows import permutation
from vsquant.workflows.permutation import permuted


class Uneven(nn.Module):
    """Three layers between which channels differ tenfold in size, in an order of chance."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.second, self.last = nn.Conv2d(64, 32, 1), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        return self.last(self.second(x).relu().mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    model = Uneven().eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.exp(torch.randn(64)))
        model.second.weight.mul_(torch.exp(torch.randn(64)).view(1, -1, 1, 1))
    return model


@pytest.fixture
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 6, 6, generator=generator) for _ in range(4)]


def error(network: nn.Module, quantized: nn.Module, batches: list[Tensor]) -> float:
    with torch.inference_mode():
        return sum(float((quantized(batch) - network(batch)).square().sum()) for batch in batches)


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w3a8-s4/8", "w4a4-sfp32/fp32-v8", "nvfp4"])
def test_homogeneous_vectors_err_less(network: nn.Module, batches: list[Tensor], spec: str) -> None:
    before = copy.deepcopy(network.state_dict())
    plain = vsquant.quantize(network, spec, calibration=batches)
    better = vsquant.quantize(network, spec, calibration=batches, permute=True)
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    assert error(network, better, batches) < 0.9 * error(network, plain, batches)
    groups = {group.consumers: group for group in vsquant.quantization_record(better).permuted}
    assert groups["second",].producers == ("first",) and groups["second",].predicted_gain_db > 1
    assert vsquant.quantization_record(plain).permuted == ()


def test_the_record_says_what_the_weights_gained(network: nn.Module, batches: list[Tensor]) -> None:
    better = vsquant.quantize(network, "w4a8-s4/8", calibration=batches, permute=True)
    plain = vsquant.quantize(network, "w4a8-s4/8", calibration=batches)
    [group] = [g for g in vsquant.quantization_record(better).permuted if g.consumers == ("second",)]
    weight = network.second.weight.detach()
    noise = float((plain.second.weight - weight).double().square().sum())
    expected = 10 * torch.log10(weight.double().square().sum() / noise)
    assert group.sqnr_before_db == pytest.approx(float(expected), abs=1e-3)
    assert group.sqnr_after_db is not None and group.sqnr_after_db > group.sqnr_before_db
    assert (group.channels, group.vector_size) == (64, 16)


def test_permuted_weights_are_the_old_ones_and_the_float_network_is_the_same(network, batches) -> None:
    spec = vsquant.LayerSpec.parse("w4a8-s4/8")
    model, records = permuted(network, {"second": spec, "last": spec}, batches)
    assert len(records) == 2
    for name, tensor in network.state_dict().items():
        assert tensor.flatten().sort().values.equal(model.state_dict()[name].flatten().sort().values)
    exact, other = network.double(), model.double()
    with torch.inference_mode():
        x = batches[0].double()
        assert float((exact(x) - other(x)).abs().max()) <= 1e-12 * float(exact(x).abs().max())


def test_a_checkpoint_keeps_the_order_and_says_so(network, batches, tmp_path: Path) -> None:
    better = vsquant.quantize(network, "w4a8-s4/8", calibration=batches, permute=True)
    vsquant.save(better, tmp_path / "p.safetensors")
    loaded = vsquant.load(tmp_path / "p.safetensors", network)
    assert vsquant.quantization_record(loaded) == vsquant.quantization_record(better)
    with torch.inference_mode():
        assert loaded(batches[0]).equal(better(batches[0]))
        integer = vsquant.to_integer(better)(batches[0])
    torch.testing.assert_close(integer, better(batches[0]), rtol=0.05, atol=0.05 * float(integer.abs().max()))
    sqnr = {layer.name: layer.sqnr_db for layer in inspect(tmp_path / "p.safetensors", network).layers}
    assert sqnr == {"first": None, "second": None, "last": None}


def test_layers_without_vectors_are_left(network, batches) -> None:
    plain = vsquant.quantize(network, "w4a8", calibration=batches)
    same = vsquant.quantize(network, "w4a8", calibration=batches, permute=True)
    assert vsquant.quantization_record(same).permuted == ()
    assert all(tensor.equal(plain.state_dict()[name]) for name, tensor in same.state_dict().items())


def test_what_cannot_be_permuted_says_why(network, batches, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CalibrationError, match="permute needs to see which channels are large"):
        vsquant.quantize(network, "w4a8-s4/8-tensor", permute=True)

    class Branching(Uneven):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(RecipeError, match=r"permute needs the model's graph, but torch\.export cannot"):
        vsquant.quantize(Branching().eval(), "w4a8-s4/8", calibration=batches, permute=True)
    monkeypatch.setattr(permutation, "TOLERANCE", -1.0)
    with pytest.raises(VsquantError, match="permuted channels must leave the float outputs as they were"):
        vsquant.quantize(network, "w4a8-s4/8", calibration=batches, permute=True)
