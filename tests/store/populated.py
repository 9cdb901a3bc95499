"""A store with something of everything, for the tests of questions."""

from dataclasses import replace

from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Decision, Disposition, Finding, Judgement
from lad_agent.store import AuditStore
from tests.store.samples import CONFORMING, DOUBT, HOSTILE, NOT_OK, OK, intake, judgement

AUDITED_OK = replace(OK, audit=True)
AUDITED_NOT_OK = replace(NOT_OK, audit=True)


def rejects(rule: str = "R1", **changed: object) -> Judgement:
    """A rationale that names the rule it finds broken."""
    told = f"{rule} washers at B2: 1 of 2 bad"
    return judgement(anomalous=True, anomaly_score=0.875, rule=rule, rationale=told, **changed)


def scrap(rule: str | None = "R2", by: str = "bert") -> ReviewDecision:
    return ReviewDecision(
        finding=Finding.NONCONFORMING, disposition=Disposition.SCRAP, rule=rule, by=by
    )


def populate(store: AuditStore) -> dict[str, str]:
    """Eight inspections; their ids by part, in the order of time.

    | part | product | result | review |
    |---|---|---|---|
    | a | screw_bag | OK | audit: anna, conforming |
    | b | screw_bag | NotOK, R1 | |
    | c | screw_bag | NotDecidable, said bad by R1 | bert: nonconforming, R2 |
    | d | pushpins, lot L2 | NotDecidable, nothing said | |
    | e | pushpins, line-2 | OK | audit: bert, nonconforming, R3 |
    | f | pushpins, line-2, model m2, recipe r2 | NotOK, R3 | audit: anna, conforming |
    | g | screw_bag | open | |
    | hostile | all texts are | NotOK | |
    """
    ids = {
        "a": _record(store, "a", AUDITED_OK, judgement(), CONFORMING),
        "b": _record(store, "b", NOT_OK, rejects()),
        "c": _escalate(store, "c", rejects(), scrap()),
        "d": _escalate(store, "d", None, None, product="pushpins", lot="L2"),
        "e": _record(
            store, "e", AUDITED_OK, judgement(), scrap("R3"), product="pushpins", station="line-2"
        ),
        "f": _record(
            store, "f", AUDITED_NOT_OK, rejects("R3"), CONFORMING,
            product="pushpins", station="line-2", model="m2", recipe_version="r2",
        ),
        "g": store.take_in(intake("g")).id,
    }  # fmt: skip
    ids["hostile"] = _record(
        store, HOSTILE, AUDITED_NOT_OK, rejects(HOSTILE),
        ReviewDecision(finding=Finding.CONFORMING, comment=HOSTILE, by=HOSTILE),
        product=HOSTILE, station=HOSTILE, lot=HOSTILE, model=HOSTILE, recipe_version=HOSTILE,
        task_version=HOSTILE, image=HOSTILE, recipe_path=HOSTILE, actor=HOSTILE,
    )  # fmt: skip
    return ids


def _record(
    store: AuditStore,
    part: str,
    decision: Decision,
    said: Judgement,
    audited: ReviewDecision | None = None,
    **changed: object,
) -> str:
    opened = store.take_in(intake(part, **changed))
    store.record(opened.id, decision, said)
    if audited is not None:
        _decide(store, opened.id, audited)
    return opened.id


def _escalate(
    store: AuditStore,
    part: str,
    said: Judgement | None,
    decided: ReviewDecision | None,
    **changed: object,
) -> str:
    opened = store.take_in(intake(part, **changed))
    store.escalate(opened.id, DOUBT, said)
    if decided is not None:
        _decide(store, opened.id, decided)
        store.apply_review(opened.id)
    return opened.id


def _decide(store: AuditStore, inspection_id: str, decision: ReviewDecision) -> None:
    [review] = store.history(inspection_id).reviews
    store.decide_review(review.id, decision)
