"""What to measure, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vsquant.bench.cases import Case
from vsquant.bench.contender import Contender
from vsquant.bench.contenders import contenders_of, is_ours
from vsquant.bench.peers import PEERS
from vsquant.errors import VsquantError

ISAS = ("native", "avx2")


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What to measure. ``peers`` are patterns of peers' names (None: all); ``isa`` "avx2" keeps to AVX2 all who obey.

    Invariants: thread counts and rounds are at least 1; every pattern names a peer.
    """

    cases: tuple[Case, ...]
    folder: Path
    threads: tuple[int, ...] = (1, 2)
    peers: tuple[str, ...] | None = None
    isa: str = "native"
    rounds: int = 7
    round_seconds: float = 0.05
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.threads or min(self.threads) < 1:
            raise VsquantError(f"threads must be counts of at least 1, such as 1,2, not {self.threads}")
        if self.rounds < 1:
            raise VsquantError(f"rounds must be at least 1, not {self.rounds}")
        if self.isa not in ISAS:
            raise VsquantError(f"isa must be one of {', '.join(ISAS)}, not {self.isa!r}")
        for pattern in self.peers or ():
            if not any(fnmatchcase(peer.name, pattern) for peer in PEERS):
                raise VsquantError(f"a peer must be one that --list shows, or match one, not {pattern!r}")

    def contenders(self, case: Case) -> tuple[Contender, ...]:
        """The contenders of a case that were asked for; the reference of its target always."""
        return tuple(contender for contender in contenders_of(case) if self._asked(case, contender))

    def settings(self) -> dict[str, Any]:
        """What must be equal for a stored case to be the same measurement."""
        return {"threads": list(self.threads), "isa": self.isa, "rounds": self.rounds,
                "round_seconds": self.round_seconds}  # fmt: skip

    def _asked(self, case: Case, contender: Contender) -> bool:
        if is_ours(contender) or contender.name == case.target.reference or self.peers is None:
            return True
        return any(fnmatchcase(contender.name, pattern) for pattern in self.peers)
