"""Running the RTL: Icarus compiles it once per configuration, cocotb runs a bench of ``benches/`` inside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import vsquant.hardware

RTL = Path(vsquant.hardware.__file__).parent / "rtl"
BENCHES = Path(__file__).parent / "benches"

Simulate: TypeAlias = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the simulators."""
    for item in items:
        if BENCHES.parent in item.path.parents:
            item.add_marker("rtl")


@pytest.fixture(scope="session")
def rtl_sources() -> list[Path]:
    """All modules that the package has."""
    return sorted(RTL.glob("*.sv"))


@pytest.fixture(scope="session")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulate]:
    """``simulate(top, bench, case, parameters)``: the bench passes in the simulator; ``sources`` replace the RTL."""
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed (Debian: iverilog)")
    from cocotb_tools.runner import get_runner

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(BENCHES)  # cocotb hands sys.path on to the simulator
    folder = tmp_path_factory.mktemp("rtl")
    built: dict[tuple[object, ...], Any] = {}

    def compiled(top: str, parameters: Mapping[str, int], sources: Sequence[Path]) -> Any:
        key = (top, *sorted(parameters.items()), *sources)
        if key not in built:
            runner = built[key] = get_runner("icarus")
            runner.build(
                sources=list(sources),
                hdl_toplevel=top,
                parameters=parameters,
                build_args=["-Wall", "-Wno-timescale"],
                build_dir=folder / f"build{len(built)}",
                log_file=folder / f"build{len(built)}.log",
            )
        return built[key]

    def run(
        top: str,
        bench: str,
        case: Mapping[str, Any],
        parameters: Mapping[str, int] | None = None,
        sources: Sequence[Path] | None = None,
    ) -> None:
        runner = compiled(top, parameters or {}, sorted(RTL.glob("*.sv")) if sources is None else sources)
        place = Path(tmp_path_factory.mktemp(bench))
        (place / "case.json").write_text(json.dumps(case))
        try:
            runner.test(
                test_module=bench,
                hdl_toplevel=top,
                hdl_toplevel_lang="verilog",
                test_dir=place,
                log_file=place / "log.txt",
                extra_env={"VSQUANT_CASE": str(place / "case.json")},
            )
        except SystemExit:
            pytest.fail((place / "log.txt").read_text()[-3000:], pytrace=False)

    yield run
    monkeypatch.undo()
