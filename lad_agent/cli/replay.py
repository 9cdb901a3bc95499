"""`lad-agent audit replay`: inspections run again, and compared with what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_agent.cli import options
from lad_agent.cli.wanted import filtered

if TYPE_CHECKING:
    from lad_agent.replay import Recorded, Replayed
    from lad_agent.settings import Settings
    from lad_agent.store import AuditStore, InspectionFilter


@filtered
def replay(
    wanted: InspectionFilter,
    inspection_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The id of an inspection.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Run N inspections again, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same inspections.")] = 0,
    reasoner: options.Reasoner = None,
    device: options.Device = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Run an inspection again, or a random sample; exit code 5 if anything comes out otherwise.

    What has changed since (image, recipe, model, a library) is named. Nothing is recorded.
    """
    import asyncio

    from lad_agent import settings
    from lad_agent.errors import UsageError
    from lad_agent.store import open_store

    if (inspection_id is None) == (sample is None):
        raise UsageError("give the id of an inspection, or --sample N")
    chosen = settings.load(store=store, reasoner=reasoner, device=device)
    with open_store(chosen.store, create=False) as audit:
        recorded = [
            _recorded(audit, one) for one in _ids(audit, inspection_id, sample, seed, wanted)
        ]
    replayed = asyncio.run(_run(recorded, chosen))
    if as_json:
        from lad_agent.cli.tables import print_json

        told = [_brief(one) for one in replayed]
        print_json(told[0] if inspection_id else {**_summary(replayed), "inspections": told})
    elif inspection_id is not None:
        _print_one(replayed[0])
    else:
        _print_sample(replayed)
    _exit(replayed)


def _ids(
    audit: AuditStore,
    inspection_id: str | None,
    sample: int | None,
    seed: int,
    wanted: InspectionFilter,
) -> Sequence[str]:
    from dataclasses import replace

    from lad_agent.errors import NotFound
    from lad_agent.store import queries

    if inspection_id is not None:
        return [inspection_id]
    complete = replace(wanted, complete=True)
    found = audit.ask(lambda session: queries.sample(session, complete, sample or 0, seed))
    if not found:
        raise NotFound("no such inspection; lad-agent audit list shows them")
    return found


def _recorded(audit: AuditStore, inspection_id: str) -> Recorded:
    from lad_agent.errors import UsageError
    from lad_agent.replay import Recorded

    history = audit.history(inspection_id)
    outcome, intake = history.inspected.outcome, history.inspected.intake
    if outcome is None:
        raise UsageError(f"inspection {inspection_id} is not finished; run inspect again")
    return Recorded(
        id=inspection_id,
        intake=intake,
        result=outcome.result,
        reason=outcome.reason,
        judgement=history.judgement,
        images=history.image_files(audit.images),
        recipe=history.recipe,
        software=history.software,
    )


async def _run(recorded: Sequence[Recorded], chosen: Settings) -> list[Replayed]:
    import asyncio

    from lad_agent import software
    from lad_agent.replay import replay as run_again
    from lad_agent.wiring import reasoner_open

    now = software.versions()
    room = asyncio.Semaphore(chosen.in_flight)

    async with reasoner_open(chosen) as reasoner:

        async def one(what: Recorded) -> Replayed:
            async with room:
                return await run_again(what, reasoner, software=now, max_pixels=chosen.max_pixels)

        return await asyncio.gather(*map(one, recorded))


def _brief(one: Replayed) -> dict[str, Any]:
    return {
        "id": one.recorded.id,
        "part_id": one.recorded.intake.part_id,
        "same": one.same,
        "same_verdict": one.same_verdict,
        "same_score": one.same_score,
        "same_rationale": one.same_rationale,
        "problem": one.problem,
        "changes": [
            {"what": change.what, "recorded": change.recorded, "now": change.now}
            for change in one.changes
        ],
        "recorded": _answer(one.recorded),
        "now": _answer(one) if one.problem is None else None,
    }


def _answer(of: Recorded | Replayed) -> dict[str, Any]:
    said = of.judgement
    return {
        "result": of.result,
        "reason": of.reason,
        "anomalous": said.anomalous if said else None,
        "anomaly_score": said.anomaly_score if said else None,
        "confidence": said.confidence if said else None,
        "rationale": said.rationale if said else None,
    }


def _summary(replayed: Sequence[Replayed]) -> dict[str, Any]:
    ran = [one for one in replayed if one.problem is None]
    changes = sorted({change.what for one in replayed for change in one.changes})
    return {
        "drawn": len(replayed),
        "replayed": len(ran),
        "same_verdict": sum(one.same_verdict for one in ran),
        "same_score": sum(one.same_score for one in ran),
        "same_rationale": sum(one.same_rationale for one in ran),
        "same": sum(one.same for one in ran),
        "changed": changes,
    }


def _print_one(one: Replayed) -> None:
    from lad_agent.cli.tables import cell, columns

    before, now = _answer(one.recorded), _answer(one)
    if one.problem is None:
        rows = [(name, cell(before[name]), cell(now[name])) for name in before]
        typer.echo(columns(("", "recorded", "now"), rows))
    _print_changes([one])


def _print_sample(replayed: Sequence[Replayed]) -> None:
    from lad_agent.cli.tables import columns

    counts = _summary(replayed)
    for name in ("same_verdict", "same_score", "same_rationale", "same"):
        typer.echo(f"{name.replace('_', ' '):<16}{counts[name]} of {counts['replayed']}")
    rows = [
        (one.recorded.id, one.recorded.intake.part_id, one.problem or _differs(one))
        for one in replayed
        if not one.same
    ]
    if rows:
        typer.echo(columns(("inspection", "part", "what"), rows))
    _print_changes(replayed)


def _print_changes(replayed: Sequence[Replayed]) -> None:
    from lad_agent.results import printable

    for change in sorted({str(change) for one in replayed for change in one.changes}):
        typer.echo(f"changed: {printable(change)}")


def _differs(one: Replayed) -> str:
    same = {
        "verdict": one.same_verdict,
        "score": one.same_score,
        "rationale": one.same_rationale,
    }
    return "other " + ", ".join(name for name, is_same in same.items() if not is_same)


def _exit(replayed: Sequence[Replayed]) -> None:
    """What could not be run again is a missing prerequisite only where nothing could."""
    from lad_agent.errors import CheckFailed, PrerequisiteError

    ran = [one for one in replayed if one.problem is None]
    if not ran:
        raise PrerequisiteError(f"not replayed: {replayed[0].problem}")
    other = sum(not one.same for one in ran)
    if other:
        raise CheckFailed(f"{other} of {len(ran)} came out otherwise than recorded")
