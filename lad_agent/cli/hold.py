"""`lad-agent hold`: every part to people, until somebody releases them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.store import AuditStore

app = typer.Typer(
    help="Send every part to people, or no longer.", no_args_is_help=True, rich_markup_mode=None
)

Product = Annotated[str, typer.Argument(metavar="PRODUCT", help="A product, or all.")]


@app.command()
def on(
    product: Product,
    reason: Annotated[str, typer.Option(help="Why; people read it beside every part.")],
    by: options.By = None,
    store: options.Store = None,
) -> None:
    """From now on every part of PRODUCT goes to people, at every station of this store."""
    from lad_agent import settings
    from lad_agent.errors import UsageError
    from lad_agent.wiring import open_audit

    if not reason.strip():
        raise UsageError("--reason: say why; people read it beside every part")
    chosen = settings.load(store=store, by=by)
    with open_audit(chosen, create=False) as audit:
        which = _known(audit, product)
        audit.put_hold(chosen.station, chosen.by, reason, which)
    typer.echo(f"{which or 'all products'}: every part goes to people from now on")


@app.command()
def release(
    product: Product,
    by: Annotated[str, typer.Option(help="Your name: you answer for it.")],
    store: options.Store = None,
) -> None:
    """Let the policy decide again, and answer the alarms; the watch begins anew."""
    from lad_agent import settings
    from lad_agent.store import holds
    from lad_agent.wiring import open_audit

    chosen = settings.load(store=store, by=by)
    which = None if product == "all" else product
    with open_audit(chosen, create=False) as audit:
        answered = audit.release_hold(chosen.station, chosen.by, which)
        left = audit.ask(holds.holds)
    alarms = f", {answered} alarm{'s'[: answered != 1]} answered" if answered else ""
    typer.echo(f"{which or 'all products'}: released by {chosen.by}{alarms}")
    for hold in left:
        typer.echo(
            f"still on hold: {hold.product or 'all products'}, by {hold.on_by}: {hold.reason}"
        )


@app.command("list")
def list_(store: options.Store = None, as_json: options.Json = False) -> None:
    """List the holds that are on, and the alarms that nobody has answered."""
    from dataclasses import asdict

    from lad_agent import settings
    from lad_agent.cli.tables import columns, print_json
    from lad_agent.store import holds, open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        on, alarms = audit.ask(holds.holds), audit.ask(holds.alarms)
    if as_json:
        print_json(
            {"holds": [asdict(one) for one in on], "alarms": [asdict(one) for one in alarms]}
        )
        return
    if not on and not alarms:
        typer.echo("no hold is on, no alarm stands")
        return
    rows = [
        *(("hold", one.product or "all", one.on_at[:16], one.on_by, one.reason) for one in on),
        *(
            ("alarm", one.product, one.raised_at[:16], "", f"{one.what}: {one.detail}")
            for one in alarms
        ),
    ]
    typer.echo(columns(("", "product", "since", "by", "why"), rows))


def _known(audit: AuditStore, product: str) -> str | None:
    """The product that is meant; None for all.

    Raises:
        NotFound: none of that name was ever inspected, so a hold would be obeyed by nobody.
    """
    from lad_agent import nearest
    from lad_agent.errors import NotFound
    from lad_agent.store import queries

    if product == "all":
        return None
    there = audit.ask(queries.products)
    if product not in there:
        hint = nearest.hint(product, there)
        raise NotFound(f"no part of {product!r} was inspected here; {hint}; or hold all")
    return product
