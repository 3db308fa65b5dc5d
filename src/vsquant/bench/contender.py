"""What the runner times: one library at one setting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from vsquant.bench.cases import Case

Call: TypeAlias = Callable[[], Any]
"""One call, float in and float out; it takes the next copy of the weights by itself."""


class RefusedError(Exception):
    """Why a contender cannot run a case; the message is printed in its row."""


class ParityError(RefusedError):
    """A result of ours is not that of the definition: no speed is printed for the case."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A contender with its weights quantized.

    ``start(threads)`` gives the call to be timed. ``output()`` is one result, shaped as the float result ``expected``,
    and ``error`` the relative error allowed; ``checked`` says what else was compared.
    """

    start: Callable[[int], Call]
    output: Callable[[], Tensor]
    expected: Tensor
    error: float
    checked: str = ""
    weight_bytes: int = 0
    setting: str = ""


class Contender(ABC):
    """One library at one setting, with the name its row has."""

    name: str
    package: str | None = None
    """The distribution whose version is recorded; None for vsquant."""

    @property
    def library(self) -> str:
        """Contenders of one library share a process."""
        return self.package or "vsquant"

    def environment(self, isa: str) -> dict[str, str] | None:
        """Environment variables that keep the contender to an instruction set; None: it cannot be forced."""
        return None

    @abstractmethod
    def runs(self, case: Case) -> bool:
        """Whether there is a row for it in the case at all."""

    @abstractmethod
    def prepare(self, case: Case) -> Prepared:
        """Quantize the weights of the case.

        Raises:
            RefusedError: why it cannot run the case.
        """
