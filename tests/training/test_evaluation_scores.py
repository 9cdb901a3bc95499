"""Formulas of scores and confidences: by hand, by definition, and what must not change them."""

from __future__ import annotations

from itertools import product as pairs
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent.training.evaluation import auroc, bootstrap, plots, scores

SCORES = st.lists(st.floats(0, 1) | st.sampled_from((0.0, 0.5, 1.0)), max_size=12)


@settings(deadline=None)
@given(good=SCORES, bad=SCORES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(
    good: list[float], bad: list[float]
) -> None:
    area = auroc(good, bad)
    if not good or not bad:
        assert area is None
        return
    ordered = [1.0 if b > g else 0.5 if b == g else 0.0 for g, b in pairs(good, bad)]
    assert area == pytest.approx(sum(ordered) / len(ordered), abs=1e-12)


def test_auroc_by_hand() -> None:
    assert auroc([0.1, 0.2], [0.8, 0.9]) == 1.0
    assert auroc([0.8, 0.9], [0.1, 0.2]) == 0.0
    assert auroc([0.5, 0.5], [0.5]) == 0.5
    assert auroc([0.1, 0.5], [0.5, 0.5, 0.3]) == pytest.approx(4 / 6)


@settings(deadline=None)
@given(good=SCORES, bad=SCORES)
def test_auroc_knows_nothing_but_the_order(good: list[float], bad: list[float]) -> None:
    ranks = {value: rank for rank, value in enumerate(sorted({*good, *bad}))}
    mapped = auroc([ranks[g] ** 3 - 7.0 for g in good], [ranks[b] ** 3 - 7.0 for b in bad])
    assert mapped == auroc(good, bad)
    if mapped is not None:
        assert auroc([-g for g in good], [-b for b in bad]) == pytest.approx(1 - mapped)


CONFIDENCE = np.array([0.95, 0.9, 0.9, 0.6, 0.3])
RIGHT = np.array([True, True, False, True, False])
ONCE = np.ones((1, 5))


def test_risk_and_coverage_by_hand() -> None:
    coverage, risk, parts = scores.risk_coverage(CONFIDENCE, RIGHT, ONCE)
    assert coverage[0] == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert risk[0] == pytest.approx([0, 1 / 3, 1 / 4, 2 / 5])
    assert parts[0].tolist() == [1, 2, 1, 1]
    area = scores.area_under_risk_coverage(CONFIDENCE, RIGHT, ONCE)
    assert area[0] == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    held = [scores.coverage_at(e, CONFIDENCE, RIGHT, ONCE)[0] for e in (0.0, 0.24, 0.25, 0.4)]
    assert held == pytest.approx([0.2, 0.2, 0.8, 1.0])


def test_calibration_error_and_brier_by_hand() -> None:
    # bins: .9-1 holds .95 .9 .9 of which two are right, .6 one right, .3 one wrong
    error = scores.calibration_error(CONFIDENCE, RIGHT, ONCE)
    assert error[0] == pytest.approx((abs(2.75 - 2) + abs(0.6 - 1) + 0.3) / 5)
    squares = 0.05**2 + 0.1**2 + 0.9**2 + 0.4**2 + 0.3**2
    assert scores.brier(CONFIDENCE, RIGHT, ONCE)[0] == pytest.approx(squares / 5)
    assert scores.reliability(CONFIDENCE, RIGHT) == [
        (pytest.approx(0.3), 0.0, 1),
        (pytest.approx(0.6), 1.0, 1),
        (pytest.approx(2.75 / 3), pytest.approx(2 / 3), 3),
    ]


def test_a_weight_is_a_part_that_often() -> None:
    weights = np.array([[2.0, 0.0, 1.0, 3.0, 1.0]])
    often = weights[0].astype(int)
    confidence, right = np.repeat(CONFIDENCE, often), np.repeat(RIGHT, often)
    for figure in (
        scores.area,
        scores.calibration_error,
        scores.brier,
        scores.area_under_risk_coverage,
    ):
        weighted = figure(CONFIDENCE, RIGHT, weights)
        assert weighted == pytest.approx(figure(confidence, right, np.ones((1, len(right)))))


def test_figures_without_parts_are_undefined() -> None:
    assert np.isnan(scores.area(CONFIDENCE, np.full(5, True), ONCE)[0])
    assert np.isnan(scores.brier(CONFIDENCE, RIGHT, np.zeros((1, 5)))[0])


PARTS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=15)


