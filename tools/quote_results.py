"""Put the measured tables of ``benchmarks/results`` into the pages that quote them.

A page quotes a file between ``<!-- quote: NAME -->`` and ``<!-- end quote -->``. Usage: python tools/quote_results.py
[--check]; with ``--check`` nothing is written, and the exit status is 1 where a page does not say what its files say.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
QUOTE = re.compile(r"(<!-- quote: (?P<name>[\w./-]+) -->\n).*?(<!-- end quote -->)", re.DOTALL)


def pages() -> list[Path]:
    """The README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def quoted(text: str) -> str:
    """``text`` with each quote replaced by what its result file says now."""
    return QUOTE.sub(lambda quote: f"{quote[1]}{(RESULTS / quote['name']).read_text(encoding='utf-8')}{quote[3]}", text)


def main() -> int:
    """Write the pages, or check them."""
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if quoted(text) == text:
            continue
        stale.append(page.relative_to(ROOT))
        if "--check" not in sys.argv:
            page.write_text(quoted(text), encoding="utf-8")
    for page in stale:
        sys.stdout.write(
            f"{page} {'must be written anew: python tools/quote_results.py' if '--check' in sys.argv else 'written'}\n"
        )
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
