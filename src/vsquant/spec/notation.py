"""The notation of layer specs: ``w4a4u-s4/6-v16-p6`` and its two other spellings, read and printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from vsquant.errors import SpecError
from vsquant.spec import hints, rules
from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import (
    DEFAULT_VECTOR_SIZE,
    MAX_ELEMENT_BITS,
    MAX_SCALE_BITS,
    MAX_VECTOR_SIZE,
    MIN_ELEMENT_BITS,
    MIN_SCALE_BITS,
    MIN_VECTOR_SIZE,
    FloatFormat,
    IntegerFormat,
    TensorFormat,
    VectorScale,
)

GammaMode: TypeAlias = Literal["static", "tensor", "token"]

GRAMMAR: Final = (
    "w{2..8}a{2..8|16}[u][-s{S}/{S}][-v{V}][-p{P}][-static|-tensor|-token][-full][-top][-g16]\n"
    "           S = 2..10 | fp16 | fp32 | x (no vector scales)    V = 2..1024    P = 1..32\n"
    "       or  4/4U/4/6  or  Wt=4 Act=4U S=4/6  or  " + " | ".join(COMPARISON_FORMATS)
)
FLOAT_ACTIVATION_BITS: Final = 16

_SIDE = r"[0-9]{1,4}|fp16|fp32|x"
_HEAD: Final = re.compile(r"w(?P<w>[0-9]{1,4})a(?P<a>[0-9]{1,4})(?P<u>u)?")
_OPTION: Final = re.compile(
    rf"s(?P<sw>{_SIDE})(?:/(?P<sa>{_SIDE}))?|v(?P<v>[0-9]{{1,6}})|p(?P<p>[0-9]{{1,4}})"
    r"|(?P<gamma>static|tensor|token)|(?P<full>full)|(?P<top>top)|(?P<g16>g16)"
)
_SLASH: Final = re.compile(rf"(?P<w>[0-9]{{1,4}})/(?P<a>[0-9]{{1,4}})(?P<u>u)?/(?P<sw>{_SIDE}|-)/(?P<sa>{_SIDE}|-)")
_POSTER_ITEM: Final = re.compile(
    r"wt=(?P<w>[0-9]{1,4})|act=(?P<a>[0-9]{1,4})(?P<u>u)?"
    rf"|s=(?:(?P<none>per-channel)|(?P<sw>{_SIDE}|-)(?:/(?P<sa>{_SIDE}|-))?)"
)


class SpecFields(NamedTuple):
    """The fields of a `LayerSpec`."""

    weight: TensorFormat
    activation: TensorFormat | None
    product_bits: int | None
    gamma: GammaMode


class _Piece(NamedTuple):
    """One part of the text: what it says, and the span to point at when it is wrong."""

    value: str
    start: int
    end: int


def parse_fields(text: str) -> SpecFields:
    """The fields that ``text`` describes, in any of the three spellings or as the name of a comparison format.

    Raises:
        SpecError: it points at the offending part, says what to write and shows the grammar.
    """
    if not isinstance(text, str):
        raise SpecError(f"a layer spec must be text such as 'w4a4u-s4/6-v16', not {text!r}")
    source = text.strip()
    lowered = source.lower()
    if not source.isascii() or not source:
        raise _error(source, "must be ASCII text such as 'w4a4u-s4/6-v16'", _whole(source))
    if lowered in COMPARISON_FORMATS:
        weight, activation = COMPARISON_FORMATS[lowered]
        return SpecFields(weight, activation, None, "static")
    if "=" in lowered:
        pieces = _read_poster(source, lowered)
    elif lowered[0].isdigit():
        pieces = _read_slash(source, lowered)
    else:
        pieces = _read_dashes(source, lowered)
    return _Reading(source, pieces).fields()


def print_fields(fields: SpecFields) -> str:
    """Canonical notation of a spec's fields; `parse_fields` reads it back."""
    weight, activation = fields.weight, fields.activation
    if isinstance(weight, FloatFormat):
        return weight.name
    text = f"w{weight.bits}a{FLOAT_ACTIVATION_BITS if activation is None else activation.bits}"
    if activation is not None and not activation.signed:
        text += "u"
    activation_scale = None if activation is None else activation.scale
    if weight.scale is not None or activation_scale is not None:
        vector_size = weight.vector_size or (activation and activation.vector_size)
        text += f"-s{_print_side(weight.scale)}/{_print_side(activation_scale)}-v{vector_size}"
    options = {
        f"-p{fields.product_bits}": fields.product_bits is not None,
        f"-{fields.gamma}": fields.gamma != "static",
        "-full": weight.full_range,
        "-top": weight.scale_top_pow2,
        "-g16": weight.coarse_fp16,
    }
    return text + "".join(option for option, given in options.items() if given)


