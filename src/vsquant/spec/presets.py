"""Named specs: those of the VS-Quant poster's tables, and the comparison formats. Only data, each with its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vsquant.spec.layer import LayerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A spec with a name that `LayerSpec.parse` reads, and where it comes from."""

    name: str
    spec: LayerSpec
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    """One published table: weight/activation bits by weight/activation scales."""

    source: str
    rows: tuple[str, ...]
    scales: tuple[str, ...]


_POSTER: Final = "Dai et al., VS-Quant, MLSys 2021, arXiv 2102.04503, poster: "
_RESNET_SCALES: Final = ("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32/fp32", "-/-")
_BERT_ROWS: Final = ("3/8", "4/8", "6/8", "8/8")
_BERT_SCALES: Final = ("4/8", "4/10", "6/8", "6/10", "fp16/fp16", "fp32/fp32", "-/-")
_GRIDS: Final = (
    _Grid(
        source=_POSTER + "post-training, ResNet50 on ImageNet",
        rows=("4/4U", "6/4U", "6/6U", "8/8U"),
        scales=_RESNET_SCALES,
    ),
    _Grid(source=_POSTER + "post-training, BERT-base on SQuAD", rows=_BERT_ROWS, scales=_BERT_SCALES),
    _Grid(source=_POSTER + "post-training, BERT-large on SQuAD", rows=_BERT_ROWS, scales=_BERT_SCALES),
    _Grid(
        source=_POSTER + "quantization-aware training (scale bits not stated there: fp32 here)",
        rows=("3/3U", "4/4", "3/4"),
        scales=("fp32/fp32", "-/-"),
    ),
)
_OCP: Final = "OCP Microscaling Formats (MX) Specification v1.0, 2023: "
_COMPARISON: Final[Mapping[str, str]] = {
    "nvfp4": "NVIDIA, Introducing NVFP4 for Efficient and Accurate Low-Precision Inference, 2025: E2M1, 16 to a block, "
    "E4M3 block scales under one fp32 scale per tensor",
    "nvfp4-4over6": "Cook et al., Four Over Six: More Accurate NVFP4 Quantization with Adaptive Block Scaling, 2025, "
    "arXiv 2512.02010: NVFP4 whose blocks reach to 6 or to 4 by squared error, tensor scale for E4M3 up to 256",
    "mxfp4": _OCP + "MXFP4, E2M1, 32 to a block, E8M0 scales",
    "mxint8": _OCP + "MXINT8, 32 to a block, E8M0 scales",
    "int4-g128": "Frantar et al., GPTQ, ICLR 2023, arXiv 2210.17323: 4-bit weights in groups of 128; here symmetric, "
    "fp16 scales",
}


def _presets() -> Iterator[Preset]:
    sources: dict[str, list[str]] = {}
    for grid in _GRIDS:
        for name in (f"{row}/{scales}" for row in grid.rows for scales in grid.scales):
            sources.setdefault(name, []).append(grid.source)
    for name, found in sources.items():
        yield Preset(name=name, spec=LayerSpec.parse(name), source="; ".join(found))
    for name, source in _COMPARISON.items():
        yield Preset(name=name, spec=LayerSpec.parse(name), source=source)


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType({preset.name: preset for preset in _presets()})
"""Every named spec by name; the poster's are named in its slash form, such as ``4/4U/4/6``."""
