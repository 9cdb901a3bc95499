"""The steps of an inspection: safe to repeat, the first result stands, doubt needs a person."""

import hashlib
from pathlib import Path

import pytest

from lad_agent import recipe
from lad_agent.errors import NeedsReason, NotFound, UsageError
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Decision, Disposition, Finding, Reason, Result
from lad_agent.store import AuditStore, ReviewFilter
from tests.store.samples import (
    CONFORMING,
    DOUBT,
    HOSTILE,
    NOT_OK,
    OK,
    SCRAP,
    intake,
    judgement,
    write_image,
)


@pytest.fixture
def store(each_store: AuditStore) -> AuditStore:
    """Every test here runs on both databases."""
    return each_store


def test_an_inspection_from_intake_to_result(store: AuditStore) -> None:
    opened = store.take_in(intake(lot="L7", attempt=2))
    assert (opened.complete, opened.found) == (False, False)
    assert store.outcome(opened.id) is None
    said = judgement()
    store.record(opened.id, OK, said)
    outcome = store.outcome(opened.id)
    assert outcome is not None
    assert outcome.model_dump(include={"id", "part_id", "station", "lot", "attempt"}) == {
        "id": opened.id,
        "part_id": "p1",
        "station": "line-1",
        "lot": "L7",
        "attempt": 2,
    }
    assert (outcome.result, outcome.final, outcome.reason) == (Result.OK, Result.OK, None)
    assert (outcome.places, outcome.decision_score) == (said.places, said.decision_score)
    assert store.history(opened.id).judgement == said


def test_the_same_part_is_found_again(store: AuditStore) -> None:
    first = store.take_in(intake())
    again = store.take_in(intake(image="/moved/p1.png", station="line-2", actor="olga"))
    assert (again.id, again.found, again.complete) == (first.id, True, False)
    store.record(first.id, OK, judgement())
    assert store.take_in(intake()).complete
    assert store.count() == 1


@pytest.mark.parametrize(
    "other",
    [
        {"part": "p2"},
        {"attempt": 2},
        {"model": "other"},
        {"recipe_version": "other"},
        {"image_sha256": "cd" * 32},
        {"image_sha256": None},
    ],
)
def test_what_makes_another_inspection(store: AuditStore, other: dict[str, object]) -> None:
    first = store.take_in(intake())
    assert store.take_in(intake(**other)).id != first.id  # type: ignore[arg-type]


def test_files_that_cannot_be_opened_are_told_apart_by_path(store: AuditStore) -> None:
    first = store.take_in(intake(image="a.png", image_sha256=None))
    assert store.take_in(intake(image="b.png", image_sha256=None)).id != first.id
    assert store.take_in(intake(image="a.png", image_sha256=None)).id == first.id


def test_every_step_may_be_repeated(store: AuditStore) -> None:
    good, bad = store.take_in(intake("good")), store.take_in(intake("bad"))
    for _ in range(2):
        store.record(good.id, OK, judgement())
        review_id = store.escalate(bad.id, DOUBT, judgement())
        assert store.escalate(bad.id, DOUBT, None) == review_id
    events = store.verify_chain().events
    store.decide_review(review_id, SCRAP)
    for _ in range(2):
        store.apply_review(bad.id)
    assert store.verify_chain().events == events + 2


def test_the_first_result_stands(store: AuditStore) -> None:
    opened = store.take_in(intake())
    store.record(opened.id, NOT_OK, judgement(anomalous=True))
    store.record(opened.id, OK, judgement())
    outcome = store.outcome(opened.id)
    assert outcome is not None
    assert (outcome.result, outcome.anomalous) == (Result.NOT_OK, True)
    with pytest.raises(ValueError, match="recorded as NotOK already"):
        store.escalate(opened.id, DOUBT, None)


def test_doubt_is_never_recorded_without_a_review(store: AuditStore) -> None:
    opened = store.take_in(intake())
    with pytest.raises(ValueError, match="escalated"):
        store.record(opened.id, DOUBT, judgement())
    with pytest.raises(ValueError, match="only a NotDecidable"):
        store.escalate(opened.id, OK, judgement())
    assert store.outcome(opened.id) is None


def test_a_part_without_judgement_can_be_escalated(store: AuditStore) -> None:
    opened = store.take_in(intake(image_sha256=None))
    why = Decision(Result.NOT_DECIDABLE, Reason.UNREADABLE, detail="truncated after 7 lines")
    store.escalate(opened.id, why, None)
    assert store.inspection(opened.id).detail == "truncated after 7 lines"
    outcome = store.outcome(opened.id)
    assert outcome is not None
    assert (outcome.result, outcome.reason) == (Result.NOT_DECIDABLE, Reason.UNREADABLE)
    assert (outcome.anomalous, outcome.well_formed, outcome.final) == (None, False, None)
    assert store.reviews()[0].kept is None


