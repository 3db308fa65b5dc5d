"""From start and end logits to the text of the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from vsquant.errors import NonFiniteError
from vsquant.progress import Progress
from vsquant.tasks.base import run
from vsquant.tasks.pretrained import on_device_of
from vsquant.tasks.squad.data import Question
from vsquant.tasks.squad.windows import Window, collate, plan_batches

ANSWER_TOKENS: Final = 30


def best_spans(
    start: torch.Tensor, end: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best span of each window: its score, first and last token, each (windows,).

    ``start`` and ``end`` are logits (windows, tokens). A span lies within the tokens ``first`` … ``last`` (windows,),
    is at most `ANSWER_TOKENS` long, and scores the sum of its two logits. All such spans are searched, so no choice of
    how many best starts and ends to pair can lose one; of equal scores the earliest, then shortest span is taken.
    """
    tokens = start.shape[1]
    position = torch.arange(tokens, device=start.device)
    outside = (position < first[:, None]) | (position > last[:, None])
    ends = nn.functional.pad(end.float().masked_fill(outside, -math.inf), (0, ANSWER_TOKENS - 1), value=-math.inf)
    scores = start.float().masked_fill(outside, -math.inf)[:, :, None] + ends.unfold(1, ANSWER_TOKENS, 1)
    best, place = scores.flatten(1).max(dim=1)
    begin = place // ANSWER_TOKENS
    return best, begin, begin + place % ANSWER_TOKENS


def predict(
    model: nn.Module, questions: Sequence[Question], windows: Sequence[Window], *, step: str, progress: Progress
) -> dict[int, str]:
    """The answer to every question that has a window, by the question's position.

    Of a question's windows the one with the highest score answers, the first one where scores are equal. ``progress``
    counts tokens, which take equally long.

    Raises:
        NonFiniteError: the model's logits hold NaN or Inf.
    """
    total = sum(window.tokens for window in windows)
    done = 0
    best: dict[int, tuple[float, int, str]] = {}
    progress(step, done, total)
    with torch.inference_mode():
        for batch in plan_batches(windows):
            for window, (score, answer) in zip(batch, _answers(model, questions, batch), strict=True):
                candidate = (score, -window.first_character, answer)
                best[window.question] = max(best.get(window.question, candidate), candidate)
            done += sum(window.tokens for window in batch)
            progress(step, done, total)
    return {question: answer for question, (_, _, answer) in best.items()}


def _answers(model: nn.Module, questions: Sequence[Question], batch: Sequence[Window]) -> list[tuple[float, str]]:
    output = run(model, on_device_of(model, collate(batch)))
    finite = torch.isfinite(output.start_logits + output.end_logits).all(dim=1)
    for window, is_finite in zip(batch, finite.tolist(), strict=True):
        if not is_finite:
            name = questions[window.question].identifier
            raise NonFiniteError(f"start and end logits must be finite, but those of question {name!r} are not")
    first = torch.tensor([window.first_context for window in batch], device=output.start_logits.device)
    count = torch.tensor([len(window.characters) for window in batch], device=first.device)
    score, begin, end = best_spans(output.start_logits, output.end_logits, first, first + count - 1)
    spans = zip(score.tolist(), (begin - first).tolist(), (end - first).tolist(), batch, strict=True)
    return [
        (value, questions[window.question].context[window.characters[i, 0] : window.characters[j, 1]])
        for value, i, j, window in spans
    ]
