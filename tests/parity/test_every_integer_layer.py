"""Every integer layer of real structures, on its own input: codes and sums of the reference, outputs to the last bit,
and within the bound of docs/learn/integers.md of what the simulated layer gives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import vsquant
from vsquant import Recipe, Rule, kernels, reference
from vsquant.kernels import native
from vsquant.nn import (
    IntegerConv2d,
    IntegerEmbedding,
    IntegerLayer,
    IntegerLinear,
    IntegerMatmul,
    QuantLayer,
    QuantMatmul,
)
from vsquant.spec.formats import IntegerFormat
from vsquant.tasks.base import run
from vsquant.tasks.registry import create_task

SPECS = ["w4a4u-s4/6", "w3a6-s3/8-v32-tensor", "w8a8u-full-g16", "w4a8-s4/x-top", "w4a4-s4/4-v8", "w4a8-s4/10-tensor"]
UNIT_ROUNDOFF = 2.0**-24
SMALLEST = 2.0**-120


def values_of(q: reference.Quantized, rows: int) -> np.ndarray:
    """q*sigma of the reference, float64 (rows, ...): every one an exact integer."""
    scale = 1 if q.vector_scale is None else q.vector_scale[..., None]
    return (q.codes.astype(np.float64) * scale).reshape(rows, -1)


def folded_input(layer: IntegerLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """What one sample (rows, C / groups) becomes by the reference: q*sigma without padding, and gamma (1 or rows,)."""
    fmt, limit = layer.spec.activation, layer.activation_range
    share = "row" if layer.spec.gamma == "token" else "tensor"
    q = reference.quantize(
        x.contiguous().numpy(), fmt, share, layer.scale_mode, coarse_range=None if limit is None else float(limit)
    )
    assert_codes_equal(layer, x, q)
    return torch.from_numpy(values_of(q, len(x))[:, : x.shape[1]]), torch.from_numpy(q.coarse_scale)


def assert_codes_equal(layer: IntegerLayer, x: Tensor, q: reference.Quantized) -> None:
    share = "row" if layer.spec.gamma == "token" else "group"
    ours = kernels.quantize(
        x.unsqueeze(0),
        layer.spec.activation,
        share=share,
        coarse_range=layer.activation_range,
        scale_mode=layer.scale_mode,
    )
    np.testing.assert_array_equal(ours.codes[0].numpy(), q.codes)
    for mine, theirs in ((ours.vector_scale, q.vector_scale), (ours.coarse_scale, q.coarse_scale)):
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine[0].numpy(), theirs)


def folded_weight(layer: IntegerLayer) -> Tensor:
    """q*sigma of the packed weight in the shape of the layer's weight, float64."""
    weight = layer.quantized_weight
    codes = weight.codes.double()
    values = codes if weight.vector_scale is None else codes * weight.vector_scale.unsqueeze(-1)
    outputs, channels = layer.weight_shape[:2]
    rows = values.flatten(-2)[..., :channels].reshape(outputs, -1, channels)
    return rows.transpose(1, 2).reshape(layer.weight_shape)


def expected(layer: IntegerLinear | IntegerConv2d, x: Tensor) -> Tensor:
    """Eq. (7) in the order it is written, on S summed in float64, of which every partial sum is an exact integer."""
    weight = folded_weight(layer)
    assert layer.spec.accumulator_bits(weight[0].numel()) <= 54
    outputs = [expected_sample(layer, sample, weight) for sample in x.float()]
    return torch.stack(outputs).view(*x.shape[:-1], -1) if isinstance(layer, IntegerLinear) else torch.stack(outputs)


