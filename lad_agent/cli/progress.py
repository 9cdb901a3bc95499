"""How far a batch is, on stderr: a bar on a terminal, plain lines in a log."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lad_agent.graphs.runner import Done
from lad_agent.judgement import FAILURES, Result

EVERY_S = 10.0
"""Seconds between two lines in a log."""


class Progress:
    """Counts what is done and shows it; use as a context manager."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._counts = dict.fromkeys(Result, 0)
        self._earlier = 0
        self._begin = self._told = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        self._bar.stop()

    def status(self, text: str) -> None:
        """What goes on before the first part is inspected."""
        self._bar.update(self._task, description=text)
        if self._bar.disable:
            self.say(text)

    def start(self) -> None:
        """The clock of the rate starts here."""
        self._begin = self._told = time.monotonic()
        self._bar.update(self._task, description=self.line())

    def done(self, done: Done) -> None:
        """One more part is recorded."""
        self._counts[done.outcome.result] += 1
        self._earlier += done.earlier
        self._bar.update(self._task, advance=1, description=self.line())
        if done.outcome.reason in FAILURES:
            self.say(f"{done.outcome.reason}: {done.detail or done.item.image}")
        now = time.monotonic()
        if self._bar.disable and now - self._told >= EVERY_S:
            self._told = now
            self.say(f"{sum(self._counts.values())} of {self._total}: {self.line()}")

    def line(self) -> str:
        """Counts so far and parts a second, those done earlier left out of the rate."""
        fresh = sum(self._counts.values()) - self._earlier
        rate = fresh / max(time.monotonic() - self._begin, 1e-3)
        ok, bad, unsure = (self._counts[result] for result in Result)
        return f"OK {ok}  NotOK {bad}  escalated {unsure}  {rate:.1f}/s"

    def say(self, text: str) -> None:
        """One line of its own, above the bar."""
        self._console.print(" ".join(text.split()), markup=False, soft_wrap=True)
