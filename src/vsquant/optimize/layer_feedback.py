"""Error feedback for one layer: what its weight should be behind quantized layers, its codes, and its bias.

The layer meets x̂ where the float network has x. The output error |W x + b - Ŵ x̂ - b̂|² is least, codes aside, at

    W* = W + W D (H + λI)⁻¹        H = 2/n Σ x̂ x̂ᵀ,  D = 2/n Σ (x - x̂) x̂ᵀ

so W* is what is settled, with θ D for D: θ = ``compensation``. A bias that is free, b̂ = b + W x̄ - Ŵ x̄̂ in the means,
takes the means out of H and D: the error is then that of rows with mean zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.errors import CalibrationError
from vsquant.optimize.error_feedback import damped_cholesky, error_feedback
from vsquant.optimize.input_moments import InputMoments
from vsquant.optimize.methods import ErrorFeedback
from vsquant.spec.formats import IntegerFormat


class LayerFeedback(NamedTuple):
    """A layer's quantized weight, and what to add to its bias, (K,) float32; None where it is not to change."""

    weight: kernels.QuantizedTensor
    bias_shift: Tensor | None


@torch.no_grad()
def layer_feedback(
    weight: Tensor,
    moments: InputMoments,
    fmt: IntegerFormat,
    method: ErrorFeedback,
    *,
    coarse_scale: Tensor | None,
    has_bias: bool,
) -> LayerFeedback:
    """Quantize the weight (K, positions, C) of a layer whose input has these ``moments``.

    ``coarse_scale`` (K,) is that of the weight by eq. (4), or by a calibrator where there are no vectors.

    Raises:
        CalibrationError: no row was seen, or too few to factor the damped Hessian.
        ScaleRangeError: a scale would be infinite in fp16.
    """
    centred = method.free_bias and has_bias
    hessian = moments.hessian(centred=centred)
    try:
        wanted = weight
        if method.compensation > 0:
            deviation = moments.deviation(centred=centred) * method.compensation
            wanted = compensated(weight, hessian, deviation, method.damping)
        settled = error_feedback(wanted, hessian, fmt, method, coarse_scale)
    except CalibrationError as error:
        more = max(0.1, 10 * method.damping)
        raise CalibrationError(
            f"calibration must give enough rows of inputs for {hessian.shape[2]} columns, not {moments.rows} with "
            f"damping={method.damping:g}; give more samples, or more damping such as damping={more:g}"
        ) from error
    shift = bias_shift(weight, kernels.dequantize(settled.weight, weight.shape[2]), moments) if centred else None
    return LayerFeedback(settled.weight, shift)


def compensated(weight: Tensor, hessian: Tensor, deviation: Tensor, damping: float) -> Tensor:
    """W* of a weight (K, positions, C), float32; ``deviation`` is D times the share to make up for."""
    rows = weight.reshape(hessian.shape[0], -1, hessian.shape[2]).to(torch.float64)
    solved = torch.cholesky_solve(deviation.transpose(1, 2) @ rows.transpose(1, 2), damped_cholesky(hessian, damping))
    return (rows + solved.transpose(1, 2)).reshape(weight.shape).to(torch.float32)


def bias_shift(weight: Tensor, quantized: Tensor, moments: InputMoments) -> Tensor:
    """W x̄ - Ŵ x̄̂, (K,) float32: what the bias takes up so that the outputs agree in the mean."""
    mean, deviation = moments.mean(), moments.mean_deviation()
    lost = (weight.to(torch.float64) - quantized.to(torch.float64)).reshape(mean.shape[0], -1, mean.shape[1])
    rows = weight.to(torch.float64).reshape(lost.shape)
    shift = lost @ mean.unsqueeze(2) + rows @ deviation.unsqueeze(2)
    return shift.flatten().to(torch.float32)
