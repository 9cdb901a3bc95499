"""Whether a promise is being kept: audits of decided parts, and drift since the calibration.

A calibration promises escapes (passed among the bad) or overkill (rejected among the good). Audits
show another quantity: bad among the passed, good among the rejected. `allowed` turns the one into
the other with the line's own counts, so that like is held against like.

Bounds that are shown are exact at one look (Clopper and Pearson). An alarm rests on bounds that
hold at all looks together, for a line is looked at again and again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from lad_agent.errors import UsageError

SURE = 0.95
"""Certainty of each bound that is shown."""

ALARM_SURE = 0.99
"""With this certainty a kept promise never raises an alarm, however long it is watched."""

FEWEST = 200
"""Parts below which nothing is said of drift."""

DRIFT_P, DRIFT_PSI = 1e-4, 0.25
"""Drift is an alarm where the p-value is below the one and PSI above the other."""

RESOLUTION = 3
"""Decimals of scores and confidences: what differs less has not drifted."""

Bound = Callable[[int, int, float], float]


@dataclass(frozen=True)
class Audited:
    """Parts of one result that had the same probability of an audit.

    `parts` is all of them, `audited` those whose audit is decided, `found` those of the audited
    that are what is counted: the bad among the passed, the good among the rejected.
    """

    parts: int
    audited: int
    found: int

    def __post_init__(self) -> None:
        if not 0 <= self.found <= self.audited <= self.parts:
            raise UsageError(
                f"{self.found} found in {self.audited} audits of {self.parts} parts: "
                "count them again"
            )


@dataclass(frozen=True)
class Estimate:
    """A rate with one-sided bounds, each of which holds with the certainty asked for."""

    rate: float | None
    lower: float
    upper: float


@dataclass(frozen=True)
class Line:
    """What a line has shown of the parts that one promise is about.

    `harmed` are those with the result that does the harm (OK for escapes, NotOK for overkill),
    `spared` those with the other, both by their probability of an audit, and counting the promise's
    class (bad parts for escapes, good ones for overkill). `undecided` are the escalated parts that
    are of that class or not looked at yet, `known` those of them that people found to be of it;
    `parts` is how many there are in all.
    """

    harmed: tuple[Audited, ...]
    spared: tuple[Audited, ...]
    undecided: int
    parts: int
    known: int = 0


@dataclass(frozen=True)
class Drift:
    """How far two samples are apart: Kolmogorov and Smirnov, and the population stability index."""

    ks: float
    ks_p_value: float
    psi: float

    @property
    def alarming(self) -> bool:
        """Surely apart, and far."""
        return self.ks_p_value < DRIFT_P and self.psi > DRIFT_PSI


def lower_bound(seen: int, n: int, sure: float) -> float:
    """The exact one-sided lower bound of Clopper and Pearson 1934 on a rate."""
    return 0.0 if seen == 0 else float(special.betaincinv(seen, n - seen + 1, 1 - sure))


def upper_bound(seen: int, n: int, sure: float) -> float:
    """The exact one-sided bound of Clopper and Pearson 1934 on a rate; 1 where nothing is known."""
    return 1.0 if seen >= n else float(special.betaincinv(seen + 1, n - seen, sure))


def lower_at_all_times(seen: int, n: int, sure: float) -> float:
    """A lower bound that, with certainty `sure`, is right at every `n` that is ever looked at.

    The binomial likelihood mixed over all rates, against that of the true rate, is a martingale
    that begins at 1, so it ever reaches 1 / (1 - `sure`) with probability 1 - `sure` at the most
    (Ville 1939; Robbins 1970, Annals of Mathematical Statistics 41, 1397-1409).

    >>> lower_at_all_times(5, 100, 0.95) < lower_bound(5, 100, 0.95)
    True
    """
    from scipy.optimize import brentq

    if seen == 0:
        return 0.0

    def left(rate: float) -> float:
        likelihood = special.xlogy(seen, rate) + special.xlog1py(n - seen, -rate)
        mixed = special.betaln(seen + 1, n - seen + 1)
        return float(mixed - likelihood + math.log1p(-sure))

    return float(brentq(left, 1e-300, seen / n))


def upper_at_all_times(seen: int, n: int, sure: float) -> float:
    """The upper bound to `lower_at_all_times`; 1 where nothing is known."""
    return 1.0 - lower_at_all_times(n - seen, n, sure)


def share(
    groups: Sequence[Audited],
    sure: float,
    *,
    lower: Bound = lower_bound,
    upper: Bound = upper_bound,
) -> Estimate:
    """What share of all `parts` is what the audits count, each group weighted by its parts.

    Every audited part stands for as many as its group has for one audited: the inverse of its
    probability (Horvitz and Thompson 1952). The rate is that of the groups with audits, None where
    there is none. The bounds are the weighted sums of the groups' bounds, each at a part of
    1 - `sure` (Bonferroni), so that they hold for any number of groups; a group never audited may
    be anything.
    """
    groups = [group for group in groups if group.parts]
    total = sum(group.parts for group in groups)
    if not total:
        return Estimate(None, 0.0, 1.0)
    each = 1 - (1 - sure) / len(groups)
    low = sum(g.parts * lower(g.found, g.audited, each) for g in groups) / total
    high = sum(g.parts * upper(g.found, g.audited, each) for g in groups) / total
    seen = [group for group in groups if group.audited]
    weight = sum(group.parts for group in seen)
    found = sum(group.parts * group.found / group.audited for group in seen)
    return Estimate(found / weight if weight else None, low, high)


def allowed(at_most: float, line: Line, *, sure: float = ALARM_SURE) -> float:
    """The most of the harmed result that may be of the promise's class, by what the line shows.

    Of X parts harmed and Y of the same class not harmed, X / (X + Y) <= r means that X is at most
    r / (1 - r) x Y. Y counts escalated parts that nobody has looked at as of the class, and is the
    most that it can be with certainty `sure` at all times, so this errs to the allowing side.
    """
    harmed = sum(group.parts for group in line.harmed)
    if at_most >= 1 or not harmed:
        return 1.0
    each = 1 - (1 - sure) / 2
    most = share(line.spared, each, lower=lower_at_all_times, upper=upper_at_all_times).upper
    of_class = line.undecided + math.ceil(most * sum(group.parts for group in line.spared))
    of_all = upper_at_all_times(min(of_class, line.parts), line.parts, each)
    return min(1.0, at_most / (1 - at_most) * of_all * line.parts / harmed)


def broken(at_most: float, line: Line, *, sure: float = ALARM_SURE) -> bool:
    """Whether more harm is done than `at_most`, with certainty `sure` over all looks together."""
    third = (1 - sure) / 3
    found = share(line.harmed, 1 - third, lower=lower_at_all_times, upper=upper_at_all_times)
    return found.lower > allowed(at_most, line, sure=1 - 2 * third)


def kept(at_most: float, line: Line, *, sure: float = SURE) -> bool:
    """Whether no more than `at_most` is harmed, with certainty `sure` at one look.

    As `allowed`, turned round: the most that can be harmed against the least that is known of the
    class not to be. What nobody has looked at speaks for neither, so few audits show nothing.
    """
    each = 1 - (1 - sure) / 2
    if at_most >= 1:
        return True
    most = share(line.harmed, each).upper * sum(group.parts for group in line.harmed)
    least = share(line.spared, each).lower * sum(group.parts for group in line.spared)
    return most <= at_most / (1 - at_most) * (line.known + least)


def drift(reference: Sequence[float], now: Sequence[float], of: int | None = None) -> Drift:
    """The two-sample test of Kolmogorov and Smirnov (Smirnov 1939), and PSI beside it.

    `reference` are values, or quantiles of `of` values: it counts as no more than it is made from.

    Raises:
        UsageError: one of them is empty.
    """
    if not len(reference) or not len(now):
        raise UsageError("drift wants values on both sides; wait for parts to be inspected")
    from scipy import stats

    count = len(reference) if of is None else max(1, min(of, len(reference)))
    # A single value stands for the middle, not for the least.
    at = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    before = np.round(np.quantile(reference, at), RESOLUTION)
    after = np.round(np.asarray(now, dtype=np.float64), RESOLUTION)
    tested = stats.ks_2samp(before, after, method="asymp")
    return Drift(
        float(tested.statistic), float(tested.pvalue), psi(before.tolist(), after.tolist())
    )


def psi(reference: Sequence[float], now: Sequence[float], bins: int = 10) -> float:
    """Population stability index: sum of (q - p) ln(q / p) over the reference's quantile bins.

    Of credit scoring (Siddiqi 2006): below 0.1 little has changed, above 0.25 much has. Half a
    part is added to every bin, so that an empty one does not make it infinite.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for values in (reference, now):
        counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        shares.append((counts + 0.5) / (counts + 0.5).sum())
    p, q = shares
    return float(((q - p) * np.log(q / p)).sum())
