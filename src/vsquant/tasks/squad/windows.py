"""Questions and their contexts as token windows, and windows of equal length as batches.

The protocol is that of BERT (Devlin et al., NAACL 2019, section 4.2 and its published code): sequences of up to 384
tokens, questions cut to 64 tokens, and long contexts cut into windows that share 128 tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from vsquant.errors import DataError
from vsquant.tasks.squad.data import Question

SEQUENCE_TOKENS: Final = 384
STRIDE_TOKENS: Final = 128
QUESTION_TOKENS: Final = 64
BATCH_TOKENS: Final = 2048


@dataclass(frozen=True, kw_only=True)
class Window:
    """One sequence of tokens: [CLS] question [SEP] a piece of the context [SEP], without padding.

    ``question`` is the position in the list of questions it was made from, ``inputs`` holds the model's inputs by name,
    each (tokens,). The context's tokens are ``first_context`` and those after it, one row of ``characters`` (context
    tokens, 2) for each: its first and past-the-end character in the context.
    """

    question: int
    inputs: Mapping[str, npt.NDArray[np.int64]]
    first_context: int
    characters: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return len(self.inputs["input_ids"])

    @property
    def first_character(self) -> int:
        """Where in the context this window's piece begins."""
        return int(self.characters[0, 0])


def make_windows(tokenizer: Any, questions: Sequence[Question]) -> list[Window]:
    """The windows of all questions, in order; ``tokenizer`` is a fast tokenizer of `transformers`.

    Raises:
        DataError: a context has no token.
    """
    encoding = tokenizer(
        _cut_questions(tokenizer, [question.text for question in questions]),
        [question.context for question in questions],
        truncation="only_second",
        max_length=SEQUENCE_TOKENS,
        stride=STRIDE_TOKENS,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    names = [name for name in tokenizer.model_input_names if name in encoding]
    windows = []
    for row, question in enumerate(encoding["overflow_to_sample_mapping"]):
        in_context = [position for position, part in enumerate(encoding.sequence_ids(row)) if part == 1]
        if not in_context:
            raise DataError(f"the context of question {questions[question].identifier!r} must hold text, not blanks")
        first, last = in_context[0], in_context[-1]
        windows.append(
            Window(
                question=question,
                inputs={name: np.asarray(encoding[name][row], np.int64) for name in names},
                first_context=first,
                characters=np.asarray(encoding["offset_mapping"][row][first : last + 1], np.int64),
            )
        )
    return windows


def plan_batches(windows: Sequence[Window]) -> list[list[Window]]:
    """``windows`` in batches of equal length and at most `BATCH_TOKENS` tokens, longest first.

    Nothing is ever padded, so no padding enters a quantized layer's range or its scale.
    """
    by_length: defaultdict[int, list[Window]] = defaultdict(list)
    for window in windows:
        by_length[window.tokens].append(window)
    batches = []
    for length, group in sorted(by_length.items(), reverse=True):
        size = max(1, BATCH_TOKENS // length)
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches


def collate(windows: Sequence[Window]) -> dict[str, torch.Tensor]:
    """The model's inputs by name, each (windows, tokens), of windows of equal length."""
    return {name: torch.from_numpy(np.stack([window.inputs[name] for window in windows])) for name in windows[0].inputs}


def _cut_questions(tokenizer: Any, questions: Sequence[str]) -> list[str]:
    encoding = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        question[: characters[QUESTION_TOKENS - 1][1]] if len(characters) > QUESTION_TOKENS else question
        for question, characters in zip(questions, encoding["offset_mapping"], strict=True)
    ]
