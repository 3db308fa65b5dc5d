"""What rounding the scale product to P bits (eq. 8) costs in accuracy, on real data.

Every spec runs on integers (`vsquant.to_integer`), rounded to nearest, static ranges of the calibration samples; every
P is evaluated on the same samples, and differences carry the paired standard error. ``VSQUANT_DATA`` names the folder
of real data. Each task has a section of its own in the result file; a run replaces those of the tasks it measures.
``squad-minilm-token`` has activation scales per token instead of static ones.

Usage: python benchmarks/rounding_accuracy.py [cifar10|squad-minilm|squad-minilm-token …]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from provenance import provenance

from vsquant import to_integer
from vsquant.files import replacing
from vsquant.report import difference_text
from vsquant.results import Difference, Scores
from vsquant.spec import LayerSpec
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task
from vsquant.workflows.ptq import PreparedModel, as_recipe, prepare, quantize_prepared

RESULTS: Final = Path(__file__).resolve().parent / "results"
RESULT: Final = RESULTS / "rounding-accuracy.json"
CALIBRATION_SAMPLES: Final = 128
LIMITS: Final[Mapping[str, int | None]] = {"cifar10": None, "squad-minilm": 500, "squad-minilm-token": 500}
PRODUCT_BITS: Final[Mapping[str, tuple[int, ...]]] = {
    "8/8/6/10": (),
    "6/8/6/10": (10, 8, 6),
    "4/8/6/10": (12, 10, 8, 6, 4),
    "6/6/4/6": (8, 6, 4),
    "4/4/4/4": (6, 4),
    "4/4U/4/6": (8, 6, 4),
    "3/4/4/4": (6, 4),
}
"""Published notation of a spec -> the P it is rounded to, beside the exact product."""
PER_TOKEN: Final[Mapping[str, tuple[int, ...]]] = {"w4a8-s6/10-token": (8, 6, 4), "w4a4-s4/4-token": (6, 4)}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One spec: its score, and what it loses to the float network and to the same spec with the exact product."""

    name: str
    spec: str
    product_bits: int | None
    score: float
    standard_error: float
    from_float: Mapping[str, float]
    from_exact_product: Mapping[str, float]


def main() -> None:
    """Measure the tasks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=", ".join(LIMITS))
    for name in parser.parse_args().tasks or LIMITS:
        task = create_task(name.removesuffix("-token"), data=Path(os.environ["VSQUANT_DATA"]))
        specs = PER_TOKEN if name.endswith("-token") else PRODUCT_BITS
        section = {"provenance": provenance(), **measured(task, specs, LIMITS[name])}
        sections = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        sections = {**sections, name: section}
        write(RESULT, json.dumps(sections, indent=1))
        for each in sections:
            write(RESULTS / f"rounding-accuracy-{each}.md", markdown(sections[each]))


def write(path: Path, text: str) -> None:
    """A result file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def markdown(section: Mapping[str, Any]) -> str:
    """A section as a table: scores with the exact product, and what each P changes."""
    rows = section["rows"]
    widths = sorted({row["product_bits"] for row in rows if row["product_bits"]}, reverse=True)
    by_bits = {(row["name"], row["product_bits"]): row for row in rows}
    lines = [
        f"| W/A/S | exact product | {' | '.join(f'P = {bits}' for bits in widths)} |",
        "| --- | ---: |" + " ---: |" * len(widths),
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        costs = [by_bits.get((name, bits), {}).get("from_exact_product") for bits in widths]
        cells = ["" if cost is None else difference_text(Difference(**cost), section["unit"]) for cost in costs]
        lines.append(f"| {name} | {by_bits[name, None]['score']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(task: Task, specs: Mapping[str, tuple[int, ...]], limit: int | None) -> dict[str, Any]:
    """Every spec of a list on one task."""
    model = task.load_model()
    batches = task.calibration_batches(CALIBRATION_SAMPLES)
    prepared = prepare(model, batches, batchnorm_pairs=task.batchnorm_pairs(model))
    baseline = task.evaluate(model, limit=limit)
    rows = [row for name in specs for row in rows_of(task, prepared, name, specs[name], baseline, limit)]
    return {
        "task": task.name, "metric": task.metric, "unit": baseline.unit, "float": baseline.value(),
        "float_standard_error": baseline.standard_error(), "samples": baseline.count,
        "calibration_samples": CALIBRATION_SAMPLES, "caveat": task.caveat, "rows": [asdict(row) for row in rows],
    }  # fmt: skip


def rows_of(
    task: Task, prepared: PreparedModel, name: str, widths: tuple[int, ...], baseline: Scores, limit: int | None
) -> list[Row]:
    """A spec with the exact product and with each P."""
    rows: list[Row] = []
    exact: Scores | None = None
    for bits in (None, *widths):
        spec = str(LayerSpec.parse(name)) + (f"-p{bits}" if bits else "")
        scores = task.evaluate(to_integer(quantize_prepared(prepared, as_recipe(spec))), limit=limit)
        exact = scores if exact is None else exact
        loss, cost = scores.difference(baseline), scores.difference(exact)
        rows.append(
            Row(
                name=name,
                spec=spec,
                product_bits=bits,
                score=scores.value(),
                standard_error=scores.standard_error(),
                from_float=asdict(loss),
                from_exact_product=asdict(cost),
            )
        )
        print(f"{task.name} {spec:22} {scores.value():.2f}  P: {difference_text(cost, baseline.unit)}", file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
