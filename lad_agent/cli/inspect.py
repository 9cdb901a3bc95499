"""`lad-agent inspect`: a batch from its files to recorded results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    import asyncio

    from lad_agent.cli.progress import Progress
    from lad_agent.graphs.runner import Done, Order, Report
    from lad_agent.inputs import Gathered
    from lad_agent.settings import Settings


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Images, folders, or manifests (CSV: part_id,image,recipe)."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe.yaml or a product; else the nearest recipe.yaml of each image."
        ),
    ] = None,
    store: options.Store = None,
    reasoner: options.Reasoner = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    station: options.Station = None,
    lot: options.Lot = None,
    by: options.By = None,
    out: Annotated[Path | None, typer.Option(help="Write results to a .jsonl or .csv.")] = None,
    as_json: options.JsonLines = False,
    fail_on: Annotated[
        str | None, typer.Option(help="Exit with 1 on any of: NotOK, NotDecidable (comma between).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than the first N.")] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(min=1, help="Stop when N could not be read or judged (exit code 6)."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Inspect once more what is done already.")
    ] = False,
) -> None:
    """Inspect parts and record a result with its reason for every one.

    What is done already is skipped, what was cut off is finished: repeat the command at will.

    Exit codes: 0 all recorded, 1 by --fail-on, 2 wrong use, 3 some images could not be read,
    4 something is missing, 6 stopped by --max-failures, 130 stopped by Ctrl-C.
    """
    import asyncio

    from lad_agent import inputs, results, settings
    from lad_agent.graphs.runner import Order

    chosen = settings.load(
        store=store,
        reasoner=reasoner,
        adapter=adapter,
        device=device,
        station=station,
        by=by,
    )
    failing = _results(fail_on)
    if out is not None:
        results.check_target(out)
    gathered = inputs.gather(paths, recipe_name=recipe, limit=limit)
    order = Order(
        station=chosen.station,
        actor=chosen.by,
        lot=lot,
        again=again,
        in_flight=chosen.in_flight,
        max_failures=max_failures,
        max_pixels=chosen.max_pixels,
    )
    report = asyncio.run(_run(gathered, chosen, order))
    outcomes = [done.outcome for done in report.done]
    if out is not None:
        results.write(out, outcomes)
    if as_json:
        typer.echo("".join(map(results.line, outcomes)), nl=False)
    else:
        _print(report, out)
    _exit(gathered, report, failing)


async def _run(gathered: Gathered, chosen: Settings, order: Order) -> Report:
    import asyncio

    from lad_agent.cli.progress import Progress
    from lad_agent.graphs.checkpoints import pauses
    from lad_agent.graphs.runner import run_batch
    from lad_agent.software import versions
    from lad_agent.store import AsyncStore
    from lad_agent.store.software import see
    from lad_agent.wiring import (
        open_audit,
        pauses_file,
        promises_watched,
        reasoner_open,
        settle,
    )

    stop = asyncio.Event()
    with open_audit(chosen) as audit, Progress(len(gathered.items)) as progress:
        for fault in gathered.faults:
            progress.say(fault)
        progress.status(f"loading the reasoner ({chosen.reasoner})")
        async with (
            reasoner_open(chosen) as reasoner,
            AsyncStore(audit) as store,
            pauses(pauses_file(audit)) as saver,
            promises_watched(audit, chosen, progress.say),
        ):
            await store.run(lambda unit: see(unit, chosen.station, chosen.by, versions()))
            await settle(audit, store, saver)
            progress.start()
            with _finish_on_interrupt(stop, progress):
                return await run_batch(
                    gathered.items,
                    order,
                    store=store,
                    reasoner=reasoner,
                    checkpointer=saver,
                    on_done=progress.done,
                    stop=stop,
                )


@contextmanager
def _finish_on_interrupt(stop: asyncio.Event, progress: Progress) -> Iterator[None]:
    """First Ctrl-C: begin no more. Second: end at once, as safe as being killed."""
    import asyncio
    import os
    import signal

    loop = asyncio.get_running_loop()

    def interrupted(_signal: int, _frame: object) -> None:
        if stop.is_set():
            progress.close()
            os._exit(130)
        loop.call_soon_threadsafe(stop.set)
        progress.say("finishing what is in flight; Ctrl-C again ends at once")

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _results(fail_on: str | None) -> frozenset[str]:
    from lad_agent.judgement import Result

    known = [Result.NOT_OK.value, Result.NOT_DECIDABLE.value]
    words = [word.strip() for word in (fail_on or "").split(",") if word.strip()]
    return frozenset(options.choice("--fail-on", word, known) for word in words)


def _exit(gathered: Gathered, report: Report, failing: frozenset[str]) -> None:
    from lad_agent.errors import TooManyFailures
    from lad_agent.judgement import Reason

    total = len(gathered.items)
    if report.stopped == "failures":
        raise TooManyFailures(
            f"stopped by --max-failures, {len(report.done)} of {total} inspected; see the lines "
            "above, then the same command goes on with the rest"
        )
    if report.stopped == "asked":
        typer.echo(
            f"lad-agent: stopped, {len(report.done)} of {total} inspected and recorded; "
            "the same command goes on with the rest",
            err=True,
        )
        raise typer.Exit(130)
    if gathered.faults:
        raise typer.Exit(2)
    if any(done.outcome.reason is Reason.UNREADABLE for done in report.done):
        raise typer.Exit(3)
    if any(done.outcome.result.value in failing for done in report.done):
        raise typer.Exit(1)


def _print(report: Report, out: Path | None) -> None:
    from lad_agent.cli.tables import columns
    from lad_agent.judgement import Reason, Result

    heads = ("product", "parts", "OK", "NotOK", "escalated", "done earlier")
    products = sorted({done.outcome.product for done in report.done})
    groups = [
        (name, [done for done in report.done if done.outcome.product == name]) for name in products
    ]
    if len(groups) != 1:
        groups.append(("all", list(report.done)))
    typer.echo(columns(heads, [_row(name, group) for name, group in groups]))
    _print_examples([done for done in report.done if done.outcome.result is Result.NOT_OK])
    waiting = [done for done in report.done if done.outcome.final is None]
    if waiting:
        reasons = [done.outcome.reason.value for done in waiting if done.outcome.reason]
        told = ", ".join(f"{reasons.count(name)} {name}" for name in sorted(set(reasons)))
        typer.echo(f"\nwaiting for a person: {told}\n  lad-agent review list")
        void = [done for done in waiting if done.outcome.reason is Reason.CALIBRATION_VOID]
        for product, why in sorted({(done.outcome.product, done.detail or "") for done in void}):
            typer.echo(f"  {product}: {why}")
    if out is not None:
        typer.echo(f"\nresults: {out}")


def _row(name: str, group: list[Done]) -> tuple[str, ...]:
    from lad_agent.judgement import Result

    counts = [sum(done.outcome.result is result for done in group) for result in Result]
    earlier = sum(done.earlier for done in group)
    return (name, *map(str, (len(group), *counts, earlier)))


def _print_examples(found: list[Done], most: int = 5) -> None:
    if not found:
        return
    typer.echo("\nNotOK, and why:")
    for done in found[:most]:
        typer.echo(f"  {done.outcome.product} {done.outcome.part_id}: {_why(done)}")
    if len(found) > most:
        typer.echo(f"  ... {len(found) - most} more: lad-agent audit list --result NotOK")


def _why(done: Done) -> str:
    """The first statement of the rationale that is bad, else its beginning."""
    from lad_agent.rationale import said_bad

    said = done.outcome.rationale
    return next(iter(said_bad(said)), said.partition("; ")[0])[:160]
