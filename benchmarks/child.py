"""`lad-agent`, many commands in one process: what `benchmarks.kill` kills, and finishes with.

Imports at the top what the commands import when they run, so that a kill meets work.
"""

import contextlib
import os
from multiprocessing.connection import Connection
from pathlib import Path

import alembic.command  # noqa: F401 - a new store needs it
import pyarrow.parquet  # noqa: F401 - exports need it
import sqlalchemy.dialects.sqlite  # noqa: F401 - stores need it

from lad_agent import reasoners, wiring  # noqa: F401 - the workflow is behind it
from lad_agent.cli import app
from lad_agent.store import archive, backup, schema  # noqa: F401 - only the commands import it
from tests.scripted import Scripted

READY = "ready"
SCRIPTED = "scripted"

Command = list[str]


def work(folder: Path, reasoner: str, commands: list[Command], said: Connection) -> None:
    """Run `commands` in `folder`. Says READY, how many are done after each, or what went wrong."""
    said.send(READY)
    for number, command in enumerate(commands, 1):
        try:
            run(folder, reasoner, command)
        except Exception as error:
            said.send(f"{' '.join(command)}: {error!r}")
            return
        said.send(number)


def run(folder: Path, reasoner: str, command: Command) -> None:
    """Run one command of `lad-agent` in `folder`, its output dropped.

    The scripted reasoner takes next to no time, so that the work is the workflow's and the store's.

    Raises:
        LadAgentError: as the command does.
    """
    if reasoner == SCRIPTED:
        reasoners.open_reasoner = lambda *_, **__: Scripted(delay_s=0.002)
    else:
        command = [*command, "--reasoner", reasoner] if command[0] == "inspect" else command
    with (
        contextlib.chdir(folder),
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        app.app(command, standalone_mode=False)
