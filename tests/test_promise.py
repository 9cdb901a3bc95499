"""Audits against the promise, and drift: exact where it must be, the same by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import promise
from lad_agent.errors import UsageError
from lad_agent.promise import (
    Audited,
    Line,
    lower_at_all_times,
    lower_bound,
    share,
    upper_at_all_times,
    upper_bound,
)


def test_one_group_is_clopper_and_pearson() -> None:
    found = share([Audited(1000, 100, 2)], 0.95)
    assert found.rate == 0.02
    assert found.upper == pytest.approx(upper_bound(2, 100, 0.95))
    assert found.lower == pytest.approx(lower_bound(2, 100, 0.95))
    # none in 300 audits: at most 1%, the rule of three
    assert share([Audited(300, 300, 0)], 0.95).upper == pytest.approx(0.00994, abs=1e-5)


def test_groups_are_weighted_by_their_parts() -> None:
    found = share([Audited(900, 9, 0), Audited(100, 50, 10)], 0.95)
    assert found.rate == pytest.approx(0.1 * 0.2)
    assert found.upper == pytest.approx(
        0.9 * upper_bound(0, 9, 0.975) + 0.1 * upper_bound(10, 50, 0.975)
    )


def test_what_was_never_audited_is_not_known() -> None:
    assert share([], 0.95) == share([Audited(0, 0, 0)], 0.95) == promise.Estimate(None, 0.0, 1.0)
    assert share([Audited(5, 0, 0)], 0.95) == promise.Estimate(None, 0.0, 1.0)
    # The rate is of what was audited, the bounds are of all.
    half = share([Audited(100, 0, 0), Audited(100, 100, 20)], 0.95)
    assert half.rate == 0.2
    assert half.lower < 0.1
    assert half.upper > 0.6


def test_impossible_counts_are_refused() -> None:
    for counts in ((10, 5, 6), (5, 10, 0), (5, 3, -1)):
        with pytest.raises(UsageError, match="count them again"):
            Audited(*counts)


def test_the_bound_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = 0.8 * 0.01 + 0.2 * 0.05
    held = [
        share([Audited(800, 80, int(a)), Audited(200, 100, int(b))], 0.95).upper >= truth
        for a, b in zip(rng.binomial(80, 0.01, 400), rng.binomial(100, 0.05, 400), strict=True)
    ]
    assert np.mean(held) >= 0.93


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_bounds_at_all_times_are_wider_and_still_bounds(n: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, n))
    lower, upper = lower_at_all_times(seen, n, 0.95), upper_at_all_times(seen, n, 0.95)
    assert 0 <= lower <= lower_bound(seen, n, 0.95) + 1e-9
    assert upper_bound(seen, n, 0.95) - 1e-9 <= upper <= 1
    assert lower <= seen / n <= upper


def test_bounds_at_all_times_hold_at_every_look() -> None:
    rng = np.random.default_rng(5)
    looks, rate = range(10, 400, 10), 0.05
    seen = np.cumsum(rng.random((150, 400)) < rate, axis=1)
    always = [all(lower_at_all_times(int(s[n - 1]), n, 0.9) <= rate for n in looks) for s in seen]
    # One look is right nine times in ten, so that forty are not.
    once = [all(lower_bound(int(s[n - 1]), n, 0.9) <= rate for n in looks) for s in seen]
    assert np.mean(always) >= 0.9
    assert np.mean(once) < 0.8


def _line(passed: Audited, rejected: Audited, undecided: int) -> Line:
    return Line((passed,), (rejected,), undecided, passed.parts + rejected.parts + undecided)


@settings(deadline=None)
@given(
    escape=st.floats(0, 0.5), good_passes=st.floats(0.1, 1), bad_share=st.floats(0.01, 0.5)
)  # fmt: skip
def test_what_is_allowed_is_what_the_promise_means_for_the_passed(
    escape: float, good_passes: float, bad_share: float
) -> None:
    """With so many parts that chance is nothing, and everything audited."""
    n = 10**9
    bad_passed, good_passed = bad_share * escape, (1 - bad_share) * good_passes
    passed = round(n * (bad_passed + good_passed))
    rejected = n - passed
    bad_rejected = round(n * bad_share * (1 - escape))
    line = _line(Audited(passed, 0, 0), Audited(rejected, rejected, min(bad_rejected, rejected)), 0)
    assert promise.allowed(escape, line) == pytest.approx(
        bad_passed / (bad_passed + good_passed), abs=1e-3
    )


def test_a_broken_promise_is_seen_and_a_kept_one_not() -> None:
    # 1% promised; of 40 bad parts 20 pass, among 2000 passed of which 400 were audited.
    rejected = Audited(20, 10, 10)
    assert promise.broken(0.01, _line(Audited(2000, 400, 4), rejected, 0))
    assert not promise.broken(0.01, _line(Audited(2000, 400, 0), rejected, 0))
    assert not promise.broken(1.0, _line(Audited(2000, 400, 4), rejected, 0))
    assert not promise.broken(0.01, Line((), (), 0, 0))
    # Parts that nobody has looked at yet may all be bad: no alarm before the queue is worked off.
    assert not promise.broken(0.01, _line(Audited(2000, 400, 4), rejected, 5000))


def test_a_promise_is_kept_only_where_audits_show_it() -> None:
    rejected = Audited(400, 400, 400)
    assert promise.kept(0.05, _line(Audited(2000, 2000, 5), rejected, 0))
    assert not promise.kept(0.05, _line(Audited(2000, 2000, 30), rejected, 0))
    # One good audit shows nothing, and parts that nobody has looked at speak for nobody.
    assert not promise.kept(0.05, _line(Audited(2000, 1, 0), rejected, 0))
    assert not promise.kept(0.05, _line(Audited(2000, 2000, 5), Audited(0, 0, 0), 400))
    known = replace(_line(Audited(2000, 2000, 5), Audited(0, 0, 0), 400), known=400)
    assert promise.kept(0.05, known)
    assert promise.kept(1.0, _line(Audited(2000, 2000, 2000), rejected, 0))


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 500), st.data())
def test_no_promise_is_both_kept_and_broken(
    passed: int, rejected: int, undecided: int, data: st.DataObject
) -> None:
    audited = data.draw(st.integers(0, passed))
    harmed = Audited(passed, audited, data.draw(st.integers(0, audited)))
    seen = data.draw(st.integers(0, rejected))
    spared = Audited(rejected, seen, data.draw(st.integers(0, seen)))
    known = data.draw(st.integers(0, undecided))
    line = replace(_line(harmed, spared, undecided), known=known)
    rate = data.draw(st.floats(0.001, 0.5))
    assert not (promise.kept(rate, line) and promise.broken(rate, line))


def test_a_kept_promise_raises_no_alarm_however_often_one_looks() -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(40):
        bad = rng.random(4000) < 0.1
        escapes = bad & (rng.random(4000) < 0.05)
        caught = bad & ~escapes
        audited = ~caught & (rng.random(4000) < 0.2)
        alarms += any(
            promise.broken(
                0.05,
                _line(
                    Audited(
                        int((~caught[:n]).sum()), int(audited[:n].sum()),
                        int((audited & escapes)[:n].sum()),
                    ),
                    Audited(int(caught[:n].sum()), 0, 0),
                    0,
                ),
            )
            for n in range(250, 4001, 250)
        )  # fmt: skip
    assert alarms <= 2


def test_psi_by_hand() -> None:
    assert promise.psi([0.1] * 50 + [0.9] * 50, [0.1] * 50 + [0.9] * 50) == 0
    # Bins up to 0.1, 0.5 (between the two) and 0.9, and one above; half a part in each.
    moved = promise.psi([0.1] * 50 + [0.9] * 50, [0.1] * 90 + [0.9] * 10)
    p, q = np.array([50.5, 0.5, 50.5, 0.5]) / 102, np.array([90.5, 0.5, 10.5, 0.5]) / 102
    assert moved == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert promise.drift([0, 1, 2, 3], [2.5, 3.5]).ks == pytest.approx(0.75)


def test_drift_is_seen_and_sameness_too() -> None:
    rng = np.random.default_rng(0)
    reference = np.quantile(rng.beta(8, 1, 2000), np.linspace(0, 1, 101))
    same = promise.drift(reference, rng.beta(8, 1, 500))
    other = promise.drift(reference, rng.beta(4, 1, 500))
    assert same.ks_p_value > 0.01
    assert same.psi < 0.1
    assert not same.alarming
    assert other.ks_p_value < 1e-4
    assert other.psi > 0.25
    assert other.alarming
    with pytest.raises(UsageError, match="both sides"):
        promise.drift(reference, [])


def test_a_reference_of_few_parts_says_less() -> None:
    rng = np.random.default_rng(1)
    alarming = 0
    for _ in range(50):
        few = np.quantile(rng.beta(8, 1, 20), np.linspace(0, 1, 101))
        alarming += promise.drift(few, rng.beta(8, 1, 1000), of=20).alarming
        assert promise.drift(few, [0.1] * 300, of=1).ks == 1
    assert alarming == 0


def test_scores_that_were_all_alike_drift_too_but_not_by_rounding() -> None:
    rounded = promise.drift([0.0] * 101, [1e-6] * 300)
    assert (rounded.ks, rounded.ks_p_value) == (0, 1)
    assert rounded.psi < 0.01
    assert promise.drift([0.0] * 101, [0.0] * 150 + [0.02] * 150).alarming
