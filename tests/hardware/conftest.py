"""A standard-cell library written for the tests: a dozen lines a cell, figures made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsquant.hardware.synthesis import Library, read_library

TINY = Path(__file__).parent / "cells" / "tiny.lib"


@pytest.fixture(scope="session")
def tiny_liberty() -> Path:
    """The file."""
    return TINY


@pytest.fixture(scope="session")
def tiny_library() -> Library:
    """What is read from it."""
    return read_library(TINY)
