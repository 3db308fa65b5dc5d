"""Where finished layers may be kept, and how much calibration error feedback asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vsquant
from vsquant.errors import CalibrationError


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


def test_a_folder_given_as_text_is_that_folder(model: nn.Module, tmp_path: Path) -> None:
    x = [torch.randn(32, 64)]
    first, second = (
        vsquant.quantize(model, "w3a8-s4/8", calibration=x, method="gptq", resume=place)
        for place in (str(tmp_path / "kept"), tmp_path / "kept")
    )
    assert len(list((tmp_path / "kept").glob("*/*.safetensors"))) == 2
    for (_, one), (_, other) in zip(vsquant.quantized_layers(first), vsquant.quantized_layers(second), strict=True):
        assert torch.equal(one.weight_codes, other.weight_codes)


def test_a_file_is_no_folder(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match=r"resume must be a folder for finished layers, not the file '.*file'"):
        vsquant.quantize(
            model, "w3a8-s4/8", calibration=[torch.randn(32, 64)], method="gptq", resume=str(tmp_path / "file")
        )


def test_too_few_rows_are_counted(model: nn.Module) -> None:
    with pytest.raises(
        CalibrationError, match=r"weight of layer '[02]': .* rows of inputs for (64|32) columns, not 1 "
    ):
        vsquant.quantize(model, "w3a8-s4/8", calibration=[torch.ones(1, 64) / 3], method=vsquant.ErrorFeedback())
