"""What evaluating one table cell costs beside the float network: process CPU time, interleaved in one run, medians.

Usage: VSQUANT_DATA=DIR python benchmarks/cell_cost.py [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from files import real_task, write_result
from torch import nn

from vsquant.tasks.base import Task
from vsquant.workflows.ptq import as_recipe, prepare, quantize_prepared

METHOD = "process CPU time of one evaluation, float and cells interleaved in one run after a warm-up; medians"
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
    tasks = {name: measure(real_task(name), repeats) for name in SPECS}
    write_result("cell-cost.json", {"method": METHOD, "repeats": repeats, "tasks": tasks})


def measure(task: Task, repeats: int) -> dict[str, object]:
    """Median CPU seconds of the float network and of each cell, and the median of their ratios pair by pair."""
    models = quantized_models(task)
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            seconds = cpu_seconds(task, model)
            if repeat:
                times[name].append(seconds)
    float_times = times.pop("float")
    cells = {name: beside_float(cell_times, float_times) for name, cell_times in times.items()}
    for name, cell in cells.items():
        print(f"{task.name:30} {name:20} {cell['ratio_to_float']:.2f}x float")
    return {"samples": SAMPLES[task.name], "float_cpu_seconds": statistics.median(float_times), "cells": cells}


def beside_float(cell_times: list[float], float_times: list[float]) -> dict[str, float]:
    """A cell's median seconds, and the least, median and largest of its ratios to the float network."""
    ratios = [cell / float_ for cell, float_ in zip(cell_times, float_times, strict=True)]
    return {
        "cpu_seconds": statistics.median(cell_times),
        "ratio_to_float": statistics.median(ratios),
        "least_ratio": min(ratios),
        "largest_ratio": max(ratios),
    }


def quantized_models(task: Task) -> dict[str, nn.Module]:
    """The float network and its cells."""
    model = task.load_model()
    prepared = prepare(model, task.calibration_batches(16), batchnorm_pairs=task.batchnorm_pairs(model))
    return {"float": model} | {spec: quantize_prepared(prepared, as_recipe(spec)) for spec in SPECS[task.name]}


def cpu_seconds(task: Task, model: nn.Module) -> float:
    """Process CPU time of one evaluation."""
    start = time.process_time()
    with torch.inference_mode():
        task.evaluate(model, limit=SAMPLES[task.name])
    return time.process_time() - start


if __name__ == "__main__":
    main()
