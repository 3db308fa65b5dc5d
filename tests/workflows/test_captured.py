"""What goes into a module, kept in memory or in files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vsquant.workflows.batches import call
from vsquant.workflows.captured import ModuleCall, TensorCache, captured_calls, outputs_of, run_module


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_kept_tensors_have_values_and_strides_of_their_own(memory_bytes, format):
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=format)
    kept = TensorCache(memory_bytes).keep(x)
    expected = x.clone()
    assert kept.stride() == x.stride()
    x.zero_()
    assert torch.equal(kept, expected)


def test_files_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = TensorCache(0).keep(torch.arange(1000.0))
    assert list(Path(tmp_path).rglob("*")) == []
    assert float(kept.sum()) == 499500.0


def test_memory_is_used_first_and_only_as_far_as_allowed(tmp_path, monkeypatch):
    made = []
    original = torch.from_file
    monkeypatch.setattr(torch, "from_file", lambda *args, **kwargs: made.append(1) or original(*args, **kwargs))
    cache = TensorCache(4 * 150)
    for _ in range(3):
        cache.keep(torch.zeros(100))
    assert len(made) == 2


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.ran = nn.Linear(3, 4), _Scaled(), 0

    def forward(self, x):
        y = self.second(self.first(x), scale=torch.full((len(x), 1), 2.0), options=("a", torch.ones(1)))
        self.ran += 1
        return y


class _Scaled(nn.Module):
    def forward(self, x, scale, options):
        return (x.mul_(scale), "other")


def test_calls_are_captured_before_the_module_changes_them_and_nothing_runs_after():
    model = _Model()
    batches = [torch.randn(5, 3), torch.randn(2, 3)]
    calls = captured_calls(model, "second", batches, call, TensorCache())
    assert model.ran == 0
    assert [each.x.shape[0] for each in calls] == [5, 2]
    for each, batch in zip(calls, batches, strict=True):
        assert torch.equal(each.x, model.first(batch))
    outputs = outputs_of(model.second, calls, TensorCache())
    assert torch.equal(outputs[0], 2 * calls[0].x)
    model(batches[0])
    assert model.ran == 1


def test_rows_of_a_call_take_their_rows_of_what_is_per_sample():
    scale = torch.arange(5.0).view(5, 1)
    original = ModuleCall.of((torch.randn(5, 4),), {"scale": scale, "options": ("a", torch.ones(3))}, torch.clone)
    some = original.rows(torch.tensor([3, 1]))
    assert torch.equal(some.x, original.x[[3, 1]])
    assert some.kwargs["scale"].flatten().tolist() == [3.0, 1.0]
    assert torch.equal(some.kwargs["options"][1], torch.ones(3))
    assert torch.equal(run_module(_Scaled(), some), original.x[[3, 1]] * scale[[3, 1]])


def test_a_first_argument_given_by_name_stays_so():
    original = ModuleCall.of((), {"x": torch.ones(2, 3), "flag": True}, torch.clone)
    args, kwargs = original.rows(torch.tensor([0])).arguments
    assert args == ()
    assert kwargs["x"].shape == (1, 3)
    assert kwargs["flag"] is True
