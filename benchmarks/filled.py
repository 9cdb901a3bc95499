"""Audit stores of many inspections, as if they had been made over 90 days at four stations.

Up to `RECORDED` every inspection goes through the store's own writing path. A larger store is grown
from one of `RECORDED`: its inspections are drawn again and again, each time as another part with
ids, times and a place in the chain of its own; then all tables are made of these events, as by
`store rebuild`. Recording would take most of an hour for a million.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from typing import Any
from unittest import mock

import uuid_utils
from sqlalchemy import Row, insert, select, text
from sqlalchemy.orm import Session

from lad_agent.inspection import Intake, ReviewDecision
from lad_agent.judgement import Decision, Disposition, Finding, Judgement, Reason, Result
from lad_agent.recipe import SHIPPED
from lad_agent.store import AuditStore, open_store, projections
from lad_agent.store.ledger import GENESIS, timestamp
from lad_agent.store.models import Chain, Event
from lad_agent.store.operations import (
    Unit,
    apply_review,
    decide_review,
    escalate,
    record,
    take_in,
)

RECORDED = 100_000
DAYS = 90
GROUP = 500
PEOPLE = ("anna", "bert", "carla", "dov", "emil", "fay")
PARTS = ("washers", "bolts", "nuts", "clamps", "labels", "oranges", "almonds", "pins", "cables")


def fill(store: AuditStore, count: int) -> None:
    """Fill it with `count` inspections, spread evenly over the last `DAYS` days.

    One of more than `RECORDED` is grown from the store of that many beside it, made if missing.
    """
    if count <= RECORDED:
        _record(store, count)
        return
    with open_store(store.file.with_name(f"{RECORDED}.db")) as base:
        if base.count() == 0:
            _record(base, RECORDED)
        _grow(store, base, count)


def _record(store: AuditStore, count: int) -> None:
    rng, clock = random.Random(0), _Clock(count)
    with (
        mock.patch("lad_agent.store.ledger.now", clock.now),
        mock.patch("lad_agent.store.operations.new_id", clock.new_id),
    ):
        for first in range(0, count, GROUP):
            numbers = range(first, min(first + GROUP, count))
            store.transact([partial(_inspect, clock, rng, number, count) for number in numbers])


def _grow(store: AuditStore, base: AuditStore, count: int) -> None:
    """Draw from each `GROUP` of the base's inspections in turn, so that a part's day, recipe and
    model stay alike."""
    rng, copies, each = random.Random(0), _Copies(_Clock(count)), count / base.count()

    def draw(session: Session) -> None:
        events = session.execute(select(Event.__table__).order_by(Event.seq))
        groups = (list(alike) for _, alike in groupby(events.yield_per(GROUP), _INSPECTION))
        done = 0
        while window := list(islice(groups, GROUP)):
            parts = [group for group in window if group[0].inspection_id is not None]
            done += len(parts)
            drawn = rng.choices(parts, k=round(done * each) - copies.parts)
            facts = [group for group in window if group[0].inspection_id is None]
            store.transact([partial(copies.write, facts + drawn)])

    base.ask(draw)
    store.transact([copies.end, lambda unit: projections.rebuild(unit.connection)])


_INSPECTION = attrgetter("inspection_id")


class _Copies:
    """Events of one ledger told again as those of other parts, at the ends of new chains."""

    def __init__(self, clock: "_Clock") -> None:
        self.parts = 0
        self._clock, self._seq = clock, 0
        self._ends: dict[str, dict[str, Any]] = {}

    def write(self, groups: list[list[Row[Any]]], unit: Unit) -> None:
        """Add each group: the events of one inspection, or those between two."""
        rows = [row for group in groups for row in self._again(group)]
        unit.connection.execute(insert(Event), rows)

    def end(self, unit: Unit) -> None:
        """Note where the chains end."""
        unit.connection.execute(insert(Chain), list(self._ends.values()))

    def _again(self, group: list[Row[Any]]) -> Iterator[dict[str, Any]]:
        changes = {} if group[0].inspection_id is None else self._another(group)
        for event in group:
            station, at = event.station, self._clock.now()
            end = self._ends.get(station, {"hash": GENESIS, "events": 0})
            self._seq += 1
            row = {**event._mapping, "seq": self._seq, "prev_hash": end["hash"], "at": at}
            canonical = event.canonical.replace(_place(event._mapping), _place(row))
            for old, new in {**changes, event.at: at}.items():
                canonical = canonical.replace(old, new)
            digest = hashlib.sha256(canonical.encode()).hexdigest()
            inspection_id = changes.get(event.inspection_id)
            yield row | {"canonical": canonical, "hash": digest, "inspection_id": inspection_id}
            number = end["events"] + 1
            self._ends[station] = {
                "station": station,
                "seq": self._seq,
                "hash": digest,
                "events": number,
            }

    def _another(self, group: list[Row[Any]]) -> dict[str, str]:
        """What makes it another part's inspection: old texts and new."""
        self._clock.tick()
        number, self.parts = self.parts, self.parts + 1
        told = json.loads(group[0].canonical)["payload"]
        part = f"part-{number:06}"
        reviews = [
            json.loads(event.canonical)["payload"]["id"]
            for event in group
            if event.type == projections.REVIEW_OPENED
        ]
        return {
            group[0].inspection_id: self._clock.new_id(),
            told["part_id"]: part,
            told["key"]: hashlib.sha256(part.encode()).hexdigest(),
            f'"image_sha256":"{told["image_sha256"]}"': f'"image_sha256":"{number:064x}"',
            f'"lot":"{told["lot"]}"': f'"lot":"lot-{number // 500:05}"',
            **{review_id: self._clock.new_id() for review_id in reviews},
        }


