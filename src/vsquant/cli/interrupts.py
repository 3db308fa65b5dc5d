"""What an interrupt (Ctrl-C) does: at once while libraries load, in order once there is work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

INTERRUPTED: Final = 130
"""Exit status after an interrupt."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Until `begin_work`, an interrupt ends the process there and then, with one line.

    Libraries being loaded lose the exception of an interrupt, or turn it into others. Where interrupts are ignored, as
    in what a shell runs in the background, they stay so.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def begin_work() -> None:
    """From now on an interrupt is a KeyboardInterrupt, so that work is left in order."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)
