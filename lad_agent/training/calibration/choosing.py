"""Thresholds for a recipe, chosen on parts that the confidence model has not seen."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import numpy as np

from lad_agent.confidence import (
    Calibration,
    Counts,
    Promise,
    Reference,
    percent,
    thresholds,
    void,
)
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.judgement import Judgement, Result
from lad_agent.policy import decide, decide_by_recipe
from lad_agent.promise import upper_bound
from lad_agent.recipe import Policy, Recipe
from lad_agent.software import versions
from lad_agent.training.calibration import fitting, promises
from lad_agent.training.calibration.parts import Part, digest
from lad_agent.training.evaluation.scores import Floats

FEWEST = 20
"""Good parts at least, whatever is promised: fewer say nothing about how many go to people."""

FIRST_WEEK_OVERKILL = 0.05
"""Promised where there are good parts only and nothing else was asked for."""

FIRST_WEEK_PASSES = 0.5
"""Of the good parts that are said to be good, the share that passes while escapes are unknown."""


@dataclass(frozen=True)
class Costs:
    """Of a bad part passed, a good part rejected and a part sent to a person, in one currency.

    `bad_share` is how many of the line's parts are bad: the calibration's mix is rarely the line's.
    """

    miss: float
    overkill: float
    review: float
    bad_share: float

    def __post_init__(self) -> None:
        prices = (self.miss, self.overkill, self.review)
        if not all(0 <= price < math.inf for price in prices) or not any(prices[:2]):
            raise UsageError("costs are 0 or more, and a miss or an overkill costs something")
        if not 0 < self.bad_share < 1:
            raise UsageError(f"the share of bad parts is {self.bad_share:g}; give one within 0-1")


@dataclass(frozen=True)
class Asked:
    """What a calibration is to promise; `escape` and `overkill` are rates, `sure` the certainty.

    `fit_share` of the parts, drawn by content and `seed`, fit the confidence model; none do where
    the promise would then lack parts.
    """

    escape: float | None = 0.01
    overkill: float | None = None
    sure: float = 0.95
    costs: Costs | None = None
    fit_share: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, rate in (("escape", self.escape), ("overkill", self.overkill)):
            if rate is not None and not 0 < rate < 1:
                raise UsageError(
                    f"a promise of {rate:g} {name} cannot be kept by any number of parts; "
                    "give a rate above 0 and below 1, such as 0.01"
                )
        if not 0.5 <= self.sure < 1:
            raise UsageError(f"a certainty of {self.sure:g}; give 0.5 or more and below 1")
        if not 0 <= self.fit_share < 1:
            raise UsageError(f"a fit share of {self.fit_share:g}; give 0 or more and below 1")


@dataclass(frozen=True)
class Zero:
    """The most lenient threshold at which no bad part passed.

    `bound` is the exact one on escapes at the certainty `sure`: that of the largest of n values
    (Wilks 1941), so it holds although the threshold was chosen by these parts.
    """

    threshold: float
    good_passed: int
    bound: float
    sure: float


@dataclass(frozen=True)
class Made:
    """A calibration, the policy it sets, and what it does to the parts it was chosen on.

    `parts` have the calibrated confidence, `results` are theirs under `policy`, `before` under the
    recipe as it was. `changes` are the policy's new values.
    """

    calibration: Calibration
    policy: Policy
    changes: dict[str, float | None]
    parts: tuple[Part, ...]
    results: tuple[Result, ...]
    before: tuple[Result, ...]
    zero: Zero | None
    costs: Costs | None

    @property
    def promised(self) -> str:
        """The promises in words."""
        words = [str(promise) for promise in self.calibration.promises]
        if not self.calibration.chosen_on.bad:
            words.append("escape: unknown")
        return "; ".join(words) or "none: chosen by costs"

    def count(self, *, bad: bool, result: Result) -> int:
        """How many good or bad parts had this result."""
        pairs = zip(self.parts, self.results, strict=True)
        return sum(part.bad == bad and found == result for part, found in pairs)

    def spent(self, results: Sequence[Result]) -> float | None:
        """Expected cost a part where these parts have `results`; None without costs."""
        costs, counts = self.costs, self.calibration.chosen_on
        if costs is None:
            return None
        share = {True: costs.bad_share / counts.bad, False: (1 - costs.bad_share) / counts.good}
        price = {
            (True, Result.OK): costs.miss,
            (False, Result.NOT_OK): costs.overkill,
            (True, Result.NOT_DECIDABLE): costs.review,
            (False, Result.NOT_DECIDABLE): costs.review,
        }
        pairs = [(part.bad, found) for part, found in zip(self.parts, results, strict=True)]
        return sum(share[pair[0]] * price.get(pair, 0.0) for pair in pairs)


def choose(
    parts: Sequence[Part],
    recipe: Recipe,
    asked: Asked,
    *,
    source: str | None = None,
    notes: Sequence[str] = (),
    by: str | None = None,
) -> Made:
    """Fit the confidence model on some parts and choose the thresholds on the others.

    With good parts only, overkill alone is promised, no more than the surer half of them passes,
    and no confidence model is fitted: it would learn that "bad" is always wrong. `source`, where
    the parts come from, `notes` about them and `by`, who answers for it, are kept in the
    calibration.

    Raises:
        CheckFailed: too few parts, no threshold keeps the promise, or there are good parts only
            and the recipe promises escapes already.
    """
    if parts and not any(part.bad for part in parts):
        _refuse_to_take_back(recipe, parts[0].judgement.model)
        overkill = asked.overkill or FIRST_WEEK_OVERKILL
        asked = replace(asked, escape=None, overkill=overkill, fit_share=0.0)
    _require(parts, asked)
    fitted, others, why = _split(parts, asked)
    told = [*notes, *why]
    model = fitting.fit(fitted, asked.seed) if fitted else None
    if fitted and model is None:
        # These parts stay unused: taking them back because few are wrong would flatter the rest.
        told.append(
            f"no confidence model: it takes {fitting.FEWEST} right and {fitting.FEWEST} wrong "
            f"verdicts, and the {len(fitted)} parts set aside have fewer; the raw confidence stays"
        )
        fitted = []
    # Thresholds of a calibration that is gone are on a scale that nobody knows.
    was = replace(recipe, policy=recipe.uncalibrated) if recipe.damaged else recipe
    before = tuple(decide_by_recipe(part.judgement, was)[1].result for part in others)
    judged = fitting.calibrated(others, model)
    changes, kept = _thresholds(judged, recipe.uncalibrated, asked)
    policy = recipe.policy.model_copy(update=changes)
    told += _notes(judged, asked) + _ended(recipe, parts[0].judgement.model, kept)
    told += _set_by_hand(recipe, changes)
    made = Calibration(
        product=recipe.product,
        task_version=recipe.task_version,
        model=parts[0].judgement.model,
        samples=recipe.policy.samples,
        sample_below=recipe.policy.sample_below,
        other_references=recipe.policy.other_references,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        data_sha256=digest(parts),
        by=by,
        software=versions("scikit-learn", "scipy"),
        seed=asked.seed,
        fit_share=asked.fit_share,
        source=source,
        costs=asdict(asked.costs) if asked.costs else None,
        notes=tuple(told),
        fitted_on=_counts(fitted),
        chosen_on=_counts(judged),
        kinds=_kinds(judged),
        confidence_model=model,
        promises=tuple(kept),
        thresholds=thresholds(policy),
        reference=_reference(judged),
    )
    return Made(
        calibration=made,
        policy=policy,
        changes=changes,
        parts=tuple(judged),
        results=tuple(decide(part.judgement, policy).result for part in judged),
        before=before,
        zero=_zero(judged, recipe.policy, asked.sure),
        costs=asked.costs,
    )


def side(judgement: Judgement, policy: Policy) -> Result:
    """What a part is where confidence does not matter: OK and NotOK still await a threshold."""
    free = {"min_confidence": 0.0, "pass_confidence": None, "reject_confidence": None}
    return decide(judgement, policy.model_copy(update=free)).result


def _require(parts: Sequence[Part], asked: Asked) -> None:
    """Refuse too few parts, and say how many more of which kind are needed."""
    least = _least(asked)
    have = {"good": sum(not p.bad for p in parts), "bad": sum(p.bad for p in parts)}
    lacking = [
        f"{least[kind] - have[kind]} more {kind} parts (there are {have[kind]}, "
        f"{least[kind]} are needed{_for(kind, asked)})"
        for kind in ("good", "bad")
        if have[kind] < least[kind]
    ]
    if lacking:
        raise CheckFailed(f"too few parts: label {' and '.join(lacking)}")


def _least(asked: Asked) -> dict[str, int]:
    least = {"good": FEWEST, "bad": 0}
    if asked.overkill is not None:
        least["good"] = max(FEWEST, promises.needed(asked.overkill, asked.sure))
    if asked.costs is not None:
        least["bad"] = FEWEST
    if asked.escape is not None:
        least["bad"] = max(least["bad"], promises.needed(asked.escape, asked.sure))
    return least


def _for(kind: str, asked: Asked) -> str:
    rate, what = (asked.escape, "escapes") if kind == "bad" else (asked.overkill, "overkill")
    if rate is None:
        return ""
    return f" for at most {percent(rate, 1)} {what}, {percent(asked.sure)} sure"


def _refuse_to_take_back(recipe: Recipe, model: str) -> None:
    """Refuse to replace a promise about escapes that is in force, or may be, by none."""
    escapes = [one for one in _in_force(recipe, model) if one.quantity == "escape_rate"]
    if recipe.damaged:
        told = "the recipe's calibration cannot be read, and may promise escapes"
    elif escapes:
        told = f"the recipe promises {escapes[0]}"
    else:
        return
    raise CheckFailed(
        f"{told}, which good parts alone would take back; label bad parts too, or take "
        "calibration, pass_confidence and reject_confidence out of it"
    )


def _split(parts: Sequence[Part], asked: Asked) -> tuple[list[Part], list[Part], list[str]]:
    """Parts that fit and parts that choose, by content: the same whatever their order."""
    fitted = [part for part in parts if _place(part, asked.seed) < asked.fit_share]
    others = [part for part in parts if _place(part, asked.seed) >= asked.fit_share]
    least = _least(asked)
    bad = sum(part.bad for part in others)
    if not fitted or (bad >= least["bad"] and len(others) - bad >= least["good"]):
        return fitted, others, []
    note = (
        "no confidence model: the promise takes all parts; with "
        f"{_more(least, asked.fit_share)} one is fitted"
    )
    return [], list(parts), [note]


def _more(least: dict[str, int], share: float) -> str:
    wanted = [f"{n / (1 - share):.0f} {kind}" for kind, n in least.items() if n]
    return f"some {' and '.join(wanted)} parts"


def _place(part: Part, seed: int) -> float:
    drawn = hashlib.sha256(f"calibrate\0{seed}\0{part.example.sha256}".encode()).digest()
    return int.from_bytes(drawn[:7], "big") / 2**56


def _thresholds(
    parts: Sequence[Part], policy: Policy, asked: Asked
) -> tuple[dict[str, float | None], list[Promise]]:
    """The policy's new values, and the promises that rest on them."""
    changes: dict[str, float | None] = {"pass_confidence": None, "reject_confidence": None}
    kept = []
    for key, result, bad, rate in (
        ("pass_confidence", Result.OK, True, asked.escape),
        ("reject_confidence", Result.NOT_OK, False, asked.overkill),
    ):
        accepted = _sure([p for p in parts if side(p.judgement, policy) is result])
        harmed = _sure([p for p in parts if side(p.judgement, policy) is result and p.bad == bad])
        of = sum(part.bad == bad for part in parts)
        if rate is None and asked.costs is None:
            continue
        if not len(accepted):
            # Nothing is decided that way, so nothing is harmed; a later, less sure part is not.
            chosen = 1.0
        else:
            levels = np.unique(accepted)[::-1]
            if rate is not None:
                levels = promises.keeping(levels, harmed, of, rate, asked.sure)
                if not len(levels):
                    raise CheckFailed(_impossible(key, harmed, of, rate, asked.sure))
            chosen = float(levels[-1])
            if asked.costs is not None:
                chosen = _cheapest(levels, accepted, harmed, parts, asked.costs, bad=bad)
        changes[key] = chosen
        if rate is not None:
            kept.append(
                Promise(
                    quantity="escape_rate" if bad else "overkill_rate",
                    at_most=rate,
                    sure=asked.sure,
                    seen=int((harmed >= chosen).sum()),
                    of=of,
                )
            )
    if not any(part.bad for part in parts):
        changes["pass_confidence"] = _first_week(parts, policy)
    return changes, kept


