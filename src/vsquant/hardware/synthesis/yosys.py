"""Runs the recipe in a process of its own, with a time limit, and reads its netlist and abc's timing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from vsquant.errors import MissingExtraError, SynthesisError
from vsquant.hardware.synthesis.liberty import Library
from vsquant.hardware.synthesis.yosys_process import BROKEN

TIME_LIMIT_S: Final = 120.0
_DELAY = re.compile(r"Delay\s*=\s*([\d.]+)\s*ps")
_LIBERTY: Final = "cells.lib"
_NETLIST: Final = "netlist.json"


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What one run of the recipe gave: yosys' JSON of the top module, and abc's longest path between registers."""

    netlist: dict[str, Any]
    delay_ps: float


def recipe() -> str:
    """The recipe's commands, one a line, with their places to fill in."""
    lines = (resources.files(__package__) / "recipe.ys.txt").read_text().splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"


def version() -> str:
    """The version of pyosys, or "none"."""
    try:
        return importlib.metadata.version("pyosys")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def map_to_cells(
    sources: dict[str, str],
    top: str,
    parameters: dict[str, int],
    library: Library,
    *,
    period_ps: float,
    booth: bool,
    time_limit_s: float = TIME_LIMIT_S,
) -> Mapped:
    """Synthesizes ``top`` of ``sources`` (text by file name) with the library's cells.

    Raises:
        MissingExtraError: pyosys is not installed.
        SynthesisError: yosys failed, was killed, or took longer than the limit.
    """
    if importlib.util.find_spec("pyosys") is None:
        raise MissingExtraError("pyosys", "hw", "synthesis")
    with tempfile.TemporaryDirectory(prefix="vsquant-synthesis-") as name:
        folder = Path(name)
        for file, text in sources.items():
            (folder / file).write_text(text)
        (folder / _LIBERTY).write_text(library.text)
        script = recipe().format(
            sources=" ".join(sources),
            parameters=" ".join(f"-set {key} {value}" for key, value in parameters.items()),
            top=top,
            booth="-booth" if booth else "",
            liberty=_LIBERTY,
            period_ps=f"{period_ps:g}",
            tie_high=" ".join(library.tie("1")),
            tie_low=" ".join(library.tie("0")),
            netlist=_NETLIST,
        )
        log = _run(script, folder, time_limit_s)
        delay = _DELAY.search(log)
        if delay is None or not (folder / _NETLIST).is_file():
            raise SynthesisError(f"yosys ended without a netlist or abc's timing. Its last lines:\n{_tail(log)}")
        netlist = json.loads((folder / _NETLIST).read_text())["modules"][top]
    return Mapped(netlist=netlist, delay_ps=float(delay[1]))


def _run(script: str, folder: Path, time_limit_s: float) -> str:
    """The log of one run; yosys and the abc that it starts are ended at the limit."""
    shutil.copy(str(Path(__file__).with_name("yosys_process.py")), folder / "yosys_process.py")
    process = subprocess.Popen(
        [sys.executable, "yosys_process.py"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        log, _ = process.communicate(script, timeout=time_limit_s)
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(f"synthesis must take at most {time_limit_s:g} s; it was stopped") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == BROKEN:
        raise SynthesisError(
            f"pyosys is installed but must load to synthesize, and does not: {log.strip()}. "
            f"Install it again with:  pip install --force-reinstall pyosys"
        )
    if process.returncode != 0:
        raise SynthesisError(f"yosys ended with status {process.returncode}. Its last lines:\n{_tail(log)}")
    return log


def _tail(log: str) -> str:
    return "\n".join(log.strip().splitlines()[-5:])
