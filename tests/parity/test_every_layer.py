"""Every quantized layer of real structures, on its own input: codes, scales, values and outputs from the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vsquant
from vsquant import Recipe, Rule, reference
from vsquant.nn import QuantLayer, QuantLinear, QuantMatmul
from vsquant.spec.formats import IntegerFormat
from vsquant.tasks.base import run
from vsquant.tasks.registry import create_task
from vsquant.workflows.ptq import prepare

SPECS = [
    "w4a4u-s4/6",
    "w3a6-s3/8-v32-tensor",
    "w4a8-s6/fp32-full",
    "w8a8u-full-g16",
    "w4a4-sfp32/fp32",
    "nvfp4",
    "mxfp4",
]


def inputs_of(model: nn.Module, batch: Tensor | dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The input and the output of every quantized layer in one run, before anything is done to them in place."""
    seen = {}

    def keep(name: str, x: Tensor, output: Tensor) -> None:
        seen[name] = (x.clone(), output.clone())

    for name, layer in vsquant.quantized_layers(model):
        layer.register_forward_hook(lambda module, args, output, name=name: keep(name, args[0], output))
    with torch.inference_mode():
        run(model, batch)
    return seen


def channels_last(x: Tensor, layer: QuantLayer) -> Tensor:
    """The layer's input as (samples, rows, C / groups), as eq. (1) sees it."""
    if isinstance(layer, QuantLinear):
        return x.reshape(x.shape[0], -1, x.shape[-1]) if x.dim() > 1 else x.view(1, 1, -1)
    return x.movedim(1, -1).reshape(x.shape[0], -1, x.shape[1] // layer.geometry.groups)


def reference_weight(layer: QuantLayer, weight: Tensor) -> np.ndarray:
    """Asserts that codes and scales are the reference's, and returns its values in the shape of ``weight``."""
    fmt, array = layer.spec.weight, weight.detach().float().numpy()
    positions = int(np.prod(array.shape[2:]))
    if not isinstance(fmt, IntegerFormat):
        rows = np.ascontiguousarray(array.reshape(*array.shape[:2], positions).transpose(0, 2, 1))
        rows = rows.reshape(-1 if fmt.tensor_scale else len(array) * positions, array.shape[1])
        values = reference.quantize(rows, fmt, "tensor" if fmt.tensor_scale else "row").dequantize()
        return values.reshape(len(array), positions, -1).transpose(0, 2, 1).reshape(array.shape)
    kernel = array.reshape(*array.shape[:2], positions, 1)
    theirs = reference.quantize(reference.conv_weight_rows(kernel, fmt.vector_size), fmt)
    np.testing.assert_array_equal(layer.weight_codes.flatten().numpy(), theirs.codes.ravel())
    for ours, expected in (
        (layer.weight_vector_scale, theirs.vector_scale),
        (layer.weight_coarse_scale, theirs.coarse_scale),
    ):
        assert (ours is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(ours.flatten().numpy(), expected.ravel())
    values = theirs.dequantize().reshape(len(array), positions, -1)[..., : array.shape[1]]
    return values.transpose(0, 2, 1).reshape(array.shape)


def reference_input(layer: QuantLayer, x: Tensor) -> Tensor:
    """The values of the reference in the shape of ``x``, sample by sample."""
    fmt, rows = layer.spec.activation, channels_last(x, layer).contiguous().float().numpy()
    if fmt is None:
        return x.float()
    limit = None if layer.activation_range is None else float(layer.activation_range)
    share = "row" if layer.spec.gamma == "token" else "tensor"
    values = np.array([reference.quantize(sample, fmt, share, coarse_range=limit).dequantize() for sample in rows])
    if isinstance(layer, QuantLinear):
        return torch.from_numpy(values.reshape(x.shape))
    last = x.movedim(1, -1)
    return torch.from_numpy(values.reshape(last.shape)).movedim(-1, 1)


def expected_output(layer: QuantLayer, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, QuantLinear):
        return F.linear(x, weight, layer.bias)
    geometry = layer.geometry
    convolve = F.conv2d if len(geometry.kernel) == 2 else F.conv1d
    return convolve(geometry.pad(x), weight, layer.bias, geometry.stride, 0, geometry.dilation, geometry.groups)


def assert_every_layer_equals_the_reference(model: nn.Module, batch: Tensor | dict[str, Tensor], quantized: nn.Module):
    folded = prepare(model, [batch], layers=()).model
    seen = inputs_of(quantized, batch)
    assert seen.keys() == dict(vsquant.quantized_layers(quantized)).keys()
    for name, layer in vsquant.quantized_layers(quantized):
        module = folded.get_submodule(name)
        plain = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))
        weight = reference_weight(layer, module.weight if plain else module.weight.t())
        x, output = seen[name]
        expected = expected_output(layer, reference_input(layer, x), torch.from_numpy(weight.copy()))
        torch.testing.assert_close(output.float(), expected.to(output.dtype).float(), rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "resnet", "grouped"])
