"""Pairs of recipes about one picture: exactly one holds, and one rule differs."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import counterfactual
from benchmarks.counterfactual import Flip, Pair
from lad_agent import rationale
from lad_agent.training.evaluation import Judged


@pytest.fixture(scope="module")
def made() -> list[Pair]:
    return counterfactual.pairs("juice_bottle", 12)


def test_one_rule_differs_and_exactly_one_recipe_holds(made: list[Pair]) -> None:
    for pair in made:
        assert pair.holds.image is pair.broken.image
        assert pair.holds.recipe.task_version != pair.broken.recipe.task_version
        texts = [{r.id: r.text for r in c.recipe.rules} for c in (pair.holds, pair.broken)]
        assert len(set(texts[0].items()) ^ set(texts[1].items())) == 2
        for case, bad in ((pair.holds, 0), (pair.broken, 1)):
            clauses = rationale.clauses(pair.product, case.recipe.rules, case.facts)
            assert sum(not clause.ok for clause in clauses) == bad
            assert case.truth.anomalous is bool(bad)


def test_every_kind_of_rule_comes_up_and_counts_have_a_difference(made: list[Pair]) -> None:
    assert {pair.kind for pair in made} == {"count", "value", "pairing"}
    for pair in made:
        assert (pair.difference is not None) is (pair.kind == "count")
        assert pair.difference is None or pair.difference >= 1


def test_a_pair_flips_rightly_where_both_verdicts_are_right(made: list[Pair]) -> None:
    """Three pairs: right on both sides, always yes, always no; the last one passes."""
    far = [dataclasses.replace(pair, kind="count", difference=2) for pair in made[:3]]
    said = ((False, True), (True, True), (False, False))
    flips = [Flip(pair, _judged(pair, 0, a), _judged(pair, 1, b))
             for pair, (a, b) in zip(far, said, strict=True)]  # fmt: skip
    assert [flip.rightly for flip in flips] == [True, False, False]
    found = counterfactual.figures(flips)
    whole = found["rows"][0]
    assert whole["flips_rightly"]["k"] == 1
    assert whole["flips_rightly"]["interval"] == pytest.approx([0.0615, 0.7923], abs=1e-4)
    assert (found["passed_far_off"]["k"], found["passed_far_off"]["n"]) == (1, 3)
    assert "Off by 2 or more: 1 of 3 passed" in counterfactual.markdown(found)


def _judged(pair: Pair, side: int, anomalous: bool) -> Judged:
    truth = (pair.holds, pair.broken)[side].truth
    return Judged(truth, anomalous, 0.5, "NotOK" if anomalous else "OK", None, True, "consistent")
