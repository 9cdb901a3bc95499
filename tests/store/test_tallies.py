"""Counts by day and hour: whatever shares a transaction, they are what the tables say."""

import tempfile
from functools import partial
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from lad_agent.judgement import Result
from lad_agent.store import AuditStore, InspectionFilter, open_store, operations, stats
from lad_agent.store.models import HourlyTallyRow, LotTallyRow, TallyRow
from lad_agent.store.operations import Unit
from tests.store.populated import populate
from tests.store.samples import DOUBT, NOT_OK, OK, SCRAP, intake, judgement

COUNTS = (TallyRow.__table__, HourlyTallyRow.__table__, LotTallyRow.__table__)

GROUPS = st.lists(
    st.lists(st.tuples(st.sampled_from(["pass", "reject", "escalate", "decide", "undo"]),
                       st.integers(0, 3)), min_size=1, max_size=6),
    max_size=5,
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(GROUPS)
def test_what_a_transaction_changes_is_counted_once(groups: list[list[tuple[str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "a.db") as store:
        for group in groups:
            store.transact([partial(_do, step, part) for step, part in group])
        assert _counted(store) == _recounted(store)
        assert store.changed_tables() == []


def test_views_and_figures_read_the_counts(each_store: AuditStore) -> None:
    populate(each_store)
    assert _counted(each_store) == _recounted(each_store)
    by_result = InspectionFilter(result=Result.NOT_DECIDABLE)
    with each_store._connection(writing=True) as connection:
        for table in COUNTS:
            connection.execute(text(f"UPDATE {table.name} SET inspections = 10 * inspections"))
    for by in ("product", "hour", "lot"):
        ten_times = each_store.ask(lambda session, by=by: stats.yields(session, by_result, by))
        assert sum(one.inspections for one in ten_times) == 20
    assert each_store.changed_tables() == [table.name for table in COUNTS]
    each_store.rebuild()
    assert _counted(each_store) == _recounted(each_store)


def _do(step: str, part: int, unit: Unit) -> None:
    lot = f"lot {part % 3}" if part else None
    opened = operations.take_in(unit, intake(f"p{part}", station=f"line-{part % 2}", lot=lot))
    said = judgement(anomalous=True, rule="R2")
    match step:
        case "pass" if not opened.complete:
            operations.record(unit, opened.id, OK, said)
        case "reject" if not opened.complete:
            operations.record(unit, opened.id, NOT_OK, said)
        case "escalate" if not opened.complete:
            operations.escalate(unit, opened.id, DOUBT, said, kept=None)
    waiting = "SELECT id, decided_at FROM reviews WHERE inspection_id = :id"
    review = unit.connection.execute(text(waiting), {"id": opened.id}).one_or_none()
    if review is not None and step == "decide" and review.decided_at is None:
        operations.decide_review(unit, review.id, SCRAP)
    if review is not None and step == "undo" and review.decided_at is not None:
        operations.undo_review(unit, review.id, "bert", "the wrong key")


def _counted(store: AuditStore) -> dict[str, list[tuple[object, ...]]]:
    with store._connection() as connection:
        return {
            table.name: sorted(tuple(row) for row in connection.execute(select(table)))
            for table in COUNTS
        }


def _recounted(store: AuditStore) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    for table in COUNTS:
        names = [f"coalesce({column.name}, '')" for column in table.primary_key]
        groups = ", ".join(str(number) for number, _ in enumerate(names, 1))
        query = f"SELECT {', '.join(names)}, count(*) FROM v_inspections GROUP BY {groups}"
        with store._connection() as connection:
            rows = connection.execute(text(query).columns(*table.c))
            found[table.name] = sorted(tuple(row) for row in rows)
    return found
