"""Saving leaves the new file, or the old one and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vsquant
from vsquant.errors import CheckpointError

FULL_DISK = """
import resource, sys, torch, vsquant
from vsquant.errors import CheckpointError
from vsquant.export.inspection import inspect
model = vsquant.quantize(torch.nn.Sequential(torch.nn.Linear(64, 64)).eval(), "w4a16-s4/x")
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    vsquant.save(model, sys.argv[1])
except CheckpointError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert f"the checkpoint {path} could not be written, and nothing of it remains: " in done.stdout
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    make_mlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    quantized = vsquant.quantize(make_mlp(), "w4a16-s4/x")

    def full(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vsquant.export.storage.save_file", full)
    with pytest.raises(CheckpointError, match=r"could not be written, and nothing of it remains: .*No space left"):
        vsquant.save(quantized, path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_folder_in_the_files_place_is_left(make_mlp, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="could not be written, and nothing of it remains"):
        vsquant.save(vsquant.quantize(make_mlp(), "w4a16-s4/x"), tmp_path / "m.safetensors")
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_state_of_more_than_tensors_is_refused(make_mlp, tmp_path: Path) -> None:
    class Extra(torch.nn.Module):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    quantized = vsquant.quantize(torch.nn.Sequential(make_mlp(), Extra()).eval(), "w4a16-s4/x")
    with pytest.raises(CheckpointError, match=r"state must hold tensors only, but '1\._extra_state' is a dict"):
        vsquant.save(quantized, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []
