"""`lad-agent review`: what waits, what is shown, and a decision that stands."""

import sqlite3
from pathlib import Path

import pytest

from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Finding
from lad_agent.store import ReviewFilter, open_store
from lad_agent.wiring import pauses_file
from tests.cli.conftest import Cli
from tests.scripted import Scripted, good, malformed, write_parts, write_recipe


@pytest.fixture
def waiting(cli: Cli, tray: Path, reasoner: Scripted) -> list[str]:
    """Ids of two open reviews, that of part-000 first; of parts in flight together any may be."""
    reasoner.script = malformed
    for count in (1, 2):
        cli("inspect", "tray", "--limit", count)
    return [review["id"] for review in cli("review", "list", "--json").json]


def _pauses(folder: Path) -> int:
    with open_store(folder / "lad-agent.db", create=False) as audit:
        path = pauses_file(audit)
    with sqlite3.connect(path) as connection:
        count: int = connection.execute("select count(*) from checkpoints").fetchone()[0]
    connection.close()
    return count


def test_what_waits_is_listed(cli: Cli, waiting: list[str]) -> None:
    ran = cli("review", "list")
    heads, *rows = ran.out.splitlines()
    assert heads.split()[:5] == ["review", "kind", "product", "part", "why"]
    assert [row.split()[0] for row in rows] == waiting
    assert "malformed-answer" in rows[0]
    assert cli("review", "list", "--product", "pushpins").out == "no part waits for a person\n"
    assert cli("review", "list", "--kind", "audit", "--json").json == []
    assert len(cli("review", "list", "--limit", 1, "--json").json) == 1


def test_a_review_is_shown_by_its_id_or_its_inspections(cli: Cli, waiting: list[str]) -> None:
    shown = cli("review", "show", waiting[0], "--json").json
    assert shown["rules"] == [{"id": "R1", "text": "exactly 2 washers"}]
    assert Path(shown["kept"]).is_file()
    assert shown["image"].endswith("tray/part-000.png")
    assert cli("review", "show", shown["inspection"], "--json").json == shown
    text = cli("review", "show", waiting[0]).out
    assert "R1  exactly 2 washers" in text
    assert "malformed-answer" in text


def test_what_is_shown_is_nothing_that_a_terminal_obeys(
    cli: Cli, tmp_path: Path, reasoner: Scripted
) -> None:
    folder = tmp_path / "tray\x1b[2J"
    recipe = write_recipe(folder)
    recipe.write_text(recipe.read_text().replace("exactly 2 washers", '"2 washers \\e[31m"'))
    write_parts(folder, 1)
    reasoner.script = malformed
    assert cli("inspect", folder).code == 0
    [review] = cli("review", "list", "--json").json
    cli("review", "decide", review["id"], "--finding", "conforming", "--comment", "\x1b]0;x\x07",
        "--by", "ann\x1b[1A\u202e")  # fmt: skip
    told = cli("review", "show", review["id"]).out
    assert all(line.isprintable() for line in told.split("\n"))
    for text in ("tray\\x1b[2J/part-000.png", "washers \\x1b[31m", "\\x1b]0;x\\x07", "ann\\x1b[1A"):
        assert text in told


def test_a_decision_closes_the_inspection_and_its_pause(
    cli: Cli, waiting: list[str], tmp_path: Path
) -> None:
    assert _pauses(tmp_path) == 2
    ran = cli("review", "decide", waiting[0], "--finding", "nonconforming", "--disposition",
              "rework", "--rule", "R1", "--comment", "one short", "--by", "ann")  # fmt: skip
    assert (ran.code, ran.out) == (0, "tray/part-000.png: NotOK, decided by ann\n")
    assert _pauses(tmp_path) == 1
    again = cli("review", "decide", waiting[0], "--finding", "conforming")
    assert again.code == 2
    assert "the first decision stands" in again.error
    ran = cli("review", "decide", waiting[1], "--finding", "Conforming", "--json")
    assert ran.json["final"] == "OK"
    assert cli("review", "list", "--json").json == []
    decided = cli("review", "list", "--all", "--json").json
    assert [review["decision"] for review in decided] == ["nonconforming", "conforming"]


