"""Writes a folder with the RTL of one processing element, a test bench that checks itself, and its golden words."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Final

from vsquant.errors import VsquantError
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.rtl.golden import Golden
from vsquant.hardware.streams import port_fields
from vsquant.spec.layer import LayerSpec

SOURCES: Final = Path(__file__).parent
INPUTS: Final = ("command", "weights", "activations", "constants")

SIMULATE: Final = (
    "iverilog -g2012 -I bench -s vsq_testbench -o simulation -f filelist.f bench/vsq_testbench.sv && vvp simulation"
)
LINT: Final = "verilator --lint-only -Wall --top-module vsq_top -f filelist.f"

README: Final = Template("""\
# $spec

$description

    rtl/vsq_top.sv      the processing element with its parameters; the other files of rtl/ are its modules
    filelist.f          the files of rtl/
    bench/              a test bench in plain SystemVerilog and its configuration
    golden/             the words of every port, in hexadecimal, one a line
    design.json         the parameters, and what they are from

Simulate (Icarus Verilog 11 or later); the bench prints PASS, or FAIL and why:

    $simulate
    vvp simulation +stall=30 +seed=1     # every port hesitates in 30 % of the cycles

Lint (verilator 5):

    $lint

Golden words: $origin. They take $cycles cycles.
""")


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is written: a processing element for ``spec``, and what it is tested with."""

    spec: LayerSpec
    golden: Golden

    @property
    def element(self) -> ProcessingElement:
        """The processing element."""
        return self.golden.plan.element


def write_design(design: Design, folder: Path) -> None:
    """Writes ``folder``, which must not exist, as a whole: it is there when everything is in it.

    Raises:
        VsquantError: the folder exists.
        OSError: it cannot be written.
    """
    check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        place = Path(temporary) / folder.name
        _write(design, place)
        place.rename(folder)


def check_design(folder: Path) -> str:
    """Runs the test bench of a written folder and gives the line that it prints.

    Raises:
        VsquantError: iverilog is not installed, or the bench does not pass; the message has what it printed.
    """
    if shutil.which("iverilog") is None:
        raise VsquantError(
            "the test bench needs iverilog, which is not installed. Install it with:  apt-get install iverilog  "
            "(Debian, Ubuntu) or  brew install icarus-verilog  (macOS); the folder is written all the same"
        )
    with tempfile.TemporaryDirectory() as temporary:
        simulation = str(Path(temporary) / "simulation")
        sources = ["-f", "filelist.f", "bench/vsq_testbench.sv"]
        compiled = _run(
            ["iverilog", "-g2012", "-I", "bench", "-s", "vsq_testbench", "-o", simulation, *sources], folder
        )
        printed = _run(["vvp", simulation], folder) if compiled.returncode == 0 else compiled
    text = printed.stdout.strip()
    if printed.returncode or not text.startswith("PASS"):
        raise VsquantError(f"the test bench of {folder} must print PASS, not: {text} {printed.stderr.strip()}")
    return text


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def check_folder(folder: Path) -> None:
    """Refuses a folder that is there already.

    Raises:
        VsquantError: it exists; the message says what to do.
    """
    if folder.exists():
        raise VsquantError(f"{folder} must be a folder that does not exist yet; remove it or name another")


def _write(design: Design, place: Path) -> None:
    for name in ("rtl", "bench", "golden"):
        (place / name).mkdir(parents=True)
    sources = sorted(SOURCES.glob("*.sv"))
    for source in sources:
        shutil.copy(source, place / "rtl")
    shutil.copy(SOURCES / "bench" / "vsq_testbench.sv", place / "bench")
    (place / "rtl" / "vsq_top.sv").write_text(top_module(design.element))
    (place / "bench" / "configuration.svh").write_text(_configuration(design.golden))
    for name, stream in design.golden.ports.items():
        (place / "golden" / f"{name}.hex").write_text(stream.hex())
    names = sorted([*(source.name for source in sources), "vsq_top.sv"])
    (place / "filelist.f").write_text("".join(f"rtl/{name}\n" for name in names))
    (place / "design.json").write_text(json.dumps(_facts(design), indent=1) + "\n")
    (place / "README.md").write_text(_readme(design))


def top_module(element: ProcessingElement) -> str:
    """``vsq_top``: ``vsq_pe`` with its parameters, one word a port."""
    widths = port_fields(element)
    ports = ["    input  wire  clk", "    input  wire  rst"]
    for name, fields in widths.items():
        inward = name in INPUTS
        ports += [
            f"    {'input  wire ' if inward else 'output logic'} {name}_valid",
            f"    {'output logic' if inward else 'input  wire '} {name}_ready",
            f"    {'input  wire ' if inward else 'output logic'} [{sum(fields.values()) - 1}:0] {name}",
        ]
    values = [f"      .{name}({value})" for name, value in element.verilog_parameters().items()]
    pins = ["      .clk(clk)", "      .rst(rst)"]
    for name, fields in widths.items():
        pins += [f"      .{name}_valid({name}_valid)", f"      .{name}_ready({name}_ready)"]
        offset = 0
        for field, bits in fields.items():
            pins.append(f"      .{field}({name}[{offset + bits - 1}:{offset}])")
            offset += bits
    newline = ",\n"
    return (
        "// vsq_pe with the parameters of one design; the fields of a port side by side, the first lowest.\n"
        "`default_nettype none\n"
        f"module vsq_top (\n{newline.join(ports)}\n);\n"
        f"  vsq_pe #(\n{newline.join(values)}\n  ) u_pe (\n{newline.join(pins)}\n  );\n"
        "endmodule\n`default_nettype wire\n"
    )


def _configuration(golden: Golden) -> str:
    lines = [f"localparam int CYCLES = {golden.cycles};"]
    fields = port_fields(golden.plan.element)
    for name, stream in golden.ports.items():
        lines += [
            f"localparam int {name.upper()}_BITS = {sum(fields[name].values())};",
            f"localparam int {name.upper()}_COUNT = {len(stream.words)};",
        ]
    return "\n".join(lines) + "\n"


def _facts(design: Design) -> dict[str, object]:
    """``design.json``: what the folder was made from."""
    golden, shape = design.golden, design.golden.plan.shape
    return {
        "vsquant": version("vsquant"),
        "spec": str(design.spec),
        "parameters": design.element.verilog_parameters(),
        "golden": {
            "origin": golden.origin,
            "outputs": shape.outputs,
            "positions": shape.positions,
            "vectors": shape.vectors,
            "tiles": len(golden.plan.tiles),
            "cycles": golden.cycles,
        },
    }


def _readme(design: Design) -> str:
    element = design.element
    unit = element.post_processing
    after = "no post-processing unit: sums leave as they are"
    if unit is not None:
        after = (
            f"a post-processing unit that gives {unit.output.bits}-bit "
            f"{'signed' if unit.output.signed else 'unsigned'} codes"
            + (f" with {unit.output.scale_storage_bits}-bit vector scales" if unit.output.has_vectors else "")
        )
    return README.substitute(
        spec=design.spec,
        description=f"A processing element of {element.lanes} lanes of V = {element.lane.vector_size}, with {after}.",
        simulate=SIMULATE,
        lint=LINT,
        origin=design.golden.origin,
        cycles=design.golden.cycles,
    )
