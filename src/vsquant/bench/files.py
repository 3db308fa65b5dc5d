"""Result files: ``speed-GROUP.json``, each case with its provenance, written whole after every case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vsquant.errors import VsquantError
from vsquant.files import replacing
from vsquant.results.speed import CaseSpeed, speed_from_json, speed_to_json

VERSION: Final = 1


def speed_path(folder: Path, group: str) -> Path:
    """The file of a group."""
    return folder / f"speed-{group}.json"


def read_speeds(folder: Path, group: str) -> dict[str, CaseSpeed]:
    """The stored cases of a group by name; none where there is no file.

    Raises:
        VsquantError: the file is no result file of this version.
    """
    path = speed_path(folder, group)
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise VsquantError(f"{path} must be of version {VERSION}, not {data['version']}; move it away")
        return {name: speed_from_json(case) for name, case in data["cases"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VsquantError(f"{path} must be a result file of vsquant bench, but {error}; move it away") from error


def store_speed(folder: Path, speed: CaseSpeed) -> None:
    """Add the case to its group's file, in the place of an older one."""
    cases = {name: speed_to_json(old) for name, old in read_speeds(folder, speed.group).items()}
    cases[speed.name] = speed_to_json(speed)
    with replacing(speed_path(folder, speed.group)) as temporary:
        temporary.write_text(_text({"version": VERSION, "cases": cases}), encoding="utf-8")


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False, default=float) + "\n"
