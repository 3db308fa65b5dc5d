"""Small models that vsquant quantized, and checkpoints that someone forged."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import vsquant
from vsquant.export.storage import read_header, read_tensors


class ConvNet(nn.Module):
    """Batch norms, a depthwise convolution, a shared module and a non-persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.depthwise = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.grouped = nn.Conv2d(20, 20, 1, groups=2)
        self.mix = nn.Conv2d(20, 20, 1)
        self.mix_again = self.mix
        self.head = nn.Linear(20, 5)
        self.register_buffer("gain", torch.tensor([1.5, 1.0, 0.5, 2.0, 1.0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.depthwise(self.norm(self.stem(x)).relu()))
        return self.head(self.mix_again(self.mix(x).relu()).mean(dim=(2, 3))) * self.gain


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    model = ConvNet().eval()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def rows() -> Tensor:
    return torch.randn(16, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def make_conv_net() -> Callable[[], nn.Module]:
    return conv_net


@pytest.fixture(scope="session")
def make_mlp() -> Callable[[], nn.Module]:
    return mlp


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory, rows: Tensor) -> Path:
    path = tmp_path_factory.mktemp("small") / "mlp.safetensors"
    vsquant.save(vsquant.quantize(mlp(), "w4a4u-s4/6", calibration=[rows]), path)
    return path


@pytest.fixture(scope="session")
def version_1_checkpoint(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What version 1 made of the small model: a code a byte, and no shapes in the header."""
    header, _ = contents(small_checkpoint)
    layers = [{key: value for key, value in layer.items() if key != "weight_shape"} for layer in header["layers"]]
    tensors = read_tensors(small_checkpoint, read_header(small_checkpoint))
    path = tmp_path_factory.mktemp("old") / "mlp.safetensors"
    return forge(path, header | {"format_version": 1, "layers": layers}, tensors)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header as plain values, and the tensors."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["vsquant"].partition(" ")[2]), tensors


def forge(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor], *, honest_sums: bool = True) -> Path:
    """A checkpoint with any header and tensors whose checksums are right all the same."""
    header = dict(header)
    if honest_sums:
        header["checksums"] = {
            name: zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            for name, tensor in tensors.items()
        }
    text = json.dumps(header)
    save_file(dict(tensors), path, metadata={"vsquant": f"{zlib.crc32(text.encode()):08x} {text}"})
    return path


@pytest.fixture(scope="session")
def read_contents() -> Callable[[Path], tuple[dict[str, Any], dict[str, Tensor]]]:
    return contents


@pytest.fixture(scope="session")
def forge_checkpoint() -> Callable[..., Path]:
    return forge
