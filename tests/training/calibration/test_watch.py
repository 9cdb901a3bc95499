"""Audits against the promise, and drift: exact where it must be, the same by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_agent.errors import UsageError
from lad_agent.training.calibration import promises, watch
from lad_agent.training.calibration.watch import Audited, bad_among_passed


def test_one_group_is_clopper_and_pearson() -> None:
    found = bad_among_passed([Audited(1000, 100, 2)], 0.95)
    assert found.rate == 0.02
    assert found.upper == pytest.approx(promises.upper_bound(2, 100, 0.95))
    assert found.lower == pytest.approx(promises.lower_bound(2, 100, 0.95))
    # none in 300 audits: at most 1%, the rule of three
    assert bad_among_passed([Audited(300, 300, 0)], 0.95).upper == pytest.approx(0.00994, abs=1e-5)


def test_groups_are_weighted_by_their_passed_parts() -> None:
    found = bad_among_passed([Audited(900, 9, 0), Audited(100, 50, 10)], 0.95)
    assert found.rate == pytest.approx(0.1 * 0.2)
    assert found.upper == pytest.approx(
        0.9 * promises.upper_bound(0, 9, 0.975) + 0.1 * promises.upper_bound(10, 50, 0.975)
    )


def test_what_was_never_audited_is_not_known() -> None:
    assert bad_among_passed([], 0.95) == watch.Estimate(None, 0.0, 1.0)
    half = bad_among_passed([Audited(100, 0, 0), Audited(100, 100, 0)], 0.95)
    assert half.rate is None
    assert half.upper > 0.5


def test_impossible_counts_are_refused() -> None:
    for counts in ((10, 5, 6), (5, 10, 0), (5, 3, -1)):
        with pytest.raises(UsageError, match="count them again"):
            Audited(*counts)


def test_the_bound_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = 0.8 * 0.01 + 0.2 * 0.05
    held = [
        bad_among_passed(
            [Audited(800, 80, int(a)), Audited(200, 100, int(b))], 0.95
        ).upper >= truth
        for a, b in zip(rng.binomial(80, 0.01, 400), rng.binomial(100, 0.05, 400), strict=True)
    ]  # fmt: skip
    assert np.mean(held) >= 0.93


@given(escape=st.floats(0, 1), passed=st.floats(0.01, 1), share=st.floats(0.001, 0.5))
def test_outgoing_defects_are_a_share_of_what_is_passed(
    escape: float, passed: float, share: float
) -> None:
    found = watch.outgoing_defect_rate(escape, passed, share)
    assert 0 <= found <= 1
    assert found == pytest.approx(share * escape / (share * escape + (1 - share) * passed))


def test_drift_by_hand() -> None:
    assert watch.psi([0.1] * 50 + [0.9] * 50, [0.1] * 50 + [0.9] * 50) == 0
    # shares of 50.5/101 twice against 90.5/101 and 10.5/101
    moved = watch.psi([0.1] * 50 + [0.9] * 50, [0.1] * 90 + [0.9] * 10)
    p, q = np.array([50.5, 50.5]) / 101, np.array([90.5, 10.5]) / 101
    assert moved == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert watch.drift([0, 1, 2, 3], [2.5, 3.5]).ks == pytest.approx(0.75)


def test_drift_is_seen_and_sameness_too() -> None:
    rng = np.random.default_rng(0)
    reference = np.quantile(rng.beta(8, 1, 2000), np.linspace(0, 1, 101))
    same = watch.drift(reference, rng.beta(8, 1, 500))
    other = watch.drift(reference, rng.beta(4, 1, 500))
    assert same.ks_p_value > 0.01
    assert same.psi < 0.1
    assert other.ks_p_value < 1e-3
    assert other.psi > 0.25
    with pytest.raises(UsageError, match="both sides"):
        watch.drift(reference, [])
