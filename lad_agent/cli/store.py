"""`lad-agent store`: keep the audit store."""

from __future__ import annotations

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
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        events = audit.rebuild()
    typer.echo(f"rebuilt from {events} events")


def verify(
    store: options.Store = None,
    station: Annotated[str | None, typer.Option(help="Only this station's chain.")] = None,
    as_json: options.Json = False,
) -> None:
    """Check the ledger's hash chains; exit code 5 and the first fault where one is broken."""
    import json

    from lad_agent import settings
    from lad_agent.errors import CheckFailed
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        report = audit.verify_chain(station)
    first = str(report.faults[0]) if report.faults else None
    if as_json:
        told = {"ok": report.intact, "events": report.events, "first_bad": first}
        typer.echo(json.dumps(told))
    if first is not None:
        raise CheckFailed(f"{first}; {len(report.faults)} faults in {report.events} events")
    if not as_json:
        typer.echo(f"intact: {report.events} events, {len(report.stations)} stations")
