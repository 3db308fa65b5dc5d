"""``vsquant bench``: speed, side by side with other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vsquant.cli.options import JsonFlag
from vsquant.cli.output import print_json
from vsquant.cli.progress import progress_bars
from vsquant.errors import MissingExtraError, VsquantError

if TYPE_CHECKING:
    from vsquant.bench.cases import Case
    from vsquant.results.speed import CaseSpeed

_KEPT = "finished cases are kept, and the same command continues there"


def bench(
    work: Annotated[str, typer.Argument(help="kernel, model, cell or all.")] = "kernel",
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases of this name or pattern, such as 'linear-1x*'; may be repeated."),
    ] = None,
    peers: Annotated[
        str | None, typer.Option(help="Only these peers, such as 'ggml*,torch float32', or none; all if left out.")
    ] = None,
    threads: Annotated[str, typer.Option(help="Thread counts: 1 is timed by CPU time, more by the clock.")] = "1,2",
    isa: Annotated[str, typer.Option(help="native, or avx2: keep all who can be kept to AVX2.")] = "native",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 7,
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("build/speed"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the folder already has.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the cases and contenders, and measure nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Time vsquant and other libraries on the same work, in one run.

    Each contender runs in a process of its library; results are compared with float, and ours with the eager kernels,
    before anything is timed. The exit status is 1 if a result of ours is wrong: no speed of that case is shown then.

    Example: `vsquant bench kernel --case 'linear-1x*' --peers 'ggml*,onnxruntime*'`
    """
    from vsquant.bench.registry import choose_cases
    from vsquant.bench.request import BenchRequest
    from vsquant.bench.runner import run_bench
    from vsquant.results.speed import speed_to_json

    cases = choose_cases(work, case or ())
    request = BenchRequest(
        cases=cases,
        folder=results,
        threads=_counts(threads),
        peers=None if peers is None else tuple(name for name in map(str.strip, peers.split(",")) if name != "none"),
        isa=isa,
        rounds=rounds,
        fresh=fresh,
    )
    if list_:
        _list(request.cases, as_json)
        return
    with progress_bars(_KEPT) as progress:
        speeds = run_bench(request, _command(work, case, peers, threads, isa), progress)
    _write(results)
    if as_json:
        print_json([speed_to_json(speed) for speed in speeds])
    else:
        _print(speeds)
    if any(speed.wrong for speed in speeds):
        raise typer.Exit(1)


def _counts(text: str) -> tuple[int, ...]:
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise VsquantError(f"threads must be counts such as 1,2, not {text!r}")
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def _command(work: str, case: list[str] | None, peers: str | None, threads: str, isa: str) -> str:
    chosen = [f"--case '{pattern}'" for pattern in case or ()]
    chosen += [] if peers is None else [f"--peers '{peers}'"]
    return " ".join(["vsquant bench", work, *chosen, f"--threads {threads} --isa {isa}"])


def _list(cases: tuple[Case, ...], as_json: bool) -> None:
    from vsquant.bench.contenders import contenders_of

    names = {case.name: [contender.name for contender in contenders_of(case)] for case in cases}
    if as_json:
        print_json(names)
        return
    console = Console()
    for case in cases:
        console.print(f"[bold]{case.name}[/]: {case.title}", highlight=False)
        console.print(f"    {', '.join(names[case.name])}", highlight=False, style="dim")


def _print(speeds: tuple[CaseSpeed, ...]) -> None:
    from vsquant.report.speed import render_speed

    console = Console()
    for speed in speeds:
        console.print(render_speed(speed), highlight=False)


def _write(folder: Path) -> None:
    """The tables and the picture of all that the folder holds."""
    from vsquant.bench.cases import GROUPS
    from vsquant.bench.files import read_speeds
    from vsquant.files import replacing
    from vsquant.report.roofline import write_roofline
    from vsquant.report.speed import formats_summary, speed_details, speed_summary

    speeds = [speed for group in GROUPS["all"] for speed in read_speeds(folder, group).values()]
    console = Console(stderr=True)
    for name, text in (("speed", speed_summary), ("speed-formats", formats_summary), ("speed-all", speed_details)):
        with replacing(folder / f"{name}.md") as temporary:
            temporary.write_text(text(speeds) + "\n", encoding="utf-8")
    try:
        write_roofline(speeds, folder / "speed-roofline.svg")
    except MissingExtraError as error:
        console.print(f"no roofline was drawn: {error}", soft_wrap=True)
    console.print(f"wrote {folder}", soft_wrap=True)
