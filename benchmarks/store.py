"""How fast an audit store of many inspections answers, how large it is, how long it verifies.

    python -m benchmarks.store [--inspections 10000] [--repeat 20] [--keep audit.db] [--cpu]

Fills an SQLite store through the store's own writing path, as if N inspections had been made over
90 days at four stations; then prints p50 and p95 of every documented question (each repeated with
other arguments), the file's size an inspection, the time to verify the ledger and to rebuild all
tables from it. A kept file is asked again without filling it anew. `--cpu` counts the processor's
time alone (the database runs in this process), for a machine with other work.
"""

import argparse
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import uuid_utils
from sqlalchemy import text

from lad_agent.inspection import Intake, ReviewDecision
from lad_agent.judgement import Decision, Disposition, Finding, Judgement, Reason, Result
from lad_agent.recipe import SHIPPED
from lad_agent.store import AuditStore, InspectionFilter, ReviewFilter, open_store, queries, stats
from lad_agent.store.ledger import timestamp
from lad_agent.store.operations import (
    Unit,
    apply_review,
    decide_review,
    escalate,
    record,
    take_in,
)

DAYS = 90
GROUP = 500
PEOPLE = ("anna", "bert", "carla", "dov", "emil", "fay")
PARTS = ("washers", "bolts", "nuts", "clamps", "labels", "oranges", "almonds", "pins", "cables")
DOCS = Path(__file__).parents[1] / "docs" / "querying.md"


Clock = Callable[[], float]


@dataclass(frozen=True)
class Asked:
    """What one question took, in ms, and how many rows it gave the last time."""

    p50: float
    p95: float
    rows: int


@dataclass(frozen=True)
class Measured:
    """What a store of so many inspections took: questions by name, bytes, seconds, MB of memory.

    `peak_mb` is the most that this process had in use so far.
    """

    inspections: int
    asked: Mapping[str, Asked]
    size: int
    events: int
    verify_s: float
    rebuild_s: float
    peak_mb: float


