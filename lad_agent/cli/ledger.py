"""`lad-agent audit verify|keygen|head`: proofs that the ledger is what was written."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lad_agent.settings import Settings
    from lad_agent.store import ChainReport


def verify(
    store: options.Store = None,
    station: Annotated[str | None, typer.Option(help="Only this station's chain.")] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Heads that were exported; the ledger must hold them all.")
    ] = None,
    public_key: Annotated[
        list[Path] | None, typer.Option(help="Trust heads of this .pub file alone (repeatable).")
    ] = None,
    archive: Annotated[
        list[Path] | None, typer.Option(help="Check together with this archive (repeatable).")
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Compare the tables with the events; locks writers.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check the ledger's hash chains and signed heads; exit code 5 where something was changed."""
    import json

    from lad_agent import settings
    from lad_agent.errors import CheckFailed
    from lad_agent.store import open_store
    from lad_agent.store.archive import verify_with
    from lad_agent.store.heads import read_file

    chosen = settings.load(store=store)
    exported = read_file(heads) if heads else []
    trusted = _trusted(chosen, public_key or [])
    with (
        open_store(chosen.store, create=False) as audit,
        events_done() as told,
    ):
        if archive:
            report = verify_with(audit, archive, exported=exported, trusted=trusted, told=told)
        else:
            report = audit.verify_chain(station, exported=exported, trusted=trusted, told=told)
        changed = audit.changed_tables() if tables and report.intact else []
    if as_json:
        typer.echo(json.dumps(_brief(report, changed)))
    if changed:
        raise CheckFailed(
            f"the events are intact, but not the tables made of them: {', '.join(changed)}; "
            "lad-agent store rebuild mends them"
        )
    if report.faults:
        more = len(report.faults) - 1
        rest = f"; {more} more faults" if more else ""
        raise CheckFailed(f"{report.faults[0]}{rest} in {report.events} events")
    if not as_json:
        typer.echo(_summary(report))


def keygen(
    file: Annotated[Path, typer.Argument(help="Where the key goes; FILE.pub is its public half.")],
) -> None:
    """Make a key that signs the ledger's heads; nobody but you may read it."""
    from lad_agent.store.signing import generate

    key = generate(file)
    typer.echo(f"{file}: keep it secret; set signing_key to it where parts are inspected")
    typer.echo(f"{file}.pub: give it to whoever verifies; key {key.public[:16]}")


def head(
    store: options.Store = None,
    signing_key: options.SigningKey = None,
    to: Annotated[
        Path | None, typer.Option(help="Append the heads to this file too, out of reach.")
    ] = None,
    by: options.By = None,
) -> None:
    """Sign where the ledger stands now, and export the heads."""
    from lad_agent import settings, wiring
    from lad_agent.store import open_store

    chosen = settings.load(store=store, signing_key=signing_key, heads_file=to, by=by)
    signing = wiring.needed_signing(chosen)
    with open_store(chosen.store, create=False) as audit:
        audit.sign_head(signing)
        typer.echo(f"signed by key {signing.key.public[:16]}")
        if chosen.heads_file is not None:
            count = audit.export_heads(chosen.heads_file)
            typer.echo(f"{chosen.heads_file}: {count} heads appended")


def _trusted(chosen: Settings, files: list[Path]) -> frozenset[str]:
    """The keys whose signatures count: those given, else that of the settings."""
    from lad_agent.store.signing import load_public, public_file

    if not files and chosen.signing_key is not None:
        files = [public_file(chosen.signing_key)]
    return frozenset(load_public(file) for file in files)


def _brief(report: ChainReport, changed: list[str]) -> dict[str, object]:
    first = report.faults[0] if report.faults else None
    return {
        "ok": report.intact and not changed,
        "events": report.events,
        "first_bad": first.seq if first else None,
        "kind": first.kind.value if first else None,
        "station": first.station if first else None,
        "problem": first.problem if first else None,
        "heads": report.heads,
        "unsigned": report.unsigned,
        "unchecked_heads": report.unchecked,
        "changed_tables": changed,
    }


def _summary(report: ChainReport) -> str:
    stations = len(report.stations)
    text = f"intact: {report.events} events, {stations} stations, {report.heads} signed heads"
    if report.unsigned:
        text += f"; {report.unsigned} events since the last head"
    if report.unchecked:
        text += f"; {report.unchecked} heads are over archived events: give --archive too"
    return text


@contextmanager
def events_done() -> Iterator[Callable[[int], None] | None]:
    """Shows on a terminal how many events are done; None elsewhere, a log needs none of it."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} events"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done: bar.update(task, completed=done)