def _sure(parts: Sequence[Part]) -> Floats:
    return np.array([part.judgement.confidence for part in parts], dtype=np.float64)


def _impossible(key: str, harmed: Floats, of: int, rate: float, sure: float) -> str:
    what, kind = ("pass", "bad") if key == "pass_confidence" else ("be rejected", "good")
    top = int((harmed == harmed.max()).sum())
    least = math.ceil(1000 * upper_bound(top, of, sure)) / 1000
    return (
        f"no threshold keeps {percent(rate, 1)}, {percent(sure)} sure: {top} of {of} {kind} parts "
        f"would {what} as the surest of all; mend the model, or promise less, and label fresh "
        "parts to calibrate on alone: these have been looked at (they would allow "
        f"{percent(least, 1)})"
    )


def _cheapest(
    levels: Floats, accepted: Floats, harmed: Floats, parts: Sequence[Part], costs: Costs, *,
    bad: bool,
) -> float:  # fmt: skip
    """The level of the least expected cost a part; of equals the strictest."""
    spent = cost_of(levels, accepted, harmed, parts, costs, bad=bad)
    alone = cost_of(np.array([np.inf]), accepted, harmed, parts, costs, bad=bad)
    best = int(np.argmin(spent))
    if spent[best] > alone[0]:
        verdict = "good" if bad else "bad"
        raise CheckFailed(
            f"with these costs a person for every part said to be {verdict} is cheapest; "
            "mend the model, or look at the costs again"
        )
    return float(levels[best])


