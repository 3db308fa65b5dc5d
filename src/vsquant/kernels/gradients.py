"""Integer products have no gradient: asking for one is an error, at the moment it is asked for and no sooner.

Autograd is told to pass the products by; where a gradient could flow into one, its result then goes through an operator
whose backward refuses. Of codes that chained layers give each other it is the scales, which are floats, that do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

from vsquant.errors import VsquantError

_ROOT: Final = "vsquant::without_gradient"
_REFUSAL: Final = "vsquant::refuse_gradient"

torch.library.define(_ROOT, "(Tensor y, Tensor source) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
torch.library.define(_REFUSAL, "(Tensor gradient, Tensor source) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def pass_by_autograd(name: str, library: torch.library.Library) -> None:
    """Results of the operator ``name`` of ``library`` need no gradient, whatever its arguments do."""
    library.impl(name, torch.library.fallthrough_kernel, "Autograd")  # type: ignore[no-untyped-call]


def refusing_gradient(y: Tensor, arguments: Iterable[Any]) -> Tensor:
    """``y``, through which a gradient of any of the ``arguments`` it was made from is refused; integers, which can have
    none, as they are. Not to be called where gradients are off.
    """
    if not y.is_floating_point():
        return y
    for source in arguments:
        if isinstance(source, Tensor) and source.requires_grad:
            refusing: Tensor = torch.ops.vsquant.without_gradient(y, source)
            return refusing
    return y


@torch.library.impl(_ROOT, "default")
def _without_gradient(y: Tensor, source: Tensor) -> Tensor:
    return y.clone()


@torch.library.impl(_REFUSAL, "default")
def _refuse_gradient(gradient: Tensor, source: Tensor) -> Tensor:
    raise VsquantError(
        "a gradient must not be asked through integer layers, which have none; train the simulated model, or call the "
        "integer one under torch.inference_mode()"
    )


@torch.library.register_fake(_ROOT)  # type: ignore[untyped-decorator]  # torch.library is not typed
def _without_gradient_shape(y: Tensor, source: Tensor) -> Tensor:
    return torch.empty_like(y)


@torch.library.register_fake(_REFUSAL)  # type: ignore[untyped-decorator]
def _refuse_gradient_shape(gradient: Tensor, source: Tensor) -> Tensor:
    return torch.empty_like(source)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _refuse(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
    (source,) = ctx.saved_tensors
    return None, torch.ops.vsquant.refuse_gradient(gradient, source)


torch.library.register_autograd(_ROOT, _refuse, setup_context=_remember)
