"""How often a promise is kept: many calibrations on disjoint parts, each held to fresh ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lad_agent import confidence
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Result
from lad_agent.promise import lower_bound, upper_bound
from lad_agent.recipe import Policy, Recipe
from lad_agent.training.calibration import fitting
from lad_agent.training.calibration.choosing import Asked, choose, side
from lad_agent.training.calibration.parts import Part
from lad_agent.training.evaluation.scores import Flags, Floats

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
    fresh: Mapping[str, Sequence[Part]],
    recipe: Recipe,
    asked: Asked,
    *,
    sets: int,
    good: int,
    bad: int,
) -> dict[str, Trials]:
    """Calibrate on `sets` disjoint sets of `pool`, each of `good` and `bad` parts.

    What `asked` promises of escapes is then measured on each group of `fresh` parts, which are in
    no set. Its seed mixes the pool.

    Raises:
        UsageError: no escape rate is asked for, a picture is in both, or the pool is too small.
    """
    if asked.escape is None:
        raise UsageError("trials hold a promise of escapes to its word; give escape")
    groups = {name: _Group.of(parts, recipe.policy) for name, parts in fresh.items()}
    used = {part.example.sha256 for part in pool}
    if any(part.example.sha256 in used for group in groups.values() for part in group.parts):
        raise UsageError("a picture is in the pool and among the fresh parts; give others")
    chosen: dict[str, list[tuple[float, float]]] = {name: [] for name in groups}
    naive: dict[str, list[tuple[float, float]]] = {name: [] for name in groups}
    refused = 0
    for drawn in _disjoint(pool, sets, good, bad, asked.seed):
        plain = _naive(drawn, recipe.policy, asked.escape)
        for name, group in groups.items():
            naive[name].append(group.rates(group.raw, plain))
        try:
            made = choose(drawn, recipe, asked)
        except CheckFailed:
            refused += 1
            continue
        model = made.calibration.confidence_model
        for name, group in groups.items():
            sure = np.array([fitting.sure(part, model) for part in group.parts])
            chosen[name].append(group.rates(sure, made.policy))
    return {
        name: Trials(
            _way(chosen[name], asked.escape) if chosen[name] else None,
            _way(naive[name], asked.escape),
            refused,
        )
        for name in groups
    }


@dataclass(frozen=True)
class _Group:
    """Fresh parts with what no threshold on the confidence changes, one value a part."""

    parts: Sequence[Part]
    bad: Flags
    good_side: Flags
    bad_side: Flags
    raw: Floats

    @classmethod
    def of(cls, parts: Sequence[Part], policy: Policy) -> "_Group":
        sides = [side(part.judgement, policy) for part in parts]
        return cls(
            parts,
            np.array([part.bad for part in parts]),
            np.array([found is Result.OK for found in sides]),
            np.array([found is Result.NOT_OK for found in sides]),
            np.array([fitting.sure(part, None) for part in parts]),
        )

    def rates(self, sure: Floats, policy: Policy) -> tuple[float, float]:
        """Escape rate and coverage at a policy's thresholds, by the confidences `sure`."""
        least = policy.min_confidence
        passes = least if policy.pass_confidence is None else policy.pass_confidence
        rejects = least if policy.reject_confidence is None else policy.reject_confidence
        passed = self.good_side & (sure >= passes)
        rejected = self.bad_side & (sure >= rejects)
        escaped = (passed & self.bad).sum() / max(1, self.bad.sum())
        return float(escaped), float((passed | rejected).mean())


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
