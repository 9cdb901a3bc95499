"""The ledger: append-only, one chain a station, and no change goes unnoticed."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, text

from lad_agent.store import AuditStore
from lad_agent.store.ledger import GENESIS, Entry, Ledger, entries, timestamp
from lad_agent.store.models import Base, escaped, unescaped
from lad_agent.store.sqlite import TRIGGERS
from lad_agent.store.verification import verify
from tests.store.samples import HOSTILE, OK, intake, judgement

STATIONS = ("line-1", "line-2", "ligne é\udcff")
TEXT = st.text(st.characters(exclude_categories=())) | st.just(HOSTILE)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'eve'",
        "DELETE FROM events WHERE seq = 2",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE seq = 2",
        "INSERT INTO events SELECT 1 - seq, station, type, inspection_id, at, actor, canonical, "
        "prev_hash, 'other' FROM events WHERE seq = 1",
        "DELETE FROM chains",
        "UPDATE chains SET seq = 1, events = 1",
        "INSERT OR REPLACE INTO chains SELECT station, 1, hash, 1 FROM chains",
    ],
)
def test_what_is_written_stays(store: AuditStore, statement: str) -> None:
    opened = store.take_in(intake())
    store.record(opened.id, OK, judgement())
    before = store.verify_chain()
    connection = sqlite3.connect(store.file)  # another tool, without our pragmas
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|only grow"):
        connection.execute(statement)
    connection.close()
    assert store.verify_chain() == before
    assert before.intact


def test_an_event_can_be_checked_with_standard_tools(store: AuditStore) -> None:
    store.take_in(intake(station="a"))
    store.take_in(intake("p2", station="b"))
    store.take_in(intake("p3", station="a"))
    connection = sqlite3.connect(store.file)
    rows = connection.execute(
        "SELECT station, canonical, prev_hash, hash FROM events ORDER BY seq"
    ).fetchall()
    connection.close()
    last = {"a": GENESIS, "b": GENESIS}
    for station, canonical, prev_hash, digest in rows:
        assert canonical.encode() == rfc8785.dumps(json.loads(canonical))
        assert hashlib.sha256(canonical.encode()).hexdigest() == digest
        assert prev_hash == last[station]
        last[station] = digest
    assert store.verify_chain().stations == ("a", "b")
    assert store.verify_chain("a").events + store.verify_chain("b").events == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STATIONS), TEXT, JSON), max_size=12))
def test_what_goes_in_comes_out_verbatim(events: list[tuple[str, str, Any]]) -> None:
    with _ledger() as connection:
        written = _append(connection, events)
        assert list(entries(connection)) == written
        report = verify(connection)
        assert report.intact
        assert report.events == len(events)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(STATIONS), min_size=1, max_size=8), st.data())
def test_any_edited_event_is_found(stations: list[str], data: st.DataObject) -> None:
    with _ledger() as connection:
        _append(connection, [(station, "otto", {"n": 1}) for station in stations])
        seq = data.draw(st.integers(1, len(stations)))
        column = data.draw(st.sampled_from(list(Base.metadata.tables["events"].c.keys())))
        new = 99 if column == "seq" else data.draw(st.sampled_from(["", "x", b"x", "line-1"]))
        changed = connection.execute(
            text(f"UPDATE events SET {column} = :new WHERE seq = :seq AND {column} IS NOT :new"),
            {"new": new, "seq": seq},
        ).rowcount
        assert verify(connection).intact == (changed == 0)


def test_a_fault_says_where_and_what(store: AuditStore) -> None:
    store.take_in(intake())
    connection = sqlite3.connect(store.file)
    connection.executescript(
        "DROP TRIGGER events_no_update; UPDATE events SET actor = 'eve' WHERE seq = 5;"
    )
    connection.close()
    assert [str(fault) for fault in store.verify_chain().faults] == [
        "station 'line-1', event 5: edited, not as in its canonical form: actor"
    ]
    assert store.verify_chain("line-2").intact


@given(TEXT)
def test_escaping_is_reversible_and_leaves_ordinary_text_alone(original: str) -> None:
    stored = escaped(original)
    assert unescaped(stored) == original
    assert "\x00" not in stored
    stored.encode()
    if all(char != "\uffff" and char.isprintable() for char in original):
        assert stored == original


def test_times_sort_as_text() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-01-02T01:04:05.000000Z"
    assert timestamp(moment + timedelta(microseconds=1)) > timestamp(moment)


_TABLES = ("events", "chains", "archives")


@contextmanager
def _ledger() -> Iterator[Connection]:
    """A ledger in memory whose guards are gone, as for one who has the file."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine, [Base.metadata.tables[name] for name in _TABLES])
    with engine.connect() as connection:
        for name in TRIGGERS:
            connection.execute(text(f"DROP TRIGGER {name}"))
        yield connection
    engine.dispose()


def _append(connection: Connection, events: list[tuple[str, str, Any]]) -> list[Entry]:
    ledger = Ledger(connection)
    written = [
        ledger.append("test", {"it": value}, station=station, actor=actor, inspection_id=None)
        for station, actor, value in events
    ]
    ledger.write()
    return written
