"""Whatever is done to the ledger is found, with the first bad event and what happened to it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, text

from lad_agent.store import AuditStore, ChainReport, Kind, open_store
from lad_agent.store.heads import Signing, read_file
from lad_agent.store.ledger import GENESIS, Ledger
from lad_agent.store.models import Base
from lad_agent.store.signing import generate
from lad_agent.store.sqlite import TRIGGERS
from lad_agent.store.verification import verify
from tests.store.samples import OK, intake, judgement

STATIONS = ("line-1", "line-2", "ligne é\udcff")
EVENTS = 14


@dataclass(frozen=True)
class Told:
    """What verify says first."""

    seq: int | None
    kind: Kind


def edit(connection: Connection, seq: int) -> Told:
    row = _row(connection, seq)
    _update(connection, seq, canonical=row["canonical"].replace("NotOK", "OK"))
    return Told(seq, Kind.EDITED)


def edit_and_hash_again(connection: Connection, seq: int) -> Told:
    forged = _row(connection, seq)["canonical"].replace("NotOK", "OK")
    _update(connection, seq, canonical=forged, hash=_sha256(forged))
    return Told(seq, Kind.EDITED)


def edit_a_column(connection: Connection, seq: int) -> Told:
    _update(connection, seq, actor="eve")
    return Told(seq, Kind.EDITED)


def edit_the_hash(connection: Connection, seq: int) -> Told:
    _update(connection, seq, hash=f"{seq:064}")
    return Told(seq, Kind.EDITED)


def delete(connection: Connection, seq: int) -> Told:
    _run(connection, "DELETE FROM events WHERE seq = :seq", seq=seq)
    return Told(seq, Kind.DELETED if seq < EVENTS else Kind.TRUNCATED)


def delete_and_close_up(connection: Connection, seq: int) -> Told:
    _run(connection, "DELETE FROM events WHERE seq = :seq", seq=seq)
    _shift(connection, seq, -1)
    return Told(seq, Kind.DELETED if seq < EVENTS else Kind.TRUNCATED)


def cut_off(connection: Connection, seq: int) -> Told:
    _run(connection, "DELETE FROM events WHERE seq >= :seq", seq=seq)
    return Told(seq, Kind.TRUNCATED)


def swap_with_the_first(connection: Connection, seq: int) -> Told:
    seq = max(seq, 2)
    _run(connection, "UPDATE events SET seq = 99 WHERE seq = 1")
    _run(connection, "UPDATE events SET seq = 1 WHERE seq = :seq", seq=seq)
    _run(connection, "UPDATE events SET seq = :seq WHERE seq = 99", seq=seq)
    return Told(1, Kind.REORDERED)


def move_away(connection: Connection, seq: int) -> Told:
    seq = min(seq, EVENTS - 1)
    _run(connection, "UPDATE events SET seq = 99 WHERE seq = :seq", seq=seq)
    return Told(seq, Kind.REORDERED)


def insert_a_copy(connection: Connection, seq: int) -> Told:
    row = _row(connection, seq)
    _add(connection, row | {"seq": EVENTS + 1, "hash": "f" * 64})
    return Told(EVENTS + 1, Kind.INSERTED)


def insert_far_behind(connection: Connection, seq: int) -> Told:
    _add(connection, _forged(connection, _row(connection, EVENTS), EVENTS + 1 + seq))
    return Told(EVENTS + 1 + seq, Kind.INSERTED)


def append_forged(connection: Connection, seq: int) -> Told:
    row = _row(connection, seq)
    last = _run(
        connection, "SELECT max(seq) FROM events WHERE station = :it", it=row["station"]
    ).scalar()
    _add(connection, _forged(connection, _row(connection, last), EVENTS + 1))
    return Told(EVENTS + 1, Kind.INSERTED)


def insert_between(connection: Connection, seq: int) -> Told:
    seq = max(seq, 2)
    _shift(connection, seq, +1)
    before = _row(connection, seq - 1)
    _add(connection, _forged(connection, before, seq))
    return Told(seq, Kind.INSERTED)


def paste_from_another_ledger(connection: Connection, seq: int) -> Told:
    row = _row(connection, seq)
    fields = json.loads(row["canonical"]) | {"ledger": "feedfeedfeedfeed"}
    canonical = rfc8785.dumps(fields).decode()
    _update(connection, max(seq, 2), canonical=canonical, hash=_sha256(canonical))
    return Told(max(seq, 2), Kind.FOREIGN)


TAMPERINGS: list[Callable[[Connection, int], Told]] = [
    edit,
    edit_and_hash_again,
    edit_a_column,
    edit_the_hash,
    delete,
    delete_and_close_up,
    cut_off,
    swap_with_the_first,
    move_away,
    insert_a_copy,
    insert_far_behind,
    append_forged,
    insert_between,
    paste_from_another_ledger,
]
SEQS = st.integers(1, EVENTS)


@pytest.mark.parametrize("tamper", TAMPERINGS)
@settings(max_examples=12, deadline=None)
@given(stations=st.lists(st.sampled_from(STATIONS), min_size=EVENTS, max_size=EVENTS), seq=SEQS)
def test_what_was_done_is_named_with_the_first_bad_event(
    tamper: Callable[[Connection, int], Told], stations: list[str], seq: int
) -> None:
    with _ledger(stations) as connection:
        assert verify(connection).intact
        told = tamper(connection, seq)
        report = verify(connection)
        assert (report.faults[0].seq, report.faults[0].kind) == (told.seq, told.kind)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(STATIONS), min_size=EVENTS, max_size=EVENTS),
    st.lists(st.tuples(st.sampled_from([edit_a_column, delete, edit, cut_off]), SEQS), min_size=1),
)
def test_however_much_is_tampered_with_it_is_found(
    stations: list[str], tamperings: list[tuple[Callable[[Connection, int], Told], int]]
) -> None:
    with _ledger(stations) as connection:
        before = _everything(connection)
        for tamper, seq in tamperings:
            if _row(connection, seq):
                tamper(connection, seq)
        assert verify(connection).intact == (_everything(connection) == before)


@pytest.mark.parametrize(
    "tamper", [edit, edit_and_hash_again, delete, cut_off, swap_with_the_first, append_forged]
)
def test_postgresql_is_watched_the_same(
    postgres_url: str, tamper: Callable[[Connection, int], Told]
) -> None:
    with open_store(postgres_url) as store:
        store.transact([lambda unit: _append(unit.ledger, [*STATIONS, *STATIONS] * 3)])
        with store._connection(writing=True) as connection:
            _run(connection, "ALTER TABLE events DISABLE TRIGGER USER")
            _run(connection, f"DELETE FROM events WHERE seq > {EVENTS}")
            _run(connection, "ALTER TABLE chains DISABLE TRIGGER USER")
            _mend_ends(connection)
        assert store.verify_chain().intact
        with store._connection(writing=True) as connection:
            told = tamper(connection, 6)
        first = store.verify_chain().faults[0]
        assert (first.seq, first.kind) == (told.seq, told.kind)


# --- signed heads -----------------------------------------------------------------------------


@pytest.fixture
def headed(store: AuditStore, signing: Signing, tmp_path: Path) -> tuple[AuditStore, Path]:
    """A store of some inspections, with heads signed between them, and the heads' file."""
    for number in range(3):
        opened = store.take_in(intake(f"p{number}", station=f"line-{number % 2}"))
        store.record(opened.id, OK, judgement())
        store.sign_head(signing)
    store.export_heads(tmp_path / "heads.jsonl")
    with store._connection(writing=True) as connection:
        for name in TRIGGERS:
            _run(connection, f"DROP TRIGGER {name}")
    return store, tmp_path / "heads.jsonl"


