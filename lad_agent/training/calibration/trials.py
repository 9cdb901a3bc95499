"""How often a promise is kept: many calibrations on disjoint parts, each held to fresh ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lad_agent import confidence
from lad_agent.confidence import ConfidenceModel
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Result
from lad_agent.policy import decide
from lad_agent.promise import lower_bound, upper_bound
from lad_agent.recipe import Policy, Recipe
from lad_agent.training.calibration.choosing import Asked, choose, side
from lad_agent.training.calibration.parts import Part

_LEVEL = 0.95


@dataclass(frozen=True)
class Way:
    """One way of choosing thresholds over all sets that did not refuse.

    `kept` of `made` had an escape rate within the promise on the fresh parts, with the exact 95%
    interval of that share; `escape_rate` and `coverage` are means over the sets, `worst` is the
    highest escape rate.
    """

    made: int
    kept: int
    interval: tuple[float, float]
    escape_rate: float
    worst: float
    coverage: float


@dataclass(frozen=True)
class Trials:
    """`promised` is this package's way, `naive` the threshold that kept the rate on the same parts.

    `refused` sets found no threshold that keeps the promise; nothing passes there.
    """

    promised: Way | None
    naive: Way
    refused: int


def run(
    pool: Sequence[Part],
    fresh: Sequence[Part],
    recipe: Recipe,
    asked: Asked,
    *,
    sets: int,
    good: int,
    bad: int,
) -> Trials:
    """Calibrate on `sets` disjoint sets of `pool`, each of `good` and `bad` parts.

    What `asked` promises of escapes is then measured on `fresh`, parts of no set. Its seed mixes
    the pool.

    Raises:
        UsageError: no escape rate is asked for, a picture is in both, or the pool is too small.
    """
    if asked.escape is None:
        raise UsageError("trials hold a promise of escapes to its word; give escape")
    if {p.example.sha256 for p in pool} & {p.example.sha256 for p in fresh}:
        raise UsageError("a picture is in the pool and among the fresh parts; give others")
    chosen, naive, refused = [], [], 0
    for drawn in _disjoint(pool, sets, good, bad, asked.seed):
        naive.append(_measured(fresh, _naive(drawn, recipe.policy, asked.escape), None))
        try:
            made = choose(drawn, recipe, asked)
        except CheckFailed:
            refused += 1
            continue
        chosen.append(_measured(fresh, made.policy, made.calibration.confidence_model))
    promised = _way(chosen, asked.escape) if chosen else None
    return Trials(promised, _way(naive, asked.escape), refused)


def _disjoint(pool: Sequence[Part], sets: int, good: int, bad: int, seed: int) -> list[list[Part]]:
    order = np.random.default_rng(seed).permutation(len(pool))
    of = {is_bad: [pool[i] for i in order if pool[i].bad == is_bad] for is_bad in (False, True)}
    for is_bad, number in ((False, good), (True, bad)):
        if len(of[is_bad]) < sets * number:
            raise UsageError(
                f"{sets} sets of {number} {'bad' if is_bad else 'good'} parts take "
                f"{sets * number}; the pool has {len(of[is_bad])}"
            )
    return [
        of[False][n * good : (n + 1) * good] + of[True][n * bad : (n + 1) * bad]
        for n in range(sets)
    ]


def _naive(parts: Sequence[Part], policy: Policy, rate: float) -> Policy:
    """The most lenient threshold on the raw confidence at which these parts keep the rate."""
    judged = [replace(p, judgement=confidence.calibrated(p.judgement, None)) for p in parts]
    passing = [p for p in judged if side(p.judgement, policy) is Result.OK]
    levels = np.unique([p.judgement.confidence for p in passing])
    harmed = np.sort([p.judgement.confidence or 0.0 for p in passing if p.bad])
    seen = len(harmed) - np.searchsorted(harmed, levels, side="left")
    kept = levels[seen <= rate * sum(p.bad for p in parts)]
    return policy.model_copy(update={"pass_confidence": float(kept[0]) if len(kept) else 1.0})


def _measured(
    parts: Sequence[Part], policy: Policy, model: ConfidenceModel | None
) -> tuple[float, float]:
    """Escape rate and coverage of fresh parts."""
    results = [decide(confidence.calibrated(p.judgement, model), policy).result for p in parts]
    passed = sum(p.bad and r is Result.OK for p, r in zip(parts, results, strict=True))
    decided = len(results) - results.count(Result.NOT_DECIDABLE)
    return passed / max(1, sum(p.bad for p in parts)), decided / len(results)


def _way(measured: Sequence[tuple[float, float]], rate: float) -> Way:
    escapes, coverage = zip(*measured, strict=True)
    kept, tail = sum(escape <= rate for escape in escapes), 1 - (1 - _LEVEL) / 2
    return Way(
        made=len(escapes),
        kept=kept,
        interval=(
            lower_bound(kept, len(escapes), tail),
            upper_bound(kept, len(escapes), tail),
        ),
        escape_rate=float(np.mean(escapes)),
        worst=max(escapes),
        coverage=float(np.mean(coverage)),
    )
