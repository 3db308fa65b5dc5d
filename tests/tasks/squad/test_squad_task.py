"""The SQuAD task as the table and calibration see it."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch

from vsquant.errors import DataError
from vsquant.tasks.base import run
from vsquant.tasks.squad import SquadTask
from vsquant.tasks.squad.presets import PRESETS
from vsquant.tasks.squad.task import MASKED_LOGIT


@pytest.fixture
def task(squad_folder, write_split, bert_folder):
    write_split([f"City_{i}" for i in range(4)], [f"City_{i}" for i in range(4, 12)])
    return SquadTask("squad", data=squad_folder.parent, model=str(bert_folder))


def test_scores_are_percent_per_question_grouped_by_article(task, pointer):
    scores = task.evaluate_both(pointer(seine=2.0, the=1.0))
    assert scores.f1.values.tolist() == [0.0, 100.0] * 8
    assert scores.f1.groups.tolist() == [i for i in range(4, 12) for _ in range(2)]
    assert (scores.f1.metric, scores.exact_match.metric, scores.f1.unit) == ("F1", "EM", "%")
    assert scores.exact_match.value() == scores.f1.value() == 50.0
    assert task.evaluate(pointer(seine=2.0, the=1.0)) == scores.f1


def test_f1_and_exact_match_differ_where_an_answer_is_partly_right(task, pointer):
    scores = task.evaluate_both(pointer(seine=2.0, end="through"))
    assert scores.f1.values[1] == pytest.approx(50.0)
    assert scores.exact_match.value() == 0


def test_limits_are_nested(task, pointer):
    model = pointer(paris=1.0)
    groups = [task.evaluate(model, limit=limit).groups.tolist() for limit in (1, 5, 9, 16)]
    assert [len(group) for group in groups] == [1, 5, 9, 16]
    for smaller, larger in itertools.pairwise(groups):
        assert all(smaller.count(article) <= larger.count(article) for article in smaller)


@pytest.mark.parametrize("limit", [0, -3, 17])
def test_a_limit_that_cannot_be_met_is_refused(task, pointer, limit):
    with pytest.raises(
        DataError, match=f"limit must be between 1 and the 16 evaluation questions there are, not {limit}"
    ):
        task.evaluate(pointer(), limit=limit)


def test_calibration_takes_windows_of_calibration_questions_only(task, tokenizer):
    batches = task.calibration_batches(8)
    assert sum(len(batch["input_ids"]) for batch in batches) == 8
    lengths = {tuple(batch["input_ids"].shape)[1] for batch in batches}
    longest_of_calibration = len(
        tokenizer("What is the capital of France?", task.parts.calibration[-1].context).input_ids
    )
    assert max(lengths) == longest_of_calibration
    again = task.calibration_batches(8)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(batches, again, strict=True) for name in a)


def test_too_many_calibration_samples_are_refused(task):
    with pytest.raises(DataError, match="there must be 9 calibration questions, not 8"):
        task.calibration_batches(9)


def test_the_model_is_fresh_float32_and_runs_on_calibration_batches(task):
    model, other = task.load_model(), task.load_model()
    assert model is not other
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    (batch, *_) = task.calibration_batches(4)
    output = run(model, batch)
    logits = task.logits(output, batch)
    samples, tokens = batch["input_ids"].shape
    assert logits.shape == (2 * samples, tokens)
    assert torch.equal(logits[:samples], output.start_logits)
    assert torch.equal(logits[samples:], output.end_logits)


def test_padding_has_no_share_in_the_logits(task):
    (batch, *_) = task.calibration_batches(2)
    mask = batch["attention_mask"].clone()
    mask[:, -3:] = 0
    padded = {**batch, "attention_mask": mask}
    logits = task.logits(run(task.load_model(), padded), padded)
    assert (logits[:, -3:] == MASKED_LOGIT).all()
    assert (logits[:, :-3] > MASKED_LOGIT).all()
    assert torch.isfinite(logits.log_softmax(dim=1)).all()


def test_real_evaluation_is_the_same_twice(task):
    model = task.load_model()
    assert task.evaluate(model) == task.evaluate(model)


def test_other_attention_implementations_give_the_same_scores(task):
    model = task.load_model()
    expected = task.evaluate(model)
    model.set_attn_implementation("eager")
    np.testing.assert_allclose(task.evaluate(model).values, expected.values)


def test_the_fingerprint_follows_weights_and_data(task, squad_folder, bert_folder, tmp_path, write_split):
    first = task.fingerprint()
    assert first == SquadTask("squad", data=squad_folder, model=str(bert_folder)).fingerprint()
    write_split(["City_0"], ["City_1"])
    second = SquadTask("squad", data=squad_folder, model=str(bert_folder)).fingerprint()
    assert second["data"] != first["data"]
    assert second["model"] == first["model"]
    copy = tmp_path / "copy"
    shutil.copytree(bert_folder, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    third = SquadTask("squad", data=squad_folder, model=str(copy)).fingerprint()
    assert third["model"] != second["model"]
    assert third["data"] == second["data"]


def test_the_architecture_rebuilds_the_module(task):
    transformers = pytest.importorskip("transformers")
    architecture = task.architecture()
    assert architecture["family"] == "transformers"
    config = transformers.AutoConfig.for_model(**json.loads(architecture["config"]))
    model = getattr(transformers, architecture["class"])(config)
    assert model.load_state_dict(task.load_model().state_dict())


def test_the_posters_own_tasks_compare_with_it_only_by_the_official_protocol(squad_folder, write_split, bert_folder):
    official = SquadTask("squad-bert-base", data=squad_folder, model=str(bert_folder))
    assert official.published == "squad-bert-base"
    write_split(["City_0"], ["City_1"])
    assert SquadTask("squad-bert-base", data=squad_folder, model=str(bert_folder)).published is None


def test_the_default_model_lies_beside_the_data(squad_folder, bert_folder):
    shutil.copytree(bert_folder, squad_folder.parent / "squad-minilm")
    for data in (squad_folder, squad_folder.parent):
        task = SquadTask("squad-minilm", data=data, model=None)
        assert len(task.calibration_batches(1)) == 1
        assert "Apache-2.0" in task.source
        assert "only drops mean much" in task.caveat


@pytest.mark.parametrize("name", PRESETS)
def test_every_name_says_where_it_comes_from(name, squad_folder, bert_folder):
    task = SquadTask(name, data=squad_folder, model=str(bert_folder))
    assert task.name == name
    assert "CC BY-SA 4.0" in task.source
    assert str(bert_folder) in task.source


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("squad", r"The model, too, must be given: its hub id or the folder that holds it \(--model MODEL\)"),
        (
            "squad-minilm",
            r"The model's weights must be there too, in a folder 'squad-minilm' in or beside that one; or",
        ),
        ("squad-bert-base", r"The model's weights come from the hub \(csarron/bert-base-uncased-squad-v1\), or from a"),
    ],
)
def test_who_has_no_data_is_told_where_the_weights_are(name, weights, tmp_path):
    with pytest.raises(DataError, match=rf"\(--data DIR\)\. {weights}"):
        SquadTask(name, data=None, model=None)
    with pytest.raises(DataError, match=weights):
        SquadTask(name, data=tmp_path, model=None)
    with pytest.raises(DataError, match=r"\(--data DIR\)$"):
        SquadTask(name, data=None, model="an/other")


def test_what_is_missing_is_named(tmp_path, squad_folder, bert_folder):
    model = str(bert_folder)
    with pytest.raises(DataError, match=r"task 'squad' needs data: give the folder that holds dev-v1\.1\.json"):
        SquadTask("squad", data=None, model=model)
    with pytest.raises(DataError, match=r"must be an existing folder that holds dev-v1\.1\.json, not '.*nowhere'"):
        SquadTask("squad", data=tmp_path / "nowhere", model=model)
    with pytest.raises(DataError, match=r"must hold dev-v1\.1\.json; neither '.*bert' nor its sub-folder 'squad' does"):
        SquadTask("squad", data=bert_folder, model=model)
    with pytest.raises(DataError, match=r"task 'squad' needs a model: give its hub id or the folder"):
        SquadTask("squad", data=squad_folder, model=None)
    with pytest.raises(
        DataError, match=r"task 'squad-minilm' needs its model in the folder 'squad-minilm' in or beside"
    ):
        SquadTask("squad-minilm", data=squad_folder, model=None)
    with pytest.raises(DataError, match=r"a SQuAD task must be one of squad, .*, not 'squad-tiny'"):
        SquadTask("squad-tiny", data=squad_folder, model=model)


def test_a_model_for_short_sequences_is_refused(squad_folder, bert_folder, tmp_path):
    copy = tmp_path / "short"
    shutil.copytree(bert_folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 128}))
    with pytest.raises(DataError, match=r"model '.*short' must take 384 tokens at once, not only 128"):
        SquadTask("squad", data=squad_folder, model=str(copy)).calibration_batches(1)


@pytest.mark.data
def test_minilm_answers_real_questions(vsquant_data):
    task = SquadTask("squad-minilm", data=vsquant_data, model=None)
    assert len(task.parts.evaluation) == 2569
    assert len(task.parts.calibration) == 8001
    assert task.parts.articles.unlocatable == 0
    scores = task.evaluate_both(task.load_model(), limit=100)
    assert 60 < scores.f1.value() < 80
    assert scores.exact_match.value() < scores.f1.value()
    assert len(np.unique(scores.f1.groups)) == 12
