"""How long `lad-agent --help` takes: the whole process, median of ten runs. Goal: under 0.3 s."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS, GOAL = 10, 0.3


def main() -> None:
    command = [str(Path(sys.executable).with_name("lad-agent")), "--help"]
    subprocess.run(command, check=True, capture_output=True)
    seconds = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    print(f"lad-agent --help: median {median:.3f} s, max {max(seconds):.3f} s of {RUNS} runs")
    if median > GOAL:
        sys.exit(f"slower than {GOAL} s")


if __name__ == "__main__":
    main()
