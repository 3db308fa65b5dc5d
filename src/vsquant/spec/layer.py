"""The layer spec: everything that says how one layer is quantized. Every other part of vsquant derives from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vsquant.errors import SpecError
from vsquant.spec import notation, rules, serialize, widths
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat

GammaMode: TypeAlias = notation.GammaMode
"""Where an activation's coarse scale comes from: calibration, each sample's tensor, or each token."""

ScaleMode: TypeAlias = Literal["paper", "requantize", "search", "best-of-three"]
"""How codes and vector scales are settled between eqs. (3), (5) and (6); ``best-of-three`` is for activations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """How one layer is quantized.

    Invariants: ``activation is None`` means activations stay floating point (``a16``), and then there is no
    ``product_bits`` and ``gamma`` is ``"static"``; ``product_bits`` needs integer vector scales on both operands; two
    operands with vectors share one vector size; weights are signed; ``full_range``, ``scale_top_pow2`` and
    ``coarse_fp16`` are the weight's alone; comparison formats (`FloatFormat`) come as the named pairs of
    `vsquant.spec.comparison` and take no options.
    """

    weight: TensorFormat
    activation: TensorFormat | None
    product_bits: int | None = None
    gamma: GammaMode = "static"

    def __post_init__(self) -> None:
        problem = rules.operand_problem(self.weight, self.activation)
        if problem is None and self.product_bits is not None:
            problem = rules.product_problem(self.weight, self.activation, self.product_bits)
        if problem is None and self.gamma not in get_args(GammaMode):
            problem = f"gamma must be one of {', '.join(get_args(GammaMode))}, not {self.gamma!r}"
        if problem is None and self.gamma != "static":
            reason = rules.gamma_problem(self.activation)
            problem = reason and f"gamma must be 'static' (its neutral value), not {self.gamma!r}: {reason}"
        if problem is not None:
            raise SpecError(problem)

    @classmethod
    def parse(cls, text: str) -> LayerSpec:
        """Reads a spec: ``w4a4u-s4/6-v16-p6``, ``4/4U/4/6``, ``Wt=4 Act=4U S=4/6`` or the name of a comparison format.

        Raises:
            SpecError: naming the offending part and showing the grammar.
        """
        return cls(**notation.parse_fields(text)._asdict())

    def __str__(self) -> str:
        """Canonical notation; ``LayerSpec.parse(str(spec)) == spec``."""
        return notation.print_fields(notation.SpecFields(self.weight, self.activation, self.product_bits, self.gamma))

    def to_dict(self) -> dict[str, object]:
        """The spec as plain types, for JSON and YAML."""
        return {
            "weight": serialize.format_to_dict(self.weight),
            "activation": None if self.activation is None else serialize.format_to_dict(self.activation),
            "product_bits": self.product_bits,
            "gamma": self.gamma,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> LayerSpec:
        """Inverse of `to_dict`.

        Raises:
            SpecError: for unknown or missing keys, wrong types and broken invariants.
        """
        return cls(**serialize.spec_fields_from_dict(data)._asdict())

    def to_json(self) -> str:
        """The spec as one line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> LayerSpec:
        """Inverse of `to_json`.

        Raises:
            SpecError: if the text is no JSON object or not one of a layer spec.
        """
        return cls.from_dict(serialize.load_json_object(text))

    @property
    def is_comparison(self) -> bool:
        """Whether this is a comparison format (nvfp4, mxfp4 …) rather than a VS-Quant spec."""
        return isinstance(self.weight, FloatFormat)

    @property
    def is_baseline(self) -> bool:
        """Whether no operand has vector scales: conventional per-channel quantization."""
        return not self.weight.has_vectors and (self.activation is None or not self.activation.has_vectors)

    @property
    def is_dynamic(self) -> bool:
        """Whether the activation's coarse scale is found at run time, per tensor or per token."""
        return self.gamma != "static"

    @property
    def needs_calibration(self) -> bool:
        """Whether input data must be seen first: for a static coarse scale, or to learn where ``u`` applies.

        Comparison formats find every scale in the values themselves.
        """
        if not isinstance(self.activation, IntegerFormat):
            return False
        static = self.activation.has_coarse_scale and not self.is_dynamic
        return static or not self.activation.signed

    @property
    def vector_size(self) -> int | None:
        """V, shared by the operands that have vectors; None for the baseline."""
        if self.weight.vector_size is None and self.activation is not None:
            return self.activation.vector_size
        return self.weight.vector_size

    @property
    def has_integer_sums(self) -> bool:
        """Whether S of eq. (7) is an integer: quantized activations, and no floating-point vector scale anywhere."""
        return all(
            isinstance(fmt, IntegerFormat) and not isinstance(fmt.scale, str) for fmt in (self.weight, self.activation)
        )

    @property
    def scale_product_bits(self) -> int:
        """Width of one scale product: Bw + Ba, or P where that is less; 0 without vector scales.

        Raises:
            SpecError: as `accumulator_bits`.
        """
        weight, activation = self._operands()
        exact = weight.scale_width_bits + activation.scale_width_bits
        return exact if self.product_bits is None else min(exact, self.product_bits)

    @property
    def product_shift(self) -> int:
        """Shift d of eq. (8), the bits that rounding the scale product drops; 0 where it is exact or there is none."""
        return widths.product_shift(*self._operands(), self.product_bits) if self.product_bits is not None else 0

    def accumulator_bits(self, reduction_length: int) -> int:
        """Smallest two's complement width holding every S of eq. (7) over ``reduction_length`` elements, eq. (9).

        ``reduction_length`` counts real elements, C or C*R*S; padding adds zeros, so it needs no room.

        Raises:
            SpecError: if the sum is no integer (a16, fp16/fp32 vector scales, comparison formats) or the length
                is not positive.
        """
        return widths.accumulator_bits(*self._operands(), self.product_bits, reduction_length)

    def max_reduction_length(self, width_bits: int) -> int:
        """Most elements that can be summed in ``width_bits`` of two's complement without ever wrapping.

        Raises:
            SpecError: as `accumulator_bits`.
        """
        return widths.max_reduction_length(*self._operands(), self.product_bits, width_bits)

    def with_activation(self, activation: TensorFormat | None) -> LayerSpec:
        """The same spec with another activation format."""
        return dataclasses.replace(self, activation=activation)

    def signed_activation(self) -> LayerSpec:
        """The same spec with signed activations: what a layer uses whose input goes below zero."""
        if not isinstance(self.activation, IntegerFormat) or self.activation.signed:
            return self
        return self.with_activation(dataclasses.replace(self.activation, signed=True))

    def _operands(self) -> tuple[IntegerFormat, IntegerFormat]:
        return widths.integer_operand(self.weight, "weight"), widths.integer_operand(self.activation, "activation")
