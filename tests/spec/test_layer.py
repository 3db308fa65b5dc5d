"""The layer spec as an object: invariants, derived facts, plain types, and independence from everything heavy."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import yaml

from vsquant.errors import SpecError
from vsquant.spec import PRESETS, FloatFormat, IntegerFormat, LayerSpec

parse = LayerSpec.parse
W4 = IntegerFormat(bits=4, scale=4)
A8 = IntegerFormat(bits=8, scale=6)
BASE = IntegerFormat(bits=8, scale=None, vector_size=None)
FP16 = IntegerFormat(bits=8, scale="fp16")
NVFP4 = parse("nvfp4").weight
MXFP4 = parse("mxfp4").weight


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": "w4"}, "weight must be an IntegerFormat or a FloatFormat, not 'w4'"),
        ({"activation": 8}, "activation must be an IntegerFormat, a FloatFormat or None (floating point), not 8"),
        ({"weight": dataclasses.replace(W4, signed=False)}, "weights must be signed; only activations can be unsigned"),
        (
            {"activation": dataclasses.replace(A8, vector_size=32)},
            "both operands must have one vector size, not 16 (weight) and 32 (activation)",
        ),
        ({"activation": dataclasses.replace(A8, full_range=True)}, "full_range (-full) must be the weight's alone"),
        ({"activation": dataclasses.replace(A8, scale_top_pow2=True)}, "scale_top_pow2 (-top) must be the weight's"),
        ({"activation": dataclasses.replace(A8, coarse_fp16=True)}, "coarse_fp16 (-g16) must be the weight's alone"),
        ({"product_bits": 33}, "product bits must be 1..32, not 33"),
        ({"product_bits": True}, "product bits must be 1..32, not True"),
        ({"activation": BASE, "product_bits": 6}, "rounding the scale product needs integer vector scales on both"),
        ({"activation": None, "product_bits": 6}, "a16 keeps activations in floating point, so there is no scale"),
        ({"gamma": "channel"}, "gamma must be one of static, tensor, token, not 'channel'"),
        ({"activation": None, "gamma": "token"}, "gamma must be 'static' (its neutral value), not 'token': a16 keeps"),
        ({"activation": FP16, "gamma": "token"}, "an activation with fp16 vector scales has no coarse scale"),
        (
            {"weight": NVFP4},
            "comparison formats must come as one of the named pairs (nvfp4, nvfp4-4over6, mxfp4, mxint8, int4-g128)",
        ),
        ({"weight": NVFP4, "activation": MXFP4}, "comparison formats must come as one of the named pairs"),
        ({"weight": NVFP4, "activation": NVFP4, "gamma": "token"}, "nvfp4 is a comparison format and takes no options"),
        ({"weight": NVFP4, "activation": NVFP4, "product_bits": 6}, "rounding the scale product needs integer"),
    ],
)
def test_broken_invariants_are_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        LayerSpec(**{"weight": W4, "activation": A8, **fields})
    assert message in str(caught.value)


def test_specs_are_frozen_keyword_only_and_usable_as_keys():
    spec = parse("w4a8-s4/6")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.gamma = "token"
    with pytest.raises(TypeError):
        LayerSpec(W4, A8)
    assert {spec: 1}[LayerSpec(weight=W4, activation=A8)] == 1


@pytest.mark.parametrize(
    "text", ["w4a4u-s4/6-v32-p6-token-full-top-g16", "w8a8", "w4a16-s4/x", "w4a8-sfp16/fp32", *PRESETS]
)
def test_json_and_yaml_round_trip(text):
    spec = parse(text)
    assert LayerSpec.from_dict(spec.to_dict()) == spec
    assert LayerSpec.from_json(spec.to_json()) == spec
    assert LayerSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.to_dict()))) == spec
    assert "\n" not in spec.to_json()


def test_plain_types_are_these():
    assert parse("w4a16-s4/x").to_dict() == {
        "weight": {
            "kind": "integer",
            "bits": 4,
            "signed": True,
            "vector_size": 16,
            "scale": 4,
            "full_range": False,
            "scale_top_pow2": False,
            "coarse_fp16": False,
        },
        "activation": None,
        "product_bits": None,
        "gamma": "static",
    }


def altered(path, value):
    data = json.loads(parse("w4a8-s4/6").to_json())
    *parents, last = path
    target = data
    for key in parents:
        target = target[key]
    target[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            altered(["colour"], 1),
            "layer spec must have only the keys activation, gamma, product_bits, weight, not colour",
        ),
        (altered(["weight", "colour"], 1), "not colour"),
        (altered(["weight", "kind"], "complex"), "weight.kind must be 'integer' or 'float', not 'complex'"),
        (altered(["weight", "kind"], ["integer"]), "weight.kind must be 'integer' or 'float', not ['integer']"),
        (altered(["weight", "bits"], 9), "weight: element bits must be 2..8, not 9"),
        (altered(["weight", "bits"], "4"), "weight: element bits must be 2..8, not '4'"),
        (altered(["weight", "bits"], 4.0), "weight: element bits must be 2..8, not 4.0"),
        (altered(["activation", "signed"], "no"), "activation.signed must be true or false, not 'no'"),
        (altered(["activation", "scale"], True), "activation.scale must be no boolean, not True"),
        (altered(["activation", "scale"], [4]), "a vector scale must be 2..10 bits, 'fp16', 'fp32' or None, not [4]"),
        (altered(["activation"], "w4"), "activation must be a mapping with 'kind', not 'w4'"),
        (altered(["weight"], None), "weight must be a mapping with 'kind', not None"),
        (altered(["gamma"], None), "gamma must be one of static, tensor, token, not None"),
        (altered(["product_bits"], "6"), "product bits must be 1..32, not '6'"),
        ({"weight": parse("w4a8").to_dict()["weight"]}, "layer spec must have the key activation, which is missing"),
        ("w4a8", "a layer spec must be a mapping with weight, activation, product_bits, gamma, not 'w4a8'"),
    ],
)
def test_foreign_plain_types_are_refused(data, message):
    with pytest.raises(SpecError) as caught:
        LayerSpec.from_dict(data)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "4", ""])
def test_foreign_json_is_refused(text):
    with pytest.raises(SpecError, match="a layer spec in JSON must be a JSON object"):
        LayerSpec.from_json(text)


def test_a_comparison_format_in_plain_types_must_be_whole():
    data = parse("nvfp4").to_dict()
    del data["weight"]["element"]
    with pytest.raises(SpecError, match="weight must have the key element, which is missing"):
        LayerSpec.from_dict(data)


@pytest.mark.parametrize(
    ("text", "comparison", "baseline", "dynamic", "calibration", "integer", "vector_size"),
    [
        ("w4a8-s4/6", False, False, False, True, True, 16),
        ("w4a8-s4/6-v32-token", False, False, True, False, True, 32),
        ("w4a4u-s4/6-tensor", False, False, True, True, True, 16),
        ("w4a8", False, True, False, True, True, None),
        ("w4a16", False, True, False, False, False, None),
        ("w4a8-sx/6-v8", False, False, False, True, True, 8),
        ("w4a16-s4/x", False, False, False, False, False, 16),
        ("w4a8-sfp16", False, False, False, False, False, 16),
        ("w4a8u-sfp16", False, False, False, True, False, 16),
        ("w4a8-sfp16/4", False, False, False, True, False, 16),
        ("nvfp4", True, False, False, False, False, 16),
        ("mxfp4", True, False, False, False, False, 32),
        ("int4-g128", True, False, False, False, False, 128),
    ],
)
def test_what_a_spec_asks_for(text, comparison, baseline, dynamic, calibration, integer, vector_size):
    spec = parse(text)
    assert spec.is_comparison is comparison
    assert spec.is_baseline is baseline
    assert spec.is_dynamic is dynamic
    assert spec.needs_calibration is calibration
    assert spec.has_integer_sums is integer
    assert spec.vector_size == vector_size


def test_other_activations_of_the_same_spec():
    spec = parse("w4a4u-s4/6-p6-token")
    assert str(spec.signed_activation()) == "w4a4-s4/6-v16-p6-token"
    signed, comparison = parse("w4a4-s4/6"), parse("nvfp4")
    assert signed.signed_activation() is signed
    assert comparison.signed_activation() is comparison
    assert str(parse("w4a8-s4/6").with_activation(None)) == "w4a16-s4/x-v16"
    assert str(parse("w4a8-s4/6").with_activation(BASE)) == "w4a8-s4/x-v16"
    with pytest.raises(SpecError, match="there is no scale product to round"):
        spec.with_activation(None)


def test_importing_specs_loads_nothing_heavy():
    code = "import sys, vsquant.spec; print(sorted({'numpy', 'torch', 'yaml', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_comparison_format_has_no_integer_sum():
    assert isinstance(NVFP4, FloatFormat)
    with pytest.raises(SpecError, match="needs an integer weight format, not the comparison format 'nvfp4'"):
        parse("nvfp4").accumulator_bits(64)
