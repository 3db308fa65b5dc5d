"""What a network costs on an accelerator, in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.results.accelerator import COMPONENTS, CostComparison, LayerCost, NetworkCost

MEMORY_FACTORS: Final = (0.5, 1.0, 2.0)
"""The energy of memories as the table has it, half of it and double: the least certain of all figures."""

_BOUND_NAMES: Final = {"post_processing": "post-processing", "buffer": "shared buffer", "dram": "DRAM"}


def render_cost(found: CostComparison, *, layers: bool = False) -> RenderableType:
    """Energy and area by component, time and its bounds, and ratios to 8/8 per-channel; fits 80 columns."""
    cost = found.cost
    title = Text(f"{cost.network}  {cost.spec}  on {cost.accelerator}", style="bold")
    title.append(f"\nlanes of {cost.lane}, batch {cost.batch}; beside it 8/8 per-channel", style="dim")
    parts: list[RenderableType] = [title, _components(found), Text(), _figures(found), Text(), _memory(found)]
    if layers:
        parts += [Text(), _layers(cost)]
    return Group(*parts, *(Text(note, style="dim") for note in _notes(cost)))


def cost_to_json(found: CostComparison) -> dict[str, Any]:
    """Both costs as plain values, with what follows from them."""
    return {
        "cost": network_cost_to_json(found.cost),
        "baseline": network_cost_to_json(found.baseline),
        "ratios": {
            "area": found.area_ratio,
            "performance_per_area": found.performance_per_area_ratio,
            "energy": [
                {"memory_energy_factor": factor, "dram": dram, "ratio": found.energy_ratio(memory=factor, dram=dram)}
                for factor in MEMORY_FACTORS
                for dram in (True, False)
            ],
        },
    }


def network_cost_to_json(cost: NetworkCost) -> dict[str, Any]:
    """One cost as plain values, with its sums."""
    return dataclasses.asdict(cost) | {
        "macs": cost.macs,
        "cycles": cost.cycles,
        "cycles_by_bound": cost.cycles_by_bound,
        "seconds": cost.seconds,
        "energy_pj": cost.energy_pj(),
        "total_energy_pj": cost.total_pj(),
        "total_area_um2": cost.total_area_um2,
        "inferences_per_second_per_mm2": cost.inferences_per_second_per_mm2,
        "requested_share": cost.requested_share,
    }


def _components(found: CostComparison) -> RichTable:
    shown = _table("component", "energy", "share", "at 8/8", "ratio", "area", "at 8/8")
    energy, base = found.cost.energy_pj(), found.baseline.energy_pj()
    area, base_area = found.cost.area_um2, found.baseline.area_um2
    total, batch = sum(energy.values()), found.cost.batch
    for name in (*COMPONENTS, *sorted(area.keys() - set(COMPONENTS))):
        at, at_base = energy.get(name, 0.0), base.get(name, 0.0)
        shown.add_row(
            name,
            energy_text(at / batch) if name in energy else "",
            f"{at / total:.0%}" if name in energy else "",
            energy_text(at_base / batch) if name in base else "",
            f"{at / at_base:.2f}" if at_base else "",
            area_text(area[name]) if name in area else "",
            area_text(base_area[name]) if name in base_area else "",
        )
    shown.add_row(
        Text("sum", style="bold"),
        energy_text(total / batch),
        "",
        energy_text(found.baseline.total_pj() / batch),
        f"{found.energy_ratio():.2f}",
        area_text(found.cost.total_area_um2),
        area_text(found.baseline.total_area_um2),
    )
    return shown


def _figures(found: CostComparison) -> RichTable:
    cost, base = found.cost, found.baseline
    shown = _table("figure", "here", "at 8/8", "ratio")
    rows = (
        ("energy of an inference", energy_text(cost.total_pj() / cost.batch), energy_text(base.total_pj() / base.batch),
         found.energy_ratio()),
        ("area", area_text(cost.total_area_um2), area_text(base.total_area_um2), found.area_ratio),
        ("cycles", f"{cost.cycles:,}", f"{base.cycles:,}", cost.cycles / base.cycles),
        ("inferences a second", f"{cost.batch / cost.seconds:,.0f}", f"{base.batch / base.seconds:,.0f}",
         base.seconds / cost.seconds),
        ("a second and mm²", f"{cost.inferences_per_second_per_mm2:,.0f}",
         f"{base.inferences_per_second_per_mm2:,.0f}", found.performance_per_area_ratio),
    )  # fmt: skip
    for name, here, there, ratio in rows:
        shown.add_row(name, here, there, f"{ratio:.2f}")
    shown.add_row("cycles bound by", _bounds(cost), _bounds(base), "")
    return shown


def _memory(found: CostComparison) -> RichTable:
    shown = _table("energy relative to 8/8", *(f"memories ×{factor:g}" for factor in MEMORY_FACTORS))
    for dram, name in ((True, "with DRAM"), (False, "without DRAM")):
        shown.add_row(name, *(f"{found.energy_ratio(memory=factor, dram=dram):.2f}" for factor in MEMORY_FACTORS))
    return shown


def _layers(cost: NetworkCost) -> RichTable:
    shown = _table("layer", "spec", "MMAC", "cycles", "bound", "energy")
    for layer in cost.layers:
        shown.add_row(
            Text(layer.name),
            Text(layer.spec + _how(layer)),
            f"{layer.macs / 1e6:.2f}",
            f"{layer.cycles:,}",
            _BOUND_NAMES.get(layer.bound, layer.bound),
            energy_text(layer.total_pj),
        )
    return shown


def _how(layer: LayerCost) -> str:
    if layer.wide:
        return "\nwide lanes"
    return f"\n{layer.passes} passes" if layer.passes > 1 else ""


def _bounds(cost: NetworkCost) -> str:
    ranked = sorted(cost.cycles_by_bound.items(), key=lambda item: -item[1])
    return "\n".join(f"{_BOUND_NAMES.get(name, name)} {cycles / cost.cycles:.0%}" for name, cycles in ranked)


def _notes(cost: NetworkCost) -> list[str]:
    share = f"{cost.requested_share:.1%} of all multiply-accumulates run in {cost.spec}"
    others = sum(layer.macs for layer in cost.layers if not layer.requested)
    every = cost.macs + cost.float_macs
    share += f", {others / every:.1%} in other specs, {cost.float_macs / every:.1%} stay floating point, unpriced"
    passes = sum(layer.passes > 1 for layer in cost.layers)
    notes = [share + "."]
    if passes:
        notes.append(f"{passes} layers are too wide for the lanes and take several passes.")
    return [*notes, "No interconnect, control, leakage or pads; absolute figures are rougher than ratios."]


def energy_text(picojoules: float) -> str:
    """``3.2 µJ`` and the like."""
    for size, unit in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")):
        if picojoules >= size:
            return f"{picojoules / size:.3g} {unit}"
    return f"{picojoules:.3g} pJ"


def area_text(square_micrometres: float) -> str:
    """In mm²."""
    return f"{square_micrometres / 1e6:.3f} mm²"


def _table(*headings: str) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for index, heading in enumerate(headings):
        left = index == 0 or heading == "spec"
        wide = heading in ("layer", "spec")
        shown.add_column(heading, justify="left" if left else "right", no_wrap=not wide, overflow="fold")
    return shown
