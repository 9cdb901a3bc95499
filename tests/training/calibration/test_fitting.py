"""The confidence model: learned from few errors, and never against what speaks for a verdict."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import confidence
from lad_agent.confidence import Isotonic, Logistic
from lad_agent.training.calibration import Part, fitting
from tests.training.calibration import synthetic
from tests.training.calibration.synthetic import parts


def test_too_few_errors_teach_nothing() -> None:
    assert fitting.fit(parts(200, 200, wrong=0.0), seed=0) is None
    assert fitting.fit(parts(200, 200, wrong=0.1), seed=0) is not None


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), skill=st.floats(-2, 3))
def test_more_certainty_is_never_less_confidence(seed: int, skill: float) -> None:
    model = fitting.fit(_by_chance(parts(80, 80, seed=seed, skill=skill, wrong=0.3), seed), seed=0)
    assert model is not None
    if isinstance(model, Logistic):
        weights = zip(confidence.FEATURES, model.weights, strict=True)
        assert all(w >= 0 for name, w in weights if name not in confidence.EITHER_WAY)


def test_the_kind_is_the_one_that_does_better_on_parts_it_has_not_seen() -> None:
    """Where all errors are on one side of one threshold, steps do better than a slope."""
    straight = parts(300, 300, wrong=0.2)
    assert isinstance(fitting.fit(straight, seed=0), Logistic)
    steps = [
        synthetic.part(f"{n}", bool(n % 2), bool(n % 2) == (n % 5 > 0), 0.98 + 0.0001 * (n % 5 > 0))
        for n in range(400)
    ]
    assert isinstance(fitting.fit(steps, seed=0), Isotonic)


def test_all_at_once_are_as_sure_as_one_by_one() -> None:
    found = [*parts(80, 80, wrong=0.3), synthetic.part("malformed", True, None, 0.5)]
    older = synthetic.part("older", True, False, 0.6, image_quality=None)
    known, right = found[:-1], np.array([p.right for p in found[:-1]])
    for model in (None, fitting._logistic(known, right), fitting._isotonic(known, right)):
        sure = [fitting.sure(p, model) for p in (*found, older)]
        assert fitting.Shown.of([*found, older]).sure(model) == pytest.approx(sure)


def test_parts_that_show_the_same_keep_the_order_of_the_raw_confidence() -> None:
    """Of features that all speak against what they should, none but the verdict is left."""
    found = [
        synthetic.part(f"{n}", bad, bad == right, (0.7 if right else 0.9) + n / 10_000)
        for n in range(200)
        for bad, right in [(bool(n % 2), n % 5 > 0 if n % 2 else n % 7 > 0)]
    ]
    model = fitting._logistic(found, np.array([part.right for part in found]))
    weights = dict(zip(confidence.FEATURES, model.weights, strict=True))
    assert {name for name, weight in weights.items() if weight > 1e-6} == {"says_anomalous"}
    for said in (False, True):
        alike = [part for part in found if part.judgement.anomalous is said]
        raw = [confidence.raw(part.judgement) or 0.0 for part in alike]
        sure = [fitting.sure(part, model) for part in alike]
        assert len(set(sure)) == len(alike)
        assert np.array_equal(np.argsort(sure), np.argsort(raw))
        assert max(sure) - min(sure) <= confidence.KEPT_ORDER


def _by_chance(found: Sequence[Part], seed: int) -> list[Part]:
    """The same with a margin, an agreement and log-probabilities that know nothing."""
    rng = np.random.default_rng(seed)
    out = []
    for part in found:
        margin, mean, total = rng.random(3)
        told = {
            "anomaly_score": 0.5 + (0.5 if part.judgement.anomalous else -0.5) * margin,
            "mean_logprob": -mean / 100,
            "sum_logprob": -total,
        }
        out.append(replace(part, judgement=part.judgement.model_copy(update=told)))
    return out