def cost_of(
    levels: Floats, accepted: Floats, harmed: Floats, parts: Sequence[Part], costs: Costs, *,
    bad: bool,
) -> Floats:  # fmt: skip
    """Expected cost a part at each level of one side, shape [levels].

    `accepted` are the confidences of all verdicts of the side, `harmed` those whose acceptance is a
    miss (`bad`) or an overkill; what is not accepted is reviewed.
    """
    count = {True: sum(p.bad for p in parts), False: sum(not p.bad for p in parts)}
    weight = {True: costs.bad_share / count[True], False: (1 - costs.bad_share) / count[False]}
    price = costs.miss if bad else costs.overkill
    levels = np.asarray(levels)[:, None]
    below_harmed = (harmed[None, :] < levels).sum(1)
    below_all = (accepted[None, :] < levels).sum(1)
    fine = weight[not bad] * (below_all - below_harmed) * costs.review
    harm = weight[bad] * (below_harmed * costs.review + (len(harmed) - below_harmed) * price)
    total: Floats = fine + harm
    return total


def _first_week(parts: Sequence[Part], policy: Policy) -> float:
    """The mildest level that at most the surer half of the passing reaches, and never milder than
    the recipe's own."""
    passing = _sure([p for p in parts if side(p.judgement, policy) is Result.OK])
    if not len(passing):
        return 1.0
    levels = [*np.unique(passing), np.nextafter(passing.max(), 1.0)]
    most = FIRST_WEEK_PASSES * len(passing)
    level = next((found for found in levels if (passing >= found).sum() <= most), None)
    if level is None:
        surest = int((passing == passing.max()).sum())
        product = parts[0].example.product
        raise CheckFailed(
            f"{surest} of {len(passing)} good parts are as sure as can be, and no threshold sends "
            f"half of them to people; until bad parts are labelled, lad-agent hold on {product} "
            "(before its first part: hold on all) sends all"
        )
    return max(policy.least_confidence(anomalous=False), float(level))


