"""``vsquant hw``: the hardware that runs a spec; one file per verb beside this one."""

from __future__ import annotations

import typer

from vsquant.cli import hardware_cost, hardware_rtl, hardware_synth, hardware_table

app = typer.Typer(
    name="hw",
    help="The hardware that runs a spec: RTL, synthesis, and what it costs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("cost")(hardware_cost.cost)
app.command("rtl")(hardware_rtl.rtl)
app.command("synth")(hardware_synth.synth)
app.command("table")(hardware_table.table)


@app.callback()
def _verbs() -> None:
    pass
