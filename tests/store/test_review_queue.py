"""The reviewers' queue, on each database."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from lad_agent.judgement import Reason
from lad_agent.store import AuditStore, ReviewFilter, review_queue
from lad_agent.store.ledger import timestamp
from lad_agent.store.models import ReviewRow
from tests.store.samples import CONFORMING, DOUBT, HOSTILE, OK, intake, judgement

AUDITED = type(OK)(OK.result, audit=True)


def test_the_queue_ranks_open_reviews_and_knows_who_has_them(each_store: AuditStore) -> None:
    for name, confidence in (("sure", 0.9), ("torn", 0.1), (HOSTILE, 0.5)):
        opened = each_store.take_in(intake(name))
        each_store.escalate(opened.id, DOUBT, judgement(confidence=confidence))
    unread = each_store.take_in(intake("unread"))
    each_store.escalate(unread.id, DOUBT, None)
    audited = each_store.take_in(intake("audited"))
    each_store.record(audited.id, AUDITED, judgement(confidence=0.99))
    queue = each_store.ask(review_queue.queue)
    assert [one.part_id for one in queue] == ["unread", "torn", HOSTILE, "audited", "sure"]
    assert [one.reason for one in queue[-2:]] == [None, Reason.LOW_CONFIDENCE]
    assert queue[3].uncertainty == review_queue.BLIND_UNCERTAINTY
    each_store.claim_review(queue[0].id, "anna", 60)
    each_store.claim_review(queue[1].id, "otto", -1)  # has run out
    each_store.decide_review(queue[0].id, CONFORMING)
    assert [one.claimed_by for one in each_store.ask(review_queue.queue)] == [None] * 4


def _place(store: AuditStore, name: str, minutes: float, sure: float) -> str:
    """A part that has waited for some minutes; its review."""
    opened = store.take_in(intake(name))
    review = store.escalate(opened.id, DOUBT, judgement(anomaly_score=0.0, confidence=sure))
    at = timestamp(datetime(2026, 1, 5, 12, tzinfo=UTC) - timedelta(minutes=minutes))
    with store._connection(writing=True) as connection:
        connection.execute(update(ReviewRow).where(ReviewRow.id == review).values(opened_at=at))
    return review


def _names(found: Iterable[review_queue.Waiting | None]) -> list[str | None]:
    return [one.part_id if one else None for one in found]


def test_age_overtakes_doubt_after_an_hour(each_store: AuditStore) -> None:
    _place(each_store, "torn", 0, 0.0)
    _place(each_store, "sure, 59 min", 59, 1.0)
    _place(each_store, "sure, 61 min", 61, 1.0)
    queue = each_store.ask(review_queue.queue)
    assert _names(queue) == ["sure, 61 min", "torn", "sure, 59 min"]


def test_neighbours_are_those_of_the_queue_and_its_end_joins_its_beginning(
    each_store: AuditStore,
) -> None:
    ids = {
        name: _place(each_store, name, minutes, 0.5)
        for name, minutes in (("b", 20), ("a", 30), ("e", 0), ("c", 10), ("d", 10))
    }

    def beside(name: str, **options: Any) -> list[str | None]:
        return _names(
            each_store.ask(lambda s: review_queue.neighbours(s, ids.get(name, ""), **options))
        )

    assert _names(each_store.ask(review_queue.queue)) == list("abcde")
    assert [beside(name) for name in "abcde"] == [
        list(two) for two in ("eb", "ac", "bd", "ce", "da")
    ]
    each_store.claim_review(ids["b"], "anna", 60)
    assert beside("c", free_for="otto") == ["a", "d"]
    assert beside("c", free_for="anna") == ["b", "d"]
    free = each_store.ask(lambda s: review_queue.queue(s, free_for="otto", limit=2))
    assert _names(free) == ["a", "c"]
    assert each_store.ask(lambda s: review_queue.claims(s, list(ids.values()))) == {
        ids["b"]: "anna"
    }
    assert beside("c", wanted=ReviewFilter(product="pushpins")) == [None, None]
    each_store.decide_review(ids["c"], CONFORMING)
    assert beside("c") == ["e", "a"]
    assert each_store.ask(review_queue.groups) == [
        review_queue.Group("screw_bag", "escalation", "line-1", 4)
    ]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chosen=st.sets(st.integers(0, 7)), own=st.integers(0, 7))
def test_neighbours_agree_with_the_whole_queue(
    crowd: tuple[AuditStore, list[str]], chosen: set[int], own: int
) -> None:
    """Whoever has some of them in hand."""
    store, ids = crowd
    for number, review in enumerate(ids):
        store.release_review(review, "anna")
        if number in chosen:
            store.claim_review(review, "anna", 60)
    whole = store.ask(review_queue.queue)
    place = next(n for n, one in enumerate(whole) if one.id == ids[own])
    others = [one.id for one in (*whole[place + 1 :], *whole[:place]) if one.claimed_by is None]
    found = store.ask(lambda s: review_queue.neighbours(s, ids[own], free_for="otto"))
    wanted = [others[-1], others[0]] if others else [None, None]
    assert [one.id if one else None for one in found] == wanted


@pytest.fixture
def crowd(each_store: AuditStore) -> tuple[AuditStore, list[str]]:
    """Eight reviews, some of one age and doubt."""
    return each_store, [
        _place(each_store, str(number), number % 3, number % 2 / 2) for number in range(8)
    ]


def test_decisions_are_ones_own_and_those_that_stand(each_store: AuditStore) -> None:
    reviews = []
    for name in ("p1", "p2", "p3"):
        opened = each_store.take_in(intake(name))
        each_store.escalate(opened.id, DOUBT, judgement())
        reviews.append(each_store.history(opened.id).reviews[0].id)
        each_store.decide_review(reviews[-1], CONFORMING)
    each_store.undo_review(reviews[1], "anna", "looked again")
    now = datetime.now(UTC)

    def found(by: str, since: datetime) -> list[str]:
        decided = each_store.ask(lambda session: review_queue.decisions(session, by, since))
        return [one.part_id for one in decided]

    assert found("anna", now - timedelta(hours=1)) == ["p3", "p1"]
    assert found("anna", now + timedelta(hours=1)) == []
    assert found("otto", now - timedelta(hours=1)) == []
