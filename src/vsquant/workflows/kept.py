"""What a long run keeps of its finished work, and how much of it an earlier run had left there."""

from __future__ import annotations

from pathlib import Path

from vsquant.errors import CalibrationError


class Kept:
    """A folder of finished layers and blocks, with a count of what one run took from it and added to it.

    Args:
        folder: made where it is not there.

    Raises:
        CalibrationError: ``folder`` is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise CalibrationError(f"resume must be a folder for finished layers, not the file {str(folder)!r}")
        self.taken = 0
        """How many layers and blocks were found finished."""
        self.added = 0
        """How many this run finished and wrote."""

    @classmethod
    def of(cls, resume: str | Path | Kept | None) -> Kept | None:
        """What a caller named.

        Raises:
            CalibrationError: it is a file.
        """
        return resume if resume is None or isinstance(resume, Kept) else cls(resume)
