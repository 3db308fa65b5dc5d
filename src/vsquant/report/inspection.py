"""What a checkpoint holds and what a doctor found, in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.report.grouped import common_name
from vsquant.report.layer_groups import layer_groups
from vsquant.report.numbers import finite_or_none, size_text, time_text
from vsquant.results import Diagnosis, FindingLevel, Inspection

_LEVELS: Final[dict[FindingLevel, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "warning": ("warning", "yellow"),
    "error": ("error", "bold red"),
}


def render_inspection(inspection: Inspection) -> RenderableType:
    """The checkpoint's totals, and beneath them its layers, equal ones together.

    The figures: layers, their weights, the bytes of these once packed, bits per weight, how many of the 2^M scale codes
    occur, and the signal-to-quantization-noise ratio.
    """
    left_float = [Text(line, style="dim") for line in _left_float(inspection)]
    table = [layer_groups(inspection.layers)] if inspection.layers else []
    return Group(_inspection_title(inspection), *table, *left_float)


def inspection_to_json(inspection: Inspection) -> dict[str, Any]:
    """The inspection as plain values, with the derived bits per weight."""
    layers = [
        dataclasses.asdict(layer)
        | {
            "shape": list(layer.shape),
            "bits_per_weight": layer.bits_per_weight,
            "sqnr_db": None if layer.sqnr_db is None else finite_or_none(layer.sqnr_db),
        }
        for layer in inspection.layers
    ]
    totals = {
        "elements": inspection.elements,
        "stored_bytes": inspection.stored_bytes,
        "weight_file_bytes": inspection.weight_file_bytes,
        "bits_per_weight": inspection.bits_per_weight,
    }
    left_float = [{"name": name, "reason": reason} for name, reason in inspection.left_float]
    return dataclasses.asdict(inspection) | {"layers": layers, "left_float": left_float} | totals


def render_diagnosis(diagnosis: Diagnosis) -> RenderableType:
    """One line per finding, then the estimates and the verdict."""
    shown = RichTable(box=None, show_header=False, pad_edge=False, collapse_padding=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    shown.add_column(overflow="fold", ratio=1)
    for finding in diagnosis.findings:
        label, style = _LEVELS[finding.level]
        shown.add_row(Text(label, style=style), Text(finding.layer or "", style="bold"), Text(finding.text))
    title = Text(f"{diagnosis.model}  {diagnosis.spec}", style="bold")
    return Group(title, shown, *(Text(line) for line in _estimates(diagnosis)), _verdict(diagnosis))


def diagnosis_to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values."""
    findings = [dataclasses.asdict(finding) for finding in diagnosis.findings]
    return dataclasses.asdict(diagnosis) | {"findings": findings, "passed": diagnosis.passed}


def _inspection_title(inspection: Inspection) -> Text:
    size = inspection.file_bytes
    title = Text(inspection.path, style="bold")
    title.append(
        f"\n{inspection.architecture}, {inspection.form}, format version {inspection.format_version}"
        f"\n{size_text(size)} on disk; in fp32 {size_text(inspection.float32_bytes)} "
        f"({inspection.float32_bytes / size:.1f}×), in fp16 {size_text(inspection.float16_bytes)} "
        f"({inspection.float16_bytes / size:.1f}×)"
        f"\n{inspection.elements:,} quantized weights at {inspection.bits_per_weight:.2f} bits each: "
        f"{size_text(inspection.stored_bytes)}{_unpacked(inspection)}; "
        f"{size_text(inspection.float_bytes)} of other tensors\n",
        style="not bold",
    )
    return title


def _unpacked(inspection: Inspection) -> str:
    """Where weights are not stored packed: those of version 1, and the values of comparison formats."""
    if inspection.weight_file_bytes == inspection.stored_bytes:
        return ""
    return f" once packed, {size_text(inspection.weight_file_bytes)} as they are stored"


def _left_float(inspection: Inspection) -> list[str]:
    """One line for each reason, with the layers that it kept floating point."""
    names: dict[str, list[str]] = {}
    for name, reason in inspection.left_float:
        names.setdefault(reason, []).append(name)
    return [f"left float: {common_name(layers)} ({reason})" for reason, layers in names.items()]


def _estimates(diagnosis: Diagnosis) -> list[str]:
    estimates = []
    if diagnosis.peak_memory_bytes is not None:
        estimates.append(f"memory, about: {size_text(diagnosis.peak_memory_bytes)}")
    if diagnosis.seconds is not None:
        estimates.append(f"time, about: {time_text(diagnosis.seconds)}")
    return estimates


def _verdict(diagnosis: Diagnosis) -> Text:
    if not diagnosis.passed:
        errors = sum(finding.level == "error" for finding in diagnosis.findings)
        return Text(f"{errors} error{'s' if errors > 1 else ''}: this will not quantize as asked", style="bold red")
    warnings = sum(finding.level == "warning" for finding in diagnosis.findings)
    return Text(f"can be quantized; {warnings or 'no'} warning{'' if warnings == 1 else 's'}", style="bold green")
