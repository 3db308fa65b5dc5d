"""Reading and printing of layer specs: the whole grammar, its three spellings, and what every refusal says."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsquant.errors import SpecError
from vsquant.spec import GRAMMAR, FloatFormat, IntegerFormat, LayerSpec

SCALES = [None, "fp16", "fp32", *range(2, 11)]
HEADS = [(w, a, u) for w in range(2, 9) for a in range(2, 9) for u in (False, True)]


def operand(bits, scale, vector_size=16, **options):
    return IntegerFormat(bits=bits, scale=scale, vector_size=None if scale is None else vector_size, **options)


@st.composite
def specs(draw):
    """Every spec of the grammar can come out."""
    vector_size = draw(st.integers(2, 1024))
    weight_scale, scale = draw(st.sampled_from(SCALES)), draw(st.sampled_from(SCALES))
    weight = operand(
        draw(st.integers(2, 8)),
        weight_scale,
        vector_size,
        full_range=draw(st.booleans()),
        scale_top_pow2=isinstance(weight_scale, int) and draw(st.booleans()),
        coarse_fp16=not isinstance(weight_scale, str) and draw(st.booleans()),
    )
    if draw(st.integers(0, 7)) == 0:
        return LayerSpec(weight=weight, activation=None)
    activation = operand(draw(st.integers(2, 8)), scale, vector_size, signed=draw(st.booleans()))
    both_integer = isinstance(weight_scale, int) and isinstance(scale, int)
    return LayerSpec(
        weight=weight,
        activation=activation,
        product_bits=draw(st.none() | st.integers(1, 32)) if both_integer else None,
        gamma="static" if isinstance(scale, str) else draw(st.sampled_from(["static", "tensor", "token"])),
    )


def test_every_pair_of_formats_round_trips():
    for (w, a, u), weight_scale, scale in itertools.product(HEADS, SCALES, SCALES):
        spec = LayerSpec(weight=operand(w, weight_scale), activation=operand(a, scale, signed=not u))
        assert LayerSpec.parse(str(spec)) == spec


def test_every_combination_of_options_round_trips():
    on_off = (False, True)
    for sw, p, gamma, full, top, g16 in itertools.product(
        (None, 2, 10), (None, 1, 32), ("static", "tensor", "token"), on_off, on_off, on_off
    ):
        if sw is None and (p or top):
            continue
        weight = operand(4, sw, 32, full_range=full, scale_top_pow2=top, coarse_fp16=g16)
        spec = LayerSpec(weight=weight, activation=operand(8, 6, 32), product_bits=p, gamma=gamma)
        assert LayerSpec.parse(str(spec)) == spec


@given(specs(), st.randoms(use_true_random=False))
def test_any_order_and_case_of_options_is_the_same_spec(spec, shuffler: random.Random):
    head, *options = str(spec).split("-")
    shuffler.shuffle(options)
    text = "-".join([head, *options])
    assert LayerSpec.parse(str(spec)) == spec
    assert LayerSpec.parse(f"  {text.upper()}\n") == spec
    assert hash(LayerSpec.parse(text)) == hash(spec)


@given(st.text(max_size=30) | st.text("w4a8us/-vpxfp16=tokenlt g", max_size=24))
def test_any_text_is_a_spec_or_a_spec_error_with_the_grammar(text):
    try:
        spec = LayerSpec.parse(text)
    except SpecError as error:
        refusal = str(error)
    else:
        refusal = GRAMMAR
        assert LayerSpec.parse(str(spec)) == spec
    assert GRAMMAR in refusal


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("w4a4u-s4/6-v16-p6-token-full-top-g16", "w4a4u-s4/6-v16-p6-token-full-top-g16"),
        ("w4a4u-s4/6-v16-p6", "w4a4u-s4/6-v16-p6"),
        ("w4a8-s4", "w4a8-s4/4-v16"),
        ("w4a8-s4-static", "w4a8-s4/4-v16"),
        ("w4a8-s4/x", "w4a8-s4/x-v16"),
        ("w4a8-sx/6-v32", "w4a8-sx/6-v32"),
        ("w4a8-sx", "w4a8"),
        ("w4a8-sx/x", "w4a8"),
        ("w8a8u-tensor", "w8a8u-tensor"),
        ("w4a16-s4/x", "w4a16-s4/x-v16"),
        ("w4a16-sx", "w4a16"),
        ("w4a16-full-g16", "w4a16-full-g16"),
        ("w4a8-sfp16", "w4a8-sfp16/fp16-v16"),
        ("w4a8-sfp32/4-token", "w4a8-sfp32/4-v16-token"),
        ("4/4U/4/6", "w4a4u-s4/6-v16"),
        ("8/8/-/-", "w8a8"),
        ("8/8/x/x", "w8a8"),
        ("4/8/fp32/fp32", "w4a8-sfp32/fp32-v16"),
        ("4/16/4/-", "w4a16-s4/x-v16"),
        ("Wt=4 Act=4U S=4/6", "w4a4u-s4/6-v16"),
        ("wt=4, act=8, s=4/6", "w4a8-s4/6-v16"),
        ("Act=8 Wt=4 S=fp16", "w4a8-sfp16/fp16-v16"),
        ("Wt=4 Act=8 S=6", "w4a8-s6/6-v16"),
        ("Wt=4 Act=8 S=-", "w4a8"),
        ("Wt=4 Act=8 S=per-channel", "w4a8"),
        ("Wt=4 Act=8", "w4a8"),
        ("NVFP4", "nvfp4"),
        ("mxfp4", "mxfp4"),
        ("mxint8", "mxint8"),
        ("int4-g128", "int4-g128"),
    ],
)
def test_spellings(text, canonical):
    spec = LayerSpec.parse(text)
    assert str(spec) == canonical
    assert LayerSpec.parse(canonical) == spec


def test_a_spec_says_what_was_written():
    spec = LayerSpec.parse("w3a4u-s5/6-v32-p7-tensor-full-top-g16")
    assert spec.weight == IntegerFormat(
        bits=3, scale=5, vector_size=32, full_range=True, scale_top_pow2=True, coarse_fp16=True
    )
    assert spec.activation == IntegerFormat(bits=4, signed=False, scale=6, vector_size=32)
    assert (spec.product_bits, spec.gamma) == (7, "tensor")


def test_comparison_formats_by_name():
    nvfp4 = FloatFormat(name="nvfp4", element="e2m1", block_scale="e4m3", vector_size=16, tensor_scale=True)
    mxfp4 = FloatFormat(name="mxfp4", element="e2m1", block_scale="e8m0", vector_size=32)
    mxint8 = FloatFormat(name="mxint8", element="int8", block_scale="e8m0", vector_size=32)
    int4 = FloatFormat(name="int4-g128", element="int4", block_scale="fp16", vector_size=128)
    assert LayerSpec.parse("nvfp4") == LayerSpec(weight=nvfp4, activation=nvfp4)
    assert LayerSpec.parse("mxfp4") == LayerSpec(weight=mxfp4, activation=mxfp4)
    assert LayerSpec.parse("mxint8") == LayerSpec(weight=mxint8, activation=mxint8)
    assert LayerSpec.parse("int4-g128") == LayerSpec(weight=int4, activation=None)


REFUSALS = [
    ("", "'' must be ASCII text such as 'w4a4u-s4/6-v16'"),
    ("w4a8–s4", "must be ASCII text"),
    ("w9a4", "'9' must be 2..8 (weight bits), not 9"),
    ("w1a4", "'1' must be 2..8 (weight bits), not 1"),
    ("w4a12", "'12' must be 2..8 (activation bits; or 16, floating point), not 12"),
    ("w4", "the activation bits are missing; write 'w4a8', or 'w4a16' for floating point"),
    ("a8w4", "weights come first; write 'w4a8'"),
    ("w4ua8", "weights are always signed; u belongs to the activation, as in w4a4u"),
    ("w4a8s4", "write 'w4a8-s4'"),
    ("w4a4u/4/6", "scales are written '-s4/6'; write 'w4a4u-s…/…'"),
    ("w4 a8", "join the parts with '-', without spaces: 'w4a8-…'"),
    ("hello", "'hello' must begin as w4a8"),
    ("w4a8-s11", "'-s11' must be 2..10 (scale bits; or fp16, fp32, x), not 11"),
    ("w4a8-s4/1", "'-s4/1' must be 2..10 (scale bits; or fp16, fp32, x), not 1"),
    ("w4a8-sbf16", "'-sbf16' must be scale bits as -s4/6; each side is 2..10, fp16, fp32 or x"),
    ("w4a8-s4/-", "'-s4/' is cut short; for an operand without vector scales write '-s4/x'"),
    ("w4a8-s-/4", "'-s' is cut short; for an operand without vector scales write 'x' as its scale"),
    ("w4a8-v16", "'-v16' must go with vector scales; add -s4/4, or drop it"),
    ("w4a8-sx/x-v16", "'-v16' must go with vector scales"),
    ("w4a8-s4-v1", "'-v1' must be 2..1024 (vector size), not 1"),
    ("w4a8-s4-vbig", "'-vbig' must be a number after -v, such as -v16"),
    ("w4a8-p6", "'-p6' is refused: rounding the scale product needs integer vector scales on both operands"),
    ("w4a8-s4/x-p6", "'-p6' is refused: rounding the scale product needs integer vector scales on both operands"),
    ("w4a8-s4/fp16-p6", "'-p6' is refused: rounding the scale product needs integer vector scales on both operands"),
    ("w4a8-s4-p33", "'-p33' is refused: product bits must be 1..32, not 33"),
    ("w4a8-s4-p0", "'-p0' is refused: product bits must be 1..32, not 0"),
    ("w4a8-sfp32-static", "'-static' is refused: an activation with fp32 vector scales has no coarse scale; drop it"),
    ("w4a8-s4/fp16-token", "'-token' is refused: an activation with fp16 vector scales has no coarse scale; drop it"),
    ("w4a16-tensor", "'-tensor' is refused: a16 keeps activations in floating point, so they have no coarse scale"),
    ("w4a16-s4/x-p6", "'-p6' is refused: a16 keeps activations in floating point, so there is no scale product"),
    ("w4a16u", "'u' must not follow a16: floating-point activations have a sign; drop it"),
    ("w4a16-s4", "'-s4' must not scale the activation of a16, which stays floating point; write 'w4a16-s4/x'"),
    ("w4a16-s4/6", "'-s4/6' must not scale the activation of a16, which stays floating point; write 'w4a16-s4/x'"),
    ("w4a16-sx/6", "'-sx/6' must not scale the activation of a16, which stays floating point; write 'w4a16'"),
    ("4/16/4/4", "must not scale the activation of a16, which stays floating point; write 'w4a16-s4/x'"),
    ("w4a8-top", "'-top' must go with integer weight scales such as -s4/4, not x"),
    ("w4a8-sfp16/4-top", "'-top' must go with integer weight scales such as -s4/4, not fp16"),
    ("w4a8-sfp16/4-g16", "'-g16' must go with a weight coarse scale; fp16 vector scales have none"),
    ("w4a8-s4-s4", "'-s4' must not be given beside '-s4': each part at most once"),
    ("w4a8-token-tensor", "'-tensor' must not be given beside '-token': each part at most once"),
    ("w4a8-full-full", "'-full' must not be given beside '-full': each part at most once"),
    ("w4a8-tokn", "'-tokn' is no option; did you mean '-token'?"),
    ("w4a8-statik", "'-statik' is no option; did you mean '-static'?"),
    ("w4a8-q7", "'-q7' is no option"),
    ("w4a8-", "'-' must be followed by an option; drop it or complete it"),
    ("w4a8-s4v16", "'-s4v16' must be one option; join options with '-'"),
    ("w4a8-s4 v16", "'-s4 v16' must be joined by '-' without spaces"),
    ("nvfp4-v32", "begins as the comparison format 'nvfp4', which takes no options; write 'nvfp4'"),
    ("nvpf4", "did you mean 'nvfp4'?"),
    ("4/4U", "must name the scales too; for the baseline without vector scales write '4/4u/-/-'"),
    ("4/4U/4", "must name the scales of both operands, weight/activation bits/scale bits: 4/4U/4/6"),
    ("4U/4/4/6", "must not have unsigned weights; the U belongs to the activation, as in 4/4U/4/6"),
    ("4/4U/4/6-v32", "options need the other spelling, w4a4u-s4/6-v32"),
    ("4", "must be weight/activation bits/weight scale/activation scale, such as 4/4U/4/6 or 8/8/-/-"),
    ("Wt=4", "must name both operands' bits; Act=8 is missing"),
    ("Act=8 S=4/6", "must name both operands' bits; Wt=4 is missing"),
    ("Wt=4 Act=8 S=bf16", "'S=bf16' must be Wt=4, Act=4U or S=4/6 (S=fp16, S=-, S=per-channel)"),
    ("Wt=4 Act=8 V=16", "'V=16' must be Wt=4, Act=4U or S=4/6"),
    ("Wt=4 Wt=4 Act=8", "'4' must not be given beside '4': each part at most once"),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS, ids=[text or "empty" for text, _ in REFUSALS])
def test_refusals_say_why_and_show_the_grammar(text, message):
    with pytest.raises(SpecError) as caught:
        LayerSpec.parse(text)
    assert str(caught.value).startswith(f"cannot read the layer spec {text!r}: ")
    assert message in str(caught.value)
    assert GRAMMAR in str(caught.value)


def test_a_refusal_points_at_the_part():
    with pytest.raises(SpecError) as caught:
        LayerSpec.parse("  w4a4u-s4/6-tokn-p6 ")
    lines = str(caught.value).splitlines()
    assert lines[1:3] == ["    w4a4u-s4/6-tokn-p6", "              ^^^^^"]


@pytest.mark.parametrize("value", [None, 4, b"w4a8", ["w4a8"]])
def test_only_text_is_read(value):
    with pytest.raises(SpecError, match="a layer spec must be text such as 'w4a4u-s4/6-v16', not "):
        LayerSpec.parse(value)
