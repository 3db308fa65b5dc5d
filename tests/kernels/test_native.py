"""The native library: loading it, choosing its instruction set, and what is said where it is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vsquant.errors import BackendError, NonFiniteError, SpecError
from vsquant.kernels import native

needs_native = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native library was not built")


def loaded_with(isa: str) -> subprocess.CompletedProcess[str]:
    """What a fresh process says with VSQUANT_ISA set."""
    code = "from vsquant.kernels import native; s = native.load(); print(s.isa, s.reason, sep='|')"
    environment = {**os.environ, "VSQUANT_ISA": isa, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(native.__file__).parents[2])
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@needs_native
def test_status_names_the_instruction_set_in_use() -> None:
    status = native.status()
    assert status.available and status.isa in status.supported
    assert "scalar" in status.supported
    if not os.environ.get("VSQUANT_ISA"):
        assert status.isa == status.supported[0]
        assert status.reason == "the widest that was built and this processor has"


@needs_native
def test_the_environment_forces_an_instruction_set() -> None:
    process = loaded_with("scalar")
    assert process.stdout.strip() == "scalar|VSQUANT_ISA names it"


@needs_native
def test_an_unknown_instruction_set_is_refused_with_the_choices() -> None:
    process = loaded_with("sse9")
    assert process.returncode != 0
    choices = ", ".join(native.status().supported)
    assert process.stderr.strip().endswith(
        f"BackendError: VSQUANT_ISA must be one of {choices}, not 'sse9', "
        "which is not an instruction set that vsquant knows"
    )


@needs_native
def test_the_library_asks_for_no_symbol_of_pytorch_but_its_stable_interface() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (Debian: binutils) is not installed")
    listed = subprocess.run([nm, "-D", "--undefined-only", native.LIBRARY], capture_output=True, text=True, check=True)
    symbols = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert not [
        symbol for symbol in symbols if "c10" in symbol or symbol.startswith(("_ZN2at", "_ZN5torch", "Py", "_Py"))
    ]
    assert any(symbol.startswith(("aoti_torch_", "torch_")) for symbol in symbols)


def test_without_the_library_the_reason_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_native.so")
    monkeypatch.delenv("VSQUANT_ISA", raising=False)
    native.load.cache_clear()
    try:
        status = native.load()
        native.load()
    finally:
        native.load.cache_clear()
    assert (status.available, status.isa, status.supported) == (False, None, ())
    said = [str(warning.message) for warning in recwarn]
    assert said == [f"vsquant runs its eager PyTorch kernels: {native.NOT_BUILT}"]


def test_a_library_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VSQUANT_ISA", raising=False)
    (tmp_path / "_native.so").write_text("no library")
    assert native._load(tmp_path / "_native.so").reason.startswith("the native library cannot be loaded: ")


def test_an_instruction_set_cannot_be_forced_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSQUANT_ISA", "avx2")
    with pytest.raises(BackendError, match="VSQUANT_ISA must not be set, not be 'avx2', where the native library"):
        native._load(tmp_path / "_native.so")


def test_a_native_error_becomes_the_class_it_names() -> None:
    error = native.translated(ValueError("NonFiniteError: a tensor must be finite: it holds NaN"))
    assert type(error) is NonFiniteError and str(error) == "a tensor must be finite: it holds NaN"


@pytest.mark.parametrize("error", [ValueError("shape: wrong"), SpecError("ShapeError: quoted"), RuntimeError("plain")])
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    assert native.translated(error) is error
