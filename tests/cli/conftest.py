"""The command line in this process, with a scripted reasoner in place of the model."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lad_agent import reasoners
from lad_agent.cli import app
from tests.scripted import Scripted, write_parts, write_recipe


@dataclass(frozen=True)
class Ran:
    """What a call came to; an error is one line, never a traceback."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        line = self.err.splitlines()[-1]
        assert line.startswith("lad-agent: "), self.err
        assert "Traceback" not in self.err
        return line


Cli = Callable[..., Ran]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `lad-agent` in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lad-agent", *map(str, args)])
        code = 0
        try:
            app.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
def reasoner(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """The reasoner that the command line opens; give it another `script` at will."""
    scripted = Scripted()
    monkeypatch.setattr(reasoners, "open_reasoner", lambda *_, **__: scripted)
    return scripted


@pytest.fixture
def tray(tmp_path: Path) -> Path:
    """A folder with a recipe and twelve parts."""
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 12)
    return tmp_path / "tray"
