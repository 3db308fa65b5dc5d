"""Native products of activations give the eager backend's bits."""

from __future__ import annotations

import pytest
import torch

from vsquant import kernels
from vsquant.errors import NonFiniteError, ShapeError, SpecError
from vsquant.kernels import native
from vsquant.kernels.format_text import parse_format
from vsquant.spec.formats import IntegerFormat

pytestmark = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native library was not built")

FORMATS = [
    ("8", "8", 0),
    ("8u", "8", 0),
    ("4-s4-v16", "4-s4-v16", 0),
    ("4u-s6-v16", "4-s6-v16", 0),
    ("8u-s8-v16", "8-s8-v16", 0),
    ("8-s10-v16", "8-s10-v16", 0),
    ("4-s4-v32", "4-s4-v32", 6),
    ("6u-s4-v64", "5u-s3-v64", 0),
    ("7u", "7u", 0),
    ("8", "4-s4-v16", 0),
    ("4u-s4-v48", "8", 0),
    ("2-s2-v16", "3-s10-v16", 4),
    ("8", "8u", 0),
    ("4-s4-v8", "4-s4-v8", 0),
    ("8-s4-v24", "8u-s6-v24", 5),
    ("4-sfp16-v16", "8-s4-v16", 0),
    ("8u-sfp32-v20", "8u-sfp32-v20", 0),
    ("8", "4-sfp32-v16", 0),
    ("8u", "8u", 0),
    ("6u-s8-v16", "8u-s10-v16", 0),
    ("4-s4-v32", "8u-s4-v32", 6),
]
SHAPES = [(2, 5, 7, 40), (1, 1, 1, 1), (3, 33, 17, 64), (2, 18, 70, 16), (0, 3, 2, 16), (2, 0, 3, 16), (2, 3, 0, 16)]


@pytest.mark.parametrize("share", ["group", "row"])
@pytest.mark.parametrize("formats", FORMATS)
def test_matmuls(formats: tuple[str, str, int], share: str) -> None:
    left_format, right_format = parse_format(formats[0]), parse_format(formats[1])
    assert isinstance(left_format, IntegerFormat)
    assert isinstance(right_format, IntegerFormat)
    for groups, rows, columns, length in SHAPES:
        for dtype in (torch.float32, torch.float16):
            left = (torch.randn(groups, rows, length) * torch.randn(length).exp()).to(dtype)
            right = (torch.randn(groups, columns, length) * torch.randn(length).exp()).to(dtype)
            left = left if left_format.signed else left.abs()
            for count in (0, 1, groups):
                limits = torch.rand(count) + 1.5, torch.rand(count) + 1.5
                theirs, *ours = (
                    kernels.matmul(
                        left,
                        right,
                        left_format,
                        right_format,
                        ranges=limits if count else None,
                        share=share,
                        product_bits=formats[2] or None,
                        backend=backend,
                        out=out,
                    )
                    for backend, out in (
                        ("eager", None),
                        ("cpu", None),
                        ("cpu", torch.full((groups, rows, columns), float("nan"), dtype=dtype)),
                    )
                )
                assert all(torch.equal(y, theirs) for y in ours)


def test_threads_give_the_same_bits() -> None:
    fmt = parse_format("4-s4-v16")
    assert isinstance(fmt, IntegerFormat)
    before = torch.get_num_threads()
    for groups in (1, 5):
        left, right = torch.randn(groups, 70, 64), torch.randn(groups, 90, 64)
        one = kernels.matmul(left, right, fmt, fmt, backend="cpu")
        try:
            torch.set_num_threads(2)
            for _ in range(5):
                assert torch.equal(kernels.matmul(left, right, fmt, fmt, backend="cpu"), one)
        finally:
            torch.set_num_threads(before)


def test_views_are_read_as_they_are() -> None:
    fmt = parse_format("8")
    assert isinstance(fmt, IntegerFormat)
    left, value = torch.randn(2, 5, 24), torch.randn(2, 24, 6)
    ours = kernels.matmul(left, value.transpose(1, 2), fmt, fmt, backend="cpu")
    assert torch.equal(ours, kernels.matmul(left, value.transpose(1, 2).contiguous(), fmt, fmt, backend="eager"))


@pytest.mark.parametrize(
    ("at", "wrong", "error", "message"),
    [
        (1, torch.ones(2, 4, 40), ShapeError, "right must have the groups and the length of left (2, 3, 48), not (2, 4, 40)"),  # noqa: E501
        (1, torch.ones(2, 4, 48) / 0, NonFiniteError, "a tensor must be finite to be quantized, but it holds Inf"),
        (2, torch.ones(3), ShapeError, "left_range must be one value or one per group (2), not of shape (3,)"),
        (5, "9", SpecError, "a tensor format must read like '4-s4-v16' or '8u' to run natively, not '9'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(at: int, wrong: object, error: type[Exception], message: str) -> None:
    given = [torch.randn(2, 3, 48), torch.randn(2, 4, 48), None, None, "8", "8", "group", "requantize", 0]
    given[at] = wrong  # type: ignore[call-overload]
    with pytest.raises((ValueError, RuntimeError)) as raised:
        torch.ops.vsquant.matmul(*given)
    translated = native.translated(raised.value)  # type: ignore[arg-type]
    assert isinstance(translated, error)
    assert str(translated) == message
