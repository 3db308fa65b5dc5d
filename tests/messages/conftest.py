"""The program, as the tests of the command line have it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("command_line_fixtures", Path(__file__).parents[1] / "cli/conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _fixtures
_spec.loader.exec_module(_fixtures)

tiny = _fixtures.tiny
program = _fixtures.program
vsquant_program = _fixtures.vsquant_program
tiny_checkpoint = _fixtures.tiny_checkpoint
