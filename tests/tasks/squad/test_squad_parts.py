"""What is calibrated with and what is evaluated, in each of the three cases."""

import json
import shutil

import pytest

from vsquant.errors import DataError
from vsquant.tasks.squad.parts import CALIBRATION_PARAGRAPHS, Parts


def test_a_split_says_which_articles_are_which(squad_folder, write_split):
    write_split(["City_3", "City_0"], ["City_1"])
    shutil.copy(squad_folder / "dev-v1.1.json", squad_folder / "train-v1.1.json")
    parts = Parts(squad_folder)
    assert [q.article for q in parts.calibration] == [0, 0, 3, 3]
    assert [q.article for q in parts.evaluation] == [1, 1]
    assert [file.name for file in parts.files] == ["dev-v1.1.json", "split.json"]
    assert not parts.official
    assert parts.caveat == (
        "Evaluated on 1 of the dev set's articles and calibrated with 2 others, which is not the official protocol: "
        "never compare the score with published ones."
    )


def test_with_the_training_set_all_of_the_dev_set_is_evaluated(squad_folder, make_article):
    train = {
        "data": [make_article("Train", ("A king lived.", [("Who lived?", [{"text": "king", "answer_start": 2}])]))]
    }
    (squad_folder / "train-v1.1.json").write_text(json.dumps(train))
    parts = Parts(squad_folder)
    assert len(parts.evaluation) == 24
    assert [q.identifier for q in parts.calibration] == ["Train-0-0"]
    assert [file.name for file in parts.files] == ["dev-v1.1.json", "train-v1.1.json"]
    assert parts.official
    assert parts.caveat == ""


def test_without_either_the_last_paragraphs_are_held_out(squad_folder):
    parts = Parts(squad_folder)
    assert {q.article for q in parts.calibration} == {10, 11}
    assert {q.article for q in parts.evaluation} == set(range(10))
    assert parts.official
    assert parts.caveat == (
        "Calibrated with the last 2 of the dev set's 12 paragraphs, which are not evaluated, since train-v1.1.json is "
        "not there: 20 of 24 questions count."
    )


def test_no_more_paragraphs_are_held_out_than_calibration_needs(squad_folder, make_article):
    entry = ("A b.", [("What?", ["b"])])
    data = [make_article("Long", *[entry] * (11 * CALIBRATION_PARAGRAPHS))]
    (squad_folder / "dev-v1.1.json").write_text(json.dumps({"data": data}))
    assert len(Parts(squad_folder).calibration) == CALIBRATION_PARAGRAPHS


def test_answers_that_cannot_be_located_are_reported(squad_folder, make_article):
    data = [make_article("A", *[("A b.", [("What?", ["b", "c"])])] * 2)]
    (squad_folder / "dev-v1.1.json").write_text(json.dumps({"data": data}))
    assert Parts(squad_folder).caveat.endswith("2 gold answers do not occur in their contexts.")


@pytest.mark.parametrize(
    ("calibration", "evaluation", "message"),
    [
        (["City_0"], ["Rome"], r"split\.json must name only articles of dev-v1\.1\.json, not 'Rome'"),
        (list("abcde"), ["City_0"], r"not 'a', 'b', 'c' and 2 more"),
        (["City_0", "City_1"], ["City_1"], r"must name each article on one side only, not 'City_1' on both"),
        (["City_0"], [], r"dev-v1\.1\.json must leave at least one question to evaluate, not none"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(squad_folder, write_split, calibration, evaluation, message):
    write_split(calibration, evaluation)
    with pytest.raises(DataError, match=message):
        Parts(squad_folder)


def test_a_malformed_split_is_named(squad_folder):
    (squad_folder / "split.json").write_text('{"evaluation": []}')
    with pytest.raises(DataError, match=r"split\.json must be a split of articles: calibration: Field required"):
        Parts(squad_folder)


def test_a_file_without_questions_leaves_nothing_to_evaluate(squad_folder):
    (squad_folder / "dev-v1.1.json").write_text('{"data": []}')
    with pytest.raises(DataError, match="must leave at least one question to evaluate, not none"):
        Parts(squad_folder)