def _place(event: Mapping[Any, Any]) -> str:
    """Where an event stands in its chain, as its canonical form says it."""
    return f'"prev_hash":"{event["prev_hash"]}","seq":{event["seq"]},'


class _Clock:
    """The time of the simulated plant: one step on for every inspection."""

    def __init__(self, inspections: int) -> None:
        days = timedelta(days=DAYS)
        self.moment, self._step = datetime.now(UTC) - days, days / inspections

    def tick(self) -> None:
        self.moment += self._step

    def now(self) -> str:
        return timestamp(self.moment)

    def new_id(self) -> str:
        seconds = self.moment.timestamp()
        return str(uuid_utils.uuid7(int(seconds), int(seconds % 1 * 1e9)))


def _inspect(clock: _Clock, rng: random.Random, number: int, count: int, unit: Unit) -> None:
    clock.tick()
    product = rng.choice(SHIPPED)
    share = number / count
    version = f"{product}-{int(share * 4)}"
    intake = Intake(
        part_id=f"part-{number:06}",
        station=f"line-{rng.randrange(4)}",
        lot=f"lot-{number // 500:05}",
        image=f"/images/{product}/part-{number:06}.png",
        image_sha256=f"{number:064x}",
        product=product,
        task_version=f"task-{product}",
        recipe_version=version,
        recipe_path=f"/recipes/{version}.yaml",
        model=f"model-{int(share * 3)}",
        actor="line",
    )
    inspection_id = take_in(unit, intake).id
    kind = rng.choices(("ok", "bad", "doubt"), (87, 10, 3))[0]
    rule = f"R{rng.randint(1, 8)}" if number % 9973 else "R9"
    said = _judgement(rng, number, anomalous=kind == "bad", rule=rule)
    audit = rng.random() < 0.02
    if kind == "doubt":
        doubt = Decision(Result.NOT_DECIDABLE, Reason.LOW_CONFIDENCE)
        review_id = escalate(unit, inspection_id, doubt, said, kept=None)
        # Who looks at all but the last day's.
        if share < 1 - 1 / DAYS:
            decide_review(unit, review_id, _finding(rng, rule))
            apply_review(unit, inspection_id)
        return
    result = Result.OK if kind == "ok" else Result.NOT_OK
    record(unit, inspection_id, Decision(result, audit=audit), said)
    if audit and share < 1 - 1 / DAYS:
        review_id = unit.connection.execute(_AUDIT, {"id": inspection_id}).scalar_one()
        decide_review(unit, review_id, _finding(rng, rule, bad=0.95 if kind == "bad" else 0.02))


_AUDIT = text("SELECT id FROM reviews WHERE inspection_id = :id AND kind = 'audit'")


def _judgement(rng: random.Random, number: int, *, anomalous: bool, rule: str) -> Judgement:
    found = [
        f"R{index} {name} at {rng.choice('ABCDE')}{rng.randint(1, 5)}, "
        f"{rng.choice('ABCDE')}{rng.randint(1, 5)}: 2 of 2 ok"
        for index, name in enumerate(rng.sample(PARTS, 4), 1)
    ]
    if anomalous:
        found.append(f"{rule} {rng.choice(PARTS)} at C3: 1 of 2 bad")
    told = f"serial {number % 5000}; " + "; ".join(found)
    return Judgement(
        anomalous=anomalous,
        anomaly_score=rng.uniform(0.8, 1.0) if anomalous else rng.uniform(0.0, 0.2),
        confidence=rng.uniform(0.6, 1.0),
        rationale=told,
        rule=rule if anomalous else None,
        places=("C3",) if anomalous else (),
        raw_text=f"<think>{told}</think><answer>{'yes' if anomalous else 'no'}</answer>",
        well_formed=True,
        weakest_token=0.9,
        model="model",
        tokens=60,
        elapsed_s=0.05,
    )


def _finding(rng: random.Random, rule: str, bad: float = 0.5) -> ReviewDecision:
    if rng.random() > bad:
        return ReviewDecision(finding=Finding.CONFORMING, comment="looked", by=rng.choice(PEOPLE))
    return ReviewDecision(
        finding=Finding.NONCONFORMING,
        disposition=Disposition.SCRAP,
        rule=rule,
        comment="looked",
        by=rng.choice(PEOPLE),
    )
