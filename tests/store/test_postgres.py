"""PostgreSQL: many stations at once, and a server that cannot be used is one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from lad_agent.errors import (
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreReadOnly,
    StoreSchema,
)
from lad_agent.store import open_store
from tests.store.samples import OK, intake, judgement

STATION = """
import asyncio, sys
from lad_agent.store import AsyncStore, open_store
from tests.store.samples import DOUBT, OK, intake, judgement

async def inspect(store, station, number):
    opened = await store.take_in(intake(f"{station}-{number}", station=station))
    if number % 10:
        await store.record(opened.id, OK, judgement())
    else:
        await store.escalate(opened.id, DOUBT, judgement())
    await store.take_in(intake(f"shared-{number}", station=station))

async def main():
    with open_store(sys.argv[1]) as audit:
        async with AsyncStore(audit) as store:
            await asyncio.gather(*(inspect(store, sys.argv[2], n) for n in range(50)))

asyncio.run(main())
"""


def test_many_stations_write_at_once(store_url: str) -> None:
    stations = [f"line-{number}" for number in range(4)]
    workers = [
        subprocess.Popen([sys.executable, "-c", STATION, store_url, station])
        for station in stations
    ]
    assert [worker.wait() for worker in workers] == [0] * 4
    with open_store(store_url) as store:
        assert store.count() == 4 * 50 + 50
        assert len(store.reviews()) == 4 * 5
        report = store.verify_chain()
        assert report.intact
        assert report.stations == tuple(stations)
        with store._connection() as connection:
            last = connection.execute(text("SELECT max(seq), count(*) FROM events")).one()
        assert last[0] == last[1] == report.events


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'eve'",
        "DELETE FROM events WHERE seq = 2",
        "TRUNCATE events",
        "INSERT INTO events SELECT 1 - seq, station, type, inspection_id, at, actor, canonical, "
        "prev_hash, 'other' FROM events WHERE seq = 1",
        "DELETE FROM chains",
        "TRUNCATE chains",
        "UPDATE chains SET seq = 1, events = 1",
    ],
)
def test_what_is_written_stays(postgres_url: str, statement: str) -> None:
    with open_store(postgres_url) as store:
        opened = store.take_in(intake())
        store.record(opened.id, OK, judgement())
        before = store.verify_chain()
        other = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
        with (
            pytest.raises(DBAPIError, match=r"append-only|only grow"),
            other.begin() as connection,
        ):
            connection.execute(text(statement))
        other.dispose()
        assert store.verify_chain() == before


def test_a_locked_store(postgres_url: str) -> None:
    with (
        open_store(postgres_url, busy_timeout_s=0.1) as store,
        open_store(postgres_url) as other,
        other._connection(writing=True),
    ):
        with pytest.raises(StoreLocked, match=r"another process holds.*run again"):
            store.take_in(intake())
        assert store.count() == 0  # reading goes on


def test_a_server_that_takes_no_writes(postgres_url: str) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with open_store(postgres_url) as store, store._connection(writing=True) as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    assert "takes no writes" in _refused(postgres_url, StoreReadOnly)


def test_a_user_without_rights(postgres_url: str) -> None:
    with open_store(postgres_url) as store, store._connection(writing=True) as connection:
        connection.execute(text("CREATE ROLE guest LOGIN"))
    try:
        url = postgres_url.replace("postgres@", "guest@")
        assert "no right to do this" in _refused(url, StoreReadOnly)
    finally:
        with open_store(postgres_url) as store, store._connection(writing=True) as connection:
            connection.execute(text("DROP ROLE guest"))


def test_an_auditor_needs_no_more_than_the_docs_grant(postgres_url: str) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "querying.md").read_text()
    grant = re.search(r"GRANT SELECT ON events.*?;", docs, re.DOTALL)
    assert grant is not None
    with open_store(postgres_url) as store:
        store.take_in(intake("p1"))
        with store._connection(writing=True) as connection:
            connection.execute(text("CREATE ROLE auditor LOGIN"))
            connection.execute(text(grant[0]))
    engine = create_engine(postgres_url.replace("postgresql://postgres@", _AUDITOR))
    with engine.connect() as connection:
        for query in re.findall(r"```sql\n(.*?)```", docs, re.DOTALL):
            connection.execute(text(query))
    for refused in ("SELECT * FROM tokens", "DELETE FROM events"):
        with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as connection:
            connection.execute(text(refused))
    engine.dispose()


_AUDITOR = "postgresql+psycopg://auditor@"


def test_no_server_and_no_database(postgres_url: str, tmp_path: Path) -> None:
    no_server = f"postgresql://anna:secret@/audit?host={tmp_path}"
    assert "cannot be reached" in _refused(no_server, StoreError)
    other = postgres_url.replace("/audit", "/nowhere")
    assert re.search("cannot be reached|no such database", _refused(other, StoreError))


def test_another_programs_database_is_left_alone(postgres_url: str) -> None:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE bookmarks (url text)"))
    engine.dispose()
    assert "not an audit store" in _refused(postgres_url, StoreCorrupt)


def test_a_newer_schema(postgres_url: str) -> None:
    with open_store(postgres_url) as store, store._connection(writing=True) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    said = _refused(postgres_url, StoreSchema)
    assert re.search("newer version.*upgrade lad-agent", said)


def test_asking_does_not_make_a_store(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="no audit store here"):
        open_store(postgres_url, create=False)
    open_store(postgres_url).close()


def test_what_lies_beside_a_store_on_a_server_lies_here(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store(postgres_url) as store:
        assert store.images.parent == tmp_path
        assert not store.is_file


def _refused(url: str, kind: type[StoreError]) -> str:
    """What is said."""
    with pytest.raises(kind) as refused:
        _use(url)
    said = str(refused.value)
    assert "\n" not in said
    assert "secret" not in said
    assert refused.value.exit_code == 4
    return said


def _use(url: str) -> None:
    with open_store(url) as store:
        store.take_in(intake())
