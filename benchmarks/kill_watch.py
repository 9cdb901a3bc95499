"""SIGKILL of `lad-agent watch` at random moments, with its receiver away half of the time.

    python -m benchmarks.kill_watch [--kills 20] [--parts 8] [--window 2.0] [--seed N]

Pictures are dropped into the hot folder while it starts, works and is killed; the webhook's
receiver comes and goes. After every kill the chains must be whole. After the last one everything
must come to its end: every picture moved, inspected once, and told of in order, at least once.
Prints a row; exit code 1 if anything was wrong.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.child import SCRIPTED, run
from benchmarks.kill_serve import CONTEXT, KINDS, Fault
from lad_agent.errors import StoreError
from lad_agent.store import AuditStore, open_store, outbox
from tests.outbox.receiver import SECRET, Receiver, receiving
from tests.scripted import write_parts, write_recipe

ENDS_WITHIN_S = 300.0


def main() -> None:
    """Kill and finish; exits with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parts", type=int, default=8, help="New ones for every start.")
    parser.add_argument("--window", type=float, default=2.0, help="Seconds that it may live.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lad-kill-") as name:
        faults = kill_watch(
            Path(name), chosen.kills, chosen.parts, chosen.window, rng, told=_print_now
        )
    counts = Counter(kind for kind, _ in faults)
    print(f"\n| killed in | kills | {' | '.join(KINDS)} |\n|---|{'---|' * (1 + len(KINDS))}")
    print(f"| watch | {chosen.kills} | {' | '.join(str(counts[kind]) for kind in KINDS)} |")
    print(f"\nseed {chosen.seed}, {time.monotonic() - begin:.0f} s")
    for kind, what in faults:
        print(f"{kind}: {what}", file=sys.stderr)
    sys.exit(bool(faults))


def kill_watch(
    folder: Path,
    kills: int,
    parts: int,
    window_s: float,
    rng: random.Random,
    told: Callable[[str], None] = lambda _: None,
) -> list[Fault]:
    """Kill the watch so often in an empty `folder`, then let it finish; what was wrong."""
    CONTEXT.set_forkserver_preload(["benchmarks.child"])
    write_recipe(folder / "hot", audit_rate=0.2)
    pictures = write_parts(folder / "camera", parts * (kills + 1))
    faults: list[Fault] = []
    received = Receiver()
    with receiving(Receiver()) as found:
        port = int(found.url.split(":")[2].partition("/")[0])
    os.environ["LAD_AGENT_WEBHOOK_URL"] = found.url
    os.environ["LAD_AGENT_WEBHOOK_SECRET"] = SECRET
    begin = time.monotonic()
    _finish(folder, pictures[:parts], received, port)
    window_s += time.monotonic() - begin  # as long as it takes to start
    for number in range(1, kills + 1):
        dropped = pictures[number * parts : (number + 1) * parts]
        with ExitStack() as stack:
            if rng.random() < 0.5:
                stack.enter_context(receiving(received, port))
            child = stack.enter_context(_watching(folder))
            camera = threading.Thread(target=_drop, args=(dropped, folder / "hot", rng))
            camera.start()
            time.sleep(rng.uniform(0, window_s))
            child.kill()
            camera.join()
        with open_store(folder / "audit.db") as audit:
            faults += [("broken", str(fault)) for fault in audit.verify_chain().faults]
            state = f"{audit.count()} inspections, {_waiting(audit)} messages wait"
        told(f"kill {number}: {state}, {len(received.got)} received")
    _finish(folder, [], received, port)
    return [*faults, *_faults(folder, len(pictures), received)]


def _finish(folder: Path, pictures: list[Path], received: Receiver, port: int) -> None:
    """Let it work until nothing is left to do."""
    with receiving(received, port), _watching(folder) as child:
        _drop(pictures, folder / "hot", random.Random(0))
        end = time.monotonic() + ENDS_WITHIN_S
        while not _is_done(folder) and child.is_alive() and time.monotonic() < end:
            time.sleep(0.2)
        child.terminate()
        child.join(60)


@contextmanager
def _watching(folder: Path) -> Iterator[BaseProcess]:
    command = ["watch", "hot", "--store", "audit.db", "--settle", "0.1", "--station", "line-1"]
    child = CONTEXT.Process(target=_run, args=(folder, command, dict(os.environ)))
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def _run(folder: Path, command: list[str], environment: dict[str, str]) -> None:
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


def _is_done(folder: Path) -> bool:
    if any((folder / "hot").glob("part-*.png")):
        return False
    try:
        with open_store(folder / "audit.db", create=False) as audit:
            return not _waiting(audit) and audit.count() > 0
    except StoreError:
        return False  # the child is making it


def _waiting(audit: AuditStore) -> int:
    return sum(state.waiting for state in audit.ask(outbox.sinks))


def _faults(folder: Path, wanted: int, received: Receiver) -> list[Fault]:
    """What is wrong when all has come to its end."""
    with open_store(folder / "audit.db") as audit:
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
    moved = sum(len(list((folder / "hot" / place).glob("*.png"))) for place in ("done", "review"))
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


def _print_now(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
