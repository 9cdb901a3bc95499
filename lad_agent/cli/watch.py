"""`lad-agent watch`: a folder that cameras drop pictures into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.settings import Settings
    from lad_agent.watching import HotFolder, Moved


def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder; subfolders are watched too.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe.yaml or a product; else the nearest recipe.yaml of each image, else "
            "the subfolder's name as a product."
        ),
    ] = None,
    store: options.Store = None,
    reasoner: options.Reasoner = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    station: options.Station = None,
    lot: options.Lot = None,
    by: options.By = None,
    settle: Annotated[
        float,
        typer.Option(min=0.1, max=3600, help="Seconds without a change until a file is whole."),
    ] = 1.0,
    as_json: options.JsonLines = False,
) -> None:
    """Inspect every picture that comes into DIR, until Ctrl-C or SIGTERM.

    The store keeps a copy; then the file moves to DIR/done, DIR/review (a person is to decide) or
    DIR/failed (it could not be read). What is cut off is finished by the next start.
    """
    import asyncio

    from lad_agent import settings
    from lad_agent.watching import HotFolder

    chosen = settings.load(
        store=store,
        reasoner=reasoner,
        adapter=adapter,
        device=device,
        station=station,
        by=by,
    )
    hot = HotFolder(folder, recipe, settle_s=settle, max_pixels=chosen.max_pixels)
    asyncio.run(_watch(hot, chosen, lot, _print_json if as_json else _print))


async def _watch(
    hot: HotFolder, chosen: Settings, lot: str | None, told: Callable[[Moved], None]
) -> None:
    import asyncio

    from lad_agent import outbox
    from lad_agent.cli.tables import say
    from lad_agent.graphs.checkpoints import pauses
    from lad_agent.graphs.runner import Order
    from lad_agent.software import versions
    from lad_agent.store import AsyncStore
    from lad_agent.store.software import see
    from lad_agent.watching import run, until_told
    from lad_agent.wiring import (
        open_audit,
        pauses_file,
        promises_watched,
        reasoner_open,
        settle,
    )

    order = Order(
        station=chosen.station,
        actor=chosen.by,
        lot=lot,
        in_flight=chosen.in_flight,
        max_pixels=chosen.max_pixels,
    )
    stop = asyncio.Event()
    with open_audit(chosen) as audit:
        typer.echo(f"loading the reasoner ({chosen.reasoner})", err=True)
        async with (
            reasoner_open(chosen) as reasoner,
            AsyncStore(audit) as store,
            pauses(pauses_file(audit)) as saver,
            outbox.delivering(audit, chosen),
            promises_watched(audit, chosen, say),
        ):
            await store.run(lambda unit: see(unit, chosen.station, chosen.by, versions()))
            await settle(audit, store, saver)
            with until_told(stop):
                typer.echo(f"watching {hot.root}", err=True)
                await run(
                    hot,
                    order,
                    audit=audit,
                    store=store,
                    reasoner=reasoner,
                    checkpointer=saver,
                    on_moved=told,
                    say=say,
                    stop=stop,
                )


def _print(moved: Moved) -> None:
    from lad_agent.results import printable

    outcome = moved.done.outcome
    why = f" ({outcome.reason.value})" if outcome.reason else ""
    where = moved.to.parent if moved.to is not None else "changed meanwhile"
    typer.echo(printable(f"{outcome.part_id}: {outcome.result.value}{why} -> {where}"))


def _print_json(moved: Moved) -> None:
    from lad_agent import results

    typer.echo(results.line(moved.done.outcome), nl=False)
