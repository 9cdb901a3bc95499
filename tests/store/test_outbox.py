"""Messages are written with the event that they tell of, and wait for each other part by part."""

import json
from typing import Any

import pytest

from lad_agent.errors import NotFound
from lad_agent.inspection import Intake
from lad_agent.store import AuditStore, operations, outbox
from lad_agent.store.operations import Unit
from lad_agent.store.outbox import Message
from tests.store.samples import CONFORMING, DOUBT, HOSTILE, NOT_OK, OK, SCRAP, intake, judgement


@pytest.fixture
def told(store: AuditStore) -> AuditStore:
    """A store whose sink "mes" is told."""
    _subscribe(store)
    return store


def test_each_database_tells_of_a_part_from_its_result_to_its_review(
    each_store: AuditStore,
) -> None:
    _subscribe(each_store)
    opened = each_store.take_in(intake(HOSTILE, lot="L7"))
    review_id = each_store.escalate(opened.id, DOUBT, judgement(rationale=HOSTILE))
    each_store.decide_review(review_id, SCRAP)
    each_store.undo_review(review_id, "anna", "wrong part")
    each_store.decide_review(review_id, CONFORMING)
    messages = _waiting(each_store)
    assert [one.type for one in messages] == [
        "inspection.recorded",
        "review.decided",
        "review.undone",
        "review.decided",
    ]
    bodies = [json.loads(one.body) for one in messages]
    assert [body["data"]["ResultMetaData"]["ResultEvaluation"] for body in bodies] == [3, 2, 3, 1]
    assert all(body["data"]["ResultMetaData"]["PartId"] == HOSTILE for body in bodies)
    assert [body["sequence"] for body in bodies] == sorted(one.seq for one in messages)
    reviews = [body["data"]["ResultContent"][0]["review"] for body in bodies]
    assert reviews[0] is None
    assert reviews[1]["id"] == review_id
    assert (reviews[1]["by"], reviews[1]["disposition"]) == ("anna", "scrap")
    assert reviews[2]["reason"] == "wrong part"
    # Those of one part wait for the first of them.
    assert [one.id for one in _claim(each_store)] == [messages[0].id]
    assert each_store.verify_chain().intact


def test_nobody_is_told_where_nobody_is_to_be(store: AuditStore) -> None:
    _record(store, intake())
    _subscribe(store)
    assert _waiting(store) == []
    _record(store, intake("p2"))
    assert [one.part_id for one in _waiting(store)] == ["p2"]


def test_a_message_and_its_event_are_written_together_or_not_at_all(told: AuditStore) -> None:
    opened = told.take_in(intake())

    def fails(unit: Unit) -> None:
        operations.record(unit, opened.id, OK, judgement())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        told.transact([fails])
    assert _waiting(told) == []
    told.record(opened.id, OK, judgement())
    told.record(opened.id, OK, judgement())
    assert len(_waiting(told)) == 1


def test_in_one_commit_each_message_is_as_of_its_own_event(told: AuditStore) -> None:
    opened = told.take_in(intake())

    def escalated_and_decided(unit: Unit) -> None:
        review_id = operations.escalate(unit, opened.id, DOUBT, judgement(), None)
        operations.decide_review(unit, review_id, CONFORMING)

    told.transact([escalated_and_decided])
    evaluations = [
        json.loads(one.body)["data"]["ResultMetaData"]["ResultEvaluation"] for one in _waiting(told)
    ]
    assert evaluations == [3, 1]


def test_a_sink_has_one_deliverer_at_a_time(told: AuditStore) -> None:
    _record(told, intake())
    assert len(_claim(told, "one")) == 1
    assert _claim(told, "two") == []
    assert len(_claim(told, "one")) == 1
    told.transact([lambda unit: outbox.release(unit, "mes", "two")])
    assert _claim(told, "two") == []
    told.transact([lambda unit: outbox.release(unit, "mes", "one")])
    assert len(_claim(told, "two")) == 1


