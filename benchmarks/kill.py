"""SIGKILL at random moments of real work: nothing lost, nothing twice, chain whole, nobody stuck.

    python -m benchmarks.kill [--kills 200] [--scenes inspect review ...]
                              [--databases sqlite postgresql] [--reasoner pocket] [--parts 120]
                              [--seed N]

A child runs lad-agent's own commands, which judge, decide, migrate, back up, export or archive, and
is killed. Then all that the ledger held before, and all that the child had said to be done, must be
there, once (in the store, or in an archive that it names); every chain must be whole, and every
table what the events say. After some kills the same commands run to their end, and everything must
be as if there had been no kill. `watch` and `serve` are killed under load: their modules say what
holds there. Prints a row a scene; exit code 1 if anything was wrong.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

from sqlalchemy import text

from benchmarks import kill_serve, kill_watch
from benchmarks.child import READY, SCRIPTED, Command, run, work
from benchmarks.scene import CONTEXT, KINDS, Fault, Place, Tally, twice
from lad_agent.errors import StoreError
from lad_agent.store import (
    AuditStore,
    Inspected,
    ReviewFilter,
    models,
    open_store,
    projections,
    schema,
)
from lad_agent.store.archive import verify_with
from tests.scripted import write_parts, write_recipe
from tests.store import server as servers

MOST_KILLS = 4
"""Between one beginning and the run to the end."""

Ledger = dict[int, str]


@dataclass(frozen=True)
class Scene:
    """What is killed: `commands`, told anew at each start, on the store that `begin` leaves.

    `killed` finds what is wrong with the work of those that had been done; `ended` tells what is
    left to do when all of them have.
    """

    begin: Callable[[Place], list[Command]]
    commands: Callable[[Place, random.Random], list[Command]]
    killed: Callable[[Place, list[Command]], list[Fault]]
    ended: Callable[[Place], list[Command]]


def main() -> None:
    """Play the scenes; exits with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="Of each database, all scenes.")
    scenes = [*SCENES, *UNDER_LOAD]
    parser.add_argument("--scenes", nargs="+", choices=scenes, default=scenes)
    databases = ["sqlite", "postgresql"]
    parser.add_argument("--databases", nargs="+", choices=databases, default=databases[:1])
    parser.add_argument("--reasoner", default=SCRIPTED)
    parser.add_argument("--parts", type=int, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    CONTEXT.set_forkserver_preload(["benchmarks.child", "lad_agent.service.app"])
    os.environ["LAD_AGENT_IN_FLIGHT"] = "8"  # more commits to be killed in
    forkserver.ensure_running()
    rng = random.Random(chosen.seed)
    begin, faults = time.monotonic(), 0
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lad-kill-")))
        parts = root / "parts"
        write_recipe(parts, audit_rate=0.2)
        write_parts(parts, chosen.parts)
        print(f"seed {chosen.seed}, {chosen.parts} parts\n")
        print(f"| database | killed in | kills | at work | {' | '.join(KINDS)} |")
        print("|---|---|" + "---|" * (2 + len(KINDS)), flush=True)
        for database in chosen.databases:
            server = _server(stack) if database == "postgresql" else None
            (root / database).mkdir()
            for number, name in enumerate(chosen.scenes):
                share = (chosen.kills + number) // len(chosen.scenes)
                stage = _Stage(name, root / database, parts, server, chosen.reasoner, rng)
                tally = stage.play(share)
                found = Counter(kind for kind, _ in tally.faults)
                counts = [tally.kills, tally.midst, *(found[kind] for kind in KINDS)]
                print(f"| {database} | {name} | {' | '.join(map(str, counts))} |", flush=True)
                for kind, what in tally.faults:
                    print(f"{database}, {name}: {kind}: {what}", file=sys.stderr)
                faults += len(tally.faults)
    print(f"\n{time.monotonic() - begin:.0f} s")
    sys.exit(faults > 0)


def _server(stack: ExitStack) -> str:
    if (programs := servers.programs()) is None:
        sys.exit(servers.MISSING)
    return stack.enter_context(servers.running(programs, durable=True))


class _Stage:
    """Plays one scene on one database."""

    def __init__(
        self,
        name: str,
        root: Path,
        parts: Path,
        server: str | None,
        reasoner: str,
        rng: random.Random,
    ) -> None:
        self._name, self._root, self._parts = name, root, parts
        self._server, self._reasoner, self._rng = server, reasoner, rng
        self._copies = 0

    def play(self, kills: int) -> Tally:
        first = self._place(f"{self._name}_0")
        if self._name in UNDER_LOAD:
            return UNDER_LOAD[self._name](first, kills, self._rng)
        self._scene, tally = SCENES[self._name], Tally()
        self._run(first, self._scene.begin(first))
        trial = self._copied(first)
        commands = self._scene.commands(trial, self._rng)
        begin = time.monotonic()
        self._run(trial, commands)
        window = time.monotonic() - begin
        while tally.kills < kills:
            place = self._copied(first)
            for _ in range(min(MOST_KILLS, kills - tally.kills)):
                self._kill_once(place, window, tally)
            self._run(place, self._scene.commands(place, self._rng))
            self._run(place, self._scene.ended(place))
            tally.faults += [*_whole(place, {}), *_unfinished(place)]
            shutil.rmtree(place.folder)
        return tally

    def _kill_once(self, place: Place, window: float, tally: Tally) -> None:
        commands = self._scene.commands(place, self._rng)
        heard, said = CONTEXT.Pipe(duplex=False)
        child = CONTEXT.Process(target=work, args=(place.folder, self._reasoner, commands, said))
        child.start()
        said.close()
        told = [heard.recv()]
        moment = self._rng.uniform(0, window)
        deadline = time.monotonic() + moment
        time.sleep(self._rng.uniform(0, moment))
        before = _ledger(place)
        time.sleep(max(0.0, deadline - time.monotonic()))
        tally.kills += 1
        tally.midst += child.is_alive()
        child.kill()
        child.join()
        while True:
            try:
                told.append(heard.recv())
            except EOFError:
                break
        last = told[-1]
        if isinstance(last, str) and last != READY:
            tally.faults.append(("broken", last))
        done = commands[: max(one for one in (0, *told) if isinstance(one, int))]
        tally.faults += [*_whole(place, before), *self._scene.killed(place, done)]

    def _run(self, place: Place, commands: list[Command]) -> None:
        for command in commands:
            run(place.folder, self._reasoner, command)

    def _place(self, name: str) -> Place:
        folder = self._root / name
        folder.mkdir()
        if self._server is not None:
            servers.administer(self._server, f"CREATE DATABASE {name}")
        return self._at(folder)

    def _copied(self, place: Place) -> Place:
        self._copies += 1
        name = f"{self._name}_{self._copies}"
        shutil.copytree(place.folder, self._root / name)
        if self._server is not None:
            template = place.folder.name
            servers.administer(self._server, f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._at(self._root / name)

    def _at(self, folder: Path) -> Place:
        store = str(folder / "audit.db")
        if self._server is not None:
            store = f"postgresql://postgres@/{folder.name}?host={self._server}"
        return Place(folder, store, self._parts)


# --- what holds after every kill ------------------------------------------------------------------


def _whole(place: Place, before: Ledger) -> list[Fault]:
    """What is wrong with the ledger and its tables, which held the events `before` at the kill."""
    faults = []
    with open_store(place.store, older=True) as audit:
        if audit.schema_version == models.SCHEMA_VERSION:
            archives = _archives(place)
            if gone := [("lost", file.name) for file in archives if not file.exists()]:
                return gone
            report = verify_with(audit, archives)
            faults += [("broken", str(fault)) for fault in report.faults]
            faults += [("broken", f"table {name}") for name in audit.changed_tables()]
        faults += twice(audit)
    after = _ledger(place)
    faults += [("lost", f"event {seq}") for seq in before if after.get(seq) != before[seq]]
    return faults


def _unfinished(place: Place) -> list[Fault]:
    """What is missing when all has come to its end: every part has its one result for good."""
    with open_store(place.store) as audit:
        waiting = audit.reviews(ReviewFilter(decided=False))
    found = _inspections(place)
    images = Counter(one.intake.image for one in found)
    wanted = {str(path) for path in place.parts.glob("part-*.png")}
    faults = [("lost", f"{image}: no inspection") for image in wanted - set(images)]
    faults += [("twice", f"{image}: {n} inspections") for image, n in images.items() if n > 1]
    faults += [("stuck", f"inspection {one.id} is open") for one in found if one.closed_at is None]
    faults += [("stuck", f"review {review.id} is open") for review in waiting]
    return faults


def _ledger(place: Place) -> Ledger:
    """All events by number, each as its hash; none where no store is yet."""
    found: Ledger = {}
    for value in _stores(place):
        with suppress(StoreError), open_store(value, create=False, older=True) as audit:
            found |= _events(audit)
    return found


def _inspections(place: Place) -> list[Inspected]:
    """All of them, as they stand: what an archive left open goes on in the store."""
    found: dict[str, Inspected] = {}
    for value in _stores(place):
        with open_store(value) as audit:
            found |= {one.id: one for one in audit.inspections()}
    return list(found.values())


def _stores(place: Place) -> list[str | Path]:
    """The archives and what came after them."""
    return [*_archives(place), place.store]


def _archives(place: Place) -> list[Path]:
    """The archives that the store names, the oldest first; a file that it does not name is none."""
    found: list[Path] = []
    value: str | Path = place.store
    while (name := _last_archive(value)) is not None:
        value = place.folder / name
        found.insert(0, value)
    return found


def _last_archive(value: str | Path) -> str | None:
    try:
        with open_store(value, create=False, older=True) as audit:
            found: str | None = audit.ask(lambda session: session.scalar(_LAST_ARCHIVE))
            return found
    except StoreError:
        return None


def _events(audit: AuditStore) -> Ledger:
    return audit.ask(
        lambda session: {row.seq: row.hash for row in session.execute(_ALL_EVENTS).all()}
    )


_LAST_ARCHIVE = text("SELECT file FROM archives ORDER BY seq DESC LIMIT 1")
_ALL_EVENTS = text("SELECT seq, hash FROM events")


# --- the scenes -----------------------------------------------------------------------------------


def _inspect(place: Place) -> list[Command]:
    return [_inspection_of(place, [place.parts])]


def _inspection_of(place: Place, paths: list[Path]) -> Command:
    out = place.folder / "results.jsonl"
    return ["inspect", *map(str, paths), "--store", place.store, "--out", str(out)]


def _decide(place: Place) -> list[Command]:
    """A person's word on every part that waits for one."""
    with open_store(place.store) as audit:
        waiting = audit.reviews(ReviewFilter(decided=False))
    word = ["--finding", "nonconforming", "--disposition", "scrap", "--comment", "seen"]
    return [
        ["review", "decide", review.id, *word, "--by", "anna", "--store", place.store]
        for review in waiting
    ]


def _decided(place: Place, done: list[Command]) -> list[Fault]:
    with open_store(place.store) as audit:
        waiting = {review.id for review in audit.reviews(ReviewFilter(decided=False))}
    return [("lost", f"the decision of {command[2]}") for command in done if command[2] in waiting]


def _settle(place: Place) -> list[Command]:
    """Whoever runs next finishes what a killed process had decided and not applied."""
    return [*_decide(place), *_inspect(place)]


def _inspected(place: Place, done: list[Command]) -> list[Fault]:
    if not done:
        return []
    lines = (place.folder / "results.jsonl").read_text().splitlines()
    wanted = len(list(place.parts.glob("part-*.png")))
    found = len({json.loads(line)["image_sha256"] for line in lines})
    return [] if found == wanted else [("lost", f"{found} of {wanted} results in the file")]


def _migrate(place: Place, rng: random.Random) -> list[Command]:
    """From any older schema to the newest; a store that is there already goes back to one."""
    with open_store(place.store, older=True) as audit:
        if audit.schema_version == models.SCHEMA_VERSION:
            older = [one for one in sorted(schema._revisions()) if one < models.SCHEMA_VERSION]
            with audit._connection(writing=True) as connection:
                schema.migrate_down(connection, rng.choice(older))
    return [["store", "migrate", "--store", place.store]]


def _migrated(place: Place, done: list[Command]) -> list[Fault]:
    with open_store(place.store, older=True) as audit:
        version = audit.schema_version
    newest = version == models.SCHEMA_VERSION
    return [] if newest or not done else [("lost", f"the migration: schema {version}")]


def _back_up(place: Place, rng: random.Random) -> list[Command]:
    """Backups, each restored as a store of its own; what a kill has cut off is done again."""
    commands = []
    for _ in range(4):
        name = f"{rng.randrange(10**9):09}"
        backup, restored = (str(place.folder / f"{what}-{name}.db") for what in ("back", "new"))
        commands.append(["store", "backup", backup, "--store", place.store])
        commands.append(["store", "restore", backup, "--store", restored])
    return commands


def _backed_up(place: Place, done: list[Command]) -> list[Fault]:
    wanted = _ledger(place)
    faults = []
    for command in done:
        made = Path(command[2] if command[1] == "backup" else command[-1])
        if not made.exists():
            faults.append(("lost", made.name))
    for file in place.folder.glob("back-*.db"):
        faults += _copy_faults(file, [wanted])
    restored = {Path(command[-1]) for command in done if command[1] == "restore"}
    for file in place.folder.glob("new-*.db"):
        # Cut off, it is empty and can be restored into again.
        faults += _copy_faults(file, [wanted] if file in restored else [wanted, {}])
        file.unlink()
    return faults


def _copy_faults(file: Path, wanted: list[Ledger]) -> list[Fault]:
    with open_store(file) as copy:
        if not copy.verify_chain().intact:
            return [("broken", file.name)]
        return [] if _events(copy) in wanted else [("lost", f"events in {file.name}")]


def _export(place: Place, _rng: random.Random) -> list[Command]:
    suffixes = (".csv", ".jsonl", ".parquet", ".json")
    return [
        ["audit", "export", str(place.folder / f"out{suffix}"), "--store", place.store]
        for suffix in suffixes * 3
    ]


def _exported(place: Place, done: list[Command]) -> list[Fault]:
    """A file that is there is whole, and the ledger knows that it left the house."""
    with open_store(place.store) as audit:
        told = audit.ask(lambda session: session.scalars(_EXPORTED).all())
    known = {json.loads(canonical)["payload"]["sha256"] for canonical in told}
    faults = [("lost", command[2]) for command in done if not Path(command[2]).exists()]
    for file in place.folder.glob("out.*"):
        if file.suffix != ".part" and hashlib.sha256(file.read_bytes()).hexdigest() not in known:
            faults.append(("broken", f"{file.name} is in no event"))
    return faults


def _keep(place: Place) -> list[Command]:
    """A key, and the first half of the parts."""
    key = ["audit", "keygen", str(place.folder / "archiver.key")]
    return [key, _inspection_of(place, sorted(place.parts.glob("part-*.png"))[::2])]


def _archive(place: Place, _rng: random.Random) -> list[Command]:
    """What is finished moves away, again and again, while the other parts are inspected."""
    done = {one.intake.image for one in _inspections(place) if one.recorded_at is not None}
    left = sorted(path for path in place.parts.glob("part-*.png") if str(path) not in done)
    first = len(_archives(place))
    key = ["--signing-key", str(place.folder / "archiver.key"), "--store", place.store]
    commands: list[Command] = []
    for number in range(3):
        more = left[number::3]
        commands.append(_inspection_of(place, more) if more else ["audit", "head", *key])
        file = place.folder / f"archive-{first + number}.db"
        commands.append(["store", "archive", str(file), "--before", "0m", *key])
    return commands


def _archived(place: Place, done: list[Command]) -> list[Fault]:
    named = {str(file) for file in _archives(place)}
    files = [command[2] for command in done if command[1] == "archive"]
    return [("lost", f"the archive {file}") for file in files if file not in named]


_EXPORTED = text(f"SELECT canonical FROM events WHERE type = '{projections.EXPORTED}'")

SCENES = {
    "inspect": Scene(lambda _: [], lambda place, _: _inspect(place), _inspected, _settle),
    "review": Scene(_inspect, lambda place, _: _decide(place), _decided, _settle),
    "migration": Scene(_inspect, _migrate, _migrated, _settle),
    "backup": Scene(_inspect, _back_up, _backed_up, _settle),
    "export": Scene(_inspect, _export, _exported, _settle),
    "archive": Scene(_keep, _archive, _archived, _decide),
}

UNDER_LOAD: dict[str, Callable[[Place, int, random.Random], Tally]] = {
    "watch": kill_watch.play,
    "serve": kill_serve.play,
}


if __name__ == "__main__":
    main()
