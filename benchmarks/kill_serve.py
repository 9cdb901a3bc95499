"""The scene `serve` of `benchmarks.kill`: a service under load.

Clients post parts and decide reviews until `lad-agent serve` is killed, while it starts or later.
Then whatever it had answered must be in the store, and the next service goes on with the rest;
parts are sent again under their key, those answered too. After the last kill everything must come
to its end.
"""

import asyncio
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.process import BaseProcess
from typing import Any

import httpx

from benchmarks.child import SCRIPTED, run
from benchmarks.scene import CONTEXT, Fault, Place, Tally, twice
from lad_agent.errors import NotFound
from lad_agent.store import AuditStore, ReviewFilter, open_store
from tests.scripted import part, write_recipe

PARTS = 40
"""New ones for every service."""
WINDOW_S = 2.0
"""How long a service that has started may live."""
CLIENTS = 6
AGAIN = 0.2
"""The share of answered parts that is sent again."""
STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 300.0


@dataclass
class Known:
    """What the service has answered: the inspection of each part, and which reviews it took."""

    accepted: dict[int, str] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def accept(self, number: int, inspection_id: str) -> None:
        """Note the answer to a part, which must be the one it had before."""
        if self.accepted.setdefault(number, inspection_id) != inspection_id:
            self.faults.append(("twice", f"part {number}: another inspection {inspection_id}"))


def play(place: Place, kills: int, rng: random.Random) -> Tally:
    """Kill the service so often in an empty place, then let it finish."""
    write_recipe(place.folder / "recipes" / "screw_bag", audit_rate=0.2)
    tally, known = Tally(), Known()
    begin = time.monotonic()
    asyncio.run(_finished(place, range(0), rng, known))
    window_s = WINDOW_S + time.monotonic() - begin  # as long as it takes to start
    for number in range(1, kills + 1):
        wanted = range(number * PARTS)
        tally.kills += 1
        tally.midst += asyncio.run(_killed(place, wanted, rng.uniform(0, window_s), rng, known))
        with open_store(place.store) as audit:
            tally.faults += _kept(audit, known)
    asyncio.run(_finished(place, range(kills * PARTS), rng, known))
    with open_store(place.store) as audit:
        tally.faults += [*known.faults, *_kept(audit, known), *_unfinished(audit, kills * PARTS)]
    return tally


async def _killed(
    place: Place, wanted: range, after_s: float, rng: random.Random, known: Known
) -> bool:
    """Whether the kill met a service that was alive."""
    async with _serving(place) as (child, url):
        load = asyncio.create_task(_load_once_ready(child, url, _sent(wanted, rng, known), known))
        await asyncio.sleep(after_s)
        alive = child.is_alive()
        child.kill()
        # The clients notice by themselves, and an answer that is on its way still counts.
        await load
    return alive


async def _finished(place: Place, wanted: range, rng: random.Random, known: Known) -> None:
    """Send what is left, decide what waits, and stop the service when nothing is open."""
    async with _serving(place) as (child, url):
        if not await _is_ready(child, url):
            sys.exit("the service did not start")
        end = time.monotonic() + ENDS_WITHIN_S
        while not _is_done(place, len(wanted)) and time.monotonic() < end:
            await _load(url, _sent(wanted, rng, known), known)
            await asyncio.sleep(0.2)
        child.terminate()
        await asyncio.to_thread(child.join, 60)


