"""Posts to `lad-agent serve` at a fixed concurrency, beside the bare reasoner, in one run.

    python -m benchmarks.load [--posts 1000] [--concurrency 32] [--reasoner pocket] [--once]

The reasoner alone is asked about all pictures, so many at a time; a service of its own process is
sent the same pictures as forms, and waited for, by as many clients. Both take turns, a block of
pictures each, so that whatever else the machine does meets both alike. Latencies run from the
question, or the first byte sent, to the answer; the service's are those of recorded results. With
`--once` no more rationales are drawn where the first one is in doubt: the reasoner is faster, and
the service's share of the time greater. Exit code 1 if a post was refused, or the store does not
hold each part once.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np

from lad_agent import images, recipe
from lad_agent.reasoners import Question, open_reasoner
from lad_agent.store import InspectionFilter, open_store

PRODUCT = "screw_bag"
WAIT_S = 60
BLOCK = 200
"""So many pictures one way, then the other way."""

Ask = Callable[[Path], Awaitable[object]]


def main() -> None:
    """Print a row for each way; exits with 1 if anything was refused, lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posts", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--reasoner", default="pocket")
    parser.add_argument("--once", action="store_true", help="one rationale a part")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lad-load-") as name:
        root = Path(name)
        _lad_agent("synth", str(root), "--product", PRODUCT, "--count", str(chosen.posts))
        if chosen.once:
            _draw_once(root / PRODUCT / "recipe.yaml")
        files = sorted((root / PRODUCT / "test").rglob("*.png"))
        rows = asyncio.run(_by_turns(chosen, root, files))
        with open_store(root / "audit.db", create=False) as audit:
            kept = audit.count(InspectionFilter(complete=True))
    print("| way | posts | at once | per s | p50 ms | p95 ms | p99 ms | max ms |")
    print("|---|---|---|---|---|---|---|---|")
    for way, took, seconds in rows:
        quantiles = np.quantile(np.array(seconds) * 1e3, (0.5, 0.95, 0.99, 1.0))
        shown = " | ".join(f"{one:.0f}" for one in quantiles)
        rate = len(seconds) / took
        print(f"| {way} | {len(seconds)} | {chosen.concurrency} | {rate:.1f} | {shown} |")
    bare, served = (sorted(seconds)[len(seconds) // 2] for _, _, seconds in rows)
    print(f"\nthe service's median is {served / bare:.2f} times the reasoner's")
    if kept != len(files):
        sys.exit(f"{kept} of {len(files)} parts are recorded")


def _draw_once(file: Path) -> None:
    said = file.read_text()
    once = re.sub(r"sample_below: [\d.]+", "sample_below: 0", said)
    assert once != said
    file.write_text(once)


async def _by_turns(
    chosen: argparse.Namespace, root: Path, files: Sequence[Path]
) -> list[tuple[str, float, list[float]]]:
    """Each way: its name, how long all took, and each."""
    async with (
        _bare(chosen, root / PRODUCT, files) as judge,
        _served(chosen, root) as post,
    ):
        ways = {"the reasoner alone": judge, "POST /inspections?wait": post}
        took = dict.fromkeys(ways, 0.0)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for begin in range(0, len(files), BLOCK):
            for way, ask in ways.items():
                block = files[begin : begin + BLOCK]
                lasted, each = await _together(chosen.concurrency, block, ask)
                took[way] += lasted
                seconds[way] += each
    return [(way, took[way], seconds[way]) for way in ways]


@asynccontextmanager
async def _bare(
    chosen: argparse.Namespace, folder: Path, files: Sequence[Path]
) -> AsyncIterator[Ask]:
    """The reasoner, asked about a picture that was read before."""
    task = recipe.load(folder / "recipe.yaml")
    questions = {
        file: Question(
            task,
            images.prepare(images.read(file).image, task.region, task.image_size),
            images.file_sha256(file),
        )
        for file in files
    }
    reasoner = open_reasoner(chosen.reasoner)
    try:
        await reasoner.judge(questions[files[0]])
        yield lambda file: reasoner.judge(questions[file])
    finally:
        await reasoner.aclose()


@asynccontextmanager
async def _served(chosen: argparse.Namespace, root: Path) -> AsyncIterator[Ask]:
    """The service, sent a picture."""
    async with _serving(root, chosen.reasoner) as url:
        limits = httpx.Limits(max_connections=chosen.concurrency)
        async with httpx.AsyncClient(
            base_url=url, timeout=2 * WAIT_S, limits=limits, trust_env=False
        ) as client:

            async def post(file: Path) -> None:
                answer = await client.post(
                    "/api/v1/inspections",
                    params={"wait": WAIT_S},
                    data={"recipe": PRODUCT, "part_id": file.relative_to(root).as_posix()},
                    files={"image": (file.name, file.read_bytes(), "image/png")},
                )
                if answer.status_code != 201:
                    sys.exit(f"{file.name}: {answer.status_code} {answer.text}")

            await client.get("/readyz")
            yield post


@asynccontextmanager
async def _serving(root: Path, reasoner: str) -> AsyncIterator[str]:
    """`lad-agent serve` with the recipe of the pictures, and its address."""
    command = [_program(), "serve", "--store", "audit.db", "--port", "0", "--reasoner", reasoner]
    process = await asyncio.create_subprocess_exec(
        *command, "--recipes", PRODUCT, cwd=root, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = b""
        while line := await process.stderr.readline():
            said += line
            if found := re.search(rb"http://\S+", line):
                yield found[0].decode()
                return
        sys.exit(f"the service did not start:\n{said.decode()}")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _together(concurrency: int, files: Sequence[Path], ask: Ask) -> tuple[float, list[float]]:
    """Ask about the files, so many at a time; seconds for all of it, and for each."""
    left = iter(files)
    seconds: list[float] = []

    async def worker() -> None:
        for file in left:
            begin = time.perf_counter()
            await ask(file)
            seconds.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - begin, seconds


def _lad_agent(*arguments: str) -> None:
    subprocess.run([_program(), *arguments], check=True, capture_output=True)


def _program() -> str:
    return str(Path(sys.executable).with_name("lad-agent"))


if __name__ == "__main__":
    main()
