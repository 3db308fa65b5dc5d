"""Tensors that do not fit their layer's spec or the model are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vsquant
from vsquant.errors import CheckpointError


def refused(path: Path, model: Any) -> str:
    with pytest.raises(CheckpointError) as raised:
        vsquant.load(path, model=model)
    assert str(path) in str(raised.value)
    return str(raised.value)


PARTS = ("weight_codes", "weight_vector_scale", "weight_coarse_scale", "activation_range")


FLOAT_PARTS = PARTS[2:]


@pytest.mark.parametrize(
    ("part", "how"),
    [(part, how) for part in PARTS for how in ("missing", "shape", "dtype", "range")]
    + [(part, "nan") for part in FLOAT_PARTS],
)
def test_a_tensor_that_does_not_fit_the_spec_is_named_in_version_1(
    part: str, how: str, version_1_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(version_1_checkpoint)
    name = f"0.{part}"
    tensor = tensors.pop(name)
    if how != "missing":
        wrong = {"shape": tensor[..., None], "dtype": tensor.double(), "range": tensor * 0 - 100}
        tensors[name] = wrong[how] if how in wrong else tensor * float("nan")
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert f"tensor {name} must" in message and "(spec w4a4-s4/6-v16)" in message


def test_codes_in_the_padding_are_refused_in_version_1(
    version_1_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(version_1_checkpoint)
    tensors["0.weight_codes"][0, 1, 15] = 1
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert "tensor 0.weight_codes must hold zeros where tails are padded" in message


@pytest.mark.parametrize(
    ("part", "how", "problem"),
    [(part, "missing", "must be there exactly where the spec has it") for part in PARTS]
    + [
        ("weight_codes", "shape", "packed codes must be (6, 10), not (6, 10, 1)"),
        ("weight_codes", "dtype", "must be torch.uint8, not torch.float64"),
        ("weight_codes", "range", "codes must be from -7 to 7, not -8"),
        ("weight_vector_scale", "shape", "packed vector_scale must be (6, 1), not (6, 1, 1)"),
        ("weight_vector_scale", "dtype", "must be torch.uint8, not torch.float64"),
        ("weight_coarse_scale", "shape", "must be (6,), not (6, 1)"),
        ("weight_coarse_scale", "dtype", "must be torch.float32, not torch.float64"),
        ("activation_range", "shape", "must be (1,), not (1, 1)"),
        ("activation_range", "dtype", "must be torch.float32, not torch.float64"),
        *((part, how, "must be finite and not negative") for part in FLOAT_PARTS for how in ("range", "nan")),
    ],
)
def test_a_tensor_that_does_not_fit_the_spec_is_named(
    part: str, how: str, problem: str, small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    name = f"0.{part}"
    tensor = tensors.pop(name)
    if how != "missing":
        outside = torch.full_like(tensor, 0x88 if tensor.dtype == torch.uint8 else -100)
        wrong = {"shape": tensor[..., None], "dtype": tensor.double(), "range": outside, "nan": tensor * float("nan")}
        tensors[name] = wrong[how]
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert f"tensor {name}" in message and f"{problem} (spec w4a4-s4/6-v16)" in message


def test_bits_behind_the_end_of_a_stream_are_refused(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    assert header["layers"][1]["weight_shape"] == [3, 6]
    tensors["2.weight_vector_scale"][1, 0] |= 0x10
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert "tensor 2.weight_vector_scale: packed vector_scale must end in zero bits (spec w4a4u-s4/6-v16)" in message


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ([6, 21], "tensor 0.weight_codes: packed codes must be (6, 11), not (6, 10)"),
        ([6, 19], "tensor 0.weight_codes: packed codes must end in zero bits"),
        ([6, 20, 1], "layer '0' must have a weight of (6, 20), not (6, 20, 1)"),
        ([3, 40], "tensor 0.weight_codes: packed codes must be (3, 20), not (6, 10)"),
        ([6, 2**62], "must not be padded beyond 64 times the file's size"),
        ([2**62, 2**62, 2**62, 2**62], "must not be padded beyond 64 times the file's size"),
        ([2**63, 20], "layers.0.weight_shape.0 is not: Input should be less than"),
        ([6, -20], "layers.0.weight_shape.1 is not: Input should be greater than or equal to 0"),
        ([6], "layers.0.weight_shape is not: Tuple should have at least 2 items"),
        (None, "layer '0' must have a weight_shape exactly from version 2 on"),
    ],
)
def test_a_shape_that_is_not_the_weights_is_refused(
    shape: Any, problem: str, small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    header["layers"][0]["weight_shape"] = shape
    assert problem in refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())


def test_other_tensors_than_the_models_are_refused(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    path = tmp_path / "f.safetensors"
    extra = forge_checkpoint(path, header, {**tensors, "stranger": torch.zeros(1)})
    assert "it has a tensor 'stranger' that the model has not" in refused(extra, make_mlp())
    forge_checkpoint(path, header, {**tensors, "stranger": torch.zeros(1)}, honest_sums=False)
    assert "it has a foreign tensor 'stranger'" in refused(path, make_mlp())
    bias = tensors.pop("2.bias")
    forge_checkpoint(path, header, tensors, honest_sums=False)
    assert "it lacks the tensor '2.bias'" in refused(path, make_mlp())
    forge_checkpoint(path, header, tensors)
    assert "it lacks the tensor '2.bias'" in refused(path, make_mlp())
    forge_checkpoint(path, header, {**tensors, "2.bias": bias[:2]})
    assert "'2.bias' must be (3,), not (2,)" in refused(path, make_mlp())
    forge_checkpoint(path, header, {**tensors, "2.bias": bias.int()})
    assert "'2.bias' must be torch.float32, not torch.int32" in refused(path, make_mlp())