def _print_side(scale: object) -> str:
    return "x" if scale is None else str(scale)


def _whole(source: str) -> _Piece:
    return _Piece(source, 0, len(source))


def _error(source: str, message: str, piece: _Piece) -> SpecError:
    shown = source[piece.start : piece.end]
    return SpecError(
        f"cannot read the layer spec {source!r}: {shown!r} {message}\n"
        f"    {source}\n    {' ' * piece.start}{'^' * max(1, piece.end - piece.start)}\n"
        f"grammar:   {GRAMMAR}"
    )


def _named(match: re.Match[str], offset: int = 0) -> dict[str, _Piece]:
    """The named groups that took part in a match, moved by ``offset``."""
    return {
        name: _Piece(value, match.start(name) + offset, match.end(name) + offset)
        for name, value in match.groupdict().items()
        if value is not None
    }


def _merge(source: str, pieces: dict[str, _Piece], new: Mapping[str, _Piece]) -> None:
    for name, piece in new.items():
        if name in pieces:
            earlier = pieces[name]
            given = source[earlier.start : earlier.end]
            raise _error(source, f"must not be given beside {given!r}: each part at most once", piece)
        pieces[name] = piece


def _read_dashes(source: str, lowered: str) -> dict[str, _Piece]:
    head, _, _ = lowered.partition("-")
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _error(source, hints.for_head(head, lowered), _Piece(head, 0, len(head)))
    pieces = _named(match)
    for option in re.finditer(r"-([^-]*)", lowered[len(head) :]):
        start, end = option.start() + len(head), option.end() + len(head)
        found = _OPTION.fullmatch(option.group(1))
        if found is None:
            raise _error(source, hints.for_option(option.group(1), lowered[end:]), _Piece(option.group(), start, end))
        named = {name: _Piece(piece.value, start, end) for name, piece in _named(found).items()}
        if "sw" in named:
            named.setdefault("sa", named["sw"])
        _merge(source, pieces, named)
    return pieces


def _read_slash(source: str, lowered: str) -> dict[str, _Piece]:
    match = _SLASH.fullmatch(lowered)
    if match is None:
        raise _error(source, hints.for_slash(lowered), _whole(source))
    return _named(match)


def _read_poster(source: str, lowered: str) -> dict[str, _Piece]:
    pieces: dict[str, _Piece] = {}
    for item in re.finditer(r"[^\s,]+", lowered):
        match = _POSTER_ITEM.fullmatch(item.group())
        if match is None:
            message = "must be Wt=4, Act=4U or S=4/6 (S=fp16, S=-, S=per-channel)"
            raise _error(source, message, _Piece(item.group(), item.start(), item.end()))
        named = _named(match, item.start())
        if "none" in named:
            named = {"sw": named["none"]._replace(value="-")}
        if "sw" in named:
            named.setdefault("sa", named["sw"])
        _merge(source, pieces, named)
    for key, written in (("w", "Wt=4"), ("a", "Act=8")):
        if key not in pieces:
            raise _error(source, f"must name both operands' bits; {written} is missing", _whole(source))
    return pieces


