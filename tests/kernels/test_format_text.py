"""Formats as texts: every format comes back, and nothing else is read."""

from __future__ import annotations

import itertools

import pytest

from vsquant.errors import SpecError
from vsquant.kernels.format_text import format_text, parse_format
from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import IntegerFormat


def every_format():
    for bits, signed, scale in itertools.product(range(2, 9), (True, False), (None, "fp16", "fp32", *range(2, 11))):
        for full, top, g16 in itertools.product((False, True), repeat=3):
            if (full and not signed) or (top and not isinstance(scale, int)) or (g16 and isinstance(scale, str)):
                continue
            for size in (None,) if scale is None else (2, 16, 1024):
                yield IntegerFormat(
                    bits=bits,
                    signed=signed,
                    scale=scale,
                    vector_size=size,
                    full_range=full,
                    scale_top_pow2=top,
                    coarse_fp16=g16,
                )
    for pair in COMPARISON_FORMATS.values():
        yield pair[0]


def test_every_format_comes_back_from_a_text_of_its_own():
    formats = list(dict.fromkeys(every_format()))
    texts = [format_text(fmt) for fmt in formats]
    assert len(set(texts)) == len(formats)
    assert [parse_format(text) for text in texts] == formats


def test_texts_are_short_and_plain():
    assert format_text(IntegerFormat(bits=4, scale=4)) == "4-s4-v16"
    assert format_text(IntegerFormat(bits=8, signed=False, scale=None, vector_size=None)) == "8u"
    assert format_text(COMPARISON_FORMATS["nvfp4"][0]) == "nvfp4:e2m1-e4m3-v16-tensor"
    assert format_text(COMPARISON_FORMATS["nvfp4-4over6"][0]) == "nvfp4-4over6:e2m1-e4m3-v16-tensor-two"


@pytest.mark.parametrize("text", ["", "w4a4", "4-s4", "4-v16", "4-s4-v16-", "4-s4-v16-top-full", "nvfp4", "4 -s4-v16"])
def test_other_texts_are_refused(text):
    with pytest.raises(SpecError, match="a tensor format must read like '4-s4-v16' or '8u', not"):
        parse_format(text)


def test_texts_of_impossible_formats_are_refused():
    with pytest.raises(SpecError, match=r"element must be one of \['e2m1', 'int4', 'int8'\], not 'e3m0'"):
        parse_format("mine:e3m0-e8m0-v32")
