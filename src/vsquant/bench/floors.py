"""What this machine can do at most, measured by a small C program; and the least time that allows a case."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from vsquant.bench.cases import Case, ConvCase, LinearCase
from vsquant.results.speed import Bound, Floor
from vsquant.spec import IntegerFormat, LayerSpec

SOURCE: Final = Path(__file__).with_name("ceilings.c")
_BEST: Final = {"avx512_vnni": "avx512_vnni", "avx2": "avx2_vector_scaled", "neon_dotprod": "neon_dotprod"}
_CACHE_BYTES: Final = 16 << 20
"""What a call can count on of a last-level cache that others use too."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """``rates[threads][name]`` in 1e9 a second: "read_bytes" and int8 operations of instruction sets; else why not."""

    rates: Mapping[int, Mapping[str, float]]
    reason: str = ""


class CeilingsMeter:
    """Measures ceilings again and again in a run and keeps the best: another process may have been busy.

    Without a compiler there are none, and it says so.
    """

    def __init__(self, threads: tuple[int, ...]) -> None:
        self._threads = threads
        self._best: dict[int, dict[str, float]] = {}
        self._folder = tempfile.TemporaryDirectory()
        self._program = Path(self._folder.name) / "ceilings"
        self._reason = _compile(self._program)

    def read(self) -> Ceilings:
        """Measure once more; the best so far."""
        for count in self._threads if not self._reason else ():
            best = self._best.setdefault(count, {})
            for name, rate in _run(self._program, count).items():
                best[name] = max(rate, best.get(name, 0.0))
        return Ceilings(rates={count: dict(best) for count, best in self._best.items()}, reason=self._reason)


def _compile(program: Path) -> str:
    """Compile the C program; why not, or nothing."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return "no C compiler was found"
    native = [] if platform.machine() == "arm64" else ["-march=native"]
    command = [compiler, "-O3", *native, "-pthread", str(SOURCE), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"ceilings.c does not compile: {built.stderr.strip().splitlines()[0]}" if built.returncode else ""


def _run(program: Path, threads: int) -> dict[str, float]:
    done = subprocess.run([str(program), str(threads)], capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def operations(case: Case) -> int:
    """Multiplications and additions of one call; 0 where they are not what binds."""
    return 0 if case.workload is None else 2 * case.workload.macs * case.batch


def touched_bytes(case: Case) -> int:
    """Bytes of a layer's weights in the first spec, and of its float32 activations and results; 0 for other work."""
    return _float_bytes(case) + _weight_bytes(case) if isinstance(case, LinearCase | ConvCase) else 0


def moved_bytes(case: Case) -> int:
    """Bytes that must come out of memory or go there in one call; 0 where they fit in the cache."""
    if not isinstance(case, LinearCase | ConvCase):
        return 0
    if isinstance(case, LinearCase) and case.cold:
        return touched_bytes(case)
    return _float_bytes(case) if _float_bytes(case) > _CACHE_BYTES else 0


def _weight_bytes(case: LinearCase | ConvCase) -> int:
    weight = LayerSpec.parse(case.specs[0]).weight
    assert isinstance(weight, IntegerFormat)
    return int(case.workload.weight_elements * weight.bits_per_element / 8)


def _float_bytes(case: LinearCase | ConvCase) -> int:
    work = case.workload
    activations = case.rows * case.inputs if isinstance(case, LinearCase) else case.inputs * case.size**2
    return 4 * case.batch * (work.outputs * work.positions + activations)


def floors(case: Case, ceilings: Ceilings, isa: str) -> tuple[Floor, ...]:
    """The floor for each thread count, against the ceiling of the instruction set that our kernels use."""
    found = []
    for threads, rates in ceilings.rates.items():
        memory = moved_bytes(case) / (rates["read_bytes"] * 1e9)
        rate = rates.get(_BEST.get(isa, ""))
        computing = operations(case) / (rate * 1e9) if rate else 0.0
        if memory or computing:
            bound: Bound = "memory" if memory > computing else "operations"
            found.append(Floor(threads=threads, seconds=max(memory, computing), bound=bound))
    return tuple(found)


@lru_cache(maxsize=1)
def our_isa() -> str:
    """The instruction set of our native kernels; empty where there are none."""
    from vsquant.kernels import native

    return native.status().isa or ""
