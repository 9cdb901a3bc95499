"""The arithmetic of promises, and a simulation that holds them to their word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lad_agent.promise import lower_bound, upper_bound
from lad_agent.training.calibration import promises


def test_zero_in_300_is_just_enough_for_one_percent() -> None:
    assert promises.needed(0.01, 0.95) == 299
    assert (
        promises.p_value(0, 299, 0.01)
        == pytest.approx(0.99**299)
        == pytest.approx(0.0495, abs=1e-4)
    )
    assert promises.p_value(0, 298, 0.01) > 0.05
    assert promises.promisable(300, 0.95) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert promises.p_value(1, 300, 0.01) > 0.05
    assert promises.needed(0.5, 0.5) == 1


@given(rate=st.floats(0.001, 0.9), sure=st.floats(0.5, 0.999))
def test_needed_is_enough_and_one_less_is_not(rate: float, sure: float) -> None:
    n = promises.needed(rate, sure)
    assert promises.p_value(0, n, rate) <= 1 - sure
    assert n == 1 or promises.p_value(0, n - 1, rate) > 1 - sure


@given(n=st.integers(1, 400), data=st.data(), sure=st.floats(0.6, 0.99))
def test_bounds_are_those_of_the_tested_rate(n: int, data: st.DataObject, sure: float) -> None:
    seen = data.draw(st.integers(0, n))
    upper, lower = upper_bound(seen, n, sure), lower_bound(seen, n, sure)
    assert lower <= seen / n <= upper
    if seen < n:
        assert promises.p_value(seen, n, upper) == pytest.approx(1 - sure, abs=1e-6)
    if seen:
        assert stats.binom.sf(seen - 1, n, lower) == pytest.approx(1 - sure, abs=1e-6)


def test_thresholds_by_hand() -> None:
    levels = np.array([0.2, 0.9, 0.5, 0.7, 0.7])
    # 60 bad parts promise 5% with none passed and no more
    kept = promises.keeping(levels, np.array([0.5]), 60, 0.05, 0.95)
    assert kept.tolist() == [0.9, 0.7]
    assert promises.keeping(levels, np.array([]), 60, 0.05, 0.95).tolist() == [0.9, 0.7, 0.5, 0.2]
    assert promises.keeping(levels, np.array([0.9]), 60, 0.05, 0.95).tolist() == []
    assert promises.keeping(levels, np.array([]), 58, 0.05, 0.95).tolist() == []


@settings(deadline=None)
@given(
    levels=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    harmed=st.lists(st.floats(0, 1), max_size=30),
    rate=st.floats(0.02, 0.5),
)
def test_what_is_kept_is_strict_first_and_promised(
    levels: list[float], harmed: list[float], rate: float
) -> None:
    kept = promises.keeping(np.array(levels), np.array(harmed), 100, rate, 0.95)
    assert kept.tolist() == sorted(set(levels), reverse=True)[: len(kept)]
    for level in kept:
        seen = sum(value >= level for value in harmed)
        assert upper_bound(seen, 100, 0.95) <= rate + 1e-9


DRAWS, PARTS, RATE, SURE = 500, 400, 0.05, 0.95


def _escapes(thresholds: list[float]) -> np.ndarray:
    """The true escape rate at each threshold: confidences of bad parts are Beta(2, 1)."""
    return 1 - stats.beta.cdf(np.array(thresholds), 2, 1)


@pytest.mark.parametrize("ties", [False, True])
def test_the_promise_is_kept_as_often_as_promised(ties: bool) -> None:
    """500 calibrations of 400 bad parts each, whose true escape rate is known at any threshold."""
    rng = np.random.default_rng(5)
    bad = rng.beta(2, 1, (DRAWS, PARTS))
    good = rng.beta(8, 1, (DRAWS, PARTS))
    if ties:
        bad, good = (np.floor(100 * values) / 100 for values in (bad, good))
    chosen, naive = [], []
    for b, g in zip(bad, good, strict=True):
        kept = promises.keeping(np.concatenate([b, g]), b, PARTS, RATE, SURE)
        chosen.append(float(kept[-1]) if len(kept) else 1.0)  # refused: nothing passes
        # the naive threshold: the most lenient at which these parts keep the rate
        naive.append(float(np.sort(b)[-int(RATE * PARTS)]))
    kept_share = float((_escapes(chosen) <= RATE).mean())
    naive_share = float((_escapes(naive) <= RATE).mean())
    least = stats.binom.ppf(0.001, DRAWS, SURE) / DRAWS
    assert kept_share >= least
    if not ties:
        assert kept_share <= 0.99, "a promise kept always is bought with parts sent to people"
        assert naive_share < 0.65


def test_a_shifted_line_breaks_the_promise() -> None:
    """What the promise is not about: bad parts that look surer than those it was made on."""
    rng = np.random.default_rng(6)
    chosen = []
    for bad in rng.beta(2, 1, (100, PARTS)):
        chosen.append(float(promises.keeping(bad, bad, PARTS, RATE, SURE)[-1]))
    shifted = 1 - stats.beta.cdf(np.array(chosen), 4, 1)
    assert float((shifted <= RATE).mean()) < 0.5
