"""On every layer of trained networks, with their own inputs: codes, scales and values are those of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vsquant
from vsquant import reference
from vsquant.nn import QuantLayer
from vsquant.tasks.base import run
from vsquant.tasks.registry import create_task
from vsquant.workflows.ptq import prepare

SPECS = ["w4a4u-s4/6", "w4a8-s6/10-tensor", "w4a4-s4/6-top-full", "w8a8u"]


def captured(model: nn.Module, batch) -> dict[str, tuple[QuantLayer, torch.Tensor, torch.Tensor]]:
    """Every quantized layer with its input (samples, rows, length) and the values that it goes on with."""
    seen = {}

    def keep(name: str, layer: QuantLayer) -> None:
        fake_quantize = layer._fake_quantize_input

        def spy(x: torch.Tensor) -> torch.Tensor:
            seen[name] = (layer, x, fake_quantize(x))
            return seen[name][2]

        layer._fake_quantize_input = spy

    for name, layer in vsquant.quantized_layers(model):
        keep(name, layer)
    with torch.inference_mode():
        run(model, batch)
    return seen


def assert_weight_equals_reference(layer: QuantLayer, weight: torch.Tensor) -> None:
    array = weight.detach().numpy().reshape(*weight.shape, *[1] * (4 - weight.dim()))
    rows = reference.conv_weight_rows(array, layer.spec.weight.vector_size)
    theirs = reference.quantize(rows, layer.spec.weight)
    np.testing.assert_array_equal(layer.weight_codes.flatten().numpy(), theirs.codes.ravel())
    assert layer.weight_coarse_scale.numpy().tobytes() == theirs.coarse_scale.tobytes()
    if theirs.vector_scale is not None:
        np.testing.assert_array_equal(layer.weight_vector_scale.flatten().numpy(), theirs.vector_scale.ravel())


def assert_input_equals_reference(layer: QuantLayer, x: torch.Tensor, values: torch.Tensor) -> None:
    limit = None if layer.activation_range is None else layer.activation_range.item()
    for sample, ours in zip(x, values, strict=True):
        theirs = reference.quantize(sample.contiguous().numpy(), layer.spec.activation, "tensor", coarse_range=limit)
        np.testing.assert_array_equal(ours.numpy(), theirs.dequantize())


@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize("task_name", ["cifar10", "squad-minilm"])
def test_every_layer_equals_the_reference(vsquant_data: Path, task_name: str, text: str):
    task = create_task(task_name, data=vsquant_data)
    batches = task.calibration_batches(4)
    model = vsquant.quantize(task.load_model(), text, calibration=batches)
    layers = captured(model, batches[0])
    assert len(layers) == len(list(vsquant.quantized_layers(model))) >= 20
    folded = prepare(task.load_model(), batches, layers=()).model
    for name, (layer, x, values) in layers.items():
        assert_weight_equals_reference(layer, folded.get_submodule(name).weight)
        assert_input_equals_reference(layer, x, values)
