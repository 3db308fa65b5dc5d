"""Eq. (11) on both backends: the reference's bits for floats of every kind, and the reference's codes behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vsquant import LayerSpec, kernels, reference
from vsquant.errors import NonFiniteError
from vsquant.kernels import Epilogue, PackedWeight, Target, native
from vsquant.kernels.eager import QuantizedTensor

CHANNELS = 4096
SPEC = LayerSpec.parse("w4a8-s4/x")
STRIDE = 1021
"""Of the bit patterns that are tried: 4.2 million of the 2^32, all exponents and both signs."""

backends = pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param("cpu", marks=pytest.mark.skipif(not native.status().supported, reason="not built")),
    ],
)


def strided() -> Tensor:
    return torch.from_numpy(np.arange(0, 1 << 32, STRIDE, dtype=np.uint64).astype(np.uint32).view(np.float32))


def bfloat16_values() -> Tensor:
    return torch.from_numpy((np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32))


def around_the_clamp() -> Tensor:
    """The floats on both sides of where erf ends, and of where y/2 becomes subnormal."""
    near = np.array([4 * 2**0.5, 2.0**-126, 2.0**-125], np.float32).view(np.uint32)
    bits = (near[:, None] + np.arange(-200, 200)).astype(np.uint32).ravel()
    positive = torch.from_numpy(bits.view(np.float32))
    return torch.cat([positive, -positive])


def silent_layer() -> tuple[QuantizedTensor, PackedWeight]:
    """A layer whose outputs are -0, so that y is its residual, -0 among others."""
    codes = torch.zeros(CHANNELS, 1, 16, dtype=torch.int8)
    scale = torch.zeros(CHANNELS, 1, dtype=torch.int16)
    weight = kernels.pack_weight(codes, scale, -torch.ones(CHANNELS), SPEC.weight, (CHANNELS, 16))
    return QuantizedTensor(torch.zeros(1, 1, 1, 16, dtype=torch.int8), None, torch.ones(1, 1)), weight


def through_a_layer(y: Tensor, backend: str) -> Tensor:
    """The outputs of a layer that adds ``y`` as its residual and applies GELU."""
    missing = -len(y) % CHANNELS
    residual = torch.cat([y, y.new_zeros(missing)]).view(1, -1, CHANNELS)
    (codes, _, coarse), weight = silent_layer()
    x = QuantizedTensor(codes.expand(1, residual.shape[1], 1, 16).contiguous(), None, coarse)
    epilogue = Epilogue(residual=residual, function="gelu")
    outputs = kernels.layer_outputs_of_codes(x, weight, SPEC, epilogue=epilogue, backend=backend)
    return outputs.flatten()[: len(y)]


@backends
@pytest.mark.parametrize("values", [strided, bfloat16_values, around_the_clamp])
def test_the_bits_of_the_reference(values, backend: str) -> None:
    y = values()
    ours, right = through_a_layer(y, backend).numpy(), reference.gelu(y.numpy())
    nan = np.isnan(right)
    assert np.array_equal(np.isnan(ours), nan)
    assert np.array_equal(ours.view(np.uint32)[~nan], right.view(np.uint32)[~nan])


@backends
def test_codes_behind_it_are_the_reference_s(backend: str) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 96), torch.randn(80, 96)
    spec, bias = LayerSpec.parse("w4a8-s4/8"), torch.randn(80)
    q = reference.quantize(weight.numpy(), spec.weight)
    codes, sigma = torch.from_numpy(q.codes).to(torch.int8), torch.from_numpy(q.vector_scale).to(torch.int16)
    packed = kernels.pack_weight(codes, sigma, torch.from_numpy(q.coarse_scale), spec.weight, (80, 96))
    ours, y = kernels.layer_codes(
        kernels.quantize(x.unsqueeze(0), spec.activation, coarse_range=torch.tensor([3.0])),
        packed,
        spec,
        Target(format=spec.activation, range=torch.tensor([12.0])),
        epilogue=Epilogue(bias=bias, function="gelu"),
        keep_float=True,
        backend=backend,
    )
    outputs = reference.gelu(
        reference.linear(x.numpy(), weight.numpy(), spec, bias=bias.numpy(), activation_range=3.0).y
    )
    right = reference.quantize(outputs, spec.activation, "tensor", coarse_range=12.0)
    assert np.array_equal(y[0].numpy(), outputs)
    assert np.array_equal(ours.codes[0].numpy(), right.codes)
    assert np.array_equal(ours.vector_scale[0].numpy(), right.vector_scale)


@pytest.mark.parametrize("infinite", [float("inf"), float("-inf"), float("nan")])
@backends
def test_codes_of_what_is_not_finite_are_refused(backend: str, infinite: float) -> None:
    x, weight = silent_layer()
    residual = torch.zeros(1, 1, CHANNELS)
    residual[..., 7] = infinite
    target = Target(format=SPEC.activation, range=torch.tensor([1.0]))
    with pytest.raises(NonFiniteError, match="must be finite to be quantized"):
        kernels.layer_codes(
            x, weight, SPEC, target, epilogue=Epilogue(residual=residual, function="gelu"), backend=backend
        )
