"""Boolean functions as Liberty writes them: ``(A1 * !A2) + B'``, parsed once, then evaluated on words or as Verilog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import UInt64

from vsquant.errors import LibraryError

Words = UInt64[np.ndarray, "..."]
"""64 streams a word: bit s is the value in stream s."""

_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|[01]|[()!'*&+|^])")
_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Function:
    """One node: ``operator`` is "pin", "const", "not", "and", "or" or "xor"; ``pin`` is a name, or "0" or "1"."""

    operator: str
    operands: tuple[Function, ...] = ()
    pin: str = ""

    @property
    def pins(self) -> frozenset[str]:
        """The names it depends on."""
        own = frozenset([self.pin]) if self.operator == "pin" else frozenset[str]()
        return own.union(*(operand.pins for operand in self.operands))

    def evaluate(self, values: Mapping[str, Words]) -> Words:
        """The function of words, 64 streams at once."""
        if self.operator == "pin":
            return values[self.pin]
        if self.operator == "const":
            return np.array(_ONES if self.pin == "1" else 0, dtype=np.uint64)
        first, *rest = (operand.evaluate(values) for operand in self.operands)
        if self.operator == "not":
            return ~first
        operation = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[self.operator]
        for word in rest:
            first = operation(first, word)
        return first

    def verilog(self, names: Mapping[str, str]) -> str:
        """The function as a Verilog expression of the nets in ``names``."""
        if self.operator == "pin":
            return names[self.pin]
        if self.operator == "const":
            return f"1'b{self.pin}"
        texts = [operand.verilog(names) for operand in self.operands]
        if self.operator == "not":
            return f"~{texts[0]}"
        return "(" + {"and": " & ", "or": " | ", "xor": " ^ "}[self.operator].join(texts) + ")"


@cache
def parse(text: str) -> Function:
    """Reads a function; ``'`` and ``!`` negate, ``*``, ``&`` or nothing is and, ``^`` xor, ``+`` or ``|`` or.

    Raises:
        LibraryError: the text is no Boolean function.
    """
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text) or not tokens:
        raise LibraryError(f"{text!r} is not a Boolean function of pins")
    parser = _Parser(tokens, text)
    function = parser.either()
    parser.end()
    return function


class _Parser:
    """Precedence from weak to strong: or, xor, and, negation."""

    def __init__(self, tokens: list[str], text: str) -> None:
        self._tokens, self._text = tokens, text

    def either(self) -> Function:
        return self._chain("or", "+|", self._exclusive)

    def _exclusive(self) -> Function:
        return self._chain("xor", "^", self._both)

    def _both(self) -> Function:
        operands = [self._negated()]
        while self._peek() not in ("", ")", "+", "|", "^"):
            if self._peek() in ("*", "&"):
                self._tokens.pop(0)
            operands.append(self._negated())
        return operands[0] if len(operands) == 1 else Function("and", tuple(operands))

    def _negated(self) -> Function:
        token = self._tokens.pop(0) if self._tokens else ""
        if token == "!":
            return Function("not", (self._negated(),))
        if token == "(":
            function = self.either()
            if self._peek() != ")":
                raise LibraryError(f"{self._text!r} has a bracket that is not closed")
            self._tokens.pop(0)
        elif token in ("0", "1"):
            function = Function("const", pin=token)
        elif token and (token[0].isalpha() or token[0] == "_"):
            function = Function("pin", pin=token)
        else:
            raise LibraryError(f"{self._text!r} is not a Boolean function of pins")
        while self._peek() == "'":
            self._tokens.pop(0)
            function = Function("not", (function,))
        return function

    def end(self) -> None:
        if self._tokens:
            raise LibraryError(f"{self._text!r} is not a Boolean function of pins")

    def _chain(self, operator: str, signs: str, part: object) -> Function:
        assert callable(part)
        operands = [part()]
        while self._peek() and self._peek() in signs:
            self._tokens.pop(0)
            operands.append(part())
        return operands[0] if len(operands) == 1 else Function(operator, tuple(operands))

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else ""
