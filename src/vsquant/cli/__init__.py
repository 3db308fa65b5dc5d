"""The command line: one file per verb; each parses, calls and prints."""

from vsquant.cli.interrupts import ending_at_once


def main() -> None:
    """Run the program, `vsquant.cli.app.main`; an interrupt is answered even while it loads."""
    with ending_at_once():
        from vsquant.cli.app import main as run

        run()


__all__ = ["main"]
