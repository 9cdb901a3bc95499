"""How often a promise is kept: many calibrations on disjoint parts, each held to all the others.

A set's calibration knows nothing of the other sets' parts, so these are as fresh to it as any, and
every part is judged once.
"""

import math
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
    """One way of choosing thresholds, over all `sets`.

    What Learn then Test bounds by 1 - `sure` is P(a promise is given and broken) over all tries: so
    `held` counts the sets whose promise was kept or refused. Of the `given` ones alone `kept` were
    kept; of these nothing is promised, since the sets that are not refused are the luckier ones.
    Both come with the exact 95% interval of their share. A promise is kept where the harm on the
    parts it was measured on lies within it: bad parts passed, of the bad, or good ones rejected, of
    the good. `harm_rate` is its mean over the given, `worst` the highest, `coverage_good` and
    `coverage_bad` the mean shares of the good and of the bad parts that are decided without a
    person; not a number where all sets were refused.
    """

    sets: int
    given: int
    kept: int
    harm_rate: float
    worst: float
    coverage_good: float
    coverage_bad: float

    @property
    def held(self) -> int:
        return self.sets - self.given + self.kept

    @property
    def held_interval(self) -> tuple[float, float]:
        return _interval(self.held, self.sets)

    @property
    def kept_interval(self) -> tuple[float, float]:
        return _interval(self.kept, self.given)


@dataclass(frozen=True)
class Trials:
    """`promised` is this package's way, `naive` the threshold that kept the rate on the same parts.

    `refused` sets found no threshold that keeps the promise; nothing is decided there. `learned` of
    the others had parts enough to fit a confidence model; the rest kept the raw confidence.
    """

    promised: Way
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

    What `asked` promises, of escapes or of overkill, is then measured on all parts of the pool that
    are not in the set, told as `THE_OTHERS`, and on each group of `elsewhere`. The seed of `asked`
    mixes the pool.

    Raises:
        UsageError: not one rate is asked for, a picture is there twice, or the pool is too small.
    """
    rates = [rate for rate in (asked.escape, asked.overkill) if rate is not None]
    if len(rates) != 1:
        raise UsageError("trials hold one promise to its word; give escape or overkill")
    (rate,), of_bad = rates, asked.escape is not None
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
        plain = _naive(drawn, recipe.policy, rate, bad=of_bad)
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
            _way(chosen[name], sets, rate, bad=of_bad),
            _way(naive[name], sets, rate, bad=of_bad),
            refused,
            learned,
        )
        for name in groups
    }


@dataclass(frozen=True)
class _Rates:
    """Of one set: bad parts passed, of all bad, good ones rejected, of all good; good and bad ones
    decided, of their kind."""

    escapes: float
    overkill: float
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
        rejected = self.bad_side & (sure >= rejects)
        decided = passed | rejected
        return _Rates(
            _share(passed, bad),
            _share(rejected, good),
            _share(decided, good),
            _share(decided, bad),
        )


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


def lenient(parts: Sequence[Part], policy: Policy, rate: float, *, bad: bool = True) -> float:
    """The most lenient threshold at which no more than `rate` of these very bad parts passes, or
    of these very good ones is rejected.

    Infinite where there is none: a confidence of 1 is sure enough for a threshold of 1. It says
    nothing of other parts: that is what a promise is for.
    """
    verdict = Result.OK if bad else Result.NOT_OK
    stands = [part for part in parts if side(part.judgement, policy) is verdict]
    levels = np.unique([part.judgement.confidence for part in stands])
    harmed = np.sort([part.judgement.confidence or 0.0 for part in stands if part.bad == bad])
    seen = len(harmed) - np.searchsorted(harmed, levels, side="left")
    kept = levels[seen <= rate * sum(part.bad == bad for part in parts)]
    return float(kept[0]) if len(kept) else math.inf


def _naive(parts: Sequence[Part], policy: Policy, rate: float, *, bad: bool) -> Policy:
    """With the most lenient threshold on the raw confidence."""
    least = lenient(fitting.calibrated(parts, None), policy, rate, bad=bad)
    return policy.model_copy(update={f"{'pass' if bad else 'reject'}_confidence": least})


def _way(measured: Sequence[_Rates], sets: int, rate: float, *, bad: bool) -> Way:
    harm = [found.escapes if bad else found.overkill for found in measured]
    return Way(
        sets=sets,
        given=len(harm),
        kept=sum(found <= rate for found in harm),
        harm_rate=_mean(harm),
        worst=max(harm, default=math.nan),
        coverage_good=_mean([found.coverage_good for found in measured]),
        coverage_bad=_mean([found.coverage_bad for found in measured]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _interval(seen: int, of: int) -> tuple[float, float]:
    tail = 1 - (1 - _LEVEL) / 2
    return lower_bound(seen, of, tail), upper_bound(seen, of, tail)
