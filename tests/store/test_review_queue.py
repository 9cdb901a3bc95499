"""The reviewers' queue, on each database."""

from datetime import UTC, datetime, timedelta

from lad_agent.judgement import Reason
from lad_agent.store import AuditStore, review_queue
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