def _zero(parts: Sequence[Part], policy: Policy, sure: float) -> Zero | None:
    passing = [p for p in parts if side(p.judgement, policy) is Result.OK]
    bad = sum(part.bad for part in parts)
    top = max((p.judgement.confidence or 0.0 for p in passing if p.bad), default=-1.0)
    above = [p.judgement.confidence or 0.0 for p in passing if (p.judgement.confidence or 0) > top]
    if not bad or not above:
        return None
    return Zero(min(above), len(above), promises.promisable(bad, sure), sure)


def _kinds(parts: Sequence[Part]) -> dict[str, int]:
    """How many parts of each defect: its kind, or its cause where the kind is not known."""
    found = Counter(
        part.example.cause or "bad" if part.example.kind == "bad" else part.example.kind
        for part in parts
    )
    return dict(sorted(found.items()))


def _reference(parts: Sequence[Part]) -> Reference:
    good = [part.judgement for part in parts if not part.bad]
    return Reference(
        confidence=_quantiles([j.confidence for j in good]),
        anomaly_score=_quantiles([j.anomaly_score for j in good]),
    )


def _counts(parts: Sequence[Part]) -> Counts:
    bad = sum(part.bad for part in parts)
    return Counts(good=len(parts) - bad, bad=bad)


def _quantiles(values: Sequence[float | None]) -> tuple[float, ...]:
    there = [value for value in values if value is not None]
    if not there:
        raise CheckFailed("no good part has a verdict; look at what the reasoner answers first")
    return tuple(map(float, np.quantile(there, np.linspace(0, 1, 101))))


