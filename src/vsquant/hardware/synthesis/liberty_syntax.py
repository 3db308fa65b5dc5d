"""The syntax of Liberty files: nested groups of attributes. What is not understood is an error with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vsquant.errors import LibraryError

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\\\r?\n|/\*.*?\*/|//[^\n]*)
    |"(?P<string>(?:[^"\\]|\\.|\\\r?\n)*)"
    |(?P<punctuation>[(){}:;,])
    |(?P<word>[^\s(){}:;,"]+)""",
    re.VERBOSE | re.DOTALL,
)
_CONTINUATION = re.compile(r"\\\r?\n\s*")


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int
    starts_line: bool


@dataclass(kw_only=True)
class Group:
    """``kind (arguments) { … }``: simple attributes, complex attributes (the last of a name wins), and inner groups."""

    kind: str
    arguments: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def inner(self, kind: str) -> list[Group]:
        """The inner groups of one kind, in order."""
        return [group for group in self.groups if group.kind == kind]

    @property
    def name(self) -> str:
        """The first argument, or nothing."""
        return self.arguments[0] if self.arguments else ""


def parse(text: str) -> Group:
    """The one outermost group of a Liberty file.

    Raises:
        LibraryError: the text is not Liberty, with the line.
    """
    parser = _Parser(text)
    group = parser.statement(None)
    if group is None or group.kind != "library":
        raise LibraryError("a Liberty file must begin with library (name) { … }")
    return group


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan()
        self._next: _Token = next(self._tokens)

    def statement(self, parent: Group | None) -> Group | None:
        """One attribute, kept in ``parent``, or one group, which is returned."""
        name = self._take("word").text
        if self._next.text == ":" and self._next.kind == "punctuation":
            self._take("punctuation")
            self._keep_simple(parent, name)
            return None
        arguments = self._arguments()
        if self._next.text == "{":
            return self._body(Group(kind=name, arguments=arguments))
        self._end_of_statement()
        if parent is not None:
            parent.lists[name] = arguments
        return None

    def _keep_simple(self, parent: Group | None, name: str) -> None:
        words: list[str] = []
        while self._next.kind in ("word", "string") and not (words and self._next.starts_line):
            words.append(self._take(self._next.kind).text)
        self._end_of_statement()
        if parent is not None:
            parent.attributes[name] = " ".join(words)

    def _arguments(self) -> tuple[str, ...]:
        self._expect("(")
        arguments: list[str] = []
        while self._next.text != ")" or self._next.kind == "string":
            if self._next.kind == "punctuation":
                self._expect(",")
            else:
                arguments.append(self._take(self._next.kind).text)
        self._expect(")")
        return tuple(arguments)

    def _body(self, group: Group) -> Group:
        self._expect("{")
        while self._next.text != "}":
            inner = self.statement(group)
            if inner is not None:
                group.groups.append(inner)
        self._expect("}")
        self._end_of_statement()
        return group

    def _end_of_statement(self) -> None:
        while self._next.kind == "punctuation" and self._next.text == ";":
            self._take("punctuation")

    def _expect(self, text: str) -> None:
        if self._next.text != text or self._next.kind != "punctuation":
            self._fail(f"{text!r}")
        self._take("punctuation")

    def _take(self, kind: str) -> _Token:
        token = self._next
        if token.kind != kind:
            self._fail(f"a {kind}")
        self._next = next(self._tokens)
        return token

    def _scan(self) -> Iterator[_Token]:
        offset, starts_line = 0, True
        while offset < len(self._text):
            match = _TOKEN.match(self._text, offset)
            if match is None:
                raise LibraryError(f"line {self._line(offset)} of the Liberty file cannot be read: an unclosed quote?")
            kind = str(match.lastgroup)
            if kind == "skip":
                starts_line = starts_line or "\n" in match[kind]
            else:
                yield _Token(kind, _CONTINUATION.sub(" ", match[kind]), offset, starts_line)
                starts_line = False
            offset = match.end()
        while True:
            yield _Token("end", "the end of the file", offset, True)

    def _line(self, offset: int) -> int:
        return self._text.count("\n", 0, offset) + 1

    def _fail(self, wanted: str) -> None:
        line = self._line(self._next.offset)
        raise LibraryError(f"line {line} of the Liberty file must have {wanted}, not {self._next.text[:40]!r}")
