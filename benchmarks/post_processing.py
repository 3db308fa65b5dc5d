"""Networks whose codes hardware makes, beside eqs. (1)-(7): how many codes differ, and what that costs, on real data.

Every layer that gives codes to the next one does so by the bit-true lane and the fixed-point post-processing unit
(`vsquant.workflows.hardware.on_hardware`). Codes are counted on the same inputs, layer by layer; scores are on the same
samples, with the paired standard error. ``VSQUANT_DATA`` names the folder of real data. Each task and spec has an entry
of its own in the result file; a run replaces those it measures.

Usage: python benchmarks/post_processing.py [cifar10|imagenet-efficientnet-lite0 …]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from provenance import provenance

from vsquant import to_integer
from vsquant.files import replacing
from vsquant.report import difference_text
from vsquant.results import Scores
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task
from vsquant.workflows.hardware import CodeDifferences, on_hardware
from vsquant.workflows.ptq import PreparedModel, as_recipe, prepare, quantize_prepared

RESULTS: Final = Path(__file__).resolve().parent / "results"
NAME: Final = "post-processing"
CALIBRATION_SAMPLES: Final = 128
FRACTIONS: Final = (4, 6, 8, 10)
FRACTION_SAMPLES: Final = 200


@dataclass(frozen=True, kw_only=True)
class Setting:
    """In which specs a task runs on hardware, and on how many samples; on the first spec every F is counted too."""

    specs: tuple[str, ...]
    limit: int | None
    fractions: bool = True


SETTINGS: Final[Mapping[str, Setting]] = {
    "cifar10": Setting(specs=("w4a4u-s4/6", "w4a4u-s4/6-p6", "w4a8-s6/10", "w8a8u"), limit=None),
    "imagenet-efficientnet-lite0": Setting(specs=("w4a8-s6/10",), limit=200, fractions=False),
}


def main() -> None:
    """Measure the tasks named on the command line, or all, and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=", ".join(SETTINGS))
    for name in parser.parse_args().tasks or SETTINGS:
        task = create_task(name, data=Path(os.environ["VSQUANT_DATA"]))
        model = task.load_model()
        batches = task.calibration_batches(CALIBRATION_SAMPLES)
        prepared = prepare(model, batches, batchnorm_pairs=task.batchnorm_pairs(model))
        baseline = task.evaluate(model, limit=SETTINGS[name].limit)
        for spec in SETTINGS[name].specs:
            write(name, spec, {"provenance": provenance(), **measured(task, prepared, spec, baseline)})


def measured(task: Task, prepared: PreparedModel, spec: str, baseline: Scores) -> dict[str, Any]:
    """One network in one spec: its scores with codes of eqs. (1)-(7) and of hardware, and the codes that differ."""
    setting = SETTINGS[task.name]
    integer = to_integer(quantize_prepared(prepared, as_recipe(spec)))
    expected = task.evaluate(integer, limit=setting.limit)
    start = time.perf_counter()
    with on_hardware(integer) as counter:
        scores = task.evaluate(integer, limit=setting.limit)
    seconds = time.perf_counter() - start
    cost = scores.difference(expected)
    layers = counter.differences()
    print(f"{task.name} {spec:14} {difference_text(cost, '%')}  {shares(layers)}", file=sys.stderr)
    by_fraction = {}
    if setting.fractions and spec == setting.specs[0]:
        for bits in FRACTIONS:
            with on_hardware(integer, fraction_bits=bits) as counter:
                task.evaluate(integer, limit=FRACTION_SAMPLES)
            by_fraction[bits] = shares(counter.differences())
    return {
        "metric": task.metric, "samples": expected.count, "calibration_samples": CALIBRATION_SAMPLES,
        "caveat": task.caveat, "float": baseline.value(), "floating_point": expected.value(),
        "hardware": scores.value(), "difference": asdict(cost), **shares(layers), "seconds": seconds,
        "by_fraction_bits": by_fraction, "layers": [asdict(layer) for layer in layers],
    }  # fmt: skip


def shares(layers: Sequence[CodeDifferences]) -> dict[str, float]:
    """Of all layers' codes and vector scales, the shares that differ."""
    codes, scales = sum(layer.codes for layer in layers), sum(layer.scales for layer in layers)
    return {
        "codes_differing": sum(layer.codes_differing for layer in layers) / codes,
        "scales_differing": sum(layer.scales_differing for layer in layers) / scales if scales else 0.0,
    }


def write(task: str, spec: str, entry: Mapping[str, Any]) -> None:
    """The result file with this entry in its place, and the table that documents quote."""
    path = RESULTS / f"{NAME}.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    entries[f"{task} {spec}"] = entry
    for target, text in ((path, json.dumps(entries, indent=1)), (RESULTS / f"{NAME}.md", markdown(entries))):
        with replacing(target) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def markdown(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The entries as a table."""
    lines = [
        "| network, spec | samples | float | eqs. (1)–(7) | hardware | difference | codes that differ | scales |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, e in entries.items():
        difference = f"{e['difference']['value']:+.2f} ± {e['difference']['standard_error']:.2f}".replace("-", "−")
        lines.append(
            f"| {name} | {e['samples']:,} | {e['float']:.2f} | {e['floating_point']:.2f} | {e['hardware']:.2f} "
            f"| {difference} | {100 * e['codes_differing']:.3f} % | {100 * e['scales_differing']:.3f} % |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
