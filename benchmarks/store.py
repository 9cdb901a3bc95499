"""How fast an audit store of many inspections answers, how large it is, how long it verifies.

    python -m benchmarks.store [--inspections 10000] [--repeat 20] [--keep audit.db] [--cpu]
                              [--rebuild]

Fills an SQLite store as if N inspections had been made over 90 days at four stations (see
`benchmarks.filled`); then prints p50 and p95 of every documented question (each repeated with
other arguments), the file's size an inspection and the time to verify the ledger; with `--rebuild`
also that to make all tables from it anew. A kept file is asked again without filling it anew.
`--cpu` counts the processor's time alone (the database runs in this process), for a machine with
other work.
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

from sqlalchemy import text

from benchmarks.filled import PARTS, PEOPLE, fill
from lad_agent.judgement import Result
from lad_agent.recipe import SHIPPED
from lad_agent.store import AuditStore, InspectionFilter, ReviewFilter, open_store, queries, stats

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

    `peak_mb` is the most that this process had in use so far; `rebuild_s` None where not asked for.
    """

    inspections: int
    asked: Mapping[str, Asked]
    size: int
    events: int
    verify_s: float
    rebuild_s: float | None
    peak_mb: float


def main() -> None:
    """Fill, ask and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inspections", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="Fill this file, or ask it if it is there.")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--rebuild", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.keep or Path(folder) / "audit.db"
        found = measured(
            path, chosen.inspections, chosen.repeat, clock(cpu=chosen.cpu), rebuild=chosen.rebuild
        )
        report(found)


def clock(*, cpu: bool) -> Clock:
    """What time is taken by: the wall's clock, or this process's use of the processor."""
    return time.process_time if cpu else time.perf_counter


def measured(path: Path, count: int, repeat: int, clock: Clock, *, rebuild: bool) -> Measured:
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
        rebuild_s = None
        if rebuild:
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
    if found.rebuild_s is not None:
        print(f"rebuild: {found.rebuild_s:.1f} s")
    print(f"at most {found.peak_mb:.0f} MB of memory")


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
        yield f"stats by {kind}", partial(_figures, store, InspectionFilter(), kind)
        recent = InspectionFilter(since=ago(days=7))
        yield f"stats by {kind}, 7 days", partial(_figures, store, recent, kind)
    blocks = re.findall(r"([^\n]+)\n\n```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for title, query in blocks:
        yield f"SQL: {title.rstrip(':')}", partial(_sql, store, query, lambda: rng.randrange(count))


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


def _sql(store: AuditStore, query: str, part: Callable[[], int]) -> int:
    query = query.replace("part-000.png", f"part-{part():06}")
    return store.ask(lambda session: len(session.execute(text(query)).all()))


if __name__ == "__main__":
    main()
