"""Every command that writes, on a disk that is full now, or a little later, or later still."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lad_agent.store import open_store, schema
from tests import small_disk
from tests.cli.conftest import Cli
from tests.scripted import Scripted, write_parts, write_recipe

COMMANDS = (
    "inspect tray --out results.jsonl",
    "review decide REVIEW --finding conforming --comment looked",
    "hold on screw_bag --reason dirt",
    "store migrate --store older.db",
    "store rebuild",
    "store backup backup.db",
    "store restore copy.db --store again.db",
    "audit export all.csv",
    "audit export all.parquet",
    "audit stats --out stats.json",
    "audit certificate INSPECTION",
    "audit keygen new.key",
    "audit head --to heads.jsonl",
    "store archive 2026.db --before 2999-01-01",
)
ROOM = (0, *(4096 * 4**step for step in range(7)))
BEGUN = {"inspect": {"lad-agent.db.images", "lad-agent.db.pauses"}, "store": {"again.db"}}
"""What may be there of work that was cut short; the same command goes on from it."""


@pytest.fixture
def disk(
    tmp_path: Path, cli: Cli, reasoner: Scripted, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A disk of its own with a store in use, and the pictures of more parts."""
    with small_disk.mounted(tmp_path / "disk", 32):
        folder = tmp_path / "disk"
        monkeypatch.chdir(folder)
        write_recipe(folder / "tray", audit_rate=0.3)
        write_parts(folder / "tray", 12, "early")
        assert cli("audit", "keygen", "line.key").code == 0
        (folder / "lad-agent.toml").write_text('signing_key = "line.key"\n')
        assert cli("inspect", "tray").code == 0
        for name in ("copy.db", "older.db"):
            assert cli("store", "backup", name).code == 0
        with open_store("older.db") as older, older._connection(writing=True) as connection:
            schema.migrate_down(connection, "0006")
        write_parts(folder / "tray", 12, "late")
        yield folder
        monkeypatch.chdir(tmp_path)


def test_each_command_says_so_and_leaves_nothing_half_done(disk: Path, cli: Cli) -> None:
    for command in COMMANDS:
        waiting = cli("review", "list", "--json").json[0]["id"]
        inspected = cli("audit", "list", "--result", "OK", "--json").json[0]["id"]
        known = {"REVIEW": waiting, "INSPECTION": inspected}
        words = [known.get(word, word) for word in command.split()]
        refused = 0
        for free in ROOM:
            before = _files(disk)
            with small_disk.left(disk, free):
                ran = cli(*words)
            if ran.code == 0:
                break
            assert ran.code in (2, 4), (command, free, ran)
            assert re.search("disk (is full|failed)|No space left", ran.error), (command, ran.error)
            assert _files(disk) - before <= BEGUN.get(words[0], set()), (command, free)
            refused += 1
        assert ran.code == 0, (command, ran)
        assert refused > 0, command
    assert cli("audit", "verify", "--tables").code == 0
    assert len(cli("audit", "list", "--store", "2026.db", "--json").json) == 24


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}