@settings(deadline=None)
@given(PARTS, st.randoms(use_true_random=False))
def test_the_order_of_parts_does_not_matter(parts: list[tuple[float, bool]], chance: Any) -> None:
    mixed = chance.sample(parts, len(parts))
    for figure in (scores.area_under_risk_coverage, scores.calibration_error, scores.brier):
        plain, other = (
            figure(*map(np.array, zip(*some, strict=True)), np.ones((1, len(some))))
            for some in (parts, mixed)
        )
        assert plain == pytest.approx(other)
        assert 0 <= plain[0] <= 1


def test_roc_by_hand() -> None:
    false, true = scores.roc([0.1, 0.4], [0.4, 0.9])
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]


@settings(deadline=None)
@given(good=SCORES.filter(bool), bad=SCORES.filter(bool))
def test_the_area_under_the_curve_is_auroc(good: list[float], bad: list[float]) -> None:
    false, true = scores.roc(good, bad)
    assert np.trapezoid(true, false) == pytest.approx(auroc(good, bad), abs=1e-9)


def _mean(flags: list[bool]) -> Any:
    values = np.array(flags, dtype=np.float64)
    return lambda weights: {"mean": weights @ values / weights.sum(1)}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 2**32))
def test_an_interval_holds_the_estimate(flags: list[bool], seed: int) -> None:
    resampling = bootstrap.Resampling(300, seed)
    low, high = bootstrap.intervals(_mean(flags), [0] * len(flags), resampling)["mean"] or ()
    assert low <= sum(flags) / len(flags) + 1e-12
    assert high >= sum(flags) / len(flags) - 1e-12


def test_a_bootstrap_of_a_share_is_binomial() -> None:
    flags = [True] * 30 + [False] * 70
    ends = bootstrap.intervals(_mean(flags), [0] * 100, bootstrap.Resampling(20_000))["mean"]
    # 2.5% and 97.5% quantiles of Binomial(100, 0.3)
    assert ends == pytest.approx([0.21, 0.39], abs=0.0101)


def test_every_stratum_keeps_its_size() -> None:
    strata = ["a", "b", "a", "c", "b"]
    members = np.array([[s == name for name in "abc"] for s in strata], dtype=np.float64)
    seen = []

    def figures(weights: scores.Floats) -> dict[str, scores.Floats]:
        seen.append(weights @ members)
        return {"first": weights[:, 0]}

    ends = bootstrap.intervals(figures, strata, bootstrap.Resampling(100))
    assert np.array_equal(np.concatenate(seen), np.tile([2, 2, 1], (100, 1)))
    assert ends["first"] == [0.0, 2.0]


def test_draws_in_blocks_are_all_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_CELLS", 35)
    rows = []

    def figures(weights: scores.Floats) -> dict[str, scores.Floats]:
        rows.append(len(weights))
        return {"undefined": np.full(len(weights), np.nan)}

    ends = bootstrap.intervals(figures, [0] * 5, bootstrap.Resampling(17))
    assert rows == [7, 7, 3]
    assert ends["undefined"] is None


def test_what_was_never_seen_has_an_exact_bound() -> None:
    # Clopper and Pearson: (1 - p)^n = 0.025 at the upper end of none in n
    assert bootstrap.at_border(0, 300) == [0.0, pytest.approx(0.01222, abs=1e-5)]
    assert bootstrap.at_border(20, 20) == [pytest.approx(0.83157, abs=1e-5), 1.0]
    assert bootstrap.at_border(0, 0) is None


def test_charts_place_what_they_are_given() -> None:
    chart = plots.Curves(
        [plots.Line("a <b>", [0, 0.5, 1], [0, 0.25, 0.5], dots=True)],
        title="T & t", x="across", y="up", top=0.5, diagonal=True, bars=[0.5, 0.25],
    ).svg()  # fmt: skip
    assert 'points="52.0,274.0 230.0,152.0 408.0,30.0"' in chart
    assert (chart.count("<circle"), chart.count("<title>"), "T &amp; t" in chart) == (3, 2, True)
    assert "a &lt;b&gt;" in chart
    both = plots.Mirrored(("good", [3, 0, 1]), ("bad", [0, 0, 2]), title="t", x="x").svg()
    assert "<title>3 (75.0%)</title>" in both
    assert both.count("<title>") == 3


def test_lines_are_thinned_but_keep_their_ends() -> None:
    steps = np.linspace(0, 1, 100_000)
    chart = plots.Curves([plots.Line("fine", steps, steps)], title="t", x="x", y="y").svg()
    assert len(chart) < 40_000
    assert "408.0,30.0" in chart
