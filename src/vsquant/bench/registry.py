"""The registry of cases: every row of the speed table."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from vsquant.bench.cases import GROUPS, Case, CellCase, ConvCase, FakeQuantizeCase, LinearCase, ModelCase
from vsquant.bench.targets import Rival, Target
from vsquant.errors import VsquantError

_BLOCKS = Rival(name="ONNX Runtime with blocks of 16", patterns=("onnxruntime 4-bit b16*",), times=3.0)
_GEMV = Target(over_best_peer=1.7, rivals=(_BLOCKS,), of_floor=0.85)
_FEW_ROWS = {1: _GEMV, 4: Target(over_best_peer=2.0, of_floor=0.65), 16: Target(over_best_peer=1.5, of_floor=0.70)}
_FOUR_BIT = Rival(name="the best 4-bit peer", patterns=("*4-bit*", "*int4*", "*Q4*"), times=3.5)
_BERT = Target(over_best_peer=1.45, rivals=(_FOUR_BIT,), of_floor=0.80)
_CONV = {1: Target(over_best_peer=1.4, of_floor=0.65), 3: Target(over_best_peer=1.3, of_floor=0.70)}
_COPY = Target(over_best_peer=18.0, reference="torch copy", times_reference=1.25)
_BERT_BASE = Target(over_best_peer=1.25, rivals=(Rival(name="torch float32", patterns=("torch float32",), times=2.2),))
_RESNET50 = Target(rivals=(Rival(name="OpenVINO int8", patterns=("openvino int8*",), times=1.0),))
_CELL = Target(reference="float network", times_reference=1.3)

_LARGE: Final = ((4096, 4096), (4096, 11008))
_BERT_SHAPES: Final = ((768, 768), (768, 3072), (3072, 768))
_POINTWISE: Final = ((64, 256, 56), (512, 128, 28), (256, 1024, 14), (2048, 512, 7))
_SPATIAL: Final = ((64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7))
_IMAGES: Final = (1, 8)

CASES: Final[tuple[Case, ...]] = (
    *(
        LinearCase(rows=rows, inputs=c, outputs=k, cold=True, target=target)
        for c, k in _LARGE
        for rows, target in _FEW_ROWS.items()
    ),
    *(LinearCase(rows=384, inputs=c, outputs=k, target=_BERT) for c, k in _BERT_SHAPES),
    *(
        ConvCase(images=images, inputs=c, outputs=k, size=size, kernel=kernel, target=_CONV[kernel])
        for kernel, shapes in ((1, _POINTWISE), (3, _SPATIAL))
        for images in _IMAGES
        for c, k, size in shapes
    ),
    FakeQuantizeCase(rows=4096, length=4096, target=_COPY),
    *(ModelCase(model="bert-base", images=images, specs=("w4a8-s4/x",), target=_BERT_BASE) for images in _IMAGES),
    *(ModelCase(model="resnet50", images=images, specs=("w4a8-s4/x",), target=_RESNET50) for images in _IMAGES),
    CellCase(task="squad-minilm", samples=60, specs=("w4a8-s4/8",), target=_CELL),
    CellCase(task="imagenet-efficientnet-lite0", samples=40, specs=("w4a4u-s4/6",), target=_CELL),
    CellCase(task="cifar10", samples=500, specs=("w4a4u-s4/6",), target=_CELL),
)


def find_case(name: str) -> Case:
    """The case of that name; a `KeyError` is a bug of the caller."""
    return {case.name: case for case in CASES}[name]


def choose_cases(group: str, patterns: Sequence[str]) -> tuple[Case, ...]:
    """The cases of a group (kernel, model, cell, all) whose names match one of the patterns; no pattern: all.

    Raises:
        VsquantError: there is no such group, or a pattern matches nothing.
    """
    if group not in GROUPS:
        raise VsquantError(f"what to measure must be one of {', '.join(GROUPS)}, not {group!r}")
    cases = tuple(case for case in CASES if case.group in GROUPS[group])
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            raise VsquantError(f"case must match a case of {group!r} (--list shows them), not {pattern!r}")
    return tuple(case for case in cases if not patterns or any(fnmatchcase(case.name, p) for p in patterns))
