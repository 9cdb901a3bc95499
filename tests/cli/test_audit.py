"""`lad-agent audit`: lists with their filters, and all that is known of one inspection."""

import hashlib
from pathlib import Path

import pytest

from lad_agent.store import ledger, open_store
from tests.cli.conftest import Cli
from tests.scripted import Scripted, bad, good, malformed, write_parts, write_recipe


@pytest.fixture
def recorded(cli: Cli, tray: Path, reasoner: Scripted) -> list[dict[str, object]]:
    """Three parts of two products: OK, NotOK and NotDecidable; the newest first."""
    scripts = iter([good, bad, malformed])
    reasoner.script = lambda question: next(scripts)(question)
    write_recipe(tray.parent / "pins", "pushpins")
    write_parts(tray.parent / "pins", 1)
    for path in ("tray/part-000.png", "pins", "tray/part-001.png"):
        cli("inspect", path, "--station", Path(path).parts[0], "--lot", "L1")
    found: list[dict[str, object]] = cli("audit", "list", "--json").json
    return found


def test_all_are_listed_the_newest_first(cli: Cli, recorded: list[dict[str, object]]) -> None:
    assert [one["result"] for one in recorded] == ["NotDecidable", "NotOK", "OK"]
    heads, *rows = cli("audit", "list").out.splitlines()
    assert heads.split() == ["inspection", "at", "product", "part", "result", "final", "why"]
    assert [row.split()[0] for row in rows] == [one["id"] for one in recorded]
    assert "R1 washers at A1: 1 of 2 bad" in rows[1]
    assert "malformed-answer" in rows[0]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--product", "pushpins"], 1),
        (["--result", "ok"], 1),
        (["--result", "NotDecidable"], 1),
        (["--part", "part-001.png"], 1),
        (["--part", "other"], 0),
        (["--station", "tray"], 2),
        (["--lot", "L1"], 3),
        (["--lot", "L2"], 0),
        (["--since", "1h"], 3),
        (["--since", "2999-01-01"], 0),
        (["--since", "2020-01-01T08:00+02:00"], 3),
        (["--limit", "2"], 2),
        (["--since", "-8h"], 3),
        (["--since", "today", "--until", "today"], 3),
        (["--until", "-1h"], 0),
        (["--until", "2999-12-31T10:00"], 3),
        (["--cause", "R1"], 1),
        (["--cause", "R2"], 0),
        (["--reviewer", "anna"], 0),
        (["--model", "scripted"], 3),
        (["--recipe-version", "none"], 0),
        (["--text", "washers"], 2),
        (["--text", "washers bad"], 1),
        (["--product", "screw_bag", "--result", "OK"], 1),
    ],
)
def test_filters(
    cli: Cli, recorded: list[dict[str, object]], arguments: list[str], count: int
) -> None:
    assert len(cli("audit", "list", *arguments, "--json").json) == count


def test_pages_follow_each_other(cli: Cli, recorded: list[dict[str, object]]) -> None:
    said = cli("audit", "list", "--limit", 2).out.splitlines()[-1]
    assert said == f"... more: --after {recorded[1]['id']}"
    rest = cli("audit", "list", "--after", recorded[1]["id"], "--json").json
    assert rest == recorded[2:]
    assert cli("audit", "list", "--lot", "x").out == "no such inspection\n"
    assert "--text '...': give a word" in cli("audit", "list", "--text", "...").error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], "--since yesterday: give a date"),
        (["--until", "later"], "--until later: give a date"),
        (["--result", "Good"], "--result Good: known: OK, NotOK, NotDecidable"),
        (["--store", "gone.db"], "gone.db"),
    ],
)
def test_wrong_filters_are_explained(cli: Cli, arguments: list[str], words: str) -> None:
    ran = cli("audit", "list", *arguments)
    assert ran.code in (2, 4)
    assert words in ran.error


def test_one_inspection_is_shown_whole(cli: Cli, recorded: list[dict[str, object]]) -> None:
    wanted = recorded[1]
    shown = cli("audit", "show", wanted["id"], "--json").json
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["judgement"]["raw_text"].endswith("<answer>yes</answer>")
    assert shown["recipe"]["rules"] == [{"id": "R1", "text": "exactly 2 washers"}]
    kinds = [event["type"] for event in shown["events"]]
    assert kinds[0] == "inspection.opened"
    text = cli("audit", "show", wanted["id"]).out
    assert "R1 washers at A1: 1 of 2 bad" in text
    assert "inspection.recorded" in text
    ran = cli("audit", "show", "nothing")
    assert (ran.code, "no inspection 'nothing'" in ran.error) == (2, True)


