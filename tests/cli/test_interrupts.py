"""Interrupts of ``vsquant``: at any time one line, which says of finished layers neither more nor less than is so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vsquant.cli.quantize import _stopped
from vsquant.workflows.kept import Kept

QUANTIZE = ("quantize", "-", "w3a4u-s4/6", "--task", "tiny")
LOADING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
library = sys.argv.pop(1)
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == library:
            print("loading", flush=True)
            try:
                time.sleep(60)
            except BaseException:
                raise ImportError("as compiled libraries do, which lose an interrupt") from None
sys.meta_path.insert(0, Slow())
from vsquant.cli import main
main()
"""


def test_what_is_kept_is_counted(tmp_path: Path) -> None:
    assert _stopped(None) == "nothing was written"
    kept = Kept(tmp_path / "kept")
    assert _stopped(kept) == "no layer was finished yet, so none is kept"
    (tmp_path / "kept" / "run").mkdir(parents=True)
    (tmp_path / "kept" / "run" / "a.safetensors").write_text("")
    before = f"no further layer was finished; what {kept.folder} holds is still there for the same command"
    assert _stopped(kept) == before
    kept.added = 1
    assert _stopped(kept) == f"layers and blocks finished and kept in {kept.folder}: 1; the same command goes on there"


@pytest.mark.parametrize("library", ["typer", "rich.console", "torch"])
def test_an_interrupt_while_a_library_loads_is_one_line(library: str, tmp_path: Path) -> None:
    arguments = (*QUANTIZE, "-o", tmp_path / "q")
    program = subprocess.Popen(
        [sys.executable, "-c", LOADING, library, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None and program.stdout.readline() == "loading\n"
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (130, "stopped\n")


def _signal_when_kept(program: subprocess.Popen[str], folder: Path, count: int, number: signal.Signals) -> str:
    deadline = time.monotonic() + 100
    while len(list(folder.glob("*/*.safetensors"))) < count:
        assert program.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    program.send_signal(number)
    return program.communicate(timeout=60)[1]


@pytest.mark.parametrize("method", ["gptq", "reconstruct:iterations=400"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    method: str, start_program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    command = (*QUANTIZE, "--method", method, "--resume", folder, "-o", tmp_path / "resumed")
    err = _signal_when_kept(start_program(*command), folder, 1, signal.SIGKILL)
    assert err == "" and not (tmp_path / "resumed").exists()
    begun = len(list(folder.glob("*/*.safetensors")))
    err = _signal_when_kept(start_program(*command), folder, begun + 1, signal.SIGINT)
    count = len(list(folder.glob("*/*.safetensors")))
    assert err == (
        f"stopped; layers and blocks finished and kept in {folder}: {count - begun}; the same command goes on there\n"
    )
    last = start_program(*command)
    out, _ = last.communicate(timeout=100)
    total = len(list(folder.glob("*/*.safetensors")))
    said = f"layers and blocks taken from {folder}: {count}; finished and kept there: {total - count}\n"
    assert last.returncode == 0 and said in out and 0 < count < total
    whole = start_program(*command[:-4], "-o", tmp_path / "whole")
    whole.communicate(timeout=100)
    resumed, at_once = load_file(tmp_path / "resumed"), load_file(tmp_path / "whole")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in at_once.items()) and len(resumed) == len(at_once)
