"""Findings of reviews as parts of a calibration: those that chance has picked, not doubt.

People see every doubtful part and few of the sure ones, so all findings together say little about
what passes. But every part has a seeded audit draw, whatever became of it. Those whose draw is
below the audit rate are a random sample of the line, and people have seen each of them: the decided
ones in an audit, the others because they were escalated.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from lad_agent.confidence import ASKING
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.inspection import Outcome
from lad_agent.judgement import Finding
from lad_agent.policy import audit_draw
from lad_agent.recipe import Policy, Recipe
from lad_agent.training.calibration.parts import (
    Line,
    Part,
    left_unjudged,
    one_of_each,
    part_of,
)
from lad_agent.training.sources import Example

_OTHERWISE = "were judged for another task, by other draws, or by an older version"


@dataclass(frozen=True)
class Reviewed:
    """A recorded part with a review; `finding` is None while it waits for a person.

    `policy` is that of the recipe version it was judged by, None where it was not recorded.
    """

    outcome: Outcome
    finding: Finding | None
    rule: str | None
    policy: Policy | None


def of_reviews(reviewed: Iterable[Reviewed], recipe: Recipe) -> tuple[list[Part], list[str]]:
    """The random sample among the reviewed parts, and in words what was left out of it.

    It ends before the oldest part that waits for a person: what people leave for later is no
    matter of chance, so the parts around it that they did decide are no sample of the line. Of
    several attempts at one picture the last one counts, of several pictures of one part the last
    one, of several models the last one's parts. Where the audit rate has changed, it is one sample
    at the newest rate: parts drawn at a higher one are thinned to it, as their draws allow, and
    those drawn at a lower one are left out, because more of their kind are missing. What was not
    judged, because of a time-out or a failure, is left out too.

    Raises:
        CheckFailed: no part of the sample is decided; or there are bad ones, and none was judged.
        UsageError: one picture was found both conforming and nonconforming.
    """
    found: list[tuple[Reviewed, Line]] = []
    left_out: Counter[str] = Counter()
    lost: list[Example] = []
    for one in sorted(reviewed, key=lambda one: one.outcome.id):
        if one.outcome.product != recipe.product or not _drawn(one):
            continue
        example = _example(one)
        entry = one.outcome.model_dump(mode="json")
        try:
            line = part_of(entry, known={example.sha256: example}, recipe=recipe)
        except ValueError:
            left_out[_OTHERWISE] += 1
            continue
        if line is not None and line.failed:
            lost.append(example)
            continue
        if one.policy is None or _way(one.policy) != _way(recipe.policy):
            left_out[_OTHERWISE] += 1
            continue
        if line is not None:
            found.append((one, line))
    if not found:
        raise CheckFailed(
            f"no part of {recipe.product} that was reviewed by chance can calibrate; raise "
            "audit_rate in the recipe (at 1 every part is reviewed), or label pictures"
        )
    newest = found[-1][1].part.judgement.model
    own = [(one, line) for one, line in found if line.part.judgement.model == newest]
    left_out[f"were judged by another model than {newest}"] = len(found) - len(own)
    rate = _rate(own[-1][0])
    alike = [(one, line) for one, line in own if _drawn_at(one, rate)]
    left_out[f"another audit rate than {rate:.3g} has drawn"] = len(own) - len(alike)
    own = alike
    complete = list(takewhile(lambda pair: pair[0].finding is not None, own))
    if not complete:
        waits = own[0][0].outcome
        raise CheckFailed(
            f"{waits.part_id}, the oldest part of {recipe.product} that chance has picked, waits "
            "for a person; decide it first (lad-agent review list), and those after it"
        )
    left_out["came after one that waits for a person yet: decide it first"] = len(own) - len(
        complete
    )
    last: dict[str, Line] = {}
    for _, line in complete:
        _refuse_contradiction(last.get(line.part.example.sha256), line)
        last[line.part.example.sha256] = line
    parts, notes = one_of_each(last.values())
    told = [f"{number} reviewed parts that {why}" for why, number in left_out.items() if number]
    return parts, told + left_unjudged(lost, parts) + notes


def _drawn(one: Reviewed) -> bool:
    """Whether the part was to be seen by a person whatever was said about it."""
    return _drawn_at(one, _rate(one))


def _drawn_at(one: Reviewed, rate: float) -> bool:
    """Whether the part belongs to the sample of all that were drawn at that rate or a higher."""
    sha256 = one.outcome.image_sha256
    if sha256 is None or rate > _rate(one):
        return False
    return audit_draw(sha256, one.outcome.recipe_version) < rate


def _rate(one: Reviewed) -> float:
    return one.policy.audit_rate if one.policy else 0.0


def _way(policy: Policy) -> list[Any]:
    return [getattr(policy, name) for name in ASKING]


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


def _refuse_contradiction(before: Line | None, now: Line) -> None:
    if before is not None and before.part.bad != now.part.bad:
        raise UsageError(
            f"{now.part.example.image}: found conforming in one review and nonconforming in "
            "another; take one of them back"
        )
