"""The promise watched: what the audits say of it, what raises an alarm, and what ends one."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from lad_agent.errors import UsageError
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Decision, Disposition, Finding, Reason, Result
from lad_agent.promise import lower_bound, upper_bound
from lad_agent.recipe import Recipe
from lad_agent.service import shown
from lad_agent.store import (
    AuditStore,
    InspectionFilter,
    holds,
    open_store,
    operations,
    promises,
    stats,
)
from lad_agent.store.operations import Unit
from tests.calibrated import write_calibrated
from tests.store.samples import DOUBT, NOT_OK, intake, judgement, tables

BAD = ReviewDecision(finding=Finding.NONCONFORMING, disposition=Disposition.SCRAP, by="anna")
GOOD = ReviewDecision(finding=Finding.CONFORMING, by="anna")
ALL = InspectionFilter()


@pytest.fixture
def calibrated(tmp_path: Path) -> Recipe:
    return write_calibrated(tmp_path / "tray")


def put(
    store: AuditStore,
    recipe: Recipe,
    name: str,
    count: int,
    decision: Decision = Decision(Result.OK),  # noqa: B008 - frozen
    *,
    audits: int = 0,
    bad: int = 0,
    confidence: float | None = None,
    model: str = "scripted",
) -> None:
    """`count` parts with that decision; the first `audits` were decided, `bad` of them as bad."""
    sure = np.linspace(0.8, 1.0, count) if confidence is None else np.full(count, confidence)

    def step(unit: Unit, number: int) -> None:
        taken = intake(
            f"{name}-{number}", image_sha256=None, image=f"/{name}/{number}",
            recipe_version=recipe.recipe_version, task_version=recipe.task_version,
            recipe_path=str(recipe.path), product=recipe.product, model=model,
        )  # fmt: skip
        opened = operations.take_in(unit, taken)
        said = judgement(
            anomalous=decision.result is Result.NOT_OK,
            anomaly_score=0.1 + 0.1 * float(sure[number] - 0.9) / 0.1,
            confidence=float(sure[number]), model=model,
        )  # fmt: skip
        if decision.result is Result.NOT_DECIDABLE:
            operations.escalate(unit, opened.id, decision, said, None)
        else:
            looked = Decision(decision.result, audit=number < audits)
            operations.record(unit, opened.id, looked, said)
        if number < audits:
            query = text("SELECT id FROM reviews WHERE inspection_id = :id")
            review_id = unit.connection.scalar(query, {"id": opened.id})
            found = BAD if number < bad else GOOD
            commented = found.model_copy(update={"comment": "seen"})
            operations.decide_review(unit, str(review_id), commented)

    store.transact([lambda unit, n=number: step(unit, n) for number in range(count)])


def watched(store: AuditStore, wanted: InspectionFilter = ALL) -> promises.Watched:
    [only] = store.ask(lambda session: promises.watched(session, wanted))
    return only


def test_audits_are_weighted_by_the_version_that_drew_them(
    store: AuditStore, tmp_path: Path
) -> None:
    seldom = write_calibrated(tmp_path / "a", audit_rate=0.1)
    often = write_calibrated(tmp_path / "b", audit_rate=0.5)
    put(store, seldom, "seldom", 180, audits=18)
    put(store, often, "often", 20, audits=10, bad=5)
    [audits] = store.ask(lambda session: stats.audits(session, ALL))
    # Half of a tenth of the parts, not 5 of 28.
    assert (audits.passed, audits.passed_audited, audits.escapes) == (200, 28, 5)
    assert audits.outgoing_defect_rate == pytest.approx(0.05)
    each = 0.975
    assert audits.low == pytest.approx(0.1 * lower_bound(5, 10, each))
    high = 0.9 * upper_bound(0, 18, each) + 0.1 * upper_bound(5, 10, each)
    assert audits.high == pytest.approx(high)
    now = datetime.now(UTC)
    [told] = store.ask(lambda session: shown.dashboard(session, 24, now)).products
    assert told.escape is not None
    assert told.escape.share == pytest.approx(0.05)
    assert told.escape.told.startswith("5.0% (")
    assert told.escape.told.endswith("), 5 of 28 audited")


def test_a_kept_promise_raises_nothing(store: AuditStore, calibrated: Recipe) -> None:
    assert store.ask(promises.watched) == []
    put(store, calibrated, "bad", 30, NOT_OK)
    put(store, calibrated, "good", 200)
    assert watched(store).state == "unknown"
    put(store, calibrated, "more", 100, audits=60)
    found = watched(store)
    # Thirty rejected, of whom nobody has looked at one, and 60 audits: neither kept nor broken.
    assert (found.what, found.state, found.rate) == ("escape_rate", "open", 0.0)
    assert found.promise == "at most 1.0% escapes, 95% sure"
    assert promises.check(store, "line-1", "anna") == []
    assert store.ask(lambda s: promises.watched(s, InspectionFilter(product="other"))) == []
    put(store, calibrated, "caught", 1500, NOT_OK, audits=1500, bad=1500)
    put(store, calibrated, "all", 300, audits=300)
    assert watched(store).state == "kept so far"


def test_a_broken_promise_is_one_alarm_until_it_is_answered(
    store: AuditStore, calibrated: Recipe
) -> None:
    put(store, calibrated, "bad", 10, NOT_OK)
    put(store, calibrated, "passed", 200, audits=40, bad=6)
    [alarm] = promises.check(store, "line-1", "anna")
    assert (alarm.product, alarm.model, alarm.what) == ("screw_bag", "scripted", "escape_rate")
    assert alarm.detail.startswith("6 of 40 audited are bad, at least 6.")
    assert (
        "of the 200 passed; the promise (at most 1.0% escapes, 95% sure) allows 0." in alarm.detail
    )
    assert promises.check(store, "line-2", "bert") == []
    assert store.ask(holds.alarms) == [alarm]
    assert store.ask(holds.holds) == []
    assert store.release_hold("line-1", "bert", "screw_bag") == 1
    assert store.ask(holds.alarms) == []
    # What was answered to is not counted again.
    assert promises.check(store, "line-1", "anna") == []
    assert watched(store).parts == 0
    put(store, calibrated, "again", 200, audits=40, bad=6)
    assert len(promises.check(store, "line-1", "anna")) == 1
    before = tables(store)
    assert store.changed_tables() == []
    store.rebuild()
    assert tables(store) == before
    assert store.verify_chain().intact


def test_a_threshold_that_was_loosened_stands_beside_the_promise(
    store: AuditStore, tmp_path: Path
) -> None:
    for n, threshold in enumerate((0.9, 0.7)):
        calibrated = write_calibrated(
            tmp_path / str(n), pass_confidence=threshold, thresholds={"pass_confidence": 0.9}
        )
        put(store, calibrated, f"shift{n}", 20, audits=2)
        kept = "at most 1.0% escapes, 95% sure"
        told = ", made for pass_confidence 0.9, which is 0.7 now" if n else ""
        mine = InspectionFilter(recipe_version=calibrated.recipe_version)
        assert watched(store, mine).promise == kept + told


def test_by_policy_an_alarm_is_a_hold(store: AuditStore, tmp_path: Path) -> None:
    strict = write_calibrated(tmp_path / "tray", on_alarm="hold")
    put(store, strict, "passed", 200, audits=40, bad=6)
    [alarm] = promises.check(store, "line-1", "anna")
    [hold] = store.ask(holds.holds)
    assert (hold.product, hold.on_by) == ("screw_bag", "anna")
    assert hold.reason == f"alarm, escape_rate: {alarm.detail}"
    why = store.ask(lambda session: holds.why_held(session, "screw_bag"))
    assert why is not None
    assert why.startswith("by anna since 20")
    assert store.ask(lambda session: holds.why_held(session, "pushpins")) is None
    assert store.release_hold("line-1", "bert", "screw_bag") == 1
    assert store.ask(holds.holds) == []
    with pytest.raises(UsageError, match="no hold is on for screw_bag, and no alarm stands"):
        store.release_hold("line-1", "bert", "screw_bag")


def test_overkill_is_watched_likewise(store: AuditStore, tmp_path: Path) -> None:
    recipe = write_calibrated(tmp_path / "tray", promises={"overkill_rate": 0.02})
    put(store, recipe, "passed", 100)
    put(store, recipe, "rejected", 40, NOT_OK, audits=20, bad=2)
    found = watched(store)
    # 18 of 20 audited rejects are good: some 36 of 136 good parts, where 2 % are promised.
    assert (found.what, found.parts, found.found, found.state) == (
        "overkill_rate", 40, 18, "broken",
    )  # fmt: skip
    [alarm] = promises.check(store, "line-1", "anna")
    assert alarm.detail.startswith("18 of 20 audited are good")


def test_parts_that_wait_for_a_person_may_be_bad(store: AuditStore, calibrated: Recipe) -> None:
    put(store, calibrated, "passed", 200, audits=40, bad=6)
    put(store, calibrated, "waiting", 3000, DOUBT)
    assert watched(store).state == "open"
    assert watched(store).allowed > 0.1


@pytest.mark.parametrize("product", ["screw_bag", None])
def test_what_a_hold_sends_to_people_says_nothing_of_the_promise(
    store: AuditStore, calibrated: Recipe, product: str | None
) -> None:
    put(store, calibrated, "passed", 200, audits=40)
    before = watched(store)
    store.put_hold("line-1", "anna", "lens cleaned", product)
    put(store, calibrated, "held", 100, Decision(Result.NOT_DECIDABLE, Reason.ON_HOLD))
    assert watched(store) == before
    store.release_hold("line-1", "anna", product)
    assert watched(store).parts == 0
    put(store, calibrated, "after", 200, audits=40, bad=6)
    assert len(promises.check(store, "line-1", "anna")) == 1


@pytest.mark.parametrize(
    "changed",
    [{"made_at": "2026-06-01T06:00:00+00:00"}, {"audit_rate": 0.5}],
    ids=["calibration", "recipe version"],
)
def test_a_new_calibration_or_recipe_version_begins_a_new_watch(
    store: AuditStore, calibrated: Recipe, tmp_path: Path, changed: dict[str, Any]
) -> None:
    put(store, calibrated, "old", 200, audits=40, bad=6)
    [alarm] = promises.check(store, "line-1", "anna")
    assert alarm.recipe_version == calibrated.recipe_version
    new = write_calibrated(tmp_path / "new", **changed)
    put(store, new, "first", 1)
    found = watched(store)
    assert (found.recipe_version, found.parts) == (new.recipe_version, 1)
    assert {one.parts for one in store.ask(promises.drifted)} == {1}
    assert promises.check(store, "line-1", "anna") == []
    # The old alarm stands until it is answered, and keeps no other from being raised.
    put(store, new, "more", 200, audits=40, bad=6)
    assert [one.recipe_version for one in promises.check(store, "line-1", "anna")] == [
        new.recipe_version
    ]
    versions = {one.recipe_version for one in store.ask(holds.alarms)}
    assert versions == {calibrated.recipe_version, new.recipe_version}
    # Back on the old version, its own parts count again, and no others.
    put(store, calibrated, "again", 1)
    assert watched(store).parts == 201


def test_what_a_newer_station_wrote_beside_is_left_out(
    store: AuditStore, calibrated: Recipe
) -> None:
    put(store, calibrated, "old", 200, audits=40, bad=6)
    before = store.ask(promises.broken)
    write_unknown(store)
    assert before == store.ask(promises.broken) != []


def write_unknown(store: AuditStore) -> None:
    """Into what every recipe said, keys that this version does not know."""

    def add(unit: Unit) -> None:
        rows = unit.connection.execute(text("SELECT recipe_version, content FROM recipes")).all()
        for version, content in rows:
            said = json.loads(content)
            for told in (said["policy"], said["calibration"]):
                told["patience"] = 3
            change = text("UPDATE recipes SET content = :said WHERE recipe_version = :version")
            unit.connection.execute(change, {"said": json.dumps(said), "version": version})

    store.transact([add])


def test_a_promise_is_about_the_parts_of_its_model(store: AuditStore, calibrated: Recipe) -> None:
    put(store, calibrated, "passed", 200, audits=40)
    put(store, calibrated, "other", 100, audits=40, bad=40, model="another")
    # The other model is in force now: to it nothing was promised.
    told = watched(store)
    assert (told.state, told.model, told.parts) == ("void", "another", 100)
    why = "calibrated for model scripted, this is another; run lad-agent calibrate again"
    assert told.promise == f"at most 1.0% escapes, 95% sure, void: {why}"
    assert store.ask(promises.void) == [f"screw_bag: {why}"]
    assert store.ask(promises.drifted) == []
    put(store, calibrated, "back", 1)
    assert (watched(store).parts, watched(store).found) == (201, 0)
    assert store.ask(promises.void) == []
    assert store.ask(lambda s: promises.watched(s, InspectionFilter(model="another"))) == []
    assert promises.check(store, "line-1", "anna") == []


def test_a_void_calibration_is_neither_broken_nor_drifted_from(
    store: AuditStore, tmp_path: Path
) -> None:
    """Its parts are recorded with the raw confidence, which no calibration has seen."""
    void = write_calibrated(tmp_path / "tray", samples=3, on_alarm="hold")
    put(store, void, "waiting", 300, DOUBT, confidence=0.82)
    put(store, void, "passed before", 100, audits=40, bad=6)
    told = watched(store)
    assert told.state == "void"
    assert "95% sure, void: calibrated for samples 0, this is 3; run" in told.promise
    assert promises.check(store, "line-1", "anna") == []
    assert store.ask(holds.holds) == []


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AuditStore, Recipe]]:
    folder = tmp_path_factory.mktemp("drift")
    with open_store(folder / "audit.db") as store:
        recipe = write_calibrated(folder / "tray")
        put(store, recipe, "few", promises.promise.FEWEST - 1)
        yield store, recipe


def test_drift_is_an_alarm(judged: tuple[AuditStore, Recipe]) -> None:
    store, recipe = judged
    assert {one.state for one in store.ask(promises.drifted)} == {"too few"}
    put(store, recipe, "alike", 300)
    same = store.ask(promises.drifted)
    assert [one.what for one in same] == ["confidence", "anomaly_score"]
    assert {one.state for one in same} == {"as calibrated"}
    assert {one.parts for one in same} == {499}
    # Parts that are known to be bad are no part of the comparison.
    put(store, recipe, "bad", 200, NOT_OK, confidence=0.82)
    assert {one.parts for one in store.ask(promises.drifted)} == {499}
    put(store, recipe, "darker", 380, confidence=0.82)
    put(store, recipe, "waiting", 20, DOUBT, confidence=0.82)
    alarms = promises.check(store, "line-1", "anna")
    assert [alarm.what for alarm in alarms] == ["confidence", "anomaly_score"]
    assert alarms[0].detail.startswith("the last 899 parts differ from the calibration's good ones")
    assert alarms[0].detail.endswith("; 20 of them wait for a person")
    assert promises.check(store, "line-1", "anna") == []


def test_figures_are_tables_with_typed_columns(judged: tuple[AuditStore, Recipe]) -> None:
    store, _ = judged
    for kind in ("promise", "drift"):
        table = store.ask(lambda session, by=kind: stats.figures(session, ALL, by))
        assert table.rows
        for row in table.rows:
            assert list(row) == list(table.columns)
            for name, value in row.items():
                assert value is None or type(value) is table.columns[name], (kind, name)


def test_both_databases_watch_the_same(each_store: AuditStore, calibrated: Recipe) -> None:
    put(each_store, calibrated, "bad", 10, NOT_OK)
    put(each_store, calibrated, "passed", 250, audits=40, bad=6)
    assert len(promises.check(each_store, "line-1", "anna")) == 1
    each_store.release_hold("line-1", "bert")
    assert each_store.ask(holds.alarms) == []
    assert [one.state for one in each_store.ask(promises.drifted)] == ["too few", "too few"]
