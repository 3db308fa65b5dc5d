"""What vsquant must know of float layers that are not plain `torch.nn` ones."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

# Convolutions that pad as TensorFlow's "SAME" does in their own forward, and do nothing else there.
TENSORFLOW_SAME: Final = frozenset(
    {
        ("efficientnet_lite_pytorch.utils", "Conv2dStaticSamePadding"),
        ("efficientnet_lite_pytorch.utils", "Conv2dDynamicSamePadding"),
        ("timm.layers.conv2d_same", "Conv2dSame"),
    }
)


def pads_like_tensorflow(module: nn.Module) -> bool:
    """Whether the layer is a convolution with TensorFlow's "SAME" padding."""
    return (type(module).__module__, type(module).__name__) in TENSORFLOW_SAME


def float_weight(module: nn.Module) -> Tensor:
    """The weight as (K, C, *kernel). Of the layers that are matched, only transformers' ``Conv1D`` keeps (C, K)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    plain = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding))
    return weight.detach() if plain else weight.detach().t()


def float_bias(module: nn.Module) -> Tensor | None:
    """The bias (K,), None where the layer has none."""
    bias = module.get_parameter("bias") if "bias" in dict(module.named_parameters(recurse=False)) else None
    return None if bias is None else bias.detach()