def _first(report: ChainReport) -> tuple[int | None, Kind]:
    return report.faults[0].seq, report.faults[0].kind


def test_heads_agree_with_an_untouched_ledger(headed: tuple[AuditStore, Path]) -> None:
    store, file = headed
    store.take_in(intake("after"))
    report = store.verify_chain(exported=read_file(file))
    assert report.intact
    assert (report.heads, report.unsigned) == (3, 1)


def test_who_rewrites_everything_is_caught_by_the_heads_in_it(
    headed: tuple[AuditStore, Path],
) -> None:
    store, file = headed
    with store._connection(writing=True) as connection:
        _rewrite(connection, 6, lambda fields: fields["payload"].update(part_id="other"))
    assert _first(store.verify_chain())[1] is Kind.EDITED
    assert _first(store.verify_chain(exported=read_file(file)))[1] is Kind.EDITED


def test_who_cuts_off_the_end_is_caught_by_an_exported_head(
    headed: tuple[AuditStore, Path],
) -> None:
    store, file = headed
    with store._connection(writing=True) as connection:
        last = _run(connection, "SELECT max(seq) FROM events").scalar()
        _run(connection, "DELETE FROM events WHERE seq > :seq", seq=last - 3)
        _mend_ends(connection)
    assert store.verify_chain().intact  # nothing in the database can tell
    seq, kind = _first(store.verify_chain(exported=read_file(file)))
    assert kind is Kind.TRUNCATED
    assert seq is not None
    assert seq > last - 3


