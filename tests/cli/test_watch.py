"""`lad-agent watch` as a process of its own: killed, started again, stopped; results out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import update

from lad_agent.store import InspectionFilter, open_store, outbox
from lad_agent.store.outbox import OutboxRow
from tests.cli.conftest import Cli
from tests.outbox.receiver import SECRET, Receiver, receiving
from tests.scripted import write_parts, write_recipe

PARTS = 16


@pytest.mark.slow
@pytest.mark.timeout(900)  # three starts, on a machine that may be busy
def test_a_killed_watch_goes_on_and_its_receiver_hears_of_everything_once_it_is_back(
    tmp_path: Path,
) -> None:
    """Killed twice at work, with the receiver down; then both come back."""
    hot, store = tmp_path / "hot", tmp_path / "lad-agent.db"
    write_recipe(hot)
    write_parts(hot / "<img src=x onerror=alert(1)>", PARTS)
    with receiving(Receiver()) as closed:
        port = int(closed.url.split(":")[2].partition("/")[0])
    for enough in (3, 8):
        with _watching(tmp_path, closed.url) as child:
            _until(lambda enough=enough: _recorded(store) >= enough, child)  # type: ignore[misc]
            child.kill()
    with receiving(Receiver(), port) as receiver:
        with _watching(tmp_path, closed.url) as child:
            _until(lambda: _recorded(store) == PARTS and not _waiting(store), child)
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == 0
        stories = receiver.stories()
    with open_store(store, create=False) as audit:
        found = audit.inspections()
        assert audit.verify_chain().intact
    assert len(found) == PARTS
    assert all(one.outcome is not None for one in found)
    assert stories.keys() == {one.intake.part_id for one in found}
    assert all(story == sorted(story) for story in stories.values())
    moved = [path for place in ("done", "review") for path in (hot / place).rglob("*.png")]
    assert len(moved) == PARTS


def test_what_cannot_be_watched_is_refused(cli: Cli, tmp_path: Path) -> None:
    ran = cli("watch", tmp_path / "none")
    assert (ran.code, "no such folder" in ran.error) == (2, True)


def test_a_sink_that_is_set_wrong_stops_before_anything_is_done(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hot").mkdir()
    monkeypatch.setenv("LAD_AGENT_WEBHOOK_URL", "http://mes.example/")
    ran = cli("watch", tmp_path / "hot")
    assert (ran.code, "webhook_secret" in ran.error) == (2, True)


@contextmanager
def _watching(folder: Path, url: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = ["tests.scripted_cli", "0.05", "watch", "hot", "--settle", "0.1", "--json"]
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env=os.environ
        | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "LAD_AGENT_WEBHOOK_URL": url,
            "LAD_AGENT_WEBHOOK_SECRET": SECRET,
            "LAD_AGENT_IN_FLIGHT": "2",
        },
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def _until(holds: Callable[[], bool], child: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 240
    while not holds():
        assert child.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def _recorded(store: Path) -> int:
    if not store.with_name("lad-agent.db.pauses").exists():
        return 0  # the child makes the schema before
    with open_store(store, create=False) as audit:
        return audit.count(InspectionFilter(complete=True))


def _waiting(store: Path) -> int:
    with open_store(store, create=False) as audit:
        return sum(state.waiting for state in audit.ask(outbox.sinks))


def test_the_outbox_from_the_command_line(
    cli: Cli, reasoner: object, tray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("inspect", tray, "--limit", 1).code == 0
    ran = cli("outbox", "list")
    assert (ran.code, "nobody is told of results" in ran.out) == (0, True)
    assert cli("outbox", "send").code == 2
    with receiving(Receiver()) as receiver:
        monkeypatch.setenv("LAD_AGENT_WEBHOOK_URL", receiver.url)
        monkeypatch.setenv("LAD_AGENT_WEBHOOK_SECRET", SECRET)
        receiver.answer = lambda _: (503, {"retry-after": "60"}, 0.0)
        assert cli("inspect", tray, "--limit", 3).code == 0
        ran = cli("outbox", "send")
        assert (ran.code, "2 waiting" in ran.error, "503" in ran.error) == (4, True, True)
        listed = json.loads(cli("outbox", "list", "--json").out)
        assert [one["type"] for one in listed["messages"]] == ["inspection.recorded"] * 2
        assert listed["sinks"][0]["error"].startswith("it answered 503")
        assert "503" in cli("outbox", "list").out
        assert cli("outbox", "off", "webhook").code == 2
        receiver.answer = lambda _: (204, {}, 0.0)
        assert cli("outbox", "retry", "msg_none").code == 2
        assert cli("outbox", "retry").out == "2 due now\n"
        assert cli("outbox", "send").code == 0
        ran = cli("outbox", "list", "--all")
        assert ran.out.splitlines()[0].endswith("0 waiting")
        assert len(ran.out.splitlines()) == 4
        assert cli("inspect", tray, "--limit", 4).code == 0
        assert cli("doctor").code == 0
        receiver.answer = lambda _: (422, {}, 0.0)
        monkeypatch.setenv("LAD_AGENT_OUTBOX_TRIES", "1")
        assert cli("outbox", "send").code == 0
        ran = cli("outbox", "list")
        assert "0 waiting, 1 given up" in ran.out
        assert "given up: it answered 422" in ran.out
        ran = cli("doctor")
        assert (ran.code, "1 given up" in ran.error) == (5, True)
        assert "lad-agent outbox retry --given-up" in ran.error
        assert cli("outbox", "retry").out == "0 due now\n"
        assert cli("outbox", "retry", "--given-up").out == "1 due now\n"
        assert cli("doctor").code == 0
        with open_store("lad-agent.db") as audit:
            old = update(OutboxRow).values(at="2026-01-01T00:00:00.000000Z")
            audit.transact([lambda unit: unit.connection.execute(old)])
        ran = cli("doctor")
        assert (ran.code, "1 waiting since 2026-01-01T00:00" in ran.error) == (5, True)
        assert "lad-agent outbox send" in ran.error
    monkeypatch.delenv("LAD_AGENT_WEBHOOK_URL")
    ran = cli("outbox", "off", "webhook")
    assert (ran.code, "--give-up gives them up" in ran.error) == (2, True)
    assert cli("outbox", "off", "webhook", "--give-up").code == 0
    assert cli("outbox", "off", "webhook").code == 2
