"""Every code block of the README and the pages runs, and prints what the page says it prints.

A page's ``python`` and ``pycon`` blocks run in order in one namespace. A block that cannot run here is preceded by
``<!-- not run: why -->``.
"""

from __future__ import annotations

import doctest
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from vsquant.cli.app import app
from vsquant.export.header import Header, LayerHeader

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- not run: *(?P<reason>[^\n]*?) *-->\n+)?^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One code block of a page: its text and the number of its first line."""

    page: Path
    language: str
    code: str
    line: int
    reason: str | None

    def run(self, namespace: dict[str, object]) -> None:
        """Execute the block; failures name the page and its line."""
        if self.language == "pycon":
            self._compare(namespace)
        else:
            exec(compile("\n" * (self.line - 1) + self.code, str(self.page), "exec"), namespace)

    def _compare(self, namespace: dict[str, object]) -> None:
        name = str(self.page.relative_to(ROOT))
        test = doctest.DocTestParser().get_doctest(self.code, namespace, name, str(self.page), self.line - 1)
        test.globs = namespace
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
        if runner.run(test, out=report.append, clear_globs=False).failed:
            pytest.fail("".join(report), pytrace=False)


def blocks(page: Path) -> list[Block]:
    """The runnable blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            language=match["language"],
            code=match["code"],
            line=text.count("\n", 0, match.start("code")) + 1,
            reason=match["reason"],
        )
        for match in FENCE.finditer(text)
        if match["language"] in ("python", "pycon")
    ]


def command_lines(page: Path) -> list[str]:
    """The lines of a page's ``sh`` blocks that run vsquant."""
    shell = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in shell for line in block.splitlines() if line.startswith("vsquant ")]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in command_lines(page)}))
def test_command_lines_are_understood(line: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    verb, *arguments = shlex.split(line, comments=True)[1:]
    command = group.commands[verb]
    command.make_context(verb, arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.reason is None:
            block.run(namespace)


def test_blocks_are_skipped_only_with_a_reason() -> None:
    reasons = [(block.page.name, block.line, block.reason) for page in PAGES for block in blocks(page)]
    assert [entry for entry in reasons if entry[2] is not None and len(entry[2]) < 10] == []


def test_no_fence_escapes_the_parser() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(?:python|pycon|py)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(blocks(page)), page


def test_the_checkpoint_page_names_every_key_of_the_header() -> None:
    page = (ROOT / "docs" / "reference" / "checkpoint-format.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| ([^|]*`[^|]*) \|", page, re.MULTILINE)
    named = {key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)}
    assert named == Header.model_fields.keys() | LayerHeader.model_fields.keys()


def test_a_wrong_output_fails() -> None:
    block = Block(page=ROOT / "README.md", language="pycon", code=">>> 1 + 1\n3\n", line=1, reason=None)
    with pytest.raises(pytest.fail.Exception, match="Expected"):
        block.run({})


def test_pictures_are_drawn_by_their_scripts(tmp_path: Path) -> None:
    scripts = sorted((ROOT / "docs" / "pictures").glob("*.py"))
    assert scripts
    for script in scripts:
        namespace: dict[str, object] = {"__name__": "picture", "__file__": str(script)}
        exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), namespace)
        draw = namespace["draw"]
        assert callable(draw)
        drawn = tmp_path / f"{script.stem}.svg"
        draw(drawn)
        assert "</svg>" in drawn.read_text(encoding="utf-8")
        assert script.with_suffix(".svg").is_file()
