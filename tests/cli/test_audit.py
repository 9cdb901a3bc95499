"""`lad-agent audit`: lists with their filters, and all that is known of one inspection."""

from pathlib import Path

import pytest

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
        (["--product", "screw_bag", "--result", "OK"], 1),
    ],
)
def test_filters(
    cli: Cli, recorded: list[dict[str, object]], arguments: list[str], count: int
) -> None:
    assert len(cli("audit", "list", *arguments, "--json").json) == count


def test_what_the_limit_leaves_out_is_told(cli: Cli, recorded: list[dict[str, object]]) -> None:
    assert cli("audit", "list", "--limit", 1).out.splitlines()[-1] == "... 2 more: --limit 3"
    assert cli("audit", "list", "--lot", "x").out == "no such inspection\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], "--since yesterday: give a date"),
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
