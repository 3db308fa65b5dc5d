"""Tensor formats: how the elements and the vector scales of one operand are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vsquant.errors import SpecError

VectorScale: TypeAlias = int | Literal["fp16", "fp32"] | None
"""How one vector's scale is stored: M bits unsigned (two-level), fp16/fp32 (single-level), or not at all."""

MIN_ELEMENT_BITS: Final = 2
MAX_ELEMENT_BITS: Final = 8
MIN_SCALE_BITS: Final = 2
MAX_SCALE_BITS: Final = 10
MIN_VECTOR_SIZE: Final = 2
MAX_VECTOR_SIZE: Final = 1024
DEFAULT_VECTOR_SIZE: Final = 16


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class IntegerFormat:
    """N-bit integer elements with an optional scale per vector under one floating-point coarse scale.

    Invariants: ``scale is None`` exactly when ``vector_size is None``; ``scale_top_pow2`` (notation ``-top``) needs
    an integer scale; ``coarse_fp16`` (``-g16``) needs a coarse scale, so not fp16/fp32 vector scales;
    ``full_range`` (``-full``) needs signed elements.
    """

    bits: int
    signed: bool = True
    vector_size: int | None = DEFAULT_VECTOR_SIZE
    scale: VectorScale
    full_range: bool = False
    scale_top_pow2: bool = False
    coarse_fp16: bool = False

    def __post_init__(self) -> None:
        _require(
            type(self.bits) is int and MIN_ELEMENT_BITS <= self.bits <= MAX_ELEMENT_BITS,
            f"element bits must be {MIN_ELEMENT_BITS}..{MAX_ELEMENT_BITS}, not {self.bits!r}",
        )
        if isinstance(self.scale, int):
            _require(
                MIN_SCALE_BITS <= self.scale <= MAX_SCALE_BITS,
                f"scale bits must be {MIN_SCALE_BITS}..{MAX_SCALE_BITS}, 'fp16', 'fp32' or None, not {self.scale}",
            )
        else:
            _require(
                self.scale in ("fp16", "fp32", None),
                f"a vector scale must be {MIN_SCALE_BITS}..{MAX_SCALE_BITS} bits, 'fp16', 'fp32' or None, "
                f"not {self.scale!r}",
            )
        if self.scale is None:
            _require(
                self.vector_size is None,
                f"vector_size must be None where there are no vector scales, not {self.vector_size!r}",
            )
        else:
            _require(
                type(self.vector_size) is int and MIN_VECTOR_SIZE <= self.vector_size <= MAX_VECTOR_SIZE,
                f"vector_size must be {MIN_VECTOR_SIZE}..{MAX_VECTOR_SIZE}, not {self.vector_size!r}",
            )
        _require(self.signed or not self.full_range, "full_range (-full) must go with signed elements")
        _require(
            isinstance(self.scale, int) or not self.scale_top_pow2,
            f"scale_top_pow2 (-top) must go with integer vector scales, not {self.scale!r}",
        )
        _require(
            self.scale not in ("fp16", "fp32") or not self.coarse_fp16,
            f"coarse_fp16 (-g16) must go with a coarse scale; {self.scale} vector scales have none",
        )

    @property
    def qmax(self) -> int:
        """Largest code: 2^(N-1) - 1 signed, 2^N - 1 unsigned."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def qmin(self) -> int:
        """Smallest code: -qmax signed (-2^(N-1) with ``full_range``), 0 unsigned."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) if self.full_range else -self.qmax

    @property
    def has_vectors(self) -> bool:
        """Whether vectors have scales of their own."""
        return self.scale is not None

    @property
    def two_level(self) -> bool:
        """Whether vector scales are integers under a coarse scale."""
        return isinstance(self.scale, int)

    @property
    def has_coarse_scale(self) -> bool:
        """Whether a coarse scale gamma exists: everywhere but under single-level fp16/fp32 vector scales."""
        return not isinstance(self.scale, str)

    @property
    def scale_top(self) -> int:
        """Largest vector scale: 2^M - 1, or 2^M under ``-top``; 1 where vector scales are not integers."""
        if not isinstance(self.scale, int):
            return 1
        return (1 << self.scale) - (0 if self.scale_top_pow2 else 1)

    @property
    def scale_min(self) -> int:
        """Smallest vector scale the rounding of eq. (5) may give: 0, or 1 under ``-top``."""
        return 1 if self.scale_top_pow2 else 0

    @property
    def scale_storage_bits(self) -> int:
        """Bits one vector scale occupies in storage (``-top`` stores sigma - 1 in M bits)."""
        if isinstance(self.scale, int):
            return self.scale
        return {"fp16": 16, "fp32": 32, None: 0}[self.scale]

    @property
    def scale_width_bits(self) -> int:
        """Width B of a vector scale as the datapath sees it: M, or M + 1 under ``-top``; 0 without integer scales."""
        if not isinstance(self.scale, int):
            return 0
        return self.scale + 1 if self.scale_top_pow2 else self.scale

    @property
    def bits_per_element(self) -> float:
        """Storage bits per element, N + M/V; the coarse scale aside."""
        return self.bits + self.overhead_bits_per_element

    @property
    def overhead_bits_per_element(self) -> float:
        """Storage bits per element spent on vector scales, M/V."""
        return self.scale_storage_bits / self.vector_size if self.vector_size else 0.0


