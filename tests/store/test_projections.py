"""The tables are what the events say, and nothing else."""

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Decision, Result
from lad_agent.store import AuditStore, open_store
from lad_agent.store.ledger import entries
from tests.store.samples import (
    CONFORMING,
    DOUBT,
    HOSTILE,
    NOT_OK,
    SCRAP,
    intake,
    judgement,
    tables,
)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pass", "reject", "escalate", "decide", "apply"]),
        st.integers(0, 3),
        st.floats(0.0, 1.0),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_rebuilt_tables_equal_those_written_on_the_way(
    steps: list[tuple[str, int, float]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "a.db") as store:
        for step, part, score in steps:
            _do(store, step, part, score)
        before = tables(store)
        with store._connection() as connection:
            count = len(list(entries(connection)))
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


def test_nothing_is_rebuilt_from_a_broken_ledger(store: AuditStore) -> None:
    store.take_in(intake())
    before = tables(store)
    connection = sqlite3.connect(store.file)
    connection.executescript("DROP TRIGGER events_no_delete; DELETE FROM events WHERE seq = 3;")
    connection.close()
    with pytest.raises(CheckFailed, match="nothing was rebuilt"):
        store.rebuild()
    assert tables(store) == before


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
                    store.decide_review(review.id, SCRAP if score < 0.5 else CONFORMING)
        case "apply" if opened.complete:
            try:
                store.apply_review(opened.id)
            except UsageError:
                assert store.review_decision(opened.id) is None