@pytest.mark.parametrize(("decision", "final"), [(CONFORMING, Result.OK), (SCRAP, Result.NOT_OK)])
def test_a_person_decides(store: AuditStore, decision: ReviewDecision, final: Result) -> None:
    opened = store.take_in(intake())
    review_id = store.escalate(opened.id, DOUBT, judgement())
    assert store.take_in(intake()).complete
    assert store.review_decision(opened.id) is None
    with pytest.raises(UsageError, match="still waits"):
        store.apply_review(opened.id)
    review = store.decide_review(review_id, decision)
    assert review.decision == decision == store.review_decision(opened.id)
    waiting = store.reviews(ReviewFilter(applied=False))
    assert [review.id for review in waiting] == [review_id]
    store.apply_review(opened.id)
    outcome = store.outcome(opened.id)
    assert outcome is not None
    assert (outcome.result, outcome.final) == (Result.NOT_DECIDABLE, final)
    assert store.reviews(ReviewFilter(applied=False)) == []


def test_the_finding_makes_the_result_not_the_disposition(store: AuditStore) -> None:
    opened = store.take_in(intake())
    review_id = store.escalate(opened.id, DOUBT, None)
    store.decide_review(
        review_id,
        ReviewDecision(finding=Finding.NONCONFORMING, disposition=Disposition.USE_AS_IS, by="anna"),
    )
    assert store.inspection(opened.id).outcome.final is Result.NOT_OK  # type: ignore[union-attr]


def test_the_second_decision_is_refused_with_who_and_when(store: AuditStore) -> None:
    opened = store.take_in(intake())
    review_id = store.escalate(opened.id, DOUBT, None)
    first = store.decide_review(review_id, SCRAP)
    events = store.verify_chain().events
    with pytest.raises(UsageError) as refused:
        store.decide_review(review_id, CONFORMING.model_copy(update={"by": "bert"}))
    assert str(refused.value) == (
        f"review {review_id} was decided by anna at {first.decided_at} (nonconforming, scrap); "
        "the first decision stands"
    )
    assert store.review(review_id) == first
    assert store.verify_chain().events == events


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        (ReviewDecision(finding=Finding.NONCONFORMING, by="anna"), "use-as-is, rework, scrap"),
        (CONFORMING.model_copy(update={"disposition": Disposition.SCRAP}), "conforming part"),
        (CONFORMING.model_copy(update={"rule": "R1"}), "conforming part"),
        (CONFORMING.model_copy(update={"by": " "}), "name of who decides"),
    ],
)
def test_incomplete_decisions_are_refused(
    store: AuditStore, decision: ReviewDecision, says: str
) -> None:
    review_id = store.escalate(store.take_in(intake()).id, DOUBT, None)
    with pytest.raises(UsageError, match=says):
        store.decide_review(review_id, decision)
    assert store.review(review_id).decision is None


@pytest.mark.parametrize(
    ("anomalous", "against", "along"), [(True, CONFORMING, SCRAP), (False, SCRAP, CONFORMING)]
)
def test_a_finding_against_the_reasoner_says_why(
    store: AuditStore, anomalous: bool, against: ReviewDecision, along: ReviewDecision
) -> None:
    said = judgement(anomalous=anomalous)
    reviews = [store.escalate(store.take_in(intake(name)).id, DOUBT, said) for name in ("a", "b")]
    for comment in (None, "", " \n"):
        with pytest.raises(NeedsReason, match="against the reasoner: say why in a comment"):
            store.decide_review(reviews[0], against.model_copy(update={"comment": comment}))
    assert store.review(reviews[0]).decision is None
    explained = against.model_copy(update={"comment": "I saw it"})
    assert store.decide_review(reviews[0], explained).decision == explained
    silent = along.model_copy(update={"comment": None})
    assert store.decide_review(reviews[1], silent).decision == silent


@pytest.mark.parametrize("decision", [CONFORMING, SCRAP.model_copy(update={"comment": None})])
def test_no_reason_is_asked_where_the_reasoner_said_nothing_or_nobody_may_know(
    store: AuditStore, decision: ReviewDecision
) -> None:
    for name, said in (("silent", None), ("malformed", judgement(anomalous=None))):
        review = store.escalate(store.take_in(intake(name)).id, DOUBT, said)
        assert store.decide_review(review, decision).decision == decision
    for anomalous in (True, False):
        opened = store.take_in(intake(f"audited-{anomalous}"))
        store.record(opened.id, Decision(Result.OK, audit=True), judgement(anomalous=anomalous))
        audit = store.history(opened.id).reviews[0].id
        assert store.decide_review(audit, decision).decision == decision


