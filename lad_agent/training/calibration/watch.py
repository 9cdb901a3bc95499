"""Whether a promise is being kept: audits of passed parts, and drift since the calibration.

The quantity watched is the outgoing defect rate, bad among the passed; a calibration promises
escapes, passed among the bad. `outgoing_defect_rate` turns the one into the other, so that like is
held against like.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lad_agent.errors import UsageError
from lad_agent.training.calibration import promises


@dataclass(frozen=True)
class Audited:
    """Passed parts that had the same probability of an audit: all, those audited, those bad."""

    passed: int
    audited: int
    bad: int

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.audited <= self.passed:
            raise UsageError(
                f"{self.bad} bad of {self.audited} audited of {self.passed} passed parts: "
                "count them again"
            )


@dataclass(frozen=True)
class Estimate:
    """A rate with one-sided bounds, each of which holds with the certainty asked for."""

    rate: float | None
    lower: float
    upper: float


@dataclass(frozen=True)
class Drift:
    """How far two samples are apart: Kolmogorov and Smirnov, and the population stability index."""

    ks: float
    ks_p_value: float
    psi: float


def bad_among_passed(groups: Sequence[Audited], sure: float) -> Estimate:
    """The outgoing defect rate from random audits, each group weighted by its passed parts.

    The estimate is Horvitz and Thompson's (1952): every audited part stands for as many passed
    ones as its group has for one audited. The bounds are the weighted sums of the groups' exact
    Clopper-Pearson bounds, each at a share of 1 - `sure` (Bonferroni), so that they hold for any
    number of groups; a group never audited may be all good or all bad.
    """
    groups = [group for group in groups if group.passed]
    total = sum(group.passed for group in groups)
    if not total:
        return Estimate(None, 0.0, 1.0)
    each = 1 - (1 - sure) / len(groups)
    lower = upper = 0.0
    for group in groups:
        weight = group.passed / total
        lower += weight * promises.lower_bound(group.bad, group.audited, each)
        upper += weight * promises.upper_bound(group.bad, group.audited, each)
    seen = [group for group in groups if group.audited]
    rate = None
    if len(seen) == len(groups):
        rate = sum(g.passed * g.bad / g.audited for g in groups) / total
    return Estimate(rate, lower, upper)


def outgoing_defect_rate(escape_rate: float, good_passed: float, bad_share: float) -> float:
    """Bad among the passed, where `good_passed` of the good and `escape_rate` of the bad pass.

    >>> round(outgoing_defect_rate(0.01, 0.9, 0.02), 6)
    0.000227
    """
    bad = bad_share * escape_rate
    passed = bad + (1 - bad_share) * good_passed
    return bad / passed if passed else 0.0


def drift(reference: Sequence[float], now: Sequence[float]) -> Drift:
    """The two-sample test of Kolmogorov and Smirnov (Smirnov 1939), and PSI beside it.

    `reference` are values, or the 101 quantiles that a calibration keeps of them; quantiles count
    as 101 values, which makes the p-value cautious.

    Raises:
        UsageError: one of them is empty.
    """
    if not len(reference) or not len(now):
        raise UsageError("drift wants values on both sides; wait for parts to be inspected")
    tested = stats.ks_2samp(reference, now, method="auto")
    return Drift(float(tested.statistic), float(tested.pvalue), psi(reference, now))


def psi(reference: Sequence[float], now: Sequence[float], bins: int = 10) -> float:
    """Population stability index: sum of (q - p) ln(q / p) over the reference's quantile bins.

    Of credit scoring (Siddiqi 2006): below 0.1 little has changed, above 0.25 much has. Half a
    part is added to every bin, so that an empty one does not make it infinite.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)))[1:-1]
    shares = []
    for values in (reference, now):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        shares.append((counts + 0.5) / (counts + 0.5).sum())
    p, q = shares
    return float(((q - p) * np.log(q / p)).sum())
