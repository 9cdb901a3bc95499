"""`lad-agent store` and `audit verify`: the ledger is the truth, the tables follow from it."""

import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.scripted import Scripted


@pytest.fixture
def recorded(cli: Cli, tray: Path, reasoner: Scripted, tmp_path: Path) -> Path:
    """A store with the tray's parts."""
    assert cli("inspect", "tray").code == 0
    return tmp_path / "lad-agent.db"


def test_tables_that_were_changed_follow_the_events_again(cli: Cli, recorded: Path) -> None:
    before = cli("audit", "list", "--json").json
    with sqlite3.connect(recorded) as database:
        database.execute("update inspections set result = 'NotOK'")
    database.close()
    assert cli("audit", "list", "--json").json != before
    assert "events" in cli("store", "rebuild").out
    assert cli("audit", "list", "--json").json == before


def test_an_intact_ledger_verifies(cli: Cli, recorded: Path) -> None:
    ran = cli("audit", "verify", "--json")
    assert (ran.code, ran.json["ok"], ran.json["first_bad"]) == (0, True, None)


def test_an_edited_event_is_found_and_nothing_is_rebuilt(cli: Cli, recorded: Path) -> None:
    with sqlite3.connect(recorded) as database:
        triggers = database.execute("select name from sqlite_master where type = 'trigger'")
        for (name,) in triggers.fetchall():
            database.execute(f"drop trigger {name}")
        database.execute("update events set actor = 'nobody' where seq = 1")
    database.close()
    assert cli("audit", "verify").code == 5
    assert cli("store", "rebuild").code == 5


def test_no_store_is_one_line(cli: Cli) -> None:
    ran = cli("audit", "verify")
    assert ran.code == 4
    assert "lad-agent.db" in ran.error
