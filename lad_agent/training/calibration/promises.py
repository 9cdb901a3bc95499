"""Promises that hold for finite samples: which thresholds keep a rate, and how many parts it takes.

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei 2021, arXiv 2110.01052): every
threshold is a hypothesis "the rate is above the promise", with an exact binomial p-value; they are
tested in a fixed order, from strict to lenient, and the first that cannot be rejected ends it. All
thresholds before it keep the promise together with the certainty asked for, so any of them may be
chosen. The rate cannot fall as the threshold is relaxed, so testing at every value that occurs
costs nothing against testing on a grid (Bates, Angelopoulos, Lei, Malik and Jordan 2021, arXiv
2101.02703, theorem 1). Exact binomial p-values are tighter than the Hoeffding-Bentkus ones of
general losses, which is why no library is asked.

The promise is about parts drawn as those of the calibration were: the same mix of defects, camera,
layout and reasoner.
"""

import math

import numpy as np
from scipy import stats

from lad_agent.promise import upper_bound
from lad_agent.training.evaluation.scores import Floats


def needed(rate: float, sure: float) -> int:
    """The fewest parts that can promise `rate` with certainty `sure`: with none of them harmed.

    >>> needed(0.01, 0.95), needed(0.05, 0.95)
    (299, 59)
    """
    found = math.ceil(math.log(1 - sure) / math.log1p(-rate))
    # The logarithms may be off by an ulp where the power is exact.
    return found - 1 if p_value(0, found - 1, rate) <= 1 - sure else found


def promisable(n: int, sure: float) -> float:
    """The least rate that `n` parts can promise with certainty `sure`.

    >>> round(promisable(300, 0.95), 4)
    0.0099
    """
    return upper_bound(0, n, sure)


def p_value(seen: int, n: int, rate: float) -> float:
    """P(at most `seen` of `n`) where the true rate is `rate`: small where it must be lower."""
    return float(stats.binom.cdf(seen, n, rate))


def keeping(levels: Floats, harmed: Floats, n: int, rate: float, sure: float) -> Floats:
    """The thresholds that keep a promise, strict to lenient; empty where none does.

    `levels` are confidences at which a verdict may be accepted, `harmed` the confidences of those
    verdicts whose acceptance does the harm (a bad part passed), out of `n` parts of their class. A
    verdict is accepted at its threshold and above.
    """
    order = np.unique(levels)[::-1]
    seen = len(harmed) - np.searchsorted(np.sort(harmed), order, side="left")
    rejected = stats.binom.cdf(seen, n, rate) <= 1 - sure
    kept: Floats = order[np.logical_and.accumulate(rejected)]
    return kept
