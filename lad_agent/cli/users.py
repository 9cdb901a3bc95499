"""`lad-agent users`: who may use the service, and the tokens of programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, TypeVar, cast

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.store.operations import Unit

P = ParamSpec("P")
T = TypeVar("T")

app = typer.Typer(help="Who may use the service.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name, as it will sign.")]
Role = Annotated[str, typer.Option(help="viewer, reviewer or admin.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@app.command("list")
def list_(store: options.Store = None, as_json: options.Json = False) -> None:
    """List the users, those without rights too."""
    from dataclasses import asdict

    from lad_agent import settings
    from lad_agent.cli.tables import columns, print_json
    from lad_agent.store import access, open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        found = audit.ask(access.users)
    if as_json:
        rows = [asdict(one) for one in found]
        print_json([{name: row[name] for name in row if name != "password"} for row in rows])
    elif not found:
        typer.echo("no users: on loopback the service is open")
    else:
        lines = [
            (one.name, one.role, "yes" if one.active else "no", one.changed_at[:16])
            for one in found
        ]
        typer.echo(columns(("name", "role", "active", "since"), lines))


@app.command()
def add(
    name: Name,
    role: Role = "reviewer",
    password_stdin: FromStdin = False,
    store: options.Store = None,
    by: options.By = None,
) -> None:
    """Add a user; asks for the password."""
    from lad_agent.errors import UsageError
    from lad_agent.service.passwords import hashed
    from lad_agent.store import access

    if not name.strip() or len(name) > 200:
        raise UsageError("a user's name has 1 to 200 characters")
    secret = hashed(_password(password_stdin))
    _change(store, by, access.add_user, name, role, secret)
    typer.echo(f"{name}: {role}")


@app.command()
def role(name: Name, role: Role, store: options.Store = None, by: options.By = None) -> None:
    """Give a user another role."""
    from lad_agent.store import access

    _change(store, by, access.change_role, name, role)
    typer.echo(f"{name}: {role}")


@app.command()
def password(
    name: Name,
    password_stdin: FromStdin = False,
    store: options.Store = None,
    by: options.By = None,
) -> None:
    """Set a user's password; ends the user's sessions."""
    from lad_agent.service.passwords import hashed
    from lad_agent.store import access

    secret = hashed(_password(password_stdin))
    _change(store, by, access.set_password, name, secret)
    typer.echo(f"{name}: password set, sessions ended")


@app.command()
def remove(name: Name, store: options.Store = None, by: options.By = None) -> None:
    """Take all rights from a user; ends sessions and tokens, and keeps the name."""
    from lad_agent.store import access

    _change(store, by, access.remove_user, name)
    typer.echo(f"{name}: no rights any more")


@app.command()
def token(
    name: Name,
    scope: Annotated[list[str], typer.Option(help="read, inspect, review or admin (repeatable).")],
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.01, help="Ends after N days.")] = None,
    store: options.Store = None,
    by: options.By = None,
) -> None:
    """Make a token for a program that acts for a user; it is shown this once."""
    import secrets

    from lad_agent.store import access

    secret = access.TOKEN_PREFIX + secrets.token_urlsafe(32)
    made = _change(
        store,
        by,
        access.issue_token,
        name,
        secret=secret,
        label=label,
        scopes=tuple(scope),
        days=days,
    )
    typer.echo(f"token {made}; it is shown only now:", err=True)
    typer.echo(secret)


@app.command()
def tokens(store: options.Store = None, as_json: options.Json = False) -> None:
    """List the tokens, without their secrets."""
    from dataclasses import asdict

    from lad_agent import settings
    from lad_agent.cli.tables import columns, print_json
    from lad_agent.store import access, open_store

    with open_store(settings.load(store=store).store, create=False) as audit:
        found = audit.ask(access.tokens)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    heads = ("token", "user", "label", "scopes", "until", "valid")
    rows = [
        (
            one.id,
            one.name,
            one.label,
            " ".join(one.scopes),
            (one.until or "")[:16],
            "yes" if one.valid else "no",
        )
        for one in found
    ]
    typer.echo(columns(heads, rows))


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id.")],
    store: options.Store = None,
    by: options.By = None,
) -> None:
    """End a token."""
    from lad_agent.store import access

    _change(store, by, access.revoke_token, token_id)
    typer.echo(f"{token_id}: revoked")


def _change(
    store: str | None,
    by: str | None,
    change: Callable[Concatenate[Unit, str, str, P], T],
    *given: P.args,
    **named: P.kwargs,
) -> T:
    """Make a change in one transaction, at this station and by whoever asks for it."""
    from lad_agent import settings
    from lad_agent.wiring import open_audit

    chosen = settings.load(store=store, by=by)
    with open_audit(chosen) as audit:
        (made,) = audit.transact(
            [lambda unit: change(unit, chosen.station, chosen.by, *given, **named)]
        )
    return cast("T", made)


def _password(from_stdin: bool) -> str:
    import sys

    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))
