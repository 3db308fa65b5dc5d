"""What the hardware model says of a point: energy, area and cycles, beside 8/8 per-channel."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from vsquant.errors import AcceleratorError, SpecError
from vsquant.hardware.accelerator.configuration import load_accelerator
from vsquant.hardware.accelerator.lane_prices import LanePrices
from vsquant.results.accelerator import CostComparison
from vsquant.results.points import PointCost, PointSpec
from vsquant.spec.layer import LayerSpec
from vsquant.transform.attention import attention_entries
from vsquant.workflows.accelerator import NetworkRequests, compare_cost, main_spec, matmul_specs, requests_of
from vsquant.workflows.record import quantization_record, quantized_layers


@dataclass(kw_only=True)
class Pricing:
    """Prices points; what differs in the solver alone costs the same and is priced once."""

    prices: LanePrices = field(default_factory=LanePrices.load)
    _known: dict[tuple[str, str, str, str], PointCost | str] = field(default_factory=dict)

    def __call__(self, point: PointSpec, model: nn.Module) -> PointCost | str:
        """The cost of the point's network, or why it has none."""
        if not point.accelerator:
            return "the space names no accelerator"
        key = (point.network, point.recipe or point.spec, point.first_last, point.accelerator)
        if key not in self._known:
            self._known[key] = self._priced(point, model)
        return self._known[key]

    def _priced(self, point: PointSpec, model: nn.Module) -> PointCost | str:
        try:
            accelerator = load_accelerator(point.accelerator)
            return _cost(compare_cost(accelerator, model_requests(point.network, model), self.prices))
        except (AcceleratorError, SpecError) as error:
            return str(error)


def model_requests(network: str, model: nn.Module) -> NetworkRequests:
    """The layers of a quantized model with the specs in force.

    Raises:
        AcceleratorError: none of them is quantized to integers.
    """
    shapes = quantization_record(model).workloads
    specs: dict[str, LayerSpec | None] = {name: layer.spec for name, layer in quantized_layers(model)}
    for entry in attention_entries(model):
        specs |= matmul_specs(entry.name, entry.spec)
    first = next(iter(filter(None, specs.values())))
    spec = main_spec(requests_of(shapes, specs, first))
    return NetworkRequests(network=network, spec=spec, requests=requests_of(shapes, specs, spec))


def _cost(found: CostComparison) -> PointCost:
    cost = found.cost
    return PointCost(
        accelerator=cost.accelerator,
        energy_pj=cost.energy_pj(),
        area_um2=cost.area_um2,
        cycles=cost.cycles,
        cycles_by_bound=cost.cycles_by_bound,
        energy_ratio=found.energy_ratio(),
        area_ratio=found.area_ratio,
        performance_per_area_ratio=found.performance_per_area_ratio,
        requested_share=cost.requested_share,
        lane=cost.lane,
    )
