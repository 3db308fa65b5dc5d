"""From a simulated model to the integer one: every quantized module replaced by its integer twin."""

from __future__ import annotations

import copy
from typing import Final

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
from vsquant.transform.chain_parts import ChainReport, chain_model
from vsquant.transform.float_layers import require_module

_PREFIX: Final = "vsquant_"
_ATTRIBUTE: Final = f"{_PREFIX}chains"


def to_integer(model: nn.Module, *, chain: bool = True) -> nn.Module:
    """The integer model of a simulated one: its quantized layers and matmuls compute on integers, eqs. (7)-(8), on
    weights packed at N + M/V bits an element.

    Args:
        model: what `vsquant.quantize` or `vsquant.load` returned; it is left as it was.
        chain: whether layers give each other codes where tracing the model shows that nothing but a residual and a
            function comes between, and takes these in; outputs stay the same to the last bit, but for a GELU, which
            is then that of eq. (11) and not PyTorch's. See `chain_report`.

    Returns:
        A model in evaluation mode that is called as ``model`` is; layers that several names share stay shared.

    Raises:
        VsquantError: the model is no module, a float model, or an integer one already.
        SpecError: a layer is in a comparison format; the message names it.
        BackendError: VSQUANT_BACKEND names a backend that cannot run a layer.
    """
    require_module(model)
    replaced: dict[int, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, (QuantLayer, QuantMatmul)):
            replaced[id(module)] = integer_twin(module).eval()
    if not replaced:
        if any(isinstance(module, (IntegerLayer, IntegerMatmul)) for module in model.modules()):
            raise VsquantError(
                "the model must be a simulated one, not an integer model: that runs on integers as it is"
            )
        raise VsquantError("the model must come from vsquant.quantize or vsquant.load, not be a float model")
    integer: nn.Module = copy.deepcopy(model, dict(replaced)).eval()
    # A model that is itself one layer is its twin now, and what is known of the model goes with it.
    vars(integer).update({name: value for name, value in vars(model).items() if name.startswith(_PREFIX)})
    setattr(integer, _ATTRIBUTE, chain_model(integer) if chain else ChainReport(requested=False))
    return integer


def chain_report(model: nn.Module) -> ChainReport:
    """What of an integer model was chained and what was not, and why.

    Raises:
        VsquantError: the model is not one that `to_integer` made.
    """
    report = vars(model).get(_ATTRIBUTE)
    if not isinstance(report, ChainReport):
        raise VsquantError(f"the model must come from vsquant.to_integer, not be a {type(model).__name__}")
    return report


def is_chained(model: nn.Module) -> bool:
    """Whether layers of an integer model of this one give each other codes: false only after ``chain=False``."""
    report = vars(model).get(_ATTRIBUTE)
    return not isinstance(report, ChainReport) or report.requested


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
