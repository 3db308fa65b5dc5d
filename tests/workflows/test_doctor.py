"""What the doctor finds, on networks that have something to find."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vsquant.errors import DataError
from vsquant.results.inspection import Diagnosis, Finding
from vsquant.transform.recipe import Recipe
from vsquant.workflows.checked import checked_recipe
from vsquant.workflows.doctor import architecture_of, diagnose_architecture, diagnose_task

TINY = runpy.run_path(str(Path(__file__).parents[1] / "fakes" / "tiny_program.py"))
BERT = {
    "architectures": ["BertForQuestionAnswering"], "model_type": "bert", "vocab_size": 50, "hidden_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16,
}  # fmt: skip


def diagnosed(spec: str, task: Any = None) -> Diagnosis:
    return diagnose_task(task or TINY["TinyTask"](), checked_recipe(spec), spec)


def texts(diagnosis: Diagnosis, level: str | None = None, layer: str | None = None) -> list[str]:
    return [
        finding.text
        for finding in diagnosis.findings
        if level in (None, finding.level) and (layer is None or (finding.layer or "").startswith(layer))
    ]


def test_a_healthy_task() -> None:
    diagnosis = diagnosed("w4a4u-s4/6-v4")
    assert diagnosis.passed and texts(diagnosis, "error") == texts(diagnosis, "warning") == []
    said = " ".join(texts(diagnosis, "ok"))
    assert "torch " in said and "threads" in said
    assert [text for text in texts(diagnosis) if text.startswith("kernels: ")]
    assert "batch norms will be folded" in said and "to evaluate all 40" in said and "measured on 4 samples" in said
    assert diagnosis.seconds is not None and diagnosis.seconds > 0
    weights = sum(parameter.numel() for parameter in TINY["network"]().parameters())
    assert diagnosis.peak_memory_bytes is not None and 3 * 4 * weights < diagnosis.peak_memory_bytes < 100 * 4 * weights


def test_nothing_is_trained_evaluated_or_loaded() -> None:
    task = TINY["TinyTask"]()
    task.load_model = task.evaluate = task.prepare = None
    assert diagnosed("w4a8-s4/6", task).passed
    assert task.evaluations == 0


def test_padding_is_counted_layer_by_layer_and_in_all() -> None:
    diagnosis = diagnosed("w4a4u-s4/6")
    [stem] = texts(diagnosis, layer="conv")
    assert stem == "1 input channels are no multiple of V = 16: zeros pad them to 16, 1500% more storage and products"
    assert "8 elements are no multiple of V = 16" in texts(diagnosis, layer="linear")[0]
    assert any(text.startswith("padding makes the quantized weights ") for text in texts(diagnosis, "warning"))
    assert not any("no multiple" in text for text in texts(diagnosed("w4a4")))


def test_comparison_formats_cannot_run_on_integers() -> None:
    found = [text for text in texts(diagnosed("nvfp4"), "warning") if "integers" in text]
    assert found == ["can be simulated, but not run on integers: nvfp4 is a comparison format"]


def test_layers_that_would_run_eager_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSQUANT_BACKEND", "eager")
    found = [text for text in texts(diagnosed("w4a8-s4/8"), "note") if text.startswith("on integers it runs eager")]
    assert (len(found) == 1 and "VSQUANT_BACKEND is 'eager'" in found[0]) or "was not built" in found[0]


def test_whether_calibration_is_needed() -> None:
    assert any(
        text.startswith("calibration data is needed: 7 layers") for text in texts(diagnosed("w4a8-s4/6"), "note")
    )
    assert "no calibration data is needed" in texts(diagnosed("w4a8-s4/6-tensor"), "ok")
    assert any(text.startswith("calibration data is needed") for text in texts(diagnosed("w4a8u-s4/6-tensor"), "note"))


def test_the_estimate_counts_the_calibration_that_is_needed() -> None:
    said = [" ".join(texts(diagnosed(spec), "ok")) for spec in ("w4a8-s4/6", "w4a8-s4/6-tensor")]
    assert "s to quantize with 128 calibration samples" in said[0]
    assert "s to quantize without calibration samples" in said[1]


def test_token_scales_of_convolutions_are_errors() -> None:
    diagnosis = diagnosed("w4a8-s4/6-token")
    assert not diagnosis.passed
    [finding] = [finding for finding in diagnosis.findings if finding.level == "error"]
    assert finding.layer == "conv and 5 more"
    assert finding.text == "a convolution has no tokens; use -tensor or -static, not w4a8-s4/6-v16-token"
    assert diagnosis.seconds is None


def test_a_rule_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("rules:\n  - {match: 'encoder.*', spec: w4a8-s4/6}\n  - {spec: w8a8}\n")
    diagnosis = diagnosed(str(path))
    [message] = texts(diagnosis, "error")
    assert message.startswith(
        'rule 1 (match: "encoder.*", spec: w4a8-s4/6-v16) must decide at least one layer, not none'
    )


def test_fallbacks_and_layers_left_float() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 16)
            self.depthwise = nn.Conv1d(16, 16, 3, groups=16)
            self.norm = nn.BatchNorm1d(16)
            self.attention = nn.MultiheadAttention(16, 2)

    from vsquant.workflows import doctor

    findings, plans = doctor._findings(Net(), Recipe.from_spec("w4a8-s4/6"))
    by_layer = {finding.layer: finding for finding in findings if finding.layer}
    assert by_layer["depthwise"] == Finding(
        level="warning", layer="depthwise", text="groups of 1 channels are fewer than V=16: fallback, so w8a8"
    )
    assert by_layer["words"].text == "stays floating point: give it a rule with type: embedding"
    assert "MultiheadAttention 'attention' reads its weights without calling it" in by_layer["attention.out_proj"].text
    assert len(plans) == 3


def test_tied_weights_are_told(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 64, "n_positions": 8}))
    diagnosis = diagnose_architecture("gpt", architecture_of(str(tmp_path)), checked_recipe("w4a8-s4/6"), "w4a8-s4/6")
    assert texts(diagnosis, layer="lm_head") == ["weight tied to transformer.wte.weight"]


def test_a_configuration_is_enough_whatever_its_size(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    huge = BERT | {"hidden_size": 40_960, "num_hidden_layers": 4, "intermediate_size": 163_840}
    (tmp_path / "config.json").write_text(json.dumps(huge))
    recipe = Recipe.from_spec("w4a8-s4/6")
    diagnosis = diagnose_architecture("huge", architecture_of(str(tmp_path)), recipe, "w4a8-s4/6")
    assert diagnosis.passed and diagnosis.seconds is None
    assert diagnosis.peak_memory_bytes is not None and diagnosis.peak_memory_bytes > 10**11
    assert "no estimate of time, and none of memory for activations: they need the data of a task" in texts(diagnosis)
    assert any(text.startswith("80,5") and "weights in 25 layers" in text for text in texts(diagnosis, "ok"))


def test_equal_findings_are_one(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    recipe = Recipe.from_spec("w4a8-s4/6")
    diagnosis = diagnose_architecture("bert", architecture_of(str(tmp_path)), recipe, "w4a8-s4/6")
    padded = [finding for finding in diagnosis.findings if "40 elements are no multiple of V = 16" in finding.text]
    assert [finding.layer for finding in padded] == ["bert.encoder.layer.0.attention.self.query and 10 more"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "must hold a model saved by save_pretrained, but it has no config.json"),
        ("{", "config.json"),
        ("[]", "must name the model's 'architectures', but does not"),
        ('{"architectures": []}', "must name the model's 'architectures', but does not"),
    ],
)
def test_folders_without_a_configuration_are_refused(config: str | None, message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(DataError, match=message):
        architecture_of(str(tmp_path))


def test_a_configuration_that_makes_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(BERT | {"num_attention_heads": 3}))
    with pytest.raises(DataError, match="config of the architecture must be one that makes a BertForQuestionAnswering"):
        diagnose_architecture("b", architecture_of(str(tmp_path)), Recipe.from_spec("w8a8"), "w8a8")


def test_overflowing_random_weights_only_cost_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    from vsquant.tasks import architectures

    def overflowing(architecture: Any) -> nn.Module:
        model = TINY["network"]()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1e30)
        return model

    monkeypatch.setattr(architectures, "build", overflowing)
    diagnosis = diagnosed("w4a8-s4/6")
    assert diagnosis.passed and diagnosis.seconds is None
    assert any(text.startswith("no estimate of time: random weights") for text in texts(diagnosis, "note"))
