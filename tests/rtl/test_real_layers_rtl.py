"""Layers of real networks through the processing element under random back-pressure: exact, in the model's cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.rtl.pe_cases import case_of, patterns

import vsquant
from vsquant.hardware import layer_sums
from vsquant.hardware.rtl.designs import Sizes, design_for_layer
from vsquant.hardware.rtl.golden import layer_golden
from vsquant.tasks.registry import create_task
from vsquant.workflows.hardware import record_layers


def recorded(task_name: str, spec: str, data: Path | None = None):
    task = create_task(task_name, data=data)
    model = vsquant.quantize(task.load_model(), spec, calibration=task.calibration_batches(16))
    return {layer.name: layer for layer in record_layers(model, task.calibration_batches(1)[0])}


def codes_of(words: tuple[int, ...], size: int, bits: int) -> np.ndarray:
    """Unsigned codes, (words, size)."""
    return np.array([[word >> bits * i & (1 << bits) - 1 for i in range(size)] for word in words])


def test_a_whole_layer_of_the_digits_network(simulate) -> None:
    layer = recorded("digits", "w4a4u-s4/6")["blocks.0.conv1"]
    found = design_for_layer(layer, post_process=True, source="digits", sizes=Sizes()).golden
    assert (found.plan.shape.outputs, found.plan.shape.positions) == (layer.workload.outputs, layer.workload.positions)
    simulate("vsq_pe", "ports_bench", case_of(found, patterns(seed=5)), found.plan.element.verilog_parameters())


def test_a_whole_layer_of_resnet20(simulate, vsquant_data: Path) -> None:
    """16 channels to 16 at 32 x 32; what leaves are the codes of the next layer's input, but for ties."""
    layer = recorded("cifar10", "w4a4u-s4/6", vsquant_data)["layer1.0.conv1"]
    small = design_for_layer(layer, post_process=True, source="ResNet-20", sizes=Sizes()).golden
    element = small.plan.element
    found = layer_golden(layer, element, source="ResNet-20", most_positions=1024)
    shape = found.plan.shape
    assert (shape.outputs, shape.positions, shape.vectors, layer.workload.kernel) == (16, 1024, 9, (3, 3))
    simulate("vsq_pe", "ports_bench", case_of(found, patterns(seed=6)), element.verilog_parameters())
    assert layer.output is not None
    differing = codes_of(found.ports["codes"].words, 16, 4) != layer.output.codes[0].reshape(-1, 16)
    assert differing.mean() < 0.01


def test_a_tile_of_minilm(simulate, vsquant_data: Path) -> None:
    """16 tokens by 64 of the 384 outputs of a layer, all 24 vectors; the sums are those of eq. (7)."""
    name, layer = next(
        (name, layer)
        for name, layer in recorded("squad-minilm", "w4a8-s4/8-p6", vsquant_data).items()
        if name.endswith("attention.self.query")
    )
    element = design_for_layer(layer, post_process=False, source=name, sizes=Sizes()).golden.plan.element
    found = layer_golden(layer, element, source=name, most_positions=16)
    assert (found.plan.shape.outputs, found.plan.shape.vectors) == (64, 24)
    simulate("vsq_pe", "ports_bench", case_of(found, patterns(seed=7)), element.verilog_parameters())
    bits, lanes = element.lane.accumulator_bits, element.lanes
    words = np.array([[word >> bits * i & (1 << bits) - 1 for i in range(2)] for word in found.ports["sums"].words])
    sums = words.reshape(4, 16, lanes).transpose(1, 0, 2).reshape(16, 64)
    sums = np.where(sums >> (bits - 1), sums - (1 << bits), sums)
    np.testing.assert_array_equal(sums, layer_sums(layer, element.lane).sums[0, :16, :64])
