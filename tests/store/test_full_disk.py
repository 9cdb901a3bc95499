"""A disk that is really full: what was recorded stays, one line says what to do, work goes on."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lad_agent.errors import StoreReadOnly, UsageError
from lad_agent.store import AuditStore, InspectionFilter, export, open_store, views
from lad_agent.store.backup import backup
from tests.small_disk import Grow, mounted
from tests.store import server
from tests.store.samples import DOUBT, intake, judgement


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Grow]]:
    """A folder with room for 3 MB, and what gives it more."""
    with mounted(tmp_path / "disk", 3) as grow:
        yield tmp_path / "disk", grow


@pytest.fixture
def small_postgres_url(postgres_server: str) -> Iterator[tuple[str, Grow]]:
    """A new database on a disk of its own, with room for little more than itself."""
    folder = Path(postgres_server) / "disk"
    with mounted(folder, 14) as grow:
        if (user := server.unprivileged()) is not None:
            shutil.chown(folder, user)
        server.administer(postgres_server, f"CREATE TABLESPACE disk LOCATION '{folder}'")
        server.administer(postgres_server, "CREATE DATABASE small TABLESPACE disk")
        yield f"postgresql://postgres@/small?host={postgres_server}", grow
        server.administer(postgres_server, "DROP DATABASE small WITH (FORCE)")
        server.administer(postgres_server, "DROP TABLESPACE disk")


def test_sqlite(disk: tuple[Path, Grow]) -> None:
    folder, grow = disk
    with open_store(folder / "audit.db") as store:
        recorded = _fill(store)
        with pytest.raises(StoreReadOnly, match="disk is full; free some space"):
            backup(store, folder / "backup.db")
        with pytest.raises(UsageError, match=r"cannot be written.*make room"):
            _export(store, folder / "all.jsonl")
        assert [path.name for path in folder.iterdir() if "audit.db" not in path.name] == []
        grow(30)
        _goes_on(store, recorded)
        assert backup(store, folder / "backup.db").intact
        assert _export(store, folder / "all.jsonl") == len(recorded) + 1


def test_postgresql(small_postgres_url: tuple[str, Grow]) -> None:
    url, grow = small_postgres_url
    with open_store(url) as store:
        recorded = _fill(store)
        grow(60)
        _goes_on(store, recorded)


def _fill(store: AuditStore) -> list[str]:
    """Escalate parts until the disk is full; the ids of those that were recorded."""
    recorded: list[str] = []
    with pytest.raises(StoreReadOnly, match="disk is full; free some space") as refused:
        _escalate_until_it_fails(store, recorded)
    assert "\n" not in str(refused.value)
    assert len(recorded) > 5
    assert all(store.outcome(inspection_id) for inspection_id in recorded)
    assert store.verify_chain().intact
    return recorded


def _escalate_until_it_fails(store: AuditStore, recorded: list[str]) -> None:
    for number in range(5000):
        opened = store.take_in(intake(f"p{number}"))
        store.escalate(opened.id, DOUBT, judgement(rationale=secrets.token_hex(20_000)))
        recorded.append(opened.id)


def _goes_on(store: AuditStore, recorded: list[str]) -> None:
    """The part that found no room is recorded under its id, if it had one."""
    opened = store.take_in(intake(f"p{len(recorded)}"))
    store.escalate(opened.id, DOUBT, judgement())
    assert store.count(InspectionFilter(complete=True)) == store.count() == len(recorded) + 1
    assert store.verify_chain().intact
    assert store.changed_tables() == []


def _export(store: AuditStore, path: Path) -> int:
    columns = export.columns(views.INSPECTIONS)
    return store.ask(
        lambda session: (
            export.write(path, columns, export.inspections(session, InspectionFilter())).rows
        )
    )
