"""Registration of the integer products with PyTorch: schemas, eager kernels, and shapes for tracing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from vsquant.errors import ShapeError
from vsquant.kernels import eager_products
from vsquant.kernels.eager import code_dtype
from vsquant.kernels.epilogue import Requantized
from vsquant.kernels.format_text import parse_format
from vsquant.kernels.gradients import pass_by_autograd
from vsquant.kernels.schemas import ARGUMENTS, EAGER_NAMESPACE, NAMESPACE, out_schema, schema
from vsquant.spec.formats import IntegerFormat, padded_length

_EAGER: Final[Mapping[str, Callable[..., Any]]] = {
    "linear": eager_products.linear,
    "linear_codes": eager_products.linear_codes,
    "linear_requantize": eager_products.requantizing(eager_products.linear_codes),
    "conv2d": eager_products.conv2d,
    "conv2d_codes": eager_products.conv2d_codes,
    "conv2d_requantize": eager_products.requantizing(eager_products.conv2d_codes),
    "matmul": eager_products.matmul,
}


def _register(namespace: str, operation: str) -> None:
    name = f"{namespace}::{operation}"
    torch.library.define(name, schema(operation), tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "default")(_EAGER[operation])
    torch.library.register_fake(name)(_fake(operation))
    pass_by_autograd(operation, _LIBRARIES[namespace])
    torch.library.define(f"{name}.out", out_schema(operation))
    torch.library.impl(f"{name}.out", "default")(
        _writing_codes(operation) if operation.endswith("_requantize") else _writing(operation)
    )


def _writing(operation: str) -> Callable[..., Tensor]:
    def write(*arguments: Any, out: Tensor) -> Tensor:
        _write(operation, "out", out, _EAGER[operation](*arguments))
        return out

    return write


def _writing_codes(operation: str) -> Callable[..., None]:
    def write(
        *arguments: Any, out_codes: Tensor, out_vector_scale: Tensor, out_coarse_scale: Tensor, out_y: Tensor
    ) -> None:
        given = Requantized(out_codes, out_vector_scale, out_coarse_scale, out_y)
        results = _EAGER[operation](*arguments)
        for name, out, result in zip(Requantized._fields, given, results, strict=True):
            _write(operation, f"out_{name}", out, result)

    return write


def _write(operation: str, name: str, out: Tensor, result: Tensor) -> None:
    if out.shape != result.shape or out.dtype != result.dtype:
        raise ShapeError(
            f"{name} of {operation} must be {result.dtype} of shape {tuple(result.shape)}, "
            f"not {out.dtype} {tuple(out.shape)}"
        )
    out.copy_(result)


def _fake(operation: str) -> Callable[..., Tensor | Requantized]:
    names = [argument.split()[-1] for argument in ARGUMENTS[operation].split(", ")]

    def fake(*arguments: Any) -> Tensor | Requantized:
        return _result(dict(zip(names, arguments, strict=True)))

    return fake


def _result(given: Mapping[str, Any]) -> Tensor | Requantized:
    """Empty results of the right shapes for an operation's arguments by name."""
    if "left" in given:
        left, right = given["left"], given["right"]
        product: Tensor = left.new_empty(left.shape[0], left.shape[1], right.shape[1])
        return product
    x: Tensor = given["x"] if "x" in given else given["codes"]
    lead = [x.shape[0], x.shape[1]]
    if "kernel" in given:
        geometry = [given[key] for key in ("kernel", "stride", "padding", "dilation", "groups")]
        lead = [x.shape[0], *eager_products.walk_of(*geometry).output_size(x.shape[1], x.shape[2])]
    y = x.new_empty(*lead, given["out_features"], dtype=x.dtype if "x" in given else torch.float32)
    if "output_range" not in given:
        return y
    fmt = parse_format(given["output_format"])
    assert isinstance(fmt, IntegerFormat)
    size = fmt.vector_size or given["out_features"]
    vectors = padded_length(given["out_features"], fmt.vector_size) // size
    return Requantized(
        codes=y.new_empty(*lead, vectors, size, dtype=code_dtype(fmt)),
        vector_scale=_scales(y, [*lead, vectors], fmt),
        coarse_scale=y.new_empty([x.shape[0], 1] if fmt.has_coarse_scale else [0]),
        y=y if given["keep_float"] else y.new_empty(0),
    )


def _scales(y: Tensor, shape: list[int], fmt: IntegerFormat) -> Tensor:
    dtype = torch.float32 if isinstance(fmt.scale, str) else torch.int16
    return y.new_empty(shape if fmt.has_vectors else [0], dtype=dtype)


_LIBRARIES: Final = {
    name: torch.library.Library(name, "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's own
    for name in (NAMESPACE, EAGER_NAMESPACE)
}
for _operation in ARGUMENTS:
    for _namespace in (NAMESPACE, EAGER_NAMESPACE):
        _register(_namespace, _operation)
