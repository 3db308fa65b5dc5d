"""Error feedback through a whole model: better than rounding, layer by layer, resumed, deterministic."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant import ErrorFeedback
from vsquant.errors import CalibrationError, NonFiniteError
from vsquant.workflows import sequential
from vsquant.workflows.batches import as_batches
from vsquant.workflows.kept import Kept
from vsquant.workflows.layer_files import LayerFiles, run_key
from vsquant.workflows.ptq import prepare, quantize_prepared


class Network(nn.Module):
    """Convolutions of every sort, two branches on one input, a linear layer, and a table of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.grouped = nn.Conv2d(20, 36, 3, stride=2, groups=2, padding=1, padding_mode="reflect")
        self.shortcut = nn.Conv2d(20, 36, 1, stride=2, bias=False)
        self.depthwise = nn.Conv2d(36, 36, 3, groups=36, padding=1)
        self.names = nn.Embedding(5, 36)
        self.head = nn.Linear(36, 10)

    def forward(self, x: Tensor, name: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.grouped(x) + self.shortcut(x))
        x = torch.relu(self.depthwise(x)).mean(dim=(2, 3))
        result: Tensor = self.head(x + self.names(name))
        return result


def data(seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    smooth = nn.AvgPool2d(3, stride=1, padding=1)
    return [
        (smooth(torch.randn(8, 3, 8, 8, generator=generator)) * 2, torch.randint(5, (8,), generator=generator))
        for _ in range(6)
    ]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


def error_of(quantized: nn.Module, network: nn.Module) -> float:
    with torch.no_grad():
        return sum(float((quantized(*batch) - network(*batch)).square().mean()) for batch in data(seed=9))


@pytest.mark.parametrize(
    "spec",
    ["w4a4u-s4/4", "w3a8-s6/8-v8-full-top", "w3a16-s4/x-g16", "w4a8", "w4a8u-sfp32/fp32", "w4a6-s4/6-p6-tensor"],
)
def test_beats_rounding_in_every_format(network: nn.Module, spec: str) -> None:
    rounded = vsquant.quantize(network, spec, calibration=data(seed=1))
    settled = vsquant.quantize(network, spec, calibration=data(seed=1), method=ErrorFeedback())
    assert error_of(settled, network) < error_of(rounded, network)
    assert vsquant.quantization_record(settled).method == "gptq"
    for (name, mine), (other, theirs) in zip(
        vsquant.quantized_layers(settled), vsquant.quantized_layers(rounded), strict=True
    ):
        assert name == other and mine.spec == theirs.spec
        assert (
            mine.weight_codes.shape == theirs.weight_codes.shape
            and mine.weight_codes.dtype == theirs.weight_codes.dtype
        )
        if mine.weight_coarse_scale is not None:
            assert torch.equal(mine.weight_coarse_scale, theirs.weight_coarse_scale)


def test_survives_saving_and_integers(network: nn.Module, tmp_path: Path) -> None:
    settled = vsquant.quantize(network, "w4a8-s4/8", calibration=data(seed=1), method=ErrorFeedback())
    vsquant.save(settled, tmp_path / "model.safetensors")
    loaded = vsquant.load(tmp_path / "model.safetensors", model=copy.deepcopy(network))
    batch = data(seed=2)[0]
    with torch.no_grad():
        assert torch.equal(loaded(*batch), settled(*batch))
        integer = vsquant.to_integer(settled)
        torch.testing.assert_close(integer(*batch), settled(*batch), rtol=0, atol=0.05)


def test_is_deterministic_and_leaves_the_model(network: nn.Module) -> None:
    before = copy.deepcopy(network.state_dict())
    first, second = (
        vsquant.quantize(network, "w3a8-s4/8", calibration=data(seed=1), method=ErrorFeedback()) for _ in range(2)
    )
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_goes_on_where_it_was_stopped(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**options: Any) -> nn.Module:
        return vsquant.quantize(network, "w4a8-s4/8", calibration=data(seed=1), method=ErrorFeedback(), **options)

    settle, calls = sequential.settle_layer, []

    def counting(layer: Any, *args: Any) -> Any:
        calls.append(layer.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return settle(layer, *args)

    monkeypatch.setattr(sequential, "settle_layer", counting)
    with pytest.raises(KeyboardInterrupt):
        run(resume=tmp_path)
    resumed = run(resume=tmp_path)
    assert calls == ["stem", "grouped", "shortcut", "depthwise", "depthwise", "head"]
    whole = run()
    assert all(
        torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True)
    )
    again = len(calls)
    run(resume=tmp_path)
    assert len(calls) == again
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 5
    assert len(list(tmp_path.iterdir())) == 1


def test_run_key_knows_all_that_a_run_depends_on(network: nn.Module) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1
    batches = data(seed=1)
    keys = [
        run_key([network], batches, ["gptq"]),
        run_key([other], batches, ["gptq"]),
        run_key([network], data(seed=2), ["gptq"]),
        run_key([network], [{"x": batches[0][0], "limit": 3}], ["gptq"]),
        run_key([network], [{"x": batches[0][0], "limit": 4}], ["gptq"]),
        run_key([network], batches, ["gptq:damping=0.1"]),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == run_key([copy.deepcopy(network)], data(seed=1), ["gptq"])


def test_a_damaged_file_is_done_again(tmp_path: Path) -> None:
    files = LayerFiles(Kept(tmp_path), "run")
    (tmp_path / "run").mkdir()
    files._path("layer").write_bytes(b"not a layer")
    assert files.load("layer") is None
    assert files.load("other") is None


def test_a_folder_that_cannot_be_written_says_so(network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CalibrationError, match="finished layers must be kept in a folder that can be written"):
        vsquant.quantize(
            network, "w4a8-s4/8", calibration=data(seed=1), method=ErrorFeedback(), resume=tmp_path / "file" / "kept"
        )


def test_an_iterator_of_batches_is_kept_for_every_pass(network: nn.Module) -> None:
    whole = vsquant.quantize(network, "w4a8-s4/8", calibration=data(seed=1), method=ErrorFeedback())
    once = vsquant.quantize(network, "w4a8-s4/8", calibration=iter(data(seed=1)), method=ErrorFeedback())
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), once.state_dict().values(), strict=True))


