"""`lad-agent audit`: what was inspected, with what result and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_agent.cli import options, replay
from lad_agent.cli.wanted import filtered, told

if TYPE_CHECKING:
    from lad_agent.store import History, Inspected, InspectionFilter

app = typer.Typer(help="What was inspected.", no_args_is_help=True, rich_markup_mode=None)
app.command("replay")(replay.replay)

InspectionId = Annotated[str, typer.Argument(metavar="ID", help="The id of an inspection.")]
By = Annotated[
    str,
    typer.Option(
        help="hour, day, product, station, lot, model, recipe_version; cause, reviewer, audit, "
        "promise or drift."
    ),
]


@app.command("list")
@filtered
def list_(
    wanted: InspectionFilter,
    store: options.Store = None,
    limit: Annotated[int, typer.Option(min=1, help="No more than N.")] = 50,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on after this inspection.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List inspections, the newest first."""
    from lad_agent import settings
    from lad_agent.cli.tables import columns, print_json
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        found = audit.inspections(wanted, limit=limit + 1, after=after)
    shown = found[:limit]
    if as_json:
        print_json([_line(one) for one in shown])
        return
    if not found:
        typer.echo("no such inspection")
        return
    heads = ("inspection", "at", "product", "part", "result", "final", "why")
    typer.echo(columns(heads, [_row(one) for one in shown]))
    if len(found) > limit:
        typer.echo(f"... more: --after {shown[-1].id}")


@app.command()
def show(
    inspection_id: InspectionId, store: options.Store = None, as_json: options.Json = False
) -> None:
    """Show all that is known of one inspection: judgement, reviews, recipe and events."""
    from lad_agent import settings
    from lad_agent.cli.tables import print_json
    from lad_agent.results import printable
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        history = audit.history(inspection_id)
    if as_json:
        print_json(_whole(history))
        return
    for name, value in _line(history.inspected).items():
        if value not in (None, [], ""):
            typer.echo(f"{name:<16}{printable(_words(value))}")
    if history.judgement and history.judgement.evidence_detail:
        typer.echo(f"{'evidence':<16}{printable(history.judgement.evidence_detail)}")
    typer.echo("events")
    for event in history.events:
        typer.echo(f"  {event.at}  {event.type}  {printable(event.actor)}")


