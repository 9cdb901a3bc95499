"""`lad-agent audit replay`: the same again, and what is no longer the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from lad_agent import software
from tests.cli.conftest import Cli
from tests.scripted import Scripted, bad, good


@pytest.fixture
def inspected(cli: Cli, tray: Path, reasoner: Scripted) -> list[dict[str, Any]]:
    """Twelve parts, judged by their hash; those that were malformed wait for a person."""
    assert cli("inspect", "tray").code == 0
    found: list[dict[str, Any]] = cli("audit", "list", "--json").json
    return found


def test_one_inspection_comes_out_the_same(
    cli: Cli, inspected: list[dict[str, Any]], reasoner: Scripted
) -> None:
    one = inspected[0]
    ran = cli("audit", "replay", one["id"], "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["same"], ran.json["changes"], ran.json["problem"]) == (True, [], None)
    assert ran.json["recorded"] == ran.json["now"]
    assert reasoner.asked[-1] == one["image_sha256"]
    assert reasoner.closed
    assert one["rationale"] in cli("audit", "replay", one["id"]).out


def test_another_answer_fails_the_check(
    cli: Cli, inspected: list[dict[str, Any]], reasoner: Scripted
) -> None:
    was = next(one for one in inspected if one["result"] == "NotOK")
    reasoner.script = good
    ran = cli("audit", "replay", was["id"])
    assert (ran.code, ran.error) == (
        5, "lad-agent: 1 of 1 came out otherwise than recorded"
    )  # fmt: skip
    assert "NotOK" in ran.out


def test_a_sample_reports_how_many_agree(
    cli: Cli, inspected: list[dict[str, Any]], reasoner: Scripted
) -> None:
    ran = cli("audit", "replay", "--sample", 5, "--seed", 3, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["drawn"], ran.json["replayed"], ran.json["same"]) == (5, 5, 5)
    again = cli("audit", "replay", "--sample", 5, "--seed", 3, "--json").json
    assert again == ran.json
    reasoner.script = bad
    ran = cli("audit", "replay", "--sample", 99)
    rejected = sum(one["result"] == "NotOK" for one in inspected)
    assert ran.code == 5
    assert f"same verdict    {rejected} of 12" in ran.out
    assert "other verdict" in ran.out


def test_a_sample_is_of_what_is_wanted(cli: Cli, inspected: list[dict[str, Any]]) -> None:
    ran = cli("audit", "replay", "--sample", 99, "--result", "OK", "--json")
    assert ran.json["drawn"] == sum(one["result"] == "OK" for one in inspected)
    assert cli("audit", "replay", "--sample", 9, "--product", "x").code == 2


def test_what_has_changed_is_named(
    cli: Cli,
    inspected: list[dict[str, Any]],
    reasoner: Scripted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = software.versions() | {"torch": "99"}
    monkeypatch.setattr(software, "versions", lambda: now)
    reasoner.fingerprint = "other"
    ran = cli("audit", "replay", inspected[0]["id"])
    assert ran.code == 0
    assert "changed: model: scripted, now other" in ran.out
    assert "changed: torch: " in ran.out
    assert ran.out.rstrip().endswith("now 99")


def test_an_image_that_is_gone_is_a_missing_prerequisite(
    cli: Cli, inspected: list[dict[str, Any]]
) -> None:
    passed = [one for one in inspected if one["result"] == "OK"]
    Path(passed[0]["image"]).write_bytes(b"changed")
    ran = cli("audit", "replay", passed[0]["id"], "--json")
    assert ran.code == 4
    assert "not replayed" in ran.error
    assert [change["what"] for change in ran.json["changes"]] == ["image"]
    # In a sample it is counted, and no fault of those that could be run.
    ran = cli("audit", "replay", "--sample", 99, "--json")
    assert (ran.code, ran.json["drawn"], ran.json["replayed"]) == (0, 12, 11)
    assert ran.json["changed"] == ["image"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give the id of an inspection, or --sample N"),
        (["x", "--sample", "3"], "give the id of an inspection, or --sample N"),
        (["x"], "no inspection 'x'"),
    ],
)
def test_wrong_use(
    cli: Cli, inspected: list[dict[str, Any]], arguments: list[str], words: str
) -> None:
    ran = cli("audit", "replay", *arguments)
    assert ran.code == 2
    assert words in ran.error


def test_nothing_is_recorded(cli: Cli, inspected: list[dict[str, Any]]) -> None:
    before = json.loads(cli("audit", "verify", "--json").out)["events"]
    cli("audit", "replay", "--sample", 3)
    assert json.loads(cli("audit", "verify", "--json").out)["events"] == before
