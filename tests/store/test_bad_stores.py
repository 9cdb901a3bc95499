"""Stores that cannot be used: one line that names the file and the remedy, nothing worsened."""

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import event

from lad_agent.errors import (
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreReadOnly,
    StoreSchema,
    UsageError,
)
from lad_agent.store import AuditStore, open_store, operations
from tests.store.samples import DOUBT, OK, intake, judgement, tables

NOBODY = 65534


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store of 200 inspections, closed."""
    with open_store(tmp_path / "audit.db") as store:
        store.transact([partial(_fill, number) for number in range(200)])
        return store.file


def test_a_path_and_a_url_name_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("a b%#?ü.db") as store:
        opened = store.take_in(intake())
        assert store.file == tmp_path / "a b%#?ü.db"
        assert store.file.exists()
    with open_store(Path("a b%#?ü.db")) as store:
        assert store.inspection(opened.id).id == opened.id
    with open_store("plain.db"), open_store(f"sqlite:///{tmp_path}/plain.db") as store:
        assert store.file == tmp_path / "plain.db"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///file:a.db?uri=true", "must be a file"),
        ("mysql://anna:secret@db/audit", "only SQLite and PostgreSQL"),
        ("://", "neither a path nor"),
    ],
)
def test_other_values_are_a_wrong_usage(value: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        open_store(value)
    assert "secret" not in str(refused.value)


def test_a_folder_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="no such folder; make it"):
        open_store(tmp_path / "not" / "there.db")


def test_asking_does_not_make_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for name in ("missing.db", "empty.db"):
        with pytest.raises(StoreError, match="no audit store here; lad-agent inspect"):
            open_store(tmp_path / name, create=False)
    assert not (tmp_path / "missing.db").exists()
    open_store(tmp_path / "empty.db").close()


def test_a_newer_schema(filled: Path) -> None:
    _execute(filled, "UPDATE alembic_version SET version_num = '0999'")
    said = _refused(filled, StoreSchema)
    assert re.search("newer version.*upgrade lad-agent", said)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    _execute(file, "CREATE TABLE bookmarks (url)")
    before = file.read_bytes()
    assert "not an audit store; give another --store" in _refused(file, StoreCorrupt)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database at all, but a note. " * 100)
    assert "no SQLite database" in _refused(file, StoreCorrupt)


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_store(filled: Path, damage: str) -> None:
    content = filled.read_bytes()
    half = len(content) // 2
    rest = b"" if damage == "truncated" else b"\xa5" * (len(content) - half)
    filled.write_bytes(content[:half] + rest)
    with pytest.raises(StoreCorrupt, match="damaged; restore a backup") as refused:
        _use(filled)
    _one_line(refused.value, filled)


def test_a_store_without_its_tables(filled: Path) -> None:
    _execute(filled, "DROP TABLE reviews")
    with (
        pytest.raises(StoreError, match=r"no such table: reviews.*restore a backup"),
        open_store(filled) as store,
    ):
        store.reviews()


def test_a_row_that_makes_no_sense(filled: Path) -> None:
    _execute(filled, "UPDATE inspections SET result = 'GREAT'")
    with open_store(filled) as store:
        with pytest.raises(StoreCorrupt, match="cannot be read"):
            store.inspections()
        store.rebuild()
        assert len(store.inspections()) == 200


def test_a_locked_store(filled: Path) -> None:
    with (
        open_store(filled, busy_timeout_s=0.1) as store,
        closing(sqlite3.connect(filled, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match=r"another process holds.*run again") as refused:
            store.take_in(intake("late"))
        _one_line(refused.value, filled)
        assert store.count() == 200  # reading goes on
        other.execute("COMMIT")
        store.take_in(intake("late"))


def test_a_store_locked_for_all(filled: Path) -> None:
    with closing(sqlite3.connect(filled, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLocked, match="run again"):
            open_store(filled, busy_timeout_s=0.1)


def test_a_short_lock_is_waited_for(filled: Path) -> None:
    with (
        open_store(filled, busy_timeout_s=10) as store,
        closing(sqlite3.connect(filled, isolation_level=None, check_same_thread=False)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.execute, ["COMMIT"])
        timer.start()
        store.take_in(intake("late"))
        timer.join()
        assert store.count() == 201


@pytest.mark.skipif(os.name != "posix", reason="rights are other on Windows")
@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_read_only_store(filled: Path, whole_folder: bool) -> None:
    before = filled.read_bytes()
    filled.chmod(0o444)
    with _powerless(filled.parent, 0o555 if whole_folder else 0o777):
        with pytest.raises(StoreReadOnly, match="another --store") as refused:
            _use(filled)
        _one_line(refused.value, filled)
    assert filled.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="rights are other on Windows")
def test_a_folder_without_rights(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    with _powerless(closed, 0o000):
        for file in (closed / "audit.db", closed / "deeper" / "audit.db"):
            with pytest.raises(StoreReadOnly, match="another --store") as refused:
                open_store(file)
            _one_line(refused.value, file)


@pytest.mark.skipif(os.name != "posix", reason="rights are other on Windows")
def test_a_folder_where_no_store_can_be_made(tmp_path: Path) -> None:
    with _powerless(tmp_path, 0o555):
        assert "another --store" in _refused(tmp_path / "audit.db", StoreReadOnly)


def test_a_full_disk_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    with open_store(tmp_path / "audit.db") as store:
        _limit(store, pages=160)
        recorded: list[str] = []
        with pytest.raises(StoreReadOnly, match="disk is full; free some space") as refused:
            _escalate_until_it_fails(store, recorded)
        _one_line(refused.value, store.file)
        assert len(recorded) > 5
        assert all(store.outcome(inspection_id) for inspection_id in recorded)
        assert store.verify_chain().intact
        before = tables(store)
        _limit(store, pages=2**30)
        store.rebuild()
        assert tables(store) == before
        store.take_in(intake("after"))


def test_a_disk_too_full_for_a_store(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(StoreError, match=r"disk (is full|failed).*run again"):
            open_store(tmp_path / "audit.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    open_store(tmp_path / "audit.db").close()


def _fill(number: int, unit: operations.Unit) -> None:
    opened = operations.take_in(unit, intake(f"p{number}"))
    operations.record(unit, opened.id, OK, judgement())


def _use(file: Path) -> None:
    with open_store(file) as store:
        store.take_in(intake("one more"))
        store.inspections()
        store.verify_chain()


def _refused(file: Path, kind: type[StoreError]) -> str:
    """What is said."""
    with pytest.raises(kind) as refused:
        open_store(file)
    _one_line(refused.value, file)
    return str(refused.value)


def _one_line(error: StoreError, file: Path) -> None:
    assert "\n" not in str(error)
    assert str(error).startswith(str(file))
    assert error.exit_code == 4


def _execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


def _limit(store: AuditStore, pages: int) -> None:
    """Let the database grow to so many pages, on every connection: SQLite's own "disk full"."""
    store._engine.dispose()

    @event.listens_for(store._engine, "connect")
    def _set(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}").close()


def _escalate_until_it_fails(store: AuditStore, recorded: list[str]) -> None:
    while True:
        opened = store.take_in(intake(f"p{len(recorded)}"))
        store.escalate(opened.id, DOUBT, judgement(rationale="x" * 2000))
        recorded.append(opened.id)


@contextmanager
def _powerless(folder: Path, mode: int) -> Iterator[None]:
    """Go on as a user who is not root, with `mode` on `folder`, its parents open to all."""
    root = os.geteuid() == 0
    opened = [path for path in folder.parents if root and path.stat().st_uid == 0]
    modes = {path: path.stat().st_mode for path in [folder, *opened]}
    for path in opened:
        path.chmod(modes[path] | 0o011)
    folder.chmod(mode)
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, before in modes.items():
            path.chmod(before)
