"""Figures of scores and confidences as vectorised formulas over weighted parts.

Every function takes `weights`, shape [draws, n]: how often each of n parts counts in each draw; a
row of ones is the plain figure, rows of a bootstrap its distribution. Each returns shape [draws],
NaN where a draw leaves the figure undefined. Equal values are taken together, so that the order of
the parts never matters.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BINS = 10
"""Bins of equal width for reliability and calibration error."""

ERRORS = (0.005, 0.01, 0.05)
"""Shares of wrong verdicts at which coverage is told."""


def auroc(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """Area under the ROC curve: P(score of a bad part > that of a good one), ties half."""
    if not good or not bad:
        return None
    values = np.array([*good, *bad], dtype=np.float64)
    positive = np.arange(len(values)) >= len(good)
    return float(area(values, positive, np.ones((1, len(values))))[0])


def area(values: Floats, positive: Flags, weights: Floats) -> Floats:
    """AUROC as the Mann-Whitney U statistic over its maximum (Hanley and McNeil 1982)."""
    order, starts = _ascending(values)
    high = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    low = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(low, axis=1) - low / 2
    return ratio((high * below).sum(1), high.sum(1) * low.sum(1))


def calibration_error(confidence: Floats, right: Flags, weights: Floats) -> Floats:
    """Expected calibration error over `BINS` bins of equal width.

    The mean distance between the mean confidence of a bin and its share of right verdicts,
    weighted by the bins' parts (Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, eq. 3).
    """
    held = bin_of(confidence)[:, None] == np.arange(BINS)
    gaps = weights @ ((confidence - right)[:, None] * held)
    return ratio(np.abs(gaps).sum(1), weights.sum(1))


def brier(confidence: Floats, right: Flags, weights: Floats) -> Floats:
    """Mean of (confidence - right)^2, right being 0 or 1 (Brier 1950)."""
    return ratio(weights @ (confidence - right) ** 2, weights.sum(1))


def risk_coverage(
    confidence: Floats, right: Flags, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Coverage, risk and parts at every threshold that occurs, from the surest part downwards.

    Each of shape [draws, thresholds]: the share of parts at least as sure as the threshold, the
    share of wrong verdicts among them (NaN: none), the weight of the parts at the threshold itself
    (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).
    """
    order, starts = _ascending(-confidence)
    parts = np.add.reduceat(weights[:, order], starts, axis=1)
    wrong = np.add.reduceat(weights[:, order] * ~right[order], starts, axis=1)
    covered = np.cumsum(parts, axis=1)
    risk = ratio(np.cumsum(wrong, axis=1), covered)
    return ratio(covered, covered[:, -1:]), risk, parts


def area_under_risk_coverage(confidence: Floats, right: Flags, weights: Floats) -> Floats:
    """AURC: the mean over all parts of the risk when a part and all surer ones are accepted.

    Geifman, Uziel and El-Yaniv 2019, eq. 1; 0 where every verdict is right.
    """
    _, risk, parts = risk_coverage(confidence, right, weights)
    return ratio((np.nan_to_num(risk) * parts).sum(1), parts.sum(1))


def coverage_at(error: float, confidence: Floats, right: Flags, weights: Floats) -> Floats:
    """The largest coverage at which at most the share `error` of accepted verdicts is wrong.

    The threshold is chosen on the very parts it is told for: a description, not a promise.
    """
    coverage, risk, _ = risk_coverage(confidence, right, weights)
    largest: Floats = np.where(risk <= error + 1e-12, coverage, 0.0).max(axis=1)
    return largest


def reliability(confidence: Floats, right: Flags) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right verdicts and number of parts of every bin that has any."""
    bins = bin_of(confidence)
    return [
        (float(confidence[bins == b].mean()), float(right[bins == b].mean()), int(sum(bins == b)))
        for b in range(BINS)
        if (bins == b).any()
    ]


def roc(good: Sequence[float], bad: Sequence[float]) -> tuple[Floats, Floats]:
    """Shares of good and of bad parts at or above every threshold that occurs, from (0, 0) on."""
    low, high = np.sort(good), np.sort(bad)
    thresholds = np.unique([*good, *bad])[::-1]
    return (
        np.append(0.0, 1 - np.searchsorted(low, thresholds) / len(low)),
        np.append(0.0, 1 - np.searchsorted(high, thresholds) / len(high)),
    )


def bin_of(values: Floats) -> npt.NDArray[np.intp]:
    """The bin of each value in [0, 1]; 1 belongs to the last."""
    below: npt.NDArray[np.intp] = (values * BINS).astype(np.intp)
    below[below == BINS] = BINS - 1
    return below


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """`part / whole`, NaN where `whole` is 0."""
    top, bottom = np.broadcast_arrays(
        np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    )
    out: Floats = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out


def _ascending(values: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The order of the values, and where each new value starts in it."""
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    starts = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1]))
    return order, starts
