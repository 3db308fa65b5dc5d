"""Options that keep the hardware (-full, -top, -g16), each with each and with every method: the same codes in the
definition, the simulated and the integer layers, packed and in a file, on every backend.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant import kernels, reference
from vsquant.nn import QuantLayer
from vsquant.optimize import Method, Rounding, ScaleSearch

OPTIONS = ["".join(parts) for parts in product(("", "-full"), ("", "-top"), ("", "-g16"))]
FORMATS = ["w3a8-s3/4", "w4a8u-s4/x", "w4a4-s4/6-p5", "w8a8-s6/8-v32", "w6a6-s5/4-v8", "w4a8-s5/fp32", "w4a16-s4/x"]
METHODS: list[Method] = [Rounding(), ScaleSearch(), ScaleSearch(importance="second-moment", gamma=True)]


def network() -> nn.Module:
    """Tails everywhere: 40 channels in groups of 20, a kernel of 3 x 3, groups of 33."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(17, 40, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(40, 66, 3, groups=2),
        nn.Flatten(2),
        nn.Conv1d(66, 34, 2, groups=2),
        nn.Flatten(),
        nn.LazyLinear(9),
    )
    model(images())
    with torch.no_grad():
        model[2].weight[3] = 0  # gamma is 0
        model[2].weight[4, :16] = 0  # a vector's scale is 0
        for index in (0, 2, 4, 6):
            model[index].weight *= 16  # gammas that fp16 holds
    return model.eval()


def images() -> Tensor:
    return torch.randn(3, 17, 5, 4, generator=torch.Generator().manual_seed(1))


def weight_rows(weight: Tensor) -> Tensor:
    """(K, positions, C)."""
    return weight.flatten(2).transpose(1, 2) if weight.dim() > 2 else weight.unsqueeze(1)


def rows_checked(layer: QuantLayer) -> int:
    """The definition tries scales one by one: fewer rows where there are many."""
    return max(1, 64 // layer.spec.weight.scale_top)


def assert_codes_are_the_definition(layer: QuantLayer, weight: Tensor, mode: str) -> None:
    for k, rows in enumerate(weight_rows(weight.detach())[3 : 3 + rows_checked(layer)], start=3):
        expected = reference.quantize(rows.contiguous().numpy(), layer.spec.weight, "tensor", scale_mode=mode)
        assert np.array_equal(layer.weight_codes[k].reshape(expected.codes.shape).numpy(), expected.codes)
        sigma = layer.weight_vector_scale[k].reshape(expected.vector_scale.shape)
        assert np.array_equal(sigma.numpy(), expected.vector_scale)
        assert float(layer.weight_coarse_scale[k]) == float(expected.coarse_scale[0])


def assert_within_the_format(layer: QuantLayer) -> None:
    fmt = layer.spec.weight
    assert fmt.qmin <= int(layer.weight_codes.min()) and int(layer.weight_codes.max()) <= fmt.qmax
    assert fmt.scale_min <= int(layer.weight_vector_scale.min())
    assert int(layer.weight_vector_scale.max()) <= fmt.scale_top
    if fmt.coarse_fp16:
        assert torch.equal(layer.weight_coarse_scale, layer.weight_coarse_scale.half().float())


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda method: type(method).__name__ + str(getattr(method, "gamma", ""))
)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options or "plain")
@pytest.mark.parametrize("text", FORMATS)
def test_every_execution_has_the_same_codes(
    text: str, options: str, method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network(), images()
    simulated = vsquant.quantize(model, text + options, calibration=[x], method=method)
    layers = dict(vsquant.quantized_layers(simulated))
    with_vectors = {name: layer for name, layer in layers.items() if layer.spec.weight.has_vectors}
    assert "6" in with_vectors
    for name, layer in with_vectors.items():
        assert_within_the_format(layer)
        if not (isinstance(method, ScaleSearch) and method.gamma):
            assert_codes_are_the_definition(layer, model.get_submodule(name).weight, layer.scale_mode)
    vsquant.save(simulated, tmp_path / "simulated.safetensors")
    loaded = vsquant.load(tmp_path / "simulated.safetensors", model=network())
    with torch.inference_mode():
        assert torch.equal(loaded(x), simulated(x))
        integer = vsquant.to_integer(loaded)
        for name, layer in vsquant.quantized_layers(integer):
            if name not in with_vectors:
                continue  # groups of fewer channels than V
            packed, given = layer.quantized_weight, layers[name].quantized_weight
            assert torch.equal(packed.codes, given.codes) and torch.equal(packed.vector_scale, given.vector_scale)
            assert torch.equal(packed.coarse_scale, given.coarse_scale)
        outputs = integer(x)
        expected = simulated(x)
        torch.testing.assert_close(outputs, expected, rtol=0, atol=2e-2 * float(expected.abs().max()))
        monkeypatch.setenv("VSQUANT_BACKEND", "eager")
        plain = vsquant.to_integer(simulated)(x)
    if layers["6"].spec.has_integer_sums:
        assert torch.equal(plain, outputs)
    else:
        torch.testing.assert_close(plain, outputs, rtol=0, atol=1e-5 * float(outputs.abs().max()))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options or "plain")
def test_one_weight_in_every_operator(options: str) -> None:
    """Eager and native: codes, x^ and the search of the same weight."""
    fmt = vsquant.LayerSpec.parse(f"w4a16-s4/x{options}").weight
    x = torch.randn(5, 3, 40, generator=torch.Generator().manual_seed(0))
    quantized = kernels.quantize(x, fmt)
    values = kernels.dequantize(quantized, 40)
    assert torch.equal(kernels.fake_quantize(x, fmt), values)
    again = kernels.search_scales(values, fmt, quantized.coarse_scale.reshape(-1))
    assert float(again.error.sum()) == 0.0, "what is in the format is found without error"
