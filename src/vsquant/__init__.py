"""vsquant: per-vector scaled quantization (VS-Quant), from a PyTorch model to the silicon that runs it.

The names below are imported on first use, so that reading a spec does not load PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vsquant import reference
    from vsquant.export.checkpoint import load, save
    from vsquant.optimize import ErrorFeedback, Reconstruction, Rounding, ScaleSearch
    from vsquant.spec import LayerSpec
    from vsquant.transform.integer import chain_report, to_integer
    from vsquant.transform.recipe import Recipe, Rule
    from vsquant.workflows.allocate import Allocation, allocate
    from vsquant.workflows.options import Calibrators
    from vsquant.workflows.profile import profile_integer
    from vsquant.workflows.ptq import quantize
    from vsquant.workflows.record import quantization_record, quantized_layers
    from vsquant.workflows.sensitivity import sensitivity

__version__ = "0.1.0"

_HOMES: Final = {
    "Allocation": "vsquant.workflows.allocate",
    "allocate": "vsquant.workflows.allocate",
    "sensitivity": "vsquant.workflows.sensitivity",
    "Calibrators": "vsquant.workflows.options",
    "ErrorFeedback": "vsquant.optimize",
    "LayerSpec": "vsquant.spec",
    "Recipe": "vsquant.transform.recipe",
    "Reconstruction": "vsquant.optimize",
    "Rounding": "vsquant.optimize",
    "Rule": "vsquant.transform.recipe",
    "ScaleSearch": "vsquant.optimize",
    "chain_report": "vsquant.transform.integer",
    "load": "vsquant.export.checkpoint",
    "profile_integer": "vsquant.workflows.profile",
    "quantization_record": "vsquant.workflows.record",
    "quantize": "vsquant.workflows.ptq",
    "quantized_layers": "vsquant.workflows.record",
    "save": "vsquant.export.checkpoint",
    "to_integer": "vsquant.transform.integer",
}

__all__ = [
    "Allocation",
    "Calibrators",
    "ErrorFeedback",
    "LayerSpec",
    "Recipe",
    "Reconstruction",
    "Rounding",
    "Rule",
    "ScaleSearch",
    "allocate",
    "chain_report",
    "load",
    "profile_integer",
    "quantization_record",
    "quantize",
    "quantized_layers",
    "reference",
    "save",
    "sensitivity",
    "to_integer",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "reference":
        return importlib.import_module("vsquant.reference")
    raise AttributeError(f"module 'vsquant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