@app.command()
@filtered
def stats(
    wanted: InspectionFilter,
    by: By = "product",
    store: options.Store = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to a .csv, .json, .jsonl or .parquet.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Count results by time, product or place; causes, reviewers, or what audits say."""
    from lad_agent import settings
    from lad_agent.cli.tables import cell, columns, print_json
    from lad_agent.results import printable
    from lad_agent.store import export, holds, open_store
    from lad_agent.store import stats as counted

    kind = options.choice("--by", by, list(counted.KINDS))
    with open_store(settings.load(store=store).store, create=False) as audit:
        table = audit.ask(lambda session: counted.figures(session, wanted, kind))
        alarms = audit.ask(holds.alarms)
    if out is not None:
        export.write(out, table.columns, table.rows)
    if as_json:
        print_json(list(table.rows))
    elif out is None:
        rows = [[cell(value) for value in row.values()] for row in table.rows]
        typer.echo(columns(list(table.columns), rows))
    for alarm in alarms:
        if wanted.product in (None, alarm.product):
            typer.echo(f"alarm: {printable(str(alarm))}", err=as_json)


@app.command()
@filtered
def export(
    wanted: InspectionFilter,
    out: Annotated[Path, typer.Argument(help="A .csv, .json, .jsonl or .parquet.")],
    reviews: Annotated[
        bool, typer.Option("--reviews", help="The reviews of these inspections instead.")
    ] = False,
    by: options.By = None,
    store: options.Store = None,
) -> None:
    """Write the rows of v_inspections, or of v_reviews, to a file; see docs/querying.md.

    That they left the store is an event in the ledger.
    """
    from dataclasses import asdict

    from lad_agent import settings
    from lad_agent.store import export as exported
    from lad_agent.store import open_store, views

    view = views.REVIEWS if reviews else views.INSPECTIONS
    rows = exported.reviews if reviews else exported.inspections
    chosen = settings.load(store=store, by=by)
    with open_store(chosen.store, create=False) as audit:
        what = {"view": view.name, "file": out.name, "filters": told(wanted)}
        written = audit.ask(
            lambda session: exported.write(
                out,
                exported.columns(view),
                rows(session, wanted),
                note=lambda one: audit.exported(chosen.station, chosen.by, what | asdict(one)),
            )
        )
    typer.echo(f"{out}: {written.rows} rows, SHA-256 {written.sha256}")


@app.command()
def certificate(
    inspection_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The id of an inspection.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The HTML file to write (ID.html).")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check this certificate instead of making one.")
    ] = None,
    signing_key: options.SigningKey = None,
    public_key: Annotated[
        Path | None, typer.Option(help="With --check: the .pub file of who must have signed.")
    ] = None,
    store: options.Store = None,
) -> None:
    """Make a signed HTML certificate of one part, its images in it, or check one."""
    from lad_agent.errors import UsageError

    if check is not None and inspection_id is None:
        _check(check, public_key)
    elif inspection_id is not None and check is None:
        _certify(inspection_id, out, signing_key, store)
    else:
        raise UsageError("give the id of an inspection, or --check FILE")


def _certify(inspection_id: str, out: Path | None, key: Path | None, store: str | None) -> None:
    from lad_agent import atomic, settings
    from lad_agent.errors import UsageError
    from lad_agent.store import certificate as certificates
    from lad_agent.store import open_store
    from lad_agent.wiring import needed_signing

    chosen = settings.load(store=store, signing_key=key)
    signer = needed_signing(chosen).key
    with open_store(chosen.store, create=False) as audit:
        content = certificates.render(audit.history(inspection_id), audit.images, signer)
    path = out or Path(f"{inspection_id}.html")
    try:
        atomic.write(path, content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    typer.echo(f"{path}: signed by {signer.public}")


def _check(path: Path, key: Path | None) -> None:
    from lad_agent.errors import CheckFailed, UsageError
    from lad_agent.store import certificate as certificates
    from lad_agent.store import signing

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        by = certificates.check(content, signing.load_public(key) if key else None)
    except CheckFailed as error:
        raise CheckFailed(f"{path}: {error}") from error
    typer.echo(f"{path}: whole, signed by {by}")


def _line(one: Inspected) -> dict[str, Any]:
    known = one.outcome.model_dump(mode="json") if one.outcome else {"id": one.id}
    intake = one.intake.model_dump(mode="json")
    times = {"opened_at": one.opened_at, "recorded_at": one.recorded_at, "closed_at": one.closed_at}
    return {**intake, **known, "detail": one.detail, **times}


def _row(one: Inspected) -> tuple[str, ...]:
    outcome = one.outcome
    result = outcome.result.value if outcome else "open"
    final = outcome.final.value if outcome and outcome.final else ""
    at = one.opened_at[:16]
    return (one.id, at, one.intake.product, one.intake.part_id, result, final, _why(one))


def _why(one: Inspected) -> str:
    from lad_agent.rationale import said_bad

    if one.outcome is None:
        return ""
    bad = said_bad(one.outcome.rationale)
    return str(one.outcome.reason or (bad[0] if bad else ""))[:80]


def _whole(history: History) -> dict[str, Any]:
    return {
        **_line(history.inspected),
        "judgement": history.judgement.model_dump(mode="json") if history.judgement else None,
        "reviews": [
            {
                "id": review.id,
                "kind": review.kind,
                "opened_at": review.opened_at,
                "kept": review.kept,
                "decided_at": review.decided_at,
                "decision": review.decision.model_dump(mode="json") if review.decision else None,
            }
            for review in history.reviews
        ],
        "recipe": history.recipe,
        "events": [
            {"seq": event.seq, "at": event.at, "type": event.type, "actor": event.actor}
            for event in history.events
        ],
    }


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
