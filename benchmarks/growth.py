"""How questions, file and verification grow with the store: one table over several sizes.

    python -m benchmarks.growth [--inspections 10000 100000 1000000] [--repeat 20] [--keep FOLDER]
                                [--cpu]

Prints the p95 of every question of `benchmarks.store` at each size, and how many times the largest
takes the smallest. Bold is what misses its goal: 50 ms, and 500 ms for statistics. Filled stores
are kept in FOLDER, and asked again without filling them anew.
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
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as other:
        folder = chosen.keep or Path(other)
        folder.mkdir(exist_ok=True)
        found = [
            measured(folder / f"{count}.db", count, chosen.repeat, clock(cpu=chosen.cpu))
            for count in sorted(chosen.inspections)
        ]
    _print(found)


def _print(found: list[Measured]) -> None:
    heads = [f"{one.inspections:,}".replace(",", " ") for one in found]
    print(f"| p95 in ms at | {' | '.join(heads)} | times |\n|---|{'---|' * (len(found) + 1)}")
    for name in found[0].asked:
        goal = STATS_GOAL_MS if name.startswith("stats") else GOAL_MS
        times = [one.asked[name].p95 for one in found]
        cells = [f"**{ms:.1f}**" if ms > goal else f"{ms:.1f}" for ms in times]
        print(f"| {name} | {' | '.join(cells)} | {times[-1] / times[0]:.1f} |")
    rows = {
        "bytes an inspection": [one.size / one.inspections for one in found],
        "seconds to verify": [one.verify_s for one in found],
        "events verified a second": [one.events / one.verify_s for one in found],
    }
    for name, values in rows.items():
        cells = [f"{value:.0f}" if value >= 10 else f"{value:.2f}" for value in values]
        print(f"| {name} | {' | '.join(cells)} | {values[-1] / values[0]:.1f} |")


if __name__ == "__main__":
    main()
