"""What the benchmarks share: tasks on real data, and result files that are whole and say where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from provenance import provenance

from vsquant.files import replacing
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task

RESULTS: Final = Path(__file__).resolve().parent / "results"


def real_task(name: str) -> Task:
    """The task of that name on the data that ``VSQUANT_DATA`` names."""
    folder = os.environ.get("VSQUANT_DATA")
    if not folder:
        raise SystemExit("VSQUANT_DATA must name the folder of real data, but it is not set")
    return create_task(name, data=Path(folder))


def write(name: str, text: str) -> None:
    """A result file, whole or not at all."""
    with replacing(RESULTS / name) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_result(name: str, result: Mapping[str, Any], measured_at: str | None = None) -> None:
    """A result as JSON behind its provenance; ``measured_at`` is the commit that measured, if not this one."""
    plain = {"provenance": provenance(measured_at), **result}
    write(name, json.dumps(plain, indent=1, ensure_ascii=False))
