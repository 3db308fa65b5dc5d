"""What evaluating one table cell costs beside the float network: process CPU time, interleaved in one run, medians.

Usage: VSQUANT_DATA=DIR python benchmarks/cell_cost.py [--repeats N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from provenance import provenance
from torch import nn

from vsquant.files import replacing
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task
from vsquant.workflows.ptq import as_recipe, prepare, quantize_prepared

RESULT = Path(__file__).resolve().parent / "results" / "cell-cost.json"
SAMPLES = {"squad-minilm": 60, "imagenet-efficientnet-lite0": 40, "cifar10": 500}
SPECS = {
    "squad-minilm": ("w4a8-s4/8", "w4a8-s4/8-tensor", "w4a8-s4/8-token", "w4a8-sfp32/fp32", "w4a8", "nvfp4"),
    "imagenet-efficientnet-lite0": ("w4a4u-s4/6", "w4a4u-s4/6-tensor", "w4a4u-sfp32/fp32", "w4a4u", "nvfp4"),
    "cifar10": ("w4a4u-s4/6", "w4a4u-s4/6-tensor", "w4a4u-sfp32/fp32", "w4a4u", "nvfp4"),
}


def main() -> None:
    """Measure every task, print the ratios and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    data = Path(os.environ["VSQUANT_DATA"])
    tasks = {name: measure(create_task(name, data=data), repeats) for name in SPECS}
    result = {"provenance": provenance(), "method": __doc__.strip().splitlines()[0], "repeats": repeats, "tasks": tasks}
    with replacing(RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(task: Task, repeats: int) -> dict[str, object]:
    """Median CPU seconds of the float network and of each cell, and the median of their ratios pair by pair."""
    models = quantized_models(task)
    samples = SAMPLES[task.name]
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            seconds = cpu_seconds(lambda model=model: task.evaluate(model, limit=samples))
            if repeat:
                times[name].append(seconds)
    float_times = times.pop("float")
    cells = {}
    for name, seconds in times.items():
        ratios = [cell / float_ for cell, float_ in zip(seconds, float_times, strict=True)]
        cells[name] = {
            "cpu_seconds": statistics.median(seconds),
            "ratio_to_float": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
        print(f"{task.name:30} {name:20} {cells[name]['ratio_to_float']:.2f}x float")
    return {"samples": samples, "float_cpu_seconds": statistics.median(float_times), "cells": cells}


def quantized_models(task: Task) -> dict[str, nn.Module]:
    """The float network and its cells."""
    model = task.load_model()
    prepared = prepare(model, task.calibration_batches(16), batchnorm_pairs=task.batchnorm_pairs(model))
    return {"float": model} | {spec: quantize_prepared(prepared, as_recipe(spec)) for spec in SPECS[task.name]}


def cpu_seconds(work: Callable[[], object]) -> float:
    """Process CPU time of one call."""
    start = time.process_time()
    with torch.inference_mode():
        work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
