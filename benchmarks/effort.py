"""What more effort buys: cost of a part against coverage at equal risk, way by way.

    python -m benchmarks.effort [--count 1000] [--model FOLDER] [--keep DIR] [--jobs N]

`--count` is the number of parts a product, half of them anomalous. The same parts are judged with
one greedy rationale each; with four more drawn for those in doubt; with four more for all; and with
three or seven more under other references (four or eight in all) for those in doubt. Doubt is a
weakest token below 0.9. Seconds are those of one process of one thread, batches of 64 shared out,
and belong to the machine; tokens do not.

Coverage is the share decided without a person at the threshold where 0.5%, 1% and 5% of the decided
are wrong, counted on these very parts: so all ways stand at the same realised risk, and none at a
threshold's luck elsewhere. It is no promise. The parts are split into thirds twenty times, and each
part's confidence learned from the two other thirds. Intervals are by bootstrap: each draw takes
parts anew, the same ones for all ways, and one of the twenty splits, and chooses its threshold
among them; they are those of one calibration, of which the figure is the mean. What a way gains is
the difference to one greedy rationale in the same draw.

Beside it the share of the bad parts that pass where the least sure 5%, 10% and 20% of all go to
people, by the learned confidence and by the raw one, which decides until a recipe is calibrated.

Judgements are kept (`--keep`), and a run that was killed goes on. By default 25,000 judgements,
some 40 minutes on two cores, and five more to learn; `--count 40` takes three in all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import judged
from benchmarks.confidence import decidable
from benchmarks.judged import DRAWN, GREEDY, Way
from lad_agent.promise import SURE
from lad_agent.training import synloco
from lad_agent.training.calibration import Part, fitting
from lad_agent.training.evaluation import Resampling, bootstrap, scores
from lad_agent.training.evaluation.scores import ERRORS, Flags, Floats

WAYS = {
    "one greedy rationale": GREEDY,
    "and 4 drawn for the doubtful": DRAWN,
    "and 4 drawn for all": Way("all", {"samples": 4, "sample_below": 1.0}),
    "and 3 other references for the doubtful": Way(
        "references", {"samples": 0, "sample_below": 0.9, "other_references": 3}, references=4
    ),
    "and 7 other references for the doubtful": Way(
        "references-8", {"samples": 0, "sample_below": 0.9, "other_references": 7}, references=8
    ),
}

PEOPLE = (0.05, 0.1, 0.2)
"""Shares of the parts that go to people, at which is told what passes."""

Strata = Sequence[tuple[str, str]]

SPLITS = 20
"""Times that the parts are split into thirds and the confidence is learned anew."""


@dataclass(frozen=True)
class Known:
    """What confidence knows of the parts of one way.

    `sure` is shape [splits, parts], each part's confidence as other parts have taught it; of all
    those models, three a split, `learned` had errors enough, and the others are the raw confidence,
    `raw`, shape [1, parts]. `bad` are the bad parts, `passing` those said to be good, and
    `decidable` those that go to people for nothing but their confidence.
    """

    right: Flags
    bad: Flags
    passing: Flags
    decidable: Flags
    raw: Floats
    sure: Floats
    learned: int

    @classmethod
    def of(cls, parts: Sequence[Part], splits: int) -> "Known":
        """The same seeded splits for all parts of as many."""
        shown = fitting.Shown.of(parts)
        sure, learned = np.empty((splits, len(parts))), 0
        for seed, told in enumerate(sure):
            thirds = np.random.default_rng(seed).permutation(len(parts)) % 3
            for n in range(3):
                others = [part for part, its in zip(parts, thirds, strict=True) if its != n]
                model = fitting.fit(others, seed)
                learned += model is not None
                told[thirds == n] = shown.sure(model)[thirds == n]
        return cls(
            np.array([part.right for part in parts], dtype=bool),
            np.array([part.bad for part in parts], dtype=bool),
            np.array([part.judgement.anomalous is False for part in parts], dtype=bool),
            np.array([decidable(part) for part in parts], dtype=bool),
            shown.sure(None)[None],
            sure,
            learned,
        )

    def coverage(self, error: float, weights: Floats) -> Floats:
        """The share of the parts that is decided with at most the share `error` of it wrong.

        Shape [draws] for weights of shape [draws, parts]; each draw is told by one of the splits,
        in turn, and by the threshold that is best for it.
        """
        ours = self.decidable

        def covered(sure: Floats, own: Floats) -> Floats:
            found = scores.coverage_at(error, sure[ours], self.right[ours], own[:, ours])
            return found * scores.ratio(own[:, ours].sum(1), own.sum(1))

        return _in_turn(covered, self.sure, weights)

    def passed(self, people: float, sure: Floats, weights: Floats) -> Floats:
        """The share of the bad parts that passes where the least sure share `people` of all parts
        goes to people; shape [draws] for `sure` of shape [splits, parts], as `coverage`."""

        def escaped(told: Floats, own: Floats) -> Floats:
            order = np.argsort(np.where(self.decidable, told, -1.0), kind="stable")
            decided = np.cumsum(own[:, order], 1) > people * own.sum(1, keepdims=True)
            escapes = decided * own[:, order] * (self.bad & self.passing)[order]
            return scores.ratio(escapes.sum(1), own[:, self.bad].sum(1))

        return _in_turn(escaped, sure, weights)


def _in_turn(tell: Callable[[Floats, Floats], Floats], sure: Floats, weights: Floats) -> Floats:
    """What `tell` says of each draw by one of the splits `sure`, each in turn; shape [draws]."""
    out = np.empty(len(weights))
    for split, told in enumerate(sure):
        out[split :: len(sure)] = tell(told, weights[split :: len(sure)])
    return out


def main() -> None:
    options = judged.arguments(__doc__, count=1000).parse_args()
    half = options.count * len(synloco.PRODUCTS) // 2
    keys = judged.mixed("train", half, half)
    judge = partial(judged.parts, keys, options.model, options.keep, jobs=options.jobs)
    found = {name: judge(way=way) for name, way in WAYS.items()}
    print(judged.table(costs(found)))
    print()
    known = {name: Known.of(parts, SPLITS) for name, parts in found.items()}
    strata = [(key.product, key.kind) for key in keys]
    print(judged.table(coverages(known, strata)))
    print()
    print(judged.table(escapes(known, strata)))
    print(f"\n{len(keys)} parts. In brackets: {SURE:.0%}, by bootstrap.")


def costs(found: Mapping[str, Sequence[Part]]) -> list[list[str]]:
    """Heading, and a row for each way: what it takes."""
    out = [["way", "asked more", "seconds a part", "tokens a part", "verdicts right"]]
    for name, parts in found.items():
        said = [part.judgement for part in parts]
        out.append(
            [
                name,
                f"{np.mean([judgement.samples > 0 for judgement in said]):.1%}",
                f"{np.mean([judgement.elapsed_s for judgement in said]):.4f}",
                f"{np.mean([judgement.tokens for judgement in said]):.0f}",
                f"{np.mean([part.right for part in parts]):.1%}",
            ]
        )
    return out


def coverages(known: Mapping[str, Known], strata: Strata) -> list[list[str]]:
    """Heading, and a row for each way: what it decides, beside the first one, of the same parts."""
    out = [["way"]]
    for error in ERRORS:
        out[0] += [f"coverage at {error:.1%} errors", f"gained at {error:.1%} errors"]
    out[0].append("confidence learned")
    for name, one in known.items():
        row = [name]
        for error in ERRORS:
            row += _cells(partial(Known.coverage, error=error), one, known, strata)
        out.append([*row, f"{one.learned} of {3 * len(one.sure)}"])
    return out


def escapes(known: Mapping[str, Known], strata: Strata) -> list[list[str]]:
    """Heading, and two rows for each way: what passes of the bad, beside the first one."""
    out = [["confidence", "way"]]
    for people in PEOPLE:
        out[0] += [f"bad passed, {people:.0%} to people", "against one rationale"]
    for confidence in ("raw", "learned"):
        for name, one in known.items():
            row = [confidence, name]
            for people in PEOPLE:
                row += _cells(partial(_passed, people, confidence), one, known, strata)
            out.append(row)
    return out


def _passed(people: float, confidence: str, one: Known, weights: Floats) -> Floats:
    return one.passed(people, one.raw if confidence == "raw" else one.sure, weights)


def _cells(
    share: Callable[..., Floats], one: Known, known: Mapping[str, Known], strata: Strata
) -> tuple[str, str]:
    """A share of one way by `share(way, weights=...)`, and the points between it and that of the
    first way."""
    first = next(iter(known.values()))

    def figures(weights: Floats) -> dict[str, Floats]:
        own = share(one, weights=weights)
        return {"own": own, "gained": own - share(first, weights=weights)}

    plain = {name: found.mean() for name, found in figures(np.ones_like(one.sure)).items()}
    ends = bootstrap.intervals(figures, strata, Resampling())
    assert ends["own"] is not None
    assert ends["gained"] is not None
    (low, high), (less, more) = ends["own"], ends["gained"]
    gained = f"{100 * plain['gained']:+.1f} ({100 * less:+.1f} to {100 * more:+.1f})"
    return f"{plain['own']:.1%} ({low:.1%}-{high:.1%})", "-" if one is first else gained


if __name__ == "__main__":
    main()