def test_every_layer_of_small_models(small_model, name: str, spec: str) -> None:
    model, batch = small_model(name)
    quantized = vsquant.quantize(model, spec, calibration=[batch])
    assert_every_layer_equals_the_reference(model, batch, quantized)


@pytest.mark.parametrize("spec", ["w4a8-s4/8-token", "w8a4-sx/4-token"])
def test_every_layer_with_a_scale_for_every_token(small_model, spec: str) -> None:
    model, batch = small_model("bert")
    assert_every_layer_equals_the_reference(model, batch, vsquant.quantize(model, spec))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_layers_are_computed_in_float32(small_model, dtype: torch.dtype) -> None:
    model, batch = small_model("bert")
    model = model.to(dtype)
    assert_every_layer_equals_the_reference(model, batch, vsquant.quantize(model, "w4a4u-s4/6", calibration=[batch]))


def test_depthwise_convolutions_as_a_recipe_says(small_model) -> None:
    model, batch = small_model("grouped")
    recipe = Recipe(rules=(Rule(spec="w4a4-s4/6"),), fallback="w6a6-s6/6-v2")
    quantized = vsquant.quantize(model, recipe, calibration=[batch])
    assert str(quantized[2].spec) == "w6a6-s6/6-v2"
    assert_every_layer_equals_the_reference(model, batch, quantized)


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w4a8-s6/10-tensor"])
@pytest.mark.parametrize("name", ["cifar10", "squad-minilm", "imagenet-efficientnet-lite0"])
def test_every_layer_of_trained_networks(vsquant_data: Path, first_sample, name: str, spec: str) -> None:
    task = create_task(name, data=vsquant_data)
    batch = first_sample(task.calibration_batches(4)[0])
    model = task.load_model()
    quantized = vsquant.quantize(model, spec, calibration=[batch], batchnorm_pairs=task.batchnorm_pairs(model))
    assert_every_layer_equals_the_reference(model, batch, quantized)


@pytest.mark.parametrize("spec", ["w8a4-s4/6", "w8a8-tensor", "w8a6-s4/8-token"])
def test_every_attention_product_of_a_trained_network(vsquant_data: Path, first_sample, spec: str) -> None:
    task = create_task("squad-minilm", data=vsquant_data)
    batch = first_sample(task.calibration_batches(1)[0])
    recipe = Recipe(rules=(Rule(type="matmul", spec=spec),))
    quantized = vsquant.quantize(task.load_model(), recipe, calibration=[batch])
    products = [module for module in quantized.modules() if isinstance(module, QuantMatmul)]
    seen = []
    for product in products:
        product.register_forward_hook(lambda module, args, output: seen.append((module, *args, output)))
    with torch.inference_mode():
        run(quantized, batch)
    assert len(seen) == len(products) > 0
    for product, a, b, output in seen:
        left = reference_heads(product, a[0], product.format_a, product.range_a)
        right = reference_heads(product, b[0].transpose(-1, -2), product.format_b, product.range_b)
        torch.testing.assert_close(output[0], left @ right.transpose(-1, -2), rtol=1e-5, atol=1e-5)


def reference_heads(product: QuantMatmul, x: Tensor, fmt: IntegerFormat, ranges: Tensor | None) -> Tensor:
    """The values of the reference for ``x`` (heads, rows, length), and that the product's own are the same."""
    share = "row" if product.spec.gamma == "token" else "tensor"
    limits = [None] * len(x) if ranges is None else ranges.tolist()
    rows = x.contiguous()
    values = [
        reference.quantize(head.numpy(), fmt, share, coarse_range=limit).dequantize()
        for head, limit in zip(rows, limits, strict=True)
    ]
    ours = product._fake_quantize(rows.unsqueeze(0), fmt, ranges)[0]
    np.testing.assert_array_equal(ours.numpy(), np.array(values))
    return torch.from_numpy(np.array(values))
