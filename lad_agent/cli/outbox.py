"""`lad-agent outbox`: what other systems are still to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.store.outbox import SinkState

app = typer.Typer(
    help="Results on their way to other systems.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(
    store: options.Store = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Those delivered lately too, the newest first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="No more than N messages.")] = 50,
    as_json: options.Json = False,
) -> None:
    """List the sinks, and the messages that wait for them or were given up, the oldest first."""
    import json
    from dataclasses import asdict

    from lad_agent import settings
    from lad_agent.cli import tables
    from lad_agent.store import open_store, outbox

    with open_store(settings.load(store=store).store, create=False) as audit:
        sinks = audit.ask(outbox.sinks)
        messages = audit.ask(
            lambda session: outbox.messages(session, everything=everything, limit=limit)
        )
    if as_json:
        told = [{**asdict(one), "body": json.loads(one.body)} for one in messages]
        typer.echo(tables.as_json({"sinks": [asdict(one) for one in sinks], "messages": told}))
        return
    if not sinks:
        typer.echo("nobody is told of results; set webhook_url and webhook_secret")
        return
    for sink in sinks:
        typer.echo(_told(sink))
    if messages:
        heads = ("message", "event", "part", "since", "tries", "delivered", "error")
        rows = [
            (
                one.id,
                one.type,
                one.part_id,
                one.at,
                str(one.failures or ""),
                one.delivered_at or "",
                f"given up: {one.error}" if one.given_up else one.error or "",
            )
            for one in messages
        ]
        typer.echo(tables.columns(heads, rows))


@app.command()
def retry(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="MESSAGE", help="Else all that wait.")
    ] = None,
    given_up: Annotated[
        bool, typer.Option("--given-up", help="And all that were given up.")
    ] = False,
    store: options.Store = None,
) -> None:
    """Try again now what waits for its next attempt; a running serve or watch does it at once."""
    from lad_agent import settings
    from lad_agent.store import open_store, outbox

    with open_store(settings.load(store=store).store, create=False) as audit:
        count = audit.transact([lambda unit: outbox.retry(unit, ids or (), given_up=given_up)])[0]
    typer.echo(f"{count} due now")


@app.command()
def send(store: options.Store = None) -> None:
    """Deliver what is due, and end: where neither serve nor watch runs, after a batch.

    Exit code 4 if messages still wait.
    """
    import asyncio

    from lad_agent import settings
    from lad_agent.errors import PrerequisiteError, UsageError
    from lad_agent.outbox import deliver_all, pace, sinks
    from lad_agent.store import outbox
    from lad_agent.wiring import open_audit

    chosen = settings.load(store=store)
    found = sinks(chosen)
    if not found:
        raise UsageError("no sink is set; set webhook_url and webhook_secret")

    async def run() -> None:
        for sink in found:
            try:
                await deliver_all(audit, sink, pace(chosen))
            finally:
                await sink.aclose()

    with open_audit(chosen, create=False) as audit:
        asyncio.run(run())
        waiting = [state for state in audit.ask(outbox.sinks) if state.waiting]
    if waiting:
        raise PrerequisiteError(_told(waiting[0]))


@app.command()
def off(
    sink: Annotated[str, typer.Argument(metavar="SINK", help="Its name, as webhook.")],
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Drop the messages that it has not got.")
    ] = False,
    store: options.Store = None,
    by: options.By = None,
) -> None:
    """Tell a sink nothing more; take it out of the settings first."""
    from lad_agent import settings
    from lad_agent.errors import UsageError
    from lad_agent.outbox import sinks
    from lad_agent.store import open_store, operations, outbox

    chosen = settings.load(store=store, by=by)
    if any(one.name == sink for one in sinks(chosen)):
        raise UsageError(f"{sink} is still set; take it out of the settings first")
    with open_store(chosen.store, create=False) as audit:
        states = {state.name: state for state in audit.ask(outbox.sinks)}
        left = states[sink].waiting + states[sink].given_up if sink in states else 0
        if left and not give_up:
            raise UsageError(f"{left} messages are left for {sink}; --give-up gives them up")
        what = {"what": "results", "sink": sink, "on": False, "given_up": left}
        audit.transact(
            [
                lambda unit: outbox.unsubscribe(unit, sink),
                lambda unit: operations.exported(unit, chosen.station, chosen.by, what),
            ]
        )
    typer.echo(f"{sink} is told nothing more")


def _told(sink: SinkState) -> str:
    """One line on how a sink stands."""
    waits = f"{sink.waiting} waiting" + (f" since {sink.oldest}" if sink.oldest else "")
    line = f"{sink.name} ({sink.target}): {waits}"
    if sink.given_up:
        line += f", {sink.given_up} given up"
    if sink.error is None:
        return line
    return f"{line}; away ({sink.error}), next attempt {sink.not_before or 'now'}"
