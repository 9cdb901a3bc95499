"""`lad-agent store`: keep the audit store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_agent.cli import options

app = typer.Typer(help="Keep the audit store.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keep the audit store."""


@app.command()
def rebuild(store: options.Store = None) -> None:
    """Make every table anew from the ledger's events; refused where the ledger is not intact."""
    from lad_agent import settings
    from lad_agent.cli.ledger import events_done
    from lad_agent.store import open_store

    chosen = settings.load(store=store)
    with open_store(chosen.store, create=False) as audit, events_done() as told:
        events = audit.rebuild(told)
    typer.echo(f"rebuilt from {events} events")


@app.command()
def migrate(store: options.Store = None) -> None:
    """Bring a store that an older version made to this one's schema; back it up first."""
    from lad_agent import settings
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False, older=True) as audit:
        before = audit.schema_version
        audit.migrate()
        typer.echo(f"schema {before} -> {audit.schema_version}")


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The file to make.")],
    store: options.Store = None,
) -> None:
    """Copy the store into one file while others go on writing, and verify the copy.

    One of an older version too, before it is migrated.
    """
    from lad_agent import settings
    from lad_agent.store import open_store
    from lad_agent.store.backup import backup as back_up

    with open_store(settings.load(store=store).store, create=False, older=True) as audit:
        report = back_up(audit, target)
    typer.echo(f"{target}: {report.events} events, verified")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A backup.")],
    store: options.Store = None,
) -> None:
    """Make the store from a backup; refused where there is one that holds something."""
    from lad_agent import settings
    from lad_agent.store.backup import restore as restored

    chosen = settings.load(store=store)
    report = restored(source, chosen.store)
    typer.echo(f"restored {report.events} events, verified")


@app.command()
def archive(
    file: Annotated[Path, typer.Argument(help="The archive to make.")],
    before: Annotated[str, typer.Option(help="Up to this date or age: 2026-01-01, 365d.")],
    store: options.Store = None,
    signing_key: options.SigningKey = None,
    by: options.By = None,
) -> None:
    """Seal what is older and finished, and move it into a file that verifies on its own."""
    from lad_agent import settings, wiring
    from lad_agent.store import open_store
    from lad_agent.store.archive import archive as sealed

    chosen = settings.load(store=store, signing_key=signing_key, by=by)
    signing = wiring.needed_signing(chosen)
    moment = options.moment(before, "--before")
    with open_store(chosen.store, create=False) as audit:
        made = sealed(audit, moment, file, signing)
    typer.echo(f"{file}: {made.events} events up to {made.through}; {made.left} stay here too")


@app.command()
def prune(
    store: options.Store = None,
    images_mb: Annotated[
        float | None, typer.Option(min=0, help="Keep no more than this of copied images.")
    ] = None,
) -> None:
    """Drop pauses and copied images that no person waits for any more."""
    import asyncio

    from lad_agent import settings
    from lad_agent.graphs.checkpoints import pauses
    from lad_agent.store import open_store
    from lad_agent.wiring import forget_pauses, pauses_file

    async def forget() -> int:
        file = pauses_file(audit)
        if not file.exists():
            return 0
        async with pauses(file) as saver:
            return await forget_pauses(audit, saver)

    with open_store(settings.load(store=store).store, create=False) as audit:
        typer.echo(f"dropped {asyncio.run(forget())} pauses")
        if images_mb is not None:
            deleted = audit.prune_images(int(images_mb * 1e6))
            typer.echo(f"deleted {len(deleted)} copied images")
