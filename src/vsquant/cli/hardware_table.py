"""``vsquant hw table``: what lanes cost, from the table that ships or one that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsquant.cli.options import JsonFlag
from vsquant.cli.output import check_picture, print_json


def table(
    costs: Annotated[
        Path | None, typer.Argument(help="A table that vsquant hw synth wrote; the one that ships if none is named.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw it too, as svg or png.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show area and energy of lanes, relative to 8/8 per channel, and what vector scales and rounding make of them.

    Example: `vsquant hw table`
    """
    from vsquant.hardware.lane_costing import read_costs, shipped_costs
    from vsquant.report.lane_cost import lane_costs_text
    from vsquant.report.lane_picture import write_lane_picture

    check_picture(picture)
    found = shipped_costs() if costs is None else read_costs(costs)
    if picture is not None:
        write_lane_picture(found, picture)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(lane_costs_text(found))
