"""The filters that `audit list`, `stats`, `export` and `replay` share, as options of each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.store import InspectionFilter

_OPTIONS: dict[str, Any] = {
    "product": options.Product,
    "result": Annotated[str | None, typer.Option(help="Only OK, NotOK or NotDecidable.")],
    "cause": Annotated[str | None, typer.Option(help="Only parts that broke this rule, as R2.")],
    "text": Annotated[str | None, typer.Option(help="Only with these words in the rationale.")],
    "since": options.Since,
    "until": options.Until,
    "part": Annotated[str | None, typer.Option(help="Only this part_id.")],
    "station": Annotated[str | None, typer.Option(help="Only this station.")],
    "lot": Annotated[str | None, typer.Option(help="Only this lot.")],
    "reviewer": Annotated[str | None, typer.Option(help="Only decided by this person.")],
    "model": Annotated[str | None, typer.Option(help="Only this model's fingerprint.")],
    "recipe_version": Annotated[str | None, typer.Option(help="Only this version of a recipe.")],
}


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the filters' options, and what they say as its argument `wanted`.

    >>> @filtered
    ... def show(wanted: InspectionFilter, limit: int = 3) -> None:
    ...     print(wanted.part_id, limit)
    >>> show(part="p1", limit=2)
    p1 2
    """

    @functools.wraps(command)
    def called(**given: Any) -> None:
        filters = {name: given.pop(name, None) for name in _OPTIONS}
        command(wanted=_read(filters), **given)

    # The filter's own type is not imported where commands stand, so that they load quickly.
    known = {"InspectionFilter": object}
    kinds = get_type_hints(command, localns=known, include_extras=True)
    kept = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kinds[one.name])
        for one in inspect.signature(command).parameters.values()
        if one.name != "wanted"
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    signature = inspect.Signature([*kept, *added])
    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return called


def told(wanted: InspectionFilter) -> dict[str, str]:
    """What `wanted` narrows by, as plain text."""
    from dataclasses import asdict

    return {name: str(value) for name, value in asdict(wanted).items() if value is not None}


def _read(given: Mapping[str, str | None]) -> InspectionFilter:
    from lad_agent.judgement import Result
    from lad_agent.store import InspectionFilter

    result = given["result"]
    return InspectionFilter(
        product=given["product"],
        result=Result(options.choice("--result", result, list(Result))) if result else None,
        cause=given["cause"],
        text=given["text"],
        since=options.moment(given["since"]),
        until=options.moment(given["until"], "--until"),
        part_id=given["part"],
        station=given["station"],
        lot=given["lot"],
        reviewer=given["reviewer"],
        model=given["model"],
        recipe_version=given["recipe_version"],
    )
