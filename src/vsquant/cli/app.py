"""The program ``vsquant``: its verbs, and how it ends."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

import vsquant
from vsquant.cli import doctor, evaluate, inspect, quantize, table
from vsquant.errors import VsquantError

app = typer.Typer(
    name="vsquant",
    help="Per-vector scaled quantization (VS-Quant) of neural networks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("table")(table.table)
app.command("quantize")(quantize.quantize)
app.command("evaluate")(evaluate.evaluate)
app.command("inspect")(inspect.inspect)
app.command("doctor")(doctor.doctor)


def _version(show: bool) -> None:
    if show:
        typer.echo(vsquant.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Run the program; a mistake of the user's ends it with its message and status 1, an interrupt with 130."""
    try:
        app()
    except VsquantError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what was computed is kept, the same command continues there")
        sys.exit(130)
