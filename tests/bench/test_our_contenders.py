"""Our own contenders on small work: what is timed is what the eager kernels give."""

from __future__ import annotations

import pytest
import torch

from vsquant.bench.cases import ConvCase, FakeQuantizeCase
from vsquant.bench.contender import ParityError
from vsquant.bench.floors import CeilingsMeter
from vsquant.bench.ours import VsquantFakeQuantize, VsquantLayer, check_equal
from vsquant.bench.peers.fake_quantizers import TorchCopy, VsquantEager
from vsquant.bench.precision import relative_error


@pytest.mark.parametrize("spec", FakeQuantizeCase(rows=1, length=1).specs)
def test_fake_quantization_into_a_buffer(spec: str) -> None:
    prepared = VsquantFakeQuantize(spec).prepare(FakeQuantizeCase(rows=8, length=64))
    call = prepared.start(1)
    assert call() is call() and relative_error(prepared.output(), prepared.expected) <= prepared.error


def test_a_convolution_in_the_layout_of_float() -> None:
    case = ConvCase(images=2, inputs=16, outputs=8, size=6, kernel=3, stride=2)
    prepared = VsquantLayer("w4a8-s4/4").prepare(case)
    assert prepared.output().shape == prepared.expected.shape == (2, 8, 3, 3)
    assert relative_error(prepared.output(), prepared.expected) <= prepared.error
    assert torch.equal(prepared.start(1)().permute(0, 3, 1, 2), prepared.output())


def test_a_bit_that_differs_is_red() -> None:
    with pytest.raises(ParityError, match="1 of 3 results differ from eager"):
        check_equal(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.5]))


def test_what_fake_quantization_is_compared_with() -> None:
    case = FakeQuantizeCase(rows=8, length=64)
    for contender in (TorchCopy(), VsquantEager()):
        prepared = contender.prepare(case)
        assert relative_error(prepared.output(), prepared.expected) <= prepared.error


def test_without_a_compiler_there_are_no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsquant.bench.floors.shutil.which", lambda name: None)
    ceilings = CeilingsMeter((1,)).read()
    assert ceilings.rates == {} and ceilings.reason == "no C compiler was found"
