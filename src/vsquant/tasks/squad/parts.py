"""Which of SQuAD's questions are calibrated with, and which are evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from vsquant.errors import DataError
from vsquant.tasks.squad.data import Articles, Question, first_problem, read_articles
from vsquant.tasks.textfiles import read_json

DEV_FILE: Final = "dev-v1.1.json"
TRAIN_FILE: Final = "train-v1.1.json"
SPLIT_FILE: Final = "split.json"
CALIBRATION_PARAGRAPHS: Final = 128


class Split(BaseModel):
    """Titles of the dev set's articles to calibrate with and of those to evaluate."""

    calibration: list[str]
    evaluation: list[str]


class Parts:
    """The calibration and the evaluation questions of one folder.

    Where split.json lies beside dev-v1.1.json, it says by article which is which. Otherwise all of the dev set is
    evaluated (the official protocol) and train-v1.1.json calibrated with; without that, the dev set's last paragraphs
    are calibrated with and not evaluated. ``files`` are those in use, ``caveat`` says what departs from the official
    protocol. The training set is read only when it is asked for.

    Raises:
        DataError: a file is malformed, the split does not fit the articles, or nothing is left to evaluate.
    """

    def __init__(self, folder: Path) -> None:
        dev, split, train = folder / DEV_FILE, folder / SPLIT_FILE, folder / TRAIN_FILE
        self.articles = read_articles(dev)
        self.evaluation = self.articles.questions
        self._held_out: tuple[Question, ...] = ()
        self._train: Path | None = None
        self.caveat = ""
        self.files: tuple[Path, ...]
        if split.is_file():
            self.files = (dev, split)
            self._split_by_articles(split)
        elif train.is_file():
            self.files = (dev, train)
            self._train = train
        else:
            self.files = (dev,)
            self._split_by_paragraphs()
        if not self.evaluation:
            raise DataError(f"{dev} must leave at least one question to evaluate, not none")
        if self.articles.unlocatable:
            self.caveat += f" {self.articles.unlocatable} gold answers do not occur in their contexts."
        self.caveat = self.caveat.strip()

    @property
    def official(self) -> bool:
        """Whether the dev set is evaluated as a whole, the paragraphs held out for calibration aside."""
        return self.files[-1].name != SPLIT_FILE

    @cached_property
    def calibration(self) -> tuple[Question, ...]:
        """The calibration questions, in their file's order."""
        return self._held_out if self._train is None else read_articles(self._train).questions

    def _split_by_articles(self, path: Path) -> None:
        split = _read_split(path, self.articles)
        self._held_out = _of_titles(self.articles, split.calibration)
        self.evaluation = _of_titles(self.articles, split.evaluation)
        self.caveat = (
            f"Evaluated on {len(split.evaluation)} of the dev set's articles and calibrated with "
            f"{len(split.calibration)} others, which is not the official protocol: never compare the score with "
            "published ones."
        )

    def _split_by_paragraphs(self) -> None:
        paragraphs = sorted({question.paragraph for question in self.articles.questions})
        count = min(CALIBRATION_PARAGRAPHS, -(-len(paragraphs) // 10))
        held_out = set(paragraphs[len(paragraphs) - count :])
        questions = self.articles.questions
        self._held_out = tuple(question for question in questions if question.paragraph in held_out)
        self.evaluation = tuple(question for question in questions if question.paragraph not in held_out)
        self.caveat = (
            f"Calibrated with the last {count} of the dev set's {len(paragraphs)} paragraphs, which are not evaluated, "
            f"since {TRAIN_FILE} is not there: {len(self.evaluation)} of {len(questions)} questions count."
        )


def _read_split(path: Path, articles: Articles) -> Split:
    try:
        split = Split.model_validate(read_json(path))
    except ValidationError as error:
        raise DataError(f"{path} must be a split of articles: {first_problem(error)}") from error
    unknown = sorted({*split.calibration, *split.evaluation} - set(articles.titles))
    if unknown:
        raise DataError(f"{path} must name only articles of {DEV_FILE}, not {_some(unknown)}")
    shared = sorted(set(split.calibration) & set(split.evaluation))
    if shared:
        raise DataError(f"{path} must name each article on one side only, not {_some(shared)} on both")
    return split


def _of_titles(articles: Articles, titles: Iterable[str]) -> tuple[Question, ...]:
    wanted = set(titles)
    return tuple(question for question in articles.questions if articles.titles[question.article] in wanted)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
