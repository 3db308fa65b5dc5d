"""``vsquant hw synth``: lanes as gates of a library, with what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsquant.cli.options import JsonFlag
from vsquant.cli.output import check_outputs, print_json
from vsquant.cli.progress import progress_bars
from vsquant.spec.layer import LayerSpec


def synth(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC…", help="Layer specs, such as w4a4-s4/4-p4 or 4/8/6/10.")],
    liberty: Annotated[Path, typer.Option("--liberty", help="A standard-cell library: .lib or .lib.gz.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the table is kept; lanes that are in it are not run again.")
    ] = Path("lane-costs.json"),
    vector_size: Annotated[
        int, typer.Option("--vector-size", min=2, help="V of lanes whose spec has no vectors.")
    ] = 16,
    period: Annotated[float, typer.Option("--period", min=1.0, help="Clock period in ps.")] = 1000.0,
    as_json: JsonFlag = False,
) -> None:
    """Synthesize lanes and measure their area and energy, on normally distributed operands.

    Example: `vsquant hw synth w8a8 w4a4 w4a4-s4/4 w4a4-s4/4-p4 --liberty cells.lib`
    """
    from vsquant.hardware.energy.dataflow import normal_operands
    from vsquant.hardware.lane_costing import GROUPS, LaneRequest, about_library, cost_lanes
    from vsquant.hardware.synthesis import read_library
    from vsquant.report.lane_cost import lane_costs_text

    check_outputs(output)
    requests = [LaneRequest(spec=LayerSpec.parse(text), vector_size=vector_size) for text in specs]
    for request in requests:
        _ = request.lane
    library = read_library(liberty)
    with progress_bars(f"lanes that are measured are in {output}; the same command goes on") as progress:
        costs = cost_lanes(
            requests,
            library,
            lambda lane: {"normal": normal_operands(lane, groups=GROUPS)},
            output,
            source=f"{library.name} at {period:g} ps, on normally distributed operands",
            about=about_library(library, period),
            period_ps=period,
            progress=progress,
        )
    if as_json:
        print_json(costs.to_json())
    else:
        typer.echo(lane_costs_text(costs))
