"""Archives and backups: what moves away keeps its proofs, what is copied is checked."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from lad_agent.errors import CheckFailed, NotFound, StoreError, StoreReadOnly, UsageError
from lad_agent.store import AuditStore, InspectionFilter, Kind, Signing, open_store, schema
from lad_agent.store.archive import archive, verify_with
from lad_agent.store.backup import backup, restore
from lad_agent.store.heads import read_file
from lad_agent.store.models import Base
from lad_agent.store.signing import SigningKey, generate
from tests.store.samples import CONFORMING, DOUBT, OK, intake, judgement, tables, write_image

LATER = datetime.now(UTC) + timedelta(days=1)
ROOT = Path(__file__).parents[2]


def _work(store: AuditStore, count: int, first: int = 0) -> list[str]:
    """Inspect parts on two stations; every fourth is escalated and stays open."""
    ids = []
    for number in range(first, first + count):
        opened = store.take_in(intake(f"p{number}", station=f"line-{number % 2}"))
        if number % 4 == 3:
            store.escalate(opened.id, DOUBT, judgement())
        else:
            store.record(opened.id, OK, judgement())
        ids.append(opened.id)
    return ids


def test_an_archive_and_the_rest_verify_alone_and_together(
    each_store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    store, files, heads = each_store, [tmp_path / "1.db", tmp_path / "2.db"], tmp_path / "heads"
    for number, file in enumerate(files):
        _work(store, 8, first=number * 8)
        store.sign_head(signing)
        store.export_heads(heads)
        whole = tables(store)
        made = archive(store, LATER, file, signing)
        assert made.left >= 2 * (number + 1) * 4
        with open_store(file, create=False) as sealed:
            report = sealed.verify_chain(trusted=frozenset({signing.key.public}))
            assert report.intact
            assert report.events == made.events
            got = {row[0] for row in tables(sealed)["inspections"]}
            got |= {row[0] for row in tables(store)["inspections"]}
            assert got >= {row[0] for row in whole["inspections"]}
    _work(store, 4, first=16)
    assert store.count() == 2 + 2 + 4
    assert store.verify_chain().intact
    exported = read_file(heads)
    assert store.verify_chain(exported=exported).unchecked == 2
    together = verify_with(store, files[::-1], exported=exported)
    assert together.intact
    assert together.unchecked == 0
    before = tables(store)
    store.rebuild()
    assert tables(store) == before


def test_what_waits_for_people_stays_and_can_be_decided(
    each_store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    ids = _work(each_store, 8)
    archive(each_store, LATER, tmp_path / "1.db", signing)
    with pytest.raises(NotFound):
        each_store.inspection(ids[0])
    (first, second) = each_store.reviews()
    each_store.decide_review(first.id, CONFORMING)
    each_store.apply_review(first.inspected.id)
    assert [review.id for review in each_store.reviews() if not review.decision] == [second.id]
    archive(each_store, LATER, tmp_path / "2.db", signing)
    assert [review.id for review in each_store.reviews()] == [second.id]
    with open_store(tmp_path / "2.db", create=False) as sealed:
        assert sealed.review(first.id).decision == CONFORMING
    assert verify_with(each_store, [tmp_path / "1.db", tmp_path / "2.db"]).intact


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_tables_after_archives_follow_from_the_events_left(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("archives")
    with open_store(folder / "a.db") as store:
        signing = Signing(_key(folder), "line-1", "olga", every_events=3)
        for number, count in enumerate(rounds):
            _work(store, count, first=number * 5)
            archive(store, LATER, folder / f"{number}.db", signing)
            before = tables(store)
            store.rebuild()
            assert tables(store) == before
        assert verify_with(store, sorted(folder.glob("?.db"))[: len(rounds)]).intact


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE events SET actor = 'eve' WHERE seq = 4", Kind.EDITED),
        ("DELETE FROM events WHERE seq = 4", Kind.DELETED),
        ("UPDATE inspections SET result = 'NotOK'", Kind.EDITED),
    ],
)
def test_a_changed_archive_is_found(
    store: AuditStore, signing: Signing, tmp_path: Path, statement: str, kind: Kind
) -> None:
    _work(store, 4)
    archive(store, LATER, tmp_path / "1.db", signing)
    _tamper(tmp_path / "1.db", statement)
    report = verify_with(store, [tmp_path / "1.db"])
    assert report.faults[0].kind is kind


def test_events_removed_without_the_archivers_key_are_found(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    """Who has the database but no key can write the event, not the seal."""
    _work(store, 4)
    forger = Signing(_key(tmp_path), "line-1", "eve")
    archive(store, LATER, tmp_path / "1.db", forger)
    report = store.verify_chain(trusted=frozenset({signing.key.public}))
    assert report.faults[0].kind is Kind.FOREIGN


def test_what_the_archive_left_is_watched(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    _work(store, 4)
    archive(store, LATER, tmp_path / "1.db", signing)
    with store._connection(writing=True) as connection:  # the trigger lets archived events go
        connection.execute(text("DELETE FROM events WHERE seq = 1"))
    (fault,) = store.verify_chain().faults
    assert (fault.seq, fault.kind) == (1, Kind.DELETED)


def test_only_archived_events_can_be_deleted(
    each_store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    _work(each_store, 4)
    archive(each_store, LATER, tmp_path / "1.db", signing)
    last = _work(each_store, 1, first=9)
    assert last
    with (
        pytest.raises(StoreError, match=r"append-only|what is written stays"),
        each_store._connection(writing=True) as connection,
    ):
        connection.execute(text("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)"))


def test_an_archivers_role_has_the_right_alone(
    postgres_url: str, signing: Signing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store(postgres_url) as store:
        _work(store, 4)
        with store._connection(writing=True) as connection:
            for statement in (
                "CREATE ROLE line LOGIN",
                "CREATE ROLE lad_agent_archiver",
                "GRANT ALL ON ALL TABLES IN SCHEMA public TO line",
            ):
                connection.execute(text(statement))
        before = store.verify_chain()
        try:
            url = postgres_url.replace("postgres@", "line@")
            with open_store(url) as line:
                _work(line, 1, first=8)
                with pytest.raises(StoreReadOnly, match="lad_agent_archiver"):
                    archive(line, LATER, tmp_path / "1.db", signing)
                assert not (tmp_path / "1.db").exists()
            with store._connection(writing=True) as connection:
                connection.execute(text("GRANT lad_agent_archiver TO line"))
            with open_store(url) as line:
                archive(line, LATER, tmp_path / "1.db", signing)
                assert line.verify_chain().events < before.events
        finally:
            with store._connection(writing=True) as connection:
                connection.execute(text("DROP OWNED BY line"))
                connection.execute(text("DROP ROLE line"))
                connection.execute(text("DROP ROLE lad_agent_archiver"))


def test_what_cannot_be_archived(store: AuditStore, signing: Signing, tmp_path: Path) -> None:
    _work(store, 4)
    with pytest.raises(UsageError, match="nothing to archive"):
        archive(store, datetime(2000, 1, 1, tzinfo=UTC), tmp_path / "1.db", signing)
    (tmp_path / "1.db").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        archive(store, LATER, tmp_path / "1.db", signing)
    with pytest.raises(UsageError, match="not an archive of"):
        verify_with(store, [tmp_path / "1.db"])
    _tamper(store.file, "UPDATE events SET actor = 'eve' WHERE seq = 4")
    with pytest.raises(CheckFailed, match="nothing was archived"):
        archive(store, LATER, tmp_path / "2.db", signing)
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["1.db", "audit.db"]


CUT_OFF = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from lad_agent.store import Signing, open_store
from lad_agent.store.archive import archive
from lad_agent.store.signing import load_key
from tests.store.test_archive import LATER

url, file, key = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
store = open_store(url)

def die(_connection):
    if file.exists():
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(store._engine, "commit", die)
archive(store, LATER, file, Signing(load_key(key), "line-1", "olga"))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_a_run_killed_before_its_commit_moves_nothing_and_is_repeated(
    each_store: AuditStore, store_url: str, signing: Signing, tmp_path: Path
) -> None:
    _work(each_store, 8)
    before, file = tables(each_store), tmp_path / "1.db"
    command = [sys.executable, "-c", CUT_OFF, store_url, str(file), str(tmp_path / "line.key")]
    killed = subprocess.run(command, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert file.exists()
    assert tables(each_store) == before
    with pytest.raises(UsageError, match="not an archive of"):
        verify_with(each_store, [file])
    made = archive(each_store, LATER, file, signing)
    assert made.events > made.left
    assert verify_with(each_store, [file]).intact
    with pytest.raises(UsageError, match="is there already"):
        archive(each_store, LATER, file, signing)


def test_nothing_but_its_own_leftover_is_written_over(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    _work(store, 4)
    backup(store, tmp_path / "backup.db")
    with open_store(tmp_path / "other.db") as other:
        _work(other, 4)
    (tmp_path / "other.db").chmod(0o444)
    for name in ("backup.db", "other.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UsageError, match="is there already"):
            archive(store, LATER, tmp_path / name, signing)
        assert (tmp_path / name).read_bytes() == before


def test_an_archive_takes_nothing_in(store: AuditStore, signing: Signing, tmp_path: Path) -> None:
    _work(store, 4)
    archive(store, LATER, tmp_path / "1.db", signing)
    before = (tmp_path / "1.db").read_bytes()
    with open_store(tmp_path / "1.db") as sealed:
        assert sealed.count(InspectionFilter(complete=True)) == 4
        with pytest.raises(StoreReadOnly, match="another --store"):
            sealed.take_in(intake())
    assert (tmp_path / "1.db").read_bytes() == before


# --- backups ----------------------------------------------------------------------------------


def test_a_backup_made_while_others_write_is_whole(each_store: AuditStore, tmp_path: Path) -> None:
    _work(each_store, 8)
    before = tables(each_store)
    report = backup(each_store, tmp_path / "backup.db")
    _work(each_store, 1, first=20)
    assert report.intact
    assert report.events == each_store.verify_chain().events - 3
    with open_store(tmp_path / "backup.db", create=False) as copied:
        assert tables(copied) == before
    assert [path.name for path in tmp_path.glob(".new*")] == []
    with pytest.raises(UsageError, match="is there already"):
        backup(each_store, tmp_path / "backup.db")


def test_a_backup_does_not_wait_for_writers_nor_they_for_it(
    each_store: AuditStore, tmp_path: Path
) -> None:
    _work(each_store, 8)
    stop = threading.Event()

    def write() -> None:
        number = 100
        while not stop.is_set():
            _work(each_store, 1, first=(number := number + 1))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        reports = [backup(each_store, tmp_path / f"backup{number}.db") for number in range(3)]
        stop.set()
        writing.result()
    assert all(report.intact for report in reports)
    assert each_store.verify_chain().events >= reports[-1].events >= reports[0].events


def test_a_store_restored_goes_on_where_the_backup_was_made(
    each_store: AuditStore, tmp_path: Path
) -> None:
    _work(each_store, 4)
    backup(each_store, tmp_path / "backup.db")
    assert restore(tmp_path / "backup.db", tmp_path / "again.db").intact
    with open_store(tmp_path / "again.db") as again:
        assert tables(again) == tables(each_store)
        _work(again, 1, first=20)
        assert again.verify_chain().intact
    with pytest.raises(UsageError, match="holds events already"):
        restore(tmp_path / "backup.db", tmp_path / "again.db")


def test_a_backup_is_one_plain_file(each_store: AuditStore, tmp_path: Path) -> None:
    """Who may only read it can: SQLite writes beside a file that was left in WAL mode."""
    _work(each_store, 4)
    backup(each_store, tmp_path / "backup.db")
    assert (tmp_path / "backup.db").read_bytes()[18:20] == b"\1\1"
    assert [
        path for path in tmp_path.iterdir() if path.name.startswith((".new", "backup.db-"))
    ] == []


@pytest.mark.parametrize("revision", ["0002", "0006", "0009"])
def test_an_older_store_is_backed_up_before_it_is_migrated(
    each_store: AuditStore, tmp_path: Path, revision: str
) -> None:
    _work(each_store, 4)
    before = tables(each_store)
    with each_store._connection(writing=True) as connection:
        schema.migrate_down(connection, revision)
    assert backup(each_store, tmp_path / "backup.db").intact
    with open_store(tmp_path / "backup.db", older=True) as copy:
        copy.migrate()
        assert tables(copy) == before


def test_what_is_no_fact_of_the_ledger_is_backed_up_too(
    each_store: AuditStore, tmp_path: Path
) -> None:
    table = Base.metadata.tables["passwords"]
    with each_store._connection(writing=True) as connection:
        connection.execute(table.insert(), {"name": "anna", "hash": "argon2"})
    backup(each_store, tmp_path / "backup.db")
    restore(tmp_path / "backup.db", tmp_path / "again.db")
    with open_store(tmp_path / "again.db") as again, again._connection() as connection:
        assert [tuple(row) for row in connection.execute(table.select())] == [("anna", "argon2")]


def test_a_backup_can_be_restored_to_postgresql(
    store: AuditStore, postgres_url: str, tmp_path: Path
) -> None:
    _work(store, 6)
    backup(store, tmp_path / "backup.db")
    assert restore(tmp_path / "backup.db", postgres_url).intact
    with open_store(postgres_url) as moved:
        assert tables(moved) == tables(store)


def test_a_backup_of_a_broken_store_is_none(store: AuditStore, tmp_path: Path) -> None:
    _work(store, 4)
    backup(store, tmp_path / "good.db")
    _tamper(store.file, "UPDATE events SET actor = 'eve' WHERE seq = 4")
    with pytest.raises(CheckFailed, match="no backup was made"):
        backup(store, tmp_path / "backup.db")
    _tamper(tmp_path / "good.db", "UPDATE events SET actor = 'eve' WHERE seq = 4")
    with pytest.raises(CheckFailed, match="nothing was restored"):
        restore(tmp_path / "good.db", tmp_path / "again.db")
    assert not (tmp_path / "again.db").exists()
    assert not (tmp_path / "backup.db").exists()


def test_an_archived_store_can_be_backed_up_and_restored(
    each_store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    _work(each_store, 8)
    archive(each_store, LATER, tmp_path / "1.db", signing)
    _work(each_store, 2, first=8)
    backup(each_store, tmp_path / "backup.db")
    restore(tmp_path / "backup.db", tmp_path / "again.db")
    with open_store(tmp_path / "again.db") as again:
        assert tables(again) == tables(each_store)
        assert verify_with(again, [tmp_path / "1.db"]).intact


def test_a_disk_too_full_for_the_copy_leaves_nothing_behind(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    _work(store, 40)
    backup(store, tmp_path / "good.db")
    before = tables(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        for copy in (
            lambda: backup(store, tmp_path / "backup.db"),
            lambda: archive(store, LATER, tmp_path / "1.db", signing),
            lambda: restore(tmp_path / "good.db", tmp_path / "again.db"),
        ):
            with pytest.raises(StoreError, match=r"disk (is full|failed)") as refused:
                copy()
            assert "\n" not in str(refused.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tables(store) == before
    assert store.verify_chain().intact
    assert not (tmp_path / "backup.db").exists()
    assert not (tmp_path / "1.db").exists()
    assert list(tmp_path.glob(".new*")) == []


def test_images_within_a_budget_but_those_that_people_wait_for(
    store: AuditStore, tmp_path: Path
) -> None:
    kept = []
    for number in range(4):
        image = write_image(tmp_path, f"{number}.png", bytes([number]) * 100)
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        opened = store.take_in(intake(f"p{number}", image=str(image), image_sha256=digest))
        kept.append(store.escalate(opened.id, DOUBT, None))
    for review_id in kept[1:]:
        store.decide_review(review_id, CONFORMING)
    assert store.prune_images(1000) == []
    names = [store.review(review_id).kept for review_id in kept]
    deleted = store.prune_images(250)
    assert deleted == names[1:3]
    assert store.prune_images(0) == [names[3]]
    assert (store.images / str(names[0])).exists()


def _key(folder: Path) -> SigningKey:
    return generate(folder / "own.key")


def _tamper(file: Path, statement: str) -> None:
    file.chmod(0o644)
    with closing(sqlite3.connect(file)) as connection, connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
