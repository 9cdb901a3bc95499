"""Differences of two models on the same pictures, and figures over several runs."""

from __future__ import annotations

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
    for moved in paired([one], [one], DRAWS).values():
        if moved["difference"] is not None:
            assert moved["difference"] == 0.0
        assert moved["interval"] in (None, [0.0, 0.0])


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
    assert 0 <= low < moved["difference"] < high
    assert high - low < (own[1] - own[0]) / 2


def test_one_run_has_the_figures_of_its_verdicts() -> None:
    one = _judged([True] * 10 + [False] * 5)
    alone, found = verdicts(one), over_runs([one], DRAWS)
    assert (found["n"], found["runs"]) == (15, 1)
    for name in ("balanced_accuracy", "auroc", "f1", "escape_rate"):
        assert found[name] == alone[name]


def test_runs_that_disagree_widen_the_interval() -> None:
    good, poor = _judged([True] * 60), _judged([True, False, False] * 20)
    same, mixed = over_runs([good] * 4, DRAWS), over_runs([good, poor] * 2, DRAWS)
    assert same["intervals"]["balanced_accuracy"] == [1.0, 1.0]
    low, high = mixed["intervals"]["balanced_accuracy"]
    assert mixed["balanced_accuracy"] == pytest.approx(2 / 3, abs=0.01)
    assert high - low > 0.3
    moved = paired([poor] * 4, [good, poor] * 2, DRAWS)["balanced_accuracy"]
    assert moved["difference"] == pytest.approx(1 / 3, abs=0.01)
    assert moved["interval"][0] < moved["difference"] < moved["interval"][1]
