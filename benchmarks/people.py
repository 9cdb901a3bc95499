"""What calibration is worth to a plant: the share of parts sent to people at 1% escapes.

    python -m benchmarks.people [--count 680] [--escape 0.01] [--model FOLDER] [--keep DIR]
                                [--jobs N]

`--count` is the number of parts a product, half of them anomalous, within the ranges of training.
All products are decided by one threshold, as on one line, in five ways: the shipped recipes as they
are; one threshold on the raw confidence for both verdicts, the most lenient that keeps the rate,
which is all that a recipe could say before there was `lad-agent calibrate`; the same threshold for
the verdict of good alone, bad ones standing as shipped; the same rule on the learned confidence;
and as calibrate promises it, 95% sure. So what a row gains on the one before is that of the
threshold's reach, of the confidence, and of the certainty. Of three thirds by content one fits the
confidence, one chooses the threshold (both where nothing is fitted), and one is decided and
counted, in three turns. What passed beside it is how well the rate was kept on those.

Judgements are kept (`--keep`), and shared with `benchmarks.confidence` where the shipped recipes
ask as it does. By default 3,400 judgements, some six minutes on two cores; `--count 40` takes one.
"""

from collections.abc import Callable, Mapping, Sequence

from benchmarks import judged
from benchmarks.confidence import third
from benchmarks.judged import share
from lad_agent import confidence, policy, recipe
from lad_agent.confidence import ConfidenceModel
from lad_agent.errors import CheckFailed
from lad_agent.judgement import Result
from lad_agent.promise import SURE
from lad_agent.recipe import Policy
from lad_agent.training import synloco
from lad_agent.training.calibration import Asked, Part, choose, fitting
from lad_agent.training.calibration.trials import lenient

TASK = recipe.load(recipe.shipped(synloco.PRODUCTS[0]))
"""For its policy, which all shipped recipes share."""

Decided = tuple[ConfidenceModel | None, Policy]
Way = Callable[[Sequence[Part], Sequence[Part], float], Decided]
"""From parts to fit on, others to choose by, and the escape rate, to how parts are decided."""


def main() -> None:
    parser = judged.arguments(__doc__, count=680)
    parser.add_argument("--escape", type=float, default=0.01)
    options = parser.parse_args()
    half = options.count * len(synloco.PRODUCTS) // 2
    keys = judged.mixed("train", half, half)
    found = judged.parts(keys, options.model, options.keep, jobs=options.jobs)
    print(judged.table(rows(found, options.escape)))
    print(f"\n{half} good parts and {half} bad ones. In brackets: {SURE:.0%}, exact.")


def rows(parts: Sequence[Part], escape: float) -> list[list[str]]:
    """Heading, and a row for each way."""
    out = [["decided by", "sent to people", "of the good", "of the bad", "bad ones passed",
            "good ones rejected"]]  # fmt: skip
    thirds = [[part for part in parts if third(part) == n] for n in range(3)]
    bad = sum(part.bad for part in parts)
    for words, way in WAYS.items():
        name = words.format(escape=confidence.percent(escape))
        decided: list[tuple[bool, Result]] = []
        try:
            for n in range(3):
                made = way(thirds[(n + 1) % 3], thirds[(n + 2) % 3], escape)
                decided += [(part.bad, _result(part, made)) for part in thirds[n]]
        except CheckFailed as refused:
            out.append([name, f"refused: {str(refused).partition(';')[0]}", *["-"] * 4])
            continue
        out.append(
            [
                name,
                share(sum(found is Result.NOT_DECIDABLE for _, found in decided), len(parts)),
                share(decided.count((False, Result.NOT_DECIDABLE)), len(parts) - bad),
                share(decided.count((True, Result.NOT_DECIDABLE)), bad),
                share(decided.count((True, Result.OK)), bad),
                share(decided.count((False, Result.NOT_OK)), len(parts) - bad),
            ]
        )
    return out


def _as_shipped(fit: Sequence[Part], others: Sequence[Part], escape: float) -> Decided:
    return None, TASK.policy


def _raw(fit: Sequence[Part], others: Sequence[Part], escape: float) -> Decided:
    return _least(fit, others, escape, "min_confidence")


def _raw_for_good(fit: Sequence[Part], others: Sequence[Part], escape: float) -> Decided:
    return _least(fit, others, escape, "pass_confidence")


def _least(fit: Sequence[Part], others: Sequence[Part], escape: float, threshold: str) -> Decided:
    least = lenient(fitting.calibrated([*fit, *others], None), TASK.policy, escape)
    return None, TASK.policy.model_copy(update={threshold: least})


def _learned(fit: Sequence[Part], others: Sequence[Part], escape: float) -> Decided:
    model = fitting.fit(fit, seed=0)
    chosen_on = others if model else [*fit, *others]
    least = lenient(fitting.calibrated(chosen_on, model), TASK.policy, escape)
    return model, TASK.policy.model_copy(update={"pass_confidence": least})


def _promised(fit: Sequence[Part], others: Sequence[Part], escape: float) -> Decided:
    made = choose([*fit, *others], TASK, Asked(escape))
    return made.calibration.confidence_model, made.policy


WAYS: Mapping[str, Way] = {
    "the shipped recipes as they are": _as_shipped,
    "raw confidence at {escape} escapes, for both verdicts": _raw,
    "raw confidence at {escape} escapes, for the verdict of good alone": _raw_for_good,
    "learned confidence at {escape} escapes, for the verdict of good alone": _learned,
    "{escape} escapes promised, 95% sure, for the verdict of good alone": _promised,
}


def _result(part: Part, made: Decided) -> Result:
    model, chosen = made
    return policy.decide(confidence.calibrated(part.judgement, model), chosen).result


if __name__ == "__main__":
    main()
