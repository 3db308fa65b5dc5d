"""The pages quote the result files word for word."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def tool() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "tools" / "quote_results.py"
    spec = importlib.util.spec_from_file_location("quote_results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_says_what_its_result_files_say(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["quote_results.py", "--check"])
    assert tool.main() == 0


def test_a_stale_quote_is_replaced(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text("new\n")
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    assert tool.quoted("x\n<!-- quote: a.md -->\nold\n<!-- end quote -->\ny") == (
        "x\n<!-- quote: a.md -->\nnew\n<!-- end quote -->\ny"
    )


def test_the_readme_quotes_measured_tables(tool: ModuleType) -> None:
    names = [quote["name"] for quote in tool.QUOTE.finditer((tool.ROOT / "README.md").read_text(encoding="utf-8"))]
    assert any(name.startswith("table-squad-minilm") for name in names)
