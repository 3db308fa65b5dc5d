"""How much an error of one layer's output costs: squared error, and the second order of the network's own loss.

With p the network's output distribution and Δy the error of one layer's output, the Kullback-Leibler divergence
from p of the network with that error is, to second order,

    (1) KL = ½ Δyᵀ F Δy        F = E[g gᵀ],  g = ∂ log p(t) / ∂y,  t drawn from p

where F is the Fisher information of y. A label drawn for every row of logits makes (gᵀΔy)² an unbiased estimate of
ΔyᵀFΔy, for the gradients of different rows are uncorrelated. Only the first order of the error's way through the
network is used, and F at the float network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def drawn_log_likelihood(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Σ log p(t) over the rows of ``logits`` (rows, classes), with a label t drawn from each row's own distribution.

    Its gradient with respect to y is the g of eq. (1), summed over the rows that y belongs to.
    """
    logarithms = logits.float().log_softmax(-1)
    labels = torch.multinomial(logarithms.detach().exp(), 1, generator=generator)
    return logarithms.gather(-1, labels).sum()


class OutputError:
    """Sums over calls of one layer in one format: of Δy², of y², and of (gᵀΔy)² by sample, in float64."""

    def __init__(self) -> None:
        self.squared_error = 0.0
        self.power = 0.0
        self.elements = 0
        self.second_order = 0.0

    def add(self, output: Tensor, quantized: Tensor, gradients: Sequence[Tensor | None]) -> None:
        """One call: ``output`` (samples, ...) of the float and of the quantized layer, and g by draw, None for zero."""
        error = quantized.double() - output.double()
        self.squared_error += float(error.square().sum())
        self.power += float(output.double().square().sum())
        self.elements += output.numel()
        for gradient in gradients:
            if gradient is not None:
                self.second_order += float((error * gradient).reshape(len(error), -1).sum(1).square().sum())

    @property
    def mean_squared_error(self) -> float:
        """Mean of Δy²."""
        return self.squared_error / max(1, self.elements)

    @property
    def relative_error(self) -> float:
        """ΣΔy² / Σy²; 0 where there is no error."""
        if self.squared_error == 0.0:
            return 0.0
        return self.squared_error / self.power if self.power else float("inf")

    def divergence(self, labels: int) -> float:
        """Eq. (1) in nats per row of logits, for which ``labels`` labels were drawn in all."""
        return 0.5 * self.second_order / max(1, labels)
