"""How questions, file and verification grow with the store: one table over several sizes.

    python -m benchmarks.growth [--inspections 10000 100000 1000000] [--repeat 20] [--keep FOLDER]
                                [--cpu] [--rebuild]

Prints p50 and p95 of every question of `benchmarks.store` at each size, and how many times the
smallest's p95 the largest takes. Bold is what misses its goal: 50 ms, and 500 ms for statistics.
Stores are filled through the store's own writing path; with --keep they stay in FOLDER, and are
asked again without filling them anew. A million take 5.6 GB there and half an hour of one core;
with --rebuild all tables are made anew from the ledger too, ten minutes more.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.store import Measured, clock, measured

GOAL_MS, STATS_GOAL_MS = 50.0, 500.0


def main() -> None:
    """Fill, ask and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--inspections", type=int, nargs="+", default=sizes)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="A folder for the filled stores.")
    parser.add_argument("--cpu", action="store_true", help="Count the processor's time alone.")
    parser.add_argument("--rebuild", action="store_true", help="Time that of all tables too.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as other:
        folder = chosen.keep or Path(other)
        folder.mkdir(parents=True, exist_ok=True)
        found = [
            measured(
                folder / f"{count}.db",
                count,
                chosen.repeat,
                clock(cpu=chosen.cpu),
                rebuild=chosen.rebuild,
            )
            for count in sorted(chosen.inspections)
        ]
    _print(found)


def _print(found: list[Measured]) -> None:
    heads = [f"{one.inspections:,}".replace(",", " ") for one in found]
    print(f"| p50 / p95 in ms at | {' | '.join(heads)} | times |")
    print("|---|" + "---|" * (len(found) + 1))
    for name in found[0].asked:
        goal = STATS_GOAL_MS if name.startswith("stats") else GOAL_MS
        asked = [one.asked[name] for one in found]
        cells = [f"{one.p50:.1f} / {_bold(one.p95, goal)}" for one in asked]
        print(f"| {name} | {' | '.join(cells)} | {asked[-1].p95 / asked[0].p95:.1f} |")
    rows = {
        "bytes an inspection": [one.size / one.inspections for one in found],
        "seconds to verify": [one.verify_s for one in found],
        "events verified a second": [one.events / one.verify_s for one in found],
        "MB of memory at most": [one.peak_mb for one in found],
    }
    if rebuilt := [one.rebuild_s for one in found if one.rebuild_s is not None]:
        rows["seconds to rebuild"] = rebuilt
    for name, values in rows.items():
        cells = [f"{value:.0f}" if value >= 10 else f"{value:.2f}" for value in values]
        print(f"| {name} | {' | '.join(cells)} | {values[-1] / values[0]:.1f} |")


def _bold(ms: float, goal: float) -> str:
    return f"**{ms:.1f}**" if ms > goal else f"{ms:.1f}"


if __name__ == "__main__":
    main()