def main() -> None:
    """Fill, ask and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inspections", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="Fill this file, or ask it if it is there.")
    parser.add_argument("--cpu", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.keep or Path(folder) / "audit.db"
        report(measured(path, chosen.inspections, chosen.repeat, clock(cpu=chosen.cpu)))


def clock(*, cpu: bool) -> Clock:
    """What time is taken by: the wall's clock, or this process's use of the processor."""
    return time.process_time if cpu else time.perf_counter


def measured(path: Path, count: int, repeat: int, clock: Clock) -> Measured:
    """Fill the file with `count` inspections, unless it is there, and ask every question.

    Raises:
        SystemExit: it holds another number, as if filling was cut off; or it is not intact.
    """
    filled = path.exists()
    with open_store(path) as store:
        if not filled:
            begin = time.perf_counter()
            fill(store, count)
            seconds = time.perf_counter() - begin
            print(f"{count} filled in {seconds:.1f} s, {count / seconds:.0f}/s", file=sys.stderr)
        if (found := store.count()) != count:
            sys.exit(f"{path}: holds {found} inspections, not {count}; delete it, or move it away")
        asked = {
            name: _timed(ask, repeat, clock)
            for name, ask in questions(store, random.Random(1), count)
        }
        begin = clock()
        checked = store.verify_chain()
        verify_s = clock() - begin
        if not checked.intact:
            sys.exit(str(checked.faults[0]))
        size = store.file.stat().st_size
        begin = clock()
        store.rebuild()
        rebuild_s = clock() - begin
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(count, asked, size, checked.events, verify_s, rebuild_s, peak_mb)


def report(found: Measured) -> None:
    """Print it as a table."""
    print(f"{found.inspections} inspections\n\n| question | p50 ms | p95 ms | rows |")
    print("|---|---|---|---|")
    for name, asked in found.asked.items():
        print(f"| {name} | {asked.p50:.1f} | {asked.p95:.1f} | {asked.rows} |")
    rate = found.events / found.verify_s
    print(f"\nfile: {found.size / 1e6:.1f} MB, {found.size / found.inspections:.0f} bytes each")
    print(f"verify: {found.events} events in {found.verify_s:.2f} s, {rate:.0f}/s")
    print(f"rebuild: {found.rebuild_s:.1f} s; at most {found.peak_mb:.0f} MB of memory")


def fill(store: AuditStore, count: int) -> None:
    """Record `count` inspections, spread evenly over the last `DAYS` days."""
    rng = random.Random(0)
    clock = _Clock(datetime.now(UTC) - timedelta(days=DAYS), timedelta(days=DAYS) / count)
    with (
        mock.patch("lad_agent.store.ledger.now", clock.now),
        mock.patch("lad_agent.store.operations.new_id", clock.new_id),
    ):
        for first in range(0, count, GROUP):
            numbers = range(first, min(first + GROUP, count))
            store.transact([partial(_inspect, clock, rng, number, count) for number in numbers])


def questions(
    store: AuditStore, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], int]]]:
    """Every documented question with arguments of its own at each call; returns its rows."""
    ids = store.ask(lambda session: queries.sample(session, InspectionFilter(), 500, seed=0))
    one = store.inspection(ids[0])

    def listed(wanted: Callable[[], InspectionFilter]) -> Callable[[], int]:
        return lambda: len(store.inspections(wanted(), limit=50))

    def ago(**age: float) -> datetime:
        return datetime.now(UTC) - timedelta(**age)

    def any_lot() -> str | None:
        return store.inspection(rng.choice(ids)).intake.lot

    lots = [any_lot() for _ in range(50)]
    filters: dict[str, Callable[[], InspectionFilter]] = {
        "all": InspectionFilter,
        "product, NotOK": lambda: InspectionFilter(
            product=rng.choice(SHIPPED), result=Result.NOT_OK
        ),
        "part": lambda: InspectionFilter(part_id=f"part-{rng.randrange(count):06}"),
        "station": lambda: InspectionFilter(station=f"line-{rng.randrange(4)}"),
        "lot": lambda: InspectionFilter(lot=rng.choice(lots)),
        "model": lambda: InspectionFilter(model=f"model-{rng.randrange(3)}"),
        "recipe version": lambda: InspectionFilter(recipe_version=one.intake.recipe_version),
        "cause": lambda: InspectionFilter(cause=f"R{rng.randint(1, 8)}"),
        "cause that is rare": lambda: InspectionFilter(cause="R9"),
        "reviewer": lambda: InspectionFilter(reviewer=rng.choice(PEOPLE)),
        "text, in one of nine": lambda: InspectionFilter(text=rng.choice(PARTS)),
        "text, in one of 5000": lambda: InspectionFilter(text=f"serial {rng.randrange(5000)}"),
        "since 8 h": lambda: InspectionFilter(since=ago(hours=8)),
        "one day long ago": lambda: InspectionFilter(since=ago(days=60), until=ago(days=59)),
    }
    for name, wanted in filters.items():
        yield f"list: {name}", listed(wanted)
    yield "list: a later page", lambda: len(_page(store, rng.choice(ids)))
    yield "show", lambda: len(store.history(rng.choice(ids)).events)
    yield "reviews that wait", lambda: len(store.reviews(ReviewFilter(decided=False), limit=50))
    for kind in stats.KINDS:
        yield f"stats by {kind}", lambda kind=kind: _figures(store, InspectionFilter(), kind)
        recent = InspectionFilter(since=ago(days=7))
        yield (
            f"stats by {kind}, 7 days",
            lambda kind=kind, recent=recent: _figures(store, recent, kind),
        )
    blocks = re.findall(r"([^\n]+)\n\n```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for title, query in blocks:
        yield (
            f"SQL: {title.rstrip(':')}",
            lambda query=query: _sql(store, query, rng.randrange(count)),
        )


def _timed(ask: Callable[[], int], repeat: int, clock: Clock) -> Asked:
    times, rows = [], 0
    for _ in range(repeat):
        begin = clock()
        rows = ask()
        times.append(1000 * (clock() - begin))
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
    return Asked(statistics.median(times), p95, rows)


def _page(store: AuditStore, after: str) -> list[queries.Inspected]:
    return store.ask(
        lambda session: list(
            queries.inspections(
                session, InspectionFilter(), newest_first=True, limit=50, after=after
            )
        )
    )


def _figures(store: AuditStore, wanted: InspectionFilter, kind: str) -> int:
    return len(store.ask(lambda session: stats.figures(session, wanted, kind)).rows)


def _sql(store: AuditStore, query: str, part: int) -> int:
    query = query.replace("part-000.png", f"part-{part:06}")
    return store.ask(lambda session: len(session.execute(text(query)).all()))


class _Clock:
    """The time of the simulated plant: one step on for every inspection."""

    def __init__(self, begin: datetime, step: timedelta) -> None:
        self.moment, self._step = begin, step

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


if __name__ == "__main__":
    main()
