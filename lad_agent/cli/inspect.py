"""`lad-agent inspect`: a batch from its files to recorded results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    import asyncio

    from lad_agent.cli.progress import Progress
    from lad_agent.graphs.runner import Report
    from lad_agent.inputs import Gathered
    from lad_agent.judgement import Result
    from lad_agent.settings import Settings
    from lad_agent.store import AuditStore


def inspect(
    paths: Annotated[
        list[Path], typer.Argument(help="Images, folders, or a manifest: part_id,image,recipe.csv.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe.yaml or a product; else the nearest recipe.yaml of each image."),
    ] = None,
    store: options.Store = None,
    reasoner: Annotated[
        str | None, typer.Option(help="pocket, a model folder, or http://HOST:PORT/v1#MODEL.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter's folder.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.")] = None,
    station: Annotated[str | None, typer.Option(help="Where (this computer's name).")] = None,
    lot: Annotated[str | None, typer.Option(help="The lot that the parts belong to.")] = None,
    by: options.By = None,
    out: Annotated[Path | None, typer.Option(help="Write results to a .jsonl or .csv.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line a part.")] = False,
    fail_on: Annotated[
        str | None, typer.Option(help="Exit with 1 on any of: NotOK, NotDecidable (comma between).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than the first N.")] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(min=1, help="Stop when N could not be read or judged (exit code 6)."),
    ] = None,
    again: Annotated[bool, typer.Option(help="Inspect once more what is done already.")] = False,
) -> None:
    """Inspect parts and record a result with its reason for every one.

    What is done already is skipped, what was cut off is finished: repeat the command at will.

    Exit codes: 0 all recorded, 1 by --fail-on, 2 wrong use, 3 some images could not be read,
    4 something is missing, 6 stopped by --max-failures, 130 stopped by Ctrl-C.
    """
    import asyncio

    from lad_agent import inputs, results, settings

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
    report = asyncio.run(_run(gathered, chosen, lot=lot, again=again, max_failures=max_failures))
    outcomes = [done.outcome for done in report.done]
    if out is not None:
        results.write(out, outcomes)
    if as_json:
        typer.echo("".join(map(results.line, outcomes)), nl=False)
    else:
        _print(report, out)
    _exit(gathered, report, failing)


async def _run(
    gathered: Gathered,
    chosen: Settings,
    *,
    lot: str | None,
    again: bool,
    max_failures: int | None,
) -> Report:
    import asyncio

    from lad_agent.cli.progress import Progress
    from lad_agent.graphs.checkpoints import pauses
    from lad_agent.graphs.runner import Order, run_batch
    from lad_agent.reasoners import open_reasoner
    from lad_agent.store import AsyncStore, open_store

    order = Order(
        station=chosen.station,
        actor=chosen.by,
        lot=lot,
        again=again,
        in_flight=chosen.in_flight,
        max_failures=max_failures,
        max_pixels=chosen.max_pixels,
    )
    stop = asyncio.Event()
    with open_store(chosen.store) as audit, Progress(len(gathered.items)) as progress:
        for fault in gathered.faults:
            progress.say(fault)
        progress.status(f"loading the reasoner {chosen.reasoner}")
        opened = open_reasoner(
            chosen.reasoner,
            device=chosen.device,
            adapter=chosen.adapter,
            max_batch=chosen.max_batch,
        )
        _stop_on_interrupt(stop, progress)
        try:
            async with AsyncStore(audit) as store, pauses(pauses_file(audit)) as saver:
                await settle(audit, store, saver)
                return await run_batch(
                    gathered.items,
                    order,
                    store=store,
                    reasoner=opened,
                    checkpointer=saver,
                    on_done=progress.done,
                    stop=stop,
                )
        finally:
            await opened.aclose()
