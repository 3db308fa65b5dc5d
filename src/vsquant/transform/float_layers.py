"""What vsquant must know of float layers that are not plain `torch.nn` ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from torch import Tensor, nn

from vsquant.errors import VsquantError
from vsquant.nn import ConvGeometry

# Convolutions that pad as TensorFlow's "SAME" does in their own forward, and do nothing else there. Those of the first
# kind settled the amounts when they were built and keep them in a submodule, the others look at every input.
_STATIC_SAME: Final = frozenset({("efficientnet_lite_pytorch.utils", "Conv2dStaticSamePadding")})
_DYNAMIC_SAME: Final = frozenset(
    {
        ("efficientnet_lite_pytorch.utils", "Conv2dDynamicSamePadding"),
        ("timm.layers.conv2d_same", "Conv2dSame"),
    }
)


def require_module(model: object) -> None:
    """Refuse what is no model at all.

    Raises:
        VsquantError: it is not a module; the message says what it is.
    """
    if not isinstance(model, nn.Module):
        raise VsquantError(f"model must be a torch.nn.Module, not a {type(model).__name__}: {model!r:.60}")


def pads_like_tensorflow(module: nn.Module) -> bool:
    """Whether the layer is a convolution whose own forward pads as TensorFlow's "SAME", and does nothing else."""
    return _class_of(module) in _STATIC_SAME | _DYNAMIC_SAME


def geometry_of(conv: nn.Conv1d | nn.Conv2d) -> ConvGeometry:
    """How a convolution walks its input, with the padding that its own forward adds."""
    if _class_of(conv) not in _STATIC_SAME:
        return ConvGeometry.of(conv, tf_same=pads_like_tensorflow(conv))
    geometry, added = ConvGeometry.of(conv), conv.get_submodule("static_padding")
    assert geometry.padding != "tf-same"
    left, right, top, bottom = added.padding if isinstance(added, nn.ZeroPad2d) else (0, 0, 0, 0)
    (above, below), (before, after) = geometry.padding
    return replace(geometry, padding=((above + top, below + bottom), (before + left, after + right)))


def float_weight(module: nn.Module) -> Tensor:
    """The weight as (K, C, *kernel). Of the layers that are matched, only transformers' ``Conv1D`` keeps (C, K)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    plain = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding))
    return weight.detach() if plain else weight.detach().t()


def float_bias(module: nn.Module) -> Tensor | None:
    """The bias (K,) of a linear layer or convolution, None where it has none; embeddings never have one."""
    bias = None if isinstance(module, nn.Embedding) else module.bias
    return bias.detach() if isinstance(bias, Tensor) else None


def _class_of(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__, type(module).__name__
