"""`lad-agent audit`: what was inspected, with what result and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.store import History, Inspected

app = typer.Typer(help="What was inspected.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(
    store: options.Store = None,
    product: options.Product = None,
    result: Annotated[str | None, typer.Option(help="Only OK, NotOK or NotDecidable.")] = None,
    since: options.Since = None,
    part: Annotated[str | None, typer.Option(help="Only this part_id.")] = None,
    station: Annotated[str | None, typer.Option(help="Only this station.")] = None,
    lot: Annotated[str | None, typer.Option(help="Only this lot.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="No more than N.")] = 50,
    as_json: options.Json = False,
) -> None:
    """List inspections, the newest first."""
    from lad_agent import settings
    from lad_agent.cli.tables import columns
    from lad_agent.judgement import Result
    from lad_agent.store import InspectionFilter, open_store

    wanted = InspectionFilter(
        product=product,
        result=Result(options.choice("--result", result, list(Result))) if result else None,
        part_id=part,
        station=station,
        lot=lot,
        since=options.moment(since),
    )
    with open_store(settings.load(store=store).store, create=False) as audit:
        found = audit.inspections(wanted, limit=limit)
        total = audit.count(wanted)
    if as_json:
        typer.echo(json.dumps([_line(one) for one in found], indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo("no such inspection")
        return
    heads = ("inspection", "at", "product", "part", "result", "final", "why")
    typer.echo(columns(heads, [_row(one) for one in found]))
    if total > len(found):
        typer.echo(f"... {total - len(found)} more: --limit {total}")


@app.command()
def show(
    inspection_id: Annotated[str, typer.Argument(metavar="ID", help="The id of an inspection.")],
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Show all that is known of one inspection: judgement, reviews, recipe and events."""
    from lad_agent import settings
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        history = audit.history(inspection_id)
    if as_json:
        typer.echo(json.dumps(_whole(history), indent=2, ensure_ascii=False))
        return
    for name, value in _line(history.inspected).items():
        if value not in (None, [], ""):
            typer.echo(f"{name:<16}{_words(value)}")
    if history.judgement and history.judgement.evidence_detail:
        typer.echo(f"{'evidence':<16}{history.judgement.evidence_detail}")
    typer.echo("events")
    for event in history.events:
        typer.echo(f"  {event.at}  {event.type}  {event.actor}")


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
    if one.outcome is None:
        return ""
    statements = one.outcome.rationale.split("; ")
    bad = [statement for statement in statements if statement.endswith(" bad")]
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