def test_a_lease_that_ran_out_is_taken_over(told: AuditStore) -> None:
    _record(told, intake())
    assert len(_claim(told, "killed", lease_s=-1)) == 1
    assert len(_claim(told, "next")) == 1


def test_a_refused_message_holds_up_its_own_part_alone(told: AuditStore) -> None:
    _record(told, intake("p1"))
    _record(told, intake("p1", image_sha256="cd" * 32), NOT_OK)
    _record(told, intake("p2"))
    first, second, other = _waiting(told)
    told.transact([lambda unit: outbox.refused(unit, first.id, "it answered 422", 60)])
    assert [one.id for one in _claim(told)] == [other.id]
    assert told.transact([lambda unit: outbox.retry(unit, [first.id])]) == [1]
    told.transact([lambda unit: outbox.delivered(unit, [first.id, other.id])])
    assert [one.id for one in _claim(told)] == [second.id]
    with pytest.raises(NotFound, match=r"no message .* waits; lad-agent outbox list"):
        told.transact([lambda unit: outbox.retry(unit, [first.id])])


def test_a_sink_that_is_away_is_left_alone_until_its_time(told: AuditStore) -> None:
    _record(told, intake())
    told.transact([lambda unit: outbox.away(unit, "mes", "no route", 3, 60)])
    assert not told.ask(lambda session: outbox.is_due(session, "mes"))
    (state,) = told.ask(outbox.sinks)
    assert (state.waiting, state.failures, state.error) == (1, 3, "no route")
    told.transact([lambda unit: outbox.retry(unit)])
    assert told.ask(lambda session: outbox.is_due(session, "mes"))
    told.transact([lambda unit: outbox.reached(unit, "mes")])
    (state,) = told.ask(outbox.sinks)
    assert (state.failures, state.error) == (0, None)


def test_what_was_delivered_is_kept_for_a_while(
    told: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _record(told, intake("p1"))
    (message,) = _waiting(told)
    told.transact([lambda unit: outbox.delivered(unit, [message.id])])
    assert _waiting(told) == []
    (kept,) = told.ask(lambda session: outbox.messages(session, everything=True, limit=9))
    assert kept.id == message.id
    assert kept.delivered_at is not None
    monkeypatch.setattr(outbox, "KEPT_DAYS", -1)
    told.transact([lambda unit: outbox.delivered(unit, [])])
    assert told.ask(lambda session: outbox.messages(session, everything=True, limit=9)) == []


def test_a_sink_can_move_and_end(told: AuditStore) -> None:
    _record(told, intake())
    assert told.transact([lambda unit: outbox.subscribe(unit, "mes", "http://mes")]) == [False]
    assert told.transact([lambda unit: outbox.subscribe(unit, "mes", "http://new")]) == [True]
    (state,) = told.ask(outbox.sinks)
    assert (state.target, state.waiting) == ("http://new", 1)
    told.transact([lambda unit: outbox.unsubscribe(unit, "mes")])
    _record(told, intake("p2"))
    assert told.ask(outbox.sinks) == []
    with pytest.raises(NotFound, match="no sink 'mes'"):
        told.transact([lambda unit: outbox.unsubscribe(unit, "mes")])


def test_a_rebuild_tells_nothing_twice(told: AuditStore) -> None:
    _record(told, intake())
    before = _waiting(told)
    told.rebuild()
    assert _waiting(told) == before


def _subscribe(store: AuditStore) -> None:
    store.transact([lambda unit: outbox.subscribe(unit, "mes", "http://mes")])


def _record(store: AuditStore, part: Intake, decision: Any = OK) -> None:
    store.record(store.take_in(part).id, decision, judgement())


def _waiting(store: AuditStore) -> list[Message]:
    return store.ask(lambda session: outbox.messages(session, everything=False, limit=99))


def _claim(store: AuditStore, holder: str = "one", lease_s: float = 60) -> list[Message]:
    found: Any = store.transact([lambda unit: outbox.claim(unit, "mes", holder, lease_s, 99)])[0]
    return list(found)
