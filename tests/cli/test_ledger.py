"""`lad-agent audit verify|keygen|head` and `store` as an auditor and a plant use them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lad_agent.store import open_store
from tests.cli.conftest import Cli
from tests.scripted import Scripted, malformed
from tests.store.samples import CONFORMING


@pytest.fixture
def signed(cli: Cli, tray: Path, reasoner: Scripted, tmp_path: Path) -> Path:
    """A store of the tray's parts whose heads are signed and exported to `heads.jsonl`."""
    assert cli("audit", "keygen", "line.key").code == 0
    (tmp_path / "lad-agent.toml").write_text(
        'signing_key = "line.key"\nheads_file = "heads.jsonl"\nhead_every_events = 10\n'
    )
    assert cli("inspect", "tray").code == 0
    assert cli("audit", "head").code == 0
    return tmp_path / "lad-agent.db"


def _tamper(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        triggers = database.execute("select name from sqlite_master where type = 'trigger'")
        for (name,) in triggers.fetchall():
            database.execute(f"drop trigger {name}")
        for statement in statements:
            database.execute(statement)


def test_an_inspection_signs_heads_and_they_verify(cli: Cli, signed: Path) -> None:
    ran = cli("audit", "verify", "--heads", "heads.jsonl", "--json")
    assert ran.code == 0
    assert {name: ran.json[name] for name in ("ok", "first_bad", "kind", "unsigned")} == {
        "ok": True,
        "first_bad": None,
        "kind": None,
        "unsigned": 0,
    }
    assert ran.json["heads"] >= 2
    said = cli("audit", "verify").out
    assert said.startswith("intact: ")
    assert "signed heads" in said


def test_a_ledger_cut_off_is_caught_by_the_exported_heads(cli: Cli, signed: Path) -> None:
    _tamper(
        signed,
        "delete from events where seq > 20",
        "update chains set seq = 20, events = 20, hash = (select hash from events where seq = 20)",
    )
    assert cli("audit", "verify").code == 0
    ran = cli("audit", "verify", "--heads", "heads.jsonl", "--json")
    assert (ran.code, ran.json["ok"], ran.json["kind"]) == (5, False, "truncated")
    assert ran.json["first_bad"] > 20
    assert "truncated" in ran.error


@pytest.mark.parametrize(
    ("statement", "seq", "kind"),
    [
        ("update events set actor = 'nobody' where seq = 7", 7, "edited"),
        ("delete from events where seq = 7", 7, "deleted"),
    ],
)
def test_the_first_bad_event_is_named(
    cli: Cli, signed: Path, statement: str, seq: int, kind: str
) -> None:
    _tamper(signed, statement)
    ran = cli("audit", "verify", "--json")
    assert (ran.code, ran.json["first_bad"], ran.json["kind"]) == (5, seq, kind)


def test_tables_that_do_not_follow_from_the_events_are_named(cli: Cli, signed: Path) -> None:
    assert cli("audit", "verify", "--tables").code == 0
    _tamper(signed, "update inspections set result = 'OK'")
    assert cli("audit", "verify").code == 0
    ran = cli("audit", "verify", "--tables", "--json")
    assert (ran.code, ran.json["ok"], ran.json["changed_tables"]) == (5, False, ["inspections"])
    assert "store rebuild mends them" in ran.error


def test_keys_and_heads_that_cannot_be_used(cli: Cli, signed: Path, tmp_path: Path) -> None:
    assert "is there already" in cli("audit", "keygen", "line.key").error
    assert cli("audit", "head", "--signing-key", "none.key").code == 4
    (tmp_path / "line.key").chmod(0o644)
    ran = cli("audit", "head")
    assert ran.code == 4
    assert "chmod 600" in ran.error
    assert cli("inspect", "tray").code == 4
    assert cli("audit", "verify", "--heads", "nothing.jsonl").code == 2
    (tmp_path / "lad-agent.toml").unlink()
    assert "audit keygen" in cli("audit", "head").error


def test_doctor_tells_the_age_of_the_last_exported_head(cli: Cli, signed: Path) -> None:
    assert "minutes old" in _head_finding(cli)["detail"]
    assert _head_finding(cli)["state"] == "ok"
    Path("lad-agent.toml").unlink()
    found = _head_finding(cli)
    assert found["state"] == "note"
    assert "keygen" in found["remedy"]


def _head_finding(cli: Cli) -> dict[str, str]:
    found = json.loads(cli("doctor", "--json").out)
    return next(one for one in found if one["name"] == "signed head")


def test_a_store_is_archived_backed_up_and_restored(cli: Cli, signed: Path) -> None:
    assert "verified" in cli("store", "backup", "backup.db").out
    wrong = cli("store", "archive", "2026.db", "--before", "soon")
    assert (wrong.code, "--before soon: give a date" in wrong.error) == (2, True)
    assert "stay here too" in cli("store", "archive", "2026.db", "--before", "2999-01-01").out
    waiting = {one["inspection"] for one in _reviews(cli)}
    assert {one["id"] for one in cli("audit", "list", "--json").json} == waiting
    assert len(cli("audit", "list", "--store", "2026.db", "--json").json) == 12
    assert cli("audit", "verify", "--archive", "2026.db", "--heads", "heads.jsonl").code == 0
    ran = cli("store", "restore", "backup.db")
    assert ran.code == 2
    assert "holds events already" in ran.error
    assert "verified" in cli("store", "restore", "backup.db", "--store", "again.db").out
    assert len(cli("audit", "list", "--store", "again.db", "--json").json) == 12


def _reviews(cli: Cli) -> list[dict[str, str]]:
    ids = [one["id"] for one in cli("review", "list", "--json").json]
    return [cli("review", "show", review_id, "--json").json for review_id in ids]


def test_only_who_has_a_key_archives(cli: Cli, signed: Path) -> None:
    Path("lad-agent.toml").unlink()
    ran = cli("store", "archive", "2026.db", "--before", "2999-01-01")
    assert ran.code == 4
    assert "signing key" in ran.error


def test_pruning_keeps_what_waits_for_a_person(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    reasoner.script = malformed
    assert cli("inspect", "tray").code == 0
    assert cli("store", "prune", "--images-mb", "0").out == (
        "dropped 0 pauses\ndeleted 0 copied images\n"
    )
    with open_store("lad-agent.db") as audit:  # decided where the pause is not at hand
        for review in audit.reviews()[:5]:
            audit.decide_review(review.id, CONFORMING)
            audit.apply_review(review.inspected.id)
    assert cli("store", "prune", "--images-mb", "0").out == (
        "dropped 5 pauses\ndeleted 5 copied images\n"
    )
    assert len(cli("review", "list", "--json").json) == 7
    assert cli("store", "prune").out == "dropped 0 pauses\n"


def test_migrating_a_store_that_is_new_enough_changes_nothing(cli: Cli, signed: Path) -> None:
    before, _, after = cli("store", "migrate").out.removeprefix("schema ").strip().split()
    assert before == after
