"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
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


@pytest.fixture(scope="session", autouse=True)
def _same_words_without_a_compiler() -> Iterator[None]:
    """Programs that tests start say the same whether or not the native kernels were built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "ignore:vsquant runs its eager")
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses real data, so that ``-m data`` selects exactly those."""
    for item in items:
        if isinstance(item, pytest.Function) and "vsquant_data" in item.fixturenames:
            item.add_marker("data")


def _fail_instead_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} must not skip in CI: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI no test file may skip: all that it imports must be there."""
    report = yield
    _fail_instead_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test may skip for one reason only: it needs real data and the stage has none."""
    report = yield
    waits_for_data = item.get_closest_marker("data") is not None and "VSQUANT_DATA" not in os.environ
    if not waits_for_data and item.get_closest_marker("xfail") is None:
        _fail_instead_in_ci(report)
    return report
