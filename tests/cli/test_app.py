"""The command line as a whole: help, quick start, errors in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lad_agent import errors
from lad_agent.cli import app, doctor, synth
from lad_agent.cli.tables import columns
from lad_agent.reasoners import EMBEDDED
from tests.cli.conftest import Cli

COMMANDS = (
    "inspect",
    "review",
    "audit",
    "recipe",
    "synth",
    "train",
    "evaluate",
    "calibrate",
    "hold",
    "doctor",
    "watch",
    "outbox",
)


def test_help_names_every_command(cli: Cli) -> None:
    ran = cli("--help")
    assert ran.code == 0
    assert all(f"  {name} " in ran.out for name in COMMANDS)
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    "command",
    [
        *((name,) for name in COMMANDS),
        ("review", "list"),
        ("review", "show"),
        ("review", "decide"),
        ("audit", "list"),
        ("audit", "show"),
        ("outbox", "list"),
        ("outbox", "retry"),
        ("outbox", "send"),
        ("outbox", "off"),
        ("hold", "on"),
        ("hold", "release"),
        ("hold", "list"),
        ("recipe", "new"),
        ("recipe", "check"),
        ("train", "pocket"),
    ],
)
def test_every_command_has_help(cli: Cli, command: tuple[str, ...]) -> None:
    ran = cli(*command, "--help")
    assert ran.code == 0
    assert "Usage: lad-agent " + " ".join(command) in ran.out


def test_help_is_quick() -> None:
    """In processor time, beside that of importing what draws it: neither what else the machine does
    nor how fast it is counts."""
    timed = (
        "import atexit, sys, time; "
        "atexit.register(lambda: print(time.process_time(), file=sys.stderr)); "
    )
    shown = _timed(
        timed + "sys.argv = ['lad-agent', '--help']; from lad_agent.cli import app; app.main()"
    )
    assert all("Usage: lad-agent" in ran.stdout for ran in shown)
    assert _least(shown) < 4 * _least(_timed(timed + "import rich, typer"))


def _timed(code: str) -> list[subprocess.CompletedProcess[str]]:
    return [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
        for _ in range(5)
    ]


def _least(runs: list[subprocess.CompletedProcess[str]]) -> float:
    return min(float(ran.stderr) for ran in runs)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("wrong"), 2),
        (errors.UnreadableInput("gone"), 3),
        (errors.StoreLocked("busy"), 4),
        (errors.CheckFailed("no"), 5),
        (errors.TooManyFailures("stop"), 6),
    ],
)
def test_errors_are_one_line_and_a_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: errors.LadAgentError, code: int
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    ran = cli()
    assert (ran.code, ran.error) == (code, f"lad-agent: {error}")


def test_a_missing_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'trl'", name="trl")

    monkeypatch.setattr(app, "app", fail)
    ran = cli()
    assert ran.code == 4
    assert "pip install 'lad-agent[train]'" in ran.error


def test_every_error_has_its_code() -> None:
    tree = [getattr(errors, name) for name in errors.__all__]
    assert {error.exit_code for error in tree} == {1, 2, 3, 4, 5, 6}
    assert all(f"{error.__name__} " in (errors.__doc__ or "") for error in tree)


def test_synth_writes_what_inspect_and_evaluate_read(cli: Cli, reasoner: object) -> None:
    ran = cli("synth", "data", "--count", 4, "--seed", 3, "--size", 120, "--workers", 1,
              "--product", "pushpins", "--product", "screw_bag")  # fmt: skip
    assert ran.code == 0, ran.err
    ran = cli("inspect", "data/pushpins/test", "data/screw_bag/test", "--out", "r.jsonl")
    assert ran.code == 0, ran.err
    ran = cli("evaluate", "r.jsonl", "--truth", "data", "--json")
    assert ran.json["overall"]["n"] == 8
    assert set(ran.json["products"]) == {"pushpins", "screw_bag"}
    assert "| screw_bag | 4 |" in cli("evaluate", "r.jsonl", "--truth", "data").out


def test_synth_refuses_what_it_does_not_know(cli: Cli) -> None:
    ran = cli("synth", "data", "--product", "teapot")
    assert (ran.code, "--product teapot: known: breakfast_box" in ran.error) == (2, True)
    assert cli("synth", "data", "--split", "other").code == 2
    assert synth.synth.__doc__


def test_evaluate_without_results(cli: Cli) -> None:
    ran = cli("evaluate", "gone.jsonl", "--truth", "gone")
    assert ran.code == 2
    assert "gone" in ran.error


def test_doctor_says_what_is_missing_and_how_to_get_it(cli: Cli) -> None:
    ran = cli("doctor", "--reasoner", "gone", "--json")
    assert ran.code == 4
    found = {one["name"]: one for one in ran.json}
    assert found["torch"]["state"] == found["device"]["state"] == "ok"
    assert found["model"]["state"] == "missing"
    assert "lad-agent train pocket" in found["model"]["remedy"]
    assert "gone: lacks config.json" in ran.error
    assert "inspect makes it" in found["store"]["detail"]


def test_doctor_looks_into_a_run(cli: Cli, tmp_path: Path) -> None:
    """As `inspect --reasoner RUN` opens it."""
    shutil.copytree(EMBEDDED, tmp_path / "run" / "model")
    (tmp_path / "run" / "run.json").write_text("{}")
    look = ("doctor", "--reasoner", str(tmp_path / "run"), "--json")
    made = {one["name"]: one for one in cli(*look).json}
    assert made["model"]["state"] == "ok"
    (tmp_path / "run" / "adapter").mkdir()
    lora = {one["name"]: one for one in cli(*look).json}
    assert lora["model"]["state"] == "missing"
    assert "--adapter" in lora["model"]["detail"]


def test_doctor_looks_at_the_store(cli: Cli, tray: object, reasoner: object) -> None:
    cli("inspect", "tray")
    found = {one["name"]: one for one in cli("doctor", "--json").json}
    assert "12 inspections" in found["store"]["detail"]
    with open("broken.db", "wb") as file:  # noqa: PTH123
        file.write(b"no database, but long enough to look like one" * 99)
    ran = cli("doctor", "--store", "broken.db")
    assert ran.code == 4
    assert "broken.db" in ran.out


def test_doctor_knows_a_server_that_does_not_answer() -> None:
    found = doctor._served("http://127.0.0.1:9/v1#m")
    assert (found.state, "127.0.0.1:9" in found.detail) == ("missing", True)


def test_columns() -> None:
    assert columns(("a", "n"), []) == "a  n"
    assert columns(("a", "n"), [("x y\nz", "7"), ("w", "12")]) == "a       n\nx y z   7\nw      12"
