"""How often a promise is kept: many calibrations on disjoint parts, each held to all the others.

A set's calibration knows nothing of the other sets' parts, so these are as fresh to it as any, and
every part is judged once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lad_agent.confidence import ConfidenceModel
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Result
from lad_agent.promise import lower_bound, upper_bound
from lad_agent.recipe import Policy, Recipe
from lad_agent.training.calibration import fitting
from lad_agent.training.calibration.choosing import Asked, choose, side
from lad_agent.training.calibration.parts import Part
from lad_agent.training.evaluation.scores import Flags

THE_OTHERS = "of the other sets"
"""The parts of the pool that are not in a set: drawn as its own, and in no way known to it."""

_LEVEL = 0.95


@dataclass(frozen=True)
class Way:
    """One way of choosing thresholds over all sets that did not refuse.

    `kept` of `made` had an escape rate within the promise on the parts they were measured on, with
    the exact 95% interval of that share; `escape_rate` is the mean over the sets, `worst` the
    highest. `coverage_good` and `coverage_bad` are mean shares of the good and of the bad parts
    that are decided without a person.
    """

    made: int
    kept: int
    interval: tuple[float, float]
    escape_rate: float
    worst: float
    coverage_good: float
    coverage_bad: float


@dataclass(frozen=True)
class Trials:
    """`promised` is this package's way, `naive` the threshold that kept the rate on the same parts.

    `refused` sets found no threshold that keeps the promise; nothing passes there. `learned` of the
    others had parts enough to fit a confidence model; the rest kept the raw confidence.
    """

    promised: Way | None
    naive: Way
    refused: int
    learned: int


def run(
    pool: Sequence[Part],
    elsewhere: Mapping[str, Sequence[Part]],
    recipe: Recipe,
    asked: Asked,
    *,
    sets: int,
    good: int,
    bad: int,
) -> dict[str, Trials]:
    """Calibrate on `sets` disjoint sets of `pool`, each of `good` and `bad` parts.

    What `asked` promises of escapes is then measured on all parts of the pool that are not in the
    set, told as `THE_OTHERS`, and on each group of `elsewhere`. The seed of `asked` mixes the pool.

    Raises:
        UsageError: no escape rate is asked for, a picture is there twice, or the pool is too small.
    """
    if asked.escape is None:
        raise UsageError("trials hold a promise of escapes to its word; give escape")
    used = {part.example.sha256 for part in pool}
    if len(used) < len(pool) or any(
        part.example.sha256 in used for parts in elsewhere.values() for part in parts
    ):
        raise UsageError("a picture is twice in the pool, or elsewhere too; give others")
    groups = {
        name: _Group.of(parts, recipe.policy)
        for name, parts in {THE_OTHERS: pool, **elsewhere}.items()
    }
    chosen: dict[str, list[_Rates]] = {name: [] for name in groups}
    naive: dict[str, list[_Rates]] = {name: [] for name in groups}
    refused = learned = 0
    for indices in _disjoint(pool, sets, good, bad, asked.seed):
        drawn = [pool[i] for i in indices]
        own = {name: indices if name == THE_OTHERS else [] for name in groups}
        plain = _naive(drawn, recipe.policy, asked.escape)
        for name, group in groups.items():
            naive[name].append(group.rates(None, plain, own[name]))
        try:
            made = choose(drawn, recipe, asked)
        except CheckFailed:
            refused += 1
            continue
        model = made.calibration.confidence_model
        learned += model is not None
        for name, group in groups.items():
            chosen[name].append(group.rates(model, made.policy, own[name]))
    return {
        name: Trials(
            _way(chosen[name], asked.escape) if chosen[name] else None,
            _way(naive[name], asked.escape),
            refused,
            learned,
        )
        for name in groups
    }


@dataclass(frozen=True)
class _Rates:
    """Of one set: bad parts passed, of all bad; good and bad ones decided, of their kind."""

    escapes: float
    coverage_good: float
    coverage_bad: float


@dataclass(frozen=True)
class _Group:
    """Parts with what no threshold on the confidence changes, one value a part."""

    bad: Flags
    good_side: Flags
    bad_side: Flags
    shown: fitting.Shown

    @classmethod
    def of(cls, parts: Sequence[Part], policy: Policy) -> "_Group":
        sides = [side(part.judgement, policy) for part in parts]
        return cls(
            np.array([part.bad for part in parts]),
            np.array([found is Result.OK for found in sides]),
            np.array([found is Result.NOT_OK for found in sides]),
            fitting.Shown.of(parts),
        )

    def rates(
        self, model: ConfidenceModel | None, policy: Policy, left_out: Sequence[int]
    ) -> _Rates:
        """What a policy does with all parts but those at the indices `left_out`."""
        passes, rejects = (policy.least_confidence(anomalous) for anomalous in (False, True))
        sure = self.shown.sure(model)
        counted = np.ones(len(sure), dtype=bool)
        counted[left_out] = False
        bad, good = counted & self.bad, counted & ~self.bad
        passed = self.good_side & (sure >= passes)
        decided = passed | (self.bad_side & (sure >= rejects))
        return _Rates(_share(passed, bad), _share(decided, good), _share(decided, bad))


def _share(flags: Flags, among: Flags) -> float:
    return float((flags & among).sum() / max(1, among.sum()))


def _disjoint(pool: Sequence[Part], sets: int, good: int, bad: int, seed: int) -> list[list[int]]:
    """Indices of the parts of each set."""
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    of = {is_bad: [i for i in order if pool[i].bad == is_bad] for is_bad in (False, True)}
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


def lenient(parts: Sequence[Part], policy: Policy, rate: float) -> float:
    """The most lenient threshold at which no more than `rate` of these very bad parts passes.

    1 where there is none. It says nothing of other parts: that is what a promise is for.
    """
    passing = [part for part in parts if side(part.judgement, policy) is Result.OK]
    levels = np.unique([part.judgement.confidence for part in passing])
    harmed = np.sort([part.judgement.confidence or 0.0 for part in passing if part.bad])
    seen = len(harmed) - np.searchsorted(harmed, levels, side="left")
    kept = levels[seen <= rate * sum(part.bad for part in parts)]
    return float(kept[0]) if len(kept) else 1.0


def _naive(parts: Sequence[Part], policy: Policy, rate: float) -> Policy:
    """With the most lenient threshold on the raw confidence."""
    least = lenient(fitting.calibrated(parts, None), policy, rate)
    return policy.model_copy(update={"pass_confidence": least})


def _way(measured: Sequence[_Rates], rate: float) -> Way:
    escapes = [found.escapes for found in measured]
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
        coverage_good=float(np.mean([found.coverage_good for found in measured])),
        coverage_bad=float(np.mean([found.coverage_bad for found in measured])),
    )
