"""Tensor formats as short texts: operators take only plain arguments, and a graph that holds them stays readable."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from vsquant.errors import SpecError
from vsquant.spec.formats import MAX_VECTOR_SIZE, FloatFormat, IntegerFormat, TensorFormat, VectorScale

_INTEGER: Final = re.compile(
    r"(?P<bits>\d)(?P<unsigned>u?)(-s(?P<scale>\d+|fp16|fp32)-v(?P<vector>\d+))?"
    r"(?P<full>-full)?(?P<top>-top)?(?P<g16>-g16)?"
)
_FLOAT: Final = re.compile(
    r"(?P<name>[^:]+):(?P<element>\w+)-(?P<scale>\w+)-v(?P<vector>\d+)(?P<tensor>-tensor)?(?P<two>-two)?"
)
_NUMBERS: Final = tuple(str(number) for number in range(MAX_VECTOR_SIZE + 1))
"""An integer that torch.compile has seen change is a symbol to it: that may be an index, but not become a text."""


def format_text(fmt: TensorFormat) -> str:
    """The text of a format: ``4-s4-v16``, ``8u``, ``4u-s6-v16``, ``nvfp4:e2m1-e4m3-v16-tensor``."""
    if isinstance(fmt, FloatFormat):
        tensor = ("-tensor" if fmt.tensor_scale else "") + ("-two" if fmt.best_of_two else "")
        return f"{fmt.name}:{fmt.element}-{fmt.block_scale}-v{_NUMBERS[fmt.vector_size]}{tensor}"
    scale = _NUMBERS[fmt.scale] if isinstance(fmt.scale, int) else fmt.scale
    vectors = "" if fmt.vector_size is None else f"-s{scale}-v{_NUMBERS[fmt.vector_size]}"
    options = "".join(
        text for text, on in (("-full", fmt.full_range), ("-top", fmt.scale_top_pow2), ("-g16", fmt.coarse_fp16)) if on
    )
    return f"{_NUMBERS[fmt.bits]}{'' if fmt.signed else 'u'}{vectors}{options}"


@lru_cache(maxsize=1024)
def parse_format(text: str) -> TensorFormat:
    """The format of a text made by `format_text`.

    Raises:
        SpecError: the text is no tensor format.
    """
    if match := _INTEGER.fullmatch(text):
        return IntegerFormat(
            bits=int(match["bits"]),
            signed=not match["unsigned"],
            vector_size=int(match["vector"]) if match["vector"] else None,
            scale=_scale(match["scale"]),
            full_range=bool(match["full"]),
            scale_top_pow2=bool(match["top"]),
            coarse_fp16=bool(match["g16"]),
        )
    if match := _FLOAT.fullmatch(text):
        return FloatFormat(
            name=match["name"],
            element=match["element"],  # type: ignore[arg-type]  # checked by FloatFormat
            block_scale=match["scale"],  # type: ignore[arg-type]
            vector_size=int(match["vector"]),
            tensor_scale=bool(match["tensor"]),
            best_of_two=bool(match["two"]),
        )
    raise SpecError(f"a tensor format must read like '4-s4-v16' or '8u', not {text!r}")


def _scale(text: str | None) -> VectorScale:
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return "fp16" if text == "fp16" else "fp32"