def _ended(recipe: Recipe, model: str, kept: Sequence[Promise]) -> list[str]:
    """Promises in force that the new calibration does not renew."""
    renewed = {promise.quantity for promise in kept}
    if recipe.damaged:
        return [
            "the recipe's calibration could not be read: whatever it promised ends, unless it is "
            "promised here"
        ]
    return [
        f"the recipe's promise of {promise} ends: it was not asked for again"
        for promise in _in_force(recipe, model)
        if promise.quantity not in renewed
    ]


def _set_by_hand(recipe: Recipe, changes: Mapping[str, float | None]) -> list[str]:
    """A threshold of an uncalibrated recipe that ends, and what stands in its place."""
    own, least = recipe.policy.reject_confidence, recipe.policy.min_confidence
    if recipe.calibration or recipe.damaged or own is None or changes.get("reject_confidence", own):
        return []
    return [
        f"reject_confidence {own:g} ends, which was set by hand: verdicts of bad stand by "
        f"min_confidence {least:g}; promise --overkill to choose it, or set it again"
    ]


def _in_force(recipe: Recipe, model: str) -> tuple[Promise, ...]:
    made = recipe.calibration
    return () if made is None or void(made, recipe, model) is not None else made.promises


def _notes(parts: Sequence[Part], asked: Asked) -> list[str]:
    """What a reader must know about the numbers, a sentence each."""
    notes = [
        "in-sample: the counts are of parts that the thresholds were chosen on; the promise is for "
        "fresh ones"
    ]
    if looked_at := sum(part.example.split == "validation" for part in parts):
        notes.append(
            f"in-sample: {looked_at} pictures are for validation, where a training may have "
            "chosen its model by them"
        )
    if not any(part.bad for part in parts):
        notes.append(
            "without bad parts nothing is known about escapes; no more than the surer half of "
            "the good parts passes until bad ones are labelled"
        )
    if asked.costs is not None:
        promised = "" if asked.escape is not None else "; no escape rate is promised"
        notes.append(
            "in-sample: the costs are those of the parts that the thresholds were chosen on"
            + promised
        )
    return notes
