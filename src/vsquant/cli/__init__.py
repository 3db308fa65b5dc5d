"""The command line: one file per verb; each parses, calls and prints."""

from vsquant.cli.app import main

__all__ = ["main"]
