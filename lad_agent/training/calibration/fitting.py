"""The confidence model: logistic or isotonic, whichever does better on parts it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from lad_agent import confidence
from lad_agent.confidence import Isotonic, Logistic
from lad_agent.training.calibration.parts import Part
from lad_agent.training.evaluation.scores import Flags, Floats

FEWEST = 10
"""Right and wrong verdicts that a fit takes at least, each."""

_FOLDS = 5


def fit(parts: Sequence[Part], seed: int) -> Logistic | Isotonic | None:
    """P(right) learned from `parts`; None where there are fewer than `FEWEST` right or wrong.

    The kind is the one with the lower log loss over five stratified folds, each judged by a model
    fitted on the other four.
    """
    known = [part for part in parts if confidence.features(part.judgement) is not None]
    right = np.array([part.right for part in known], dtype=bool)
    if min(right.sum(), (~right).sum()) < FEWEST:
        return None
    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(right, right))

    def loss(make: type[Logistic] | type[Isotonic]) -> float:
        said = np.empty(len(known))
        for train, held in folds:
            model = _fit(make, [known[i] for i in train], right[train])
            said[held] = [sure(known[i], model) for i in held]
        return float(log_loss(right, np.clip(said, 1e-6, 1 - 1e-6)))

    kinds: tuple[type[Logistic] | type[Isotonic], ...] = (Logistic, Isotonic)
    return _fit(min(kinds, key=loss), known, right)


@dataclass(frozen=True)
class Shown:
    """What many parts show about their verdicts: the confidence of all under any model at once.

    `features` are those of `lad_agent.confidence`, shape [parts, features], `raw` the raw
    confidence; not a number where there is no verdict, or it does not show them.
    """

    features: Floats
    raw: Floats

    @classmethod
    def of(cls, parts: Sequence[Part]) -> "Shown":
        nothing = (np.nan,) * len(confidence.FEATURES)
        judgements = [part.judgement for part in parts]
        raw = [
            None if said.anomalous is None or said.anomaly_score is None else confidence.raw(said)
            for said in judgements
        ]
        return cls(
            np.array([confidence.features(said) or nothing for said in judgements]),
            np.array(raw, dtype=np.float64),
        )

    def sure(self, model: Logistic | Isotonic | None) -> Floats:
        """What `sure` says of each part."""
        if model is None:
            found = self.raw
        else:
            found = (1 - model.kept_order) * self._learned(model) + model.kept_order * self.raw
        return np.nan_to_num(np.clip(found, 0.0, 1.0))

    def _learned(self, model: Logistic | Isotonic) -> Floats:
        if isinstance(model, Isotonic):
            return np.interp(self.raw, model.x, model.y)
        rows = (self.features - model.centre) / model.scale
        found: Floats = special.expit(model.intercept + rows @ np.array(model.weights))
        return found


def calibrated(parts: Sequence[Part], model: Logistic | Isotonic | None) -> list[Part]:
    """The parts with the confidence that a model gives them; without one, with the raw one."""
    return [replace(p, judgement=confidence.calibrated(p.judgement, model)) for p in parts]


def sure(part: Part, model: Logistic | Isotonic | None) -> float:
    """The part's confidence under a model; 0 where there is no verdict."""
    return confidence.calibrated(part.judgement, model).confidence or 0.0


def _fit(
    make: type[Logistic] | type[Isotonic], parts: Sequence[Part], right: Flags
) -> Logistic | Isotonic:
    return _logistic(parts, right) if make is Logistic else _isotonic(parts, right)


def _logistic(parts: Sequence[Part], right: Flags) -> Logistic:
    """Logistic regression in which what speaks for a verdict never counts against it.

    Of the features with a weight below 0 the worst is taken out, until there is none: with a few
    dozen errors such weights are chance, and turn the order of the sure parts round. What is left
    may say the same of every verdict of good: then the order of the raw confidence is kept.
    """
    rows = np.array([confidence.features(part.judgement) for part in parts])
    centre, scale = rows.mean(0), rows.std(0)
    scale[scale < 1e-9] = 1.0
    rows = (rows - centre) / scale
    free = [name in confidence.EITHER_WAY for name in confidence.FEATURES]
    kept = np.ones(len(free), dtype=bool)
    weights = np.zeros(len(free))
    while True:
        found = LogisticRegression(max_iter=1000).fit(rows[:, kept], right)
        weights[:], weights[kept] = 0.0, found.coef_[0]
        against = np.where(free, 0.0, weights)
        if against.min() >= 0:
            break
        kept[against.argmin()] = False
    return Logistic(
        centre=tuple(map(float, centre)),
        scale=tuple(map(float, scale)),
        weights=tuple(map(float, weights)),
        intercept=float(found.intercept_[0]),
        kept_order=confidence.KEPT_ORDER,
    )


def _isotonic(parts: Sequence[Part], right: Flags) -> Isotonic:
    raw = np.array([confidence.raw(part.judgement) for part in parts], dtype=np.float64)
    found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, right)
    return Isotonic(
        x=tuple(map(float, found.X_thresholds_)), y=tuple(map(float, found.y_thresholds_))
    )
