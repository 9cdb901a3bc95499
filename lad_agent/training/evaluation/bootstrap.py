"""Intervals by the stratified percentile bootstrap.

Efron and Tibshirani 1993, chapters 13 and 8: pictures are drawn anew with replacement, each
stratum as many as it has, and the figure is computed for every draw; the interval holds the middle
95% of these. A bootstrap cannot tell what was never seen: where a rate is 0 or 1 the exact
interval of Clopper and Pearson 1934 stands in.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lad_agent.training.evaluation.scores import Floats

LEVEL = 0.95
_CELLS = 4_000_000

Interval = list[float] | None


@dataclass(frozen=True)
class Resampling:
    """How often to draw anew, and from which seed."""

    draws: int = 1000
    seed: int = 0


def intervals(
    figures: Callable[[Floats], Mapping[str, Floats]],
    strata: Sequence[Hashable],
    resampling: Resampling,
) -> dict[str, Interval]:
    """Lower and upper end of every figure; None where no draw defines it.

    `figures` takes weights of shape [draws, n] and returns shape [draws] by name; `strata` names
    the stratum of each of the n parts.
    """
    blocks = [figures(weights) for weights in _weights(strata, resampling)]
    return {name: _middle(np.concatenate([b[name] for b in blocks])) for name in blocks[0]}


def at_border(holds: int, of: int) -> Interval:
    """The exact interval of a rate that is 0 or 1: `holds` is 0 or `of`.

    With none in n the upper end is 1 - (0.025)^(1/n): zero in 300 is at most 1.2%.
    """
    if of == 0:
        return None
    reach = float((1 - LEVEL) / 2) ** (1 / of)
    return [0.0, 1 - reach] if holds == 0 else [reach, 1.0]


def enough(reach: float) -> int:
    """The fewest parts of which none shows that at most a share of `reach` would, above 0.

    >>> enough(0.02)
    183
    """
    return math.ceil(math.log((1 - LEVEL) / 2) / math.log1p(-reach)) if reach < 1 else 1


def _weights(strata: Sequence[Hashable], resampling: Resampling) -> Iterator[Floats]:
    """How often each part is drawn, in blocks of rows that fit in memory."""
    groups: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(index)
    columns = [np.array(members) for members in groups.values()]
    rng = np.random.default_rng(resampling.seed)
    rows = max(1, _CELLS // len(strata))
    for start in range(0, resampling.draws, rows):
        count = min(rows, resampling.draws - start)
        weights = np.empty((count, len(strata)))
        for members in columns:
            weights[:, members] = _multinomial(rng, count, len(members))
        yield weights


def _multinomial(rng: np.random.Generator, rows: int, n: int) -> npt.NDArray[np.intp]:
    """Counts [rows, n] of n draws a row out of n."""
    drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def _middle(values: Floats) -> Interval:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    tail = (1 - LEVEL) / 2
    return [float(end) for end in np.quantile(defined, (tail, 1 - tail))]
