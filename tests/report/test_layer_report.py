"""Layer reports, inspections and diagnoses in the terminal and as plain values."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

from rich.console import Console, RenderableType

from vsquant.report import (
    diagnosis_to_json,
    inspection_to_json,
    layers_to_json,
    render_diagnosis,
    render_inspection,
    render_layers,
)
from vsquant.results import Diagnosis, Finding, FindingLevel, Inspection, LayerInspection, Table


def shown(renderable: RenderableType, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    assert max(len(line) for line in file.getvalue().splitlines()) <= width
    return file.getvalue()


def layer(name: str, sqnr: float | None, note: str = "") -> LayerInspection:
    return LayerInspection(
        name=name,
        kind="Linear",
        spec="w4a8-s4/8-v16",
        shape=(128, 64),
        elements=8192,
        stored_bytes=4352,
        file_bytes=4352,
        scale_codes_used=None if sqnr is None else 13,
        scale_codes_total=None if sqnr is None else 16,
        sqnr_db=sqnr,
        note=note,
    )


def inspection(*layers: LayerInspection) -> Inspection:
    return Inspection(
        path="m.vsq",
        architecture="bert",
        format_version=2,
        form="simulated",
        file_bytes=9000,
        float_bytes=2048,
        float32_bytes=67_584,
        float16_bytes=33_792,
        layers=layers,
    )


def diagnosis(*levels: FindingLevel, seconds: float | None = None) -> Diagnosis:
    findings = tuple(Finding(level=level, layer="conv1 [0]", text=f"a {level}") for level in levels)
    memory = None if seconds is None else 3 * 2**30
    return Diagnosis(model="m", spec="w4a8", findings=findings, peak_memory_bytes=memory, seconds=seconds)


def test_layers(squad_table: Table) -> None:
    layers = squad_table.cells["3/8", "4/8"].layers
    text = shown(render_layers(layers))
    lines = text.splitlines()
    fallback = lines.index("features.depthwise")
    assert lines[fallback + 1].split() == ["1", "Conv2d", "w8a8", "288", "25.0%", "u"]
    assert lines[fallback + 2] == next(layer.note for layer in layers if layer.fallback)
    plain = json.loads(json.dumps(layers_to_json(layers)))
    assert [entry["fallback"] for entry in plain] == [False, False, True]
    assert plain[0]["weights"] == 147456


def test_inspection_lines() -> None:
    text = shown(render_inspection(inspection(layer("a.b", 21.34), replace(layer("emb", None), spec="w8a8"))), width=80)
    words = " ".join(text.split())
    assert (
        "m.vsq bert, simulated, format version 2 8.8 KiB on disk; in fp32 66.0 KiB (7.5×), in fp16 33.0 KiB (3.8×)"
        in words
    )
    assert "16,384 quantized weights at 4.25 bits each: 8.5 KiB; 2.0 KiB of other tensors" in words
    lines = text.splitlines()
    assert lines[lines.index("a.b") + 1].split() == (
        ["1", "w4a8-s4/8-v16", "128×64", "8,192", "4.2", "KiB", "4.25", "13/16", "21.3"]
    )
    assert "tied to emb" in shown(render_inspection(inspection(layer("a", 1.0, "tied to emb"))))
    left = replace(inspection(layer("a", 1.0)), left_float=(("head", "skipped"), ("tail", "skipped"), ("b", "tied")))
    assert shown(render_inspection(left)).splitlines()[-2:] == [
        "left float: head, tail (skipped)",
        "left float: b (tied)",
    ]
    assert inspection_to_json(left)["left_float"][2] == {"name": "b", "reason": "tied"}


def test_weights_that_are_not_packed_are_told() -> None:
    text = shown(render_inspection(inspection(replace(layer("a", None), file_bytes=32768))))
    assert "at 4.25 bits each: 4.2 KiB once packed, 32.0 KiB as they are stored; 2.0 KiB" in " ".join(text.split())


def test_equal_layers_are_one_line_that_fits_80_columns() -> None:
    blocks = [
        replace(
            layer(f"bert.encoder.layer.{number}.attention.self.{part}", 20.0 + number), scale_codes_used=10 + number
        )
        for number in range(6)
        for part in ("query", "key", "value")
    ]
    output = [layer(f"bert.encoder.layer.{number}.attention.output.dense", math.inf) for number in range(6)]
    other = replace(layer("qa_outputs", 20.0), shape=(2, 64))
    lines = shown(render_inspection(inspection(*blocks, *output, other)), width=80).splitlines()
    names = lines.index("bert.encoder.layer.*.attention.{self.query, self.key, self.value, output.dense}")
    assert lines[names + 1].split() == (
        ["24", "w4a8-s4/8-v16", "128×64", "196,608", "102.0", "KiB", "4.25", "10–15/16", "20.0–∞"]
    )
    assert lines[names + 2] == "qa_outputs" and len(lines) == names + 4
    narrow = shown(render_inspection(inspection(*blocks, *output, other)), width=60).splitlines()
    assert ["layers", "spec", "shape", "bits", "SQNR", "dB"] in [line.replace("σ codes", "").split() for line in narrow]
    exact = shown(render_inspection(inspection(*blocks[:2])), width=80)
    assert "bert.encoder.layer.*.attention.self.{query, key}" in exact and " 20.0\n" in exact
    assert "\nlayer.*\n" in shown(render_inspection(inspection(layer("layer.0", 1.0), layer("layer.1", 1.0))))
    assert "\na, b.c\n" in shown(render_inspection(inspection(layer("a", 1.0), layer("b.c", 1.0))))


def test_inspection_json() -> None:
    plain = inspection_to_json(inspection(layer("a", 21.34), layer("exact", math.inf)))
    plain = json.loads(json.dumps(plain, allow_nan=False))
    assert plain["bits_per_weight"] == 4.25 and plain["elements"] == 16384 and plain["stored_bytes"] == 8704
    assert plain["layers"][0]["sqnr_db"] == 21.34 and plain["layers"][1]["sqnr_db"] is None
    assert plain["layers"][0]["shape"] == [128, 64]


def test_an_empty_checkpoint_has_no_bits() -> None:
    assert inspection().bits_per_weight == 0.0


def test_diagnosis_verdicts() -> None:
    text = shown(render_diagnosis(diagnosis("ok", "note", "warning", seconds=720.0)))
    assert "can be quantized; 1 warning\n" in text
    assert "memory, about: 3.0 GiB" in text and "time, about: 12 min" in text
    assert "conv1 [0]" in text
    assert "can be quantized; no warnings" in shown(render_diagnosis(diagnosis("ok")))
    assert "2 errors: this will not quantize as asked" in shown(render_diagnosis(diagnosis("error", "error")))


def test_diagnosis_json() -> None:
    plain = json.loads(json.dumps(diagnosis_to_json(diagnosis("warning", "error"))))
    assert plain["passed"] is False
    assert plain["findings"][1] == {"level": "error", "layer": "conv1 [0]", "text": "a error"}
    assert diagnosis_to_json(diagnosis("warning"))["passed"] is True