def test_a_signature_that_is_none(headed: tuple[AuditStore, Path]) -> None:
    store, file = headed
    line = json.loads(file.read_text().splitlines()[0])
    line["head"]["through"] += 1
    file.write_text(json.dumps(line) + "\n")
    assert _first(store.verify_chain(exported=read_file(file)))[1] is Kind.BAD_SIGNATURE


def test_heads_forged_with_another_key_are_foreign(
    headed: tuple[AuditStore, Path], signing: Signing, tmp_path: Path
) -> None:
    store, file = headed
    forger = Signing(generate(tmp_path / "forger.key"), "line-1", "eve")
    store.sign_head(forger)
    assert store.verify_chain().intact  # no key is trusted more than another
    trusted = frozenset({signing.key.public})
    for report in (
        store.verify_chain(exported=read_file(file)),
        store.verify_chain(trusted=trusted),
    ):
        assert _first(report)[1] is Kind.FOREIGN


def test_heads_of_another_ledger_are_foreign(
    headed: tuple[AuditStore, Path], tmp_path: Path, signing: Signing
) -> None:
    _, file = headed
    with open_store(tmp_path / "other.db") as other:
        other.take_in(intake())
        assert _first(other.verify_chain(exported=read_file(file)))[1] is Kind.FOREIGN


def test_two_databases_merged_by_mistake(tmp_path: Path) -> None:
    files = [tmp_path / "a.db", tmp_path / "b.db"]
    for file, station, parts in zip(files, ("line-1", "line-2"), (2, 4), strict=True):
        with open_store(file) as store:
            for number in range(parts):
                store.take_in(intake(f"p{number}", station=station))
            last = store.verify_chain().events
    with open_store(files[0]) as store:
        mine = store.verify_chain().events
        assert mine < last
        engine = create_engine(f"sqlite:///{files[0]}")
        with engine.connect() as connection:
            _run(connection, f"ATTACH '{files[1]}' AS other")
            _run(connection, f"INSERT INTO events SELECT * FROM other.events WHERE seq > {mine}")
            _run(connection, "INSERT INTO chains SELECT * FROM other.chains")
            connection.commit()
        engine.dispose()
        assert _first(store.verify_chain()) == (mine + 1, Kind.FOREIGN)


