"""What each option beside the method of the weights gains: the same network and spec with and without it.

Weights are rounded to nearest (requantize); all settings are evaluated on the same samples, and gains over rounding
carry the paired standard error. ``VSQUANT_DATA`` names the folder of real data.

Usage: python benchmarks/corrections.py
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from files import real_task, write, write_result

from vsquant.report import difference_text
from vsquant.results import Scores
from vsquant.tasks.base import Task
from vsquant.workflows.ptq import Calibrators, as_recipe, prepare, quantize_prepared

TASK: Final = "cifar10"
SPEC: Final = "w4a4u-s4/4"
CALIBRATION_SAMPLES: Final = 128
ALL: Final = Calibrators(vectors="mse", candidates=3)
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "rounding": {},
    "bias correction": {"bias_correction": True},
    "batch-norm re-estimation": {"batchnorm_reestimation": True},
    "γ of activations by MSE": {"calibrators": Calibrators(vectors="mse")},
    "best of three σ of activations": {"calibrators": Calibrators(candidates=3)},
    "all of them": {"calibrators": ALL, "bias_correction": True, "batchnorm_reestimation": True},
}


def main() -> None:
    """Measure and write the files."""
    result = measured(real_task(TASK))
    write_result(f"corrections-{TASK}.json", result)
    write(f"corrections-{TASK}.md", markdown(result))


def measured(task: Task) -> dict[str, Any]:
    """Every setting, as plain values."""
    model = task.load_model()
    batches = task.calibration_batches(CALIBRATION_SAMPLES)
    prepared = prepare(model, batches, batchnorm_pairs=task.batchnorm_pairs(model), sample_rows=True)
    baseline = task.evaluate(model)
    scores: dict[str, Scores] = {}
    rows = []
    for name, options in SETTINGS.items():
        start = time.perf_counter()
        quantized = quantize_prepared(prepared, as_recipe(SPEC), **options)
        seconds = time.perf_counter() - start
        scores[name] = task.evaluate(quantized)
        rows.append(row(name, scores[name], scores["rounding"], baseline) | {"quantize_seconds": seconds})
    return {
        "task": task.name, "spec": SPEC, "metric": task.metric, "float": baseline.value(), "samples": baseline.count,
        "calibration_samples": CALIBRATION_SAMPLES, "caveat": task.caveat, "rows": rows,
    }  # fmt: skip


def row(name: str, given: Scores, rounding: Scores, baseline: Scores) -> dict[str, Any]:
    """One line of the table."""
    drop, gain = given.difference(baseline), given.difference(rounding)
    texts = {"drop_text": difference_text(drop, "%"), "gain_text": difference_text(gain, "%")}
    print(f"{name:32} {given.value():.2f}  {texts['drop_text']}  gain {texts['gain_text']}", flush=True)
    return {
        "setting": name, "score": given.value(), "drop": drop.value, "drop_error": drop.standard_error,
        "gain": gain.value, "gain_error": gain.standard_error, **texts,
    }  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The table for the pages."""
    title = f"{result['task']}, {result['spec']}, float {result['float']:.1f}"
    lines = [f"| {title} | {result['metric']} | from float | gain on rounding |", "| --- | ---: | ---: | ---: |"]
    for cell in result["rows"]:
        gain = "–" if cell["setting"] == "rounding" else cell["gain_text"]
        lines.append(f"| {cell['setting']} | {cell['score']:.1f} | {cell['drop_text']} | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
