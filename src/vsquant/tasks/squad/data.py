"""Reading SQuAD v1.1 files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from vsquant.errors import DataError
from vsquant.tasks.textfiles import read_json


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A gold answer and the character of the context at which it starts, None where the context does not hold it."""

    text: str
    start: int | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its context; ``article`` and ``paragraph`` are positions in the file, from 0."""

    identifier: str
    text: str
    context: str
    answers: tuple[Answer, ...]
    article: int
    paragraph: int


@dataclass(frozen=True, kw_only=True)
class Articles:
    """All questions of one file, in its order, and the titles of its articles."""

    titles: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def unlocatable(self) -> int:
        """How many gold answers their contexts do not hold: they count for EM and F1, but cannot be trained on."""
        return sum(answer.start is None for question in self.questions for answer in question.answers)


class _Answer(BaseModel):
    text: str
    answer_start: int


class _Qa(BaseModel):
    id: str
    question: str
    answers: list[_Answer | str]


class _Paragraph(BaseModel):
    context: str
    qas: list[_Qa]


class _Article(BaseModel):
    title: str
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


def read_articles(path: Path) -> Articles:
    """The questions of a SQuAD v1.1 file, whose answers are objects with ``answer_start`` or bare strings.

    A bare string, or one that does not stand at its ``answer_start``, is taken at its first occurrence in the context.

    Raises:
        DataError: the file is not SQuAD v1.1 JSON, or a question has no answer; names the file and the place.
    """
    try:
        file = _File.model_validate(read_json(path))
    except ValidationError as error:
        raise DataError(f"{path} must be a SQuAD v1.1 file: {first_problem(error)}") from error
    questions: list[Question] = []
    paragraph = 0
    for number, article in enumerate(file.data):
        for entry in article.paragraphs:
            questions += (_question(path, qa, entry.context, number, paragraph) for qa in entry.qas)
            paragraph += 1
    return Articles(titles=tuple(article.title for article in file.data), questions=tuple(questions))


def _question(path: Path, qa: _Qa, context: str, article: int, paragraph: int) -> Question:
    if not qa.answers:
        raise DataError(
            f"{path} must give every question an answer, but question {qa.id!r} has none; "
            "the unanswerable questions of SQuAD v2.0 are not supported"
        )
    return Question(
        identifier=qa.id,
        text=qa.question.strip(),
        context=context,
        answers=tuple(_answer(answer, context) for answer in qa.answers),
        article=article,
        paragraph=paragraph,
    )


def _answer(answer: _Answer | str, context: str) -> Answer:
    if isinstance(answer, _Answer):
        if answer.answer_start >= 0 and context.startswith(answer.text, answer.answer_start):
            return Answer(text=answer.text, start=answer.answer_start)
        answer = answer.text
    start = context.find(answer)
    return Answer(text=answer, start=None if start < 0 else start)


def first_problem(error: ValidationError) -> str:
    """Where the first problem is in the document, and what it is."""
    problem = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    return f"{place or 'the document'}: {problem['msg']}"