@asynccontextmanager
async def _serving(place: Place) -> AsyncIterator[tuple[BaseProcess, str]]:
    """A service that starts, and its address; it is gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--store", place.store, "--recipes", "recipes", "--station", "line-1"]
    command = ["serve", *flags, f"--port={port}"]
    child = CONTEXT.Process(target=run, args=(place.folder, SCRIPTED, command))
    child.start()
    try:
        yield child, f"http://127.0.0.1:{port}"
    finally:
        child.kill()
        child.join()


async def _load_once_ready(child: BaseProcess, url: str, numbers: list[int], known: Known) -> None:
    if await _is_ready(child, url):
        await _load(url, numbers, known)


async def _is_ready(child: BaseProcess, url: str) -> bool:
    """Wait until the service answers; whether it does, or has ended before."""
    end = time.monotonic() + STARTS_WITHIN_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < end and child.is_alive():
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return True
            await asyncio.sleep(0.05)
    return False


def _sent(wanted: range, rng: random.Random, known: Known) -> list[int]:
    """The parts that are not answered yet, and some of the others, in any order."""
    numbers = [n for n in wanted if n not in known.accepted or rng.random() < AGAIN]
    rng.shuffle(numbers)
    return numbers


async def _load(url: str, numbers: list[int], known: Known) -> None:
    """Several clients post, one decides, until all is sent or the service is gone."""
    left = iter(numbers)
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60, trust_env=False) as client:
        posting = [_post(client, left, known) for _ in range(CLIENTS)]
        await asyncio.gather(*posting, _decide(client, known))


async def _post(client: httpx.AsyncClient, left: Iterator[int], known: Known) -> None:
    for number in left:
        said: dict[str, Any] = {
            "data": {"recipe": "screw_bag", "part_id": f"part-{number}"},
            "files": {"image": ("part.png", _png(number), "image/png")},
            "headers": {"Idempotency-Key": f"key-{number}"},
        }
        try:
            answer = await client.post("/inspections", **said)
            while answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                answer = await client.post("/inspections", **said)
        except httpx.TransportError:
            return
        if answer.status_code in (201, 202):
            known.accept(number, answer.json()["id"])
        else:
            known.faults.append(("broken", f"part {number}: {answer.status_code} {answer.text}"))


async def _decide(client: httpx.AsyncClient, known: Known) -> None:
    """Decide all that waits, half of it one way."""
    try:
        waiting = (await client.get("/reviews", params={"decided": False, "limit": 500})).json()
        for review in waiting["items"]:
            said = {"finding": "nonconforming", "disposition": "scrap", "comment": "seen"}
            answer = await client.post(f"/reviews/{review['id']}/decision", json=said)
            if answer.status_code == 200:
                known.decided.add(review["id"])
    except httpx.TransportError:
        return


def _png(number: int) -> bytes:
    file = BytesIO()
    part("killed", number).save(file, "PNG")
    return file.getvalue()


def _is_done(place: Place, parts: int) -> bool:
    with open_store(place.store) as audit:
        return not _unfinished(audit, parts)


def _kept(audit: AuditStore, known: Known) -> list[Fault]:
    """What is wrong with what was answered before."""
    faults = [("broken", str(fault)) for fault in audit.verify_chain().faults]
    for number, inspection_id in known.accepted.items():
        try:
            audit.inspection(inspection_id)
        except NotFound:
            faults.append(("lost", f"part {number}: inspection {inspection_id}"))
    for review_id in known.decided:
        try:
            if audit.review(review_id).decision is None:
                faults.append(("lost", f"the decision about review {review_id}"))
        except NotFound:
            faults.append(("lost", f"review {review_id}"))
    return [*faults, *twice(audit)]


def _unfinished(audit: AuditStore, parts: int) -> list[Fault]:
    """What is missing when all has come to its end: every part has its one result for good."""
    found = Counter(one.intake.part_id for one in audit.inspections())
    faults = [("lost", f"part-{n}") for n in range(parts) if f"part-{n}" not in found]
    faults += [("twice", f"{name}: {n} inspections") for name, n in found.items() if n > 1]
    closed = {one.id: one.closed_at for one in audit.inspections()}
    faults += [("stuck", f"inspection {one}") for one, at in closed.items() if at is None]
    waiting = audit.reviews(ReviewFilter(decided=False))
    return [*faults, *(("stuck", f"review {review.id}") for review in waiting)]
