"""The scene `watch` of `benchmarks.kill`: a hot folder, its receiver away half of the time.

Pictures are dropped into the folder while `lad-agent watch` starts, works and is killed; the
webhook's receiver comes and goes. After every kill the chains must be whole. After the last one
everything must come to its end: every picture moved, inspected once, and told of in order, at least
once.
"""

import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.child import SCRIPTED, run
from benchmarks.scene import CONTEXT, Fault, Place, Tally
from lad_agent.errors import StoreError
from lad_agent.store import AuditStore, open_store, outbox
from tests.outbox.receiver import SECRET, Receiver, receiving
from tests.scripted import write_parts, write_recipe

PARTS = 8
"""New ones for every start."""
WINDOW_S = 2.0
"""How long a watch that has started may live."""
ENDS_WITHIN_S = 300.0

Environment = dict[str, str]


def play(place: Place, kills: int, rng: random.Random) -> Tally:
    """Kill the watch so often in an empty place, then let it finish."""
    folder, tally, received = place.folder, Tally(), Receiver()
    write_recipe(folder / "hot", audit_rate=0.2)
    pictures = write_parts(folder / "camera", PARTS * (kills + 1))
    with receiving(Receiver()) as found:
        port = int(found.url.split(":")[2].partition("/")[0])
    told = {"LAD_AGENT_WEBHOOK_URL": found.url, "LAD_AGENT_WEBHOOK_SECRET": SECRET}
    environment = {**os.environ, **told}
    begin = time.monotonic()
    _finish(place, environment, pictures[:PARTS], received, port)
    window_s = WINDOW_S + time.monotonic() - begin  # as long as it takes to start
    for number in range(1, kills + 1):
        dropped = pictures[number * PARTS : (number + 1) * PARTS]
        with ExitStack() as stack:
            if rng.random() < 0.5:
                stack.enter_context(receiving(received, port))
            child = stack.enter_context(_watching(place, environment))
            camera = threading.Thread(target=_drop, args=(dropped, folder / "hot", rng))
            camera.start()
            time.sleep(rng.uniform(0, window_s))
            tally.kills += 1
            tally.midst += child.is_alive()
            child.kill()
            camera.join()
        with open_store(place.store) as audit:
            tally.faults += [("broken", str(fault)) for fault in audit.verify_chain().faults]
    _finish(place, environment, [], received, port)
    tally.faults += _faults(place, len(pictures), received)
    return tally


def _finish(
    place: Place, environment: Environment, pictures: list[Path], received: Receiver, port: int
) -> None:
    """Let it work until nothing is left to do."""
    with receiving(received, port), _watching(place, environment) as child:
        _drop(pictures, place.folder / "hot", random.Random(0))
        end = time.monotonic() + ENDS_WITHIN_S
        while not _is_done(place) and child.is_alive() and time.monotonic() < end:
            time.sleep(0.2)
        child.terminate()
        child.join(60)


@contextmanager
def _watching(place: Place, environment: Environment) -> Iterator[BaseProcess]:
    command = ["watch", "hot", "--store", place.store, "--settle", "0.1", "--station", "line-1"]
    child = CONTEXT.Process(target=_run, args=(place.folder, command, environment))
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def _run(folder: Path, command: list[str], environment: Environment) -> None:
    # The server that forks the children has the environment of its own start.
    os.environ.update(environment)
    run(folder, SCRIPTED, command)


def _drop(pictures: list[Path], hot: Path, rng: random.Random) -> None:
    """As a camera does: in pieces, or at once."""
    for picture in pictures:
        target = hot / picture.name
        if rng.random() < 0.5:
            shutil.copy(picture, target)
        else:
            content = picture.read_bytes()
            with target.open("wb") as file:
                file.write(content[: len(content) // 2])
                file.flush()
                time.sleep(0.05)
                file.write(content[len(content) // 2 :])
        time.sleep(0.02)


def _is_done(place: Place) -> bool:
    if any((place.folder / "hot").glob("part-*.png")):
        return False
    try:
        with open_store(place.store, create=False) as audit:
            return not _waiting(audit) and audit.count() > 0
    except StoreError:
        return False  # the child is making it


def _waiting(audit: AuditStore) -> int:
    return sum(state.waiting for state in audit.ask(outbox.sinks))


def _faults(place: Place, wanted: int, received: Receiver) -> list[Fault]:
    """What is wrong when all has come to its end."""
    with open_store(place.store) as audit:
        faults = [("broken", str(fault)) for fault in audit.verify_chain().faults]
        found = audit.inspections()
        waiting = _waiting(audit)
        messages = audit.ask(
            lambda session: outbox.messages(session, everything=True, limit=10 * wanted)
        )
    names = Counter(one.intake.part_id for one in found)
    faults += [("twice", f"{name}: {n} inspections") for name, n in names.items() if n > 1]
    faults += [("stuck", f"{one.intake.part_id} is open") for one in found if one.outcome is None]
    if len(names) != wanted:
        faults.append(("lost", f"{wanted - len(names)} of {wanted} pictures"))
    hot = place.folder / "hot"
    moved = sum(len(list((hot / name).glob("*.png"))) for name in ("done", "review"))
    if moved != wanted:
        faults.append(("stuck", f"{wanted - moved} files were not moved"))
    if waiting:
        faults.append(("stuck", f"{waiting} messages wait"))
    heard = {one.id for one in received.got}
    faults += [("lost", f"message {one.id}") for one in messages if one.id not in heard]
    for part, story in received.stories().items():
        if story != sorted(story):
            faults.append(("broken", f"{part}: told in the order {story}"))
    return faults