def test_says_what_calibration_must_be(network: nn.Module) -> None:
    with pytest.raises(CalibrationError, match="method gptq settles weights on the inputs they meet; pass calibration"):
        vsquant.quantize(network, "w4a16-s4/x", method=ErrorFeedback())
    with pytest.raises(CalibrationError, match=r"calibration must be given to prepare\(\)"):
        quantize_prepared(prepare(network, None), vsquant.Recipe.from_spec("w4a16-s4/x"), method=ErrorFeedback())
    with pytest.raises(CalibrationError, match="read again for every layer, not an iterator"):
        sequential.settle_layers(network, network, as_batches(iter(data(seed=1))), ErrorFeedback())


def test_not_finite_inputs_are_named(network: nn.Module) -> None:
    broken = data(seed=1)
    broken[3][0][0, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="stem"):
        vsquant.quantize(network, "w4a16-s4/x", calibration=broken, method=ErrorFeedback())


class Lookup(nn.Module):
    """An embedding, a layer that is never called, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.spare, self.used = nn.Embedding(9, 32), nn.Linear(32, 8), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.used(self.table(x))
        return result


def test_embeddings_and_unreached_layers_take_searched_scales() -> None:
    torch.manual_seed(3)
    model = Lookup().eval()
    recipe = vsquant.Recipe(
        rules=(
            vsquant.Rule(match="*", type="embedding", spec="w3a16-s4/x"),
            vsquant.Rule(match="*", spec="w3a16-s4/x"),
        )
    )
    calibration = [torch.arange(9)]
    settled = vsquant.quantize(model, recipe, calibration=calibration, method=ErrorFeedback())
    searched = vsquant.quantize(model, recipe, method=vsquant.ScaleSearch())
    same = {
        name: torch.equal(layer.weight_codes, other.weight_codes)
        for (name, layer), (_, other) in zip(
            vsquant.quantized_layers(settled), vsquant.quantized_layers(searched), strict=True
        )
    }
    assert same == {"table": True, "spare": True, "used": False}


def test_progress_reaches_its_end(network: nn.Module) -> None:
    told: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "error feedback":
            told.append((done, total))

    vsquant.quantize(network, "w4a8-s4/8", calibration=data(seed=1), method=ErrorFeedback(), progress=progress)
    assert told == sorted(told) and told[0] == (0, 24) and told[-1] == (24, 24)
