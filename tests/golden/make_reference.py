"""Writes reference-v1.json: what DESIGN's equations (1)-(8) give, worked out with exact fractions.

This is a second implementation of the definition, on purpose a different one: Python's rational numbers, one number at
a time, and one function that rounds a rational to the nearest IEEE number. It imports nothing but the standard library.
It refuses to overwrite: a golden file changes only with the meaning of the format, and then it gets a new name.

    python tests/golden/make_reference.py
"""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

GOLDEN = Path(__file__).with_name("reference-v1.json")
ZERO = Fraction(0)


def rounded(x: Fraction, *, precision: int = 24, min_exponent: int = -126, up: bool = False) -> Fraction:
    """The IEEE number next to x: float32 to nearest even unless said otherwise, subnormals kept."""
    if x == 0:
        return ZERO
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    if abs(x) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, min_exponent) - precision + 1)
    return (-(-x // unit) if up else round(x / unit)) * unit


fl = rounded


def fp16(x: Fraction, *, up: bool) -> Fraction:
    half = rounded(x, precision=11, min_exponent=-14, up=up)
    assert half == 0 or 2.0**-14 <= half <= 65504, "no golden case has a scale that fp16 refuses"
    return half


def to_hex(x: Fraction | float) -> str:
    return struct.pack(">f", float(x)).hex()


def from_hex(text: str) -> Fraction:
    return Fraction(struct.unpack(">f", bytes.fromhex(text))[0])


def product(code: int, scale: Fraction) -> Fraction | float:
    """Eq. (6). Fractions have no negative zero, IEEE does: a negative code times a scale of zero."""
    return -0.0 if code < 0 and scale == 0 else fl(code * scale)


def clip(x: int, low: int, high: int) -> int:
    return max(low, min(x, high))


class Format:
    """One operand's format and the numbers of DESIGN section 3 that follow from it."""

    def __init__(self, bits, *, signed=True, vector_size=None, scale=None, full=False, top=False, g16=False):
        self.bits, self.signed, self.vector_size, self.scale = bits, signed, vector_size, scale
        self.full, self.top, self.g16 = full, top, g16
        self.qmax = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.qmin = (-(2 ** (bits - 1)) if full else -self.qmax) if signed else 0
        if isinstance(scale, int):
            self.sigma_min, self.sigma_max = (1, 2**scale) if top else (0, 2**scale - 1)
            self.width = scale + 1 if top else scale
        else:
            self.width = 0

    def fields(self):
        return {
            "bits": self.bits,
            "signed": self.signed,
            "vector_size": self.vector_size,
            "scale": self.scale,
            "full_range": self.full,
            "scale_top_pow2": self.top,
            "coarse_fp16": self.g16,
        }

    def step(self, vector):
        """Eqs. (1)-(2)."""
        if self.full:
            return max(fl(max([*vector, ZERO]) / self.qmax), fl(max([-x for x in vector] + [ZERO]) / -self.qmin))
        return fl(self.largest(vector) / self.qmax)

    def largest(self, vector):
        return max([abs(x) if self.signed else x for x in vector] + [ZERO])

    def codes(self, vector, step):
        """Eq. (3)."""
        return [0 if step == 0 else clip(round(fl(x / step)), self.qmin, self.qmax) for x in vector]


def cut(row, size):
    """Vectors of one row, the tail padded with zeros."""
    size = size or len(row)
    padded = row + [ZERO] * (-len(row) % size)
    return [padded[start : start + size] for start in range(0, len(padded), size)]


def quantize(rows, fmt, share, mode, ranges):
    """Eqs. (1)-(6): codes, vector scales, coarse scales and x^, all as nested lists."""
    vectors = [cut(row, fmt.vector_size) for row in rows]
    steps = [[fmt.step(vector) for vector in row] for row in vectors]
    if fmt.scale in ("fp16", "fp32"):
        return single_level(vectors, steps, fmt)
    coarse = [shared / fmt.qmax for shared in ranges] if ranges else shared_steps(steps, share)
    coarse = [fl(g) for g in coarse]
    if fmt.scale is not None:
        coarse = [fl(g / fmt.sigma_max) for g in coarse]
    if fmt.g16:
        coarse = [fp16(g, up=True) for g in coarse]
    result = {"codes": [], "vector_scale": [], "coarse_scale": coarse, "values": []}
    for index, (row, row_steps) in enumerate(zip(vectors, steps, strict=True)):
        gamma = coarse[index if len(coarse) > 1 else 0]
        parts = [quantize_vector(v, s, gamma, fmt, mode) for v, s in zip(row, row_steps, strict=True)]
        for key, column in zip(("codes", "vector_scale", "values"), zip(*parts, strict=True), strict=True):
            result[key].append(list(column))
    if fmt.scale is None:
        result["vector_scale"] = None
    return result


def shared_steps(steps, share):
    return [max(row) for row in steps] if share == "row" else [max(s for row in steps for s in row)]


def quantize_vector(vector, step, gamma, fmt, mode):
    """Codes, sigma and x^ of one vector under its coarse scale."""
    if fmt.scale is None:
        codes = fmt.codes(vector, gamma)
        return codes, None, [product(q, gamma) for q in codes]
    if gamma == 0:
        return [0] * len(vector), fmt.sigma_min, [ZERO] * len(vector)
    sigma = clip(round(fl(step / gamma)), fmt.sigma_min, fmt.sigma_max)
    if mode == "requantize":
        sigma = max(sigma, 1) if fmt.largest(vector) > 0 else sigma
        step = fl(sigma * gamma)
    codes = fmt.codes(vector, step)
    return codes, sigma, [product(q, fl(sigma * gamma)) for q in codes]


def single_level(vectors, steps, fmt):
    scales = [[fp16(s, up=False) if fmt.scale == "fp16" else s for s in row] for row in steps]
    codes = [[fmt.codes(v, s) for v, s in zip(*pair, strict=True)] for pair in zip(vectors, scales, strict=True)]
    values = [
        [[product(q, s) for q in vector] for vector, s in zip(*pair, strict=True)]
        for pair in zip(codes, scales, strict=True)
    ]
    return {"codes": codes, "vector_scale": scales, "coarse_scale": None, "values": values}


def linear(x, w, act, wgt, product_bits, share, mode, range_, bias):
    """Eqs. (7)-(8)."""
    size = act.vector_size or wgt.vector_size
    qx = quantize(x, act, share, mode, None if range_ is None else [range_])
    qw = quantize(w, wgt, "row", mode, None)
    shift = max(0, act.width + wgt.width - product_bits) if product_bits is not None else 0
    sums, outputs = [], []
    for n in range(len(x)):
        a, gamma_a = integers(qx, n, size, len(x[n])), qx["coarse_scale"][n if len(qx["coarse_scale"]) > 1 else 0]
        row = [total(a, integers(qw, k, size, len(w[k])), shift, product_bits) for k in range(len(w))]
        sums.append(row)
        scaled = [fl(fl(gamma_a * qw["coarse_scale"][k]) * fl(Fraction(S))) * 2**shift for k, S in enumerate(row)]
        outputs.append([fl(y + b) for y, b in zip(scaled, bias or [ZERO] * len(w), strict=True)])
    return sums, outputs


def integers(q, row, size, length):
    """(sigma, codes) of every vector of a row; sigma = 1 where the operand has no vectors of its own."""
    if q["vector_scale"] is not None:
        return list(zip(q["vector_scale"][row], q["codes"][row], strict=True))
    codes = [code for vector in q["codes"][row] for code in vector][:length]
    size = size or length
    return [(1, codes[start : start + size]) for start in range(0, length, size)]


def total(a, w, shift, product_bits):
    result = 0
    for (sigma_a, codes_a), (sigma_w, codes_w) in zip(a, w, strict=True):
        p = sigma_a * sigma_w
        if shift:
            p = min((p + 2 ** (shift - 1)) // 2**shift, 2**product_bits - 1)
        result += p * sum(qa * qw for qa, qw in zip(codes_a, codes_w, strict=False))
    return result


def noise(rows, length, seed, *, exponent=0):
    """Float32 numbers around 2^exponent whose vectors differ in size, from a linear congruential generator."""
    state, result = seed, []
    for _ in range(rows * length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        size = Fraction(2) ** (exponent - (state >> 60) % 5)
        result.append(fl(Fraction((state >> 30) % 2**24 - 2**23, 2**23) * size))
    return [result[start : start + length] for start in range(0, rows * length, length)]


def exact(*rows):
    return [[Fraction(x) for x in row] for row in rows]


TINY = Fraction(2) ** -149
S4 = {"vector_size": 4, "scale": 4}
OPTIONS = {
    "s4": Format(4, **S4),
    "s4-unsigned": Format(4, signed=False, **S4),
    "s6-v16": Format(4, vector_size=16, scale=6),
    "s10-8bit": Format(8, vector_size=4, scale=10),
    "s2-2bit": Format(2, vector_size=2, scale=2),
    "full": Format(4, full=True, **S4),
    "top": Format(4, top=True, **S4),
    "g16": Format(4, g16=True, **S4),
    "full-top-g16": Format(3, full=True, top=True, g16=True, **S4),
    "sfp16": Format(4, vector_size=4, scale="fp16"),
    "sfp16-full": Format(4, vector_size=4, scale="fp16", full=True),
    "sfp32": Format(4, vector_size=4, scale="fp32"),
    "sfp32-unsigned": Format(4, signed=False, vector_size=4, scale="fp32"),
    "x": Format(8),
    "x-unsigned": Format(8, signed=False),
    "x-full": Format(4, full=True),
    "x-g16": Format(4, g16=True),
}
EDGES = {
    "zero tensor": exact([0] * 6, [0] * 6),
    "all-zero vector": exact([0, 0, 0, 0, 7, -3, 0.25, 1], [5, -1, 2, 0.5, 0, 0, 0, 0]),
    "one loud vector and one faint": exact([100, -50, 25, 12, 0.01, 0.02, -0.03, 0.04]),
    "negative only": exact([-1, -2, -3, -4, -0.5, -0.25, 0, -7]),
    "ties": exact([7, 0.5, 1.5, -2.5, 3.5, -0.5, 7, 6.5]),
    "tail of one": exact([1, 2, 3, 4, -9]),
    "subnormal vector beside a normal one": [[TINY, TINY * 3, -TINY * 7, ZERO, *exact([1, 2, 3, -4])[0]]],
    "subnormal gamma": [[TINY * 4000, -TINY * 977, TINY * 13, TINY * 2999, TINY * 100, TINY * 99, ZERO, -TINY * 31]],
    "gamma underflows to zero": [[TINY * 5, -TINY * 3, TINY, ZERO, TINY * 2, TINY, TINY, TINY]],
}


def quantize_cases():
    for name, fmt in OPTIONS.items():
        modes = ("requantize",) if fmt.top else ("paper", "requantize")
        for mode in modes:
            for share in ("row", "tensor"):
                yield f"{name}: {mode}, per {share}", noise(3, 22, seed=len(name)), fmt, share, mode, None
    for edge, x in EDGES.items():
        for name in ("s4", "s4-unsigned", "full", "top", "sfp32", "x"):
            for mode in ("requantize",) if name == "top" else ("paper", "requantize"):
                yield f"{edge}, {name}, {mode}", x, OPTIONS[name], "row", mode, None
    for name in ("s4", "s4-unsigned", "s10-8bit", "x", "x-unsigned"):
        for mode in ("paper", "requantize"):
            for said, range_ in (("saturated", 0.0625), ("fitting", 1), ("far too large", 300)):
                x = noise(2, 10, seed=31)
                yield f"static {said}, {name}, {mode}", x, OPTIONS[name], "tensor", mode, [Fraction(range_)]
    yield "a range per row", noise(2, 10, seed=7), OPTIONS["s4"], "row", "requantize", exact([0.5, 0.125])[0]
    yield "a range that gives gamma 0", noise(2, 8, seed=9), OPTIONS["s4"], "tensor", "requantize", [TINY]


def linear_cases():
    s46 = Format(4, vector_size=4, scale=6)
    unsigned = Format(4, signed=False, vector_size=4, scale=6)
    weights = (("", OPTIONS["s4"]), ("-full", OPTIONS["full"]), ("-top", OPTIONS["top"]), ("-g16", OPTIONS["g16"]))
    for suffix, weight in weights:
        yield f"w4a4u-s4/6-v4-tensor{suffix}", unsigned, weight, None, "tensor", None
    for bits in (1, 4, 6, 9, 10):
        yield f"w4a4-s4/6-v4-p{bits}-tensor", s46, OPTIONS["s4"], bits, "tensor", None
    yield "w4a4-s4/6-v4-p6-token-top", s46, OPTIONS["top"], 6, "row", None
    yield "w4a4-s4/6-v4-p6", s46, OPTIONS["s4"], 6, "tensor", Fraction(1, 2)
    yield "w4a8-s4/x-v4-token", Format(8), OPTIONS["s4"], None, "row", None
    yield "w8a4-sx/6-v4-tensor", s46, Format(8), None, "tensor", None
    yield "w8a8u-token", Format(8, signed=False), Format(8), None, "row", None
    yield "w8a8-full", Format(8), Format(8, full=True), None, "tensor", Fraction(3, 4)


def hexes(nested):
    """Fractions as their float32 bit patterns, integers as they are."""
    if isinstance(nested, list):
        return [hexes(part) for part in nested]
    return to_hex(nested) if isinstance(nested, Fraction | float) else nested


def golden():
    """The whole file as one object."""
    quantized, layers = [], []
    for name, x, fmt, share, mode, ranges in quantize_cases():
        result = quantize(x, fmt, share, mode, ranges)
        result["values"] = [[v for vector in row for v in vector][: len(x[0])] for row in result["values"]]
        case = {"name": name, "format": fmt.fields(), "share": share, "scale_mode": mode}
        numbers = {"x": x, "coarse_range": ranges, **result}
        quantized.append(case | {key: hexes(value) for key, value in numbers.items()})
    for spec, act, wgt, product_bits, share, range_ in linear_cases():
        x, w, bias = noise(3, 10, seed=17), noise(4, 10, seed=23, exponent=-3), noise(1, 4, seed=29)[0]
        for mode in ("requantize",) if wgt.top else ("paper", "requantize"):
            sums, outputs = linear(x, w, act, wgt, product_bits, share, mode, range_, bias)
            case = {"spec": spec, "scale_mode": mode, "x": hexes(x), "w": hexes(w), "bias": hexes(bias)}
            layers.append(case | {"activation_range": hexes(range_), "S": sums, "y": hexes(outputs)})
    return {"quantize": quantized, "linear": layers}


def text():
    """The file's text: one case a line, so that a reader can compare two."""
    parts = [f'"{key}": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]" for key, cases in golden().items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    with GOLDEN.open("x", encoding="utf-8") as file:
        file.write(text())
