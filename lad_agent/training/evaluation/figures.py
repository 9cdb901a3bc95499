"""The figures of a group of judged images."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lad_agent.training.evaluation import bootstrap, scores
from lad_agent.training.evaluation.bootstrap import Interval, Resampling
from lad_agent.training.evaluation.joined import SOURCES, Joined, Judged, join
from lad_agent.training.evaluation.scores import Floats

Metrics = dict[str, Any]


def evaluate(results: Path, truth: Path, resampling: Resampling | None = None) -> Metrics:
    """Figures of `results` (a results.jsonl) against the truth under the folder `truth`.

    Raises:
        UsageError: a file is missing or not of its form, or no image of the results has a truth.
    """
    return figures_of(join(results, truth), resampling)


def figures_of(joined: Joined, resampling: Resampling | None = None) -> Metrics:
    """Figures of all, of each product and of each stratum; with intervals where resampled."""
    judged = joined.judged
    products = sorted({j.truth.product for j in judged})
    return {
        "overall": metrics(judged, resampling),
        "products": {
            p: metrics([j for j in judged if j.truth.product == p], resampling) for p in products
        },
        "strata": {
            f"{p}/{s}": verdicts(
                [j for j in judged if (j.truth.product, j.truth.stratum) == (p, s)]
            )
            for p, s in sorted({(j.truth.product, j.truth.stratum) for j in judged})
        },
        "rule_difference": by_difference(judged),
        "without_truth": joined.without_truth,
        "repeated": joined.repeated,
        "for_training": sum(j.truth.for_training for j in judged),
        "bootstrap": dataclasses.asdict(resampling) | {"level": bootstrap.LEVEL}
        if resampling
        else None,
    }


def metrics(judged: Sequence[Judged], resampling: Resampling | None = None) -> Metrics:
    """All figures of one group, logical and structural faults apart, baselines beside them."""
    good = [j for j in judged if not j.truth.anomalous]
    kinds = {
        kind: verdicts([*good, *faults], resampling)
        for kind in ("logical", "structural")
        if (faults := [j for j in judged if j.truth.kind == kind])
    }
    contradicted = [j for j in judged if j.evidence == "contradicted"]
    return {
        **verdicts(judged, resampling),
        **kinds,
        "evidence_check": {
            "contradicted": len(contradicted),
            "catch_rate": _share(
                [j for j in judged if not j.right], lambda j: j.evidence == "contradicted"
            ),
            "cost": _share([j for j in judged if j.right], lambda j: j.evidence == "contradicted"),
        },
        "confidence_sources": {
            source: knowing(source, holders, resampling)
            for source in SOURCES
            if (holders := having(source, judged))
        },
        "baselines": {
            "always_yes": verdicts([_always(j, True) for j in judged]),
            "always_no": verdicts([_always(j, False) for j in judged]),
        },
    }


def verdicts(judged: Sequence[Judged], resampling: Resampling | None = None) -> Metrics:
    """Figures of verdicts and results of one group; None where a class is absent.

    With `resampling` also `intervals`: [lower, upper] of every rate, by product and kind.
    """
    bad = np.array([j.truth.anomalous for j in judged], dtype=bool)
    figures = _figures(judged)

    found = {
        "n": len(judged),
        "good": int((~bad).sum()),
        "anomalous": int(bad.sum()),
        **_plain(figures(np.ones((1, len(judged))))),
    }
    if resampling is None or not judged:
        return found
    ends = bootstrap.intervals(figures, _strata(judged), resampling)
    return found | {"intervals": ends | _at_border([judged])}


def paired(
    before: Sequence[Sequence[Judged]], after: Sequence[Sequence[Judged]], resampling: Resampling
) -> Metrics:
    """How far every figure of `verdicts` moves from `before` to `after`, as a mean over runs.

    Both hold one list a run, all of the same pictures in the same order. Of each figure:
    `before`, `after`, `difference`, and its `interval`, for which pictures are drawn anew for all
    runs together, and of several runs the pairs of them.

    A rate that no picture has lowered may still be lowered by the next ones. Of n pictures without
    one that did, up to 1 - 0.025^(1/n) would (`bootstrap.at_border`); that distance and the
    bootstrap's are joined by the root of the sum of their squares, as are both classes' for
    balanced accuracy (Newcombe 1998, method 10; Zou and Donner 2008). The same upwards. F1, AUROC
    and shares of what was decided, passed or caught, where that is not the same, have the
    bootstrap's interval alone.
    """
    one, two = _mean_figures(before, resampling.seed), _mean_figures(after, resampling.seed)

    def moved(weights: Floats) -> dict[str, Floats]:
        first, second = one(weights), two(weights)
        return {name: second[name] - first[name] for name in first}

    ends = bootstrap.intervals(moved, _strata(before[0]), resampling)
    first, second = _means(before), _means(after)
    down, up = _unseen(before, after), _unseen(after, before)
    return {
        name: {
            "before": first[name],
            "after": second[name],
            "difference": (moves := _difference(first[name], second[name])),
            "interval": _widened(ends[name], moves, down.get(name, 0.0), up.get(name, 0.0)),
        }
        for name in ends
    }


def over_runs(runs: Sequence[Sequence[Judged]], resampling: Resampling) -> Metrics:
    """Every figure of `verdicts` as a mean over runs (of the same pictures in the same order), and
    `intervals`, for which pictures and runs are drawn anew."""
    figures = _mean_figures(runs, resampling.seed)
    ends = bootstrap.intervals(figures, _strata(runs[0]), resampling) | _at_border(runs)
    return {"n": len(runs[0]), "runs": len(runs), **_means(runs), "intervals": ends}


def knowing(source: str, judged: Sequence[Judged], resampling: Resampling | None = None) -> Metrics:
    """How well one source of confidence knows the errors of verdicts that all have it.

    `knows_its_errors` is the AUROC of the confidence for right against wrong verdicts.
    """
    confidence = np.array([j.confidences[source] for j in judged])
    right = np.array([j.right for j in judged])

    def figures(weights: Floats) -> dict[str, Floats]:
        return {
            "knows_its_errors": scores.area(confidence, right, weights),
            "aurc": scores.area_under_risk_coverage(confidence, right, weights),
            "expected_calibration_error": scores.calibration_error(confidence, right, weights),
            "brier": scores.brier(confidence, right, weights),
            **{
                f"coverage_at_{error}": scores.coverage_at(error, confidence, right, weights)
                for error in scores.ERRORS
            },
        }

    found = {
        "n": len(judged),
        "wrong": int((~right).sum()),
        **_plain(figures(np.ones((1, len(judged))))),
    }
    if resampling is None:
        return found
    return found | {"intervals": bootstrap.intervals(figures, _strata(judged), resampling)}


def having(source: str, judged: Sequence[Judged]) -> list[Judged]:
    """Those that have a verdict, and this source of confidence in it."""
    return [j for j in judged if j.anomalous is not None and source in j.confidences]


def by_difference(judged: Sequence[Judged]) -> Metrics:
    """Good parts, and logical faults by how far a count is off its rule (0: not a count)."""
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        if j.truth.kind == "good":
            groups.setdefault("good", []).append(j)
        elif j.truth.kind == "logical" and j.truth.difference is not None:
            groups.setdefault(str(min(j.truth.difference, 4)), []).append(j)
    return {
        name: {
            "n": len(group),
            "right": _share(group, lambda j: j.right),
            "passed": _share(group, lambda j: j.result == "OK"),
        }
        for name, group in sorted(groups.items())
    }


def _figures(judged: Sequence[Judged]) -> Callable[[Floats], dict[str, Floats]]:
    """From weights [draws, n] to every figure of `verdicts`, [draws] each."""
    rates = _rates(judged)
    bad = np.array([j.truth.anomalous for j in judged], dtype=bool)
    score = np.array([j.score for j in judged])

    def figures(weights: Floats) -> dict[str, Floats]:
        values = {
            name: scores.ratio(weights @ part, weights @ whole)
            for name, (part, whole) in rates.items()
        }
        balanced = (values.pop("hit") + values.pop("clear")) / 2
        auroc = scores.area(score, bad, weights) if len(judged) else np.full(1, np.nan)
        return {"balanced_accuracy": balanced, "auroc": auroc, **values}

    return figures


def _mean_figures(
    runs: Sequence[Sequence[Judged]], seed: int
) -> Callable[[Floats], dict[str, Floats]]:
    """As `_figures`, each the mean over runs that are drawn anew for every row of the weights.

    Equal seeds draw equal runs: the differences of two such means are those of pairs.
    """
    each = [_figures(judged) for judged in runs]
    rng = np.random.default_rng([seed, len(runs)])

    def figures(weights: Floats) -> dict[str, Floats]:
        share = np.full(len(each), 1 / len(each))
        drawn = rng.multinomial(len(each), share, size=len(weights)) / len(each)
        values = [one(weights) for one in each]
        return {
            name: sum((drawn[:, i] * one[name] for i, one in enumerate(values)), np.zeros(1))
            for name in values[0]
        }

    return figures


def _means(runs: Sequence[Sequence[Judged]]) -> Metrics:
    """The plain figures as means over runs; None where a run leaves one undefined."""
    found = [_plain(_figures(judged)(np.ones((1, len(judged))))) for judged in runs]
    values = {name: [one[name] for one in found] for name in found[0]}
    return {n: None if None in v else sum(v) / len(v) for n, v in values.items()}


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _at_border(runs: Sequence[Sequence[Judged]]) -> dict[str, Interval]:
    """The exact interval of every rate that is 0 in all runs or 1 in all; runs of the same pictures
    are no further pictures."""
    rates = [_rates(judged) for judged in runs]
    exact: dict[str, Interval] = {}
    for name in rates[0].keys() - {"f1"}:
        sums = [(part.sum(), whole.sum()) for part, whole in (one[name] for one in rates)]
        of = int(min(whole for _, whole in sums))
        if all(part == 0 for part, _ in sums):
            exact[name] = bootstrap.at_border(0, of)
        elif all(part == whole for part, whole in sums):
            exact[name] = bootstrap.at_border(of, of)
    hit, clear = exact.pop("hit", None), exact.pop("clear", None)
    if hit and clear:
        exact["balanced_accuracy"] = [(hit[0] + clear[0]) / 2, (hit[1] + clear[1]) / 2]
    return exact


def _unseen(
    before: Sequence[Sequence[Judged]], after: Sequence[Sequence[Judged]]
) -> dict[str, float]:
    """How far pictures of a kind that was not seen may lower a rate: of those rates that are of the
    same pictures in all runs, 0 where one has lowered it."""
    one, two = ([_rates(judged) for judged in runs] for runs in (before, after))
    reach = {}
    for name in one[0].keys() - {"f1"}:
        whole = one[0][name][1]
        if whole.any() and all(np.array_equal(rates[name][1], whole) for rates in (*one, *two)):
            moves = [b[name][0] - a[name][0] for a, b in zip(one, two, strict=True)]
            reach[name] = _reach(np.array(moves)[:, whole > 0])
    hit, clear = reach.pop("hit", None), reach.pop("clear", None)
    if hit is not None and clear is not None:
        reach["balanced_accuracy"] = math.hypot(hit, clear) / 2
    return reach


def _reach(moves: Floats) -> float:
    """As `_unseen`, of the moves -1, 0 and 1, [runs, n]. Where all are upwards, each one that was
    not is one upwards less and one downwards more."""
    if (moves < 0).any():
        return 0.0
    _, reach = bootstrap.at_border(0, moves.shape[1]) or (0.0, 0.0)
    return 2 * reach if (moves > 0).all() else reach


def _widened(ends: Interval, middle: float | None, down: float, up: float) -> Interval:
    """An interval with that much further to go at its ends, which do not move together."""
    if ends is None or middle is None:
        return ends
    low, high = ends
    return [
        middle - math.hypot(max(0.0, middle - low), down) if down else low,
        middle + math.hypot(max(0.0, high - middle), up) if up else high,
    ]


def _rates(judged: Sequence[Judged]) -> dict[str, tuple[Floats, Floats]]:
    """Every rate as the parts that count in it and the parts it is a share of, shape [n] each."""

    def column(holds: Callable[[Judged], bool]) -> Floats:
        return np.array([holds(j) for j in judged], dtype=np.float64)

    bad = column(lambda j: j.truth.anomalous)
    good = 1 - bad
    yes, no = column(lambda j: j.anomalous is True), column(lambda j: j.anomalous is False)
    passed, rejected = column(lambda j: j.result == "OK"), column(lambda j: j.result == "NotOK")
    caught = bad * yes * column(lambda j: bool(j.truth.rules))
    every = np.ones(len(judged))
    return {
        "hit": (bad * yes, bad),
        "clear": (good * no, good),
        "accuracy": (bad * yes + good * no, every),
        # found / (found + (false alarms + missed) / 2), no answer about a good part an alarm
        "f1": (2 * bad * yes, (bad * yes + good * (1 - no) + bad) * bad.any()),
        "escape_rate": (bad * passed, bad),
        "escape_rate_decided": (bad * passed, bad * (passed + rejected)),
        "overkill_rate": (good * rejected, good),
        "outgoing_defect_rate": (bad * passed, passed),
        "coverage": (passed + rejected, every),
        "well_formed": (column(lambda j: j.well_formed), every),
        "cause_named": (caught * column(lambda j: j.rule in j.truth.rules), caught),
    }


def _strata(judged: Sequence[Judged]) -> list[tuple[bool, str, str]]:
    """Class, product and kind of each. A stratum of one picture would never vary: it is drawn with
    the others of its class that are as small, and with the next larger one (Cochran 1977, 5A.12).
    """
    own = [(j.truth.anomalous, j.truth.product, j.truth.kind) for j in judged]
    sizes = Counter(own)
    joined: dict[tuple[bool, str, str], tuple[bool, str, str]] = {}
    for anomalous in (False, True):
        mine = sorted((s for s in sizes if s[0] is anomalous), key=lambda s: (sizes[s], s))
        lone = sum(sizes[s] == 1 for s in mine)
        joined |= dict.fromkeys(mine[: lone + 1], mine[0]) if lone else {}
    return [joined.get(stratum, stratum) for stratum in own]


def _plain(values: Mapping[str, Floats]) -> Metrics:
    return {
        name: None if math.isnan(value[0]) else float(value[0]) for name, value in values.items()
    }


def _always(judged: Judged, answer: bool) -> Judged:
    result = "NotOK" if answer else "OK"
    return Judged(judged.truth, answer, 0.5, result, None, True, "unchecked")


def _share(group: Sequence[Judged], holds: Callable[[Judged], bool]) -> float | None:
    return sum(map(holds, group)) / len(group) if group else None
