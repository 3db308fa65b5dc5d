"""Specs chosen by layer against one spec for all, at the same average bits of a weight, on real data.

Both are rounded to nearest (requantize) and evaluated on the same samples; differences carry the paired standard error.
Sensitivities come from calibration samples only. ``VSQUANT_DATA`` names the folder of real data.

Usage: python benchmarks/allocation.py [cifar10|squad-minilm …]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from files import real_task, write, write_result
from torch import nn

from vsquant.report import difference_text
from vsquant.results import Scores
from vsquant.tasks.base import Task
from vsquant.transform.recipe import Recipe
from vsquant.workflows.allocate import allocate_measured, weight_candidates
from vsquant.workflows.budget import Budget
from vsquant.workflows.ptq import PreparedModel, as_recipe, prepare, quantize_prepared
from vsquant.workflows.sensitivity import Measuring, measure

UNIFORM: Final = ("w3a8-s4/8", "w4a8-s4/8")
BUDGETS: Final = (3.25, 3.5, 3.75, 4.0, 4.25)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much of a task is calibrated with and evaluated."""

    samples: int
    limit: int | None


SETTINGS: Final[Mapping[str, Setting]] = {
    "cifar10": Setting(samples=128, limit=None),
    "squad-minilm": Setting(samples=64, limit=500),
}


def main() -> None:
    """Measure the tasks named on the command line, or all, and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=", ".join(SETTINGS))
    for name in parser.parse_args().tasks or SETTINGS:
        result = compared(real_task(name), SETTINGS[name])
        write_result(f"allocation-{name}.json", result)
        write(f"allocation-{name}.md", markdown(result))


def compared(task: Task, setting: Setting) -> dict[str, Any]:
    """Every uniform cell and every allocation, each against float, and against the uniform cell of its bits."""
    model = task.load_model()
    batches = task.calibration_batches(setting.samples)
    prepared = prepare(model, batches, batchnorm_pairs=task.batchnorm_pairs(model))
    how = Measuring(logits=task.logits, name=task.name)
    found = measure(prepared, weight_candidates(UNIFORM[-1]), batches, how)
    baseline = task.evaluate(model, limit=setting.limit)
    uniform: dict[float, Scores] = {}
    rows: list[dict[str, Any]] = []
    for spec in UNIFORM:
        recipe = as_recipe(spec)
        bits = next(rule.spec.weight.bits_per_element for rule in recipe.rules if rule.spec is not None)
        uniform[bits] = scored(task, prepared, recipe, setting)
        rows.append(row(f"uniform {spec}", bits, uniform[bits], baseline, None))
    for budget in BUDGETS:
        allocation = allocate_measured(found, Budget.parse(f"{budget} bits"))
        scores = scored(task, prepared, allocation.recipe, setting)
        cell = row(f"mixed, {budget} bits", allocation.record.weight_bits, scores, baseline, uniform.get(budget))
        rows.append({**cell, "specs": {layer.name: layer.chosen.requested for layer in allocation.record.layers}})
    return {
        "task": task.name, "metric": task.metric, "float": baseline.value(), "samples": baseline.count,
        "calibration_samples": setting.samples, "caveat": task.caveat, "rows": rows,
    }  # fmt: skip


def scored(task: Task, prepared: PreparedModel, recipe: Recipe, setting: Setting) -> Scores:
    """The scores of the network quantized by a recipe."""
    quantized: nn.Module = quantize_prepared(prepared, recipe)
    return task.evaluate(quantized, limit=setting.limit)


def row(name: str, bits: float, scores: Scores, baseline: Scores, uniform: Scores | None) -> dict[str, Any]:
    """One line of the table, as plain values."""
    drop = scores.difference(baseline)
    gain = None if uniform is None else scores.difference(uniform)
    print(f"{name:22} {bits:.3f} bits  {scores.value():.2f}  {difference_text(drop, '%')}")
    return {
        "name": name, "weight_bits": bits, "value": scores.value(),
        "drop": drop.value, "drop_error": drop.standard_error, "drop_text": difference_text(drop, "%"),
        "gain": None if gain is None else gain.value, "gain_error": None if gain is None else gain.standard_error,
        "gain_text": "" if gain is None else difference_text(gain, "%"),
    }  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The table for the pages."""
    lines = [
        f"| {result['task']}: a8, s4/8 | bits a weight | {result['metric']} | drop from float | over uniform |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| float | 32 | {result['float']:.1f} | | |",
    ]
    for cell in result["rows"]:
        figures = (f"{cell['weight_bits']:.2f}", f"{cell['value']:.1f}", cell["drop_text"], cell["gain_text"])
        lines.append(f"| {' | '.join((cell['name'], *figures))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
