"""The main job, end to end: pictures of five products become recorded, explained verdicts.

    python examples/demo.py [FOLDER]

Runs the same commands that a person would type, and prints them.
"""

import subprocess
import sys
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("lad-agent"))


def main(folder: Path) -> None:
    data, store, results = folder / "data", folder / "lad-agent.db", folder / "results.jsonl"
    if not data.exists():
        run("synth", str(data), "--count", "40", "--seed", "7")
    tests = sorted(str(path) for path in data.glob("*/test"))
    run("inspect", *tests, "--store", str(store), "--out", str(results))
    run("evaluate", str(results), "--truth", str(data))
    run("review", "list", "--store", str(store), "--limit", "5")
    print(f"\nresults: {results}\nstore:   {store}\nnext:    lad-agent review decide --help")


def run(*arguments: str) -> None:
    print("\n$ lad-agent " + " ".join(arguments), flush=True)
    subprocess.run([COMMAND, *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo"))
