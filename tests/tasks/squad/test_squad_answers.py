"""The best span of a window, and of a question's windows."""

import itertools

import pytest
import torch

from vsquant.errors import NonFiniteError
from vsquant.progress import silent
from vsquant.tasks.squad.answers import ANSWER_TOKENS, best_spans, predict
from vsquant.tasks.squad.data import Answer, Question
from vsquant.tasks.squad.windows import make_windows


def brute_force(start, end, first, last):
    spans = [(i, j) for i, j in itertools.product(range(first, last + 1), repeat=2) if i <= j < i + ANSWER_TOKENS]
    return max(spans, key=lambda span: (float(start[span[0]] + end[span[1]]), -span[0], -span[1]))


@pytest.mark.parametrize("tokens", [4, 29, 30, 31, 90])
@pytest.mark.parametrize("levels", [2, 1000])
def test_the_best_of_all_allowed_spans_is_found(tokens, levels):
    generator = torch.Generator().manual_seed(tokens)
    start, end = torch.randint(levels, (2, 40, tokens), generator=generator).float()
    first = torch.randint(tokens, (40,), generator=generator)
    last = torch.maximum(first, torch.randint(tokens, (40,), generator=generator))
    score, begin, finish = best_spans(start, end, first, last)
    for row in range(40):
        i, j = brute_force(start[row], end[row], int(first[row]), int(last[row]))
        assert (int(begin[row]), int(finish[row])) == (i, j)
        assert score[row] == start[row, i] + end[row, j]


def test_a_span_is_never_longer_than_allowed():
    start, end = torch.zeros(2, 1, 100)
    start[0, 10] = end[0, 10 + ANSWER_TOKENS] = 5
    _, begin, finish = best_spans(start, end, torch.tensor([0]), torch.tensor([99]))
    assert int(finish - begin) < ANSWER_TOKENS


def test_logits_outside_the_context_do_not_count():
    start, end = torch.zeros(2, 1, 10)
    start[0, 2] = end[0, 9] = 100
    start[0, 5] = end[0, 6] = 1
    _, begin, finish = best_spans(start, end, torch.tensor([4]), torch.tensor([7]))
    assert (int(begin), int(finish)) == (5, 6)


def ask(context: str, identifier: str = "q") -> Question:
    return Question(
        identifier=identifier,
        text="Which river is it?",
        context=context,
        answers=(Answer(text="x", start=None),),
        article=0,
        paragraph=0,
    )


def test_answers_are_cut_from_the_context_as_it_is_written(tokenizer, pointer):
    questions = [ask("In France, the SEINE flows."), ask("It is  the old Seine.")]
    model = pointer(the=1.0, seine=2.0)
    answers = predict(model, questions, make_windows(tokenizer, questions), step="", progress=silent)
    assert answers == {0: "SEINE", 1: "Seine"}


def test_the_window_with_the_highest_score_answers(tokenizer, pointer):
    filler = "it is old " * 200
    questions = [ask(f"London {filler} Seine {filler}"), ask(f"Seine {filler} London")]
    windows = make_windows(tokenizer, questions)
    assert len(windows) > 6
    answers = predict(pointer(seine=2.0, london=1.0), questions, windows, step="", progress=silent)
    assert answers == {0: "Seine", 1: "Seine"}


def test_of_equal_scores_the_first_window_answers(tokenizer, pointer):
    questions = [ask("Paris " + "it is old " * 300 + "London")]
    windows = make_windows(tokenizer, questions)
    model = pointer(paris=1.0, london=1.0)
    assert predict(model, questions, windows, step="", progress=silent) == {0: "Paris"}
    assert predict(model, questions, windows[::-1], step="", progress=silent) == {0: "Paris"}


def test_progress_goes_from_zero_to_all_tokens(tokenizer, pointer):
    questions = [ask("Paris is old"), ask("Paris")]
    windows = make_windows(tokenizer, questions)
    calls = []
    predict(pointer(), questions, windows, step="evaluating", progress=lambda *call: calls.append(call))
    total = sum(window.tokens for window in windows)
    assert calls[0] == ("evaluating", 0, total)
    assert calls[-1] == ("evaluating", total, total)
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})


def test_logits_that_are_not_finite_are_refused_with_the_question_named(tokenizer, pointer):
    questions = [ask("Paris is old", "first"), ask("Seine is old", "second")]
    windows = make_windows(tokenizer, questions)
    with pytest.raises(NonFiniteError, match="must be finite, but those of question 'second' are not"):
        predict(pointer(seine=float("nan")), questions, windows, step="", progress=silent)
