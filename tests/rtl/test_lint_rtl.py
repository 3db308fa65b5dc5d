"""No warning from verilator or iverilog, in any of the forms that the parameters give the RTL."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vsquant.hardware import Lane
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.spec import LayerSpec

ELEMENTS = [
    ("w4a4u-s4/6", "w4a4u-s4/6", {}),
    ("w8a8", "w8a8", {"drain_width": 16}),
    ("w8a8", None, {"lanes": 8, "positions": 1, "activation_words": 1, "weight_words": 1}),
    ("w4a8-s6/10-p4", "w4a8-s6/10-p4", {"drain_width": 1}),
    ("w3a4-s4/4-top", "w2a2-s2/2-v8", {"lanes": 8, "drain_width": 8}),
    ("w4a4-s4/x", None, {"lanes": 1, "drain_width": 1}),
    ("w4a4u-sx/4", "w4a8u", {"lanes": 32}),
    ("w4a4-s4/4-v64-p1", None, {"lanes": 2}),
]


@pytest.mark.parametrize(("spec", "following", "sizes"), ELEMENTS)
@pytest.mark.parametrize("tool", ["verilator", "iverilog"])
def test_the_rtl_is_clean(tool, spec, following, sizes, rtl_sources, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: {tool})")
    lane = Lane.for_spec(LayerSpec.parse(spec))
    unit = PostProcessingUnit.between(lane, LayerSpec.parse(following)) if following else None
    element = ProcessingElement(lane=lane, post_processing=unit, **sizes)
    parameters = element.verilog_parameters().items()
    commands = {
        "verilator": ["verilator", "--lint-only", "-Wall", "--top-module", "vsq_pe"]
        + [f"-G{name}={value}" for name, value in parameters],
        "iverilog": ["iverilog", "-g2012", "-Wall", "-o", "/dev/null", "-s", "vsq_pe"]
        + [f"-Pvsq_pe.{name}={value}" for name, value in parameters],
    }
    done = subprocess.run(
        [*commands[tool], *map(str, rtl_sources)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_rtl_is_all_there_and_named_by_its_modules(rtl_sources) -> None:
    for source in rtl_sources:
        assert f"\nmodule {source.stem} #(" in source.read_text()
    assert {source.stem for source in rtl_sources} >= {"vsq_pe", "vsq_mac_lane", "vsq_ppu", "vsq_sram"}


@pytest.mark.parametrize("wrong", ["SCALE_PRODUCT_BITS=9"])
def test_widths_that_are_not_the_lanes_are_refused(wrong, rtl_sources, tmp_path: Path) -> None:
    command = ["iverilog", "-g2012", "-o", "/dev/null", "-s", "vsq_mac_lane", f"-Pvsq_mac_lane.{wrong}"]
    done = subprocess.run([*command, *map(str, rtl_sources)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "largest_product" in done.stderr


YOSYS = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for line in sys.argv[1:]:
    libyosys.run_pass(line, design)
"""


@pytest.mark.parametrize(("spec", "following", "sizes"), ELEMENTS[:3])
def test_yosys_finds_memories_as_black_boxes_and_no_latch(spec, following, sizes, rtl_sources, tmp_path: Path) -> None:
    pytest.importorskip("pyosys")
    lane = Lane.for_spec(LayerSpec.parse(spec))
    unit = PostProcessingUnit.between(lane, LayerSpec.parse(following)) if following else None
    element = ProcessingElement(lane=lane, post_processing=unit, **sizes)
    parameters = " ".join(f"-chparam {name} {value}" for name, value in element.verilog_parameters().items())
    script = [
        f"read_verilog -sv {' '.join(map(str, rtl_sources))}",
        f"hierarchy -check {parameters} -top vsq_pe",
        "proc",
        "flatten",
        "opt -fast",
        "select -assert-none t:$dlatch t:$adff t:$sr",
        f"select -assert-count {memories(element)} t:vsq_sram",
        "check -assert",
    ]
    done = subprocess.run(
        [sys.executable, "-c", YOSYS, *script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def memories(element: ProcessingElement) -> int:
    """Codes, and scales where there are any, of every lane and of the activations; constants by element of a beat."""
    lane = element.lane
    weights = element.lanes * (2 if lane.weight.two_level else 1)
    activations = 2 if lane.activation.two_level else 1
    return weights + activations + (0 if element.post_processing is None else element.drain_width)