ElementName: TypeAlias = Literal["e2m1", "int8", "int4"]
BlockScaleName: TypeAlias = Literal["e4m3", "e8m0", "fp16"]

_ELEMENT_BITS: Final[dict[str, int]] = {"e2m1": 4, "int8": 8, "int4": 4}
_SCALE_BITS: Final[dict[str, int]] = {"e4m3": 8, "e8m0": 8, "fp16": 16}


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatFormat:
    """A comparison format: elements and block scales of another standard, to be evaluated beside VS-Quant.

    These simulate and evaluate; packing, kernels and RTL refuse them by ``name``. Under ``best_of_two`` a block's
    scale maps its largest magnitude to 6 or to 4, whichever has the smaller squared error.

    Invariant: ``best_of_two`` needs E2M1 elements, E4M3 block scales and a tensor scale.
    """

    name: str
    element: ElementName
    block_scale: BlockScaleName
    vector_size: int
    tensor_scale: bool = False
    best_of_two: bool = False

    def __post_init__(self) -> None:
        _require(self.element in _ELEMENT_BITS, f"element must be one of {sorted(_ELEMENT_BITS)}, not {self.element!r}")
        _require(
            self.block_scale in _SCALE_BITS,
            f"block_scale must be one of {sorted(_SCALE_BITS)}, not {self.block_scale!r}",
        )
        _require(
            type(self.vector_size) is int and MIN_VECTOR_SIZE <= self.vector_size <= MAX_VECTOR_SIZE,
            f"vector_size must be {MIN_VECTOR_SIZE}..{MAX_VECTOR_SIZE}, not {self.vector_size!r}",
        )
        is_nvfp4 = self.element == "e2m1" and self.block_scale == "e4m3" and self.tensor_scale
        _require(
            is_nvfp4 or not self.best_of_two,
            "best_of_two must go with element 'e2m1', block_scale 'e4m3' and a tensor scale",
        )

    @property
    def bits(self) -> int:
        """Bits of one element."""
        return _ELEMENT_BITS[self.element]

    @property
    def signed(self) -> bool:
        """Always: the comparison formats have signed elements."""
        return True

    @property
    def scale(self) -> str:
        """The type of the block scale."""
        return self.block_scale

    @property
    def has_vectors(self) -> bool:
        """Always: every comparison format has block scales."""
        return True

    @property
    def two_level(self) -> bool:
        """Never: block scales are not integers under a coarse scale."""
        return False

    @property
    def has_coarse_scale(self) -> bool:
        """Whether a float32 tensor scale stands above the block scales."""
        return self.tensor_scale

    @property
    def scale_storage_bits(self) -> int:
        """Bits one block scale occupies in storage."""
        return _SCALE_BITS[self.block_scale]

    @property
    def overhead_bits_per_element(self) -> float:
        """Storage bits per element spent on block scales."""
        return self.scale_storage_bits / self.vector_size

    @property
    def bits_per_element(self) -> float:
        """Storage bits per element; a tensor scale aside."""
        return self.bits + self.overhead_bits_per_element


TensorFormat: TypeAlias = IntegerFormat | FloatFormat


def padded_length(length: int, vector_size: int | None) -> int:
    """Length of a reduction dimension once its tail is padded to whole vectors."""
    return length if vector_size is None else math.ceil(length / vector_size) * vector_size
