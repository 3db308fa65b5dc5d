"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vsquant_data() -> Path:
    """The folder of real data; without it the test skips, except where ``VSQUANT_DATA`` names a missing folder."""
    folder = os.environ.get("VSQUANT_DATA")
    if not folder:
        pytest.skip("VSQUANT_DATA is not set")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"VSQUANT_DATA must name a folder, not {folder!r}")
    return path
