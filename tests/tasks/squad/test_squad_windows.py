"""Windows of tokens: nothing of a context is lost, nothing is padded."""

import itertools

import pytest

from vsquant.errors import DataError
from vsquant.tasks.squad.data import Answer, Question
from vsquant.tasks.squad.windows import (
    BATCH_TOKENS,
    QUESTION_TOKENS,
    SEQUENCE_TOKENS,
    STRIDE_TOKENS,
    collate,
    make_windows,
    plan_batches,
)


def make_question(context: str, text: str = "Which river flows through Paris?") -> Question:
    return Question(
        identifier="q", text=text, context=context, answers=(Answer(text="x", start=None),), article=0, paragraph=0
    )


def long_context(words: int) -> str:
    return " ".join(("Paris", "is", "old", "and", "large")[i % 5] for i in range(words))


def test_a_short_context_is_one_window_with_the_characters_of_its_tokens(tokenizer):
    (window,) = make_windows(tokenizer, [make_question("Paris, the  capital.")])
    assert window.tokens == 1 + 6 + 1 + 5 + 1
    assert window.first_context == 8
    assert window.characters.tolist() == [[0, 5], [5, 6], [7, 10], [12, 19], [19, 20]]
    assert window.inputs["token_type_ids"].tolist() == [0] * 8 + [1] * 6
    assert window.inputs["attention_mask"].tolist() == [1] * 14


def test_windows_of_a_long_context_cover_it_and_share_the_stride(tokenizer):
    question = make_question(long_context(1000))
    windows = make_windows(tokenizer, [question])
    assert all(window.tokens <= SEQUENCE_TOKENS for window in windows)
    assert windows[0].tokens == SEQUENCE_TOKENS
    covered = {tuple(span) for window in windows for span in window.characters.tolist()}
    assert len(covered) == 1000
    for before, after in itertools.pairwise(windows):
        assert before.characters[-STRIDE_TOKENS].tolist() == after.characters[0].tolist()


def test_windows_say_which_question_they_are_of(tokenizer):
    windows = make_windows(tokenizer, [make_question("Paris"), make_question(long_context(500)), make_question("old")])
    assert [window.question for window in windows] == [0, 1, 1, 2]


def test_a_long_question_is_cut(tokenizer):
    (window,) = make_windows(tokenizer, [make_question("Paris is old", text="what " * 300)])
    assert window.tokens == 1 + QUESTION_TOKENS + 1 + 3 + 1


def test_a_question_of_just_the_longest_length_is_not_cut(tokenizer):
    (window,) = make_windows(tokenizer, [make_question("Paris", text="what " * QUESTION_TOKENS)])
    assert window.first_context == QUESTION_TOKENS + 2


def test_a_context_without_tokens_is_refused(tokenizer):
    with pytest.raises(DataError, match="the context of question 'q' must hold text, not blanks"):
        make_windows(tokenizer, [make_question("  \n")])


def test_batches_hold_windows_of_one_length_only_and_lose_none(tokenizer):
    windows = make_windows(tokenizer, [make_question(long_context(1 + i % 400)) for i in range(900)])
    batches = plan_batches(windows)
    assert sorted(id(window) for batch in batches for window in batch) == sorted(map(id, windows))
    assert all(len({window.tokens for window in batch}) == 1 for batch in batches)
    assert all(sum(window.tokens for window in batch) <= BATCH_TOKENS for batch in batches)
    lengths = [batch[0].tokens for batch in batches]
    assert lengths == sorted(lengths, reverse=True)


def test_collated_inputs_are_the_windows_row_by_row(tokenizer):
    windows = make_windows(tokenizer, [make_question("Paris is old"), make_question("London is large")])
    inputs = collate(windows)
    assert set(inputs) == {"input_ids", "token_type_ids", "attention_mask"}
    for row, window in enumerate(windows):
        assert inputs["input_ids"][row].tolist() == window.inputs["input_ids"].tolist()
