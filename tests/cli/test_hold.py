"""`lad-agent hold`, and what an alarm does to `doctor` and `audit stats`."""

from pathlib import Path

import pytest

from lad_agent.store import open_store
from lad_agent.store.holds import Alarm, Broken
from tests.cli.conftest import Cli
from tests.scripted import Scripted, good

BROKEN = Broken(
    "screw_bag", "v1", "scripted", "2026-05-01", "escape_rate", "6 of 40 audited are bad", hold=True
)


@pytest.fixture
def inspected(cli: Cli, tray: Path, reasoner: Scripted) -> Path:
    """A store that knows the product."""
    reasoner.script = good
    assert cli("inspect", "tray", "--limit", 1).code == 0
    return tray


def _raised() -> list[Alarm]:
    with open_store("lad-agent.db") as store:
        return store.raise_alarms("line-1", "otto", [BROKEN])


def test_a_hold_sends_every_part_to_people(cli: Cli, inspected: Path) -> None:
    ran = cli("hold", "on", "screw_bag", "--reason", "new supplier", "--by", "anna")
    assert (ran.code, ran.err) == (0, "")
    assert "every part goes to people" in ran.out
    ran = cli("inspect", "tray", "--limit", 3)
    assert "2 on-hold" in ran.out
    assert [one["reason"] for one in cli("review", "list", "--json").json] == ["on-hold"] * 2
    [hold] = cli("hold", "list", "--json").json["holds"]
    assert (hold["product"], hold["on_by"], hold["reason"]) == ("screw_bag", "anna", "new supplier")
    [told] = [one for one in cli("doctor", "--json").json if one["name"] == "hold"]
    assert told["state"] == "note"
    assert told["remedy"].endswith("lad-agent hold release screw_bag --by NAME")
    ran = cli("hold", "release", "screw_bag", "--by", "bert")
    assert ran.out == "screw_bag: released by bert\n"
    assert cli("hold", "list").out == "no hold is on, no alarm stands\n"
    assert "on-hold" not in cli("inspect", "tray", "--limit", 4, "--json").out.splitlines()[-1]


def test_a_hold_is_for_a_product_that_is_there(cli: Cli, inspected: Path) -> None:
    ran = cli("hold", "on", "screw_bags", "--reason", "x")
    assert ran.code == 2
    assert "did you mean 'screw_bag'?; or hold all" in ran.error
    assert cli("hold", "on", "all", "--reason", " ").code == 2
    assert cli("hold", "on", "all", "--reason", "x").code == 0
    ran = cli("hold", "on", "all", "--reason", "x")
    assert (ran.code, "on hold already" in ran.error) == (2, True)
    # A name must be given, not taken from the system.
    assert cli("hold", "release", "all").code == 2
    assert cli("hold", "release", "screw_bag", "--by", "bert").code == 2
    assert cli("hold", "release", "all", "--by", "bert").code == 0


def test_a_hold_wants_a_store(cli: Cli) -> None:
    ran = cli("hold", "on", "all", "--reason", "x")
    assert (ran.code, "no audit store here" in ran.error) == (4, True)


def test_an_alarm_stands_in_stats_and_doctor_until_it_is_answered(
    cli: Cli, inspected: Path
) -> None:
    assert cli("doctor").code == 0
    assert len(_raised()) == 1
    assert _raised() == []
    ran = cli("doctor")
    assert ran.code == 5
    assert "alarm: screw_bag: escape_rate: 6 of 40 audited are bad" in ran.error
    for by in ("audit", "promise", "product"):
        assert "alarm: screw_bag: escape_rate: 6 of 40" in cli("audit", "stats", "--by", by).out
    assert "alarm" not in cli("audit", "stats", "--product", "pushpins").out
    ran = cli("audit", "stats", "--by", "drift", "--json")
    assert (ran.json, "alarm: screw_bag" in ran.err) == ([], True)
    # The recipe asked for a hold.
    assert "escape_rate" in cli("hold", "list").out
    ran = cli("hold", "release", "screw_bag", "--by", "bert")
    assert ran.out == "screw_bag: released by bert, 1 alarm answered\n"
    assert cli("doctor").code == 0
