"""Real layers through the lane and the post-processing unit: the integers and codes of the kernels, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vsquant
from vsquant import reference
from vsquant.errors import ShapeError, SpecError
from vsquant.hardware import Lane, PostProcessingUnit, float_outputs, group_operands, layer_sums, post_processed
from vsquant.nn import IntegerActivation
from vsquant.tasks.registry import create_task
from vsquant.workflows.hardware import on_hardware, record_layer, record_layers

SPECS = ["w4a4u-s4/6", "w4a8-s6/10-p6", "w8a8", "w3a4-s4/x-v8", "w6a6u-sx/4-v8-full", "w4a4-s4/4-v8-p4-top-full"]


def network() -> nn.Module:
    """Strides, dilation, groups, a depthwise layer, a stem of three channels and a residual path."""
    torch.manual_seed(3)
    return Residual().eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.first = nn.Conv2d(32, 32, 3, padding=2, dilation=2)
        self.second = nn.Conv2d(32, 32, 1)
        self.third = nn.Conv2d(32, 20, 1, stride=2)
        self.grouped = nn.Conv2d(20, 36, (3, 1), padding=(1, 0), groups=2)
        self.depthwise = nn.Conv2d(36, 36, 3, groups=36, bias=False)
        self.linear = nn.Linear(36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + x)
        x = torch.relu(self.third(x))
        x = torch.relu(self.depthwise(torch.relu(self.grouped(x))))
        return self.linear(x.mean((2, 3)))


def quantized(model: nn.Module, spec: str, x: torch.Tensor) -> nn.Module:
    return vsquant.to_integer(vsquant.quantize(model, spec, calibration=[x]))


def check_layers(layers) -> None:
    """Every recorded output again from the lane's sums: floats by eq. (7), codes by eqs. (1)-(5)."""
    for layer in layers:
        if layer.function == "gelu":
            continue
        y = float_outputs(layer, layer_sums(layer).sums)
        if layer.values is not None:
            np.testing.assert_array_equal(y, layer.values, err_msg=layer.name)
        if layer.output is not None:
            largest = np.float32(layer.output.coarse_scale) * layer.output.format.scale_top * layer.output.format.qmax
            again = reference.quantize(
                y.reshape(-1, y.shape[2]), layer.output.format, "tensor", coarse_range=float(largest)
            )
            np.testing.assert_array_equal(again.codes.reshape(layer.output.codes.shape), layer.output.codes)


@pytest.mark.parametrize("spec", SPECS)
def test_every_layer_has_the_sums_of_the_kernels(spec: str) -> None:
    x = torch.randn(3, 3, 13, 11, generator=torch.Generator().manual_seed(1))
    layers = record_layers(quantized(network(), spec, x), x)
    assert [layer.name for layer in layers] == ["stem", "first", "second", "third", "grouped", "depthwise", "linear"]
    assert layers[2].residual is not None
    assert sum(layer.output is not None for layer in layers) >= 3
    assert all(layer.values is not None or layer.output is not None for layer in layers)
    check_layers(layers)


def test_a_convolution_over_one_dimension_and_copied_padding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(5, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv1d(8, 4, 3, padding=1, padding_mode="reflect")
    ).eval()
    x = torch.randn(2, 5, 16)
    layers = record_layers(quantized(model, "w4a8-s4/6-v4", x), x)
    assert [layer.workload.positions for layer in layers] == [8, 8]
    check_layers(layers)


def test_a_simulated_model_is_recorded_as_its_integer_twin() -> None:
    x = torch.randn(3, 3, 13, 11)
    simulated = vsquant.quantize(network(), "w4a4-s4/4", calibration=[x])
    one, twin = record_layer(simulated, "second", x), record_layer(vsquant.to_integer(simulated), "second", x)
    assert one.output is not None and twin.output is not None
    np.testing.assert_array_equal(one.output.codes, twin.output.codes)
    np.testing.assert_array_equal(one.weight_codes, twin.weight_codes)
    assert not any(module._forward_hooks for module in simulated.modules())


