"""Bias correction, batch-norm re-estimation and clipped vector ranges, as steps of quantization."""

import pytest
import torch
from torch import nn

from vsquant import Calibrators, quantization_record, quantize, quantized_layers, to_integer
from vsquant.errors import CalibrationError
from vsquant.tasks.models.digits_cnn import DigitsCnn


def _images(count, seed):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) ** 2


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    model = DigitsCnn((16, 32), 1)
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.rand(64, 1, 8, 8) ** 2)
    return model.eval()


BATCHES = (_images(40, 1), _images(24, 2))


def _outputs(model, name):
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, args, y: seen.append(y.double()))
    with torch.no_grad():
        for batch in BATCHES:
            model(batch)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("spec", ["w3a3u-s4/4", "w3a8-s4/8-g16", "w4a4", "w4a4-sfp32/fp32", "nvfp4"])
def test_bias_correction_gives_every_layer_the_float_mean(network, spec):
    model = quantize(network, spec, calibration=BATCHES, bias_correction=True)
    reference = quantize(network, "w8a16-sfp32/x", calibration=BATCHES)  # float to 8 bits, batch norms folded
    for name, _ in quantized_layers(model):
        dims = (0, 2, 3)[: 1 if name == "linear" else 3]
        wanted, given = _outputs(reference, name), _outputs(model, name)
        apart = (given.mean(dims) - wanted.mean(dims)).abs().max()
        assert apart < 0.02 * wanted.std(), name
    assert quantization_record(model).method == "rtn + bias correction"


@pytest.mark.parametrize("spec", ["w3a3u-s4/4", "w3a8-s4/8-g16", "w4a4"])
def test_reestimation_gives_layers_before_batch_norms_the_float_variance_in_the_same_codes(network, spec):
    plain = quantize(network, spec, calibration=BATCHES)
    model = quantize(network, spec, calibration=BATCHES, batchnorm_reestimation=True)
    reference = quantize(network, "w8a16-sfp32/x", calibration=BATCHES)
    for (name, before), (_, after) in zip(quantized_layers(plain), quantized_layers(model), strict=True):
        assert torch.equal(before.weight_codes, after.weight_codes)
        if name != "linear":
            wanted, given = _outputs(reference, name), _outputs(model, name)
            ratio = given.std((0, 2, 3)) / wanted.std((0, 2, 3))
            assert (ratio - 1).abs().max() < 0.02, name
    x = _images(16, 5)
    torch.testing.assert_close(to_integer(model)(x), model(x), rtol=1e-3, atol=1e-3)


def test_a_batch_norm_that_was_not_folded_is_estimated_anew():
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3)).eval()
    batches = [torch.randn(32, 3, 8, 8) + 0.5]
    with torch.no_grad():
        network.train()(batches[0])
        network.eval()
    model = quantize(network, "w2a8-s4/8", calibration=batches, batchnorm_reestimation=True)
    inner, outer = model[1](model[0](batches[0])), network[1](network[0](batches[0]))
    moved = model[2].running_mean - network[2].running_mean
    torch.testing.assert_close(moved, inner.mean((0, 2, 3)) - outer.mean((0, 2, 3)), atol=1e-5, rtol=1e-3)
    assert not torch.equal(model[2].running_var, network[2].running_var)


@pytest.mark.parametrize("option", ["bias_correction", "batchnorm_reestimation"])
def test_corrections_need_data(network, option):
    with pytest.raises(CalibrationError, match="calibration must be given: bias correction and batch-norm re-est"):
        quantize(network, "w4a16-s4/x", **{option: True})


def test_ranges_of_vectors_are_clipped_where_asked(network):
    plain = quantize(network, "w4a3u-s4/2", calibration=BATCHES)
    model = quantize(network, "w4a3u-s4/2", calibration=BATCHES, calibrators=Calibrators(vectors="mse"))
    pairs = [
        (float(before.activation_range), float(after.activation_range))
        for (_, before), (_, after) in zip(quantized_layers(plain), quantized_layers(model), strict=True)
    ]
    assert all(after <= before for before, after in pairs)
    assert any(after < before for before, after in pairs)
    with pytest.raises(CalibrationError, match="vectors must be one of max, mse, not 'entropy'"):
        Calibrators(vectors="entropy")
