"""Differences of two models on the same pictures, and figures over several runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent.training.evaluation import Judged, Resampling, Truth, over_runs, paired, verdicts

DRAWS = Resampling(draws=200, seed=3)


def _judged(right: list[bool]) -> list[Judged]:
    """Every other part is anomalous; a wrong verdict is the other one."""
    out = []
    for number, own in enumerate(right):
        bad = number % 2 == 1
        truth = Truth(
            "toy", bad, "logical" if bad else "good", None, "all", None, Path(f"{number}.png")
        )
        said = bad if own else not bad
        score = 0.9 if said else 0.1
        out.append(Judged(truth, said, score, "NotOK" if said else "OK", None, True, "unchecked"))
    return out


SIDES = st.lists(st.booleans(), min_size=4, max_size=30).map(_judged)


@settings(max_examples=30, deadline=None)
@given(SIDES)
def test_a_model_differs_from_itself_by_nothing(one: list[Judged]) -> None:
    """As far as so few pictures can tell: the fewer, the less they say about the next ones."""
    for moved in paired([one], [one], DRAWS).values():
        if moved["difference"] is not None:
            assert moved["difference"] == 0.0
        if moved["interval"] is not None:
            assert moved["interval"][0] == -moved["interval"][1]
    good = sum(not j.truth.anomalous for j in one)
    never = 1 - 0.025 ** (1 / good), 1 - 0.025 ** (1 / (len(one) - good))
    found = paired([one], [one], DRAWS)
    assert found["overkill_rate"]["interval"] == pytest.approx([-never[0], never[0]])
    reach = float(np.hypot(*never)) / 2
    assert found["balanced_accuracy"]["interval"] == pytest.approx([-reach, reach])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=30))
def test_turned_round_the_difference_is_the_opposite(pairs: list[tuple[bool, bool]]) -> None:
    one, two = (_judged([pair[side] for pair in pairs]) for side in (0, 1))
    there, back = paired([one], [two], DRAWS), paired([two], [one], DRAWS)
    for name, moved in there.items():
        if moved["difference"] is None:
            continue
        assert back[name]["difference"] == pytest.approx(-moved["difference"])
        low, high = moved["interval"]
        assert back[name]["interval"] == pytest.approx([-high, -low])


def test_a_pairs_interval_is_narrower_than_the_figures_own() -> None:
    rng = np.random.default_rng(0)
    before = [bool(one) for one in rng.random(400) < 0.8]
    after = [right or number % 40 == 0 for number, right in enumerate(before)]
    one, two = _judged(before), _judged(after)
    moved = paired([one], [two], DRAWS)["balanced_accuracy"]
    assert moved["difference"] == pytest.approx(
        verdicts(two)["balanced_accuracy"] - verdicts(one)["balanced_accuracy"]
    )
    low, high = moved["interval"]
    own = verdicts(two, DRAWS)["intervals"]["balanced_accuracy"]
    assert low < moved["difference"] < high
    assert high - low < (own[1] - own[0]) / 2


@pytest.mark.parametrize(("better", "sure"), [(4, False), (5, False), (6, True)])
def test_gains_alone_do_not_rule_losses_out(better: int, sure: bool) -> None:
    """About as many are wanted as by the sign test, which asks for six."""
    after = [True] * 60
    before = [number % 2 == 0 or number // 2 >= better for number in range(60)]
    moved = paired([_judged(before)], [_judged(after)], DRAWS)["escape_rate"]
    assert moved["difference"] == pytest.approx(-better / 30)
    assert (moved["interval"][1] < 0) is sure


def test_from_all_wrong_to_all_right_a_few_pictures_prove_little() -> None:
    for count, sure in ((4, False), (12, True)):
        one, two = _judged([False] * count), _judged([True] * count)
        low, high = paired([one], [two], DRAWS)["balanced_accuracy"]["interval"]
        assert (low > 0) is sure
        assert high == 1.0


def test_no_difference_in_any_run_is_told_by_pictures_not_by_runs() -> None:
    one = _judged([True] * 40)
    once, often = (paired([one] * n, [one] * n, DRAWS)["accuracy"]["interval"] for n in (1, 5))
    assert once == often == pytest.approx([-(1 - 0.025 ** (1 / 40)), 1 - 0.025 ** (1 / 40)])


def test_strata_of_one_picture_vary_too() -> None:
    """Each product has one good picture and one anomalous, and half of these are passed."""
    alone = [
        replace(j, truth=replace(j.truth, product=f"p{number // 2}"))
        for number, j in enumerate(_judged([number % 4 != 1 for number in range(40)]))
    ]
    low, high = verdicts(alone, DRAWS)["intervals"]["escape_rate"]
    assert high - low > 0.2
    one_product = [replace(j, truth=replace(j.truth, product="p0")) for j in alone[1:]]
    low, high = verdicts([alone[2], *one_product], DRAWS)["intervals"]["escape_rate"]
    assert high - low > 0.2


def test_one_run_has_the_figures_of_its_verdicts() -> None:
    one = _judged([True] * 10 + [False] * 5)
    alone, found = verdicts(one), over_runs([one], DRAWS)
    assert (found["n"], found["runs"]) == (15, 1)
    for name in ("balanced_accuracy", "auroc", "f1", "escape_rate"):
        assert found[name] == alone[name]


def test_runs_that_disagree_widen_the_interval() -> None:
    good, poor = _judged([True] * 60), _judged([True, False, False] * 20)
    same, mixed = over_runs([good] * 4, DRAWS), over_runs([good, poor] * 2, DRAWS)
    assert same["intervals"] == verdicts(good, DRAWS)["intervals"]
    assert same["intervals"]["balanced_accuracy"] == pytest.approx([0.025 ** (1 / 30), 1.0])
    low, high = mixed["intervals"]["balanced_accuracy"]
    assert mixed["balanced_accuracy"] == pytest.approx(2 / 3, abs=0.01)
    assert high - low > 0.3
    moved = paired([poor] * 4, [good, poor] * 2, DRAWS)["balanced_accuracy"]
    assert moved["difference"] == pytest.approx(1 / 3, abs=0.01)
    assert moved["interval"][0] < moved["difference"] < moved["interval"][1]