def test_stats_as_table_json_and_file(
    cli: Cli, recorded: list[dict[str, object]], tmp_path: Path
) -> None:
    lines = cli("audit", "stats").out.splitlines()
    assert lines[0].split() == [
        "group", "inspections", "ok", "not_ok", "waiting", "escalated", "yield_rate"
    ]  # fmt: skip
    assert lines[1].split() == ["pushpins", "1", "0", "1", "0", "0", "0.0000"]
    [cause] = cli("audit", "stats", "--by", "cause", "--json").json
    assert (cause["cause"], cause["text"], cause["share"]) == ("R1", "exactly 2 washers", 1.0)
    ran = cli("audit", "stats", "--by", "Hour", "--product", "screw_bag", "--out", "hours.csv")
    assert ran.code == 0
    assert (tmp_path / "hours.csv").read_text().splitlines()[1].split(",")[1:] == [
        "2", "1", "0", "1", "1", "1.0"
    ]  # fmt: skip
    assert cli("audit", "stats", "--by", "reviewer").out.split()[0] == "reviewer"
    ran = cli("audit", "stats", "--by", "month")
    assert (ran.code, "--by month: known: hour, day, product" in ran.error) == (2, True)


def test_an_export_is_an_event(cli: Cli, recorded: list[dict[str, object]], tmp_path: Path) -> None:
    ran = cli("audit", "export", "bad.csv", "--result", "NotOK", "--by", "anna")
    assert ran.code == 0
    assert ran.out.startswith("bad.csv: 1 rows, SHA-256 ")
    digest = hashlib.sha256((tmp_path / "bad.csv").read_bytes()).hexdigest()
    with open_store(tmp_path / "lad-agent.db", create=False) as audit:
        last = audit.ask(lambda session: list(ledger.entries(session.connection())))[-1]
    assert (last.type, last.actor) == ("exported", "anna")
    assert last.payload == {
        "view": "v_inspections", "file": "bad.csv", "rows": 1, "sha256": digest,
        "filters": {"result": "NotOK"},
    }  # fmt: skip
    assert cli("audit", "verify").code == 0
    assert cli("audit", "export", "all.parquet", "--reviews").out.startswith("all.parquet: 1 rows")
    ran = cli("audit", "export", "all.xlsx")
    assert (ran.code, "all.xlsx: ends in none of" in ran.error) == (2, True)


def test_a_certificate_is_made_and_checked(
    cli: Cli, recorded: list[dict[str, object]], tmp_path: Path
) -> None:
    ran = cli("audit", "certificate", recorded[0]["id"])
    assert (ran.code, "no signing key" in ran.error) == (4, True)
    for name in ("line.key", "other.key"):
        assert cli("audit", "keygen", name).code == 0
    ran = cli("audit", "certificate", recorded[0]["id"], "--signing-key", "line.key", "--out",
              "part.html")  # fmt: skip
    assert ran.code == 0, ran.err
    check = ("audit", "certificate", "--check", "part.html", "--public-key")
    assert cli(*check, "line.key.pub").out.startswith("part.html: whole, signed by ")
    ran = cli(*check, "other.key.pub")
    assert (ran.code, "part.html: signed by another key" in ran.error) == (5, True)
    (tmp_path / "part.html").write_bytes((tmp_path / "part.html").read_bytes() + b" ")
    ran = cli(*check, "line.key.pub")
    assert (ran.code, "part.html: not a certificate" in ran.error) == (5, True)
    assert cli("audit", "certificate").code == 2
    assert cli("audit", "certificate", "--check", "gone.html").code == 2


def test_hostile_texts_are_shown_and_not_obeyed(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    hostile = "\x1b[2J\u202e=1+1'; DROP TABLE events; --"
    cli("inspect", "tray/part-000.png", "--station", "s", "--lot", hostile, "--by", hostile)
    [found] = cli("audit", "list", "--lot", hostile, "--json").json
    assert (found["lot"], found["actor"]) == (hostile, hostile)
    for command in (
        ("audit", "list"), ("audit", "show", found["id"]), ("audit", "stats", "--by", "lot")
    ):  # fmt: skip
        out = cli(*command).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    assert "\\x1b[2J\\u202e=1+1" in cli("audit", "stats", "--by", "lot").out
    assert cli("audit", "show", found["id"], "--json").json["lot"] == hostile
