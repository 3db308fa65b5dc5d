"""Which backend runs an operation on given formats, and why another cannot.

``eager`` is plain PyTorch and runs everything, on every device. ``cpu`` is native code; it is chosen wherever it can
run, and tensors on other devices then still find the eager kernel. ``VSQUANT_BACKEND`` forces one by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import torch

from vsquant.errors import BackendError
from vsquant.kernels import native
from vsquant.kernels.schemas import EAGER_NAMESPACE, NAMESPACE
from vsquant.spec.formats import FloatFormat, TensorFormat
from vsquant.spec.layer import ScaleMode

Backend: TypeAlias = Literal["eager", "cpu"]

VARIABLE: Final = "VSQUANT_BACKEND"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The backend that runs, and for each of the others why it does not."""

    backend: Backend
    others: Mapping[Backend, str]


def backends() -> tuple[Backend, ...]:
    """The names of all backends."""
    return get_args(Backend)


def choose(
    operation: str,
    weight: TensorFormat,
    activation: TensorFormat | None,
    *,
    depthwise: bool = False,
    scale_mode: ScaleMode = "requantize",
) -> Choice:
    """The backend for an operation of `vsquant.kernels.schemas`; a product of two activations is given the right one's
    format as ``weight``. ``depthwise`` says that the weight has the depthwise layout, ``scale_mode`` how activations
    that come as floats are quantized.

    Raises:
        BackendError: VSQUANT_BACKEND names no backend, or one that cannot run this.
    """
    problem = _scale_mode_problem(operation, scale_mode) or _native_problem(operation, weight, activation, depthwise)
    forced = forced_backend()
    if forced is None:
        if problem is None:
            return Choice(backend="cpu", others={"eager": "cpu runs it faster"})
        return Choice(backend="eager", others={"cpu": problem})
    if forced == "eager":
        return Choice(backend="eager", others={"cpu": problem or f"{VARIABLE} is 'eager'"})
    if problem is not None:
        raise BackendError(f"{VARIABLE} must not be 'cpu' for {operation}: {problem}; unset it, or use 'eager'")
    return Choice(backend="cpu", others={"eager": f"{VARIABLE} is 'cpu'"})


def forced_backend() -> Backend | None:
    """The backend that VSQUANT_BACKEND names, None where it is not set.

    Raises:
        BackendError: there is no such backend.
    """
    name = os.environ.get(VARIABLE, "")
    for backend in backends():
        if name == backend:
            return backend
    if name:
        raise BackendError(f"{VARIABLE} must be one of {', '.join(backends())}, not {name!r}")
    return None


def operator(operation: str, backend: Backend, overload: str = "default") -> Any:
    """The operator of PyTorch behind an operation."""
    namespace = NAMESPACE if backend == "cpu" else EAGER_NAMESPACE
    return getattr(getattr(getattr(torch.ops, namespace), operation), overload)


def _scale_mode_problem(operation: str, scale_mode: ScaleMode) -> str | None:
    quantizes = operation in ("linear", "conv2d", "matmul")
    return (
        "the best of three vector scales is chosen by eager code"
        if quantizes and scale_mode == "best-of-three"
        else None
    )


def _native_problem(
    operation: str, weight: TensorFormat, activation: TensorFormat | None, depthwise: bool
) -> str | None:
    """Why native code cannot run an operation; None where it can."""
    status = native.status()
    if not status.available:
        return status.reason
    if not _has_native_kernel(operation):
        return f"the native library has no {operation}"
    for fmt in (weight, activation):
        if isinstance(fmt, FloatFormat):
            return f"{fmt.name} is a comparison format, which is simulated only"
    if depthwise and activation is not None and activation.has_vectors:
        return "depthwise convolutions have no activation vectors"
    return None


def _has_native_kernel(operation: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{operation}", "CPU")
