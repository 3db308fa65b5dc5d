"""Actions of a layer on an accelerator, in closed form: eqs. (A2) to (A6) of `docs/learn/hardware.md`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from vsquant.hardware.accelerator.capacity import Capacity, accumulator_capacity
from vsquant.hardware.accelerator.configuration import Accelerator
from vsquant.hardware.accelerator.fit import Fit
from vsquant.hardware.accelerator.mapping import LayerMapping, mappings
from vsquant.hardware.accelerator.traffic import LoopOrder, Tensors, layer_tensors, loop_order, word_bits
from vsquant.spec.layer import LayerSpec
from vsquant.spec.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Actions:
    """How often what happens; bits where a name says so, of codes and of vector scales apart.

    ``lane_operations`` are dot products of one vector, ``idle_lane_cycles`` the cycles of lanes that have none in them,
    while others do. ``weight_*`` and ``activation_*`` are the buffers of processing elements, ``shared_*`` the buffer
    behind them; ``accumulations`` read and write a sum, ``drains`` take one out, ``outputs`` are post-processed.
    """

    lane_operations: int = 0
    idle_lane_cycles: int = 0
    accumulations: int = 0
    drains: int = 0
    outputs: int = 0
    weight_read_bits: int = 0
    weight_scale_read_bits: int = 0
    weight_write_bits: int = 0
    weight_scale_write_bits: int = 0
    activation_read_bits: int = 0
    activation_scale_read_bits: int = 0
    activation_write_bits: int = 0
    activation_scale_write_bits: int = 0
    shared_read_bits: int = 0
    shared_write_bits: int = 0
    dram_weight_bits: int = 0
    dram_activation_bits: int = 0

    def times(self, factor: int) -> Actions:
        """All of it that many times."""
        return Actions(**{field.name: factor * getattr(self, field.name) for field in dataclasses.fields(self)})

    @property
    def shared_bits(self) -> int:
        """Bits through the port of the shared buffer."""
        return self.shared_read_bits + self.shared_write_bits

    @property
    def dram_bits(self) -> int:
        """Bits to and from the memory off the chip."""
        return self.dram_weight_bits + self.dram_activation_bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycles:
    """What a layer takes where nothing else limits it; it takes the longest of these."""

    compute: int
    buffer: int
    dram: int
    post_processing: int

    @property
    def bound(self) -> str:
        """What the layer waits for."""
        return max(("compute", "buffer", "dram", "post_processing"), key=lambda name: int(getattr(self, name)))

    @property
    def total(self) -> int:
        """Cycles of the layer."""
        return max(self.compute, self.buffer, self.dram, self.post_processing)

    def times(self, factor: int) -> Cycles:
        """All of it that many times."""
        return Cycles(**{field.name: factor * getattr(self, field.name) for field in dataclasses.fields(self)})


def count_layer(
    accelerator: Accelerator,
    fit: Fit,
    spec: LayerSpec,
    workload: Workload,
    capacity: Capacity,
    *,
    batch: int = 1,
    is_first: bool = False,
    is_last: bool = False,
) -> tuple[Actions, Cycles]:
    """Actions and cycles of one call of a layer for ``batch`` samples.

    ``is_first`` and ``is_last``: the input comes from, and the output goes to, the memory off the chip in any case.
    """
    found = [
        count_mapping(accelerator, fit, spec, workload, capacity, mapping, ends=(is_first, is_last), batch=batch)
        for mapping in mappings(accelerator, fit, workload, batch=batch)
    ]
    return min(found, key=lambda counted: (counted[1].total, counted[0].dram_bits))


def count_mapping(
    accelerator: Accelerator,
    fit: Fit,
    spec: LayerSpec,
    workload: Workload,
    capacity: Capacity,
    mapping: LayerMapping,
    *,
    ends: tuple[bool, bool] = (False, False),
    batch: int = 1,
) -> tuple[Actions, Cycles]:
    """The same with the processing elements arranged as ``mapping`` says; ``ends`` are ``is_first`` and ``is_last``."""
    tensors = layer_tensors(spec, workload, batch)
    order = loop_order(mapping, fit, tensors, accelerator, capacity)
    actions = dataclasses.replace(
        _compute(mapping, fit, accelerator),
        **_element_traffic(mapping, fit, accelerator, order),
        **_shared_traffic(mapping, fit, tensors, accelerator, order, ends=ends, stored=workload.kind != "matmul"),
    )
    return actions, _cycles(mapping, fit, actions, accelerator)


def _compute(mapping: LayerMapping, fit: Fit, accelerator: Accelerator) -> Actions:
    sums = mapping.groups * mapping.outputs_per_group * mapping.positions * fit.passes
    operations = sums * mapping.words
    lanes = fit.lanes * accelerator.processing_elements
    longest = accumulator_capacity(fit.lane, accelerator)
    return Actions(
        lane_operations=operations,
        idle_lane_cycles=lanes * computing_cycles(mapping, fit) - operations,
        accumulations=operations,
        drains=sums * math.ceil(mapping.words / longest),
        outputs=sums // fit.passes,
    )


def computing_cycles(mapping: LayerMapping, fit: Fit) -> int:
    """Cycles in which the busiest element reads operands, eq. (A3)."""
    return mapping.channel_rounds * mapping.positions_in_turn * mapping.words * fit.passes


def _element_traffic(mapping: LayerMapping, fit: Fit, accelerator: Accelerator, order: LoopOrder) -> dict[str, int]:
    """Reads, eq. (A4), and writes of the buffers in processing elements."""
    weight_bits, activation_bits = word_bits(fit, accelerator)
    channels = mapping.groups * mapping.outputs_per_group
    weight_reads = channels * mapping.position_tiles * mapping.words * fit.passes
    weight_writes = channels * mapping.words * fit.weight_digits * order.copies
    activation_reads = mapping.channel_tiles * mapping.positions * mapping.words * fit.passes
    activation_writes = mapping.channel_tiles * mapping.positions * mapping.words * fit.activation_digits
    weight_scale, activation_scale = fit.lane.weight_scale_bits, fit.lane.activation_scale_bits
    return {
        "weight_read_bits": weight_reads * weight_bits,
        "weight_scale_read_bits": weight_reads * weight_scale,
        "weight_write_bits": weight_writes * weight_bits,
        "weight_scale_write_bits": weight_writes * weight_scale,
        "activation_read_bits": activation_reads * activation_bits,
        "activation_scale_read_bits": activation_reads * activation_scale,
        "activation_write_bits": activation_writes * activation_bits,
        "activation_scale_write_bits": activation_writes * activation_scale,
    }


def _shared_traffic(
    mapping: LayerMapping,
    fit: Fit,
    tensors: Tensors,
    accelerator: Accelerator,
    order: LoopOrder,
    *,
    ends: tuple[bool, bool],
    stored: bool,
) -> dict[str, int]:
    """Reads and writes of the shared buffer, and what passes through it from and to the memory off the chip.

    ``stored``: the weights are; a product's second operand is an activation, and off the chip only if it does not fit.
    """
    weight_bits, activation_bits = word_bits(fit, accelerator)
    weight_word = weight_bits + fit.lane.weight_scale_bits
    activation_word = activation_bits + fit.lane.activation_scale_bits
    weight_words = mapping.groups * mapping.outputs_per_group * mapping.words * fit.weight_digits * order.weight_loads
    activation_words = mapping.group_rounds * mapping.positions * mapping.words * fit.activation_digits
    is_first, is_last = ends
    inputs = tensors.input * order.input_fetches if is_first or tensors.input > order.half_bits else 0
    outputs = tensors.output if is_last or tensors.output > order.half_bits else 0
    weights = tensors.weight * order.weight_fetches if stored or tensors.weight > order.half_bits else 0
    return {
        "shared_read_bits": weight_words * weight_word + activation_words * activation_word + outputs,
        "shared_write_bits": tensors.output + inputs + weights,
        "dram_weight_bits": weights,
        "dram_activation_bits": inputs + outputs,
    }


def _cycles(mapping: LayerMapping, fit: Fit, actions: Actions, accelerator: Accelerator) -> Cycles:
    dram_bits_per_cycle = 8 * accelerator.dram.gigabytes_per_second / accelerator.clock_ghz
    return Cycles(
        compute=computing_cycles(mapping, fit),
        buffer=math.ceil(actions.shared_bits / accelerator.shared_bits_per_cycle),
        dram=math.ceil(actions.dram_bits / dram_bits_per_cycle),
        post_processing=math.ceil(actions.drains / (accelerator.outputs_per_cycle * mapping.elements_used)),
    )
