"""`lad-agent review`: what waits for a person, and the person's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.inspection import ReviewDecision
    from lad_agent.settings import Settings
    from lad_agent.store import AuditStore, Review

app = typer.Typer(help="Parts that wait for a person.", no_args_is_help=True, rich_markup_mode=None)

ReviewId = Annotated[
    str, typer.Argument(metavar="ID", help="The id of a review, or of its inspection.")
]


@app.command("list")
def list_(
    store: options.Store = None,
    product: options.Product = None,
    since: options.Since = None,
    kind: Annotated[str | None, typer.Option(help="escalation or audit.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="No more than N.")] = 50,
    as_json: options.Json = False,
) -> None:
    """List reviews, the one that has waited longest first."""
    from lad_agent import settings
    from lad_agent.cli.tables import columns, print_json
    from lad_agent.store import ReviewFilter, open_store

    wanted = ReviewFilter(
        product=product,
        kind=_kind(kind),
        since=options.moment(since),
        decided=None if everything else False,
    )
    with open_store(settings.load(store=store).store, create=False) as audit:
        reviews = audit.reviews(wanted, limit=limit)
    if as_json:
        print_json([_brief(review) for review in reviews])
        return
    if not reviews:
        typer.echo("no part waits for a person")
        return
    heads = ("review", "kind", "product", "part", "why", "since", "decided")
    rows = [
        tuple(str(value or "") for value in _brief(review, short=True).values())
        for review in reviews
    ]
    typer.echo(columns(heads, rows))


@app.command()
def show(review_id: ReviewId, store: options.Store = None, as_json: options.Json = False) -> None:
    """Show one part with its rules and, unless it is a blind audit, what the reasoner said."""
    from lad_agent import settings
    from lad_agent.cli.tables import print_json
    from lad_agent.results import printable
    from lad_agent.store import open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        review = _find(audit, review_id)
        details = _details(audit, review)
    if as_json:
        print_json(details)
        return
    for name, value in details.items():
        if name == "rules":
            typer.echo("rules")
            for rule in value:
                typer.echo(printable(f"  {rule['id']}  {rule['text']}"))
        elif value is not None:
            typer.echo(f"{name:<14}{printable(str(value))}")


@app.command()
def decide(
    review_id: ReviewId,
    finding: Annotated[str, typer.Option(help="conforming or nonconforming.")],
    disposition: Annotated[
        str | None,
        typer.Option(help="If nonconforming: use-as-is, rework, scrap or return-to-vendor."),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="The rule that is broken, as R2.")] = None,
    comment: Annotated[str | None, typer.Option(help="What was seen.")] = None,
    by: options.By = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Decide about one part; the first decision stands and closes the inspection.

    Stopped after the decision was written, the same call closes the inspection.
    """
    import asyncio

    from lad_agent import settings
    from lad_agent.cli.tables import print_json
    from lad_agent.inspection import ReviewDecision
    from lad_agent.judgement import Disposition, Finding

    chosen = settings.load(store=store, by=by)
    decision = ReviewDecision(
        finding=Finding(options.choice("--finding", finding, list(Finding))),
        disposition=Disposition(options.choice("--disposition", disposition, list(Disposition)))
        if disposition
        else None,
        rule=rule,
        comment=comment,
        by=chosen.by,
    )
    review = asyncio.run(_decide(review_id, decision, chosen))
    outcome = review.inspected.outcome
    final = outcome.final.value if outcome and outcome.final else None
    if as_json:
        print_json({**_brief(review), "inspection": review.inspected.id, "final": final})
    else:
        typer.echo(f"{review.inspected.intake.part_id}: {final}, decided by {decision.by}")


async def _decide(review_id: str, decision: ReviewDecision, chosen: Settings) -> Review:
    from lad_agent.errors import NeedsReason
    from lad_agent.graphs.checkpoints import pauses
    from lad_agent.store import AsyncStore
    from lad_agent.wiring import open_audit, pauses_file, settle, watch_promises

    with open_audit(chosen, create=False) as audit:
        review = _find(audit, review_id)
        try:
            # The same call again goes on where it was stopped, as by a full disk.
            if review.decision != decision:
                audit.decide_review(review.id, decision)
        except NeedsReason as error:
            raise NeedsReason(
                f"{decision.finding} goes against the reasoner: say why with --comment"
            ) from error
        async with AsyncStore(audit) as store, pauses(pauses_file(audit)) as saver:
            await settle(audit, store, saver)
        await watch_promises(audit, chosen, lambda said: typer.echo(f"lad-agent: {said}", err=True))
        return audit.review(review.id)


def _find(audit: AuditStore, review_id: str) -> Review:
    """By its own id, or by that of its inspection: the open one, else the last."""
    from lad_agent.errors import NotFound

    try:
        return audit.review(review_id)
    except NotFound as error:
        try:
            reviews = audit.history(review_id).reviews
        except NotFound:
            raise error from None
        if not reviews:
            raise NotFound(f"inspection {review_id} has no review") from error
        return next((review for review in reviews if review.decision is None), reviews[-1])


def _brief(review: Review, *, short: bool = False) -> dict[str, str | None]:
    intake, outcome = review.inspected.intake, review.inspected.outcome
    escalated = review.kind == "escalation" and outcome is not None and outcome.reason
    return {
        "id": review.id,
        "kind": review.kind,
        "product": intake.product,
        "part_id": intake.part_id,
        "reason": outcome.reason.value if escalated and outcome and outcome.reason else None,
        "opened_at": review.opened_at[:16] if short else review.opened_at,
        "decision": review.decision.finding.value if review.decision else None,
    }


def _details(audit: AuditStore, review: Review) -> dict[str, Any]:
    history = audit.history(review.inspected.id)
    intake, outcome = review.inspected.intake, review.inspected.outcome
    said = outcome if review.kind == "escalation" or review.decision else None
    return {
        **_brief(review),
        "detail": review.inspected.detail if said else None,
        "inspection": review.inspected.id,
        "image": intake.image,
        "kept": str(audit.images / review.kept) if review.kept else None,
        "station": intake.station,
        "lot": intake.lot,
        "rules": (history.recipe or {}).get("rules", []),
        "rationale": (said.rationale or None) if said else None,
        "anomaly_score": said.anomaly_score if said else None,
        "confidence": said.confidence if said else None,
        "decided_by": review.decision.by if review.decision else None,
        "disposition": review.decision.disposition if review.decision else None,
        "rule": review.decision.rule if review.decision else None,
        "comment": review.decision.comment if review.decision else None,
    }


def _kind(text: str | None) -> Any:
    return options.choice("--kind", text, ["escalation", "audit"]) if text else None
