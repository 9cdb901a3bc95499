"""Figures over many inspections, counted by hand beside them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from lad_agent.judgement import Result
from lad_agent.store import AuditStore, InspectionFilter, open_store, stats
from lad_agent.store.promises import Looked
from lad_agent.store.stats import Agreement, Cause, Yield
from tests.store.populated import populate
from tests.store.samples import HOSTILE

ALL = InspectionFilter()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    with open_store(tmp_path_factory.mktemp("stats") / "audit.db") as store:
        populate(store)
        yield store


def test_yields_by_product(filled: AuditStore) -> None:
    found = filled.ask(lambda session: stats.yields(session, ALL, "product"))
    assert found == [
        Yield(HOSTILE, 1, 1, 0, 0, 0, 1.0),
        Yield("pushpins", 3, 1, 1, 1, 1, 0.5),
        Yield("screw_bag", 4, 1, 2, 1, 1, 1 / 3),
    ]


@pytest.mark.parametrize("by", stats.GROUPS)
def test_every_group_counts_each_inspection_once(filled: AuditStore, by: str) -> None:
    found = filled.ask(lambda session: stats.yields(session, ALL, by))
    assert sum(group.inspections for group in found) == 8
    for group in found:
        assert group.ok + group.not_ok + group.waiting == group.inspections


def test_hours_and_days_are_utc(filled: AuditStore) -> None:
    opened = filled.inspections()[0].opened_at
    hours = filled.ask(lambda session: stats.yields(session, ALL, "hour"))
    days = filled.ask(lambda session: stats.yields(session, ALL, "day"))
    assert hours[-1].group == opened[:13]
    assert days[-1].group == opened[:10]


def test_causes_the_most_frequent_first(filled: AuditStore) -> None:
    found = filled.ask(lambda session: stats.causes(session, ALL))
    assert found == [
        Cause("pushpins", "R3", None, 1, 1 / 3, 1 / 3),
        Cause("screw_bag", "R1", None, 1, 1 / 3, 2 / 3),
        Cause("screw_bag", "R2", None, 1, 1 / 3, 1.0),
    ]
    one = InspectionFilter(product="screw_bag", cause="R2")
    [only] = filled.ask(lambda session: stats.causes(session, one))
    assert (only.cause, only.share) == ("R2", 1.0)


def test_reviewers_against_the_reasoner(filled: AuditStore) -> None:
    found = filled.ask(lambda session: stats.reviewers(session, ALL))
    assert {one.reviewer: one for one in found} == {
        # Anna agrees about a, not about f; Bert about the escalation c, not about the audit e.
        "anna": Agreement("anna", 2, 2, 1, 0.5, 2, 1, 0.5),
        "bert": Agreement("bert", 2, 2, 1, 0.5, 1, 0, 0.0),
        HOSTILE: Agreement(HOSTILE, 1, 1, 0, 0.0, 1, 0, 0.0),
    }
    some = InspectionFilter(product="pushpins")
    assert [one.decided for one in filled.ask(lambda s: stats.reviewers(s, some))] == [1, 1]


def test_escape_and_overkill_from_audits(filled: AuditStore) -> None:
    found = {one.product: one for one in filled.ask(lambda s: stats.audits(s, ALL))}
    pins = found["pushpins"]
    # One escalation has no decision yet, so nothing can be said of all anomalous parts.
    assert (pins.outgoing_defect_rate, pins.escape_rate, pins.overkill_rate) == (1.0, None, None)
    assert (pins.escapes, pins.overkills) == (1, 1)
    bag = found["screw_bag"]
    # The one reject was never audited.
    assert (bag.passed_audited, bag.rejected_audited, bag.escape_rate) == (1, 0, None)
    hostile = found[HOSTILE]
    assert (hostile.escape_rate, hostile.overkill_rate) == (None, 1.0)


def test_audits_are_scaled_up_to_all() -> None:
    counts = {
        Result.OK: Looked(90, 30, 1),
        Result.NOT_OK: Looked(8, 4, 3),
        Result.NOT_DECIDABLE: Looked(2, 2, 1),
    }
    found = stats.audit_figures("p", [counts])
    # 3 of the passes, 6 of the rejects and 1 of the escalated are bad: 10 in all.
    assert found.escape_rate == pytest.approx(3 / 10)
    assert found.overkill_rate == pytest.approx(2 / 90)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 / 30 < found.high


def test_both_databases_count_the_same(filled: AuditStore, each_store: AuditStore) -> None:
    populate(each_store)
    some = InspectionFilter(station="line-1", until=datetime.now(UTC) + timedelta(days=1))
    for wanted in (ALL, some, InspectionFilter(text="washers", cause="R1")):
        for kind in stats.KINDS:
            here, there = (
                list(store.ask(lambda s, w=wanted, k=kind: stats.figures(s, w, k)).rows)
                for store in (each_store, filled)
            )
            if kind in ("hour", "day"):
                here, there = [len(here)], [len(there)]
            assert sorted(here, key=repr) == sorted(there, key=repr), (wanted, kind)


def test_nothing_recorded_gives_no_figures(filled: AuditStore) -> None:
    none = InspectionFilter(product="nothing")
    for kind in stats.KINDS:
        assert filled.ask(lambda session, by=kind: stats.figures(session, none, by)).rows == []


def test_figures_are_tables_with_typed_columns(filled: AuditStore) -> None:
    # Promises and drift want a calibration: see test_promises.
    for kind in set(stats.KINDS) - {"promise", "drift"}:
        table = filled.ask(lambda session, by=kind: stats.figures(session, ALL, by))
        assert table.rows
        for row in table.rows:
            assert list(row) == list(table.columns)
            for name, value in row.items():
                assert value is None or type(value) is table.columns[name], (kind, name)
