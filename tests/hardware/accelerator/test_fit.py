"""Which layers fit which lanes, and what happens to the others."""

from __future__ import annotations

from itertools import product

import pytest

from vsquant.errors import AcceleratorError, SpecError
from vsquant.hardware.accelerator.configuration import Accelerator, LaneWidths, load_accelerator
from vsquant.hardware.accelerator.fit import fit_layer, magnitude_bits
from vsquant.spec import LayerSpec

EDGE = load_accelerator("edge")
LANE = LaneWidths.of(LayerSpec.parse("w4a4-s4/4"))


def fit(spec: str, lane: LaneWidths = LANE, **changes):
    accelerator = Accelerator.model_validate(EDGE.model_dump() | changes)
    return fit_layer(accelerator, lane, LayerSpec.parse(spec), name="conv")


@pytest.mark.parametrize(
    ("spec", "digits"),
    [
        ("w4a4-s4/4", (1, 1)), ("w3a3-s4/4", (1, 1)), ("w8a8", (3, 3)), ("w6a4", (2, 1)), ("w5a4u", (2, 2)),
        ("w4a8u", (1, 3)), ("w4a8-s4/x", (1, 3)),
    ],
)  # fmt: skip
def test_wider_codes_take_more_digits(spec: str, digits: tuple[int, int]) -> None:
    found = fit(spec)
    assert (found.weight_digits, found.activation_digits) == digits
    assert found.passes == digits[0] * digits[1] and not found.wide


@pytest.mark.parametrize(("bits", "lane_bits"), list(product(range(2, 9), range(2, 9))))
def test_signed_digits_reach_every_code(bits: int, lane_bits: int) -> None:
    """A code is a sum of digits of the lane's range, each shifted by what those before it carry."""
    found = fit(f"w{bits}a4", LaneWidths(weight_bits=lane_bits, activation_bits=4)).weight_digits
    carried = magnitude_bits(lane_bits, signed=True)
    largest = sum(((1 << carried) - 1) << (carried * digit) for digit in range(found))
    assert largest >= (1 << (bits - 1)) - 1
    assert found == 1 or sum(((1 << carried) - 1) << (carried * d) for d in range(found - 1)) < (1 << (bits - 1)) - 1


def test_lanes_for_both_signs_pay_a_bit() -> None:
    both = LaneWidths.of(LayerSpec.parse("w4a4u-s4/4"), both_signs=True)
    assert both.operand_bits == 5 and both.text(16) == "w4a5-s4/4-v16"
    assert fit("w4a4u-s4/4", both).passes == fit("w4a4-s4/4", both).passes == 1
    assert LaneWidths.of(LayerSpec.parse("w4a4u-s4/4")).text(16) == "w4a4u-s4/4-v16"
    with pytest.raises(AcceleratorError, match="activation_bits must be at most 7 where lanes serve both signs, not 8"):
        LaneWidths.of(LayerSpec.parse("w8a8u"), both_signs=True).text(16)


@pytest.mark.parametrize(
    ("spec", "lane", "reason"),
    [
        ("w4a4-s6/4", "w4a4-s4/4", "its weight scales have 6 bits, the lane's 4"),
        ("w4a4-s4/6", "w4a4-s4/4", "its activation scales have 6 bits, the lane's 4"),
        ("w4a4-s4/4-top", "w4a4-s4/4", "its weight scales have 5 bits, the lane's 4"),
        ("w4a4-s4/4", "w4a4u-s4/4", "its activations are signed, the lane's unsigned"),
        ("w4a4-s4/4-v24", "w4a4-s4/4", "its vectors have 24 elements, which neither divide nor are divided by 16"),
        ("w4a4-s4/4-p4", "w4a4-s4/4", "it drops 4 bits of the scale product by eq. (8), the lane 0"),
        ("w4a4-s4/4", "w4a4-s4/4-p6", "it drops 0 bits of the scale product by eq. (8), the lane 2"),
    ],
)
def test_what_no_pass_can_do_is_refused_with_the_reason(spec: str, lane: str, reason: str) -> None:
    with pytest.raises(AcceleratorError) as caught:
        fit(spec, LaneWidths.of(LayerSpec.parse(lane)))
    assert f"layer 'conv' with {LayerSpec.parse(spec)} does not fit lanes of" in str(caught.value)
    assert reason in str(caught.value)


def test_other_vectors_and_none() -> None:
    assert fit("w4a4-s4/4-v64").words_per_vector == 4
    assert fit("w4a4-s4/4-v8").words_per_vector == 1
    assert (fit("w4a4").vector_size, fit("w4a4").words_per_vector) == (16, 1)


def test_wide_layers_are_refused_or_have_lanes_of_their_own() -> None:
    with pytest.raises(AcceleratorError, match=r"its weights have 8 bits, the lane's 4; .*or misfit: passes"):
        fit("w8a8", misfit="refuse")
    wide = {"misfit": "wide", "wide_lanes": {"lanes": 2, "lane": {"weight_bits": 8, "activation_bits": 8}}}
    assert (fit("w8a8", **wide).wide, fit("w8a8", **wide).lanes, fit("w8a8", **wide).passes) == (True, 2, 1)
    assert not fit("w4a4-s4/4", **wide).wide
    with pytest.raises(AcceleratorError, match="its signed activations have 8 bits, the lane's signed operand 6"):
        fit("w8a8", misfit="wide", wide_lanes={"lanes": 2, "lane": {"weight_bits": 8, "activation_bits": 6}})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("w4a16-s4/x", "keeps activations in floating point; choose a2 to a8"),
        ("nvfp4", "nvfp4 is a comparison format; choose a spec like w4a8-s4/6"),
        ("w4a8-sfp16/6", "needs integer vector scales or none"),
    ],
)
def test_specs_without_integers_have_no_lane(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LaneWidths.of(LayerSpec.parse(spec))
