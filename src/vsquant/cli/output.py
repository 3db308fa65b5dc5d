"""What verbs write: JSON on standard output, and files whose places are tried before long work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from vsquant.errors import VsquantError
from vsquant.files import check_writable

_PICTURES: Final = (".svg", ".png")


def print_json(value: Any) -> None:
    """``value`` as JSON, and nothing else, on standard output."""
    json.dump(value, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def check_outputs(*paths: Path | None) -> None:
    """Refuse paths that could not be written in the end.

    Raises:
        VsquantError: a path is a folder, or its folder cannot be written to.
    """
    for path in paths:
        if path is not None:
            _check_output(path)


def check_picture(path: Path | None) -> None:
    """As `check_outputs`, of a picture, which is drawn as its name ends.

    Raises:
        VsquantError: as `check_outputs`, or the name ends in neither .svg nor .png.
    """
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise VsquantError(f"--picture must end in .svg or .png, which say how it is drawn, not {str(path)!r}")
    check_outputs(path)


def _check_output(path: Path) -> None:
    try:
        check_writable(path)
    except OSError as error:
        raise VsquantError(f"{path} must be a file that can be written, but it cannot: {error.strerror}") from error