def test_the_clock_makes_no_difference(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.take_in(intake("p1"))
    monkeypatch.setattr("lad_agent.store.ledger.now", lambda: "1999-12-31T23:00:00.000000Z")
    back = store.take_in(intake("p2"))
    monkeypatch.undo()
    store.take_in(intake("p3"))
    assert store.inspection(back.id).opened_at == "1999-12-31T23:00:00.000000Z"
    assert store.verify_chain().intact
    assert store.rebuild() == store.verify_chain().events


def test_a_ledger_begun_without_a_name_goes_on(store: AuditStore, signing: Signing) -> None:
    """Version 1 of the canonical form did not name the ledger."""
    store.take_in(intake("p1"))
    with store._connection(writing=True) as connection:
        for name in TRIGGERS:
            _run(connection, f"DROP TRIGGER {name}")
        _rewrite(connection, 1, lambda fields: None, version=1)
    assert store.verify_chain().intact
    store.take_in(intake("p2"))
    store.sign_head(signing)
    assert store.verify_chain().intact
    with store._connection(writing=True) as connection:
        assert edit_a_column(connection, 2) == Told(2, Kind.EDITED)
    assert _first(store.verify_chain()) == (2, Kind.EDITED)


def test_many_events_are_told_on_the_way(store: AuditStore) -> None:
    store.transact([lambda unit: _append(unit.ledger, ["line-1"] * 4100)])
    told: list[int] = []
    report = store.verify_chain(told=told.append)
    assert report.events == 4100
    assert told == [2000, 4000, 4100]


# --- tools of the forger ----------------------------------------------------------------------


@contextmanager
def _ledger(stations: list[str]) -> Iterator[Connection]:
    """A ledger in memory whose guards are gone, as for one who has the file."""
    engine = create_engine("sqlite://")
    names = ("events", "chains", "archives")
    Base.metadata.create_all(engine, [Base.metadata.tables[name] for name in names])
    with engine.connect() as connection:
        for name in TRIGGERS:
            _run(connection, f"DROP TRIGGER {name}")
        _append(Ledger(connection), stations)
        yield connection
    engine.dispose()


def _append(ledger: Ledger, stations: list[str]) -> None:
    for station in stations:
        ledger.append(
            "exported", {"result": "NotOK"}, station=station, actor="otto", inspection_id=None
        )
    ledger.write()


def _run(connection: Connection, statement: str, **values: Any) -> Any:
    return connection.execute(text(statement), values)


def _row(connection: Connection, seq: int) -> dict[str, Any]:
    found = _run(connection, "SELECT * FROM events WHERE seq = :seq", seq=seq)
    row = found.mappings().one_or_none()
    return dict(row) if row else {}


def _everything(connection: Connection) -> Any:
    return _run(connection, "SELECT * FROM events ORDER BY seq").fetchall()


def _add(connection: Connection, row: dict[str, Any]) -> None:
    names = ", ".join(f":{name}" for name in row)
    _run(connection, f"INSERT INTO events ({', '.join(row)}) VALUES ({names})", **row)


def _update(connection: Connection, seq: int, **values: Any) -> None:
    changes = ", ".join(f"{name} = :{name}" for name in values)
    _run(connection, f"UPDATE events SET {changes} WHERE seq = :seq", seq=seq, **values)


def _shift(connection: Connection, seq: int, by: int) -> None:
    """Renumber all events from `seq` on; in two steps, for no number may be there twice."""
    _run(connection, "UPDATE events SET seq = -seq - :by WHERE seq >= :seq", seq=seq, by=by)
    _run(connection, "UPDATE events SET seq = -seq WHERE seq < 0")


def _forged(connection: Connection, before: dict[str, Any], seq: int) -> dict[str, Any]:
    """An event that is right in itself and follows `before`."""
    fields = json.loads(before["canonical"]) | {"seq": seq, "prev_hash": before["hash"]}
    fields["payload"] = {"forged": seq}
    canonical = rfc8785.dumps(fields).decode()
    changed = {"seq": seq, "prev_hash": before["hash"], "canonical": canonical}
    return before | changed | {"hash": _sha256(canonical)}


def _rewrite(
    connection: Connection,
    seq: int,
    change: Callable[[dict[str, Any]], None],
    version: int = 2,
) -> None:
    """Change an event and make every hash after it right again, as one without the key can."""
    last: dict[str, str] = {}
    for row in _run(connection, "SELECT * FROM events ORDER BY seq").mappings().all():
        fields = json.loads(row["canonical"])
        if row["seq"] == seq:
            change(fields)
        fields |= {"prev_hash": last.get(row["station"], GENESIS), "v": version}
        if version == 1:
            del fields["ledger"]
        canonical = rfc8785.dumps(fields).decode()
        last[row["station"]] = _sha256(canonical)
        changed = {"canonical": canonical, "prev_hash": fields["prev_hash"]}
        _update(connection, row["seq"], **changed, hash=_sha256(canonical))
    _mend_ends(connection)


def _mend_ends(connection: Connection) -> None:
    """Make `chains` fit the events that are there."""
    for name in _run(connection, "SELECT station FROM chains").scalars().all():
        mine = "FROM events WHERE station = :it"
        seq, count = _run(connection, f"SELECT max(seq), count(*) {mine}", it=name).one()
        digest = _run(connection, "SELECT hash FROM events WHERE seq = :it", it=seq).scalar()
        _run(
            connection,
            "UPDATE chains SET seq = :seq, hash = :hash, events = :events WHERE station = :it",
            seq=seq,
            hash=digest,
            events=count,
            it=name,
        )


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