@dataclass(frozen=True)
class _Reading:
    """The pieces of one text, ready to become fields; every refusal points at its piece."""

    source: str
    pieces: Mapping[str, _Piece]

    def fields(self) -> SpecFields:
        weight_scale, activation_scale = self._scale("sw"), self._scale("sa")
        vector_size = self._vector_size(weight_scale, activation_scale)
        activation = self._activation(weight_scale, activation_scale, vector_size)
        weight = self._weight(weight_scale, vector_size)
        return SpecFields(weight, activation, self._product_bits(weight, activation), self._gamma(activation))

    def _refuse(self, part: str, message: str) -> SpecError:
        return _error(self.source, message, self.pieces[part])

    def _integer(self, part: str, low: int, high: int, what: str) -> int:
        value = int(self.pieces[part].value)
        if not low <= value <= high:
            raise self._refuse(part, f"must be {low}..{high} ({what}), not {value}")
        return value

    def _scale(self, part: str) -> VectorScale:
        if part not in self.pieces or self.pieces[part].value in ("x", "-"):
            return None
        value = self.pieces[part].value
        if value == "fp16" or value == "fp32":
            return "fp16" if value == "fp16" else "fp32"
        return self._integer(part, MIN_SCALE_BITS, MAX_SCALE_BITS, "scale bits; or fp16, fp32, x")

    def _vector_size(self, weight_scale: VectorScale, activation_scale: VectorScale) -> int:
        if "v" not in self.pieces:
            return DEFAULT_VECTOR_SIZE
        if weight_scale is None and activation_scale is None:
            raise self._refuse("v", "must go with vector scales; add -s4/4, or drop it")
        return self._integer("v", MIN_VECTOR_SIZE, MAX_VECTOR_SIZE, "vector size")

    def _activation(
        self, weight_scale: VectorScale, activation_scale: VectorScale, vector_size: int
    ) -> IntegerFormat | None:
        if int(self.pieces["a"].value) != FLOAT_ACTIVATION_BITS:
            bits = self._integer("a", MIN_ELEMENT_BITS, MAX_ELEMENT_BITS, "activation bits; or 16, floating point")
            return _operand(bits, activation_scale, vector_size, signed="u" not in self.pieces)
        if "u" in self.pieces:
            raise self._refuse("u", "must not follow a16: floating-point activations have a sign; drop it")
        if activation_scale is not None:
            write = f"w{self.pieces['w'].value}a16" + ("" if weight_scale is None else f"-s{weight_scale}/x")
            raise self._refuse(
                "sa", f"must not scale the activation of a16, which stays floating point; write {write!r}"
            )
        return None

    def _weight(self, scale: VectorScale, vector_size: int) -> IntegerFormat:
        bits = self._integer("w", MIN_ELEMENT_BITS, MAX_ELEMENT_BITS, "weight bits")
        full, top, g16 = ("full" in self.pieces, "top" in self.pieces, "g16" in self.pieces)
        if top and not isinstance(scale, int):
            raise self._refuse("top", f"must go with integer weight scales such as -s4/4, not {_print_side(scale)}")
        if g16 and isinstance(scale, str):
            raise self._refuse("g16", f"must go with a weight coarse scale; {scale} vector scales have none")
        return _operand(bits, scale, vector_size, full=full, top=top, g16=g16)

    def _product_bits(self, weight: IntegerFormat, activation: IntegerFormat | None) -> int | None:
        if "p" not in self.pieces:
            return None
        bits = int(self.pieces["p"].value)
        problem = rules.product_problem(weight, activation, bits)
        if problem is not None:
            raise self._refuse("p", f"is refused: {problem}")
        return bits

    def _gamma(self, activation: IntegerFormat | None) -> GammaMode:
        if "gamma" not in self.pieces:
            return "static"
        problem = rules.gamma_problem(activation)
        if problem is not None:
            raise self._refuse("gamma", f"is refused: {problem}; drop it")
        modes: Mapping[str, GammaMode] = {"static": "static", "tensor": "tensor", "token": "token"}
        return modes[self.pieces["gamma"].value]


def _operand(
    bits: int,
    scale: VectorScale,
    vector_size: int,
    *,
    signed: bool = True,
    full: bool = False,
    top: bool = False,
    g16: bool = False,
) -> IntegerFormat:
    return IntegerFormat(
        bits=bits,
        signed=signed,
        vector_size=None if scale is None else vector_size,
        scale=scale,
        full_range=full,
        scale_top_pow2=top,
        coarse_fp16=g16,
    )
