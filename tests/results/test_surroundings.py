"""What is said of the instruction sets of this machine."""

from __future__ import annotations

import pytest

from vsquant.results import InstructionSetState, Surroundings


@pytest.mark.parametrize(
    ("built", "supported", "used", "text"),
    [
        (True, True, True, "in use"),
        (True, True, False, "can run: VSQUANT_ISA=avx2"),
        (True, False, False, "this processor does not have it"),
        (False, True, False, "was not built"),
        (False, False, False, "was not built, this processor does not have it"),
    ],
)
def test_an_instruction_set_is_in_use_or_says_why_not(built: bool, supported: bool, used: bool, text: str) -> None:
    assert InstructionSetState(name="avx2", built=built, supported=supported, used=used).text == text


def test_the_kernels_in_use_and_why() -> None:
    here = Surroundings(
        vsquant="1", torch="2", python="3", threads=4, isa="avx2", reason="VSQUANT_ISA names it", instruction_sets=()
    )
    assert here.versions_text == "vsquant 1, torch 2, Python 3, 4 threads"
    assert here.kernels_text == "kernels: native, avx2: VSQUANT_ISA names it"
    eager = Surroundings(
        vsquant="1", torch="2", python="3", threads=4, isa=None, reason="no library", integer_backend="cpu"
    )
    assert not eager.eager_is_forced
    assert eager.kernels_text == "kernels: eager PyTorch: no library; VSQUANT_BACKEND is 'cpu'"


def test_native_kernels_that_integer_layers_are_kept_from() -> None:
    wide = InstructionSetState(name="avx2", built=True, supported=True, used=True)
    narrow = InstructionSetState(name="scalar", built=True, supported=True, used=False)
    here = Surroundings(
        vsquant="1", torch="2", python="3", threads=4, isa="avx2", reason="the widest", integer_backend="eager"
    )
    assert here.kernels_text == (
        "kernels: eager PyTorch for integer layers: VSQUANT_BACKEND is 'eager'; "
        "native, avx2, for fake quantization only"
    )
    assert [here.text_of(each) for each in (wide, narrow)] == [
        "in use for fake quantization only",
        "can run: VSQUANT_ISA=scalar",
    ]
