"""The program ``vsquant``: its verbs, and how it ends."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import vsquant
from vsquant.cli import bench, doctor, evaluate, explore, hardware, inspect, quantize, table
from vsquant.cli.interrupts import INTERRUPTED
from vsquant.errors import VsquantError


class _Verbs(TyperGroup):
    """The verbs; an interrupt after the work of one is not silent."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="vsquant",
    cls=_Verbs,
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
app.command("bench")(bench.bench)
app.command("explore")(explore.explore)
app.add_typer(hardware.app, name="hw")


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
    """Run the program: status 0 on success, 1 with one message on a mistake, 2 on bad usage, 130 on an interrupt."""
    try:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                app()
        finally:
            sys.stdout.flush()
    except VsquantError as error:
        _fail(str(error))
    except OSError as error:
        _forget_output()
        if error.errno == errno.EPIPE:
            sys.exit(1)
        _fail(str(error))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    Console(stderr=True).print(f"[bold yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def _forget_output() -> None:
    """Let what could not be printed be dropped at exit, in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
