"""Networks on an accelerator: energy, area and time at 8/8, 4/8/6/10 and 4/4/4/4, scale products exact and rounded.

Shapes alone decide, so weights are not needed. Specs whose lane has no known cost are left out and named.

Usage: python benchmarks/accelerator.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from files import RESULTS, write, write_result

from vsquant.hardware.accelerator.configuration import LaneWidths, load_accelerator
from vsquant.hardware.accelerator.lane_prices import LanePrices
from vsquant.hardware.accelerator.memories import memory_table
from vsquant.report.accelerator import MEMORY_FACTORS, area_text, cost_to_json, energy_text
from vsquant.report.accelerator_picture import write_cost_picture
from vsquant.results.accelerator import CostComparison
from vsquant.spec import LayerSpec
from vsquant.transform.recipe import FirstLast
from vsquant.workflows.accelerator import compare_cost, named_network, spec_requests

PAGES = RESULTS.parents[1] / "docs"
NETWORKS = {"resnet20": "ResNet-20", "minilm": "MiniLM-L6", "resnet50": "ResNet-50", "bert-base": "BERT-base"}
ACCELERATORS = ("edge", "edge-elements")
MISFIT_NETWORKS = {"efficientnet-lite0": "EfficientNet-Lite0"}
MISFIT_ACCELERATORS = {"edge": "in passes", "edge-wide": "on 8-bit lanes"}
SPECS = (
    "w4a8", "w4a8-s6/10", "w4a8-s6/10-p8", "w4a8-s6/10-p6", "w4a8-s6/10-p4",
    "w4a4", "w4a4-s4/4", "w4a4-s4/4-p6", "w4a4-s4/4-p4",
)  # fmt: skip
PUBLISHED = {
    "source": "S. Dai et al., VS-Quant, arXiv 2102.04503, abstracts of version 1 and of the MLSys 2021 proceedings",
    "version 1": {"ResNet-50 W4A4": {"area_saved": 0.37, "energy_saved": 0.24}, "BERT W4A8": {"area_saved": 0.26}},
    "MLSys": {"ResNet-50 W4A4": {"area_saved": 0.36, "energy_saved": 0.69}, "BERT W4A8": {"area_saved": 0.28}},
}
METHOD = (
    "vsquant hw cost: actions counted from the layers' shapes, batch 1 (384 tokens for MiniLM and BERT), times a table "
    "of each action's energy; every ratio is to the same network at 8/8 per-channel with lanes for that. All linear "
    "and convolution layers in the spec; products of attention stay floating point and are not priced"
)


def main() -> None:
    """Price every network in every spec, and write the result files."""
    prices = LanePrices.load()
    known = [spec for spec in SPECS if _has_price(spec, prices)]
    found = [
        compared
        for accelerator in ACCELERATORS
        for network in NETWORKS
        for compared in compared_specs(network, known, accelerator, prices)
    ]
    text = markdown(found, [spec for spec in SPECS if spec not in known], prices.source)
    write("accelerator.md", text)
    write("accelerator-summary.md", summary(found, prices.source))
    misfits = [
        compared_specs(network, ("w4a4-s4/4",), accelerator, prices, first_last="8bit")
        for network in (*NETWORKS, *MISFIT_NETWORKS)
        for accelerator in MISFIT_ACCELERATORS
    ]
    fitted = [each for group in misfits for each in group]
    write("accelerator-misfits.md", misfit_table(fitted))
    result = {
        "method": METHOD,
        "lanes": prices.source,
        "memories": memory_table(),
        "published": PUBLISHED,
        "costs": [_plain(each) for each in found],
        "ends_at_8_bits": [_plain(each) for each in fitted],
    }
    write_result("accelerator.json", result)
    for accelerator in ACCELERATORS:
        shown = [each for each in found if each.cost.accelerator == accelerator]
        write_cost_picture(shown, RESULTS / f"accelerator-{accelerator}.svg")
        if accelerator == ACCELERATORS[0]:
            write_cost_picture(shown, PAGES / "pictures" / "accelerator.svg")
    print(text)


def compared_specs(
    network: str, specs: Sequence[str], accelerator: str, prices: LanePrices, *, first_last: FirstLast = "same"
) -> list[CostComparison]:
    """One network in every spec, beside the baseline."""
    model, inputs = named_network(network)
    requests = [
        spec_requests(model, inputs, LayerSpec.parse(spec), network=network, first_last=first_last) for spec in specs
    ]
    return [compare_cost(load_accelerator(accelerator), each, prices) for each in requests]


def markdown(found: Sequence[CostComparison], unknown: Sequence[str], source: str) -> str:
    """A table for each accelerator."""
    lines = []
    factors = [f"memories ×{factor:g}" for factor in MEMORY_FACTORS]
    heads = [
        "network",
        "spec",
        "energy",
        "of 8/8",
        *factors[::2],
        "without DRAM",
        "area",
        "of 8/8",
        "cycles",
        "perf/area",
    ]
    for accelerator in ACCELERATORS:
        lines += [f"## {accelerator}", "", f"| {' | '.join(heads)} |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
        last = ""
        for each in (each for each in found if each.cost.accelerator == accelerator):
            if each.cost.network != last:
                last = each.cost.network
                lines.append(_row(CostComparison(cost=each.baseline, baseline=each.baseline)))
            lines.append(_row(each))
        lines.append("")
    lines.append(
        "Energy of one inference and its ratio to 8/8 per-channel, with the energy of memories as in the table, halved "
        "and doubled, and without DRAM; area, cycles, and inferences a second and mm² as ratios to the same. "
        f"Lanes: {source}."
    )
    if unknown:
        lines.append(f"\nLeft out, because the cost of their lane is not known: {', '.join(unknown)}.")
    return "\n".join(lines)


def summary(found: Sequence[CostComparison], source: str) -> str:
    """Ratios to 8/8 per-channel: energy with equal bytes, area and performance per area under both policies."""
    heads = ["network", "spec", "energy", "memories ×½ to ×2", "without DRAM", "area", "perf/area"]
    columns = [*heads, "area, equal elements", "perf/area, equal elements"]
    lines = [f"| {' | '.join(columns)} |", "| --- | --- |" + " ---: |" * (len(columns) - 2)]
    by_bytes, by_elements = ([e for e in found if e.cost.accelerator == name] for name in ACCELERATORS)
    for each, elements in zip(by_bytes, by_elements, strict=True):
        halved, doubled = (each.energy_ratio(memory=factor) for factor in MEMORY_FACTORS[::2])
        cells = [
            NETWORKS[each.cost.network],
            f"`{each.cost.spec.replace('-v16', '')}`",
            f"{each.energy_ratio():.2f}",
            f"{halved:.2f} to {doubled:.2f}",
            f"{each.energy_ratio(dram=False):.2f}",
            *(
                f"{ratio:.2f}"
                for both in (each, elements)
                for ratio in (both.area_ratio, both.performance_per_area_ratio)
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Lanes: {source}."])


def misfit_table(found: Sequence[CostComparison]) -> str:
    """What layers of 8 bits cost on narrow lanes, in passes and on lanes of their own."""
    heads = ["network", "spec", "layers too wide", "at the spec", "energy", "area", "cycles", "perf/area"]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- |" + " ---: |" * (len(heads) - 3)]
    for each in found:
        cost = each.cost
        cells = [
            (NETWORKS | MISFIT_NETWORKS)[cost.network],
            f"`{cost.spec.replace('-v16', '')}`",
            MISFIT_ACCELERATORS[cost.accelerator],
            f"{cost.requested_share:.1%}",
            f"{each.energy_ratio():.2f}",
            f"{each.area_ratio:.2f}",
            f"{cost.cycles / each.baseline.cycles:.2f}",
            f"{each.performance_per_area_ratio:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(found: CostComparison) -> str:
    cost = found.cost
    cells = [
        NETWORKS[cost.network],
        f"`{cost.spec.replace('-v16', '')}`",
        energy_text(cost.total_pj()),
        f"{found.energy_ratio():.2f}",
        f"{found.energy_ratio(memory=MEMORY_FACTORS[0]):.2f}",
        f"{found.energy_ratio(memory=MEMORY_FACTORS[2]):.2f}",
        f"{found.energy_ratio(dram=False):.2f}",
        area_text(cost.total_area_um2),
        f"{found.area_ratio:.2f}",
        f"{cost.cycles:,}",
        f"{found.performance_per_area_ratio:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _plain(found: CostComparison) -> dict[str, Any]:
    """A comparison as plain values without its layers, which the shapes give again."""
    plain = cost_to_json(found)
    for cost in (plain["cost"], plain["baseline"]):
        del cost["layers"], cost["sources"], cost["unpriced"]
    return plain


def _has_price(spec: str, prices: LanePrices) -> bool:
    return (LaneWidths.of(LayerSpec.parse(spec)).text(16), 16) in prices.prices


if __name__ == "__main__":
    main()
