"""The tables are what the events say, and nothing else."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Decision, Result
from lad_agent.store import (
    AuditStore,
    InspectionFilter,
    Review,
    ledger,
    open_store,
    operations,
    projections,
)
from lad_agent.store.ledger import Entry, entries
from lad_agent.store.operations import Unit
from lad_agent.store.projections import JUDGED, RECORDED
from tests.store.populated import populate
from tests.store.samples import (
    CONFORMING,
    DOUBT,
    HOSTILE,
    NOT_OK,
    OK,
    SCRAP,
    change_user,
    intake,
    judgement,
    tables,
)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["pass", "reject", "escalate", "decide", "apply", "claim", "undo", "hold", "user"]
        ),
        st.integers(0, 3),
        st.floats(0.0, 1.0),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.integers(1, 40))
def test_rebuilt_tables_equal_those_written_on_the_way(
    steps: list[tuple[str, int, float]], batch: int
) -> None:
    with (
        pytest.MonkeyPatch.context() as patched,
        tempfile.TemporaryDirectory() as folder,
        open_store(Path(folder) / "a.db") as store,
    ):
        patched.setattr(projections, "BATCH", batch)
        for step, part, score in steps:
            _do(store, step, part, score)
        before = tables(store)
        with store._connection() as connection:
            count = len(list(entries(connection)))
        assert store.changed_tables() == []
        assert store.rebuild() == count
        assert tables(store) == before


def test_rebuilding_mends_what_was_done_to_the_tables(store: AuditStore) -> None:
    opened = store.take_in(intake(HOSTILE))
    store.record(opened.id, NOT_OK, judgement(anomalous=True))
    before = tables(store)
    connection = sqlite3.connect(store.file)
    connection.executescript("UPDATE inspections SET result = 'OK'; DELETE FROM judgements;")
    connection.close()
    assert tables(store) != before
    store.rebuild()
    assert tables(store) == before


def test_tables_that_were_changed_are_named_and_left_alone(store: AuditStore) -> None:
    opened = store.take_in(intake(HOSTILE))
    store.record(opened.id, NOT_OK, judgement(anomalous=True))
    connection = sqlite3.connect(store.file)
    connection.executescript("UPDATE inspections SET result = 'OK'; DELETE FROM judgements;")
    connection.close()
    before = tables(store)
    assert store.changed_tables() == ["inspections", "judgements"]
    assert tables(store) == before


@pytest.mark.parametrize("later", [{"mean_logprob", "sum_logprob"}, {"image_quality"}])
def test_a_judgement_of_before_a_field_was_kept_is_verified_and_rebuilt(
    store: AuditStore, later: set[str]
) -> None:
    opened = store.take_in(intake())
    said = judgement().model_dump(mode="json", exclude=later)

    def as_then(unit: Unit) -> None:
        for type, payload in ((JUDGED, said), (RECORDED, asdict(OK))):
            unit.happened(type, payload, station="line-1", actor="otto", inspection_id=opened.id)

    store.transact([as_then])
    before = tables(store)
    assert store.verify_chain().intact
    assert store.changed_tables() == []
    store.rebuild()
    assert tables(store) == before
    found = store.history(opened.id).judgement
    assert found == judgement(**dict.fromkeys(later))


def test_nothing_is_rebuilt_from_a_broken_ledger(store: AuditStore) -> None:
    store.take_in(intake())
    before = tables(store)
    connection = sqlite3.connect(store.file)
    connection.executescript("DROP TRIGGER events_no_delete; DELETE FROM events WHERE seq = 3;")
    connection.close()
    with pytest.raises(CheckFailed, match="nothing was rebuilt"):
        store.rebuild()
    assert tables(store) == before


KILLED = """
import os, signal, sys
from lad_agent.store import open_store, projections

projections.BATCH = 10
open_store(sys.argv[1]).rebuild(lambda done: done > 30 and os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_a_killed_rebuild_leaves_the_tables_as_they_were(
    each_store: AuditStore, store_url: str
) -> None:
    populate(each_store)
    with each_store._connection(writing=True) as connection:
        connection.execute(text("UPDATE inspections SET result = 'OK'"))
    before, words = tables(each_store), InspectionFilter(text="washers")
    found = each_store.inspections(words)
    killed = subprocess.run([sys.executable, "-c", KILLED, store_url], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert tables(each_store) == before
    assert each_store.inspections(words) == found
    told: list[int] = []
    assert each_store.rebuild(told.append) == told[-1]
    assert each_store.changed_tables() == []


def test_a_rebuild_holds_few_events_at_once(
    store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.transact([partial(_pass, part) for part in range(100)])
    seen: list[weakref.ref[Entry]] = []
    held: list[int] = []

    def noted(connection: Connection) -> Iterator[Entry]:
        for entry in entries(connection):
            seen.append(weakref.ref(entry))
            yield entry

    monkeypatch.setattr(projections, "BATCH", 20)
    monkeypatch.setattr(ledger, "entries", noted)
    store.rebuild(lambda _: held.append(sum(one() is not None for one in seen)))
    assert len(seen) >= 300
    assert max(held) <= 2 * 20


def _pass(part: int, unit: Unit) -> None:
    operations.record(unit, operations.take_in(unit, intake(f"p{part}")).id, OK, judgement())


def _do(store: AuditStore, step: str, part: int, score: float) -> None:
    opened = store.take_in(intake(f"p{part}", station=f"line-{part % 2}", model=f"m{part % 3}"))
    said = judgement(anomaly_score=score, rationale=HOSTILE if part else "")
    match step:
        case "pass" | "reject" if not opened.complete:
            result = Result.OK if step == "pass" else Result.NOT_OK
            store.record(opened.id, Decision(result, audit=score < 0.5), said)
        case "escalate" if not opened.complete:
            store.escalate(opened.id, DOUBT, said if score else None)
        case "decide":
            for review in store.reviews():
                if review.inspected.id == opened.id and review.decision is None:
                    decision = SCRAP if score < 0.5 else CONFORMING
                    store.decide_review(review.id, decision.model_copy(update={"by": "bert"}))
        case "claim" | "undo":
            for review in store.reviews():
                _try_review(store, step, review, by="anna" if score < 0.5 else "bert")
        case "hold":
            product = f"product-{part % 2}" if part else None
            try:
                store.put_hold("line-1", "anna", HOSTILE, product)
            except UsageError:
                store.release_hold("line-1", "bert", product)
        case "user":
            role = "reviewer" if score < 0.5 else "admin"
            change_user(store, "anna", f"user-{part}", role, active=score != 1.0)
            store.exported("line-1", "anna", {"rows": part, "format": "csv"})
        case "apply" if opened.complete:
            try:
                store.apply_review(opened.id)
            except UsageError:
                assert store.review_decision(opened.id) is None


def _try_review(store: AuditStore, step: str, review: Review, by: str) -> None:
    try:
        if step == "claim":
            store.claim_review(review.id, by, lease_s=0.0 if by == "anna" else 60.0)
        elif review.decision is not None:
            store.undo_review(review.id, by, "pressed the wrong key")
        else:
            store.release_review(review.id, by)
    except UsageError:
        assert review.decision is not None or by == "anna"
