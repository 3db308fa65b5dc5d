"""Actions times what each takes: energy, area and cycles of a network on an accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vsquant.errors import AcceleratorError
from vsquant.hardware.accelerator import memories
from vsquant.hardware.accelerator.capacity import Capacity, accumulator_bits
from vsquant.hardware.accelerator.configuration import Accelerator, LaneWidths, integer_formats
from vsquant.hardware.accelerator.counts import Actions, count_layer
from vsquant.hardware.accelerator.fit import Fit, fit_layer
from vsquant.hardware.accelerator.lane_prices import LanePrices
from vsquant.results.accelerator import LayerCost, NetworkCost
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.layer import LayerSpec


@dataclass(frozen=True, kw_only=True)
class Request:
    """One layer of a network: its shape, the spec in force (None: floating point), and whether that was asked for."""

    layer: LayerWorkload
    spec: LayerSpec | None
    requested: bool


def network_cost(
    accelerator: Accelerator,
    spec: LayerSpec,
    requests: Sequence[Request],
    prices: LanePrices,
    *,
    network: str,
    batch: int = 1,
) -> NetworkCost:
    """What a network costs for ``batch`` samples at once, its layers one after another in the order given.

    Lanes made for a ``spec`` with unsigned activations serve both signs where layers of its width need both; on lanes
    for signed ones, unsigned activations of the same width are too wide.

    Raises:
        SpecError: no lane of integers runs the spec.
        AcceleratorError: a layer does not fit, a cost is not known, or no layer is quantized.
    """
    priced = [request for request in requests if request.spec is not None and request.layer.macs]
    if not priced:
        raise AcceleratorError(f"{network} must have a quantized layer, but all of its layers stay floating point")
    lane = accelerator.lane_for(spec, both_signs=_both_signs(spec, priced))
    capacity = Capacity.of(accelerator, lane)
    costs = [
        _layer_cost(accelerator, lane, request, capacity, prices, batch, index == 0, index == len(priced) - 1)
        for index, request in enumerate(priced)
    ]
    left = [request.layer for request in requests if request.spec is None and request.layer.macs]
    return NetworkCost(
        network=network,
        spec=str(spec),
        accelerator=accelerator.name,
        lane=lane.text(accelerator.vector_size),
        batch=batch,
        clock_ghz=accelerator.clock_ghz,
        layers=tuple(costs),
        area_um2=accelerator_area(accelerator, lane, prices),
        float_macs=sum(layer.macs for layer in left) * batch,
        unpriced=tuple(layer.name for layer in left),
        sources=(accelerator.source, prices.source, *_memory_sources()),
    )


def accelerator_area(accelerator: Accelerator, lane: LaneWidths, prices: LanePrices) -> dict[str, float]:
    """Area by component, in µm²; no interconnect, control or pads."""
    elements, capacity = accelerator.processing_elements, Capacity.of(accelerator, lane)
    wide = accelerator.wide_lanes
    lanes = elements * accelerator.lanes * prices.of(lane, accelerator.vector_size).area_um2
    sums = accelerator.lanes * accumulator_bits(lane, accelerator)
    area = {
        "lanes": lanes,
        "weight buffers": elements * memories.sram_um2(capacity.weight),
        "activation buffers": elements * memories.sram_um2(capacity.activation),
        "shared buffer": memories.sram_um2(capacity.shared),
        "post-processing": elements
        * accelerator.outputs_per_cycle
        * memories.post_processing_um2(lane.activation_bits),
    }
    if wide is not None:
        area["wide lanes"] = elements * wide.lanes * prices.of(wide.lane, accelerator.vector_size).area_um2
        sums += wide.lanes * accumulator_bits(wide.lane, accelerator)
    # One accumulator is in the price of a lane; both halves of the positions have one each.
    area["accumulators"] = elements * memories.registers_um2((2 * accelerator.positions - 1) * sums)
    return area


def action_energies(
    accelerator: Accelerator, fit: Fit, actions: Actions, capacity: Capacity, prices: LanePrices
) -> dict[str, float]:
    """Energy by component, in picojoules."""
    weight, activation = memories.sram_pj_per_bit(capacity.weight), memories.sram_pj_per_bit(capacity.activation)
    width = accumulator_bits(fit.lane, accelerator)
    sum_pj = width * memories.sram_pj_per_bit(accelerator.positions * width)
    scales = weight * (actions.weight_scale_read_bits + actions.weight_scale_write_bits) + activation * (
        actions.activation_scale_read_bits + actions.activation_scale_write_bits
    )
    return {
        "lanes": actions.lane_operations * prices.of(fit.lane, accelerator.vector_size).operation_pj,
        "accumulators": (2 * actions.accumulations + actions.drains) * sum_pj if accelerator.positions > 1 else 0.0,
        "weight buffers": weight * (actions.weight_read_bits + actions.weight_write_bits),
        "activation buffers": activation * (actions.activation_read_bits + actions.activation_write_bits),
        "vector scales": scales,
        "post-processing": actions.drains * memories.post_processing_pj(fit.lane.activation_bits),
        "shared buffer": actions.shared_bits * memories.sram_pj_per_bit(capacity.shared),
        "DRAM": actions.dram_bits * memories.dram_pj_per_bit(accelerator.dram.kind),
    }


def _layer_cost(
    accelerator: Accelerator,
    lane: LaneWidths,
    request: Request,
    capacity: Capacity,
    prices: LanePrices,
    batch: int,
    is_first: bool,
    is_last: bool,
) -> LayerCost:
    layer, spec = request.layer, request.spec
    assert spec is not None
    fit = fit_layer(accelerator, lane, spec, name=layer.name)
    actions, cycles = count_layer(
        accelerator, fit, spec, layer.workload, capacity, batch=batch, is_first=is_first, is_last=is_last
    )
    actions, cycles = actions.times(layer.calls), cycles.times(layer.calls)
    return LayerCost(
        name=layer.name,
        spec=str(spec),
        requested=request.requested,
        macs=layer.macs * batch,
        padded_macs=actions.lane_operations * accelerator.vector_size // fit.passes,
        passes=fit.passes,
        wide=fit.wide,
        cycles=cycles.total,
        bound=cycles.bound,
        energy_pj=action_energies(accelerator, fit, actions, capacity, prices),
    )


def _both_signs(spec: LayerSpec, requests: Sequence[Request]) -> bool:
    """Whether a spec asks for unsigned activations and layers of its width have signed ones too."""
    _, wanted = integer_formats(spec)
    if wanted.signed:
        return False
    formats = [integer_formats(request.spec)[1] for request in requests if request.spec is not None]
    return len({fmt.signed for fmt in formats if fmt.bits == wanted.bits}) == 2


def _memory_sources() -> tuple[str, ...]:
    table = memories.memory_table()
    return tuple(table[name]["source"] for name in ("sram_energy", "sram_area", "dram_energy", "post_processing"))
