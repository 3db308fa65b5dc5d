"""Channels reordered before quantizing against channels as they come and in orders of chance, on real data.

All are rounded to nearest (requantize) and evaluated on the same samples; differences carry the paired standard error.
That is over samples: how much another rounding alone may change is what the orders of chance show. The order is found
on calibration samples only. ``VSQUANT_DATA`` names the folder of real data.

Usage: python benchmarks/permutation.py [--specs SPEC …] [cifar10|imagenet-efficientnet-lite0|squad-minilm …]

Every spec is kept as soon as it is measured; with ``--specs`` the others stay as they were.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from files import RESULTS, real_task, write, write_result
from provenance import SOURCE_COMMIT

from vsquant.report import difference_text
from vsquant.results import Scores
from vsquant.tasks.base import Task
from vsquant.transform.channels import ChannelGroup, channel_groups
from vsquant.transform.permute import reorder
from vsquant.workflows.batches import by_argument
from vsquant.workflows.ptq import PreparedModel, as_recipe, permute_prepared, prepare, quantize_prepared


@dataclass(frozen=True, kw_only=True)
class Setting:
    """In which specs a task is quantized, how much of it is calibrated with and evaluated, and how many chances."""

    specs: tuple[str, ...]
    samples: int
    limit: int | None
    chances: int


IMAGES: Final = ("w4a4u-s4/4", "w4a8-s4/8", "w3a8-s4/8")
LANGUAGE: Final = ("w4a4-s4/4", "w4a8-s4/8", "w3a8-s4/8")
SETTINGS: Final[Mapping[str, Setting]] = {
    "cifar10": Setting(specs=IMAGES, samples=64, limit=None, chances=4),
    "imagenet-efficientnet-lite0": Setting(specs=IMAGES, samples=32, limit=None, chances=5),
    "squad-minilm": Setting(specs=LANGUAGE, samples=32, limit=300, chances=2),
}


def main() -> None:
    """Measure the tasks named on the command line, or all, and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=", ".join(SETTINGS))
    parser.add_argument("--specs", nargs="*", help="only these of a task's specs")
    arguments = parser.parse_args()
    for name in arguments.tasks or SETTINGS:
        setting = SETTINGS[name]
        specs = [spec for spec in setting.specs if spec in (arguments.specs or setting.specs)]
        for result in compared(real_task(name), setting, specs):
            keep(name, setting, result)


def keep(name: str, setting: Setting, result: dict[str, Any]) -> None:
    """Write the result's rows, and those of other specs as they were."""
    path = RESULTS / f"permutation-{name}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    rows = {row["spec"]: row for row in (*known, *result["rows"])}
    whole = {**result, "rows": [rows[spec] for spec in setting.specs if spec in rows]}
    write_result(path.name, whole)
    write(path.with_suffix(".md").name, markdown(whole))


def compared(task: Task, setting: Setting, specs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Spec by spec: channels as they come, reordered, and in orders of chance."""
    model = task.load_model()
    batches = task.calibration_batches(setting.samples)
    prepared = prepare(model, batches, batchnorm_pairs=task.batchnorm_pairs(model))
    chances = shuffled(prepared, batches[0], setting.chances)
    baseline = task.evaluate(model, limit=setting.limit)
    for spec in specs:
        start = time.perf_counter()
        reordered = permute_prepared(prepared, as_recipe(spec), batches)
        seconds = time.perf_counter() - start
        plain, better, *others = (scored(task, one, spec, setting) for one in (prepared, reordered, *chances))
        measured = row(spec, plain, better, baseline, reordered)
        measured |= {"chances": [other.value() for other in others], "search_seconds": seconds}
        yield {
            "task": task.name, "metric": task.metric, "float": baseline.value(), "samples": baseline.count,
            "calibration_samples": setting.samples, "caveat": task.caveat,
            "rows": [measured | {"commit": SOURCE_COMMIT}],
        }  # fmt: skip


def shuffled(prepared: PreparedModel, batch: Any, count: int) -> list[PreparedModel]:
    """The network with all channels that are free in orders of chance."""
    example = by_argument(prepared.model, batch)
    assert example is not None
    groups = channel_groups(prepared.model, example)
    if isinstance(groups, str):
        raise SystemExit(groups)
    return [with_orders(prepared, groups, seed) for seed in range(count)]


def with_orders(prepared: PreparedModel, groups: Sequence[ChannelGroup], seed: int) -> PreparedModel:
    """A copy with the channels of every group shuffled within their blocks."""
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(prepared.model)
    for group in groups:
        keys = torch.rand(group.blocks, group.size // group.blocks, generator=generator)
        starts = torch.arange(group.blocks)[:, None] * keys.shape[1]
        reorder(model, group, (keys.argsort(dim=1) + starts).reshape(-1))
    return replace(prepared, model=model)


def scored(task: Task, prepared: PreparedModel, spec: str, setting: Setting) -> Scores:
    """The scores of a prepared network in one spec."""
    return task.evaluate(quantize_prepared(prepared, as_recipe(spec)), limit=setting.limit)


def row(spec: str, plain: Scores, better: Scores, baseline: Scores, reordered: PreparedModel) -> dict[str, Any]:
    """One line of the table, as plain values."""
    gain = better.difference(plain)
    groups = [asdict(group) for group in reordered.permuted]
    rises = [g["sqnr_after_db"] - g["sqnr_before_db"] for g in groups if g["sqnr_before_db"] and g["sqnr_after_db"]]
    print(f"{spec:14} {plain.value():.2f} -> {better.value():.2f}  {difference_text(gain, '%')}", flush=True)
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
    headings = (title, result["metric"], "permuted", "gain", "by chance", "predicted, median", "weight SQNR, median")
    lines = [f"| {' | '.join(headings)} |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for cell in result["rows"]:
        chances = cell["chances"]
        figures = (
            f"{cell['plain']:.1f}", f"{cell['permuted']:.1f}", cell["gain_text"],
            f"{min(chances):.1f} … {max(chances):.1f}",
            f"{cell['median_predicted_gain_db']:+.2f} dB", f"{cell['median_weight_sqnr_gain_db']:+.2f} dB",
        )  # fmt: skip
        lines.append(f"| {' | '.join((cell['spec'], *figures))} |")
    first = result["rows"][0]
    lines += [
        "",
        f"by chance: the lowest and the highest of {len(first['chances'])} random orders of the same channels.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
