"""From a simulated model to the integer one: every quantized module replaced by its integer twin."""

from __future__ import annotations

import copy

from torch import nn

from vsquant.errors import VsquantError
from vsquant.nn import (
    IntegerConv2d,
    IntegerEmbedding,
    IntegerLayer,
    IntegerLinear,
    IntegerMatmul,
    QuantConv1d,
    QuantConv2d,
    QuantEmbedding,
    QuantLayer,
    QuantLinear,
    QuantMatmul,
)


def to_integer(model: nn.Module) -> nn.Module:
    """The integer model of a simulated one: its quantized layers and matmuls compute on integers, eqs. (7)-(8), on
    weights packed at N + M/V bits an element.

    Args:
        model: what `vsquant.quantize` or `vsquant.load` returned; it is left as it was.

    Returns:
        A model in evaluation mode that is called as ``model`` is; layers that several names share stay shared.

    Raises:
        VsquantError: the model is a float model, or an integer one already.
        SpecError: a layer is in a comparison format; the message names it.
        BackendError: VSQUANT_BACKEND names a backend that cannot run a layer.
    """
    replaced: dict[int, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, (QuantLayer, QuantMatmul)):
            replaced[id(module)] = integer_twin(module).eval()
    if not replaced:
        already = any(isinstance(module, (IntegerLayer, IntegerMatmul)) for module in model.modules())
        what = "an integer model already" if already else "a float model"
        raise VsquantError(f"the model must come from vsquant.quantize or vsquant.load, not be {what}")
    integer: nn.Module = copy.deepcopy(model, dict(replaced))
    return integer.eval()


def integer_twin(module: QuantLayer | QuantMatmul) -> IntegerLayer | IntegerMatmul:
    """The integer module that computes what a simulated one does.

    Raises:
        SpecError: it is in a comparison format; the message names it.
        BackendError: VSQUANT_BACKEND names a backend that cannot run it.
    """
    if isinstance(module, QuantMatmul):
        return IntegerMatmul.of(module)
    if isinstance(module, QuantEmbedding):
        return IntegerEmbedding.of(module)
    if isinstance(module, (QuantConv1d, QuantConv2d)):
        return IntegerConv2d.of(module)
    assert isinstance(module, QuantLinear)
    return IntegerLinear.of(module)
