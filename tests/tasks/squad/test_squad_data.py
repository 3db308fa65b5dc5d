"""Reading SQuAD files of both forms, and what is wrong with those that are not."""

import json

import pytest

from vsquant.errors import DataError
from vsquant.tasks.squad.data import Answer, read_articles

CONTEXT = "London lies on the Thames. The Thames is old."


@pytest.fixture
def read(tmp_path, make_article):
    def read_answers(*answers):
        path = tmp_path / "dev-v1.1.json"
        path.write_text(json.dumps({"data": [make_article("London", (CONTEXT, [(" Which river? ", list(answers))]))]}))
        return read_articles(path)

    return read_answers


def test_an_answer_with_its_start_keeps_it(read):
    (question,) = read({"text": "Thames", "answer_start": 31}).questions
    assert question.answers == (Answer(text="Thames", start=31),)
    assert (question.text, question.context, question.identifier) == ("Which river?", CONTEXT, "London-0-0")


def test_a_bare_answer_is_taken_at_its_first_occurrence(read):
    assert read("Thames").questions[0].answers == (Answer(text="Thames", start=19),)


@pytest.mark.parametrize("start", [0, 20, 1000, -6])
def test_an_answer_that_does_not_stand_where_it_says_is_taken_at_its_first_occurrence(read, start):
    assert read({"text": "Thames", "answer_start": start}).questions[0].answers[0].start == 19


def test_answers_that_are_nowhere_are_counted_and_kept(read):
    articles = read("Seine", "Thames", {"text": "Rhine", "answer_start": 3})
    assert articles.unlocatable == 2
    assert [answer.start for answer in articles.questions[0].answers] == [None, 19, None]


def test_articles_and_paragraphs_are_numbered(tmp_path, make_article):
    entry = ("A b.", [("What?", ["b"]), ("Who?", ["A"])])
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": [make_article("One", entry, entry), make_article("Two", entry)]}))
    articles = read_articles(path)
    assert articles.titles == ("One", "Two")
    assert [(q.article, q.paragraph) for q in articles.questions] == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 2), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [', r"dev\.json must be JSON: Expecting value in line 1, column 11"),
        ("[]", r"dev\.json must be a SQuAD v1\.1 file: the document: "),
        ("{}", r"dev\.json must be a SQuAD v1\.1 file: data: Field required"),
        (
            '{"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}',
            r"data\[0\]\.paragraphs\[0\]\.context: Field required",
        ),
        (
            '{"data": [{"title": "T", "paragraphs": [{"context": "C", "qas": [{"id": 7}]}]}]}',
            r"data\[0\]\.paragraphs\[0\]\.qas\[0\]\.id: Input should be a valid string",
        ),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path, text, message):
    path = tmp_path / "dev.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_articles(path)


def test_a_question_without_answers_is_named(read):
    with pytest.raises(
        DataError, match=r"must give every question an answer, but question 'London-0-0' has none; the un"
    ):
        read()


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "dev.json"
    path.write_bytes(b'{"data": "\xff"}')
    with pytest.raises(DataError, match=r"dev\.json must be UTF-8 text, but byte 10 is not"):
        read_articles(path)
