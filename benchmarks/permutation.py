"""Channels reordered before quantizing against channels as they come, at the same spec, on real data.

Both are rounded to nearest (requantize) and evaluated on the same samples; differences carry the paired standard error.
The order is found on calibration samples only. ``VSQUANT_DATA`` names the folder of real data.

Usage: python benchmarks/permutation.py [cifar10|imagenet-efficientnet-lite0|squad-minilm …]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from provenance import provenance

from vsquant.files import replacing
from vsquant.report import difference_text
from vsquant.results import Scores
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task
from vsquant.workflows.ptq import PreparedModel, as_recipe, permute_prepared, prepare, quantize_prepared

RESULTS: Final = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """In which specs a task is quantized, how much of it is calibrated with, and how much evaluated."""

    specs: tuple[str, ...]
    samples: int
    limit: int | None


SETTINGS: Final[Mapping[str, Setting]] = {
    "cifar10": Setting(specs=("w4a4u-s4/6", "w3a8-s4/8"), samples=64, limit=None),
    "imagenet-efficientnet-lite0": Setting(specs=("w4a4u-s4/6", "w3a8-s4/8"), samples=32, limit=400),
    "squad-minilm": Setting(specs=("w4a4-s4/8", "w3a8-s4/8"), samples=32, limit=300),
}


def main() -> None:
    """Measure the tasks named on the command line, or all, and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=", ".join(SETTINGS))
    for name in parser.parse_args().tasks or SETTINGS:
        task = create_task(name, data=Path(os.environ["VSQUANT_DATA"]))
        result = compared(task, SETTINGS[name])
        write(f"permutation-{name}.json", json.dumps({"provenance": provenance(), **result}, indent=1))
        write(f"permutation-{name}.md", markdown(result))


def compared(task: Task, setting: Setting) -> dict[str, Any]:
    """Every spec with channels as they come and reordered."""
    model = task.load_model()
    batches = task.calibration_batches(setting.samples)
    prepared = prepare(model, batches, batchnorm_pairs=task.batchnorm_pairs(model))
    baseline = task.evaluate(model, limit=setting.limit)
    rows = []
    for spec in setting.specs:
        start = time.perf_counter()
        reordered = permute_prepared(prepared, as_recipe(spec), batches)
        seconds = time.perf_counter() - start
        plain, better = (scored(task, source, spec, setting) for source in (prepared, reordered))
        rows.append(row(spec, plain, better, baseline, reordered) | {"seconds": seconds})
    return {
        "task": task.name, "metric": task.metric, "float": baseline.value(), "samples": baseline.count,
        "calibration_samples": setting.samples, "caveat": task.caveat, "rows": rows,
    }  # fmt: skip


def scored(task: Task, prepared: PreparedModel, spec: str, setting: Setting) -> Scores:
    """The scores of a prepared network in one spec."""
    return task.evaluate(quantize_prepared(prepared, as_recipe(spec)), limit=setting.limit)


def row(spec: str, plain: Scores, better: Scores, baseline: Scores, reordered: PreparedModel) -> dict[str, Any]:
    """One line of the table, as plain values."""
    gain = better.difference(plain)
    groups = [asdict(group) for group in reordered.permuted]
    rises = [g["sqnr_after_db"] - g["sqnr_before_db"] for g in groups if g["sqnr_before_db"] and g["sqnr_after_db"]]
    print(f"{spec:14} {plain.value():.2f} -> {better.value():.2f}  {difference_text(gain, '%')}")
    return {
        "spec": spec, "plain": plain.value(), "permuted": better.value(),
        "plain_drop": difference_text(plain.difference(baseline), "%"),
        "permuted_drop": difference_text(better.difference(baseline), "%"),
        "gain": gain.value, "gain_error": gain.standard_error, "gain_text": difference_text(gain, "%"),
        "groups": groups,
        "median_predicted_gain_db": statistics.median(group["predicted_gain_db"] for group in groups),
        "median_weight_sqnr_gain_db": statistics.median(rises),
    }  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The table for the pages."""
    title = f"{result['task']}, float {result['float']:.1f}"
    headings = (title, result["metric"], "permuted", "gain", "groups", "predicted, median", "weight SQNR, median")
    lines = [f"| {' | '.join(headings)} |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for cell in result["rows"]:
        figures = (
            f"{cell['plain']:.1f}", f"{cell['permuted']:.1f}", cell["gain_text"], str(len(cell["groups"])),
            f"{cell['median_predicted_gain_db']:+.2f} dB", f"{cell['median_weight_sqnr_gain_db']:+.2f} dB",
        )  # fmt: skip
        lines.append(f"| {' | '.join((cell['spec'], *figures))} |")
    return "\n".join(lines)


def write(name: str, text: str) -> None:
    """A file among the results, whole or not at all."""
    with replacing(RESULTS / name) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
