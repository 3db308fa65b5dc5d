"""Block reconstruction of whole models: what it lowers, what it keeps, and that it is the same every time."""

import copy

import pytest
import torch
from torch import nn

from vsquant import quantization_record, quantize, quantized_layers, to_integer
from vsquant.errors import CalibrationError
from vsquant.optimize import Reconstruction, Rounding
from vsquant.tasks.models.digits_cnn import DigitsCnn
from vsquant.workflows.captured import ModuleCall
from vsquant.workflows.ptq import as_recipe, prepare, quantize_prepared
from vsquant.workflows.reconstruct import HELD_OUT, draw_samples, reconstruct, split_samples

FAST = Reconstruction(iterations=60, batch_size=8, seed=3)


def _network():
    """A digits network with heavy-tailed weights and batch norms that have seen data (seed 1)."""
    torch.manual_seed(1)
    model = DigitsCnn((16, 32), 1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight *= (0.5 * torch.randn(*module.weight.shape[:2], 1, 1)).exp()
        for _ in range(20):
            model.train()(_images(64))
    return model.eval()


def _images(count, seed=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 8, 8, generator=generator) ** 2


@pytest.fixture(scope="module")
def prepared():
    return prepare(_network(), [_images(24, 1), _images(24, 2)])


def _batches():
    return [_images(24, 1), _images(24, 2)]


def _error(prepared, model):
    x = _images(256, 9)
    with torch.no_grad():
        return float((model(x) - prepared.model(x)).square().mean())


def _codes(model):
    return {name: layer.weight_codes.clone() for name, layer in quantized_layers(model)}


@pytest.mark.parametrize(
    "spec",
    [
        "w3a3u-s4/4",
        "w3a4u-s4/4-full",
        "w3a4-s4/4-top",
        "w3a8-s4/x",
        "w3a16-s4/x",
        "w4a4u",
        "w3a4-sfp32/fp32",
        "w3a4-s4/4-p6",
    ],
)
def test_reconstruction_lowers_the_error_of_the_whole_network(prepared, spec):
    model = quantize_prepared(prepared, as_recipe(spec))
    start = _error(prepared, model)
    reconstruct(prepared.model, model, _batches(), FAST)
    assert _error(prepared, model) < start


def test_codes_stay_beside_the_start_and_scales_and_float_model_as_they_were(prepared):
    before = copy.deepcopy(prepared.model.state_dict())
    start = quantize_prepared(prepared, as_recipe("w3a3u-s4/4"))
    model = copy.deepcopy(start)
    reports = reconstruct(prepared.model, model, _batches(), FAST)
    assert [report.name for report in reports] == ["conv", "blocks.0", "blocks.1", "linear"]
    for (name, old), (_, new) in zip(quantized_layers(start), quantized_layers(model), strict=True):
        assert (old.weight_codes.int() - new.weight_codes.int()).abs().max() <= 1, name
        assert new.weight_codes.abs().max() <= new.spec.weight.qmax
        assert torch.equal(old.weight_vector_scale, new.weight_vector_scale)
        assert torch.equal(old.weight_coarse_scale, new.weight_coarse_scale)
        assert torch.equal(new.weight, new.quantized_weight.dequantize(new.weight_shape))
        assert new.input_quantizer is None
    assert any(not torch.equal(_codes(start)[name], codes) for name, codes in _codes(model).items())
    after = prepared.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_same_seed_gives_the_same_codes_and_another_others(prepared):
    start = quantize_prepared(prepared, as_recipe("w3a3u-s4/4"))
    results = []
    for seed in (3, 3, 4):
        model = copy.deepcopy(start)
        reconstruct(prepared.model, model, _batches(), Reconstruction(iterations=20, batch_size=8, seed=seed))
        results.append(_codes(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert any(not torch.equal(results[0][name], results[2][name]) for name in results[0])


def test_a_block_that_learns_nothing_useful_keeps_its_start(prepared):
    start = quantize_prepared(prepared, as_recipe("w8a8u-s8/8"))
    model = copy.deepcopy(start)
    ruinous = Reconstruction(iterations=3, batch_size=8, learning_rate=50.0)
    reports = reconstruct(prepared.model, model, _batches(), ruinous)
    assert all(report.kept_start for report in reports)
    for name, codes in _codes(start).items():
        assert torch.equal(codes, _codes(model)[name])


def test_ranges_learn_only_where_asked(prepared):
    start = quantize_prepared(prepared, as_recipe("w4a3u-s4/4"))
    ranges = {}
    for learn_ranges in (False, True):
        model = copy.deepcopy(start)
        method = Reconstruction(iterations=40, batch_size=8, learn_ranges=learn_ranges)
        reconstruct(prepared.model, model, _batches(), method)
        ranges[learn_ranges] = [float(layer.activation_range) for _, layer in quantized_layers(model)]
    assert ranges[False] == [float(layer.activation_range) for _, layer in quantized_layers(start)]
    assert ranges[True] != ranges[False]
    assert min(ranges[True]) > 0


def test_dynamic_ranges_and_comparison_formats_have_nothing_to_learn_but_codes(prepared):
    dynamic = quantize_prepared(prepared, as_recipe("w3a4-s4/4-tensor"))
    reconstruct(prepared.model, dynamic, _batches(), Reconstruction(iterations=10, batch_size=8))
    assert all(layer.activation_range is None for _, layer in quantized_layers(dynamic))
    comparison = quantize_prepared(prepared, as_recipe("nvfp4"))
    assert reconstruct(prepared.model, comparison, _batches(), FAST) == ()


def test_progress_counts_the_iterations_of_all_blocks(prepared):
    seen = []
    model = quantize_prepared(prepared, as_recipe("w3a3u-s4/4"))
    method = Reconstruction(iterations=5, batch_size=4)
    reconstruct(prepared.model, model, _batches(), method, progress=lambda *step: seen.append(step))
    assert seen[0] == ("reconstructing blocks", 0, 20)
    assert seen[-1] == ("reconstructing blocks", 20, 20)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize(
    "sizes", [(96,), (1, 2, 45, 48), (1,) * 96], ids=["one batch", "a batch with none held out", "batches of one"]
)
def test_a_transformer_is_reconstructed_with_its_masks(sizes):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    network = transformers.BertForQuestionAnswering(config).eval()
    mask = torch.ones(96, 9, dtype=torch.long)
    mask[:, 6:] = torch.arange(3) < torch.arange(96)[:, None] % 4
    ids = torch.randint(50, (96, 9))
    batches = [
        {"input_ids": some, "attention_mask": its}
        for some, its in zip(ids.split(sizes), mask.split(sizes), strict=True)
    ]
    prepared = prepare(network, batches)
    model = quantize_prepared(prepared, as_recipe("w3a8-s4/8"))
    reports = reconstruct(prepared.model, model, batches, FAST)
    assert [report.name for report in reports] == ["bert.encoder.layer.0", "bert.encoder.layer.1", "qa_outputs"]
    assert [report.kept_start for report in reports[:2]] == [False, False]


def test_every_eighth_sample_over_all_batches_is_held_out():
    calls = [ModuleCall.of((torch.zeros(count, 2),), {}, torch.clone) for count in (5, 9, 3)]
    learned, held = split_samples(calls)
    assert [rows.tolist() for rows in held] == [[], [2], [1]]
    assert sorted(learned[1].tolist() + held[1].tolist()) == list(range(9))
    few = [ModuleCall.of((torch.zeros(HELD_OUT - 1, 2),), {}, torch.clone)]
    learned, held = split_samples(few)
    assert learned[0].tolist() == held[0].tolist() == list(range(HELD_OUT - 1))


def test_a_draw_is_of_one_batch_without_repetition_and_of_more_where_it_has_too_few():
    rows = [torch.tensor([], dtype=torch.long), torch.arange(10), torch.tensor([4])]
    generator = torch.Generator().manual_seed(1)
    draws = [
        [(batch, sorted(chosen.tolist())) for batch, chosen in draw_samples(rows, 4, generator)] for _ in range(99)
    ]
    assert {tuple(batch for batch, _ in draw) for draw in draws} == {(1,), (2, 1)}
    for draw in draws:
        assert sum(len(chosen) for _, chosen in draw) == 4
        assert all(len(set(chosen)) == len(chosen) and set(chosen) <= set(range(10)) for _, chosen in draw)
    (first, second) = sorted((batch, len(chosen)) for batch, chosen in draw_samples(rows, 99, generator))
    assert (first, second) == ((1, 10), (2, 1))


def test_quantize_takes_the_method_and_records_it():
    method = Reconstruction(start=Rounding(), iterations=20, batch_size=8)
    network = _network()
    quantized = quantize(network, "w3a3u-s4/4", calibration=iter(_batches()), method=method)
    assert quantization_record(quantized).method == "reconstruct:start=[rtn],iterations=20,batch_size=8"
    plain = quantize(network, "w3a3u-s4/4", calibration=_batches())
    assert any(not torch.equal(_codes(plain)[name], codes) for name, codes in _codes(quantized).items())
    integer, x = to_integer(quantized), _images(16, 5)
    torch.testing.assert_close(integer(x), quantized(x), rtol=1e-3, atol=1e-3)


def test_reconstruction_needs_data():
    with pytest.raises(CalibrationError, match="calibration must be given: method reconstruct settles weights"):
        quantize(_network(), "w3a16-s4/x", method=Reconstruction())


def test_a_killed_run_goes_on_at_the_block_where_it_stopped(tmp_path):
    method, network = Reconstruction(start=Rounding(), iterations=10, batch_size=8), _network()
    whole = quantize(network, "w3a3u-s4/4", calibration=_batches(), method=method)

    class KilledError(Exception):
        pass

    def kill(step, done, total):
        if step == "reconstructing blocks" and done > 20:
            raise KilledError

    with pytest.raises(KilledError):
        quantize(network, "w3a3u-s4/4", calibration=_batches(), method=method, resume=tmp_path, progress=kill)
    assert len(list(tmp_path.rglob("block-*.safetensors"))) == 2
    seen = []
    resumed = quantize(
        network,
        "w3a3u-s4/4",
        calibration=_batches(),
        method=method,
        resume=tmp_path,
        progress=lambda *step: seen.append(step),
    )
    assert [done for step, done, _ in seen if step == "reconstructing blocks" and done % 10] == [
        *range(21, 30),
        *range(31, 40),
    ]
    for (name, one), (_, other) in zip(quantized_layers(whole), quantized_layers(resumed), strict=True):
        assert torch.equal(one.weight_codes, other.weight_codes), name
        assert torch.equal(one.activation_range, other.activation_range)
