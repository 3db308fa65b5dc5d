"""Exact match and F1 as SQuAD v1.1 defines them.

Source: Rajpurkar et al., *SQuAD: 100,000+ Questions for Machine Comprehension of Text*, EMNLP 2016, and the evaluation
script published with version 1.1 of the data.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Final

_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")


def normalize(answer: str) -> str:
    """``answer`` in lower case, without punctuation, then without articles, its words one space apart."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold_answers: Sequence[str]) -> float:
    """1.0 where the normalized prediction equals one of the normalized gold answers, else 0.0."""
    normalized = normalize(prediction)
    return float(any(normalized == normalize(gold) for gold in gold_answers))


def f1(prediction: str, gold_answers: Sequence[str]) -> float:
    """The best F1 (0..1) over the gold answers; 0.0 where no word is shared, two empty answers included."""
    words = normalize(prediction).split()
    return max(_overlap(words, normalize(gold).split()) for gold in gold_answers)


def _overlap(prediction: Sequence[str], gold: Sequence[str]) -> float:
    shared = sum((Counter(prediction) & Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
