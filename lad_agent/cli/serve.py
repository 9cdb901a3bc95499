"""`lad-agent serve`: the service, for machines by REST and for people by its pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.settings import Settings


def serve(
    recipes: Annotated[
        Path | None,
        typer.Option(help="A folder of recipes (*.yaml, */recipe.yaml); else those shipped."),
    ] = None,
    store: options.Store = None,
    reasoner: options.Reasoner = None,
    adapter: options.Adapter = None,
    device: options.Device = None,
    station: options.Station = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose images a request may name by path (repeatable)."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8321,
    tls_cert: Annotated[
        Path | None, typer.Option(help="A certificate (PEM), to serve by HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
) -> None:
    """Serve inspections and reviews until Ctrl-C or SIGTERM.

    On loopback with no users it is open to this machine; any other address needs users first
    (lad-agent users add).
    """
    import asyncio

    from lad_agent import settings
    from lad_agent.errors import UsageError

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    for file in (tls_cert, tls_key):
        if file is not None and not file.is_file():
            raise UsageError(f"{file}: no such file")
    chosen = settings.load(
        recipes=recipes,
        store=store,
        reasoner=reasoner,
        adapter=adapter,
        device=device,
        station=station,
        image_roots=tuple(images) if images else None,
    )
    asyncio.run(_serve(chosen, host, port, tls_cert, tls_key))


async def _serve(
    chosen: Settings, host: str, port: int, tls_cert: Path | None, tls_key: Path | None
) -> None:
    from lad_agent import outbox
    from lad_agent.cli.tables import say
    from lad_agent.service import app, auth
    from lad_agent.service.services import Services, load_recipes
    from lad_agent.store import access
    from lad_agent.wiring import open_audit, open_reasoner, promises_watched

    listening = app.listen(host, port)
    with listening, open_audit(chosen) as audit:
        auth.check_address(host, audit)
        recipes = load_recipes(chosen.recipes)
        typer.echo(f"loading the reasoner ({chosen.reasoner})", err=True)
        reasoner = open_reasoner(chosen)
        scheme = "https" if tls_cert else "http"
        port = listening.getsockname()[1]
        typer.echo(f"{scheme}://{host if ':' not in host else f'[{host}]'}:{port}", err=True)
        if not audit.ask(access.has_users):
            typer.echo("open: nobody signs in; lad-agent users add NAME makes it ask", err=True)
        tls = {"ssl_certfile": tls_cert, "ssl_keyfile": tls_key} if tls_cert else {}
        async with outbox.delivering(audit, chosen), promises_watched(audit, chosen, say):
            await app.run(Services(audit, recipes, reasoner, chosen), listening, **tls)
