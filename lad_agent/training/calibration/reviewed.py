"""Findings of reviews as parts of a calibration: those that chance has picked, not doubt.

People see every doubtful part and few of the sure ones, so all findings together say little about
what passes. But every part has a seeded audit draw, whatever became of it. Those whose draw is
below the audit rate are a random sample of the line, and people have seen each of them: the decided
ones in an audit, the others because they were escalated.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lad_agent.errors import CheckFailed, UsageError
from lad_agent.inspection import Outcome
from lad_agent.judgement import Finding
from lad_agent.policy import audit_draw
from lad_agent.recipe import Recipe
from lad_agent.training.calibration.parts import Part, part_of
from lad_agent.training.sources import Example


@dataclass(frozen=True)
class Reviewed:
    """A recorded part with a review; `finding` is None while it waits for a person.

    `audit_rate` is that of the recipe version it was judged by, None where it was not recorded.
    """

    outcome: Outcome
    finding: Finding | None
    rule: str | None
    audit_rate: float | None


def of_reviews(reviewed: Iterable[Reviewed], recipe: Recipe) -> tuple[list[Part], list[str]]:
    """The random sample among the reviewed parts, and in words what was left out of it.

    Of several attempts at one picture the last one counts, of several models the last one's parts.

    Raises:
        CheckFailed: no part of the sample is decided.
        UsageError: one picture was found both conforming and nonconforming.
    """
    last: dict[str, tuple[tuple[int, str], Part]] = {}
    left_out: Counter[str] = Counter()
    for one in sorted(reviewed, key=lambda one: one.outcome.id):
        if one.outcome.product != recipe.product or not _drawn(one):
            continue
        if one.finding is None:
            left_out["wait for a person yet: decide them first"] += 1
            continue
        example = _example(one)
        entry = one.outcome.model_dump(mode="json")
        try:
            found = part_of(entry, known={example.sha256: example}, recipe=recipe)
        except ValueError:
            left_out["were judged for another task, by other draws, or by an older version"] += 1
            continue
        if found is not None:
            _refuse_contradiction(last.get(example.sha256), found)
            last[example.sha256] = found
    if not last:
        raise CheckFailed(
            f"no part of {recipe.product} that was reviewed by chance can calibrate; raise "
            "audit_rate in the recipe (at 1 every part is reviewed), or label pictures"
        )
    newest = max(last.values(), key=lambda one: one[0][1])[1].judgement.model
    parts = [part for _, part in last.values() if part.judgement.model == newest]
    left_out[f"were judged by another model than {newest}"] = len(last) - len(parts)
    notes = [f"{number} reviewed parts that {why}" for why, number in left_out.items() if number]
    return sorted(parts, key=lambda part: part.example.sha256), notes


def _drawn(one: Reviewed) -> bool:
    """Whether the part was to be seen by a person whatever was said about it."""
    sha256 = one.outcome.image_sha256
    if sha256 is None or one.audit_rate is None:
        return False
    return audit_draw(sha256, one.outcome.recipe_version) < one.audit_rate


def _example(one: Reviewed) -> Example:
    outcome = one.outcome
    return Example(
        image=Path(outcome.image),
        sha256=outcome.image_sha256 or "",
        product=outcome.product,
        split="test",
        kind="good" if one.finding is Finding.CONFORMING else "bad",
        rule=one.rule,
    )


def _refuse_contradiction(
    before: tuple[tuple[int, str], Part] | None, now: tuple[tuple[int, str], Part]
) -> None:
    if before is not None and before[1].bad != now[1].bad:
        raise UsageError(
            f"{now[1].example.image}: found conforming in one review and nonconforming in another; "
            "take one of them back"
        )
