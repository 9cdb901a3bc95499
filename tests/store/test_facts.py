"""Claims, taking back, holds, users, exports, what is in force: each an event with its table."""

import pytest
from sqlalchemy import text

from lad_agent.errors import NotFound, UsageError
from lad_agent.judgement import Decision, Result
from lad_agent.store import AuditStore, ReviewFilter
from lad_agent.store.ledger import entries
from tests.store.samples import CONFORMING, DOUBT, SCRAP, change_user, intake, judgement, tables


@pytest.fixture
def store(each_store: AuditStore) -> AuditStore:
    """Every test here runs on both databases."""
    return each_store


@pytest.fixture
def review_id(store: AuditStore) -> str:
    """An escalated part's open review."""
    return store.escalate(store.take_in(intake()).id, DOUBT, judgement())


def test_a_claimed_review_is_decided_by_who_has_it(store: AuditStore, review_id: str) -> None:
    until = store.claim_review(review_id, "bert", 60)
    with pytest.raises(UsageError, match=f"in the hand of bert until {until}"):
        store.decide_review(review_id, SCRAP)
    with pytest.raises(UsageError, match="in the hand of bert"):
        store.claim_review(review_id, "anna", 60)
    store.release_review(review_id, "anna")  # not hers: nothing happens
    assert len(tables(store)["claims"]) == 1
    store.release_review(review_id, "bert")
    store.decide_review(review_id, SCRAP)
    assert tables(store)["claims"] == []
    with pytest.raises(UsageError, match="was decided by anna"):
        store.claim_review(review_id, "bert", 60)


def test_a_lease_that_ran_out_binds_nobody(store: AuditStore, review_id: str) -> None:
    store.claim_review(review_id, "bert", 0)
    store.claim_review(review_id, "anna", 60)
    store.decide_review(review_id, SCRAP)
    assert tables(store)["claims"] == []


def test_a_decision_taken_back_makes_the_part_wait_again(store: AuditStore, review_id: str) -> None:
    inspection_id = store.decide_review(review_id, SCRAP).inspected.id
    store.apply_review(inspection_id)
    waiting = store.undo_review(review_id, "anna", "pressed the wrong key")
    assert waiting.decision is None
    assert waiting.inspected.closed_at is None
    assert [review.id for review in store.reviews(ReviewFilter(decided=False))] == [review_id]
    store.decide_review(review_id, CONFORMING)
    store.apply_review(inspection_id)
    assert store.inspection(inspection_id).outcome.final is Result.OK  # type: ignore[union-attr]
    said = [event.type for event in store.history(inspection_id).events if "review" in event.type]
    assert said == ["review.opened", "review.decided", "review.undone", "review.decided"]


def test_an_audit_taken_back_leaves_the_result(store: AuditStore) -> None:
    opened = store.take_in(intake())
    store.record(opened.id, Decision(Result.OK, audit=True), judgement())
    (review,) = store.reviews()
    store.decide_review(review.id, SCRAP)
    store.undo_review(review.id, "anna", "the wrong part")
    found = store.inspection(opened.id)
    assert found.outcome.final is Result.OK  # type: ignore[union-attr]
    assert found.closed_at is not None


def test_taking_back_needs_a_decision_a_name_and_a_reason(
    store: AuditStore, review_id: str
) -> None:
    with pytest.raises(UsageError, match="is not decided"):
        store.undo_review(review_id, "anna", "why not")
    store.decide_review(review_id, SCRAP)
    for by, reason in ((" ", "why not"), ("anna", "")):
        with pytest.raises(UsageError, match="a name and a reason"):
            store.undo_review(review_id, by, reason)
    with pytest.raises(NotFound, match="review list"):
        store.undo_review("nope", "anna", "why not")


def test_another_recipe_policy_or_model_is_an_event(store: AuditStore) -> None:
    for changed in (
        {},
        {"recipe_version": "other policy"},
        {"model": "pocket@2", "recipe_version": "other policy"},
        {"task_version": "other", "recipe_version": "other rules", "model": "pocket@2"},
        {"station": "line-2"},
    ):
        for part in ("p1", "p2"):
            store.take_in(intake(part, **changed))
    with store._connection() as connection:
        found = [
            (entry.station, entry.type, entry.payload["before"], entry.payload["value"])
            for entry in entries(connection)
            if entry.type.endswith(".changed")
        ]
    assert found == [
        ("line-1", "recipe.changed", None, "recipe"),
        ("line-1", "model.changed", None, "pocket@1"),
        ("line-1", "threshold.changed", "recipe", "other policy"),
        ("line-1", "model.changed", "pocket@1", "pocket@2"),
        ("line-1", "recipe.changed", "other policy", "other rules"),
    ]


def test_a_hold_is_on_until_it_is_released(store: AuditStore) -> None:
    store.put_hold("line-1", "anna", "escapes at the customer")
    store.put_hold("line-1", "anna", "new supplier", "screw_bag")
    with pytest.raises(UsageError, match="on hold already, by anna"):
        store.put_hold("line-2", "bert", "again", "screw_bag")
    store.release_hold("line-2", "bert", "screw_bag")
    with pytest.raises(UsageError, match="no hold is on for screw_bag"):
        store.release_hold("line-2", "bert", "screw_bag")
    with store._connection() as connection:
        rows = connection.execute(text("SELECT product, on_by, released_by FROM holds")).all()
    assert {tuple(row) for row in rows} == {
        (None, "anna", None),
        ("screw_bag", "anna", "bert"),
    }


def test_a_user_as_last_changed(store: AuditStore) -> None:
    change_user(store, "anna", "bert", "reviewer", active=True)
    events = store.verify_chain().events
    change_user(store, "anna", "bert", "reviewer", active=True)  # no change, no event
    assert store.verify_chain().events == events
    change_user(store, "anna", "bert", "reviewer", active=False)
    ((name, role, active, _, by),) = tables(store)["users"]
    assert (name, role, bool(active), by) == ("bert", "reviewer", False, "anna")


def test_an_export_is_told(store: AuditStore) -> None:
    store.exported("line-1", "anna", {"what": "inspections", "rows": 12, "format": "csv"})
    with store._connection() as connection:
        (entry,) = entries(connection)
    assert (entry.type, entry.actor, entry.payload["rows"]) == ("exported", "anna", 12)
