"""What networks ask of an accelerator: specs as quantizing would give them, on the shapes that run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vsquant
from vsquant.errors import AcceleratorError, CheckpointError, SpecError
from vsquant.export.shapes import checkpoint_requests
from vsquant.hardware.accelerator.configuration import load_accelerator
from vsquant.hardware.accelerator.lane_prices import LanePrices
from vsquant.spec import LayerSpec
from vsquant.tasks.models.cifar_resnet import CifarResNet
from vsquant.tasks.registry import create_task
from vsquant.workflows.accelerator import NETWORKS, compare_cost, named_network, spec_requests
from vsquant.workflows.record import quantization_record


def asked(spec: str, network: str = "resnet20", **options):
    parsed = LayerSpec.parse(spec)
    model, inputs = named_network(network, meta=parsed.activation is None or parsed.activation.signed)
    return spec_requests(model, inputs, parsed, network=network, **options)


def bert_macs(layers: int, width: int, tokens: int = 384) -> int:
    """Four square layers and two of four times the width in each block, two products, and two outputs a token."""
    return layers * (12 * width * width * tokens + 2 * tokens * tokens * width) + 2 * width * tokens


@pytest.mark.parametrize(
    ("network", "macs"),
    [("resnet20", 40.55e6), ("resnet50", 4.089e9), ("efficientnet-lite0", 0.385e9), ("minilm", bert_macs(6, 384)),
     ("bert-base", bert_macs(12, 768)), ("bert-large", bert_macs(24, 1024))],
)  # fmt: skip
def test_named_networks_have_their_known_size(network: str, macs: float) -> None:
    requests = asked("w8a8", network).requests
    assert sum(request.layer.macs for request in requests) == pytest.approx(macs, rel=1e-3)
    assert set(NETWORKS) == {
        "resnet20", "resnet50", "efficientnet-lite0", "minilm", "bert-base", "bert-large",
    }  # fmt: skip


def test_depthwise_layers_take_the_fallback_and_ends_the_policy() -> None:
    requests = asked("w4a4-s4/4", "efficientnet-lite0", first_last="8bit").requests
    for request in requests:
        depthwise = request.layer.workload.groups > 1
        end = request.layer.name in (requests[0].layer.name, requests[-1].layer.name)
        assert str(request.spec) == ("w8a8" if depthwise or end else "w4a4-s4/4-v16"), request.layer.name
        assert request.requested is not (depthwise or end)


def test_signs_are_found_where_the_spec_asks_for_unsigned() -> None:
    by_name = {request.layer.name: request for request in asked("w4a4u-s4/4").requests}
    assert str(by_name["conv1"].spec) == "w4a4-s4/4-v16"
    assert str(by_name["layer1.0.conv2"].spec) == "w4a4u-s4/4-v16"
    assert all(request.requested for request in by_name.values())


def test_products_of_attention_stay_float_unless_asked_for() -> None:
    plain, all_ = asked("w4a8-s4/6", "minilm"), asked("w4a8-s4/6", "minilm", matmuls=True)
    assert {r.spec is None for r in plain.requests if r.layer.workload.kind == "matmul"} == {True}
    products = {r.layer.name.rpartition(" ")[2]: r.spec for r in all_.requests if r.layer.workload.kind == "matmul"}
    assert {part: str(spec) for part, spec in products.items()} == {
        "(scores)": "w8a8-s6/6-v16", "(context)": "w8a8u-s6/6-v16",
    }  # fmt: skip
    assert all(r.spec is None for r in all_.requests if r.layer.workload.kind == "embedding")


@pytest.mark.parametrize("spec", ["w4a16-s4/x", "mxfp4", "w4a4-sfp16"])
def test_specs_without_integers_are_refused(spec: str) -> None:
    with pytest.raises(SpecError, match="a lane"):
        asked(spec)


def test_an_unknown_network() -> None:
    with pytest.raises(AcceleratorError, match=r"network must be one of resnet20, .*did you mean 'resnet50'"):
        named_network("resnet-50")


def saved(path: Path, model: nn.Module, spec: str, **options) -> Path:
    quantized = vsquant.quantize(model, spec, **options)
    vsquant.save(quantized, path)
    return path


def test_a_checkpoint_knows_its_shapes_and_costs_what_its_spec_does(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32) - 0.5
    path = saved(tmp_path / "net.safetensors", CifarResNet(20).eval(), "w4a4-s4/4", calibration=[images])
    found = checkpoint_requests(path)
    assert (found.network, str(found.spec)) == ("net", "w4a4-s4/4-v16")
    wanted = asked("w4a4-s4/4")
    assert [(r.layer, r.spec, r.requested) for r in found.requests] == [
        (r.layer, r.spec, r.requested) for r in wanted.requests
    ]
    prices, edge = LanePrices.load(), load_accelerator("edge")
    assert compare_cost(edge, found, prices).cost.layers == compare_cost(edge, wanted, prices).cost.layers


def test_a_checkpoint_without_shapes_needs_a_network_that_matches(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    path = saved(tmp_path / "net.safetensors", model, "w4a4-s4/4-tensor")
    with pytest.raises(CheckpointError, match="must have the shapes of its layers, but was saved without"):
        checkpoint_requests(path)
    shapes = quantization_record(vsquant.quantize(model, "w8a8", calibration=[torch.randn(2, 32)])).workloads
    assert [str(request.spec) for request in checkpoint_requests(path, shapes).requests] == ["w4a4-s4/4-v16-tensor"] * 2
    with pytest.raises(CheckpointError, match="has a quantized layer '2' that the network never calls"):
        checkpoint_requests(path, shapes[:1])
    other = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 9)).eval()
    shapes = quantization_record(vsquant.quantize(other, "w8a8", calibration=[torch.randn(2, 32)])).workloads
    with pytest.raises(CheckpointError, match=r"does not match the network: the weight of '2' is \(8, 16\)"):
        checkpoint_requests(path, shapes)


def test_the_baseline_of_the_baseline_is_itself() -> None:
    found = compare_cost(load_accelerator("edge"), asked("w8a8"), LanePrices.load())
    assert found.energy_ratio() == found.area_ratio == found.performance_per_area_ratio == 1.0
    assert found.cost == found.baseline


def test_layers_left_float_are_not_priced() -> None:
    found = compare_cost(load_accelerator("edge"), asked("w8a8", first_last="float"), LanePrices.load()).cost
    assert found.unpriced == ("conv1", "linear") and found.requested_share < 1


def test_the_network_of_a_task_is_the_named_one(vsquant_data: Path) -> None:
    task = create_task("cifar10", data=vsquant_data)
    (batch, *_) = task.calibration_batches(1)
    found = spec_requests(task.load_model(), batch, LayerSpec.parse("w4a4-s4/4"), network="resnet20")
    named = asked("w4a4-s4/4")
    assert [(r.layer.workload, r.spec) for r in found.requests] == [(r.layer.workload, r.spec) for r in named.requests]


def test_a_checkpoint_with_unsigned_activations_asks_for_lanes_of_both_signs(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32) - 0.5
    path = saved(tmp_path / "net.safetensors", CifarResNet(20).eval(), "w4a4u-s4/4", calibration=[images])
    found = checkpoint_requests(path)
    assert str(found.spec) == "w4a4u-s4/4-v16" and all(request.requested for request in found.requests)
    with pytest.raises(AcceleratorError, match="no known cost of a lane of w4a5-s4/4-v16"):
        compare_cost(load_accelerator("edge"), found, LanePrices(prices={}, source="none"))


def test_unsigned_probabilities_take_two_passes_on_signed_lanes() -> None:
    found = compare_cost(load_accelerator("edge"), asked("w4a4-s4/4", "minilm", matmuls=True), LanePrices.load()).cost
    passes = {layer.name.rpartition(" ")[2]: layer.passes for layer in found.layers if "(" in layer.name}
    assert passes == {"(scores)": 1, "(context)": 2} and found.requested_share == 1.0
