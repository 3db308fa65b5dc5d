"""The layer spec: everything that says how one layer is quantized. Every other part of vsquant derives from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vsquant.errors import SpecError
from vsquant.spec.formats import IntegerFormat, TensorFormat

GammaMode: TypeAlias = Literal["static", "tensor", "token"]
"""Where an activation's coarse scale comes from: calibration, each sample's tensor, or each token."""

ScaleMode: TypeAlias = Literal["paper", "requantize", "search"]

MAX_PRODUCT_BITS: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """How one layer is quantized.

    Invariants: ``activation is None`` means activations stay floating point (``a16``), and then there is no
    ``product_bits`` and ``gamma`` is ``"static"``; ``product_bits`` needs integer vector scales on both operands; two
    operands with vectors share one vector size; ``full_range``, ``scale_top_pow2`` and ``coarse_fp16`` are the
    weight's alone; comparison formats (`FloatFormat`) are on both operands or on the weight alone, and take no options.
    """

    weight: TensorFormat
    activation: TensorFormat | None
    product_bits: int | None = None
    gamma: GammaMode = "static"

    # __post_init__, derived facts and parse/str follow in the complete module