def test_draining_changes_no_sum() -> None:
    x = torch.randn(2, 3, 13, 11)
    layer = record_layer(quantized(network(), "w4a4-s4/4-p4", x), "first", x)
    short = Lane.for_spec(layer.spec, max_reduction_length=64)
    whole, drained = layer_sums(layer), layer_sums(layer, short)
    assert (whole.accumulations, drained.accumulations, short.max_vectors) == (1, 4, 5)
    np.testing.assert_array_equal(whole.sums, drained.sums)
    assert whole.gated == drained.gated > 0
    assert whole.vectors == whole.sums.size * 9 * 2


def test_the_sums_are_those_of_the_reference_on_unfolded_operands() -> None:
    """A convolution as a linear layer over its windows: nothing of the kernels takes part."""
    x = torch.randn(1, 20, 7, 6)
    model = nn.Sequential(nn.Conv2d(20, 6, 3, padding=1)).eval()
    layer = record_layer(quantized(model, "w4a4-s4/6-p5", x), "0", x)
    ((weight, activation),) = group_operands(layer, 16)
    coarse = np.ones(1, dtype=np.float32)
    qw, qx = (
        reference.Quantized(
            format=fmt,
            length=operand.codes.shape[1] * 16,
            codes=operand.codes.astype(np.int32),
            vector_scale=operand.vector_scale.astype(np.int32),
            coarse_scale=coarse,
        )
        for fmt, operand in ((layer.spec.weight, weight), (layer.spec.activation, activation))
    )
    expected = reference.integer_sum(qx, qw, 5)
    np.testing.assert_array_equal(layer_sums(layer).sums[0], expected)
    assert activation.codes.shape == (42, 18, 16)
    assert not activation.codes[0, :6].any()  # the row above the image


