"""What a quantized layer with a weight is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vsquant.nn.weights import QuantizedWeight
from vsquant.spec.layer import LayerSpec, ScaleMode


@dataclass(frozen=True, kw_only=True)
class LayerParts:
    """What all quantized layers are made of, simulated and integer; convolutions and embeddings add their own.

    ``name`` is for messages. ``weight_shape`` is (K, C, *kernel), the float layer's; ``bias`` (K,);
    ``activation_range`` (1,) is the calibrated A of eq. (4) where gamma is static; ``dtype`` is that of outputs.
    """

    name: str
    spec: LayerSpec
    scale_mode: ScaleMode
    weight: QuantizedWeight
    weight_shape: torch.Size
    bias: Tensor | None = None
    activation_range: Tensor | None = None
    dtype: torch.dtype = torch.float32

    def float32_bias(self) -> nn.Parameter | None:
        """A copy of the bias, which training does not change."""
        if self.bias is None:
            return None
        return nn.Parameter(self.bias.detach().to(torch.float32, copy=True), requires_grad=False)
