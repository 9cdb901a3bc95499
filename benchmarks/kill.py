"""Ten SIGKILLs at random moments of a 200-image batch, then one run to the end.

    python -m benchmarks.kill [--parts 200] [--kills 10] [--reasoner pocket] [--seed N]

Prints a line a kill and ends with exit code 1 if a part is missing, or recorded twice.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lad_agent.recipe import SHIPPED
from lad_agent.store import InspectionFilter, open_store


def main() -> None:
    """Kill and finish; exits with 1 if anything is lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--reasoner", default="pocket")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = max(1, chosen.parts // len(SHIPPED))
        _run(["synth", str(folder), "--count", str(each), "--seed", str(chosen.seed)])
        print(f"seed {chosen.seed}: {each * len(SHIPPED)} images, {chosen.kills} kills", flush=True)
        command = _inspect(folder, chosen.reasoner)
        for number in range(1, chosen.kills + 1):
            told = _kill_once(command, folder / "audit.db", rng)
            print(f"kill {number:2}: {told}", flush=True)
        begin = time.monotonic()
        _run(command)
        print(f"last run: {time.monotonic() - begin:.1f} s")
        faults = _faults(folder / "audit.db", each * len(SHIPPED))
    print("\n".join(faults) or f"{each * len(SHIPPED)} inspections, each once")
    sys.exit(bool(faults))


def _inspect(folder: Path, reasoner: str) -> list[str]:
    tests = [str(folder / product / "test") for product in SHIPPED]
    return ["inspect", *tests, "--reasoner", reasoner, "--store", str(folder / "audit.db")]


def _run(arguments: list[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "lad_agent", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _kill_once(command: list[str], store: Path, rng: random.Random) -> str:
    """Start the batch, kill it within a second and a half of its first new result."""
    before = _recorded(store)
    child = subprocess.Popen(
        [sys.executable, "-m", "lad_agent", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while child.poll() is None and _recorded(store) == before:
        time.sleep(0.05)
    time.sleep(rng.uniform(0.0, 1.5))
    ended = child.poll() is not None
    child.send_signal(signal.SIGKILL)
    child.wait()
    opened = _count(store, complete=False)
    return f"{before} -> {_recorded(store)} recorded, {opened} open{', had ended' * ended}"


def _recorded(store: Path) -> int:
    return _count(store, complete=True)


def _count(store: Path, *, complete: bool) -> int:
    if not store.exists():
        return 0
    try:
        with open_store(store, create=False) as audit:
            return audit.count(InspectionFilter(complete=complete))
    except Exception:
        # The child may be making the schema at this very moment.
        return 0


def _faults(store: Path, wanted: int) -> list[str]:
    with open_store(store, create=False) as audit:
        found = audit.inspections()
        reviews = audit.reviews()
        chain = audit.verify_chain()
    faults = [str(fault) for fault in chain.faults]
    if len(found) != wanted:
        faults.append(f"{len(found)} inspections instead of {wanted}")
    for image, times in Counter(one.intake.image for one in found).items():
        if times > 1:
            faults.append(f"{image}: {times} inspections")
    faults += [f"{one.intake.part_id}: still open" for one in found if one.outcome is None]
    for inspection_id, times in Counter(review.inspected.id for review in reviews).items():
        if times > 1:
            faults.append(f"inspection {inspection_id}: {times} reviews")
    return faults


if __name__ == "__main__":
    main()
