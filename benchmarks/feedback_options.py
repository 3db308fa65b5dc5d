"""What each option of error feedback is worth: KL divergence from the float network's outputs on unseen images.

Calibrated on the first images of the calibration set and judged on the next ones, never on those that tables are
evaluated on. ``VSQUANT_DATA`` names the folder of real data.

Usage: python benchmarks/feedback_options.py
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import torch
from files import real_task, write, write_result
from torch import Tensor, nn

from vsquant.tasks.base import Task, run
from vsquant.workflows.ptq import as_recipe, prepare, quantize_prepared

TASK: Final = "cifar10"
SPECS: Final = ("w4a4u-s4/4", "w3a3u-s4/4")
CALIBRATION_IMAGES: Final = 128
JUDGED_ON_DRAWS: Final = range(1, 5)
"""Disjoint sets of that many images, none of them calibrated with."""
METHODS: Final = (
    "rtn",
    "gptq",
    *(f"gptq:compensation={value}" for value in ("0", "0.25", "0.75", "1")),
    "gptq:free_bias=false",
    "gptq:order=none",
    "gptq:scales=requantize",
    *(f"gptq:damping={value}" for value in ("0.001", "0.1")),
)


def main() -> None:
    """Measure and write the files."""
    result = measured(real_task(TASK))
    write_result(f"feedback-options-{TASK}.json", result)
    write(f"feedback-options-{TASK}.md", markdown(result["rows"]))


def measured(task: Task) -> dict[str, Any]:
    """Every method at every spec, as plain values."""
    model = task.load_model()
    prepared = prepare(model, task.calibration_batches(CALIBRATION_IMAGES), batchnorm_pairs=task.batchnorm_pairs(model))
    expected = outputs(task, prepared.model)
    rows = []
    for method in METHODS:
        row: dict[str, Any] = {"method": method}
        for spec in SPECS:
            start = time.perf_counter()
            quantized = quantize_prepared(prepared, as_recipe(spec), method=method)
            seconds = time.perf_counter() - start
            row[spec] = {"divergence": divergence(expected, outputs(task, quantized)), "quantize_seconds": seconds}
        rows.append(row)
        print(method, *(f"{row[spec]['divergence']:.3f}" for spec in SPECS), flush=True)
    return {
        "task": task.name, "criterion": "mean KL divergence from the float network's outputs",
        "calibration_images": CALIBRATION_IMAGES, "judged_on_images": len(expected), "rows": rows,
    }  # fmt: skip


def outputs(task: Task, model: nn.Module) -> Tensor:
    """Logits of the images that are judged on."""
    draws = (task.calibration_batches(CALIBRATION_IMAGES, draw=draw) for draw in JUDGED_ON_DRAWS)
    with torch.inference_mode():
        return torch.cat([task.logits(run(model, batch), batch).double() for batches in draws for batch in batches])


def divergence(expected: Tensor, given: Tensor) -> float:
    """Mean KL divergence in nats."""
    terms = expected.softmax(-1) * (expected.log_softmax(-1) - given.log_softmax(-1))
    return float(terms.sum(-1).mean())


def markdown(rows: list[Mapping[str, Any]]) -> str:
    """The table for the pages."""
    lines = ["| method | " + " | ".join(SPECS) + " |", "| --- |" + " ---: |" * len(SPECS)]
    for row in rows:
        cells = " | ".join(f"{row[spec]['divergence']:.3f}" for spec in SPECS)
        lines.append(f"| `{row['method']}` | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
