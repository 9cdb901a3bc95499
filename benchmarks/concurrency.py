"""Many stations write into one store at once, beside the same number of bare INSERT loops.

    python -m benchmarks.concurrency [--processes 8] [--inspections 1000] [--databases sqlite ...]

Every process records so many inspections, each in two steps with a commit of its own behind it
(taken in; judged and recorded), as `lad-agent inspect` does: up to 64 in flight, those that wait
together share a commit. The bare loops of the same run write as many bytes into a plain table
without index, under the same durability: with two commits an inspection, and with one commit for
64. Exit code 1 if a process failed, a number of the ledger is missing or a chain is broken.
"""

import argparse
import asyncio
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

import psycopg
from sqlalchemy import func, select

from lad_agent.inspection import Intake
from lad_agent.judgement import Decision, Judgement, Reason, Result
from lad_agent.store import AsyncStore, open_store
from lad_agent.store.models import Event
from tests.store import server as servers

IN_FLIGHT = 64
BYTES = 1000
"""Of each of a bare loop's two rows: about what the ledger holds of a part's three events."""

CONTEXT = multiprocessing.get_context("forkserver")

Way = Callable[[str, int, int], None]


def main() -> None:
    """Run the ways on each database and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--inspections", type=int, default=1000, help="Of each process.")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    chosen = parser.parse_args()
    CONTEXT.set_forkserver_preload(["lad_agent.store", "psycopg", "tests.store.server"])
    total = chosen.processes * chosen.inspections
    print(f"{chosen.processes} processes x {chosen.inspections} inspections\n")
    print("| database | way | seconds | inspections/s | of the bare loop |\n|---|---|---|---|---|")
    faults = []
    for database in chosen.databases:
        with ExitStack() as stack:
            place = _place(database, stack)
            bare = None
            for name, way, url in (
                ("bare INSERT, 2 commits an inspection", _bare_each, place("bare")),
                ("bare INSERT, 64 rows a commit", _bare_grouped, place("grouped")),
                ("the audit store", _inspect, place("audit")),
            ):
                _begin(way, url)
                seconds, failed = _timed(way, url, chosen.processes, chosen.inspections)
                faults += [f"{database}, {name}: {error}" for error in failed]
                bare = bare or seconds
                share = f"{total / seconds:.0f} | {bare / seconds:.2f}"
                print(f"| {database} | {name} | {seconds:.1f} | {share} |", flush=True)
            faults += [f"{database}: {fault}" for fault in _faults(url, total)]
    print("\n" + ("\n".join(faults) or "no lock error, no gap, every chain whole"))
    sys.exit(bool(faults))


def _timed(way: Way, url: str, processes: int, count: int) -> tuple[float, list[str]]:
    """Seconds from the moment when all processes are ready until the last is done; what failed."""
    ready: Barrier = CONTEXT.Barrier(processes + 1)
    ends: SimpleQueue[str | None] = CONTEXT.SimpleQueue()
    workers = [
        CONTEXT.Process(target=_work, args=(way, url, number, count, ready, ends))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    failed = [error for _ in workers if (error := ends.get()) is not None]
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    return seconds, failed


def _work(
    way: Way, url: str, number: int, count: int, ready: Barrier, ends: "SimpleQueue[str | None]"
) -> None:
    ready.wait()
    try:
        way(url, number, count)
    except Exception as error:
        ends.put(f"process {number}: {error!r}")
    else:
        ends.put(None)


def _place(database: str, stack: ExitStack) -> Callable[[str], str]:
    if database == "sqlite":
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        return lambda name: f"{folder}/{name}.db"
    if (programs := servers.programs()) is None:
        sys.exit(servers.MISSING)
    server = stack.enter_context(servers.running(programs, durable=True))

    def made(name: str) -> str:
        servers.administer(server, f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={server}"

    return made


def _begin(way: Way, url: str) -> None:
    if way is _inspect:
        open_store(url).close()
        return
    with closing(_connected(url)) as connection:
        connection.execute("CREATE TABLE rows (number integer, content text)")


def _faults(url: str, total: int) -> list[str]:
    with open_store(url, create=False) as store:
        report = store.verify_chain()
        last, events = store.ask(
            lambda session: session.execute(select(func.max(Event.seq), func.count())).one()
        )
        faults = [str(fault) for fault in report.faults]
        if last != events:
            faults.append(f"{events} events, but the last is number {last}")
        if (count := store.count()) != total:
            faults.append(f"{count} inspections instead of {total}")
    return faults


# --- the ways -------------------------------------------------------------------------------------


def _inspect(url: str, number: int, count: int) -> None:
    asyncio.run(_inspect_all(url, number, count))


async def _inspect_all(url: str, number: int, count: int) -> None:
    places = asyncio.Semaphore(IN_FLIGHT)
    with open_store(url) as audit:
        async with AsyncStore(audit) as store:

            async def one(part: int) -> None:
                async with places:
                    opened = await store.take_in(_intake(number, part))
                    if part % 20:
                        await store.record(opened.id, Decision(Result.OK), _SAID)
                    else:
                        await store.escalate(opened.id, _DOUBT, _SAID)

            await asyncio.gather(*map(one, range(count)))


def _bare_each(url: str, number: int, count: int) -> None:
    _bare(url, [[part] for part in range(2 * count)])


def _bare_grouped(url: str, number: int, count: int) -> None:
    parts = range(2 * count)
    _bare(url, [list(parts[first : first + IN_FLIGHT]) for first in parts[::IN_FLIGHT]])


def _bare(url: str, commits: list[list[int]]) -> None:
    content = "x" * BYTES
    sign = "%s" if "://" in url else "?"
    with closing(_connected(url)) as connection:
        for rows in commits:
            connection.execute("BEGIN" if "://" in url else "BEGIN IMMEDIATE")
            for row in rows:
                connection.execute(f"INSERT INTO rows VALUES ({sign}, {sign})", (row, content))
            connection.execute("COMMIT")


def _connected(url: str) -> Any:
    if "://" in url:
        return psycopg.connect(url, autocommit=True)
    connection = sqlite3.connect(url, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


_DOUBT = Decision(Result.NOT_DECIDABLE, Reason.LOW_CONFIDENCE)
_TOLD = "; ".join(f"R{n} washers at A{n}, B{n}: 2 of 2 ok" for n in range(1, 6))
_SAID = Judgement(
    anomalous=False,
    anomaly_score=0.1,
    confidence=0.9,
    rationale=_TOLD,
    raw_text=f"<think>{_TOLD}</think><answer>no</answer>",
    well_formed=True,
    weakest_token=0.9,
    model="model",
    tokens=60,
    elapsed_s=0.05,
)


def _intake(station: int, part: int) -> Intake:
    return Intake(
        part_id=f"part-{station}-{part:06}",
        station=f"line-{station}",
        lot=None,
        image=f"/images/part-{station}-{part:06}.png",
        image_sha256=f"{station:032x}{part:032x}",
        product="screw_bag",
        task_version="task",
        recipe_version="recipe",
        recipe_path="/recipes/recipe.yaml",
        model="model",
        actor="line",
    )


if __name__ == "__main__":
    main()