def test_an_audit_leaves_the_result_until_a_person_found_otherwise(store: AuditStore) -> None:
    opened = store.take_in(intake())
    store.record(opened.id, Decision(Result.OK, audit=True), judgement())
    (review,) = store.reviews()
    assert review.kind == "audit"
    assert review.inspected.closed_at is not None
    assert review.inspected.outcome.final is Result.OK  # type: ignore[union-attr]
    store.decide_review(review.id, SCRAP)
    outcome = store.outcome(opened.id)
    assert outcome is not None
    assert (outcome.result, outcome.final) == (Result.OK, Result.NOT_OK)
    assert store.review_decision(opened.id) is None


def test_the_recipe_is_kept_with_what_it_said(store: AuditStore, tmp_path: Path) -> None:
    write_image(tmp_path, "good.png")
    path = tmp_path / "recipe.yaml"
    path.write_text("product: bag\nrules: [{id: R1, text: two washers}]\nreferences: [good.png]\n")
    loaded = recipe.load(path)
    opened = store.take_in(intake(recipe_version=loaded.recipe_version, recipe_path=str(path)))
    path.unlink()
    content = store.history(opened.id).recipe
    assert content is not None
    assert content["rules"] == [{"id": "R1", "text": "two washers"}]
    assert content["references"] == [hashlib.sha256(b"pixels").hexdigest()]
    assert content["policy"]["audit_rate"] == 0.02
    review_id = store.escalate(opened.id, DOUBT, None)
    with pytest.raises(UsageError, match="no rule 'R9'; it has R1"):
        store.decide_review(review_id, SCRAP.model_copy(update={"rule": "R9"}))


def test_a_recipe_that_has_changed_since_is_not_taken_for_the_one_judged(
    store: AuditStore, tmp_path: Path
) -> None:
    write_image(tmp_path, "good.png")
    path = tmp_path / "recipe.yaml"
    path.write_text("product: bag\nrules: [{id: R1, text: two washers}]\nreferences: [good.png]\n")
    opened = store.take_in(intake(recipe_version="of before", recipe_path=str(path)))
    assert store.history(opened.id).recipe is None


def test_hostile_text_is_stored_verbatim(store: AuditStore) -> None:
    wanted = intake(HOSTILE, station=HOSTILE, lot=HOSTILE, image=HOSTILE, actor=HOSTILE)
    opened = store.take_in(wanted)
    said = judgement(rationale=HOSTILE, raw_text=HOSTILE, seen_product=HOSTILE)
    review_id = store.escalate(opened.id, DOUBT, said)
    decided = SCRAP.model_copy(update={"comment": HOSTILE, "by": HOSTILE})
    assert store.decide_review(review_id, decided).decision == decided
    history = store.history(opened.id)
    assert history.inspected.intake == wanted
    assert history.judgement == said
    assert {event.actor for event in history.events} == {HOSTILE}
    assert store.verify_chain(HOSTILE).intact


def test_every_event_names_its_actor(store: AuditStore) -> None:
    opened = store.take_in(intake())
    review_id = store.escalate(opened.id, DOUBT, judgement())
    store.decide_review(review_id, SCRAP)
    store.apply_review(opened.id)
    assert [(event.type, event.actor) for event in store.history(opened.id).events] == [
        ("inspection.opened", "otto"),
        ("inspection.judged", "otto"),
        ("inspection.recorded", "otto"),
        ("review.opened", "otto"),
        ("review.decided", "anna"),
        ("inspection.closed", "otto"),
    ]


def test_unknown_ids_say_where_to_look(store: AuditStore) -> None:
    for call in (store.inspection, store.history, store.keep_image, store.apply_review):
        with pytest.raises(NotFound, match="audit list"):
            call("nope")
    with pytest.raises(NotFound, match="audit list"):
        store.record("nope", OK, None)
    for refused in (store.review, lambda i: store.decide_review(i, SCRAP)):
        with pytest.raises(NotFound, match="review list"):
            refused("nope")
    assert store.outcome("nope") is None


def test_ids_sort_by_time(store: AuditStore) -> None:
    ids = [store.take_in(intake(f"p{n}")).id for n in range(20)]
    assert ids == sorted(ids)
    assert all(found[14] == "7" for found in ids)