@pytest.mark.parametrize("spec", ["w4a4u-s4/6-v8", "w8a8", "w4a8-s4/8-v8-p8"])
def test_a_network_whose_codes_hardware_makes(spec: str) -> None:
    """Few codes differ from eqs. (1)-(5), none by more than a step, and outputs stay near."""
    x = torch.randn(16, 3, 13, 11, generator=torch.Generator().manual_seed(2))
    integer = quantized(network(), spec, x)
    expected = integer(x)
    with torch.inference_mode(), on_hardware(integer) as counter:
        found = integer(x)
    differences = counter.differences()
    assert [each.layer for each in differences][:3] == ["stem", "first", "second"]
    assert all(each.codes_differing <= each.codes // 50 for each in differences)
    assert all((each.scales > 0) == ("-s" in spec) for each in differences if each.layer in ("stem", "first"))
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    torch.testing.assert_close(integer(x), expected, rtol=0, atol=0)


def test_more_fraction_bits_leave_fewer_differing_codes() -> None:
    x = torch.randn(16, 3, 13, 11, generator=torch.Generator().manual_seed(2))
    integer = quantized(network(), "w8a8", x)
    counts = []
    for bits in (2, 5, 8):
        with torch.inference_mode(), on_hardware(integer, fraction_bits=bits) as counter:
            integer(x)
        counts.append(sum(each.codes_differing for each in counter.differences()))
    assert counts[0] > 4 * counts[1] > 16 * counts[2] > 0


def test_codes_of_one_layer_differ_by_a_step_at_most() -> None:
    x = torch.randn(8, 3, 13, 11)
    for layer in record_layers(quantized(network(), "w4a4u-s4/6-v8", x), x):
        if layer.output is None:
            continue
        unit = PostProcessingUnit(lane=Lane.for_spec(layer.spec), output=layer.output.format)
        made, step = post_processed(layer, layer_sums(layer).sums, unit, layer.output.coarse_scale)
        assert np.abs(made.codes - layer.output.codes.reshape(made.codes.shape)).max(initial=0) <= 1
        if layer.values is not None:
            reach = step * (1 << (unit.value_bits - 1))
            near = np.clip(layer.values.reshape(made.values.shape), -reach, reach)
            assert np.abs(made.values * step - near).max() <= 3 * step + 2.0**-14 * np.abs(near).max()


def test_what_hardware_does_not_have_is_refused_with_the_layers_name() -> None:
    x = torch.randn(2, 3, 13, 11)
    layer = record_layer(quantized(network(), "w4a4u-s4/6-v8", x), "first", x)
    assert layer.output is not None
    unit = PostProcessingUnit(lane=Lane.for_spec(layer.spec), output=layer.output.format)
    sums = layer_sums(layer).sums

    def refused(message: str, **changes: object) -> None:
        with pytest.raises(SpecError, match=message):
            post_processed(dataclasses.replace(layer, **changes), sums, unit, layer.output.coarse_scale)

    refused("layer 'first' must be followed by ReLU or nothing for post-processing, not gelu", function="gelu")
    refused("must have one static activation scale", activation_coarse=np.array([[1.0], [2.0]], dtype=np.float32))
    capped = dataclasses.replace(layer, function="relu6")
    with pytest.raises(SpecError, match="not relu6, whose codes reach 9"):
        post_processed(capped, sums, unit, 9 / (63 * 15))
    below, plain = (post_processed(each, sums, unit, 3 / (63 * 15))[0] for each in (capped, layer))
    np.testing.assert_array_equal(below.codes, plain.codes)
    with pytest.raises(SpecError, match="float_outputs has no gelu, which follows layer 'first'"):
        float_outputs(dataclasses.replace(layer, function="gelu"), sums)


def test_a_name_or_a_batch_that_does_not_fit_is_refused() -> None:
    x = torch.randn(2, 3, 13, 11)
    integer = quantized(network(), "w8a8", x)
    with pytest.raises(
        ShapeError, match=r"layer must be one of the model's integer layers, stem, first, .* not 'fourth'"
    ):
        record_layer(integer, "fourth", x)

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(ShapeError, match="the batch must reach layer 'unused' to record it; it does not"):
        record_layer(vsquant.to_integer(vsquant.quantize(Unused(), "w8a8-tensor")), "unused", torch.randn(2, 4))


def test_the_digits_network_through_lane_and_post_processing() -> None:
    task = create_task("digits")
    batch = task.calibration_batches(16)[0]
    integer = vsquant.to_integer(
        vsquant.quantize(task.load_model(), "w4a4u-s4/6", calibration=task.calibration_batches(32))
    )
    layers = record_layers(integer, batch)
    assert any(layer.output is not None for layer in layers)
    check_layers(layers)
    plain = task.evaluate(integer, limit=100)
    with on_hardware(integer):
        made = task.evaluate(integer, limit=100)
    assert abs(made.value() - plain.value()) <= 2


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w4a8-s6/10-p8", "w8a8u"])
@pytest.mark.parametrize("name", ["cifar10", "squad-minilm"])
def test_every_layer_of_a_real_network(vsquant_data: Path, name: str, spec: str) -> None:
    task = create_task(name, data=vsquant_data)
    model, batches = task.load_model(), task.calibration_batches(2)
    simulated = vsquant.quantize(model, spec, calibration=batches, batchnorm_pairs=task.batchnorm_pairs(model))
    layers = record_layers(simulated, batches[0])
    assert len(layers) == {"cifar10": 20, "squad-minilm": 37}[name]
    check_layers(layers)


def test_outputs_keep_their_layout() -> None:
    """Codes and floats on hardware have the types and shapes that kernels give."""
    x = torch.randn(2, 3, 13, 11)
    integer = quantized(network(), "w4a4u-s4/6-v8", x)
    seen: list[IntegerActivation] = []
    stem = integer.get_submodule("stem")
    stem.register_forward_hook(lambda module, args, output: seen.append(output))
    integer(x)
    with on_hardware(integer):
        after = stem.register_forward_hook(lambda module, args, output: seen.append(output))
        integer(x)
        after.remove()
    plain, _, made = seen
    assert made.codes.shape == plain.codes.shape
    assert made.codes.dtype == plain.codes.dtype
    assert made.values.shape == plain.values.shape
    torch.testing.assert_close(made.values, plain.values, rtol=1e-3, atol=1e-3)