def test_a_decision_that_was_stopped_half_way_is_finished_by_the_same_call(
    cli: Cli, waiting: list[str], tmp_path: Path
) -> None:
    """A disk that is full between the record and the end of the pause, say."""
    made = ReviewDecision(finding=Finding.CONFORMING, comment="looked", by="ann")
    with open_store("lad-agent.db") as audit:
        audit.decide_review(waiting[0], made)
    assert _pauses(tmp_path) == 2
    asked = ("review", "decide", waiting[0], "--finding", "conforming", "--by", "ann")
    other = cli(*asked, "--comment", "looked twice")
    assert (other.code, "the first decision stands" in other.error) == (2, True)
    ran = cli(*asked, "--comment", "looked")
    assert (ran.code, ran.out) == (0, "tray/part-000.png: OK, decided by ann\n")
    assert _pauses(tmp_path) == 1
    shown = cli("audit", "show", cli("review", "show", waiting[0], "--json").json["inspection"])
    assert shown.out.count("review.decided") == 1


def test_a_decision_is_in_the_results_of_the_next_run(
    cli: Cli, waiting: list[str], tmp_path: Path
) -> None:
    cli("review", "decide", waiting[0], "--finding", "conforming")
    ran = cli("inspect", "tray", "--limit", 2)
    assert "waiting for a person: 1 malformed-answer" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--finding", "good"], "--finding good: known: conforming, nonconforming"),
        (["--finding", "nonconforming"], "needs a disposition"),
        (["--finding", "nonconforming", "--disposition", "x"], "known: use-as-is, rework"),
        (["--finding", "conforming", "--rule", "R1"], "conforming part has neither"),
        (["--finding", "nonconforming", "--disposition", "scrap", "--rule", "R9"], "no rule 'R9'"),
    ],
)
def test_a_wrong_decision_is_refused(
    cli: Cli, waiting: list[str], arguments: list[str], words: str
) -> None:
    ran = cli("review", "decide", waiting[0], *arguments)
    assert ran.code == 2
    assert words in ran.error
    assert len(cli("review", "list", "--json").json) == 2


def test_a_finding_against_the_reasoner_needs_a_comment(
    cli: Cli, tray: Path, reasoner: Scripted
) -> None:
    write_recipe(tray, min_confidence=1.0)
    reasoner.script = good
    cli("inspect", "tray", "--limit", 1)
    [review] = cli("review", "list", "--json").json
    scrap = ("review", "decide", review["id"], "--finding", "nonconforming",
             "--disposition", "scrap")  # fmt: skip
    ran = cli(*scrap)
    assert ran.code == 2
    assert "nonconforming goes against the reasoner: say why with --comment" in ran.error
    assert cli(*scrap, "--comment", "a scratch").code == 0


def test_unknown_ids_and_stores(cli: Cli, waiting: list[str]) -> None:
    ran = cli("review", "show", "nothing")
    assert (ran.code, "no review 'nothing'" in ran.error) == (2, True)
    ran = cli("review", "list", "--store", "gone.db")
    assert ran.code == 4
    assert "gone.db" in ran.error
    assert not Path("gone.db").exists()


def test_an_audit_is_blind_until_it_is_decided(
    cli: Cli, tmp_path: Path, reasoner: Scripted
) -> None:
    reasoner.script = good
    write_recipe(tmp_path / "all", audit_rate=1.0)
    write_parts(tmp_path / "all", 1)
    cli("inspect", "all")
    [review] = cli("review", "list", "--json").json
    assert (review["kind"], review["reason"]) == ("audit", None)
    shown = cli("review", "show", review["id"], "--json").json
    assert [shown[name] for name in ("rationale", "anomaly_score", "confidence")] == [None] * 3
    ran = cli("review", "decide", review["id"], "--finding", "nonconforming", "--disposition",
              "scrap", "--rule", "R1")  # fmt: skip
    assert "NotOK" in ran.out
    assert cli("review", "show", review["id"], "--json").json["rationale"] is not None


def test_a_decision_that_was_cut_off_is_finished_by_the_next_run(
    cli: Cli, waiting: list[str], tmp_path: Path
) -> None:
    with open_store(tmp_path / "lad-agent.db", create=False) as audit:
        audit.decide_review(waiting[0], ReviewDecision(finding=Finding.CONFORMING, by="ann"))
        assert len(audit.reviews(ReviewFilter(applied=False))) == 1
    cli("inspect", "tray", "--limit", 2)
    with open_store(tmp_path / "lad-agent.db", create=False) as audit:
        assert audit.reviews(ReviewFilter(applied=False)) == []
    assert _pauses(tmp_path) == 1