def expected_sample(layer: IntegerLinear | IntegerConv2d, x: Tensor, weight: Tensor) -> Tensor:
    gamma_w = layer.weight_coarse_scale
    if isinstance(layer, IntegerLinear):
        folded, gamma = folded_input(layer, x.reshape(-1, x.shape[-1]))
        y = (gamma.unsqueeze(1) * gamma_w) * F.linear(folded, weight).float()
        return y if layer.bias is None else y + layer.bias
    geometry, last = layer.geometry, x.movedim(0, -1)
    parts = geometry.groups if layer.spec.activation.has_vectors else 1
    folded, gamma = folded_input(layer, last.reshape(-1, last.shape[-1] // parts))
    maps = geometry.pad(folded.reshape(last.shape).movedim(-1, 0).unsqueeze(0))
    convolve = F.conv2d if layer.spatial == 2 else F.conv1d
    sums = convolve(maps, weight, None, geometry.stride, 0, geometry.dilation, geometry.groups)[0].float()
    shape = (-1, *[1] * layer.spatial)
    y = (gamma * gamma_w).view(shape) * sums
    return y if layer.bias is None else y + layer.bias.view(shape)


def bound(layer: QuantLayer, x: Tensor) -> Tensor:
    """gamma_(n+11) (sum |x^ w^| + |b|): how far a simulated and an integer output of n products may lie apart."""
    terms = layer.weight[0].numel()
    factor = (terms + 11) * UNIT_ROUNDOFF / (1 - (terms + 11) * UNIT_ROUNDOFF)
    weight, bias = layer.weight.double().abs(), None if layer.bias is None else layer.bias.double().abs()
    if layer.weight.dim() == 2:
        values = layer._fake_quantize_input(x.reshape(x.shape[0], -1, x.shape[-1])).view(x.shape)
        return factor * F.linear(values.double().abs(), weight, bias) + SMALLEST
    geometry, last = layer.geometry, x.movedim(1, -1)
    parts = geometry.groups if layer.spec.activation.has_vectors else 1
    rows = layer._fake_quantize_input(last.reshape(len(x), -1, last.shape[-1] // parts))
    maps = geometry.pad(rows.view(last.shape).movedim(-1, 1).double().abs())
    convolve = F.conv2d if weight.dim() == 4 else F.conv1d
    sums = convolve(maps, weight, bias, geometry.stride, 0, geometry.dilation, geometry.groups)
    return factor * sums + SMALLEST


def seen_by(model: nn.Module, batch: Tensor | dict[str, Tensor], kinds: tuple[type, ...]) -> dict[str, tuple]:
    """Inputs and output of every module of some kinds in one run, before anything is done to them in place."""
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            module.register_forward_hook(
                lambda module, args, output, name=name: seen.update(
                    {name: (*(arg.clone() for arg in args), output.clone())}
                )
            )
    with torch.inference_mode():
        run(model, batch)
    return {name: tuple(t.clone() for t in tensors) for name, tensors in seen.items()}


@torch.no_grad()
def assert_every_layer_equals_the_reference(simulated: nn.Module, batch: Tensor | dict[str, Tensor]) -> None:
    integer = vsquant.to_integer(simulated, chain=False)
    seen = seen_by(integer, batch, (IntegerLayer,))
    twins = dict(vsquant.quantized_layers(simulated))
    assert seen.keys() == twins.keys()
    for name, layer in vsquant.quantized_layers(integer):
        x, output = seen[name]
        if isinstance(layer, IntegerEmbedding):
            assert torch.equal(output, twins[name](x))
            continue
        if layer.spec.has_integer_sums:
            np.testing.assert_array_equal(output.numpy(), expected(layer, x).numpy(), err_msg=name)
        distance = (output.double() - twins[name](x).double()).abs()
        assert bool((distance <= bound(twins[name], x)).all()), name


@pytest.mark.parametrize("spec", [*SPECS, "w4a4-sfp32/fp32", "w4a8-s6/fp32"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "resnet", "grouped"])
def test_every_layer_of_small_models(small_model, name: str, spec: str) -> None:
    model, batch = small_model(name)
    assert_every_layer_equals_the_reference(vsquant.quantize(model, spec, calibration=[batch]), batch)


@pytest.mark.parametrize("spec", ["w4a8-s4/8-token", "w8a4-sx/4-token", "w4a8-s4/x-token"])
def test_every_layer_with_a_scale_for_every_token(small_model, spec: str) -> None:
    model, batch = small_model("bert")
    assert_every_layer_equals_the_reference(vsquant.quantize(model, spec), batch)


def test_embeddings_among_the_layers(small_model) -> None:
    model, batch = small_model("bert")
    recipe = Recipe(rules=(Rule(type="embedding", spec="w4a16-s4/x"), Rule(type="linear", spec="w4a8-s4/8")))
    assert_every_layer_equals_the_reference(vsquant.quantize(model, recipe, calibration=[batch]), batch)


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w4a8-s6/10-tensor"])
@pytest.mark.parametrize("name", ["cifar10", "squad-minilm", "imagenet-efficientnet-lite0"])
def test_every_layer_of_trained_networks(vsquant_data: Path, first_sample, name: str, spec: str) -> None:
    task = create_task(name, data=vsquant_data)
    batch = first_sample(task.calibration_batches(4)[0])
    model = task.load_model()
    simulated = vsquant.quantize(model, spec, calibration=[batch], batchnorm_pairs=task.batchnorm_pairs(model))
    assert_every_layer_equals_the_reference(simulated, batch)


def tensors_of(output: object) -> list[Tensor]:
    values = output.values() if isinstance(output, dict) else [output]
    return [value for value in values if isinstance(value, Tensor)]


class DefinedGelu(TorchDispatchMode):
    """The GELU of eq. (11) where a model calls PyTorch's."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.gelu.default and (kwargs or {}).get("approximate", "none") == "none":
            return kernels.apply_function(args[0], "gelu")
        return func(*args, **(kwargs or {}))


def assert_chaining_keeps_the_bits(simulated: nn.Module, batch: Tensor | dict[str, Tensor]) -> int:
    """But for the GELU that chained layers take in, which is eq. (11)'s. And how many layers give codes."""
    plain, chained = vsquant.to_integer(simulated, chain=False), vsquant.to_integer(simulated)
    with torch.inference_mode():
        ours = tensors_of(run(chained, batch))
        with DefinedGelu():
            theirs = tensors_of(run(plain, batch))
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    return len(vsquant.chain_report(chained).chained)


@pytest.mark.parametrize("backend", kernels.backends())
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "resnet", "grouped"])
def test_chaining_keeps_the_bits_of_small_models(
    small_model, monkeypatch: pytest.MonkeyPatch, name: str, backend: str
) -> None:
    monkeypatch.setenv("VSQUANT_BACKEND", backend)
    model, batch = small_model(name)
    chained = assert_chaining_keeps_the_bits(vsquant.quantize(model, "w4a8-s4/8", calibration=[batch]), batch)
    assert chained >= {"bert": 1, "grouped": 1}.get(name, 0)


@pytest.mark.parametrize(
    ("name", "expected"), [("cifar10", 18), ("squad-minilm", 6), ("imagenet-efficientnet-lite0", 30)]
)
def test_chaining_keeps_the_bits_of_trained_networks(
    vsquant_data: Path, first_sample, name: str, expected: int
) -> None:
    task = create_task(name, data=vsquant_data)
    batch = first_sample(task.calibration_batches(1)[0])
    model = task.load_model()
    pairs = task.batchnorm_pairs(model)
    simulated = vsquant.quantize(model, "w4a8-s4/8", calibration=[batch], batchnorm_pairs=pairs)
    assert assert_chaining_keeps_the_bits(simulated, batch) >= expected


@pytest.mark.skipif(not native.status().supported, reason="the native library was not built")
def test_both_backends_give_a_chained_transformer_the_same_bits(small_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = small_model("bert")
    simulated = vsquant.quantize(model, "w4a8-s4/8", calibration=[batch])
    outputs = []
    for backend in ("eager", "cpu"):
        monkeypatch.setenv("VSQUANT_BACKEND", backend)
        integer = vsquant.to_integer(simulated)
        assert any("gelu fused; codes" in line for line in str(vsquant.chain_report(integer)).splitlines())
        with torch.inference_mode():
            outputs.append(tensors_of(run(integer, batch)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*outputs, strict=True))


def reference_heads(
    product: QuantMatmul, x: Tensor, fmt: IntegerFormat, ranges: Tensor | None
) -> tuple[Tensor, Tensor]:
    """q*sigma (heads, rows, length) and gamma (heads, 1 or rows) by the reference."""
    share = "row" if product.spec.gamma == "token" else "tensor"
    limits = [None] * len(x) if ranges is None else ranges.tolist()
    heads = [
        reference.quantize(head.numpy(), fmt, share, coarse_range=limit)
        for head, limit in zip(x.contiguous(), limits, strict=True)
    ]
    folded = np.array([values_of(head, x.shape[1])[:, : x.shape[2]] for head in heads])
    return torch.from_numpy(folded), torch.from_numpy(np.array([head.coarse_scale for head in heads]))


def assert_every_product_equals_the_reference(simulated: nn.Module, batch: dict[str, Tensor]) -> None:
    integer = vsquant.to_integer(simulated, chain=False)
    seen = seen_by(integer, batch, (IntegerMatmul,))
    assert seen
    for name, (a, b, output) in seen.items():
        product = integer.get_submodule(name)
        left, gamma_a = reference_heads(product, a[0], product.format_a, product.range_a)
        right, gamma_b = reference_heads(product, b[0].transpose(-1, -2), product.format_b, product.range_b)
        sums = (left @ right.transpose(-1, -2)).float()
        theirs = (gamma_a.unsqueeze(2) * gamma_b.unsqueeze(1)) * sums
        np.testing.assert_array_equal(output[0].numpy(), theirs.numpy(), err_msg=name)


MATMUL_SPECS = ["w8a4-s4/6", "w8a8-tensor", "w8a6-s4/8-token"]


@pytest.mark.parametrize("spec", MATMUL_SPECS)
def test_every_attention_product_of_a_small_model(small_model, spec: str) -> None:
    model, batch = small_model("bert")
    recipe = Recipe(rules=(Rule(type="matmul", spec=spec),))
    assert_every_product_equals_the_reference(vsquant.quantize(model, recipe, calibration=[batch]), batch)


@pytest.mark.parametrize("spec", MATMUL_SPECS)
def test_every_attention_product_of_a_trained_network(vsquant_data: Path, first_sample, spec: str) -> None:
    task = create_task("squad-minilm", data=vsquant_data)
    batch = first_sample(task.calibration_batches(1)[0])
    recipe = Recipe(rules=(Rule(type="matmul", spec=spec),))
    assert_every_product_equals_the_reference(vsquant.quantize(task.load_model(), recipe, calibration=[batch]), batch)
