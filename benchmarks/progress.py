"""How far a benchmark is, on stderr: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

EVERY_S = 60.0
"""Seconds between two lines in a log."""


def shown(found: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The `total` batches of `found` as they come, and a last line of how long they took."""
    console = Console(stderr=True, highlight=False)
    begin = told = time.monotonic()
    log = not console.is_terminal
    for done, one in enumerate(
        track(found, what, total, console=console, transient=True, disable=log), 1
    ):
        yield one
        now = time.monotonic()
        if log and done < total and now - told >= EVERY_S:
            told = now
            left = (now - begin) * (total - done) / done
            console.print(f"{what}: {done} of {total} batches, {left:.0f} s left", soft_wrap=True)
    took = time.monotonic() - begin
    console.print(f"{what}: {total} batches in {took:.0f} s", soft_wrap=True)
