"""What a quantized model knows of its own making, and how to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from vsquant.errors import VsquantError
from vsquant.nn import IntegerLayer, QuantLayer
from vsquant.results.layers import LayerReport
from vsquant.results.permutation import PermutedChannels
from vsquant.results.workloads import LayerWorkload

_ATTRIBUTE = "vsquant_record"


@dataclass(frozen=True, kw_only=True)
class QuantizationRecord:
    """How a model was quantized: every layer's report, the batch norms folded or not, and the options used.

    ``folded`` holds (layer, batch norm) pairs that became one; ``unfolded`` the batch norms that stayed floating point,
    and why. ``method`` is that of the weights, as `vsquant.optimize.method_text` writes it; ``permuted`` has
    the channels that were reordered; ``workloads`` the shapes of all layers and products in one sample of the
    calibration data, in the order of their first call.
    """

    layers: tuple[LayerReport, ...]
    folded: tuple[tuple[str, str], ...]
    scale_mode: str
    activation_calibrator: str
    weight_calibrator: str
    calibration_samples: int
    method: str = "rtn"
    permuted: tuple[PermutedChannels, ...] = ()
    unfolded: tuple[tuple[str, str], ...] = ()
    workloads: tuple[LayerWorkload, ...] = ()


def attach_record(model: nn.Module, record: QuantizationRecord) -> None:
    """Give ``model`` its record; copies of the model keep it."""
    setattr(model, _ATTRIBUTE, record)


def quantization_record(model: nn.Module) -> QuantizationRecord:
    """The record of a model that vsquant quantized.

    Raises:
        VsquantError: the model was not quantized by vsquant.
    """
    record = vars(model).get(_ATTRIBUTE)
    if not isinstance(record, QuantizationRecord):
        raise VsquantError("the model must come from vsquant.quantize or vsquant.load, not be a float model")
    return record


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantLayer | IntegerLayer]]:
    """Every quantized layer with weights once, simulated or integer, as (name, layer), in the model's order.

    A layer has ``spec``, ``weight_codes``, ``weight_vector_scale`` and ``weight_coarse_scale`` (see `QuantizedWeight`).
    """
    for name, module in model.named_modules():
        if isinstance(module, (QuantLayer, IntegerLayer)):
            yield name, module
