"""Options that several commands share, and how their values are read."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, overload

import typer

from lad_agent.errors import UsageError

Store = Annotated[
    str | None, typer.Option("--store", help="Audit store: a file or URL (lad-agent.db).")
]
Reasoner = Annotated[
    str | None,
    typer.Option("--reasoner", help="pocket, a model folder, or http://HOST:PORT/v1#MODEL."),
]
Adapter = Annotated[Path | None, typer.Option("--adapter", help="A LoRA adapter's folder.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Station = Annotated[str | None, typer.Option("--station", help="Where (this computer's name).")]
Lot = Annotated[str | None, typer.Option("--lot", help="The lot that the parts belong to.")]
SigningKey = Annotated[
    Path | None, typer.Option("--signing-key", help="The file that audit keygen made.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON line a part.")]
By = Annotated[str | None, typer.Option("--by", help="Who does this (the system user).")]
Product = Annotated[str | None, typer.Option("--product", help="Only this product.")]
Since = Annotated[
    str | None,
    typer.Option("--since", help="A date or time (2026-05-31), today, or an age: 30m, 8h, 7d."),
]
Until = Annotated[str | None, typer.Option("--until", help="The same; of a date, its end.")]


@overload
def moment(text: str, flag: str = ...) -> datetime: ...
@overload
def moment(text: str | None, flag: str = ...) -> datetime | None: ...
def moment(text: str | None, flag: str = "--since") -> datetime | None:
    """The time that `flag` means; a time without a zone is local, an age may have a minus.

    A day is its beginning for `--since`, its end for `--until`.

    Raises:
        UsageError: neither a date, a time nor an age.
    """
    if text is None:
        return None
    if age := re.fullmatch(r"-?(\d{1,5})([mhd])", text):
        unit = {"m": "minutes", "h": "hours", "d": "days"}[age[2]]
        return datetime.now(UTC) - timedelta(**{unit: int(age[1])})
    try:
        day = date.today() if text == "today" else date.fromisoformat(text)
    except ValueError:
        day = None
    try:
        if day is None:
            return datetime.fromisoformat(text).astimezone(UTC)
        if flag == "--until":
            day += timedelta(days=1)
        return datetime(day.year, day.month, day.day).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{flag} {text}: give a date like 2026-05-31, today, or an age like 8h"
        ) from error


def choice(flag: str, text: str, known: list[str]) -> str:
    """The known word that `text` means, in any case.

    Raises:
        UsageError: names the known ones.
    """
    for word in known:
        if word.lower() == text.lower():
            return word
    raise UsageError(f"{flag} {text}: known: {', '.join(known)}")
