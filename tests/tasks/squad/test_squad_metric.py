"""The official SQuAD v1.1 metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsquant.tasks.squad.metric import exact_match, f1, normalize


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Seine, ", "seine"),
        ("a an the", ""),
        ("theatre and another", "theatre and another"),
        ("U.S.A.", "usa"),
        ("a-the b", "athe b"),
        ("\tSaint-Denis\n", "saintdenis"),
        ("“Quoted”", "“quoted”"),
        ("The the-a", "thea"),
        ("ΑΒΓ the", "αβγ"),
        ("an\u00a0old  king", "old king"),
    ],
)
def test_normalization_is_lower_case_then_punctuation_then_articles_then_spaces(answer, expected):
    assert normalize(answer) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "match", "overlap"),
    [
        ("the Seine", ["Seine"], 1, 1),
        ("river Seine", ["Seine"], 0, 2 / 3),
        ("Seine", ["Thames", "the river Seine"], 0, 2 / 3),
        ("Thames", ["Seine"], 0, 0),
        ("", ["Seine"], 0, 0),
        ("the", ["a"], 1, 0),
        ("old old king", ["old king king"], 0, 2 / 3),
        ("a b c d", ["c d e", "d"], 0, 4 / 6),
    ],
)
def test_the_best_gold_answer_counts(prediction, golds, match, overlap):
    assert exact_match(prediction, golds) == match
    assert f1(prediction, golds) == pytest.approx(overlap)


@given(st.text("ab the.,", max_size=12), st.lists(st.text("ab the.,", max_size=12), min_size=1, max_size=3))
def test_more_gold_answers_never_lower_a_score(prediction, golds):
    assert f1(prediction, golds) >= f1(prediction, golds[:1])
    assert exact_match(prediction, golds) >= exact_match(prediction, golds[:1])
    assert 0 <= f1(prediction, golds) <= 1
